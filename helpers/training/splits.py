"""Split triplets into a train and a held-out part, the wrong and the right way, and tell how much data there is."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from helpers.collection.text import normalise
from helpers.store.files import WorkbookError
from helpers.training.triplets import Triplet

Split = tuple[list[Triplet], list[Triplet]]
# Different queries: rules of thumb, which the learning curve of notebook 06 puts to the test.
COLLECT_BELOW = 100  # fewer are worth more as an evaluation set
LIGHT_BELOW = 500  # enough for an adapter on frozen vectors or for a reranker, hardly for a whole encoder
MAYBE_BELOW = 1000  # fine-tuning may pay from LIGHT_BELOW on, and usually does above this


def _target(triplets: Sequence[Triplet], share: float) -> int:
    """How many triplets to hold out: the share, but at least one on either side."""
    if len(triplets) < 2:
        raise WorkbookError(f"A split needs at least two triplets, and there are {len(triplets)}.")
    return min(max(1, round(share * len(triplets))), len(triplets) - 1)


def split_rows(triplets: Sequence[Triplet], share: float, seed: int = 0) -> Split:
    """(train, held out) by drawing rows at random: the WRONG way, for a query or passage can end up on both sides.

    ``share`` of the triplets is held out. A model is then graded on what it was trained on: see ``leaks``.
    """
    target = _target(triplets, share)
    held = set(np.random.default_rng(seed).permutation(len(triplets))[:target].tolist())
    return _cut(triplets, [i in held for i in range(len(triplets))])


def split_by_passage(
    triplets: Sequence[Triplet], share: float, seed: int = 0, corpus: Mapping[str, str] | None = None
) -> Split:
    """(train, held out) with no query and no positive passage on both sides; the right way.

    Triplets that share a query (same words) or a positive stay together, through any chain of them. ``seed`` draws
    which of these groups are held out; their triplets add up to as nearly ``share`` of all as any choice of groups can.
    With a ``corpus``, passages of the same text count as one. Raises WorkbookError when all triplets are one group.
    """
    target = _target(triplets, share)
    query = pd.factorize(pd.Series([normalise(t.query) for t in triplets]))[0]
    passage = pd.factorize(pd.Series([_passage(t, corpus) for t in triplets]))[0]
    nodes = query.max() + 1 + passage.max() + 1
    links = coo_matrix((np.ones(len(triplets)), (query, query.max() + 1 + passage)), shape=(nodes, nodes))
    group = pd.factorize(connected_components(links, directed=False)[1][query])[0]
    sizes = np.bincount(group)
    if len(sizes) == 1:
        raise WorkbookError(
            "All triplets hang together by shared queries and passages: no clean split exists; collect other queries."
        )
    held = _groups_that_add_up_to(target, sizes, np.random.default_rng(seed).permutation(len(sizes)))
    return _cut(triplets, [g in held for g in group.tolist()])


def _groups_that_add_up_to(target: int, sizes: np.ndarray, order: np.ndarray) -> set[int]:
    """The groups whose sizes come nearest to the target, those early in ``order`` first; neither none nor all."""
    last = np.full(sizes.sum(), -1)  # last[s]: the group that first made the sum s possible
    possible = np.zeros(len(last), dtype=bool)
    possible[0] = True
    for g in order:
        size = sizes[g]
        new = np.flatnonzero(possible[:-size] & ~possible[size:]) + size
        last[new], possible[new] = g, True
        if possible[target]:
            break
    sums = np.flatnonzero(possible[1:]) + 1
    total = sums[np.abs(sums - target).argmin()]
    held = set()
    while total:
        held.add(int(last[total]))
        total -= sizes[last[total]]
    return held


def _cut(triplets: Sequence[Triplet], held_out: Sequence[bool]) -> Split:
    both = list(zip(triplets, held_out, strict=True))
    return [t for t, held in both if not held], [t for t, held in both if held]


def _passage(triplet: Triplet, corpus: Mapping[str, str] | None) -> str:
    return triplet.positive_id if corpus is None else normalise(corpus.get(triplet.positive_id, triplet.positive_id))


def leaks(
    train: Sequence[Triplet], held_out: Sequence[Triplet], corpus: Mapping[str, str] | None = None
) -> dict[str, int]:
    """How much of the held-out part is in train as well; all three numbers are 0 after ``split_by_passage``.

    "queries" and "positives" are the different queries (by their words) and positives on both sides, "triplets" the
    held-out triplets that have one of them. With a ``corpus``, passages of the same text count as one.
    """
    queries = {normalise(t.query) for t in train} & {normalise(t.query) for t in held_out}
    passages = {_passage(t, corpus) for t in train} & {_passage(t, corpus) for t in held_out}
    either = sum(normalise(t.query) in queries or _passage(t, corpus) in passages for t in held_out)
    return {"queries": len(queries), "positives": len(passages), "triplets": either}


def coverage(triplets: Sequence[Triplet], groups: Mapping[str, str]) -> pd.DataFrame:
    """How well the triplets cover the passages, one row a group (``groups`` is {doc_id: group}), the biggest first.

    Columns: passages of the group in the collection; positives, how many of them are one; triplets; different queries;
    share of the passages that are a positive, in [0, 1]. Raises WorkbookError for a positive without a group.
    """
    lost = next((t.positive_id for t in triplets if t.positive_id not in groups), None)
    if lost is not None:
        raise WorkbookError(f"The positive {lost!r} has no group: pass the groups of the collection it comes from.")
    sizes = pd.Series(groups).value_counts()
    rows = pd.DataFrame(
        [(groups[t.positive_id], t.positive_id, normalise(t.query)) for t in triplets],
        columns=["group", "doc", "query"],
    )
    covered = rows.groupby("group").agg(
        positives=("doc", "nunique"), triplets=("doc", "size"), queries=("query", "nunique")
    )
    table = pd.DataFrame({"passages": sizes}).join(covered).fillna(0).astype(int).rename_axis("group")
    table["share"] = table["positives"] / table["passages"]
    return table.sort_index().sort_values("passages", ascending=False, kind="stable")


def enough(triplets: Sequence[Triplet]) -> str:
    """A sentence that says what this many different queries are enough for, by a rule of thumb."""
    queries, passages = len({normalise(t.query) for t in triplets}), len({t.positive_id for t in triplets})
    have = f"{queries:,} different queries on {passages:,} passages ({len(triplets):,} triplets)"
    if queries < COLLECT_BELOW:
        advice = f"too few to train on: collect more, at least {COLLECT_BELOW}, and use these to evaluate"
    elif queries < LIGHT_BELOW:
        advice = "enough for an adapter or a reranker's weights, hardly for a whole encoder"
    elif queries < MAYBE_BELOW:
        advice = "fine-tuning may pay: try it and compare on held-out queries"
    else:
        advice = "enough to fine-tune: go, and see whether more would still help"
    return f"{have}: {advice}. This is a rule of thumb; the learning curve of notebook 06 tests it on your data."

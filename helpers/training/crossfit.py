"""Does a gain carry over to passages without training text? Cross-fitting over halves of the passages answers it."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from helpers.evaluation.measures import Qrels, per_query
from helpers.models.embed import Embedder, unit
from helpers.retrieval.first_stages import nearest
from helpers.training.adapter import train_adapter
from helpers.training.triplets import Triplet

SPLITS = 8
TRAINED, NEW = "a right passage was trained on", "none was"


def halves(triplets: Sequence[Triplet], splits: int = SPLITS, seed: int = 0) -> list[frozenset[str]]:
    """For each split, one half of the passages that have training text, drawn at random; the other half is left out.

    Splits come in pairs, a half and the other one, so that every passage is trained on in half of them.
    """
    passages, rng = sorted({t.positive_id for t in triplets}), np.random.default_rng(seed)
    drawn: list[frozenset[str]] = []
    while len(drawn) < splits:
        order = rng.permutation(passages).tolist()
        middle = len(order) // 2
        drawn += [frozenset(order[:middle]), frozenset(order[middle:])]
    return drawn[:splits]


def cross_fitted(
    triplets: Sequence[Triplet],
    embedder: Embedder,
    corpus: Mapping[str, str],
    dev: tuple[Mapping[str, str], Qrels],
    asked: tuple[Mapping[str, str], Qrels],
    splits: int = SPLITS,
    epochs: int = 10,
    seed: int = 0,
) -> pd.DataFrame:
    """What an adapter gains where a right passage was trained on, and where none was: nDCG@10 over the plain encoder.

    Each split trains an adapter on the training text of one of the ``halves`` of the passages; dev chooses its epoch. A
    query counts as ``TRAINED`` in the splits in which one of its relevant passages is in that half, as ``NEW`` in those
    in which none is.

    Returns one row per query of ``asked``, with a column for each of the two: the mean gain over such splits, nan where
    there was none. The same queries stand in both columns, so neither is the easier half. Source of the idea:
    cross-fitting, Chernozhukov et al., Double/Debiased Machine Learning, 2018.
    """
    queries, qrels = asked
    ids = sorted(corpus)
    passages = embedder.embed([corpus[d] for d in ids], "document")
    vectors = embedder.embed(list(queries.values()), "query")
    base = per_query(qrels, nearest(queries, vectors, ids, passages, 10))["ndcg@10"]
    right = {q: {d for d, grade in qrels[q].items() if grade > 0} for q in base.index}
    gains: dict[str, list[pd.Series]] = {TRAINED: [], NEW: []}
    for half in halves(triplets, splits, seed):
        rows = [t for t in triplets if t.positive_id in half]
        matrix, _ = train_adapter(rows, embedder, corpus, dev, epochs, seed)
        tuned = per_query(qrels, nearest(queries, unit(vectors @ matrix), ids, passages, 10))["ndcg@10"]
        among = np.array([bool(right[q] & half) for q in base.index])
        gains[TRAINED].append((tuned - base).where(among))
        gains[NEW].append((tuned - base).where(~among))
    return pd.DataFrame({group: pd.concat(parts, axis=1).mean(axis=1) for group, parts in gains.items()})

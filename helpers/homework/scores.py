"""What dev picks and what the final split says about it: scores of each query, comparisons, and the scoreboard's rows.

Everything is chosen on dev; test is read once.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from helpers.collection.collection import AUTHORS
from helpers.evaluation.comparing import Comparison, compared, in_order
from helpers.evaluation.measures import latency, per_part, read_scoreboard, record
from helpers.homework.sources import Sources
from helpers.homework.systems import Runs, System, Systems, with_reranker
from helpers.homework.tuning import Tuned
from helpers.models.load import load_late_interaction, load_reranker, token_encoder
from helpers.retrieval.first_stages import Retriever, truncate
from helpers.retrieval.read_pairs import known_pairs, pair_key
from helpers.retrieval.rerankers import CrossEncoderReranker, LateInteraction
from helpers.store.files import write_text

WORTH = 0.01  # nDCG@10: a gain that is worth collecting twice the data for
RERANKED = (50, 20, 10)  # depths of the second stage; the first whose passages are few enough to keep in memory
MOST_RERANKED = 5000  # passages whose token vectors are held at once: about a gigabyte at 256 tokens
MOST_READ = 750_000  # tokens that the packaged cross-encoder reads in about six minutes on two cores
TOKENS_PER_QUERY = 15  # assumed of a query
NOTEBOOK = "11_homework"


@dataclass(frozen=True)
class Scores:
    """nDCG@10 of each query for each system, and the comparisons that decide.

    base : the present system;  untrained, tuned : what dev picks without and with training; ``tuned`` may be None
    candidates : all untrained systems, the present one first
    final : the split that decides, "test" or "dev"; None where no query is judged
    dev, on_final : {system's name: score of each query}
    reranked : {first stage: its system with a reranker}, where one helps on dev
    judged : {system's name: share of its first ten on test that is judged};  ms : {…: milliseconds a query}
    comparisons : on the final split, in a planned order (``compare_picks``)
    notices : sentences for the reader
    parts : {kind of query: {name of a system that may be chosen: score of each of its queries}} on the final split,
        where there are kinds
    """

    base: System
    untrained: System
    tuned: System | None = None
    candidates: Sequence[System] = ()
    final: str | None = None
    dev: Mapping[str, Sequence[float]] = field(default_factory=dict)
    on_final: Mapping[str, Sequence[float]] = field(default_factory=dict)
    reranked: Mapping[System, System] = field(default_factory=dict)
    judged: Mapping[str, float] = field(default_factory=dict)
    ms: Mapping[str, float] = field(default_factory=dict)
    comparisons: Sequence[Comparison] = ()
    notices: Sequence[str] = ()
    parts: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)

    def comparison(self, system: System | None, baseline: System) -> Comparison | None:
        """The comparison of these two, None where they were not compared."""
        if system is None:
            return None
        names = system.name, baseline.name
        return next((c for c in self.comparisons if (c.system, c.baseline) == names), None)


def simplest(scores: Mapping[str, Sequence[float]]) -> str:
    """The first system whose mean is within one standard error of the best mean.

    ``scores`` are {system: score of each dev query}, cheapest first. The standard error is that of the paired
    difference to the best, so fewer queries make for a simpler choice. The one-standard-error rule is from Breiman,
    Friedman, Olshen and Stone, Classification and Regression Trees, 1984, section 3.4.3.
    """
    names = list(scores)
    values = {name: np.asarray(scores[name], dtype=float) for name in names}
    if len(values[names[0]]) < 2:
        return names[0]
    best = max(names, key=lambda name: round(float(values[name].mean()), 9))  # of equal ones the first
    for name in names:
        short = values[best] - values[name]
        if short.mean() <= short.std(ddof=1) / np.sqrt(len(short)) + 1e-12:
            return name
    return best


def nominee(scores: Mapping[str, Sequence[float]]) -> str:
    """The system that test shall compare with the present one; the present one itself if there is none.

    ``scores`` are {system: score of each dev query}, cheapest first; the first is the present system. The nominee is
    the ``simplest``. If that is the present one, it is the best on dev, provided that this is better by ``WORTH``: too
    few dev queries are no proof that nothing is better, and test has to prove it in any case.
    """
    present, pick = next(iter(scores)), simplest(scores)
    if pick != present or not scores[present]:
        return pick
    means = {name: float(np.mean(values)) for name, values in scores.items()}
    best = max(means, key=lambda name: round(means[name], 9))
    return best if means[best] - means[present] >= WORTH else present


def rerank_depth(runs: Runs, firsts: Sequence[System]) -> int:
    """How many passages a second stage reorders: 50, or fewer where memory cannot hold their token vectors.

    It is the first of ``RERANKED`` at which the best of all dev queries are at most ``MOST_RERANKED`` passages.
    """
    on_dev = [runs.of_chunks(first, "dev") for first in firsts]

    def size(depth: int) -> int:
        return len({d for run in on_dev for docs in run.values() for d in list(docs)[:depth]})

    return next((depth for depth in RERANKED if size(depth) <= MOST_RERANKED), RERANKED[-1])


def cross_encoder_for(runs: Runs, firsts: Sequence[System]) -> tuple[CrossEncoderReranker | None, list[str]]:
    """(the cross-encoder or None, notices): the packaged one only where it has no more than ``MOST_READ`` to read.

    Pairs whose scores are committed need no reading.
    """
    model = load_reranker()
    if model is None:
        return None, []
    given = known_pairs(runs.collection, model)
    unread = {
        pair_key(runs.queries(split)[0][q], runs.chunks.texts[d])
        for split in ("dev", "test", AUTHORS)
        for first in firsts
        for q, docs in truncate(runs.of_chunks(first, split), RERANKED[-1]).items()
        for d in docs
    } - set(given)
    tokens = len(unread) * (runs.chunks.tokens / len(runs.chunks.texts) + TOKENS_PER_QUERY)
    if tokens <= MOST_READ or os.environ.get("RERANKER_MODEL"):
        return CrossEncoderReranker(model, runs.chunks.folder, given=given), []
    return None, [
        f"A cross-encoder would have to read {len(unread):,} pairs, {tokens:,.0f} tokens, which is done up to "
        f"{MOST_READ:,}: RERANKER_MODEL=ms-marco-minilm does it all the same."
    ]


def second_stages(runs: Runs, firsts: Sequence[System], cross: CrossEncoderReranker | None) -> dict[System, System]:
    """{first stage: its two-stage system}, where a reranker helps on dev.

    Of two rerankers the one that is better on dev is taken. Late interaction uses the token vectors of the encoder that
    the first stage has, because those of the tuned one are better for it (notebook 07).
    """
    folder, depth = runs.chunks.folder, rerank_depth(runs, firsts)
    base = LateInteraction(load_late_interaction(), folder)
    others = [(cross, RERANKED[-1])] if cross is not None else []
    helpful: dict[System, System] = {}
    for first in firsts:
        late = LateInteraction(token_encoder(first.encoder), folder, "tuned late interaction") if first.tuned else base
        made = [with_reranker(runs, first, reranker, cut) for reranker, cut in ((late, depth), *others)]
        system, _ = max(made, key=lambda one: one[1] if one[1] == one[1] else 0.0)
        if system.weight > 0:
            helpful[first] = system
    return helpful


def _latency(system: System, retriever: Retriever, queries: Mapping[str, str]) -> float:
    """Milliseconds a query; ``system`` is here for the stage's key, ``retriever`` answers with documents."""
    return latency(retriever, queries, n=20)


def put_on_scoreboard(runs: Runs, system: System, split: str) -> dict[str, float]:
    """Score a system and record it with its latency, which is measured once and kept.

    Returns its scores with "ms" (a query) and "usd" (1,000 queries).
    """
    asked, name = runs.queries("test")[0] or runs.queries("dev")[0], system.name
    retriever = runs.chunks.by_document(system.retriever)
    ms = runs.stages.run(f"latency: {name}", _latency, system, retriever, asked, tell=lambda ms: f"{ms:.1f} ms a query")
    usd = system.retriever.usd_per_1000_queries
    run = runs.of_documents(system, split)
    if split == "test":
        run = run | runs.of_documents(system, AUTHORS)
    scores = record(runs.collection, split, name, run, NOTEBOOK, ms, usd)
    return scores | {"ms": ms, "usd": usd}


def by_kind(runs: Runs, systems: Sequence[System], final: str) -> dict[str, dict[str, list[float]]]:
    """{kind of query: {system's name: nDCG@10 of each of its queries}}; {} where all queries are of one kind."""
    found: dict[str, dict[str, list[float]]] = {}
    for system in systems if runs.collection.kinds(final) else ():
        run = runs.of_documents(system, final) | runs.of_documents(system, AUTHORS)
        for part, scores in per_part(runs.collection, final, run).items():
            if part != final:
                found.setdefault(part.rpartition("/")[2], {})[system.name] = scores["ndcg@10"].tolist()
    return found


def keep_rows(runs: Runs, names: Sequence[str]) -> None:
    """Take the homework's systems that are not among ``names`` off the scoreboard; the notebooks' rows stay."""
    board = read_scoreboard(runs.collection)
    kept = board[(board["notebook"] != NOTEBOOK) | board["system"].isin(names)]
    if len(kept) < len(board):
        write_text(runs.collection.build / "scoreboard.csv", kept.to_csv(index=False, float_format="%.6g"))


def score_systems(systems: Systems, tuned: Tuned, sources: Sources) -> Scores:
    """Pick on dev, add rerankers to what was picked, score all on the final split, and compare the picks there."""
    runs, base, final = systems.runs, systems.encoder, sources.final
    if final is None:
        return Scores(base, base)
    all_systems = {system.name: system for system in (*systems.untrained, *tuned.systems)}
    dev = {name: runs.scores(system, "dev") for name, system in all_systems.items()}
    untrained, tuned_pick = systems.hybrid, None  # named before test is read, where dev cannot choose it
    if sources.dev and not sources.dev_made:
        untrained = all_systems[nominee({system.name: dev[system.name] for system in systems.untrained})]
    if tuned.systems:
        best = simplest({system.name: dev[system.name] for system in tuned.systems})
        without = max(np.mean(dev[system.name]) for system in (base, untrained))
        tuned_pick = all_systems[best] if np.mean(dev[best]) > without else None
    firsts = list(dict.fromkeys(system for system in (base, untrained, tuned_pick) if system))
    cross, notices = cross_encoder_for(runs, firsts)
    reranked = second_stages(runs, firsts, cross)
    all_systems |= {system.name: system for system in reranked.values()}
    on_final = {name: runs.scores(system, final) for name, system in all_systems.items()}
    judged: dict[str, float] = {}
    ms: dict[str, float] = {}
    for name, system in all_systems.items():
        if sources.dev:
            dev[name] = runs.scores(system, "dev")
            ms[name] = put_on_scoreboard(runs, system, "dev")["ms"]
        if final == "test":
            row = put_on_scoreboard(runs, system, "test")
            judged[name], ms[name] = row["judged@10"], row["ms"]
    keep_rows(runs, list(all_systems))
    comparisons = compare_picks(base, untrained, tuned_pick, reranked, on_final)
    return Scores(
        base,
        untrained,
        tuned_pick,
        systems.untrained,
        final,
        dev,
        on_final,
        reranked,
        judged,
        ms,
        comparisons,
        notices,
        by_kind(runs, [*firsts, *reranked.values()], final),
    )


def pipeline(untrained: System, tuned: System | None, reranked: Mapping[System, System]) -> System:
    """All that dev picked: the tuned system, or else the untrained one, with its reranker where it has one."""
    first = tuned or untrained
    return reranked.get(first, first)


def compare_picks(
    base: System,
    untrained: System,
    tuned: System | None,
    reranked: Mapping[System, System],
    on_final: Mapping[str, Sequence[float]],
) -> list[Comparison]:
    """The tests on the final split, in their planned order: the whole pipeline that dev picked against the present one.

    Only where it is better do its parts count: the untrained pick against the present system, the tuned pick against
    both, and each reranker against its first stage.
    """
    whole = pipeline(untrained, tuned, reranked)
    pairs = [(whole, base), (untrained, base), (tuned, untrained), (tuned, base)]
    pairs += [(system, first) for first, system in reranked.items()]
    pairs = dict.fromkeys((system, other) for system, other in pairs if system and system is not other)
    tests = [compared(a.name, on_final[a.name], b.name, on_final[b.name]) for a, b in pairs]
    return in_order(tests[0], tests[1:]) if tests else []

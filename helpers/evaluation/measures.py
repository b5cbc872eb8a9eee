"""Scores of a run with their intervals, tests of significance, weights chosen on dev, and the scoreboard."""

import json
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import ir_measures
import numpy as np
import pandas as pd
from ir_measures import RR, Judged, P, R, nDCG
from scipy import stats

from helpers.collection.collection import AUTHORS, Collection
from helpers.retrieval.first_stages import Retriever, Run, fuse
from helpers.store.files import DATA, WorkbookError, fingerprint, write_text

Qrels = Mapping[str, Mapping[str, int]]
MEASURES = {
    "ndcg@10": nDCG @ 10,
    "recall@10": R @ 10,
    "recall@100": R @ 100,
    "p@5": P @ 5,
    "mrr@10": RR @ 10,
    "judged@10": Judged @ 10,
}
RESAMPLES = 9_999
WEIGHTS = tuple(i / 10 for i in range(11))  # of a fusion
TIMINGS = ("ms_p95", "ms_low", "ms_high")  # beside the median, where systems were timed together
COLUMNS = [
    "system",
    "notebook",
    "split",
    "n_queries",
    "ndcg@10",
    "ndcg@10_low",
    "ndcg@10_high",
    "recall@10",
    "recall@100",
    "mrr@10",
    "judged@10",
    "ndcg@10_judged",
    "ms_per_query",
    *TIMINGS,
    "usd_per_1000_queries",
]


def per_query(qrels: Qrels, run: Run) -> pd.DataFrame:
    """One row per query, one column per measure, all in [0, 1], higher is better.

    A grade of 1 or more counts as relevant; nDCG uses the grades themselves. Queries without a relevant passage cannot
    be scored and are left out; a query that the run does not have scores 0. Passages with equal scores count in the
    order of their ids. Raises WorkbookError when run and qrels share no query.
    """
    judged = {q: dict(docs) for q, docs in qrels.items() if any(grade > 0 for grade in docs.values())}
    if not judged:
        raise WorkbookError("The judgments name no relevant passage: there is nothing to score against.")
    if not set(judged) & set(run):
        raise WorkbookError(
            f"The run and the judgments share no query (run: {', '.join(list(run)[:2])} …; "
            f"judgments: {', '.join(list(judged)[:2])} …): were they made from the same collection and split?"
        )
    # Ranks instead of scores, so that no tie is left for the library to break in its own way.
    ranked = {
        q: {d: -float(rank) for rank, d in enumerate(sorted(run[q], key=lambda d, q=q: (-run[q][d], d)))}
        for q in judged
        if run.get(q)
    }
    table = pd.DataFrame(0.0, index=list(judged), columns=list(MEASURES))
    table["judged@10"] = 1.0  # of nothing retrieved, nothing is unjudged
    names = {str(measure): name for name, measure in MEASURES.items()}
    for metric in ir_measures.iter_calc(list(MEASURES.values()), judged, ranked):
        if metric.query_id in ranked:  # the library reports queries without a result too
            table.loc[metric.query_id, names[str(metric.measure)]] = metric.value
    return table


def evaluate(qrels: Qrels, run: Run) -> dict[str, float]:
    """Means over the queries of nDCG@10, R@10, R@100, P@5, RR@10 and Judged@10."""
    return per_query(qrels, run).mean().to_dict()


def per_part(collection: Collection, split: str, run: Run) -> dict[str, pd.DataFrame]:
    """``per_query`` of what a run of a split is scored on: the split, then each of its kinds of query.

    The kinds are ``Collection.kinds``: the slices, and the authors' sentences where the run has them.
    """
    whole = per_query(collection.split(split)[1], run)
    parts = {split: whole}
    for kind in collection.kinds(split):
        queries, qrels = collection.split(kind)
        if kind != AUTHORS:
            parts[kind] = whole.loc[whole.index.isin(queries)]
        elif set(queries) <= set(run):
            parts[kind] = per_query(qrels, run)
    return parts


def evaluate_slices(collection: Collection, split: str, run: Run) -> pd.DataFrame:
    """``evaluate`` on the whole split and on each kind of its queries: a row a part, a column a measure.

    The rows are called by the split ("test"), the slices ("typed") and "authors"; ``n_queries`` is how many each has.
    """
    rows = {
        part.rpartition("/")[2]: {"n_queries": len(scores), **scores.mean().to_dict()}
        for part, scores in per_part(collection, split, run).items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").astype({"n_queries": int})


def first_pool(collection: Collection, split: str) -> Qrels | None:
    """The judgments of a split's described queries as they were before other systems' finds were judged too.

    ``later.tsv`` and ``completed.tsv`` in ``data/<collection>/`` name the pairs that came later. Scores by the first
    judgments show what a pool of a few untrained systems hid. None where there are no later ones; queries whose
    relevant passages were all judged later are left out of such a score.
    """
    files = [file for name in ("later", "completed") if (file := DATA / collection.name / f"{name}.tsv").is_file()]
    if not files:
        return None
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()[1:]]
    later = {tuple(line.split("\t")[:2]) for line in lines}
    described = f"{split}/described"
    qrels = collection.split(described if described in collection.slices(split) else split)[1]
    return {q: {d: g for d, g in docs.items() if (q, d) not in later} for q, docs in qrels.items()}


def interval(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap percentile interval of the mean over queries; (nan, nan) for fewer than two."""
    if len(values) < 2:
        return float("nan"), float("nan")
    result = stats.bootstrap(
        (np.asarray(values),), np.mean, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(seed)
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def judged_only(qrels: Qrels, run: Run) -> Run:
    """The run without the passages that nobody judged for their query, the others in their order.

    nDCG of it is the score of what is known: neither too low, as where unjudged passages count as wrong, nor a bound.
    Source: Sakai, Alternatives to Bpref, SIGIR 2007 (condensed lists).
    """
    return {q: {d: score for d, score in docs.items() if d in qrels.get(q, {})} for q, docs in run.items()}


def with_interval(scores: pd.DataFrame, judged: pd.DataFrame) -> dict[str, float]:
    """The means of ``per_query``'s scores, with the 95 % interval of nDCG@10 and what it is of judged passages alone.

    ``judged`` is ``per_query`` of the ``judged_only`` run. The interval's ends are ``ndcg@10_low`` and
    ``ndcg@10_high``, the number of queries ``n_queries``, and nDCG@10 of the judged passages ``ndcg@10_judged``.
    """
    low, high = interval(scores["ndcg@10"].tolist())
    return {
        **scores.mean().to_dict(),
        "n_queries": len(scores),
        "ndcg@10_low": low,
        "ndcg@10_high": high,
        "ndcg@10_judged": float(judged["ndcg@10"].mean()),
    }


def randomisation_test(differences: Sequence[float]) -> float:
    """Two-sided p of a paired randomisation test: how often flipping signs at random gives as large a mean difference.

    All sign patterns are tried where there are no more than ``RESAMPLES``, else so many random ones.
    Source: Smucker, Allan and Carterette, A Comparison of Statistical Significance Tests for IR, CIKM 2007.
    """
    return paired_test(differences)[2]


def paired_test(differences: Sequence[float]) -> tuple[float, float, float]:
    """(low, high, p): the 95 % interval of a mean of paired differences, and p of the ``randomisation_test``.

    The interval holds every shift that the same test, with the same signs, does not reject at .05, so that it leaves
    out 0 exactly when p is below .05; a bootstrap interval beside a p-value can contradict it. nan for both ends where
    no shift can be rejected, as with five queries. Source: test inversion, as in Lehmann and Romano, Testing
    Statistical Hypotheses, 2005, section 5.12.
    """
    values = np.asarray(differences, dtype=float)
    n, mean = len(values), float(values.mean()) if len(values) else math.nan
    if n < 2:
        return math.nan, math.nan, 1.0
    signs = _signs(n, RESAMPLES)
    spare = int(2**n > RESAMPLES)  # where the patterns are drawn, what was seen counts as one more
    total = len(signs) + spare
    # With the mean shifted to mean − u (or mean + u), a pattern is as extreme as what was seen while u is at most this.
    balance = signs.mean(axis=1)
    rest = signs @ values / n - mean * balance
    with np.errstate(divide="ignore", invalid="ignore"):
        plus, minus = rest / (1 - balance), rest / (1 + balance)
    always = np.abs(balance) == 1  # all signs the same: as extreme at any shift
    down = np.where(always, np.inf, np.fmax(plus, -minus))
    up = np.where(always, np.inf, np.fmax(minus, -plus))
    needed = max(1, math.ceil(0.05 * total - spare - 1e-9))  # so many patterns, and p is .05 or more
    ends = [float(np.partition(reach, -needed)[-needed]) for reach in (down, up)]
    low, high = (mean - ends[0], mean + ends[1]) if np.isfinite(ends).all() else (math.nan, math.nan)
    reach = down if mean >= 0 else up
    p = (int((reach >= abs(mean) - 1e-12).sum()) + spare) / total
    return low, high, float(p)


@lru_cache(maxsize=2)
def _signs(n: int, resamples: int) -> np.ndarray:
    """float of shape (patterns, n), each +1 or −1: all patterns where these are no more than ``resamples``."""
    if 2**n <= resamples:
        return 1.0 - 2.0 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)
    return 1.0 - 2.0 * np.random.default_rng(0).integers(0, 2, size=(resamples, n), dtype=np.int8)


def queries_needed(differences: Sequence[float], gain: float, power: float = 0.8) -> int:
    """How many queries it takes to see a true mean difference of ``gain``, with this probability, at p < .05.

    The spread is that of the paired ``differences`` of two systems at hand; normal approximation:
    n = ((z₀.₉₇₅ + z_power) · sd / gain)². Raises WorkbookError for fewer than two differences.
    """
    if len(differences) < 2:
        raise WorkbookError("From fewer than two queries nobody can say how many are needed.")
    z = stats.norm.ppf(0.975) + stats.norm.ppf(power)
    return max(1, math.ceil((z * float(np.std(differences, ddof=1)) / gain) ** 2))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for multiple comparisons (Holm, 1979), in the same order.

    Each is at least as large as before and at most 1.
    """
    p_values = np.asarray(p_values, dtype=float)
    order = np.argsort(p_values, kind="stable")
    corrected, running = np.empty(len(order)), 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(order) - rank) * p_values[i]))
        corrected[i] = running
    return corrected.tolist()


def best_weight(
    qrels: Qrels, run_by: Callable[[float], Run], measure: str = "ndcg@10"
) -> tuple[float, dict[float, float]]:
    """The weight, from 0 to 1 in tenths, whose run ``run_by(weight)`` has the best mean on these (dev) judgments.

    Returns the weight and the mean of every weight; of equal ones the one nearest to a half is taken.
    """
    means = {w: float(per_query(qrels, run_by(w))[measure].mean()) for w in WEIGHTS}
    best = max(means, key=lambda w: (round(means[w], 6), -abs(w - 0.5)))
    return best, means


def choose_weight(qrels: Qrels, first: Run, second: Run, measure: str = "ndcg@10") -> tuple[float, dict[float, float]]:
    """``best_weight`` of ``second`` in a fusion with ``first``."""
    return best_weight(qrels, lambda weight: fuse(first, second, weight), measure)


def latency(retriever: Retriever, queries: Mapping[str, str], n: int = 30) -> float:
    """Median milliseconds to find ten passages, one query at a time, after a warm-up; at most n queries are timed."""
    return float(latencies([retriever], queries, n, rounds=1, seconds=math.inf).loc[retriever.name, "ms"])


def latencies(
    systems: Sequence[Retriever], queries: Mapping[str, str], n: int = 200, rounds: int = 3, seconds: float = 0.75
) -> pd.DataFrame:
    """How long each system takes to find ten passages, one query at a time, after a warm-up of three.

    The systems answer in turn, query by query, so that a slow minute of the machine is everyone's. There are several
    rounds over at most ``n`` queries; a system that has used up its ``seconds`` sits out the rest of a round.

    Returns one row per system: ``ms``, the median; ``ms_p95``, the 95th percentile; ``ms_low`` and ``ms_high``, the
    lowest and highest median of a round, which a difference must exceed to mean anything; ``timed``, the number of
    queries.
    """
    texts = list(queries.values())
    for system in systems:
        for text in texts[:3]:
            system.search(text, 10)
    timed = texts[3:][:n] or texts
    took: dict[str, list[list[float]]] = {system.name: [] for system in systems}
    for _ in range(rounds):
        for name in took:
            took[name].append([])
        for text in timed:
            for system in systems:
                of_round = took[system.name][-1]
                if sum(of_round) < 1000 * seconds:
                    start = time.perf_counter()
                    system.search(text, 10)
                    of_round.append((time.perf_counter() - start) * 1000)
    rows = {}
    for name, of_rounds in took.items():
        every, medians = [ms for part in of_rounds for ms in part], [float(np.median(part)) for part in of_rounds]
        rows[name] = {
            "ms": float(np.median(every)),
            "ms_p95": float(np.percentile(every, 95)),
            "ms_low": min(medians),
            "ms_high": max(medians),
            "timed": len(every),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def read_scoreboard(collection: Collection) -> pd.DataFrame:
    """The scoreboard of a collection, one row per system and split; empty if nothing was measured on this version."""
    path, stamp = collection.build / "scoreboard.csv", collection.build / "scoreboard.key"
    if not path.is_file() or not stamp.is_file() or stamp.read_text() != collection.key:
        return pd.DataFrame(columns=COLUMNS)
    return pd.read_csv(path, dtype={"system": str, "notebook": str})


def record(
    collection: Collection,
    split: str,
    system: str,
    run: Run,
    notebook: str,
    ms: float = float("nan"),
    usd: float = 0.0,
    timings: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Score a run on a split, keep it under ``runs/`` and put it on the scoreboard; returns ``with_interval``'s scores.

    ``ms`` is the milliseconds per query, ``usd`` the dollars per 1,000 queries, ``timings`` the ``TIMINGS``. Where the
    split has slices, each gets a row of its own, and so do the authors' sentences where the run has them. A system
    measured again replaces its rows. When the collection has changed, the scoreboard starts anew.
    """
    qrels = {q: docs for part in {split, *collection.kinds(split)} for q, docs in collection.split(part)[1].items()}
    judged = per_part(collection, split, judged_only(qrels, run))
    scores = {name: with_interval(part, judged[name]) for name, part in per_part(collection, split, run).items()}
    about = {"system": system, "notebook": notebook, "ms_per_query": round(ms, 2), "usd_per_1000_queries": usd}
    about |= {name: round(value, 2) for name, value in (timings or {}).items()}
    board = read_scoreboard(collection)
    board = board[(board["system"] != system) | ~board["split"].isin(list(scores))]
    rows = [{**about, "split": name, **values} for name, values in scores.items()]
    board = pd.DataFrame([*board.to_dict("records"), *rows], columns=COLUMNS)
    write_text(collection.build / "scoreboard.csv", board.to_csv(index=False, float_format="%.6g"))
    write_text(collection.build / "scoreboard.key", collection.key)
    path = _run_file(collection, split, system)
    path.parent.mkdir(exist_ok=True)
    write_text(path, json.dumps(run, ensure_ascii=False))
    return scores[split]


def record_systems(
    collection: Collection, split: str, systems: Sequence[Retriever], runs: Mapping[str, Run], notebook: str
) -> pd.DataFrame:
    """``record`` all runs, {system name: run}; returns their rows of the scoreboard.

    The systems are timed together on the split's queries (``latencies``). A run without a system of its name has no
    latency, and costs nothing.
    """
    took = latencies(systems, collection.split(split)[0])
    usd = {system.name: system.usd_per_1000_queries for system in systems}
    for name, run in runs.items():
        timed = took.loc[name] if name in took.index else pd.Series(dtype=float)
        ms, timings = timed.get("ms", float("nan")), {column: timed[column] for column in TIMINGS if column in timed}
        record(collection, split, name, run, notebook, ms, usd.get(name, 0.0), timings)
    board = read_scoreboard(collection)
    return board[(board["split"] == split) & board["system"].isin(runs)]


def _run_file(collection: Collection, split: str, system: str) -> Path:
    name = "-".join([*re.findall(r"\w+", system), fingerprint(system)[:6]])  # two systems may have the same words
    return collection.build / "runs" / f"{name}.{split}.json"

"""From scores to a decision: what dev picks, what test says about it, and what more data may bring."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from helpers.evaluation.measures import holm, interval, randomisation_test
from helpers.training.splits import COLLECT_BELOW

VERDICTS = ("do nothing", "switch on hybrid", "tune the encoder", "add a reranker", "collect more data first")
SURE = 0.05  # a p-value below it, and an interval above 0, count as proof
WORTH = 0.01  # nDCG@10: a gain that is worth collecting twice the data for
WIDE = 0.03  # nDCG@10: with an interval wider than this to either side, "nothing found" says little
POOLED = 0.9  # share of a first ten that is judged; from here on, the system was in the pool that was judged
LOPSIDED = 0.2  # a system with so much less of its first ten judged than another was not in the pool
FEW_DEV = 30  # dev queries below which fusion weights are not chosen but stay at a half


def p_value(p: float) -> str:
    """A p-value as it is written in a sentence: "p = 0.012", or "p < 0.001"."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


class Comparison(NamedTuple):
    """One system against another on the same queries, by nDCG@10.

    difference, low, high : mean of system − baseline, and its 95 % interval
    p : of a randomisation test;  won, lost, n : queries that the system does better, does worse, and all
    """

    system: str
    baseline: str
    difference: float
    low: float
    high: float
    p: float
    won: int
    lost: int
    n: int

    @property
    def proven(self) -> bool:
        """Better by more than luck: the interval lies above 0 and p is below 0.05."""
        return self.low > 0 and self.p < SURE

    def __str__(self) -> str:
        span = f"[{self.low:+.3f}, {self.high:+.3f}]" if self.low == self.low else "[no interval]"
        return (
            f"{self.system} against {self.baseline}: {self.difference:+.3f} nDCG@10 {span}, {p_value(self.p)}, "
            f"won {self.won}, lost {self.lost} of {self.n} queries"
        )


class Verdict(NamedTuple):
    """One of VERDICTS, whether it is the advice, and why."""

    name: str
    yes: bool
    evidence: str


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


def compared(pairs: Sequence[tuple[str, str]], scores: Mapping[str, Sequence[float]]) -> list[Comparison]:
    """Compare each (system, baseline) by their scores of each test query; p-values are Holm-corrected over all."""
    found = []
    for system, baseline in pairs:
        difference = np.asarray(scores[system], dtype=float) - np.asarray(scores[baseline], dtype=float)
        low, high = interval(difference.tolist())
        won, lost = int((difference > 1e-9).sum()), int((difference < -1e-9).sum())
        mean = float(difference.mean())
        p = randomisation_test(difference.tolist())
        found.append(Comparison(system, baseline, mean, low, high, p, won, lost, len(difference)))
    corrected = holm([c.p for c in found])
    return [c._replace(p=p) for c, p in zip(found, corrected, strict=True)]


def expected_gain(points: Mapping[int, Sequence[float]], seed: int = 0) -> dict[str, float] | None:
    """What twice the data may bring on dev, {"gain", "low", "high"} in nDCG@10; None with fewer than two sizes.

    It is the slope of the mean over log2(number of queries), by least squares. ``points`` are {number of training
    queries: score of each dev query, in one order}. ``low`` and ``high`` are the 95 % bootstrap interval over dev
    queries; how much a training differs from seed to seed is not in it.
    """
    sizes = sorted(points)
    if len(sizes) < 2 or len(points[sizes[0]]) < 2:
        return None
    x = np.log2(sizes)
    x = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    table = np.array([points[size] for size in sizes], dtype=float)  # sizes × queries
    slopes = x @ table  # of each query; their mean is the slope of the means
    low, high = interval(slopes.tolist(), seed)
    return {"gain": float(slopes.mean()), "low": low, "high": high}


def surprises(chosen: str, dev: Mapping[str, Sequence[float]], test: Mapping[str, Sequence[float]]) -> list[Comparison]:
    """Systems that are below ``chosen`` on dev, but better than it on test by more than luck; the best comes first.

    Nothing is chosen by it: it says that the queries of dev are not like those of test.
    """
    below = [s for s in test if s != chosen and dev.get(s) and np.mean(dev[s]) < np.mean(dev[chosen])]
    found = compared([(system, chosen) for system in below], test) if below else []
    return sorted((c for c in found if c.proven and c.difference >= WORTH), key=lambda c: -c.difference)


def unjudged(judged: Mapping[str, float], base: str, chosen: str) -> list[str]:
    """A caution, in a list, where the judgments were pooled without one of the two systems; else [].

    ``judged`` is {system: share of its first ten on test that is judged}.
    """
    if judged.get(base, 0.0) >= POOLED and judged.get(chosen, 1.0) < judged[base] - 0.02:
        size = "small than too large"
    elif _lopsided(judged, chosen, base):
        size = "large than too small"
    else:
        return []
    return [
        f"{judged[chosen]:.0%} of the first ten of {chosen} are judged, {judged[base]:.0%} of {base}'s; "
        f"what is not judged counts as wrong, so the gain is more likely too {size}."
    ]


def _lopsided(judged: Mapping[str, float], one: str, other: str) -> bool:
    """Whether the judgments probably come from what ``one`` found, without ``other`` being asked."""
    return judged.get(one, 0.0) >= POOLED and judged.get(other, 1.0) < judged[one] - LOPSIDED


def decide(facts: Mapping[str, Any]) -> tuple[list[Verdict], str]:
    """(the five verdicts with their evidence, the system to use).

    ``facts`` has these keys:

    base, untrained, tuned : the present system; what dev picked without and with training (``tuned`` may be None)
    comparisons : {"hybrid" | "tuned" | "tuned against base" | "rerank <first stage>": Comparison on test}, if made
    train : number of training queries
    judged, clicks : whether people or a trusted judge made the test judgments; whether most of them are clicks
    on_test, on_dev : whether there is a test split; whether there are dev queries
    gain, untuned : what ``expected_gain`` gave, or None; why nothing was tuned
    dev_scores, test_scores : {system: score of each query}, for ``surprises``
    seen : {system: share of its first ten on test that is judged}
    test_only : number of judged test queries of a collection that has no train split
    """
    comparisons: Mapping[str, Comparison] = facts["comparisons"]
    hybrid, tuned = comparisons.get("hybrid"), comparisons.get("tuned")
    untrained = facts["untrained"] if hybrid is not None and hybrid.proven else facts["base"]
    if untrained != facts["untrained"]:  # tuning then has to beat the present system
        tuned = comparisons.get("tuned against base", tuned)
    tune = tuned is not None and tuned.proven
    first = facts["tuned"] if tune else untrained
    rerank = comparisons.get(f"rerank {first}")
    add = rerank is not None and rerank.proven
    chosen = rerank.system if rerank is not None and add else first
    switch = first != facts["base"] and not tune
    nothing = chosen == facts["base"]
    against = surprises(chosen, facts.get("dev_scores", {}), facts.get("test_scores", {}))
    more = _more_data(facts, nothing, against)

    verdicts = [
        Verdict("switch on hybrid", switch, _said(hybrid, _stays(facts))),
        Verdict("tune the encoder", tune, _said(tuned, facts.get("untuned") or "on dev nothing tuned is better")),
        Verdict("add a reranker", add, _said(rerank, f"dev gives it no weight beside {first}")),
        Verdict("collect more data first", bool(more), " ".join(more) or "there is enough to decide by."),
    ]
    why = f"nothing that was tried beats {facts['base']} by more than luck."
    why = why if nothing else f"{chosen} is better than the present system, taken to be {facts['base']}."
    return [Verdict("do nothing", nothing and not more, why), *verdicts], chosen


def _stays(facts: Mapping[str, Any]) -> str:
    if not facts.get("on_dev", True):
        return "there are no dev queries to choose by"
    return f"on dev neither BM25 nor the hybrid beats {facts['base']} by {WORTH} nDCG@10"


def _said(comparison: Comparison | None, instead: str) -> str:
    return f"{comparison}." if comparison is not None else f"{instead}."


def _more_data(facts: Mapping[str, Any], nothing: bool, against: Sequence[Comparison]) -> list[str]:
    """Reasons to collect data before anything else is done; none where the evidence is good enough to act on."""
    reasons = []
    if facts.get("clicks"):
        reasons.append(
            "The test labels are clicks, which follow the rank at which a passage stood, not judgments: "
            "the scores favour the system that was logged; judge 50 or more queries (to_judge.csv has some)."
        )
    elif not facts["judged"]:
        reasons.append(
            "No test query was judged by a person or a trusted judge: the scores are a rehearsal; "
            "judge 50 or more real queries."
        )
    elif not facts["on_test"]:
        reasons.append("There is no test split: what chose was scored again, so the scores are too good.")
    if against:
        best, seen = against[0], facts.get("seen", {})
        if _lopsided(seen, best.system, best.baseline):
            reasons.append(
                f"Dev and test disagree: on test, {best}; "
                f"but {seen[best.system]:.0%} of the first ten of {best.system} are judged "
                f"and {seen[best.baseline]:.0%} of {best.baseline}'s, "
                "so the judgments probably come from what it found. "
                "Judge the first ten of every system, and run again."
            )
        else:
            reasons.append(
                f"Dev misled: on test, {best}. Judge more dev queries, of the kind that test has, and run again."
            )
    if nothing and not reasons:
        widest = max((c.high for c in facts["comparisons"].values() if c.high == c.high), default=float("inf"))
        if widest > WIDE:
            span = f"up to {widest:+.3f}" if widest < float("inf") else "of any size"
            reasons.append(f"With so few test queries a gain {span} could have been missed: judge more queries.")
        if facts["train"] < COLLECT_BELOW:
            reasons.append(f"{facts['train']} queries to train on are too few: collect at least {COLLECT_BELOW}.")
            if facts.get("test_only", 0) >= 3 * COLLECT_BELOW:
                reasons.append(
                    f"There are {facts['test_only']:,} judged test queries: "
                    "half of them in qrels/train.tsv would train."
                )
        gain = facts.get("gain")
        if gain and gain["low"] > 0 and gain["gain"] >= WORTH:
            reasons.append(
                "The learning curve still rises: "
                f"twice the data, {gain['gain']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}] on dev."
            )
    return reasons


def headline(verdicts: Sequence[Verdict], chosen: str, against: Sequence[Comparison] = ()) -> str:
    """The decision in one sentence: what to collect comes first, then what to deploy.

    ``against`` are the ``surprises``; where there are any and data is to be collected, nothing to deploy is named.
    """
    yes = [v.name for v in verdicts if v.yes]
    words = {"switch on hybrid": "search with BM25"} if chosen.startswith("BM25") else {}
    if chosen.startswith("encoder + adapter"):
        words = {"tune the encoder": "tune the encoder by an adapter for its queries"}
    deploy = [words.get(name, name) for name in yes if name in VERDICTS[1:4]]
    if "collect more data first" in yes:
        after = f"; what was measured points to: {' and '.join(deploy)} ({chosen})" if deploy and not against else ""
        return f"Collect more data first{after}."
    if deploy:
        sentence = " and ".join(deploy)
        return f"{sentence[0].upper()}{sentence[1:]}: use {chosen}."
    return f"Do nothing: keep {chosen}."

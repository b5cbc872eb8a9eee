"""From scores to a decision: five verdicts with their evidence, the system to use, and one sentence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from helpers.evaluation.comparing import Comparison, compared, corrected
from helpers.evaluation.measures import queries_needed
from helpers.homework.scores import WORTH, Scores, pipeline
from helpers.homework.sources import Sources
from helpers.homework.systems import System
from helpers.homework.tuning import Tuned
from helpers.training.splits import COLLECT_BELOW

HYBRID, QUESTIONS, ENCODER = "switch on hybrid", "index the questions too", "use another encoder"
UNTRAINED = (HYBRID, QUESTIONS, ENCODER)
VERDICTS = ("do nothing", *UNTRAINED, "tune the encoder", "add a reranker", "collect more data first")
WIDE = 0.03  # nDCG@10: with an interval wider than this to either side, "nothing found" says little
POOLED = 0.9  # share of a first ten that is judged; from here on, the system was in the pool that was judged
SEEN = 0.05  # nDCG@10: the gain for which the report says how many queries would show it
LOPSIDED = 0.2  # a system with so much less of its first ten judged than another was not in the pool


class Verdict(NamedTuple):
    """One of VERDICTS, whether it is the advice, and why."""

    name: str
    yes: bool
    evidence: str


@dataclass(frozen=True)
class Decision:
    """What to do.

    verdicts : all of VERDICTS;  chosen : the system to use;  headline : the decision in one sentence
    cautions : what to have in mind with the scores of the chosen system
    """

    verdicts: Sequence[Verdict]
    chosen: System
    headline: str
    cautions: Sequence[str] = ()


def rung_of(system: System, base: System) -> str:
    """The verdict that would be yes if this untrained system replaced the present one; "" for the present one."""
    if system is base:
        return ""
    if system.questions:
        return QUESTIONS
    return HYBRID if system.lexical or system.words else ENCODER


def surprises(chosen: str, dev: Mapping[str, Sequence[float]], test: Mapping[str, Sequence[float]]) -> list[Comparison]:
    """Systems that are below ``chosen`` on dev, but better than it on test by more than luck; the best comes first.

    Nothing is chosen by it: it says that the queries of dev are not like those of test.
    """
    below = [s for s in test if s != chosen and dev.get(s) and np.mean(dev[s]) < np.mean(dev[chosen])]
    family = corrected([compared(system, test[system], chosen, test[chosen]) for system in below])
    return sorted((c for c in family if c.proven and c.difference >= WORTH), key=lambda c: -c.difference)


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


def by_kind_of_query(scores: Scores, chosen: System) -> list[str]:
    """What the chosen system gains or loses on each kind of query, in a sentence in a list; [] where there is one kind.

    The intervals are of single comparisons: they show where the gain is, and decide nothing.
    """
    base = scores.base
    if chosen is base or not scores.parts:
        return []
    found = {
        kind: compared(chosen.name, of[chosen.name], base.name, of[base.name]) for kind, of in scores.parts.items()
    }
    told = ", ".join(f"{kind} {c.difference:+.3f} [{c.low:+.3f}, {c.high:+.3f}]" for kind, c in found.items())
    worse = [kind for kind, c in found.items() if c.high < 0]
    harm = f"; it is worse on {' and '.join(worse)}: find out first what your people ask" if worse else ""
    return [f"By kind of query, {chosen.name} against {base.name}: {told}{harm}."]


def _lopsided(judged: Mapping[str, float], one: str, other: str) -> bool:
    """Whether the judgments probably come from what ``one`` found, without ``other`` being asked."""
    return judged.get(one, 0.0) >= POOLED and judged.get(other, 1.0) < judged[one] - LOPSIDED


def decide(scores: Scores, tuned: Tuned, sources: Sources) -> Decision:
    """What the scores say: a costlier system is chosen only where it is better on the final split by more than luck.

    The whole pipeline that dev picked is tested first, its parts after it (``compare_picks``). A part that is not
    proven is left out; where the whole is proven and no part of it is, the whole is used.
    """
    base = scores.base
    if scores.final is None:
        reason = (
            "No query is judged and no question could be made: write queries.jsonl and qrels for 50 real questions."
        )
        verdicts = [Verdict(v, v == VERDICTS[-1], reason) for v in VERDICTS]
        return Decision(verdicts, base, in_one_sentence(verdicts, base))
    plain, tuning = scores.comparison(scores.untrained, base), scores.comparison(scores.tuned, scores.untrained)
    untrained = scores.untrained if plain is not None and plain.proven else base
    if untrained is not scores.untrained:  # tuning then has to beat the present system
        tuning = scores.comparison(scores.tuned, base)
    tune = tuning is not None and tuning.proven
    first = scores.tuned if scores.tuned and tune else untrained
    reranked = scores.reranked.get(first)
    reranking = scores.comparison(reranked, first)
    add = reranking is not None and reranking.proven
    chosen = reranked if reranked and add else first
    whole = pipeline(scores.untrained, scores.tuned, scores.reranked)
    gate = scores.comparison(whole, base)
    if chosen is base and gate is not None and gate.proven:
        chosen, first, tune, add = whole, whole.first or whole, scores.tuned is not None, whole.first is not None
    switch = rung_of(first, base) if not tune else ""
    nothing = chosen is base
    against = surprises(chosen.name, scores.dev, scores.on_final) if scores.final == "test" else []
    more = _more_data(scores, tuned, sources, nothing, against)
    untuned = "on dev nothing tuned is better" if tuned.plan.size else tuned.plan.why
    why = f"{chosen.name} is better than the present system, taken to be {base.name}."
    if nothing:
        why = f"nothing that was tried beats {base.name} by more than luck."
    verdicts = [
        Verdict("do nothing", nothing and not more, why),
        *(Verdict(name, name == switch, f"{_why(name, scores, sources)}.") for name in UNTRAINED),
        Verdict("tune the encoder", tune, f"{tuning or untuned}."),
        Verdict("add a reranker", add, f"{reranking or f'dev gives it no weight beside {first.name}'}."),
        Verdict("collect more data first", bool(more), " ".join(more) or "there is enough to decide by."),
    ]
    cautions = [*unjudged(scores.judged, base.name, chosen.name), *by_kind_of_query(scores, chosen)]
    return Decision(verdicts, chosen, in_one_sentence(verdicts, chosen, against), cautions)


def _why(name: str, scores: Scores, sources: Sources) -> str:
    """The evidence on a verdict about an untrained system: the comparison on test, or why dev did not nominate it."""
    base, picked = scores.base, scores.untrained
    if rung_of(picked, base) == name:
        return str(scores.comparison(picked, base))
    if not sources.dev:
        return "there are no dev queries to choose by"
    means = {s.name: float(np.mean(scores.dev[s.name])) for s in scores.candidates if rung_of(s, base) == name}
    if not means:
        return "there are no questions to put into the index" if name == QUESTIONS else "none was measured"
    best = max(means, key=lambda system: means[system])
    present, other = float(np.mean(scores.dev[base.name])), float(np.mean(scores.dev[picked.name]))
    instead = f"{picked.name} {other:.3f}, which was nominated" if picked is not base else f"{base.name} {present:.3f}"
    return f"on dev, {best} {means[best]:.3f} nDCG@10 against {instead}"


def _more_data(
    scores: Scores, tuned: Tuned, sources: Sources, nothing: bool, against: Sequence[Comparison]
) -> list[str]:
    """Reasons to collect data before anything else is done; none where the evidence is good enough to act on."""
    reasons = []
    if sources.clicks:
        reasons.append(
            "The test labels are clicks, which follow the rank at which a passage stood, not judgments: "
            "the scores favour the system that was logged; judge 50 or more queries (to_judge.csv has some)."
        )
    elif not sources.judged:
        reasons.append(
            "No test query was judged by a person or a trusted judge: the scores are a rehearsal; "
            "judge 50 or more real queries."
        )
    elif scores.final != "test":
        reasons.append("There is no test split: what chose was scored again, so the scores are too good.")
    if against:
        best, judged = against[0], scores.judged
        if _lopsided(judged, best.system, best.baseline):
            reasons.append(
                f"Dev and test disagree: on test, {best}; "
                f"but {judged[best.system]:.0%} of the first ten of {best.system} are judged "
                f"and {judged[best.baseline]:.0%} of {best.baseline}'s, "
                "so the judgments probably come from what it found. "
                "Judge the first ten of every system, and run again."
            )
        else:
            reasons.append(
                f"Dev misled: on test, {best}. Judge more dev queries, of the kind that test has, and run again."
            )
    if nothing and not reasons:
        widest = max((c for c in scores.comparisons if c.high == c.high), key=lambda c: c.high, default=None)
        if widest is None:
            reasons.append("With so few test queries a gain of any size could have been missed: judge more queries.")
        elif widest.high > WIDE:
            gaps = np.subtract(scores.on_final[widest.system], scores.on_final[widest.baseline])
            needed = max(queries_needed(gaps, SEEN), widest.n + 1)
            reasons.append(
                f"With so few test queries a gain up to {widest.high:+.3f} could have been missed: judge more queries; "
                f"to see a gain of {SEEN} in four cases of five takes about {needed:,}."
            )
        train = len(tuned.plan.data.positives)
        if train < COLLECT_BELOW:
            reasons.append(f"{train} queries to train on are too few: collect at least {COLLECT_BELOW}.")
            if not sources.positives and sources.judged_test >= 3 * COLLECT_BELOW:
                reasons.append(
                    f"There are {sources.judged_test:,} judged test queries: "
                    "half of them in qrels/train.tsv would train."
                )
        gain = tuned.gain
        if gain and gain["low"] > 0 and gain["gain"] >= WORTH:
            reasons.append(
                "The learning curve still rises: "
                f"twice the data, {gain['gain']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}] on dev."
            )
    return reasons


def in_one_sentence(verdicts: Sequence[Verdict], chosen: System, against: Sequence[Comparison] = ()) -> str:
    """The decision in one sentence: what to collect comes first, then what to deploy.

    ``against`` are the ``surprises``; where there are any and data is to be collected, nothing to deploy is named.
    """
    yes = [v.name for v in verdicts if v.yes]
    words = {HYBRID: "search with BM25"} if chosen.lexical else {}
    if chosen.matrix is not None and not chosen.tuned:
        words = {"tune the encoder": "tune the encoder by an adapter for its queries"}
    deploy = [words.get(name, name) for name in yes if name in VERDICTS[1:-1]]
    if "collect more data first" in yes:
        after = (
            f"; what was measured points to: {' and '.join(deploy)} ({chosen.name})" if deploy and not against else ""
        )
        return f"Collect more data first{after}."
    if deploy:
        sentence = " and ".join(deploy)
        return f"{sentence[0].upper()}{sentence[1:]}: use {chosen.name}."
    return f"Do nothing: keep {chosen.name}."

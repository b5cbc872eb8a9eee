"""Whether one system is better than another by more than luck: paired comparisons on the same queries."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from helpers.evaluation.measures import Qrels, holm, paired_test, per_query
from helpers.retrieval.first_stages import Run

SURE = 0.05  # a p-value below it, and an interval above 0, count as proof
_TIE = 1e-9  # scores that differ by no more are equal


def p_value(p: float) -> str:
    """A p-value as it is written in a sentence: "p = 0.012", or "p < 0.001"."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


class Comparison(NamedTuple):
    """One system against another on the same queries, by nDCG@10 or another score of each query.

    difference, low, high : mean of system − baseline, and its 95 % interval, nan for too few queries
    p : of a paired randomisation test; the interval leaves out 0 exactly when it is below .05 (``paired_test``)
    won, lost, n : queries that the system does better, does worse, and all
    adjusted : p after a correction for the comparisons made together; p itself where it is the only one, nan where an
        earlier test of a planned order failed, so that this one proves nothing
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
    adjusted: float

    @property
    def proven(self) -> bool:
        """Better by more than luck: the interval lies above 0, and p is below 0.05 after the correction too."""
        return self.low > 0 and self.adjusted < SURE

    def __str__(self) -> str:
        span = f"[{self.low:+.3f}, {self.high:+.3f}]" if self.low == self.low else "[no interval]"
        among = "" if self.adjusted == self.p else f" ({p_value(self.adjusted)} among all that was compared)"
        if self.adjusted != self.adjusted:
            among = " (proves nothing: the whole is not better)"
        return (
            f"{self.system} against {self.baseline}: {self.difference:+.3f} nDCG@10 {span}, {p_value(self.p)}{among}, "
            f"won {self.won}, lost {self.lost} of {self.n} queries"
        )


def compared(system: str, scores: Sequence[float], baseline: str, baseline_scores: Sequence[float]) -> Comparison:
    """Compare a system with a baseline by their scores of each query, in one order; p is not corrected."""
    differences = np.asarray(scores, dtype=float) - np.asarray(baseline_scores, dtype=float)
    low, high, p = paired_test(differences)
    won, lost = int((differences > _TIE).sum()), int((differences < -_TIE).sum())
    return Comparison(system, baseline, float(differences.mean()), low, high, p, won, lost, len(differences), p)


def corrected(family: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons that are made together; ``adjusted`` is p after Holm's correction for their number."""
    p_values = holm([comparison.p for comparison in family])
    return [comparison._replace(adjusted=p) for comparison, p in zip(family, p_values, strict=True)]


def in_order(whole: Comparison, parts: Sequence[Comparison]) -> list[Comparison]:
    """A planned order of tests, each at .05: a whole system first, and only where it is better, its parts.

    If nothing is better, only the first test can go wrong, so the chance of a false claim stays below .05 without a
    correction that costs power. Source: fixed-sequence testing, Maurer, Hothorn and Lehmacher, 1995.
    """
    return [whole, *(part if whole.proven else part._replace(adjusted=float("nan")) for part in parts)]


def compare(qrels: Qrels, baseline: Run, systems: Mapping[str, Run], measure: str = "ndcg@10") -> pd.DataFrame:
    """Each system against one baseline on the same queries, one row per system.

    Columns: ``mean``; ``difference`` to the baseline with its 95 % interval ``low``, ``high`` and ``p`` of a paired
    randomisation test, which agree with each other (``paired_test``); ``adjusted``, p after Holm's correction for the
    number of systems; the numbers of queries ``won``, ``tied`` and ``lost``.
    """
    base = per_query(qrels, baseline)[measure]
    scores = {name: per_query(qrels, run)[measure] for name, run in systems.items()}
    family = corrected([compared(name, values, "baseline", base) for name, values in scores.items()])
    rows = [
        (
            c.system,
            scores[c.system].mean(),
            c.difference,
            c.low,
            c.high,
            c.p,
            c.adjusted,
            c.won,
            c.n - c.won - c.lost,
            c.lost,
        )
        for c in family
    ]
    columns = ["system", "mean", "difference", "low", "high", "p", "adjusted", "won", "tied", "lost"]
    return pd.DataFrame(rows, columns=columns).set_index("system")

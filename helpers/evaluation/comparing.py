"""Whether one system is better than another by more than luck: paired comparisons on the same queries."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from helpers.evaluation.measures import Qrels, holm, interval, per_query, randomisation_test
from helpers.retrieval.first_stages import Run

SURE = 0.05  # a p-value below it, and an interval above 0, count as proof
_TIE = 1e-9  # scores that differ by no more are equal


def p_value(p: float) -> str:
    """A p-value as it is written in a sentence: "p = 0.012", or "p < 0.001"."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


class Comparison(NamedTuple):
    """One system against another on the same queries, by nDCG@10 or another score of each query.

    difference, low, high : mean of system − baseline, and its 95 % bootstrap interval, nan for a single query
    p : of a paired randomisation test;  won, lost, n : queries that the system does better, does worse, and all
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


def compared(system: str, scores: Sequence[float], baseline: str, baseline_scores: Sequence[float]) -> Comparison:
    """Compare a system with a baseline by their scores of each query, in one order; p is not corrected."""
    differences = np.asarray(scores, dtype=float) - np.asarray(baseline_scores, dtype=float)
    low, high = interval(differences)
    won, lost = int((differences > _TIE).sum()), int((differences < -_TIE).sum())
    mean, p = float(differences.mean()), randomisation_test(differences)
    return Comparison(system, baseline, mean, low, high, p, won, lost, len(differences))


def corrected(family: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons that are made together, with p-values that are Holm-corrected for their number."""
    p_values = holm([comparison.p for comparison in family])
    return [comparison._replace(p=p) for comparison, p in zip(family, p_values, strict=True)]


def compare(qrels: Qrels, baseline: Run, systems: Mapping[str, Run], measure: str = "ndcg@10") -> pd.DataFrame:
    """Each system against one baseline on the same queries, one row per system.

    Columns: ``mean``; ``difference`` to the baseline with its 95 % bootstrap interval ``low``, ``high``; ``p`` of a
    paired randomisation test, Holm-corrected over the systems; the numbers of queries ``won``, ``tied`` and ``lost``.
    """
    base = per_query(qrels, baseline)[measure]
    scores = {name: per_query(qrels, run)[measure] for name, run in systems.items()}
    family = corrected([compared(name, values, "baseline", base) for name, values in scores.items()])
    rows = [
        (c.system, scores[c.system].mean(), c.difference, c.low, c.high, c.p, c.won, c.n - c.won - c.lost, c.lost)
        for c in family
    ]
    columns = ["system", "mean", "difference", "low", "high", "p", "won", "tied", "lost"]
    return pd.DataFrame(rows, columns=columns).set_index("system")

"""Measures, intervals and paired tests; choosing on dev; the scoreboard, its figures and the report."""

from helpers.evaluation.choosing import DevReranking, DevRetrieval, dev_corpus
from helpers.evaluation.comparing import compare, p_value
from helpers.evaluation.measures import (
    choose_weight,
    evaluate,
    evaluate_slices,
    first_pool,
    holm,
    interval,
    latencies,
    latency,
    paired_test,
    per_query,
    queries_needed,
    randomisation_test,
    record_systems,
)
from helpers.evaluation.recorded import keep_run, recorded_runs
from helpers.evaluation.report import Findings, format_scoreboard

__all__ = [
    "DevReranking",
    "DevRetrieval",
    "Findings",
    "choose_weight",
    "compare",
    "dev_corpus",
    "evaluate",
    "evaluate_slices",
    "first_pool",
    "format_scoreboard",
    "holm",
    "interval",
    "keep_run",
    "latencies",
    "latency",
    "p_value",
    "paired_test",
    "per_query",
    "queries_needed",
    "randomisation_test",
    "record_systems",
    "recorded_runs",
]

"""Measures, intervals and paired tests; choosing on dev; the scoreboard, its figures and the report."""

from helpers.evaluation.choosing import DevReranking, DevRetrieval, dev_corpus
from helpers.evaluation.comparing import compare
from helpers.evaluation.measures import (
    choose_weight,
    evaluate,
    first_pool,
    holm,
    interval,
    latency,
    per_query,
    randomisation_test,
    record_systems,
)
from helpers.evaluation.report import Findings, format_scoreboard

__all__ = [
    "DevReranking",
    "DevRetrieval",
    "Findings",
    "choose_weight",
    "compare",
    "dev_corpus",
    "evaluate",
    "first_pool",
    "format_scoreboard",
    "holm",
    "interval",
    "latency",
    "per_query",
    "randomisation_test",
    "record_systems",
]

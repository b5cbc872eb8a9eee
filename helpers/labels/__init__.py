"""Where labels come from: questions and their gates, the judge, the search log, clicks, the review queue."""

from helpers.labels.clicks import click_rates, estimate_examination, inverse_propensity, labels_from_clicks, simulate
from helpers.labels.gates import GATES, check_questions, gate_counts, open_questions, passing
from helpers.labels.judging import calibrate, grades_from_scores, judge, probabilities, query_likelihood, with_zeros
from helpers.labels.log_files import import_log
from helpers.labels.questions import (
    ASKED,
    Question,
    as_queries,
    generate_questions,
    made_questions_file,
    overlap,
    read_questions,
    sample_passages,
    shipped_questions,
    shown,
    small_prompt,
    style_examples,
    typed_questions,
    write_questions,
)
from helpers.labels.redaction import redact
from helpers.labels.review import Reviews, by_topic, precision, review_queue, sample_searches, topics
from helpers.labels.search_log import SearchLog, new_session

__all__ = [
    "ASKED",
    "GATES",
    "Question",
    "Reviews",
    "SearchLog",
    "as_queries",
    "by_topic",
    "calibrate",
    "check_questions",
    "click_rates",
    "estimate_examination",
    "gate_counts",
    "generate_questions",
    "grades_from_scores",
    "import_log",
    "inverse_propensity",
    "judge",
    "labels_from_clicks",
    "made_questions_file",
    "new_session",
    "open_questions",
    "overlap",
    "passing",
    "precision",
    "probabilities",
    "query_likelihood",
    "read_questions",
    "redact",
    "review_queue",
    "sample_passages",
    "sample_searches",
    "shipped_questions",
    "shown",
    "simulate",
    "small_prompt",
    "style_examples",
    "topics",
    "typed_questions",
    "with_zeros",
    "write_questions",
]

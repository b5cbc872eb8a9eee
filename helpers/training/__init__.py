"""Training data, splits without leaks, losses, a resumable training loop, and the trainings and experiments on them."""

from helpers.training.adapter import train_adapter
from helpers.training.blends import text_results
from helpers.training.crossfit import cross_fitted
from helpers.training.examples import convert, validate
from helpers.training.experiments import results
from helpers.training.export import FORMS, read_cohere, read_parquet, to_dataset, write_cohere, write_parquet
from helpers.training.fitting import Recipe
from helpers.training.forgetting import answered, everyday, relatedness, see_also
from helpers.training.query_side import QUERY_SIDE, DevQueries, finetune_queries, query_rows
from helpers.training.splits import COLLECT_BELOW, LIGHT_BELOW, coverage, enough, leaks, split_by_passage, split_rows
from helpers.training.triplets import NEGATIVES, build_triplets, false_negatives
from helpers.training.tune import (
    RERANKER,
    TEXTS,
    finetune_encoder,
    finetune_late_interaction,
    finetune_reranker,
    open_training_set,
    sample_queries,
    training_questions,
    tuned_encoder,
)

__all__ = [
    "COLLECT_BELOW",
    "FORMS",
    "LIGHT_BELOW",
    "NEGATIVES",
    "QUERY_SIDE",
    "RERANKER",
    "TEXTS",
    "DevQueries",
    "Recipe",
    "answered",
    "build_triplets",
    "convert",
    "coverage",
    "cross_fitted",
    "enough",
    "everyday",
    "false_negatives",
    "finetune_encoder",
    "finetune_late_interaction",
    "finetune_queries",
    "finetune_reranker",
    "leaks",
    "open_training_set",
    "query_rows",
    "read_cohere",
    "read_parquet",
    "relatedness",
    "results",
    "sample_queries",
    "see_also",
    "split_by_passage",
    "split_rows",
    "text_results",
    "to_dataset",
    "train_adapter",
    "training_questions",
    "tuned_encoder",
    "validate",
    "write_cohere",
    "write_parquet",
]

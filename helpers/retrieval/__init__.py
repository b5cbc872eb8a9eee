"""Runs: first stages (BM25, dense, hybrid) and rerankers, ``{query_id: {doc_id: score}}``, higher is better."""

from helpers.retrieval.first_stages import (
    BM25,
    ByDocument,
    Dense,
    Hybrid,
    WeightedHybrid,
    fuse,
    nearest,
    truncate,
    with_questions,
)
from helpers.retrieval.read_pairs import known_pairs
from helpers.retrieval.rerankers import CohereReranker, CrossEncoderReranker, LateInteraction, TwoStage, second_stage

__all__ = [
    "BM25",
    "ByDocument",
    "CohereReranker",
    "CrossEncoderReranker",
    "Dense",
    "Hybrid",
    "LateInteraction",
    "TwoStage",
    "WeightedHybrid",
    "fuse",
    "known_pairs",
    "nearest",
    "second_stage",
    "truncate",
    "with_questions",
]

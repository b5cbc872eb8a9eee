"""Runs: first stages (BM25, dense, hybrid) and rerankers, ``{query_id: {doc_id: score}}``, higher is better."""

from helpers.retrieval.first_stages import BM25, Dense, Hybrid, WeightedHybrid, fuse, nearest, truncate
from helpers.retrieval.rerankers import CohereReranker, CrossEncoderReranker, LateInteraction, TwoStage, second_stage

__all__ = [
    "BM25",
    "CohereReranker",
    "CrossEncoderReranker",
    "Dense",
    "Hybrid",
    "LateInteraction",
    "TwoStage",
    "WeightedHybrid",
    "fuse",
    "nearest",
    "second_stage",
    "truncate",
]

"""Models: loading encoders, rerankers and late interaction; cached embedding; services; asking a language model."""

from helpers.models.embed import (
    PRECISIONS,
    AdaptedEmbedder,
    CachedEmbedder,
    LocalEmbedder,
    TwoEncoders,
    bytes_of,
    compressed,
)
from helpers.models.llm import estimate_usd, open_llm, small_llm
from helpers.models.load import encoder_names, load_encoder, load_late_interaction, load_reranker, token_encoder
from helpers.models.prompts import Prompt
from helpers.models.services import keys_set, price, priced, service_embedders

__all__ = [
    "PRECISIONS",
    "AdaptedEmbedder",
    "CachedEmbedder",
    "LocalEmbedder",
    "Prompt",
    "TwoEncoders",
    "bytes_of",
    "compressed",
    "encoder_names",
    "estimate_usd",
    "keys_set",
    "load_encoder",
    "load_late_interaction",
    "load_reranker",
    "open_llm",
    "price",
    "priced",
    "service_embedders",
    "small_llm",
    "token_encoder",
]

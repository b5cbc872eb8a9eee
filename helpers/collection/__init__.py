"""A collection to search, from whatever a person has: readers, the default collection, chunks, words, repeats."""

from helpers.collection.chunking import chunk_documents, count_tokens, document_of, within_budget
from helpers.collection.collection import Collection, open_collection
from helpers.collection.readers import read_texts
from helpers.collection.text import tokenize

__all__ = [
    "Collection",
    "chunk_documents",
    "count_tokens",
    "document_of",
    "open_collection",
    "read_texts",
    "tokenize",
    "within_budget",
]

"""The passages as they are searched: cut where the encoder would not read them whole, and indexed."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from helpers.collection.chunking import cut_long, token_counts
from helpers.collection.repeats import near_duplicates
from helpers.collection.text import MULTILINGUAL, guess_language
from helpers.homework.data import Data
from helpers.models.embed import CachedEmbedder, LocalEmbedder
from helpers.models.load import load_encoder
from helpers.retrieval.first_stages import BM25, ByDocument, Dense, Retriever, Run, max_pool
from helpers.store.files import fingerprint
from helpers.store.stages import Stages

K = 100  # documents that a run keeps for each query
SPEED_SAMPLE = 64  # passages that are encoded once more, to time it


@dataclass(frozen=True)
class Chunks:
    """The passages as they are searched, with the two first stages that have indexed them.

    texts : {chunk_id: text}, passages that are short enough under their own ids
    parents : {chunk_id: doc_id} of the passages that were cut, {} where none was
    dense, bm25 : the untrained encoder's index of the texts, and that of their words
    duplicates : {doc_id: first id of its group} of passages that nearly repeat another one
    tokens, encode_seconds : of all passages, as the encoder counts; to encode all chunks on this machine
    notices : sentences for the reader
    """

    texts: Mapping[str, str]
    parents: Mapping[str, str]
    dense: Dense
    bm25: BM25
    duplicates: Mapping[str, str] = field(default_factory=dict)
    tokens: int = 0
    encode_seconds: float = 0.0
    notices: Sequence[str] = ()

    @cached_property
    def key(self) -> str:
        """A fingerprint of the texts."""
        return fingerprint(self.texts)

    @cached_property
    def parts(self) -> dict[str, list[str]]:
        """{doc_id: its chunks} of the passages that were cut."""
        parts: dict[str, list[str]] = {}
        for chunk, doc in self.parents.items():
            parts.setdefault(doc, []).append(chunk)
        return parts

    @property
    def folder(self) -> Path:
        """Where vectors are kept."""
        return self.dense.folder

    @property
    def embedder(self) -> CachedEmbedder:
        """The untrained encoder, which embeds each text once."""
        return CachedEmbedder(self.dense.embedder, self.folder)

    @property
    def depth(self) -> int:
        """How many chunks are asked for at a query.

        Where passages were cut it is three times as many, so that enough documents come of the chunks.
        """
        return 3 * K if self.parents else K

    def documents(self, run: Run) -> Run:
        """A run over chunks as a run over at most 100 documents a query, each by its best chunk."""
        return max_pool(run, self.parents, K) if self.parents else run

    def by_document(self, retriever: Retriever) -> Retriever:
        """A retriever over the chunks as an application would use it: its answers are documents."""
        return ByDocument(retriever, self.parents) if self.parents else retriever

    @property
    def finders(self) -> list[Retriever]:
        """The first stages, answering with documents."""
        return [self.by_document(self.bm25), self.by_document(self.dense)]


def _cut(corpus: Mapping[str, str], embedder: LocalEmbedder) -> list:
    counts = token_counts(list(corpus.values()), embedder.encoder)
    return [*cut_long(corpus, embedder.encoder), sum(counts)]


def encode_texts(embedder: LocalEmbedder, texts: Mapping[str, str], folder: str) -> int:
    """Index the texts by their vectors; returns how many there are."""
    return Dense(embedder, Path(folder)).index(texts).table.count_rows()


def _speed(embedder: LocalEmbedder, sample: list[str]) -> float:
    start = time.perf_counter()
    embedder.embed(sample, "document")
    return len(sample) / (time.perf_counter() - start)


def cut_passages(data: Data, stages: Stages) -> Chunks:
    """Cut long passages, index the chunks, and look for near-duplicates and for a language other than English."""
    corpus, folder = data.collection.corpus, data.collection.build / "lancedb"
    embedder = LocalEmbedder(load_encoder(), "encoder")
    texts, parents, tokens = stages.run(
        "passages",
        _cut,
        corpus,
        embedder,
        tell=lambda cut: f"{len(corpus):,}, {len(set(cut[1].values())):,} longer than the encoder reads",
    )
    stages.run("vectors", encode_texts, embedder, texts, str(folder), tell=lambda n: f"{n:,} encoded")
    notices = []
    if parents:
        notices.append(
            f"Cut into {len(parents):,} chunks, for the encoder reads {embedder.encoder.max_seq_length} tokens: "
            f"{len(set(parents.values())):,} of the passages; a document ranks by its best chunk."
        )
    language = guess_language(corpus.values())
    if language and not os.environ.get("ENCODER_MODEL"):
        notices.append(
            f"The passages seem to be in {language}, and the packaged encoder reads English: "
            f"set ENCODER_MODEL={MULTILINGUAL}."
        )
    beginnings = {doc: texts.get(doc, "") for doc in corpus}
    beginnings |= {doc: texts[chunk] for chunk, doc in reversed(parents.items())}
    duplicates = stages.run(
        "near-duplicates",
        near_duplicates,
        corpus,
        CachedEmbedder(embedder, folder).embed(list(beginnings.values()), "document"),
        tell=lambda groups: f"{len(groups):,} passages nearly repeat another",
    )
    if duplicates:
        notices.append(
            f"{len(duplicates):,} passages nearly repeat another one; they are kept together when splits are made."
        )
    sample = list(texts.values())[:: max(1, len(texts) // SPEED_SAMPLE)][:SPEED_SAMPLE]
    speed = stages.run("encoding speed", _speed, embedder, sample, tell=lambda speed: f"{speed:,.0f} passages/s")
    dense, bm25 = Dense(embedder, folder).index(texts), BM25().index(texts)
    return Chunks(texts, parents, dense, bm25, duplicates, tokens, len(texts) / speed, notices)

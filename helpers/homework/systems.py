"""The systems of the homework: what each is made of, how it searches, and its runs on dev and test."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from sentence_transformers import SentenceTransformer

from helpers.collection.collection import AUTHORS, Collection
from helpers.evaluation.measures import Qrels, best_weight, per_query
from helpers.homework.chunks import Chunks, K, encode_texts
from helpers.homework.options import training_options
from helpers.homework.sources import FEW_DEV, Sources
from helpers.models.embed import LocalEmbedder
from helpers.models.load import encoder_names, load_encoder
from helpers.retrieval.first_stages import (
    ByDocument,
    Dense,
    Retriever,
    Run,
    WeightedHybrid,
    fuse,
    max_pool,
    with_questions,
)
from helpers.retrieval.rerankers import Reranker, TwoStage, second_stage
from helpers.store.files import fingerprint
from helpers.store.stages import Stages

MOST_ENCODED = 750_000  # tokens that an encoder twice as large as MiniLM encodes in about five minutes on two cores


@dataclass(frozen=True, eq=False)
class System:
    """A way to search the chunks, and what it is made of.

    retriever : it searches the chunks; the system is called by its name
    key : changes whenever the system's runs would change
    encoder : whose vectors it compares; None for one that goes by words alone
    tuned : whether that encoder was tuned;  matrix : of an adapter on its query vectors, or None
    words, vectors : the two systems of a hybrid, else None
    first : the first stage of a system with a reranker, else None
    questions : how many questions its index holds beside the chunks
    """

    retriever: Retriever
    key: str
    encoder: SentenceTransformer | None = None
    tuned: bool = False
    matrix: np.ndarray | None = None
    words: "System | None" = None
    vectors: "System | None" = None
    first: "System | None" = None
    questions: int = 0

    @property
    def name(self) -> str:
        """What it is called on the scoreboard and in the report."""
        return self.retriever.name

    @property
    def weight(self) -> float | None:
        """Of the vectors in a hybrid, or of the reranker beside its first stage; None for a system of one part."""
        return getattr(self.retriever, "weight", None)

    @property
    def lexical(self) -> bool:
        """Whether it goes by words alone, with or without a reranker."""
        return self.encoder is None


def system_of(chunks: Chunks, retriever: Retriever, texts: Mapping[str, str] | None = None, **parts) -> System:
    """A system whose retriever searches the chunks, or ``texts`` that hold more; ``parts`` are other fields of it."""
    key = chunks.key if texts is None else fingerprint(texts)
    return System(retriever, fingerprint(retriever.name, retriever.key, key), **parts)


def _retrieved(system: System, queries: Mapping[str, str], depth: int) -> Run:
    return system.retriever.retrieve(queries, depth)


def _reranked(reranker: Reranker, queries: Mapping[str, str], run: Run, texts: Mapping[str, str], depth: int) -> Run:
    return reranker.rerank(queries, run, texts, depth)


@dataclass(frozen=True)
class Runs:
    """The systems' runs over one set of chunks; each is kept as a stage.

    collection : the collection with the splits that are scored
    """

    collection: Collection
    chunks: Chunks
    stages: Stages
    _kept: dict[str, Run] = field(default_factory=dict, repr=False)

    def queries(self, split: str) -> tuple[dict[str, str], Qrels]:
        """(queries, qrels) of a split or of the authors' sentences; both empty where the collection has none."""
        there = split in self.collection.qrels or (split == AUTHORS and self.collection.sentences)
        return self.collection.split(split) if there else ({}, {})

    def of_chunks(self, system: System, split: str) -> Run:
        """The system's run over chunks; {} where there is no such split.

        The run of a hybrid or of a system with a reranker is made of its parts' runs.
        """
        queries, _ = self.queries(split)
        if not queries:
            return {}
        depth, key = self.chunks.depth, fingerprint(system.key, queries, self.chunks.depth)
        if key not in self._kept:
            if system.words and system.vectors:
                parts = self.of_chunks(system.words, split), self.of_chunks(system.vectors, split)
                make, inputs = fuse, (*parts, system.weight, depth)
            elif system.first:
                cut, name = system.retriever.depth, system.name
                scores = self.reranked(system.first, system.retriever.reranker, cut, split, name)
                make, inputs = second_stage, (self.of_chunks(system.first, split), scores, cut, system.weight, depth)
            else:
                make, inputs = _retrieved, (system, queries, depth)
            self._kept[key] = self.stages.run(f"{split}: {system.name}", make, *inputs)
        return self._kept[key]

    def of_documents(self, system: System, split: str) -> Run:
        """The system's run over documents, at most 100 for each query."""
        return self.chunks.documents(self.of_chunks(system, split))

    def scores(self, system: System, split: str) -> list[float]:
        """nDCG@10 of each query of a split, in the same order for all systems; [] where there is no such split."""
        run, qrels = self.of_documents(system, split), self.queries(split)[1]
        return per_query(qrels, run)["ndcg@10"].tolist() if qrels else []

    def reranked(self, first: System, reranker: Reranker, depth: int, split: str, name: str) -> Run:
        """The first stage's best chunks with the reranker's scores alone; ``name`` is that of the whole system."""
        queries, run = self.queries(split)[0], self.of_chunks(first, split)
        if not queries:
            return {}
        texts = {d: self.chunks.texts[d] for docs in run.values() for d in docs}
        return self.stages.run(f"{split} reranked: {name}", _reranked, reranker, queries, run, texts, depth)


def _best_weight(
    run_by: Callable[[float], Run], qrels: Qrels, parents: Mapping[str, str], choose: bool = True
) -> tuple[float, float]:
    """(the ``best_weight`` of runs over chunks, its nDCG@10 on dev), scored over documents.

    ``qrels`` are those of dev. The weight is 0.5 without a choice where dev has fewer than ``FEW_DEV`` queries or
    ``choose`` is False; the score is nan where dev has none.
    """

    def documents(weight: float) -> Run:
        return max_pool(run_by(weight), parents, K)

    if not qrels:
        return 0.5, float("nan")
    if len(qrels) < FEW_DEV or not choose:
        return 0.5, float(per_query(qrels, documents(0.5))["ndcg@10"].mean())
    best, means = best_weight(qrels, documents)
    return best, round(means[best], 6)


def _fusion_weight(
    words: Run, vectors: Run, qrels: Qrels, parents: Mapping[str, str], depth: int, choose: bool
) -> tuple[float, float]:
    return _best_weight(lambda weight: fuse(words, vectors, weight, depth), qrels, parents, choose)


def _reranker_weight(
    run: Run, reranked: Run, cut: int, qrels: Qrels, parents: Mapping[str, str], depth: int
) -> tuple[float, float]:
    return _best_weight(lambda weight: second_stage(run, reranked, cut, weight, depth), qrels, parents)


def hybrid(runs: Runs, words: System, vectors: System, name: str, choose: bool) -> System:
    """A weighted fusion of two systems; the vectors' weight is chosen on dev, or 0.5 if ``choose`` is False."""
    weight, _ = runs.stages.run(
        f"weight of {name}",
        _fusion_weight,
        runs.of_chunks(words, "dev"),
        runs.of_chunks(vectors, "dev"),
        runs.queries("dev")[1],
        runs.chunks.parents,
        runs.chunks.depth,
        choose,
        tell=lambda chosen: f"{chosen[0]:.1f} for {vectors.name}",
    )
    retriever = WeightedHybrid(words.retriever, vectors.retriever, weight, name)
    parts = {"encoder": vectors.encoder, "tuned": vectors.tuned, "matrix": vectors.matrix}
    return system_of(runs.chunks, retriever, words=words, vectors=vectors, **parts)


def with_reranker(runs: Runs, first: System, reranker: Reranker, depth: int) -> tuple[System, float]:
    """(the system of two stages, its nDCG@10 on dev); the reranker reorders the best ``depth`` chunks.

    Its weight is chosen on dev. A weight of 0 says that on dev the reranker does not help.
    """
    name = f"{first.name} + {reranker.name}"
    weight, mean = runs.stages.run(
        f"weight of {name}",
        _reranker_weight,
        runs.of_chunks(first, "dev"),
        runs.reranked(first, reranker, depth, "dev", name),
        depth,
        runs.queries("dev")[1],
        runs.chunks.parents,
        runs.chunks.depth,
        tell=lambda chosen: f"{chosen[0]:.1f} for {reranker.name}",
    )
    retriever = TwoStage(first.retriever, reranker, depth, weight, name)
    retriever.corpus = runs.chunks.texts
    whole = system_of(runs.chunks, retriever)
    return replace(first, retriever=retriever, key=whole.key, words=None, vectors=None, first=first), mean


@dataclass(frozen=True)
class Systems:
    """The untrained systems and what gives their runs.

    untrained : cheapest first: the encoder, which is taken for the present system, and BM25; where any query is judged,
        their hybrid, the encoder over an index with questions, and the other encoders
    notices : sentences for the reader
    """

    runs: Runs
    untrained: Sequence[System]
    notices: Sequence[str] = ()

    @property
    def encoder(self) -> System:
        """The present system."""
        return self.untrained[0]

    @property
    def bm25(self) -> System:
        """BM25 alone."""
        return self.untrained[1]

    @property
    def hybrid(self) -> System:
        """The encoder and BM25, fused; where any query is judged."""
        return self.untrained[2]


def with_its_questions(chunks: Chunks, sources: Sources) -> System | None:
    """The encoder over an index that holds the questions one could train on beside the chunks; None without any.

    It needs no training, and is the control that a tuned encoder has to pass: the same questions, used the plain way.
    """
    options = [option for option in training_options(chunks, sources, chunks.embedder) if not option.headless]
    if not options:
        return None
    texts, parents = with_questions(chunks.texts, options[-1].queries, options[-1].positives)
    encoder = chunks.dense.embedder.encoder
    dense = Dense(LocalEmbedder(encoder, "encoder + questions"), chunks.folder).index(texts)
    return system_of(chunks, ByDocument(dense, parents), texts, encoder=encoder, questions=len(parents))


def another_encoder(chunks: Chunks, name: str, stages: Stages) -> System:
    """Another encoder over the chunks."""
    label = os.path.basename(name) if os.path.isdir(name) else name
    embedder = LocalEmbedder(load_encoder(name), label)
    tell = lambda n: f"{n:,} encoded"  # noqa: E731
    stages.run(f"vectors of {label}", encode_texts, embedder, chunks.texts, str(chunks.folder), tell=tell)
    return system_of(chunks, Dense(embedder, chunks.folder).index(chunks.texts), encoder=embedder.encoder)


def untrained_systems(chunks: Chunks, sources: Sources, stages: Stages) -> Systems:
    """What can be had without training; made questions do not choose the weight of the hybrid.

    Encoders beside the first are measured where the passages have at most ``MOST_ENCODED`` tokens, or where
    ``ENCODER_MODEL`` names them.
    """
    runs = Runs(sources.collection, chunks, stages)
    encoder = system_of(chunks, chunks.dense, encoder=chunks.dense.embedder.encoder)
    systems = [encoder, system_of(chunks, chunks.bm25)]
    if not sources.final:
        return Systems(runs, systems)
    systems.append(hybrid(runs, systems[1], encoder, "hybrid (weighted)", not sources.dev_made))
    expanded = with_its_questions(chunks, sources)
    systems += [expanded] if expanded else []
    first, *others = encoder_names()
    if others and chunks.tokens > MOST_ENCODED and not os.environ.get("ENCODER_MODEL"):
        named = os.pathsep.join([first, *others])
        notice = (
            f"{chunks.tokens:,} tokens are too many to encode them by {' and '.join(others)} too, which is measured "
            f"up to {MOST_ENCODED:,}: ENCODER_MODEL={named} does it all the same."
        )
        return Systems(runs, systems, [notice])
    return Systems(runs, [*systems, *(another_encoder(chunks, name, stages) for name in others)])

"""What the homework trains on, and how much of it the time allows; dev chooses between the sources."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from helpers.collection.chunking import token_counts
from helpers.evaluation.choosing import DevRetrieval, dev_corpus
from helpers.evaluation.measures import Qrels
from helpers.homework.chunks import Chunks
from helpers.homework.options import HEADLESS, Option, best_positives, training_options
from helpers.homework.sources import FEW_DEV, Labels, Queries, Sources
from helpers.homework.systems import Systems
from helpers.models.embed import CachedEmbedder
from helpers.retrieval.first_stages import Run, max_pool
from helpers.store.files import fingerprint
from helpers.training.adapter import train_adapter
from helpers.training.fitting import Recipe
from helpers.training.triplets import Triplet, build_triplets
from helpers.training.tune import FEWEST, TrainingSet, sample_queries

MOST_DEV_RELEVANT = 800  # relevant passages in the small dev collection
MOST_DEV_POSITIVES = 10  # of one query; nDCG@10 sees no more
# The time for all trainings together, by the number of passages (``training_seconds``).
BASE_SECONDS, PASSAGE_SECONDS, MOST_SECONDS = (120.0, 0.08, 600.0)
TOKENS_PER_SECOND = 1500.0  # trained on two cores (measured: 1,000 to 2,000)
ENCODED_PER_TRAINED = 3.5  # encoding is so many times as fast as training
GPU_FACTOR = 20.0
NEARLY_ALL = 0.8  # of the queries: where the time is enough for so many, all are taken
CURVE = (8, 3)  # the learning curve has an eighth and a third of the queries beside all of them
FEW_TOKENS = 8  # taken as a text's mean length where there is none to count


class DevByDocument(DevRetrieval):
    """nDCG@10 on dev where passages were cut: ``qrels`` name documents, and a document ranks by its best chunk.

    ``parents`` is {chunk id: doc_id}.
    """

    def __init__(self, queries: Mapping[str, str], qrels: Qrels, corpus: Mapping[str, str], parents: Mapping[str, str]):
        super().__init__(queries, qrels, corpus)
        self.parents = dict(parents)
        self.key = fingerprint(self.key, self.parents)

    def retrieve(self, model, k: int = 10) -> Run:
        """The k best documents for each dev query."""
        return max_pool(super().retrieve(model, 3 * k), self.parents, k)


@dataclass(frozen=True)
class DevSet:
    """Dev as the trainings ask it.

    evaluator : chooses checkpoints of the encoder over a small corpus
    queries, qrels : all of dev, for adapters; every chunk of a relevant document counts as relevant
    """

    evaluator: DevRetrieval
    queries: Queries
    qrels: Labels


def dev_set(chunks: Chunks, sources: Sources, run: Run) -> DevSet:
    """Dev as the trainings ask it; ``run`` is that of the untrained encoder over the chunks.

    The evaluator's corpus has at most ten relevant passages a query, and only as many queries are asked as keep it
    small.
    """
    qrels = sources.dev_qrels
    if chunks.parents:
        qrels = {q: {p: g for d, g in docs.items() for p in chunks.parts.get(d, [d])} for q, docs in qrels.items()}
    few: Labels = {}
    chosen: set[str] = set()
    by_hash = sorted(
        best_positives(qrels, MOST_DEV_POSITIVES).items(), key=lambda item: fingerprint("small dev", item[0])
    )
    for q, docs in by_hash:
        if not few or len(chosen.union(docs)) <= MOST_DEV_RELEVANT:
            few[q] = docs
            chosen.update(docs)
    few = {q: few[q] for q in sources.dev if q in few}
    small = dev_corpus(chunks.texts, few, run)
    queries, right = {q: sources.dev[q] for q in few}, {q: sources.dev_qrels[q] for q in few}
    if chunks.parents:
        return DevSet(DevByDocument(queries, right, small, chunks.parents), sources.dev, qrels)
    return DevSet(DevRetrieval(queries, right, small), sources.dev, qrels)


@dataclass(frozen=True)
class Plan:
    """What is trained on, and how much of it.

    data : the training set; the adapter takes all of it
    headless : texts for training alone, the passages of headings without these
    size, sizes : how many queries train the encoder (0: nothing is trained), and the smaller numbers of its curve
    why : what was chosen, in words
    """

    data: TrainingSet
    headless: Mapping[str, str]
    size: int
    sizes: Sequence[int]
    why: str


def training_seconds(passages: int) -> float:
    """Seconds for all trainings together, on two cores: two minutes and a little for each passage, ten at most."""
    return min(MOST_SECONDS, BASE_SECONDS + PASSAGE_SECONDS * passages)


def affordable(most: int, row_tokens: float, dev_tokens: float, seconds: float, recipe: Recipe | None = None) -> int:
    """How many of ``most`` rows can be trained on in ``seconds``, at least ``FEWEST``.

    The time includes the shorter trainings of the learning curve and the scoring on dev. ``row_tokens`` are the tokens
    of one row, ``dev_tokens`` those of the small dev collection. It is estimated by tokens, not by a clock, so that two
    runs train the same.
    """
    recipe = recipe or Recipe()
    speed = TOKENS_PER_SECOND * (GPU_FACTOR if torch.cuda.is_available() else 1.0)
    asking = (1 + len(CURVE)) * (recipe.evaluations + 2) * dev_tokens / (ENCODED_PER_TRAINED * speed)
    each = recipe.epochs * row_tokens / speed * (1 + sum(1 / part for part in CURVE))
    return min(most, max(FEWEST, int((seconds - asking) / each))) if each > 0 else most


def adapter_rows(chunks: Chunks, queries: Queries, positives: Qrels) -> list[Triplet]:
    """The triplets of all the queries, to train an adapter on.

    The positive of a heading is its whole passage here, because only those have vectors.
    """
    whole = {q: {d.removesuffix(HEADLESS): g for d, g in docs.items()} for q, docs in positives.items()}
    return build_triplets(chunks.texts, queries, whole, "in-batch")


def training_rows(chunks: Chunks, plan: Plan, size: int | None = None) -> list[Triplet]:
    """The triplets of ``size`` queries of the plan, which are drawn by seed 0; without a size, of all queries."""
    queries, positives = sample_queries(plan.data, size, seed=0)
    return build_triplets({**chunks.texts, **plan.headless}, queries, positives, "in-batch")


def _gains(
    rows_of: Mapping[str, Sequence[Triplet]],
    embedder: CachedEmbedder,
    texts: Mapping[str, str],
    dev: Queries,
    dev_qrels: Qrels,
) -> dict[str, float]:
    """{name: best dev nDCG@10 of an adapter that is trained on these rows}."""
    return {name: max(train_adapter(some, embedder, texts, (dev, dev_qrels))[1]) for name, some in rows_of.items()}


def plan_training(systems: Systems, sources: Sources, dev: DevSet | None, minutes: float | None) -> Plan:
    """Choose what to train on, and how much of it the time allows; without ``minutes``, the passages say how much.

    Dev chooses between the ``training_options``, by an adapter on each, which takes seconds. Where dev is too small to
    choose, judged queries and questions are taken together, and headings only when there is nothing else.
    """
    chunks = systems.runs.chunks

    def nothing(why: str) -> Plan:
        return Plan(TrainingSet({}, {}, sources.dev, sources.dev_qrels, ""), {}, 0, [], f"nothing was tuned{why}")

    if minutes == 0:
        return nothing(", as --minutes 0 asks")
    if dev is None:
        return nothing(": there are no dev queries to choose by")
    options = training_options(chunks, sources, chunks.embedder)
    usable = [option for option in options if len(option.queries) >= FEWEST]
    if not usable:
        most = max((len(option.queries) for option in options), default=0)
        return nothing(f": {most} different queries are too few (at least {FEWEST})")
    without_headings = [option for option in usable if not option.headless]
    chosen = (without_headings or usable)[-1]
    why = f"{chosen.name}; dev is too small to choose between sources"
    if len(usable) == 1:
        why = f"{chosen.name}, the only source"
    elif len(sources.dev) >= FEW_DEV:
        gains = systems.runs.stages.run(
            "choice of training data",
            _gains,
            {option.name: adapter_rows(chunks, option.queries, option.positives) for option in usable},
            chunks.embedder,
            chunks.texts,
            dev.queries,
            dev.qrels,
            tell=lambda gains: max(gains, key=lambda name: round(gains[name], 4)),
        )
        chosen = max(usable, key=lambda option: round(gains[option.name], 4))  # of equal ones the first, the smallest
        scores = ", ".join(f"{name} {value:.3f}" for name, value in gains.items())
        why = f"{chosen.name}, by dev nDCG@10 on the small collection with an adapter alone ({scores})"
    total = len(chosen.positives)
    size = _size(chunks, chosen, dev.evaluator, None if minutes is None else minutes * 60)
    if size >= NEARLY_ALL * total:
        size = total
    if size < total:
        why += f"; {size:,} of {total:,} queries train the encoder, to keep to the time (--minutes gives it more)"
    data = TrainingSet(chosen.queries, chosen.positives, sources.dev, sources.dev_qrels, chosen.name)
    return Plan(data, chosen.headless, size, [size // part for part in CURVE if size // part >= FEWEST], why)


def _size(chunks: Chunks, option: Option, evaluator: DevRetrieval, seconds: float | None) -> int:
    """How many of the queries train the encoder in the time."""
    encoder, limit = chunks.dense.embedder.encoder, Recipe().max_tokens
    texts = {**chunks.texts, **option.headless}
    pairs = [(q, d) for q, docs in option.positives.items() for d, g in docs.items() if g > 0]

    def mean(some: list[str]) -> float:
        return float(np.mean([min(limit, n) for n in token_counts(some, encoder)])) if some else FEW_TOKENS

    row = mean([option.queries[q] for q, _ in pairs[:500]]) + mean([texts[d] for _, d in pairs[:500]])
    dev = len(evaluator.corpus) * mean(list(evaluator.corpus.values()))
    fit = affordable(len(pairs), row, dev, training_seconds(len(chunks.texts)) if seconds is None else seconds)
    return min(len(option.positives), max(FEWEST, int(len(option.positives) * fit / len(pairs))))

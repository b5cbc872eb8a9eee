"""What the homework trains on, and how much of it the time allows; dev chooses between the sources."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from helpers.collection.chunking import token_counts
from helpers.collection.repeats import Repeats
from helpers.collection.text import normalise
from helpers.evaluation.choosing import DevRetrieval, dev_corpus
from helpers.evaluation.measures import Qrels
from helpers.homework.chunks import Chunks
from helpers.homework.sources import FEW_DEV, Labels, Queries, Sources
from helpers.homework.systems import Systems
from helpers.models.embed import CachedEmbedder, Embedder
from helpers.retrieval.first_stages import Run, max_pool
from helpers.store.files import fingerprint
from helpers.training.adapter import train_adapter
from helpers.training.fitting import Recipe
from helpers.training.triplets import Triplet, build_triplets
from helpers.training.tune import FEWEST, TrainingSet, sample_queries

MOST_DEV_RELEVANT = 800  # relevant passages in the small dev collection
MOST_DEV_POSITIVES = 10  # of one query; nDCG@10 sees no more
MOST_HEADINGS = 1000
HEADLESS = " (body)"  # after a doc id: its text without the heading, for training alone
# A heading: the first line, or what stands before the first colon, full stop, question or exclamation mark.
_HEADING = re.compile(r"^(?P<head>[^\n]{3,150}?)(?:\n+|[:.?!]\s+)(?P<body>\S.*)$", re.S)
# The time for all trainings together, by the number of passages (``training_seconds``).
BASE_SECONDS, PASSAGE_SECONDS, MOST_SECONDS = (120.0, 0.08, 600.0)
TOKENS_PER_SECOND = 1500.0  # trained on two cores (measured: 1,000 to 2,000)
ENCODED_PER_TRAINED = 3.5  # encoding is so many times as fast as training
GPU_FACTOR = 20.0
NEARLY_ALL = 0.8  # of the queries: where the time is enough for so many, all are taken
CURVE = (8, 3)  # the learning curve has an eighth and a third of the queries beside all of them
MOST_POSITIVES = 5  # passages of one query that are trained on
FEW_TOKENS = 8  # taken as a text's mean length where there is none to count


# What chooses


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


def best_positives(positives: Qrels, most: int) -> Labels:
    """At most ``most`` relevant passages for each query, the best graded; a hash decides between equal grades."""
    best = {}
    for q, docs in positives.items():
        right = sorted((d for d, grade in docs.items() if grade > 0), key=lambda d: (-docs[d], fingerprint(q, d)))
        best[q] = {d: docs[d] for d in right[:most]}
    return best


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


# What could be trained on


def headings(corpus: Mapping[str, str], most: int = MOST_HEADINGS) -> tuple[Queries, Labels, dict[str, str]]:
    """Titles and headings as queries for the rest of their passages, which needs no LLM.

    A heading is a passage's first line, or what stands before its first colon or full stop: 2 to 20 words, before at
    least 8 more. Returns ({id: heading}, {id: {doc + HEADLESS: 1}}, {doc + HEADLESS: the passage without its heading}).
    Source: the inverse cloze task, Lee, Chang and Toutanova, ACL 2019.
    """
    queries: Queries = {}
    positives: Labels = {}
    headless: dict[str, str] = {}
    seen: set[str] = set()
    for doc in sorted(corpus, key=lambda d: fingerprint("opening", d)):
        match = _HEADING.match(corpus[doc].strip())
        if len(queries) == most or not match:
            continue
        parts = match["head"].split(" › ")
        head = normalise(" ".join(parts[1:] if len(parts) > 1 else parts).strip("#*= "))  # without the document's name
        if not 2 <= len(head.split()) <= 20 or len(match["body"].split()) < 8 or head.lower() in seen:
            continue
        seen.add(head.lower())
        query = f"o-{fingerprint(doc)[:12]}"
        queries[query], positives[query] = head, {doc + HEADLESS: 1}
        headless[doc + HEADLESS] = match["body"].strip()
    return queries, positives, headless


def to_chunks(chunks: Chunks, queries: Queries, positives: Qrels, embedder: Embedder) -> Labels:
    """Positives as they are searched: of a passage that was cut, the chunk that is nearest to the query."""
    if not chunks.parents or not positives:
        return {q: dict(docs) for q, docs in positives.items()}
    wanted = sorted({chunk for docs in positives.values() for doc in docs for chunk in chunks.parts.get(doc, ())})
    vectors = dict(zip(wanted, embedder.embed([chunks.texts[c] for c in wanted], "document"), strict=True))
    asked = dict(zip(positives, embedder.embed([queries[q] for q in positives], "query"), strict=True))
    over_chunks: Labels = {}
    for q, docs in positives.items():
        for doc, grade in docs.items():
            nearest = max(chunks.parts.get(doc, [doc]), key=lambda c, q=q: vectors[c] @ asked[q] if c in vectors else 0)
            over_chunks.setdefault(q, {})[nearest] = grade
    return over_chunks


def once(queries: Queries, positives: Qrels) -> tuple[Queries, Labels]:
    """(queries, positives) with each query text once, under its first id; the positives of equal texts are merged."""
    first: dict[str, str] = {}
    merged: Labels = {}
    for q, docs in positives.items():
        kept = first.setdefault(normalise(queries[q]), q)
        merged.setdefault(kept, {}).update(docs)
    return {q: queries[q] for q in merged}, merged


@dataclass(frozen=True)
class Option:
    """Queries and positives that could be trained on.

    headless : texts for training alone, the passages of headings without these
    """

    name: str
    queries: Queries
    positives: Labels
    headless: Mapping[str, str]


def training_options(chunks: Chunks, sources: Sources, embedder: Embedder) -> list[Option]:
    """What could be trained on: judged queries, the same with generated questions, and with headings too.

    Each option contains the one before it. None repeats a held-out query or has a heading of a held-out passage.
    """
    judged = to_chunks(chunks, sources.queries, best_positives(sources.positives, MOST_POSITIVES), embedder)
    made = to_chunks(chunks, *sources.made, embedder)
    free = {c: text for c, text in chunks.texts.items() if chunks.parents.get(c, c) not in sources.held_passages}
    heads, head_positives, headless = headings(free)
    repeats = Repeats([*sources.dev.values(), *sources.test.values()])
    heads = {q: text for q, text in heads.items() if not repeats(text)}
    options: list[Option] = []
    queries: Queries = {}
    positives: Labels = {}
    for name, more_queries, more, texts in (
        ("judged queries", sources.queries, judged, {}),
        ("made questions", sources.made[0], made, {}),
        ("headings", heads, {q: head_positives[q] for q in heads}, headless),
    ):
        if more:
            queries, positives = queries | more_queries, positives | more
            names = f"{options[-1].name} and {name}" if options else name
            options.append(Option(names, *once(queries, positives), texts))
    return options


# What is chosen


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

"""Train the adapter and the encoder within the time that the size of the collection allows.

Dev chooses what to train on and which checkpoint to keep, and says what more data may bring.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from helpers.collection.chunking import token_counts
from helpers.collection.collection import Collection
from helpers.collection.repeats import Repeats
from helpers.collection.text import normalise
from helpers.evaluation.choosing import DevRetrieval, dev_corpus
from helpers.evaluation.measures import Qrels, per_query
from helpers.homework.bench import Bench, System
from helpers.homework.deciding import FEW_DEV
from helpers.homework.sources import BODY, Sources, openings
from helpers.models.embed import CachedEmbedder, Embedder, LocalEmbedder
from helpers.models.load import load_encoder
from helpers.retrieval.first_stages import Run, max_pool
from helpers.store.files import fingerprint
from helpers.training.adapter import train_adapter
from helpers.training.export import to_dataset
from helpers.training.fitting import Trained, training_key
from helpers.training.recipe import Recipe
from helpers.training.triplets import Triplet, build_triplets
from helpers.training.tune import FEWEST, TrainingSet, finetune_encoder, sample_queries

Queries = Mapping[str, str]
MOST_DEV_RELEVANT = 800  # relevant passages in the small dev collection
MOST_DEV_POSITIVES = 10  # of one query; nDCG@10 sees no more


class DevByDocument(DevRetrieval):
    """nDCG@10 on dev where passages were cut: ``qrels`` name documents, and a document ranks by its best chunk.

    ``owner`` is {chunk id: doc_id}.
    """

    def __init__(self, queries: Queries, qrels: Qrels, corpus: Mapping[str, str], owner: Mapping[str, str]):
        super().__init__(queries, qrels, corpus)
        self.owner = dict(owner)
        self.key = fingerprint(self.key, self.owner)

    def retrieve(self, model, k: int = 10) -> Run:
        """The k best documents for each dev query."""
        return max_pool(super().retrieve(model, 3 * k), self.owner, k)


def parts_of(bench: Bench) -> dict[str, list[str]]:
    """{doc_id: its chunks} of the passages that were cut."""
    parts: dict[str, list[str]] = {}
    for piece, doc in bench.owner.items():
        parts.setdefault(doc, []).append(piece)
    return parts


def best_positives(positives: Qrels, most: int) -> dict[str, dict[str, int]]:
    """At most ``most`` relevant passages for each query, the best graded; a hash decides between equal grades."""
    found = {}
    for q, docs in positives.items():
        right = sorted((d for d, grade in docs.items() if grade > 0), key=lambda d: (-docs[d], fingerprint(q, d)))
        found[q] = {d: docs[d] for d in right[:most]}
    return found


def dev_set(bench: Bench, sources: Sources, base: System) -> tuple[DevRetrieval, dict[str, dict[str, int]]]:
    """(what chooses checkpoints, dev qrels over chunks).

    The first has at most ten relevant passages a query, and only as many queries as keep its collection small. In the
    second, every chunk of a relevant document counts as relevant.
    """
    qrels = sources.dev_qrels
    if bench.owner:
        parts = parts_of(bench)
        qrels = {q: {p: g for d, g in docs.items() for p in parts.get(d, [d])} for q, docs in qrels.items()}
    few: dict[str, dict[str, int]] = {}
    chosen: set[str] = set()
    for q, docs in sorted(
        best_positives(qrels, MOST_DEV_POSITIVES).items(),
        key=lambda item: fingerprint("small dev", item[0]),
    ):
        if not few or len(chosen.union(docs)) <= MOST_DEV_RELEVANT:
            few[q] = docs
            chosen.update(docs)
    few = {q: few[q] for q in sources.dev if q in few}
    small = dev_corpus(bench.pieces, few, bench.chunk_run(base, "dev"))
    queries, right = {q: sources.dev[q] for q in few}, {q: sources.dev_qrels[q] for q in few}
    if bench.owner:
        return DevByDocument(queries, right, small, bench.owner), qrels
    return DevRetrieval(queries, right, small), qrels


# The time for all trainings together, by the number of passages (``training_seconds``).
BASE_SECONDS, PASSAGE_SECONDS, MOST_SECONDS = (120.0, 0.08, 600.0)
TOKENS_PER_SECOND = 1500.0  # trained on two cores (measured: 1,000 to 2,000)
ENCODED_PER_TRAINED = 3.5  # encoding is so many times as fast as training
GPU_FACTOR = 20.0
NEARLY_ALL = 0.8  # of the queries: where the time is enough for so many, all are taken
CURVE = (8, 3)  # the learning curve has an eighth and a third of the queries beside all of them
MOST_POSITIVES = 5  # passages of one query that are trained on
FEW_TOKENS = 8  # taken as a text's mean length where there is none to count
NOTEBOOK_06 = "encoder-tuned"  # the model that notebook 06 keeps


@dataclass
class Plan:
    """What is trained on, and how much of it.

    data : the training set; the adapter takes all of it
    bodies : texts for training alone, the passages of openings without their headings
    size, sizes : how many queries train the encoder (0: nothing is trained), and the smaller numbers of its curve
    why : what was chosen, in words
    """

    data: TrainingSet
    bodies: dict[str, str]
    size: int
    sizes: list[int]
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


def to_pieces(bench: Bench, queries: Queries, positives: Qrels, embedder: Embedder) -> dict[str, dict[str, int]]:
    """Positives as they are searched: of a passage that was cut, the chunk that is nearest to the query."""
    if not bench.owner or not positives:
        return {q: dict(docs) for q, docs in positives.items()}
    parts = parts_of(bench)
    wanted = sorted({piece for docs in positives.values() for doc in docs for piece in parts.get(doc, ())})
    vectors = dict(zip(wanted, embedder.embed([bench.pieces[p] for p in wanted], "document"), strict=True))
    asked = dict(zip(positives, embedder.embed([queries[q] for q in positives], "query"), strict=True))
    found: dict[str, dict[str, int]] = {}
    for q, docs in positives.items():
        for doc, grade in docs.items():
            nearest = max(parts.get(doc, [doc]), key=lambda p, q=q: vectors[p] @ asked[q] if p in vectors else 0.0)
            found.setdefault(q, {})[nearest] = grade
    return found


def once(queries: Queries, positives: Qrels) -> tuple[dict[str, str], dict[str, dict[str, int]]]:
    """(queries, positives) with each query text once, under its first id; the positives of equal texts are merged."""
    first: dict[str, str] = {}
    merged: dict[str, dict[str, int]] = {}
    for q, docs in positives.items():
        kept = first.setdefault(normalise(queries[q]), q)
        merged.setdefault(kept, {}).update(docs)
    return {q: queries[q] for q in merged}, merged


def adapter_rows(bench: Bench, data: TrainingSet) -> list[Triplet]:
    """The triplets of all queries of the plan, to train an adapter on.

    The positive of an opening is its whole passage here, because only those have vectors.
    """
    positives = {q: {d.removesuffix(BODY): g for d, g in docs.items()} for q, docs in data.positives.items()}
    return build_triplets(bench.pieces, data.queries, positives, "in-batch")


def _gains(
    rows: Mapping[str, Sequence[Triplet]],
    embedder: CachedEmbedder,
    pieces: Mapping[str, str],
    dev: Queries,
    dev_qrels: Qrels,
) -> dict[str, float]:
    """{name: best dev nDCG@10 of an adapter that is trained on these rows}."""
    return {name: max(train_adapter(some, embedder, pieces, (dev, dev_qrels))[1]) for name, some in rows.items()}


def training_options(
    bench: Bench, sources: Sources, embedder: Embedder
) -> tuple[dict[str, tuple[dict, dict]], dict[str, str]]:
    """({name: (queries, positives)} of what could be trained on, {id: text} of openings without their headings).

    Each option contains the one before it. None repeats a held-out query or has an opening of a held-out passage.
    """
    judged = to_pieces(bench, sources.queries, best_positives(sources.positives, MOST_POSITIVES), embedder)
    made = to_pieces(bench, sources.made[0], sources.made[1], embedder)
    free = {p: text for p, text in bench.pieces.items() if bench.owner.get(p, p) not in sources.held_passages}
    heads, head_positives, bodies = openings(free)
    repeats = Repeats([*sources.dev.values(), *sources.test.values()])
    heads = {q: text for q, text in heads.items() if not repeats(text)}
    head_positives = {q: head_positives[q] for q in heads}
    options: dict[str, tuple[dict, dict]] = {}
    if judged:
        options["judged queries"] = (sources.queries, judged)
    if made:
        name = "judged queries and made questions" if judged else "made questions"
        options[name] = (sources.queries | sources.made[0], judged | made)
    if heads:
        name, (queries, positives) = list(options.items())[-1] if options else ("", ({}, {}))
        name = f"{name} and headings" if name else "headings"
        options[name] = ({**queries, **heads}, {**positives, **head_positives})
    return {name: once(*option) for name, option in options.items()}, bodies


def plan(bench: Bench, sources: Sources, base: System, seconds: float | None = None) -> Plan:
    """Choose what to train on, and how much of it the time allows.

    The options are judged queries, the same with generated questions, and with openings too. Dev chooses, by an adapter
    on each, which takes seconds. Where dev is too small to choose, judged queries and questions are taken together, and
    openings only when there is nothing else.
    """
    embedder = CachedEmbedder(base.retriever.embedder, bench.tables)
    options, bodies = training_options(bench, sources, embedder)
    usable = {name: option for name, option in options.items() if len(option[0]) >= FEWEST}
    evaluator, dev_qrels = dev_set(bench, sources, base) if sources.dev else (None, {})

    def training(name: str) -> TrainingSet:
        return TrainingSet(*usable[name], sources.dev, sources.dev_qrels, name)

    if seconds == 0:
        return Plan(
            TrainingSet({}, {}, sources.dev, sources.dev_qrels, ""),
            {},
            0,
            [],
            "nothing was tuned, as --minutes 0 asks",
        )
    if not usable or not sources.dev:
        return Plan(TrainingSet({}, {}, sources.dev, sources.dev_qrels, ""), {}, 0, [], _too_few(options, sources))
    without = [name for name in usable if "headings" not in name]
    chosen = (without or list(usable))[-1]
    why = f"{chosen}; dev is too small to choose between sources"
    if len(usable) == 1:
        why = f"{chosen}, the only source"
    elif len(sources.dev) >= FEW_DEV:
        rows_of = {name: adapter_rows(bench, training(name)) for name in usable}
        found = bench.stages.run(
            "choice of training data",
            _gains,
            rows_of,
            embedder,
            bench.pieces,
            sources.dev,
            dev_qrels,
            tell=lambda gains: max(gains, key=lambda name: round(gains[name], 4)),
        )
        chosen = max(found, key=lambda name: round(found[name], 4))  # of equal ones the first, the smallest
        scores = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
        why = f"{chosen}, by dev nDCG@10 on the small collection with an adapter alone ({scores})"
    data = training(chosen)
    if "headings" not in chosen:
        bodies = {}
    total = len(data.positives)
    size = _size(bench, data, bodies, evaluator, seconds)
    if size >= NEARLY_ALL * total:
        size = total
    if size < total:
        why += f"; {size:,} of {total:,} queries train the encoder, to keep to the time (--minutes gives it more)"
    return Plan(data, bodies, size, [size // part for part in CURVE if size // part >= FEWEST], why)


def _too_few(options: Mapping[str, tuple[dict, dict]], sources: Sources) -> str:
    if not sources.dev:
        return "nothing was tuned: there are no dev queries to choose by"
    most = max((len(queries) for queries, _ in options.values()), default=0)
    return f"nothing was tuned: {most} different queries are too few (at least {FEWEST})"


def rows(bench: Bench, data: TrainingSet, bodies: Mapping[str, str], size: int | None = None) -> list[Triplet]:
    """The triplets of ``size`` queries, which are drawn by seed 0; without a size, of all queries."""
    queries, positives = sample_queries(data, size, seed=0)
    return build_triplets({**bench.pieces, **bodies}, queries, positives, "in-batch")


def _size(bench: Bench, data: TrainingSet, bodies: dict, evaluator: DevRetrieval, seconds: float | None) -> int:
    encoder, limit = load_encoder(), Recipe().max_tokens
    texts = {**bench.pieces, **bodies}
    pairs = [(q, d) for q, docs in data.positives.items() for d, g in docs.items() if g > 0]

    def mean(found: list[str]) -> float:
        return float(np.mean([min(limit, n) for n in token_counts(found, encoder)])) if found else FEW_TOKENS

    row = mean([data.queries[q] for q, _ in pairs[:500]]) + mean([texts[d] for _, d in pairs[:500]])
    dev = len(evaluator.corpus) * mean(list(evaluator.corpus.values()))
    fit = affordable(len(pairs), row, dev, training_seconds(len(bench.pieces)) if seconds is None else seconds)
    return min(len(data.positives), max(FEWEST, int(len(data.positives) * fit / len(pairs))))


def folder_of(texts: Collection, triplets: Sequence[Triplet]) -> Path:
    """The folder of the encoder that is tuned on these triplets, named by their number of queries."""
    return texts.build / "models" / f"homework-encoder-{len({t.query_id for t in triplets})}"


def train(
    base: LocalEmbedder, triplets: Sequence[Triplet], texts: Collection, evaluator: DevRetrieval, recipe: Recipe
) -> Trained:
    """Tune a fresh copy of the encoder that ``base`` has.

    Where the same training was done before, also by notebook 06, its model is loaded.
    """
    name = folder_of(texts, triplets).name
    key = training_key(base.encoder, to_dataset(triplets, texts.corpus, "pairs"), recipe, evaluator)
    try:
        record = json.loads((texts.build / "models" / NOTEBOOK_06 / "run.json").read_text(encoding="utf-8"))
        name = NOTEBOOK_06 if record["key"] == key else name
    except (OSError, ValueError, KeyError):
        pass
    return finetune_encoder(texts, triplets, evaluator, load_encoder(), recipe, name)


def curve_point(evaluator: DevRetrieval, model) -> list[float]:
    """nDCG@10 of each dev query over the small dev collection."""
    return per_query(evaluator.qrels, evaluator.retrieve(model))["ndcg@10"].tolist()

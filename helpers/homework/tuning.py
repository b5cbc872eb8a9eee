"""Train adapters and the encoder by the plan, and say what more data may bring; dev chooses each checkpoint."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer

from helpers.collection.collection import Collection
from helpers.evaluation.choosing import DevRetrieval
from helpers.evaluation.measures import Qrels, interval, per_query
from helpers.homework.plan import DevSet, Plan, adapter_rows, dev_set, plan_training, training_rows
from helpers.homework.sources import Queries, Sources
from helpers.homework.systems import System, Systems, hybrid, system_of
from helpers.models.embed import AdaptedEmbedder, CachedEmbedder, LocalEmbedder
from helpers.models.load import load_encoder
from helpers.retrieval.first_stages import Dense
from helpers.training.adapter import train_adapter
from helpers.training.export import to_dataset
from helpers.training.fitting import Recipe, Trained, training_key
from helpers.training.splits import enough
from helpers.training.triplets import Triplet
from helpers.training.tune import finetune_encoder

NOTEBOOK_06 = "encoder-tuned"  # the model that notebook 06 keeps


@dataclass(frozen=True)
class Tuned:
    """What was trained, and the systems that use it.

    systems : cheapest first; none where nothing was trained
    curve : {queries trained on: mean score on dev}, over the small corpus
    gain : what ``expected_gain`` gives of the curve
    start, seconds : the score of the untrained encoder over the small corpus, and the time of the whole training; None
        where nothing was trained
    enough : what so many queries are enough for, by a rule of thumb
    """

    plan: Plan
    systems: Sequence[System] = ()
    curve: Mapping[int, float] = field(default_factory=dict)
    gain: Mapping[str, float] | None = None
    start: float | None = None
    seconds: float | None = None
    enough: str = ""


def expected_gain(points: Mapping[int, Sequence[float]], seed: int = 0) -> dict[str, float] | None:
    """What twice the data may bring on dev, {"gain", "low", "high"} in nDCG@10; None with fewer than two sizes.

    It is the slope of the mean over log2(number of queries), by least squares. ``points`` are {number of training
    queries: score of each dev query, in one order}. ``low`` and ``high`` are the 95 % bootstrap interval over dev
    queries; how much a training differs from seed to seed is not in it.
    """
    sizes = sorted(points)
    if len(sizes) < 2 or len(points[sizes[0]]) < 2:
        return None
    x = np.log2(sizes)
    x = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    table = np.array([points[size] for size in sizes], dtype=float)  # sizes × queries
    slopes = x @ table  # of each query; their mean is the slope of the means
    low, high = interval(slopes.tolist(), seed)
    return {"gain": float(slopes.mean()), "low": low, "high": high}


def _adapter(
    triplets: list[Triplet],
    embedder: CachedEmbedder,
    texts: Mapping[str, str],
    dev: Queries,
    dev_qrels: Qrels,
) -> list:
    matrix, curve = train_adapter(triplets, embedder, texts, (dev, dev_qrels))
    return [matrix.tolist(), curve]


def adapted(systems: Systems, plan: Plan, dev: DevSet, base: System, name: str) -> System:
    """The system with an adapter on its query vectors."""
    chunks, embedder = systems.runs.chunks, base.retriever.embedder
    values, _ = systems.runs.stages.run(
        f"adapter: {name}",
        _adapter,
        adapter_rows(chunks, plan.data.queries, plan.data.positives),
        CachedEmbedder(embedder, chunks.folder),
        chunks.texts,
        dev.queries,
        dev.qrels,
        tell=lambda trained: f"dev {trained[1][0]:.3f} → {max(trained[1]):.3f}",
    )
    matrix = np.array(values, dtype=np.float32)
    retriever = Dense(AdaptedEmbedder(embedder, matrix, name), chunks.folder).index(chunks.texts)
    return system_of(chunks, retriever, encoder=base.encoder, tuned=base.tuned, matrix=matrix)


def folder_of(texts: Collection, triplets: Sequence[Triplet]) -> Path:
    """The folder of the encoder that is tuned on these triplets, named by their number of queries."""
    return texts.build / "models" / f"homework-encoder-{len({t.query_id for t in triplets})}"


def train_encoder(
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


def curve_point(evaluator: DevRetrieval, model: SentenceTransformer) -> list[float]:
    """nDCG@10 of each dev query over the small dev collection."""
    return per_query(evaluator.qrels, evaluator.retrieve(model))["ndcg@10"].tolist()


def _trained(
    base: LocalEmbedder, triplets: list[Triplet], texts: Collection, evaluator: DevRetrieval, recipe: Recipe
) -> dict:
    trained = train_encoder(base, triplets, texts, evaluator, recipe)
    scores = curve_point(evaluator, trained.model)
    return {"scores": scores, "seconds": trained.record["seconds"], "dev": trained.record["dev"]}


def tune_systems(systems: Systems, sources: Sources, minutes: float | None) -> Tuned:
    """Train adapters, the encoder and its learning curve, in ``minutes`` or what the number of passages allows."""
    runs, base = systems.runs, systems.encoder
    chunks = runs.chunks
    dev = dev_set(chunks, sources, runs.of_chunks(base, "dev")) if sources.dev else None
    plan = plan_training(systems, sources, dev, minutes)
    if not plan.size:
        return Tuned(plan)
    adapter = adapted(systems, plan, dev, base, "encoder + adapter")
    texts = Collection(runs.collection.name, {**chunks.texts, **plan.headless})
    points: dict[int, list[float]] = {}
    for size in [*sorted(plan.sizes), plan.size]:
        triplets = training_rows(chunks, plan, size if size < len(plan.data.positives) else None)
        inputs = (base.retriever.embedder, triplets, texts, dev.evaluator, Recipe())
        made = runs.stages.run(
            f"training on {size:,}",
            _trained,
            *inputs,
            tell=lambda made: f"small dev {made['dev']['start']:.3f} → {made['dev']['best']:.3f}",
        )
        if size != plan.size:  # of the smaller trainings the scores are all that is needed
            shutil.rmtree(folder_of(texts, triplets), ignore_errors=True)
        points[size] = made["scores"]
    encoder = train_encoder(*inputs).model  # loaded: the stage above has made it
    retriever = Dense(LocalEmbedder(encoder, "tuned encoder"), chunks.folder).index(chunks.texts)
    tuned = system_of(chunks, retriever, encoder=encoder, tuned=True)
    both = adapted(systems, plan, dev, tuned, "tuned encoder + adapter")
    mixed = hybrid(runs, systems.bm25, tuned, "tuned hybrid (weighted)", not sources.dev_made)
    return Tuned(
        plan,
        systems=[adapter, tuned, both, mixed],
        curve={size: float(np.mean(scores)) for size, scores in points.items()},
        gain=expected_gain(points),
        start=made["dev"]["start"],
        seconds=made["seconds"],
        enough=enough(training_rows(chunks, plan)),
    )

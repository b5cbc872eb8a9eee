"""The homework's long steps: passages made ready, adapter and encoder trained, second stages weighed.

Each of them continues where it stopped.
"""

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from helpers.collection.chunking import cut_long, token_counts
from helpers.collection.collection import Collection
from helpers.collection.repeats import near_duplicates
from helpers.collection.text import MULTILINGUAL, guess_language
from helpers.evaluation.choosing import DevRetrieval
from helpers.evaluation.measures import Qrels
from helpers.homework import deciding, tuning
from helpers.homework.bench import RERANKED, Bench, System
from helpers.homework.sources import Sources, Tools
from helpers.homework.tuning import dev_set
from helpers.models.embed import AdaptedEmbedder, CachedEmbedder, LocalEmbedder
from helpers.models.load import load_encoder, load_late_interaction, load_reranker, token_encoder
from helpers.retrieval.first_stages import BM25, Dense
from helpers.retrieval.rerankers import CrossEncoderReranker, LateInteraction
from helpers.store.stages import Stages
from helpers.training.adapter import train_adapter
from helpers.training.fitting import Recipe
from helpers.training.splits import enough
from helpers.training.triplets import Triplet

SPEED_SAMPLE = 64  # passages that are encoded once more, to time it


def _cut(corpus: Mapping[str, str], embedder: LocalEmbedder) -> list:
    counts = token_counts(list(corpus.values()), embedder.encoder)
    return [*cut_long(corpus, embedder.encoder), sum(counts)]


def _index(embedder: LocalEmbedder, pieces: Mapping[str, str], folder: str) -> int:
    return Dense(embedder, Path(folder)).index(pieces).table.count_rows()


def _speed(embedder: LocalEmbedder, sample: list[str]) -> float:
    start = time.perf_counter()
    embedder.embed(sample, "document")
    return len(sample) / (time.perf_counter() - start)


def prepare(collection: Collection, stages: Stages, questions: int) -> tuple[Bench, Tools, list[str], dict]:
    """Cut long passages, encode them, and look for near-duplicates and for a language other than English.

    Returns (bench, tools, notices, {"tokens": of all passages, "seconds": to encode them}).
    """
    embedder = LocalEmbedder(load_encoder(), "encoder")
    pieces, owner, tokens = stages.run(
        "passages",
        _cut,
        collection.corpus,
        embedder,
        tell=lambda found: f"{len(collection.corpus):,}, {len(set(found[1].values())):,} longer than the encoder reads",
    )
    bench = Bench(collection, pieces, owner, stages)
    base = Dense(embedder, bench.tables)
    stages.run("vectors", _index, embedder, pieces, str(bench.tables), tell=lambda n: f"{n:,} encoded")
    bench.add(base)
    words = bench.add(BM25())
    notices = list(collection.notices)
    if owner:
        notices.append(
            f"Cut into {len(owner):,} chunks, for the encoder reads {embedder.encoder.max_seq_length} tokens: "
            f"{len(set(owner.values())):,} of the passages; a document ranks by its best chunk."
        )
    language = guess_language(collection.corpus.values())
    if language and not os.environ.get("ENCODER_MODEL"):
        notices.append(
            f"The passages seem to be in {language}, and the packaged encoder reads English: "
            f"set ENCODER_MODEL={MULTILINGUAL}."
        )
    cached = CachedEmbedder(embedder, bench.tables)
    firsts = {doc: pieces.get(doc, "") for doc in collection.corpus}
    firsts |= {doc: pieces[piece] for piece, doc in reversed(owner.items())}
    duplicates = stages.run(
        "near-duplicates",
        near_duplicates,
        collection.corpus,
        cached.embed(list(firsts.values()), "document"),
        tell=lambda found: f"{len(found):,} passages nearly repeat another",
    )
    if duplicates:
        notices.append(
            f"{len(duplicates):,} passages nearly repeat another one; they are kept together when splits are made."
        )
    finders = [bench.final(words), bench.final(bench.systems["encoder"])]
    sample = list(pieces.values())[:: max(1, len(pieces) // SPEED_SAMPLE)][:SPEED_SAMPLE]
    per_second = stages.run("encoding speed", _speed, embedder, sample, tell=lambda found: f"{found:,.0f} passages/s")
    cost = {"tokens": tokens, "seconds": len(pieces) / per_second}
    return bench, Tools(stages, cached, finders, pieces, owner, duplicates, questions), notices, cost


def _adapter(
    triplets: list[Triplet],
    embedder: CachedEmbedder,
    pieces: Mapping[str, str],
    dev: Mapping[str, str],
    dev_qrels: Qrels,
) -> list:
    matrix, curve = train_adapter(triplets, embedder, pieces, (dev, dev_qrels))
    return [matrix.tolist(), curve]


def _trained(
    base: LocalEmbedder, triplets: list[Triplet], texts: Collection, evaluator: DevRetrieval, recipe: Recipe
) -> dict:
    trained = tuning.train(base, triplets, texts, evaluator, recipe)
    scores = tuning.curve_point(evaluator, trained.model)
    return {"scores": scores, "seconds": trained.record["seconds"], "dev": trained.record["dev"]}


def tune(bench: Bench, sources: Sources, minutes: float | None) -> dict[str, Any]:
    """Train the adapters, the encoder and its learning curve, and add the tuned systems to the bench.

    Returns facts: "why" and "size" of the training, its "queries"; "matrices" of the adapters by name; the "curve",
    {queries: mean score on dev}, and the expected "gain". Where something was trained, there are "enough", "start",
    "seconds" and "model" too.
    """
    base = bench.systems["encoder"]
    plan = tuning.plan(bench, sources, base, None if minutes is None else minutes * 60)
    facts: dict[str, Any] = {
        "why": plan.why,
        "queries": len(plan.data.positives),
        "size": plan.size,
        "matrices": {},
        "curve": {},
        "gain": None,
    }
    if not plan.size:
        return facts
    facts["enough"] = enough(tuning.rows(bench, plan.data, plan.bodies))
    evaluator, dev_qrels = dev_set(bench, sources, base)

    def adapter(system: System, name: str) -> None:
        embedder = CachedEmbedder(system.retriever.embedder, bench.tables)
        found = bench.stages.run(
            f"adapter: {name}",
            _adapter,
            tuning.adapter_rows(bench, plan.data),
            embedder,
            bench.pieces,
            plan.data.dev,
            dev_qrels,
            tell=lambda found: f"dev {found[1][0]:.3f} → {max(found[1]):.3f}",
        )
        matrix = np.array(found[0], dtype=np.float32)
        facts["matrices"][name] = matrix
        bench.add(Dense(AdaptedEmbedder(system.retriever.embedder, matrix, name), bench.tables))

    adapter(base, "encoder + adapter")
    texts = Collection(bench.collection.name, {**bench.pieces, **plan.bodies})
    points: dict[int, list[float]] = {}
    for size in [*sorted(plan.sizes), plan.size]:
        triplets = tuning.rows(bench, plan.data, plan.bodies, size if size < len(plan.data.positives) else None)
        inputs = (base.retriever.embedder, triplets, texts, evaluator, Recipe())
        made = bench.stages.run(
            f"training on {size:,}",
            _trained,
            *inputs,
            tell=lambda found: f"small dev {found['dev']['start']:.3f} → {found['dev']['best']:.3f}",
        )
        if size != plan.size:  # of the smaller trainings the scores are all that is needed
            shutil.rmtree(tuning.folder_of(texts, triplets), ignore_errors=True)
        points[size] = made["scores"]
        facts["curve"][size] = float(np.mean(made["scores"]))
        facts["start"], facts["seconds"] = made["dev"]["start"], made["seconds"]
    encoder = tuning.train(*inputs).model  # loaded: the stage above has made it
    facts["model"], facts["gain"] = encoder, deciding.expected_gain(points)
    embedder = LocalEmbedder(encoder, "tuned encoder")
    tuned = bench.add(Dense(embedder, bench.tables))
    adapter(tuned, "tuned encoder + adapter")
    bench.hybrid(bench.systems["BM25"], tuned, "tuned hybrid (weighted)")
    return facts


def second_stages(bench: Bench, firsts: list[str], tuned: SentenceTransformer | None) -> dict[str, tuple[str, float]]:
    """{first stage: (name of its two-stage system, the reranker's weight)}, where a reranker helps on dev.

    Of two rerankers the one that is better on dev is taken. Late interaction uses the token vectors of the encoder that
    the first stage has, because those of the tuned one are better for it (notebook 07).
    """
    base = LateInteraction(load_late_interaction(), bench.tables)
    own = LateInteraction(token_encoder(tuned), bench.tables, "tuned late interaction") if tuned is not None else base
    cross = load_reranker()
    others = [(CrossEncoderReranker(cross), RERANKED[-1])] if cross is not None else []  # each pair is read anew
    depth = bench.rerank_depth([bench.systems[name] for name in firsts])
    found: dict[str, tuple[str, float]] = {}
    for first in firsts:
        late = own if first.startswith("tuned") else base
        made = [bench.reranked(bench.systems[first], r, d, f"{first} + {r.name}") for r, d in ((late, depth), *others)]
        system, weight, _ = max(made, key=lambda m: m[2] if m[2] == m[2] else 0.0)
        if weight > 0:
            found[first] = (system.name, weight)
    return found

"""The homework's long steps: passages made ready, adapter and encoder trained, second stages weighed; each goes on where it stopped."""

import os
import shutil
import time
from dataclasses import asdict
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from helpers import deciding, inspection, tuning
from helpers.adapters import AdaptedEmbedder
from helpers.collection import Collection
from helpers.embedding import CachedEmbedder, LocalEmbedder
from helpers.measuring import RERANKED, Bench, System
from helpers.models import load_encoder, load_late_interaction, load_reranker, token_encoder
from helpers.pools import Tools
from helpers.recipe import Recipe
from helpers.rerankers import CrossEncoderReranker, LateInteraction
from helpers.retrievers import BM25, Dense
from helpers.small_dev import dev_set
from helpers.sourcing import Sources
from helpers.splits import enough
from helpers.stages import Stages
from helpers.store import fingerprint

SPEED_SAMPLE = 64  # passages that are encoded once more, to time it


def prepare(collection: Collection, stages: Stages, questions: int) -> tuple[Bench, Tools, list[str], dict]:
    """Cut what is too long, encode, look for near-duplicates and another language: (bench, tools, notices, facts on cost)."""
    encoder = load_encoder()
    embedder = LocalEmbedder(encoder, "encoder")
    key = [embedder.key, fingerprint(collection.corpus)]
    pieces, owner, tokens = stages.run(
        "passages",
        key,
        lambda: [*inspection.cut_long(collection.corpus, encoder), sum(inspection.token_counts(list(collection.corpus.values()), encoder))],
        lambda found: f"{len(collection.corpus):,}, {len(set(found[1].values())):,} longer than the encoder reads",
    )  # fmt: skip
    bench = Bench(collection, pieces, owner, stages)
    base = Dense(embedder, bench.tables)
    stages.run("vectors", [*key, "dense"], lambda: base.index(pieces).table.count_rows(), lambda n: f"{n:,} encoded")
    bench.add(base, embedder.key)
    words = bench.add(BM25())
    notices = list(collection.notices)
    if owner:
        notices.append(
            f"Cut into {len(owner):,} chunks, for the encoder reads {encoder.max_seq_length} tokens: {len(set(owner.values())):,} of the "
            "passages; a document ranks by its best chunk."
        )
    language = inspection.guess_language(collection.corpus.values())
    if language and not os.environ.get("ENCODER_MODEL"):
        notices.append(
            f"The passages seem to be in {language}, and the packaged encoder reads English: set ENCODER_MODEL={inspection.MULTILINGUAL}."
        )
    cached = CachedEmbedder(embedder, bench.tables)
    firsts = {doc: pieces.get(doc, "") for doc in collection.corpus}
    firsts |= {doc: pieces[piece] for piece, doc in reversed(owner.items())}
    duplicates = stages.run(
        "near-duplicates", key,
        lambda: inspection.near_duplicates(collection.corpus, cached.embed(list(firsts.values()), "document")),
        lambda found: f"{len(found):,} passages nearly repeat another",
    )  # fmt: skip
    if duplicates:
        notices.append(
            f"{len(duplicates):,} passages nearly repeat another one; they are kept together when splits are made."
        )
    finders = [bench.final(words), bench.final(bench.systems["encoder"])]
    sample = list(pieces.values())[:: max(1, len(pieces) // SPEED_SAMPLE)][:SPEED_SAMPLE]

    def speed() -> float:
        start = time.perf_counter()
        embedder.embed(sample, "document")
        return len(sample) / (time.perf_counter() - start)

    per_second = stages.run("encoding speed", [*key, len(sample)], speed, lambda found: f"{found:,.0f} passages/s")
    cost = {"tokens": tokens, "seconds": len(pieces) / per_second}
    return bench, Tools(stages, cached, finders, pieces, owner, duplicates, questions), notices, cost


def tune(bench: Bench, sources: Sources, minutes: float | None) -> dict[str, Any]:
    """Adapter, encoder and learning curve: {"why", "size", "seconds", "gain", "curve", "matrices"}, and the tuned systems on the bench."""
    base = bench.systems["encoder"]
    plan = tuning.plan(bench, sources, base, minutes * 60 if minutes else None)
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
    rows = fingerprint(plan.data.queries, plan.data.positives, plan.bodies, bench.pieces)

    def adapter(system: System, name: str) -> None:
        embedder = CachedEmbedder(system.retriever.embedder, bench.tables)

        def fit() -> list:
            matrix, curve = tuning.adapt(bench, plan.data, embedder, dev_qrels)
            return [matrix.tolist(), curve]

        told = lambda found: f"dev {found[1][0]:.3f} → {max(found[1]):.3f}"  # noqa: E731
        matrix = np.array(
            bench.stages.run(f"adapter: {name}", [system.key, rows, evaluator.key], fit, told)[0], dtype=np.float32
        )
        facts["matrices"][name] = matrix
        adapted = AdaptedEmbedder(system.retriever.embedder, matrix, name)
        bench.add(Dense(adapted, bench.tables), adapted.key)

    adapter(base, "encoder + adapter")
    points: dict[int, list[float]] = {}
    for size in [*sorted(plan.sizes), plan.size]:

        def point(size: int = size) -> dict:
            trained = tuning.train(bench, plan, evaluator, size)
            scores = tuning.curve_point(evaluator, trained.model)
            return {"scores": scores, "seconds": trained.record["seconds"], "dev": trained.record["dev"]}

        made = bench.stages.run(
            f"training on {size:,}", [base.key, rows, evaluator.key, size, asdict(Recipe())], point,
            lambda found: f"small dev {found['dev']['start']:.3f} → {found['dev']['best']:.3f}",
        )  # fmt: skip
        if size != plan.size:  # of the smaller trainings the scores are all that is needed
            shutil.rmtree(tuning.folder_of(bench, size), ignore_errors=True)
        points[size] = made["scores"]
        facts["curve"][size] = float(np.mean(made["scores"]))
        facts["start"], facts["seconds"] = made["dev"]["start"], made["seconds"]
    encoder = tuning.train(bench, plan, evaluator, plan.size).model  # loaded: the stage above has made it
    facts["model"], facts["gain"] = encoder, deciding.expected_gain(points)
    embedder = LocalEmbedder(encoder, "tuned encoder")
    tuned = bench.add(Dense(embedder, bench.tables), embedder.key)
    adapter(tuned, "tuned encoder + adapter")
    bench.hybrid(bench.systems["BM25"], tuned, "tuned hybrid (weighted)")
    return facts


def second_stages(bench: Bench, firsts: list[str], tuned: SentenceTransformer | None) -> dict[str, tuple[str, float]]:
    """{first stage: (its two stages, weight of the second)} of those rerankers that dev gives a weight; the better where there are two.

    Late interaction reads with the token vectors of the encoder that the first stage has: the tuned ones are better (notebook 07).
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

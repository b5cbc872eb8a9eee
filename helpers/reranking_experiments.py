"""The rerankers that were tried for notebook 07: ``python -m helpers.reranking_experiments`` writes ``data/results/rerankers.csv``."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import pandas as pd

from helpers.choosing import DevReranking, reranker_of
from helpers.collection import Collection, open_collection
from helpers.embedding import CachedEmbedder, LocalEmbedder
from helpers.evaluation import choose_weight, evaluate
from helpers.experiments import Bench, log_file, results
from helpers.models import load_encoder, pair_encoder, token_encoder
from helpers.recipe import Recipe
from helpers.retrievers import Dense
from helpers.store import WorkbookError, fingerprint, write_text
from helpers.training import (
    RERANKER,
    finetune_late_interaction,
    finetune_reranker,
    sample_queries,
    tuned_encoder,
)
from helpers.triplets import Triplet, build_triplets

DEPTH = 50


class Attempt(NamedTuple):
    """One reranker: its kind and what it starts from, trained on so many questions (0: not at all), kept as ``model``."""

    name: str
    kind: str = "late interaction"
    start: str = "tuned encoder"
    questions: int = RERANKER.questions
    negatives: str = "encoder-hard"
    per_query: int = RERANKER.negatives
    recipe: Recipe = RERANKER.recipe
    model: str = "attempt"


def attempts() -> Iterator[Attempt]:
    """What was tried, the cheapest first."""
    recipe = RERANKER.recipe
    cross = replace(recipe, batch_size=8)
    yield Attempt("late interaction, untrained, base tokens", start="encoder", questions=0)
    yield Attempt("late interaction, untrained, tuned encoder's tokens", questions=0)
    yield Attempt("late interaction, tuned", model="late-interaction-tuned")  # that of notebook 07
    yield Attempt("cross-encoder, mean pooling, listwise", "cross-encoder", questions=300, per_query=4, recipe=cross)


class RerankingBench:
    """What all attempts share: the tuned first stage, its dev run, and the questions."""

    def __init__(self, collection: Collection):
        self.bench = Bench(collection)
        self.collection, self.set = collection, self.bench.set
        tuned = tuned_encoder(collection, self.set, self.bench.base).model
        self.encoders = {"encoder": load_encoder(), "tuned encoder": tuned}
        self.first = Dense(LocalEmbedder(tuned, "tuned encoder"), self.bench.tables).index(collection.corpus)
        found = self.first.retrieve(self.set.dev, DEPTH)
        self.near = found
        self.dev = DevReranking(self.set.dev, self.set.dev_qrels, found, collection.corpus)

    def triplets(self, attempt: Attempt) -> list[Triplet]:
        """The rows of an attempt; negatives come from the tuned first stage, whose mistakes a reranker has to mend."""
        queries, positives = sample_queries(self.set, attempt.questions, seed=0)
        embedder = CachedEmbedder(self.first.embedder, self.bench.tables)
        return build_triplets(self.collection.corpus, queries, positives, attempt.negatives, n=attempt.per_query, embedder=embedder, depth=200)  # fmt: skip

    def run(self, attempt: Attempt) -> dict:
        """Train and score one attempt on dev: its own order of the best 50, and the best mixture with the first stage."""
        encoder, cross = self.encoders[attempt.start], attempt.kind == "cross-encoder"
        model, seconds = (pair_encoder if cross else token_encoder)(encoder), 0.0
        if attempt.questions:
            tune = finetune_reranker if cross else finetune_late_interaction
            trained = tune(
                self.collection,
                self.triplets(attempt),
                self.dev,
                model,
                attempt.recipe,
                attempt.model,
            )
            model, seconds = trained.model, trained.record["seconds"]
        scores = reranker_of(model).rerank(self.set.dev, self.near, self.collection.corpus, DEPTH)
        weight, means = choose_weight(self.set.dev_qrels, self.near, scores)
        alone = evaluate(self.set.dev_qrels, scores)["ndcg@10"]
        return {"name": attempt.name, "start": attempt.start, "questions": attempt.questions, "first stage": round(means[0.0], 5),
                "alone": round(alone, 5), "mixed": round(means[weight], 5), "weight": weight, "seconds": round(seconds)}  # fmt: skip


def run(collection: Collection) -> pd.DataFrame:
    """Run all attempts, or go on with them; the table of all rows."""
    bench, file = RerankingBench(collection), log_file("rerankers", collection)
    for attempt in attempts():
        key = fingerprint(repr(attempt), bench.dev.key)
        rows = results("rerankers", collection).to_dict("records")
        if any(row["key"] == key for row in rows):
            continue
        row = bench.run(attempt) | {"key": key}
        rows = [r for r in rows if r["name"] != row["name"]]
        write_text(file, pd.DataFrame([*rows, row]).to_csv(index=False))
        print({k: row[k] for k in ("name", "first stage", "alone", "mixed", "weight", "seconds")}, flush=True)
    return results("rerankers", collection)


def main() -> int:
    """The command line; 0 when all went well, 1 with one sentence on stderr when not."""
    try:
        print(run(open_collection()).to_string())
    except WorkbookError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

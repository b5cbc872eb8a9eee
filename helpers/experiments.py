"""The long experiments behind notebooks 06 and 07: ``python -m helpers.experiments learning-curve`` (negatives, recipes, rerankers).

Each writes ``data/results/<name>.csv`` (for another ``COLLECTION``, under its build folder), a row a training, scored on dev over the
whole collection and never on test. What is in the file is not trained again, so a run that is cut off goes on.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from helpers.choosing import DevRetrieval, dev_corpus
from helpers.collection import Collection, open_collection
from helpers.embedding import CachedEmbedder, LocalEmbedder
from helpers.evaluation import evaluate
from helpers.models import load_encoder
from helpers.recipe import Recipe
from helpers.retrievers import BM25, Dense
from helpers.store import DATA, WorkbookError, fingerprint, write_text
from helpers.training import TrainingSet, finetune_encoder, open_training_set, sample_queries
from helpers.triplets import NEGATIVES, Triplet, build_triplets

RESULTS = DATA / "results"
SIZES = (0, 125, 250, 500, 1000, None)  # None: all
SEEDS = (0, 1, 2)  # of the learning curve
BUDGET = 500  # questions in the comparisons of negatives and of recipes


class Trial(NamedTuple):
    """One training of an experiment: what it is called, how many questions, which negatives, which recipe.

    ``whole``: scored over the whole collection too, as untrained systems are; else on the small dev collection alone, which is
    enough to compare trainings with each other.
    """

    name: str
    size: int | None = BUDGET
    negatives: str = "in-batch"
    per_query: int = 1
    margin: float | None = 0.05
    recipe: Recipe = Recipe()
    whole: bool = False


def learning_curve() -> Iterator[Trial]:
    """More and more questions; the seeds draw the questions too, and of all of them there is nothing to draw."""
    for seed in SEEDS:
        for size in SIZES if seed == 0 else (125, 250, 500, 1000):
            yield Trial("all" if size is None else str(size), size, recipe=Recipe(seed=seed), whole=True)


def negatives() -> Iterator[Trial]:
    """The kinds of negatives of notebook 05, with the same questions and the same number of epochs."""
    for kind in NEGATIVES:
        yield Trial(kind, negatives=kind)


def recipes() -> Iterator[Trial]:
    """One change at a time to the default recipe."""
    changes: dict[str, dict] = {
        "default": {},
        "learning rate 5e-5": {"learning_rate": 5e-5},
        "learning rate 2e-4": {"learning_rate": 2e-4},
        "one width": {"dimensions": ()},
    }
    for name, change in changes.items():
        yield Trial(name, recipe=replace(Recipe(), **change))
    yield Trial("2 hard negatives a question", negatives="encoder-hard", per_query=2)
    yield Trial("all questions", None, whole=True)
    yield Trial("all questions, learning rate 2e-4", None, recipe=Recipe(learning_rate=2e-4), whole=True)


EXPERIMENTS: dict[str, Callable[[], Iterator[Trial]]] = {
    "learning-curve": learning_curve,
    "negatives": negatives,
    "recipes": recipes,
}


class Bench:
    """What all trials of a collection share: questions, dev set, base vectors, and the scores before any training."""

    def __init__(self, collection: Collection):
        self.collection = collection
        self.set: TrainingSet = open_training_set(collection)
        self.tables = collection.build / "lancedb"
        self.base = Dense(LocalEmbedder(load_encoder(), "encoder"), self.tables).index(collection.corpus)
        self.bm25 = BM25("bm25s").index(collection.corpus)
        near = self.base.retrieve(self.set.dev)
        self.dev = DevRetrieval(
            self.set.dev, self.set.dev_qrels, dev_corpus(collection.corpus, self.set.dev_qrels, near)
        )
        self.whole = DevRetrieval(self.set.dev, self.set.dev_qrels, collection.corpus)
        self.key = fingerprint(self.dev.key, self.set.queries, self.set.positives)

    def triplets(self, trial: Trial) -> list[Triplet]:
        """The rows of a trial; the recipe's seed draws its questions."""
        queries, positives = sample_queries(self.set, trial.size, trial.recipe.seed)
        return build_triplets(
            self.collection.corpus, queries, positives, trial.negatives, n=trial.per_query, seed=trial.recipe.seed,
            bm25=self.bm25, embedder=CachedEmbedder(self.base.embedder, self.tables), margin=trial.margin, depth=500,
            keep=keep_unlike(self.collection, queries, positives) if trial.negatives == "filtered" else None,
        )  # fmt: skip

    def run(self, trial: Trial) -> dict:
        """Train and score one trial on dev, over the whole collection."""
        record, found = {}, self.base.retrieve(self.set.dev)
        if trial.size != 0:
            same = fingerprint(repr(trial._replace(name="", whole=False)))  # the same training under two names is one
            name = "encoder-tuned" if trial.size is None and trial.recipe == Recipe() else f"experiment-{same}"
            trained = finetune_encoder(
                self.collection, self.triplets(trial), self.dev, load_encoder(), trial.recipe, name
            )
            record = trained.record
            found = self.whole.retrieve(trained.model, 100) if trial.whole else {}
        scores = evaluate(self.set.dev_qrels, found) if found else {}
        row = {
            "name": trial.name,
            "seed": trial.recipe.seed,
            "rows": record.get("rows", 0),
            "step": record.get("step", 0),
        }
        row["questions"] = len(self.set.queries) if trial.size is None else trial.size
        row |= {"start": record["dev"]["start"], "small dev": record["dev"]["best"]} if record else {}
        row |= {m: scores[m] for m in ("ndcg@10", "recall@10", "recall@100", "mrr@10", "judged@10")} if scores else {}
        return {k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()} | {
            "seconds": round(record.get("seconds", 0))
        }


def curve_point(collection: Collection, data: TrainingSet, dev: DevRetrieval, size: int, seed: int) -> float:
    """Train one point of the learning curve now: nDCG@10 on the small dev collection, the log's column "small dev"."""
    queries, positives = sample_queries(data, size, seed)
    rows = build_triplets(collection.corpus, queries, positives, "in-batch", seed=seed)
    trained = finetune_encoder(collection, rows, dev, load_encoder(), Recipe(seed=seed), f"encoder-{size}-seed{seed}")
    return trained.record["dev"]["best"]


def keep_unlike(collection: Collection, queries, positives):
    """The judge of notebook 05: a negative is kept when late interaction scores it below 90 % of the positive."""
    from helpers.models import load_late_interaction
    from helpers.rerankers import LateInteraction

    late = LateInteraction(load_late_interaction(), collection.build / "lancedb")
    answer = {queries[q]: collection.corpus[max(docs, key=docs.get)] for q, docs in positives.items()}

    def keep(query: str, passages: Sequence[str]) -> list[bool]:
        scores = late.score(query, [answer[query], *passages])
        return (scores[1:] < 0.9 * scores[0]).tolist()

    return keep


def log_file(name: str, collection: Collection) -> Path:
    """The log: committed for the default collection, in the build folder for one's own."""
    folder = RESULTS if collection.name == "pydocs" else collection.build / "results"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.csv"


def results(name: str, collection: Collection) -> pd.DataFrame:
    """The log of an experiment on this collection; empty when it was not run."""
    file = log_file(name, collection)
    return pd.read_csv(file, dtype={"name": str}) if file.is_file() else pd.DataFrame()


def run(name: str, collection: Collection, only: str = "") -> pd.DataFrame:
    """Run an experiment, or go on with it; the table of all its rows. ``only`` picks the trials whose name holds it."""
    file = log_file(name, collection)
    bench = Bench(collection)
    for trial in EXPERIMENTS[name]():
        rows = results(name, collection).to_dict("records")
        key = fingerprint(repr(trial), bench.key)
        if any(row["key"] == key for row in rows) or only not in trial.name:
            continue
        began = time.perf_counter()
        row = bench.run(trial) | {"key": key}
        rows = [r for r in rows if (r["name"], r["seed"]) != (row["name"], row["seed"])]
        write_text(file, pd.DataFrame([*rows, row]).to_csv(index=False))
        took = time.perf_counter() - began
        print({k: v for k, v in row.items() if k != "key"}, f"{took:.0f} s", flush=True)
    return results(name, collection)


def main() -> int:
    """The command line; 0 when all went well, 1 with one sentence on stderr when not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("experiment", choices=list(EXPERIMENTS))
    parser.add_argument("--only", default="", help="only the trials whose name holds this")
    arguments = parser.parse_args()
    try:
        print(run(arguments.experiment, open_collection(), arguments.only).to_string())
    except WorkbookError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

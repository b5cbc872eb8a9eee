"""What each kind of training text buys: the table "texts" of the evidence, an adapter and query-side tuning on each.

Each row is one training on one blend of texts, chosen on dev and scored on every slice of dev and test. Nothing is
chosen by the scores on test: they show which gains carry over from one kind of query to another.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd

from helpers.collection.collection import Collection
from helpers.evaluation.measures import evaluate_slices
from helpers.models.embed import CachedEmbedder, LocalEmbedder, unit
from helpers.models.load import load_encoder, model_key
from helpers.retrieval.first_stages import nearest
from helpers.store.evidence import Id, Piece
from helpers.store.files import fingerprint
from helpers.training.adapter import train_adapter
from helpers.training.experiments import SEEDS, results
from helpers.training.query_side import QUERY_SIDE, DevQueries, finetune_queries
from helpers.training.triplets import Triplet, build_triplets
from helpers.training.tune import TEXTS, TrainingSet, open_training_set, training_questions

TABLE = "texts"
BLENDS = (("made",), ("authors",), ("typed",), TEXTS)
METHODS = ("adapter", "query-side")


class Blend(NamedTuple):
    """One training: its name, its method out of ``METHODS`` ("" is the untrained encoder), its texts, and its seed."""

    name: str
    method: str = ""
    texts: tuple[str, ...] = ()
    seed: int = 0


def blends() -> Iterator[Blend]:
    """The untrained encoder, then each method on each blend with three seeds.

    The authors' sentences alone are too few for an encoder and are left to the adapter.
    """
    yield Blend("untrained")
    for method in METHODS:
        for texts in BLENDS:
            for seed in SEEDS:
                if method == "adapter" or texts != ("authors",):
                    yield Blend(f"{method}: {' + '.join(texts)}", method, texts, seed)


def all_sets(collection: Collection) -> dict[tuple[str, ...], TrainingSet]:
    """{blend: its training set}."""
    there = {text for text in TEXTS if text == "made" or training_questions(collection, (text,))}
    return {texts: open_training_set(collection, texts) for texts in BLENDS if there.issuperset(texts)}


def text_keys(collection: Collection, sets: Mapping[tuple[str, ...], TrainingSet]) -> dict[Id, str]:
    """{(name, seed): key} of the table's rows."""
    measured = [collection.asked(split) for split in collection.qrels if split != "train"]
    shared = [model_key(load_encoder()), collection.corpus, collection.qrels, measured, repr(QUERY_SIDE)]
    trained_on = {texts: [data.queries, data.positives] for texts, data in sets.items()} | {(): []}
    there = [blend for blend in blends() if blend.texts in trained_on]
    return {(b.name, b.seed): fingerprint(repr(b), *shared, *trained_on[b.texts]) for b in there}


def text_results(collection: Collection) -> pd.DataFrame:
    """The table for a notebook; where it was not made or may not be shown, prints why and returns an empty one."""
    return results(TABLE, collection, text_keys(collection, all_sets(collection)))


class BlendBench:
    """Trains and scores blends; it holds what they share: the passages' vectors and the dev queries."""

    def __init__(self, collection: Collection, sets: Mapping[tuple[str, ...], TrainingSet]):
        self.collection, self.sets = collection, sets
        self.embedder = CachedEmbedder(LocalEmbedder(load_encoder(), "encoder"), collection.build / "lancedb")
        self.ids = list(collection.corpus)

    @cached_property
    def passages(self) -> np.ndarray:
        return self.embedder.embed(list(self.collection.corpus.values()), "document")

    def triplets(self, blend: Blend) -> list[Triplet]:
        data = self.sets[blend.texts]
        return build_triplets(self.collection.corpus, data.queries, data.positives, "in-batch")

    def asker(self, blend: Blend) -> Callable[[Sequence[str]], np.ndarray]:
        """Train a blend; returns the function that turns texts into query vectors, (texts, width), unit length."""
        if not blend.method:
            return lambda texts: self.embedder.embed(texts, "query")
        data = self.sets[blend.texts]
        dev = data.dev, data.dev_qrels
        if blend.method == "adapter":
            matrix, _ = train_adapter(self.triplets(blend), self.embedder, self.collection.corpus, dev, seed=blend.seed)
            return lambda texts: unit(self.embedder.embed(texts, "query") @ matrix)
        judge = DevQueries(*dev, self.ids, self.passages)
        recipe = replace(QUERY_SIDE, seed=blend.seed)
        name = f"queries-{fingerprint(repr(blend))}"
        tuned = finetune_queries(self.collection, self.triplets(blend), judge, load_encoder(), recipe, name).model
        return lambda texts: LocalEmbedder(tuned).embed(texts, "query")

    def run(self, blend: Blend) -> dict:
        """Train a blend and score it; returns {column: value}: nDCG@10 and R@100 on each slice of dev and test."""
        asker = self.asker(blend)
        questions = len(self.sets[blend.texts].queries) if blend.texts else 0
        row: dict = {"name": blend.name, "seed": blend.seed, "questions": questions}
        for split in [s for s in ("dev", "test") if s in self.collection.qrels]:
            asked = self.collection.asked(split)
            found = nearest(asked, asker(list(asked.values())), self.ids, self.passages, 100)
            scores = evaluate_slices(self.collection, split, found)
            for part, values in scores.iterrows():
                where = part if part in (split, "authors") else f"{split} {part}"
                row |= {where: round(values["ndcg@10"], 5), f"{where} R@100": round(values["recall@100"], 5)}
        return row


def text_pieces(collection: Collection) -> list[Piece]:
    """The pieces of evidence of the table; nothing is encoded or trained before one is made."""
    sets = all_sets(collection)
    keys = text_keys(collection, sets)
    bench = cache(lambda: BlendBench(collection, sets))
    splits = tuple(split for split in ("dev", "test") if split in collection.qrels)
    if not splits:
        return []  # nothing is judged, so nothing can be scored
    return [
        Piece(
            TABLE,
            blend.name,
            blend.seed,
            keys[blend.name, blend.seed],
            lambda blend=blend: bench().run(blend),
            splits,
            0.03 if blend.texts else 0.002,
            blend.method != "query-side",
        )
        for blend in blends()
        if (blend.name, blend.seed) in keys
    ]

"""Similarity for a purpose: which items belong together, triplets that say so, and a model's neighbours."""

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import pandas as pd
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.evaluation import BaseEvaluator
from sklearn.metrics import roc_auc_score, roc_curve

from helpers.collection.collection import Collection
from helpers.evaluation.comparing import compared
from helpers.evaluation.measures import Qrels, per_query
from helpers.models.embed import encode, unit
from helpers.retrieval.first_stages import Run, top_k
from helpers.store.files import WorkbookError, fingerprint
from helpers.training.export import to_dataset
from helpers.training.fitting import Recipe, Trained, fit
from helpers.training.triplets import Triplet
from helpers.training.tune import check_triplets


def alike(labels: Mapping[str, Hashable], asked: Sequence[str] | None = None) -> dict[str, dict[str, int]]:
    """{item: {other: 1}} for the items that share a label; for the items in ``asked``, or for all."""
    groups: dict[Hashable, list[str]] = {}
    for item, label in labels.items():
        groups.setdefault(label, []).append(item)
    return {a: {b: 1 for b in groups[labels[a]] if b != a} for a in (labels if asked is None else asked)}


def vectors_of(model: SentenceTransformer, texts: Mapping[str, str]) -> np.ndarray:
    """Encode the texts: float32 of shape (items, width), unit length, in the order of the texts."""
    return unit(np.stack(encode(model, list(texts.values()))))


def neighbours(ids: Sequence[str], vectors: np.ndarray, asked: Sequence[str] | None = None, k: int = 10) -> Run:
    """The ``k`` items with the highest cosine to each asked item, without the item itself; ties by id."""
    place = {item: i for i, item in enumerate(ids)}
    chosen = list(ids if asked is None else asked)
    scores = vectors[[place[item] for item in chosen]] @ vectors.T
    run = {}
    for item, row in zip(chosen, scores, strict=True):
        others = [i for i in ids if i != item]
        run[item] = top_k(others, np.delete(row, place[item]), k)
    return run


def right_neighbours(relation: Qrels, run: Run, k: int = 5) -> pd.Series:
    """For each item with related items: how many of them are among its ``k`` nearest, as a share of what is possible.

    0 to 1, higher is better.
    """
    shares = {}
    for item, relatives in relation.items():
        right = {other for other, grade in relatives.items() if grade > 0}
        if right and item in run:
            nearest = sorted(run[item], key=lambda other, item=item: (-run[item][other], other))[:k]
            shares[item] = len(right & set(nearest)) / min(k, len(right))
    return pd.Series(shares, dtype=float)


def difference(first: pd.Series, second: pd.Series) -> dict[str, float]:
    """Mean of second − first over the items of both, its 95 % interval, and p of a paired randomisation test."""
    second, first = second.align(first)
    both = first.notna() & second.notna()
    found = compared("second", second[both], "first", first[both])
    return {"difference": found.difference, "low": found.low, "high": found.high, "p": found.p}


class DevRelation(BaseEvaluator):
    """How well the neighbours of dev items agree with a relation; neighbours are sought among all items in ``texts``.

    ``measure`` is "ndcg@10" or "auc", the chance that a related item is nearer than an unrelated one. "auc" is the
    better choice where an item is related to a large part of the others.
    """

    def __init__(self, texts: Mapping[str, str], relation: Qrels, measure: str = "ndcg@10"):
        super().__init__()
        self.primary_metric, self.measure = f"dev_{measure}", measure
        self.texts, self.relation = dict(texts), {item: dict(others) for item, others in relation.items()}
        self.key = fingerprint(self.texts, self.relation, measure)

    def __call__(self, model: SentenceTransformer, output_path=None, epoch: float = -1, steps: int = -1) -> dict:
        k = len(self.texts) if self.measure == "auc" else 10
        run = neighbours(list(self.texts), vectors_of(model, self.texts), list(self.relation), k)
        if self.measure == "auc":
            truths = {a: [int(b in self.relation[a]) for b in run[a]] for a in run}
            value = auc_each({a: list(run[a].values()) for a in run}, truths).mean()
        else:
            value = per_query(self.relation, run)["ndcg@10"].mean()
        return {self.primary_metric: float(value)}


def relation_triplets(
    texts: Mapping[str, str], related: Qrels, unrelated: Qrels, n: int, seed: int = 0
) -> list[Triplet]:
    """``n`` triplets: an item, one that is related to it, and one that is not, drawn by ``seed``.

    All items have their turn before one comes again. Raises WorkbookError when no item has both a related and an
    unrelated one.
    """
    rng = np.random.default_rng(seed)
    usable = [i for i in sorted(texts) if related.get(i) and unrelated.get(i)]
    if not usable:
        raise WorkbookError(
            "No item has both a related and an unrelated one: a triplet needs an anchor, a positive and a negative."
        )
    rows = []
    while len(rows) < n:
        for item in rng.permutation(usable)[: n - len(rows)].tolist():
            positive = sorted(related[item])[rng.integers(len(related[item]))]
            negative = sorted(unrelated[item])[rng.integers(len(unrelated[item]))]
            rows.append(Triplet(item, texts[item], positive, (negative,)))
    return rows


def tune_on_triplets(
    collection: Collection,
    name: str,
    triplets: Sequence[Triplet],
    dev: DevRelation,
    base: SentenceTransformer,
    recipe: Recipe,
    loss: str = "triplet",
) -> Trained:
    """Tune an encoder on triplets of items; ``dev`` chooses the checkpoint. ``base`` is changed.

    Raises WorkbookError as ``training.finetune_encoder`` does.
    """
    check_triplets(triplets, collection.corpus)
    return fit(collection, name, base, to_dataset(triplets, collection.corpus, "triplets"), dev, recipe, loss)


def tune_on_pairs(
    collection: Collection, name: str, relation: Qrels, dev: DevRelation, base: SentenceTransformer, recipe: Recipe
) -> Trained:
    """Tune an encoder on everything that a relation says of the items on its left.

    This is for a relation that is known for all pairs: each batch uses all its pairs, related or not, where triplets
    would use a few. ``base`` is changed. Raises WorkbookError when no item is related to another.
    """
    items = sorted(relation)
    known = [[int(other in relation[item]) for other in items] for item in items]
    if not any(map(any, known)):
        raise WorkbookError("No item is related to another: there is nothing to learn from.")
    rows = {"text": [collection.corpus[i] for i in items], "label": [[n, *row] for n, row in enumerate(known)]}
    return fit(collection, name, base, Dataset.from_dict(rows), dev, recipe, "relation")


def roc(scores: Mapping[str, Sequence[float]], truths: Mapping[str, Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates of all pairs together, for a figure; the arguments have one list per person."""
    people = list(scores)
    return roc_curve(
        np.concatenate([truths[p] for p in people]), np.concatenate([scores[p] for p in people]), drop_intermediate=True
    )[:2]


def auc_each(scores: Mapping[str, Sequence[float]], truths: Mapping[str, Sequence[int]]) -> pd.Series:
    """Area under the ROC curve for each person: the chance that someone liked scores above someone not liked.

    .5 is guessing. People who like all or none have no such pair and are left out.
    """
    return pd.Series(
        {p: roc_auc_score(truths[p], scores[p]) for p in scores if 0 < sum(truths[p]) < len(truths[p])}, dtype=float
    )

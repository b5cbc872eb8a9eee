"""From vectors to labels: nearest neighbours, a linear probe, and clusters.

The curves show how many examples per class the probe needs, and how many a new rule needs.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from datasets import Dataset
from sklearn.cluster import KMeans
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import adjusted_rand_score, f1_score, normalized_mutual_info_score
from sklearn.neighbors import KNeighborsClassifier

from helpers.course.transactions import Transactions
from helpers.evaluation.choosing import DevRetrieval
from helpers.evaluation.measures import RESAMPLES, Qrels
from helpers.models.load import load_encoder
from helpers.retrieval.first_stages import Run
from helpers.store.files import WorkbookError
from helpers.training.fitting import Recipe, Trained, fit

SHOTS = (1, 2, 4, 8, 16)
DRAWS = 5  # random draws of the examples, whose spread is shown
# Short texts and a passage for each label: more, smaller steps than for the questions of notebook 06.
RECIPE = Recipe(epochs=2, batch_size=32, learning_rate=1e-4, dimensions=(), evaluations=4, patience=2)
LABEL_RECIPE = Recipe(epochs=4, batch_size=32, learning_rate=1e-4, dimensions=(), evaluations=4, patience=2)


def hits(qrels: Qrels, run: Run, k: int) -> pd.Series:
    """For each query 1 if a right passage is among its first ``k``, else 0: its recall@k if one passage is right."""
    hit = {}
    for q, judged in qrels.items():
        first = sorted(run.get(q, {}), key=lambda d, q=q: (-run[q][d], d))[:k]
        hit[q] = float(any(judged.get(d, 0) > 0 for d in first))
    return pd.Series(hit, dtype=float)


def dev_of(data: Transactions) -> DevRetrieval:
    """The data that choose a checkpoint: dev transactions, and the descriptions of the categories known to training."""
    known = {c: text for c, text in data.descriptions.items() if c not in data.new}
    ids = data.ids("dev")
    return DevRetrieval({i: data.texts[i] for i in ids}, {i: {data.labels[i]: 1} for i in ids}, known)


def tune_on_descriptions(data: Transactions, recipe: Recipe = RECIPE) -> Trained:
    """Tune an encoder on pairs of a transaction and its category's description.

    The other categories in a batch are the negatives.
    """
    ids = data.ids("train")
    rows = {"anchor": [data.texts[i] for i in ids], "positive": [data.descriptions[data.labels[i]] for i in ids]}
    return fit(data.collection(), "pairs", load_encoder(), Dataset.from_dict(rows), dev_of(data), recipe)


def tune_on_labels(data: Transactions, recipe: Recipe = LABEL_RECIPE) -> Trained:
    """Tune an encoder on transactions and their labels alone; no description enters the loss.

    The loss forms its triplets within each batch, with semi-hard negatives.
    """
    texts, labels = data.of(data.ids("train"))
    numbers = {label: n for n, label in enumerate(sorted(set(labels)))}
    rows = {"text": texts, "label": [numbers[label] for label in labels]}
    return fit(data.collection(), "labels", load_encoder(), Dataset.from_dict(rows), dev_of(data), recipe, "labels")


def knn(vectors: np.ndarray, labels: Sequence[str], asked: np.ndarray, k: int = 5) -> np.ndarray:
    """Label each vector of ``asked`` by its ``k`` nearest labelled vectors, weighted by cosine similarity."""
    model = KNeighborsClassifier(min(k, len(labels)), metric="cosine", weights=lambda d: np.maximum(1 - d, 1e-6))
    return model.fit(vectors, labels).predict(asked)


def probe(vectors: np.ndarray, labels: Sequence[str], asked: np.ndarray) -> np.ndarray:
    """Label each vector of ``asked`` with a linear classifier fitted to the labelled vectors.

    The classifier is a ridge regression on the classes, with balanced class weights.
    """
    return RidgeClassifier(alpha=0.3, class_weight="balanced").fit(vectors, labels).predict(asked)


def draw(labels: Sequence[str], shots: int, seed: int) -> np.ndarray:
    """Positions of up to ``shots`` random examples of each label."""
    rng = np.random.default_rng(seed)
    values = np.asarray(labels)
    return np.concatenate([rng.permutation(np.flatnonzero(values == c))[:shots] for c in np.unique(values)])


def probe_curve(
    vectors: np.ndarray, labels: Sequence[str], asked: np.ndarray, truth: Sequence[str], shots: Sequence[int] = SHOTS
) -> pd.DataFrame:
    """Accuracy of the linear probe for each number of examples per class: columns shots, draw, accuracy."""
    rows = []
    for n in shots:
        for seed in range(DRAWS):
            chosen = draw(labels, n, seed)
            predicted = probe(vectors[chosen], np.asarray(labels)[chosen], asked)
            rows.append({"shots": n, "draw": seed, "accuracy": float((predicted == np.asarray(truth)).mean())})
    return pd.DataFrame(rows)


def rule_curve(
    vectors: np.ndarray,
    labels: Sequence[str],
    examples: np.ndarray,
    asked: np.ndarray,
    truth: Sequence[bool],
    shots: Sequence[int] = SHOTS,
) -> pd.DataFrame:
    """How well the probe learns, from a few examples, a rule that takes rows out of many categories.

    ``examples`` are vectors that the rule concerns. For each number n in ``shots``, n of them join the labelled vectors
    with the rule as their label; the probe then says of each vector of ``asked`` whether the rule concerns it, and
    ``truth`` has the right answers. Columns shots, draw, precision, recall, f1.
    """
    rows, concerned = [], np.asarray(truth, dtype=bool)
    for n in (s for s in shots if s <= len(examples)):
        for seed in range(DRAWS):
            chosen = np.random.default_rng(seed).permutation(len(examples))[:n]
            with_rule = np.vstack([vectors, examples[chosen]])
            predicted = probe(with_rule, [*labels, *["(rule)"] * n], asked) == "(rule)"
            right = (predicted & concerned).sum()
            rows.append(
                {
                    "shots": n,
                    "draw": seed,
                    "precision": right / max(1, predicted.sum()),
                    "recall": right / concerned.sum(),
                    "f1": f1_score(concerned, predicted, zero_division=0.0),
                }
            )
    return pd.DataFrame(rows)


def clusters(vectors: np.ndarray, n: int, seed: int = 0) -> np.ndarray:
    """The number of each vector's cluster by k-means."""
    return KMeans(min(n, len(np.unique(vectors, axis=0))), n_init=10, random_state=seed).fit_predict(
        vectors.astype(np.float64)
    )


AGREEMENT: dict[str, Callable] = {"NMI": normalized_mutual_info_score, "ARI": adjusted_rand_score}


def agreement(
    labels: Sequence[str], assigned: Sequence[int], seed: int = 0, resamples: int = RESAMPLES // 10
) -> pd.DataFrame:
    """NMI and ARI of clusters with labels, each with a 95 % bootstrap interval over the rows.

    ``assigned`` has the number of each row's cluster. 1 is perfect agreement; an ARI of 0 is chance. Rows that are
    drawn twice agree with themselves and raise both measures; so the interval is shifted down by as much as the mean of
    the resamples lies above the value.

    Raises WorkbookError when labels and clusters are of different length.
    """
    if len(labels) != len(assigned):
        raise WorkbookError(f"{len(labels)} labels and {len(assigned)} clusters: they have to be of the same rows.")
    rng, truth, clusters = np.random.default_rng(seed), np.asarray(labels), np.asarray(assigned)
    rows = {}
    for name, measure in AGREEMENT.items():
        draws = (rng.integers(len(truth), size=len(truth)) for _ in range(resamples))
        resampled = [measure(truth[i], clusters[i]) for i in draws]
        value = float(measure(truth, clusters))
        low, high = np.quantile(resampled, [0.025, 0.975]) - np.mean(resampled) + value
        rows[name] = {"value": value, "low": float(low), "high": float(high)}
    return pd.DataFrame(rows).T

"""Query-side tuning: only the encoder of queries learns; the passages' vectors and their index stay as they are."""

from collections.abc import Mapping, Sequence

import numpy as np
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.evaluation import BaseEvaluator

from helpers.collection.collection import Collection
from helpers.collection.text import normalise
from helpers.evaluation.choosing import METRIC
from helpers.evaluation.measures import Qrels, per_query
from helpers.models.embed import LocalEmbedder
from helpers.retrieval.first_stages import Run, nearest
from helpers.store.files import fingerprint
from helpers.training.fitting import Recipe, Trained, fit
from helpers.training.losses import PassagesLoss
from helpers.training.triplets import Triplet
from helpers.training.tune import check_triplets

# A few minutes on two cores; notebook 06 shows what it gains, and that little is forgotten at this rate.
QUERY_SIDE = Recipe(epochs=2, learning_rate=5e-5, dimensions=(), evaluations=2)


class DevQueries(BaseEvaluator):
    """nDCG@10 of an encoder of queries on dev, over all passages by their vectors, which stay as they are.

    ``passages`` has the shape (passages, width), unit length, in the order of ``ids``.
    """

    def __init__(self, queries: Mapping[str, str], qrels: Qrels, ids: Sequence[str], passages: np.ndarray):
        super().__init__()
        self.primary_metric = METRIC
        self.queries, self.qrels, self.ids, self.passages = dict(queries), qrels, list(ids), passages
        self.key = fingerprint(self.queries, qrels, self.ids, np.ascontiguousarray(passages).tobytes())

    def retrieve(self, model: SentenceTransformer, k: int = 10) -> Run:
        """The k best passages for each dev query, by exact search."""
        vectors = LocalEmbedder(model).embed(list(self.queries.values()), "query")
        return nearest(self.queries, vectors, self.ids, self.passages, k)

    def __call__(self, model: SentenceTransformer, output_path=None, epoch: float = -1, steps: int = -1) -> dict:
        return {METRIC: float(per_query(self.qrels, self.retrieve(model))["ndcg@10"].mean())}


def query_rows(triplets: Sequence[Triplet], ids: Sequence[str]) -> Dataset:
    """The rows of ``PassagesLoss``: ``anchor``, and ``label``, the position of the right passage in ``ids``.

    After it come the positions of the query's other positives, which are no negatives, filled up with −1.
    """
    place = {d: i for i, d in enumerate(ids)}
    right: dict[str, list[int]] = {}
    for t in triplets:
        positives = right.setdefault(normalise(t.query), [])
        if place[t.positive_id] not in positives:
            positives.append(place[t.positive_id])
    most = max(map(len, right.values()), default=1)
    pairs = {(normalise(t.query), place[t.positive_id]): t for t in triplets}
    labels = [[one, *(p for p in right[query] if p != one)] for query, one in pairs]
    return Dataset.from_dict(
        {"anchor": [t.query for t in pairs.values()], "label": [row + [-1] * (most - len(row)) for row in labels]}
    )


def finetune_queries(
    collection: Collection,
    triplets: Sequence[Triplet],
    dev: DevQueries,
    base: SentenceTransformer,
    recipe: Recipe | None = None,
    name: str = "encoder-queries",
) -> Trained:
    """Tune ``base`` as an encoder of *queries* for passages whose vectors stay as they are (``dev.passages``).

    Each query learns to come nearer to its positive than to any other passage of the collection; negatives of the
    triplets are not needed. ``base`` itself is changed; its best checkpoint by ``dev`` is kept in
    ``build/<collection>/models/<name>``. Raises WorkbookError as ``check_triplets`` and ``fit`` do.
    """
    check_triplets(triplets, collection.corpus)
    recipe = recipe or QUERY_SIDE
    loss = PassagesLoss(base, dev.passages, recipe.scale)
    return fit(collection, name, base, query_rows(triplets, dev.ids), dev, recipe, loss)

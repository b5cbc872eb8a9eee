"""The cheapest way to tune: a linear adapter for query vectors, trained on frozen embeddings."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch.nn import functional

from helpers.collection.text import normalise
from helpers.evaluation.measures import Qrels, per_query
from helpers.models.embed import Embedder, unit
from helpers.retrieval.first_stages import nearest
from helpers.store.files import WorkbookError
from helpers.training.triplets import Triplet

LEARNING_RATE, BATCH, SCALE = 1e-3, 128, 20.0


def train_adapter(
    triplets: Sequence[Triplet],
    embedder: Embedder,
    corpus: Mapping[str, str],
    dev: tuple[Mapping[str, str], Qrels],
    epochs: int = 20,
    seed: int = 0,
) -> tuple[np.ndarray, list[float]]:
    """Train a matrix of shape (width, width) that query vectors are multiplied by; returns (matrix, curve on dev).

    The curve is nDCG@10 on ``dev``, a pair of queries and qrels: first before training, then after each epoch. The
    matrix starts as the identity, which changes nothing, and learns from in-batch negatives. The matrix of the epoch
    that is best on dev is returned, or the identity when no epoch is better than the start.

    Only vectors are needed, so the embeddings of a service can be adapted too; it takes seconds on a CPU. Raises
    WorkbookError when there are no triplets. Source: the linear query adapters of dense retrieval, as in Suresh et al.
    2023 and LlamaIndex's embedding adapters.
    """
    if not triplets:
        raise WorkbookError("There are no triplets: an adapter needs at least a few dozen queries with their passages.")
    rows = list({(normalise(t.query), t.positive_id): t for t in triplets}.values())
    queries = torch.from_numpy(embedder.embed([t.query for t in rows], "query"))
    ids = sorted(corpus)
    everything = embedder.embed([corpus[d] for d in ids], "document")
    place = {d: i for i, d in enumerate(ids)}
    right = torch.tensor([place[t.positive_id] for t in rows])
    others: dict[str, set[int]] = {}
    for t in rows:
        others.setdefault(normalise(t.query), set()).add(place[t.positive_id])
    also_right = {i: positives for i, t in enumerate(rows) if len(positives := others[normalise(t.query)]) > 1}
    passages = torch.from_numpy(everything)
    asked = embedder.embed(list(dev[0].values()), "query")
    rng = torch.Generator().manual_seed(seed)
    matrix = torch.eye(queries.shape[1], requires_grad=True)
    optimizer = torch.optim.Adam([matrix], lr=LEARNING_RATE)

    def on_dev() -> float:
        run = nearest(dev[0], unit(asked @ matrix.detach().numpy()), ids, everything, 10)
        return float(per_query(dev[1], run)["ndcg@10"].mean())

    curve, best = [on_dev()], matrix.detach().numpy().copy()
    for _ in range(epochs):
        for batch in torch.randperm(len(rows), generator=rng).split(BATCH):
            # A passage that is the positive of two queries in the batch is a negative of neither.
            docs, position = right[batch].unique(return_inverse=True)
            scores = functional.normalize(queries[batch] @ matrix, dim=1) @ passages[docs].T
            for i, row in enumerate(batch.tolist()):
                if positives := also_right.get(row):  # neither is another positive of the same query
                    spared = [j for j, doc in enumerate(docs.tolist()) if doc in positives and j != position[i]]
                    scores[i, spared] = float("-inf")
            loss = functional.cross_entropy(scores * SCALE, position)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        curve.append(on_dev())
        if curve[-1] > max(curve[:-1]):
            best = matrix.detach().numpy().copy()
    return best, curve

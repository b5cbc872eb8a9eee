"""The cheaper rungs of the ladder: a linear adapter on frozen vectors, fewer dimensions, fewer bits a number."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from sentence_transformers.util import quantize_embeddings
from torch.nn import functional

from helpers.embedding import Embedder, Task
from helpers.evaluation import Qrels, per_query
from helpers.examples import same
from helpers.retrievers import Run, top_k
from helpers.store import WorkbookError, fingerprint
from helpers.triplets import Triplet

PRECISIONS = ("float32", "int8", "binary")
LEARNING_RATE, BATCH, SCALE = 1e-3, 128, 20.0


class AdaptedEmbedder:
    """An embedder whose query vectors go through a matrix; the passages' vectors, and their index, are those of ``documents``."""

    def __init__(self, embedder: Embedder, matrix: np.ndarray, name: str):
        self.embedder, self.matrix, self.name, self.width = embedder, matrix, name, embedder.width
        self.documents = embedder
        self.key = fingerprint("adapted", embedder.key, np.ascontiguousarray(matrix).tobytes())

    def embed(self, texts: Sequence[str], task: Task) -> np.ndarray:
        """float32 of shape (texts, width), unit length."""
        vectors = self.embedder.embed(texts, task)
        return unit(vectors @ self.matrix) if task == "query" else vectors


def unit(vectors: np.ndarray) -> np.ndarray:
    """The vectors scaled to length 1, float32."""
    vectors = np.asarray(vectors, dtype=np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def train_adapter(
    triplets: Sequence[Triplet],
    embedder: Embedder,
    corpus: Mapping[str, str],
    dev: tuple[Mapping[str, str], Qrels],
    epochs: int = 20,
    seed: int = 0,
) -> tuple[np.ndarray, list[float]]:
    """A matrix of shape (width, width) for query vectors, and nDCG@10 on dev after each epoch, before the first one in front.

    It starts as the identity, learns from in-batch negatives, and the epoch that dev likes best is kept: the identity itself when none is better.
    Only vectors are needed, so a service's embeddings can be adapted too; seconds on a CPU.
    Source: the linear query adapters of dense retrieval, as in Suresh et al. 2023 and LlamaIndex's embedding adapters.
    """
    if not triplets:
        raise WorkbookError("There are no triplets: an adapter needs at least a few dozen queries with their passages.")
    rows = list({(same(t.query), t.positive_id): t for t in triplets}.values())
    queries = torch.from_numpy(embedder.embed([t.query for t in rows], "query"))
    ids = sorted(corpus)
    everything = embedder.embed([corpus[d] for d in ids], "document")
    place = {d: i for i, d in enumerate(ids)}
    right = torch.tensor([place[t.positive_id] for t in rows])
    others: dict[str, set[int]] = {}
    for t in rows:
        others.setdefault(same(t.query), set()).add(place[t.positive_id])
    also_right = {i: found for i, t in enumerate(rows) if len(found := others[same(t.query)]) > 1}
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
            docs, position = right[batch].unique(
                return_inverse=True
            )  # a passage that stands there twice is no negative
            scores = functional.normalize(queries[batch] @ matrix, dim=1) @ passages[docs].T
            for i, row in enumerate(batch.tolist()):
                if found := also_right.get(row):  # nor is another right passage of the same query
                    spared = [j for j, doc in enumerate(docs.tolist()) if doc in found and j != position[i]]
                    scores[i, spared] = float("-inf")
            loss = functional.cross_entropy(scores * SCALE, position)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        curve.append(on_dev())
        if curve[-1] > max(curve[:-1]):
            best = matrix.detach().numpy().copy()
    return best, curve


def nearest(queries: Mapping[str, str], vectors: np.ndarray, ids: Sequence[str], passages: np.ndarray, k: int) -> Run:
    """The k passages of the highest dot product for each query, exactly; ties by id."""
    found: Run = {}
    for q, row in zip(queries, vectors @ passages.T, strict=True):
        hits = np.arange(len(row))
        if len(row) > k:  # all that tie with the k-th, so that ids and not positions break the tie
            hits = np.flatnonzero(row >= np.partition(row, -k)[-k])
        found[q] = top_k([ids[i] for i in hits], row[hits], k)
    return found


def compressed(vectors: np.ndarray, width: int, precision: str, calibration: np.ndarray | None = None) -> np.ndarray:
    """The first ``width`` numbers of each vector in fewer bits, as floats again so that a dot product still compares them.

    ``precision``: "float32"; "int8", 256 steps between the extremes of each dimension over ``calibration`` (the passages); "binary",
    the sign. ``bytes_of`` says what one takes. Raises WorkbookError for a width or precision that does not exist.
    """
    if precision not in PRECISIONS or not 0 < width <= vectors.shape[1]:
        raise WorkbookError(
            f"There is no {precision!r} at {width} of {vectors.shape[1]} dimensions: use {', '.join(PRECISIONS)}."
        )
    cut = unit(vectors[:, :width])
    if precision == "float32":
        return cut
    if precision == "binary":
        return np.where(cut > 0, 1.0, -1.0).astype(np.float32) / np.sqrt(width).astype(np.float32)
    reference = cut if calibration is None else unit(calibration[:, :width])
    ranges = np.vstack([reference.min(axis=0), reference.max(axis=0)])
    steps = quantize_embeddings(cut, "int8", ranges=ranges).astype(np.float32)
    low, high = ranges
    return (steps + 128.5) / 255 * (high - low) + low  # the middle of the step


def bytes_of(width: int, precision: str) -> int:
    """Bytes that one passage's vector takes."""
    return {"float32": 4 * width, "int8": width, "binary": -(-width // 8)}[precision]

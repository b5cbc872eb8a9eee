"""Turn texts into vectors: batches with little padding, and a cache on disk that survives a crash."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from sentence_transformers import MultiVectorEncoder, SentenceTransformer

from helpers.models.load import model_key
from helpers.store.files import WorkbookError, fingerprint
from helpers.store.progress import progress_bar

os.environ.setdefault("LANCE_LOG", "error")  # LanceDB announces every new table otherwise

import lancedb
import pyarrow as pa
from sentence_transformers.util import quantize_embeddings

PRECISIONS = ("float32", "int8", "binary")

Task = Literal["query", "document"]
BATCH_TOKENS = 1024  # tokens in a batch; on a CPU small batches of like lengths are fastest (`make bench`)
BLOCK = 256  # texts encoded between two writes to the cache: what a crash can cost


def batches_by_length(lengths: Sequence[int], batch_tokens: int = BATCH_TOKENS) -> list[list[int]]:
    """Positions grouped so that texts of like length share a batch and little of it is padding.

    ``lengths`` are tokens a text; each batch holds at most ``batch_tokens`` after padding, or one text.
    """
    batches: list[list[int]] = []
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    start = 0
    while start < len(order):
        size = max(1, batch_tokens // max(1, lengths[order[start]]))
        batches.append(order[start : start + size])
        start += size
    return batches


def encode(encoder: SentenceTransformer | MultiVectorEncoder, texts: Sequence[str], task: Task = "document") -> list:
    """What ``encoder.encode_query`` or ``encode_document`` gives for each text, in the order of the texts.

    One array of shape (dimensions,) a text from a bi-encoder, (tokens, dimensions) from a late-interaction model.
    """
    if not texts:
        return []
    limit = encoder.max_seq_length or 512
    tokens = encoder.tokenizer(list(texts), truncation=True, max_length=limit)["input_ids"]
    call = encoder.encode_query if task == "query" else encoder.encode_document
    vectors: list = [None] * len(texts)
    for batch in batches_by_length([len(t) for t in tokens]):
        made = call([texts[i] for i in batch], batch_size=len(batch), show_progress_bar=False, convert_to_numpy=True)
        for i, vector in zip(batch, made, strict=True):
            vectors[i] = vector
    return vectors


class Embedder(Protocol):
    """Anything that turns texts into unit vectors: a local encoder or a service."""

    name: str
    key: str  # a fingerprint: embedders with the same key give the same vectors
    width: int

    def embed(self, texts: Sequence[str], task: Task) -> np.ndarray:
        """float32 of shape (texts, width), unit length."""
        ...


class LocalEmbedder:
    """A sentence-transformers bi-encoder as an Embedder."""

    def __init__(self, encoder: SentenceTransformer, name: str = "encoder"):
        self.encoder, self.name = encoder, name
        self.key = model_key(encoder)
        self.width = encoder.get_embedding_dimension()

    def embed(self, texts: Sequence[str], task: Task) -> np.ndarray:
        """float32 of shape (texts, width), unit length."""
        vectors = np.asarray(encode(self.encoder, texts, task), dtype=np.float32).reshape(-1, self.width)
        return unit(vectors)


class VectorCache:
    """Vectors on disk in a LanceDB table, one row a text; what is there is never computed again.

    The table's name holds ``key``, so another model gets another table. Rows are appended in blocks of
    256 texts, so an interrupted run resumes where it stopped.
    """

    def __init__(self, folder: Path, key: str, width: int, dtype: type = np.float32):
        self.db = lancedb.connect(folder)
        self.table_name, self.width, self.dtype = f"vectors_{key}", width, np.dtype(dtype)
        self._rows: dict[str, int] | None = None

    def _open(self):
        schema = pa.schema([("key", pa.string()), ("vector", pa.list_(pa.from_numpy_dtype(self.dtype)))])
        return self.db.create_table(self.table_name, schema=schema, exist_ok=True)

    def _known(self) -> dict[str, int]:
        if self._rows is None:
            keys = self._open().search().select(["key"]).limit(None).to_arrow()["key"].to_pylist()
            self._rows = {key: row for row, key in enumerate(keys)}
        return self._rows

    def add(
        self, texts: Sequence[str], task: Task, compute: Callable[[Sequence[str], Task], Sequence[np.ndarray]]
    ) -> int:
        """Compute and store the vectors that are missing; returns the number of texts that were computed.

        Raises WorkbookError when a vector holds something other than finite numbers, or when it cannot be stored.
        """
        known = self._known()
        missing = list(dict.fromkeys(t for t in texts if fingerprint(task, t) not in known))
        if not missing:
            return 0
        missing.sort(key=len)  # texts of like length share a block, so that blocks have little padding
        table = self._open()
        with progress_bar(len(missing), f"Encoding ({task})", "text") as bar:
            for start in range(0, len(missing), BLOCK):
                block = missing[start : start + BLOCK]
                vectors = [np.asarray(v, dtype=self.dtype).ravel() for v in compute(block, task)]
                if any(not np.isfinite(v).all() for v in vectors):
                    raise WorkbookError(
                        "The model gave vectors that are not numbers: it is damaged or its training diverged."
                    )
                keys = [fingerprint(task, t) for t in block]
                try:
                    table.add(pa.table({"key": keys, "vector": pa.array(vectors, table.schema.field("vector").type)}))
                except (OSError, RuntimeError) as error:
                    raise WorkbookError(
                        f"Cannot store vectors under {self.db.uri} ({str(error)[:120]}): "
                        "free some space and run again; what was encoded so far is kept."
                    ) from error
                self._rows = None  # read anew: another cache on this folder may have added rows meanwhile
                bar.update(len(block))
        return len(missing)

    def get(self, texts: Sequence[str], task: Task) -> list[np.ndarray]:
        """The stored vectors in the order of the texts, each as a flat array.

        The token vectors of a text were flattened when they were stored: reshape them to (-1, width).
        """
        known = self._known()
        rows = [known[fingerprint(task, t)] for t in texts]
        wanted = sorted(set(rows))
        if not wanted:
            return []
        stored = self._open().take_offsets(wanted).select(["vector"]).to_arrow()["vector"]
        by_row = {row: value.values.to_numpy(zero_copy_only=False) for row, value in zip(wanted, stored, strict=True)}
        return [by_row[row] for row in rows]


class CachedEmbedder:
    """An Embedder with the cache in ``folder`` in front of it: a text is embedded once, in this run and the next.

    Where only queries are embedded in another way (an adapter, two encoders), the passages' vectors are those that the
    embedder of ``documents`` has in the cache.
    """

    def __init__(self, embedder: Embedder, folder: Path):
        self.name, self.key, self.width = embedder.name, embedder.key, embedder.width
        self.embedder, self.folder = embedder, folder
        self.cache = VectorCache(folder, embedder.key, embedder.width)

    def embed(self, texts: Sequence[str], task: Task) -> np.ndarray:
        """float32 of shape (texts, width), unit length."""
        documents = getattr(self.embedder, "documents", None)
        if task == "document" and documents is not None:
            return CachedEmbedder(documents, self.folder).embed(texts, task)
        self.cache.add(texts, task, self.embedder.embed)
        return np.array(self.cache.get(texts, task), dtype=np.float32).reshape(len(texts), self.width)


class AdaptedEmbedder:
    """An embedder whose query vectors are multiplied by a matrix.

    Passages are embedded by ``documents``, the embedder without the matrix, so its vectors and its index can be reused.
    """

    def __init__(self, embedder: Embedder, matrix: np.ndarray, name: str):
        self.embedder, self.matrix, self.name, self.width = embedder, matrix, name, embedder.width
        self.documents = embedder
        self.key = fingerprint("adapted", embedder.key, np.ascontiguousarray(matrix).tobytes())

    def embed(self, texts: Sequence[str], task: Task) -> np.ndarray:
        """float32 of shape (texts, width), unit length."""
        vectors = self.embedder.embed(texts, task)
        return unit(vectors @ self.matrix) if task == "query" else vectors


class TwoEncoders:
    """An embedder with one encoder for queries and another for passages, whose vectors can be compared.

    Such a pair is what query-side tuning gives: ``documents`` has embedded the passages before, and its vectors and its
    index are used as they are.
    """

    def __init__(self, queries: Embedder, documents: Embedder, name: str):
        self.queries, self.documents, self.name, self.width = queries, documents, name, documents.width
        self.key = fingerprint("two encoders", queries.key, documents.key)

    def embed(self, texts: Sequence[str], task: Task) -> np.ndarray:
        """float32 of shape (texts, width), unit length."""
        return (self.queries if task == "query" else self.documents).embed(texts, task)


def unit(vectors: np.ndarray) -> np.ndarray:
    """The vectors scaled to length 1, float32."""
    vectors = np.asarray(vectors, dtype=np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def compressed(vectors: np.ndarray, width: int, precision: str, calibration: np.ndarray | None = None) -> np.ndarray:
    """The vectors cut to their first ``width`` dimensions and stored in fewer bits, turned back into floats.

    A dot product can compare the result, float32 of shape (vectors, width). ``precision`` is "float32"; "int8", 256
    steps between the extremes of each dimension over ``calibration`` (the passages); or "binary", the sign.
    ``bytes_of`` says what one vector takes. Raises WorkbookError for a width or precision that does not exist.
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

"""First-stage retrieval: BM25, dense and hybrid. A run is ``{query_id: {doc_id: score}}``, higher is better."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

import bm25s
import lancedb
import numpy as np
import pyarrow as pa
from lancedb.index import FTS
from lancedb.query import MatchQuery
from lancedb.rerankers import RRFReranker

from helpers.collection.text import tokenize
from helpers.models.embed import CachedEmbedder, Embedder
from helpers.store.files import WorkbookError, fingerprint

Run = dict[str, dict[str, float]]


def top_k(ids: Sequence[str], scores: Sequence[float], k: int) -> dict[str, float]:
    """The k best as ``{id: score}``, best first; equal scores in the order of the ids."""
    pairs = sorted(zip(ids, map(float, scores), strict=True), key=lambda pair: (-pair[1], pair[0]))
    return dict(pairs[:k])


def truncate(run: Run, k: int) -> Run:
    """The k best passages of each query, best first; equal scores in the order of the ids."""
    return {qid: top_k(list(docs), list(docs.values()), k) for qid, docs in run.items()}


class Retriever(ABC):
    """``index(corpus)`` once, then ``retrieve(queries, k)`` for many queries or ``search(text, k)`` for one."""

    name = "retriever"
    usd_per_1000_queries = 0.0

    @property
    def key(self) -> str:
        """A fingerprint: retrievers with the same key give the same answers over the same corpus."""
        return fingerprint(type(self).__name__, self.name)

    @abstractmethod
    def index(self, corpus: Mapping[str, str]) -> "Retriever":
        """Prepare to search this corpus, ``{doc_id: text}``; returns the retriever itself."""

    @abstractmethod
    def search(self, text: str, k: int) -> dict[str, float]:
        """Answer one query, as in production without any cache: ``{doc_id: score}``, best first, at most k."""

    def retrieve(self, queries: Mapping[str, str], k: int = 100) -> Run:
        """Answer all queries: a run with at most k passages a query; equal scores in the order of the ids."""
        return {qid: self.search(text, k) for qid, text in queries.items()}


class BM25(Retriever):
    """Lexical search with BM25 (k1 = 1.5, b = 0.75). Scores are sums of term weights, ≥ 0, without upper bound.

    The idf is Lucene's, log(1 + (N − n + 0.5) / (n + 0.5)) for a word in n of N passages, which is never negative.
    """

    name = "BM25"

    def index(self, corpus: Mapping[str, str]) -> "BM25":
        if not corpus:
            raise WorkbookError("The collection has no passages: there is nothing to index.")
        self.ids = list(corpus)
        # "atire" is the weight with the factor k1 + 1, as in rank-bm25; bm25s's "lucene" leaves the factor out.
        self.bm25 = bm25s.BM25(method="atire", idf_method="lucene", k1=1.5, b=0.75, dtype="float64")
        self.bm25.index([tokenize(text) or [""] for text in corpus.values()], show_progress=False)
        return self

    def search(self, text: str, k: int) -> dict[str, float]:
        words = tokenize(text)
        if not words:
            return {}
        scores = self.bm25.get_scores(words)
        hits = np.flatnonzero(scores > 0)
        if len(hits) > k:  # keep all that tie with the k-th, so that ids and not positions break the tie
            hits = hits[scores[hits] >= np.partition(scores[hits], -k)[-k]]
        return top_k([self.ids[i] for i in hits], scores[hits], k)


class Dense(Retriever):
    """Exact nearest neighbours by cosine in a LanceDB table. Scores are cosines in [−1, 1].

    The table holds id, text and vector and lives in ``folder``, keyed by the model, the texts and the ids.
    """

    def __init__(self, embedder: Embedder, folder: Path):
        self.embedder, self.folder, self.name = embedder, Path(folder), embedder.name
        self.usd_per_1000_queries = getattr(embedder, "usd_per_1000_queries", 0.0)

    @property
    def key(self) -> str:
        return fingerprint("dense", self.embedder.key)

    def index(self, corpus: Mapping[str, str]) -> "Dense":
        if not corpus:
            raise WorkbookError("The collection has no passages: there is nothing to index.")
        db = lancedb.connect(self.folder)
        ids = sorted(corpus)  # LanceDB puts equal distances in the order of the rows
        texts = [corpus[i] for i in ids]
        embedder = getattr(self.embedder, "documents", self.embedder)  # an adapter leaves the passages as they are
        name = f"passages_{fingerprint(embedder.key, ids, texts)}"
        try:
            self.table = db.open_table(name)
        except ValueError:  # not there, or cut off while it was written
            vectors = CachedEmbedder(embedder, self.folder).embed(texts, "document")
            column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
            rows = pa.table({"id": ids, "text": texts, "vector": column})
            self.table = db.create_table(name, rows, exist_ok=True)
        return self

    def _hits(self, vectors: np.ndarray, k: int) -> list[dict[str, float]]:
        query = self.table.search(vectors).distance_type("dot").limit(k)
        hits = query.select(["id", "_distance"]).to_arrow().to_pydict()
        found: list[tuple[list[str], list[float]]] = [([], []) for _ in vectors]
        for i, doc, distance in zip(
            hits.get("query_index", [0] * len(hits["id"])), hits["id"], hits["_distance"], strict=True
        ):
            found[i][0].append(doc)
            found[i][1].append(1.0 - distance)
        return [top_k(docs, scores, k) for docs, scores in found]

    def search(self, text: str, k: int) -> dict[str, float]:
        return self._hits(self.embedder.embed([text], "query"), k)[0]

    def query_vectors(self, queries: Mapping[str, str]) -> np.ndarray:
        """Unit vectors of the queries, float32 of shape (queries, width), from the cache where it has them."""
        return CachedEmbedder(self.embedder, self.folder).embed(list(queries.values()), "query")

    def retrieve(self, queries: Mapping[str, str], k: int = 100) -> Run:
        if not queries:
            return {}
        return dict(zip(queries, self._hits(self.query_vectors(queries), k), strict=True))


class Hybrid(Retriever):
    """LanceDB's full-text search and vectors in one query, merged by reciprocal rank fusion.

    Scores are sums of 1 / (60 + rank) over the two lists, between 0 and 2/61.
    Source: Cormack, Clarke and Büttcher, Reciprocal Rank Fusion, SIGIR 2009.
    """

    name = "hybrid (RRF)"

    def __init__(self, dense: Dense):
        self.dense = dense
        self.usd_per_1000_queries = dense.usd_per_1000_queries

    @property
    def key(self) -> str:
        return fingerprint("hybrid", self.dense.key, RRFReranker.__name__)

    def index(self, corpus: Mapping[str, str]) -> "Hybrid":
        self.dense.index(corpus)
        if not any(index.columns == ["text"] for index in self.dense.table.list_indices()):
            self.dense.table.create_index("text", config=FTS())
        return self

    def _search(self, text: str, vector: np.ndarray, k: int) -> dict[str, float]:
        query = self.dense.table.search(query_type="hybrid").vector(vector).text(MatchQuery(text, "text"))
        # Both lists at least 100 deep, so that the fused order does not depend on k.
        hits = query.distance_type("dot").rerank(RRFReranker()).limit(max(k, 100)).to_arrow()
        return top_k(hits["id"].to_pylist(), hits["_relevance_score"].to_pylist(), k)

    def search(self, text: str, k: int) -> dict[str, float]:
        return self._search(text, self.dense.embedder.embed([text], "query")[0], k)

    def retrieve(self, queries: Mapping[str, str], k: int = 100) -> Run:
        vectors = self.dense.query_vectors(queries) if queries else []
        return {qid: self._search(text, v, k) for (qid, text), v in zip(queries.items(), vectors, strict=True)}


def fuse(first: Run, second: Run, weight: float, k: int = 100) -> Run:
    """Weighted fusion of two runs: weight × second + (1 − weight) × first, each query's scores scaled to [0, 1].

    A passage or query that one run does not have gets that run's 0. ``weight`` in [0, 1] is chosen on dev.
    Source: Bruch, Gai and Ingber, An Analysis of Fusion Functions for Hybrid Retrieval, TOIS 2023.
    """
    if not 0 <= weight <= 1:
        raise WorkbookError(f"The weight of a fusion is between 0 and 1, not {weight}.")

    def scaled(scores: Mapping[str, float]) -> dict[str, float]:
        low, high = min(scores.values(), default=0.0), max(scores.values(), default=1.0)
        return {d: (s - low) / (high - low) if high > low else 1.0 for d, s in scores.items()}

    fused: Run = {}
    for qid in first | second:
        a, b = scaled(first.get(qid, {})), scaled(second.get(qid, {}))
        docs = list(a | b)
        fused[qid] = top_k(docs, [(1 - weight) * a.get(d, 0.0) + weight * b.get(d, 0.0) for d in docs], k)
    return fused


class WeightedHybrid(Retriever):
    """Two retrievers merged by ``fuse``; scores in [0, 1]."""

    def __init__(self, first: Retriever, second: Retriever, weight: float, name: str = "hybrid (weighted)"):
        self.first, self.second, self.weight, self.name = first, second, weight, name
        self.usd_per_1000_queries = first.usd_per_1000_queries + second.usd_per_1000_queries

    @property
    def key(self) -> str:
        return fingerprint("weighted", self.first.key, self.second.key, self.weight)

    def index(self, corpus: Mapping[str, str]) -> "WeightedHybrid":
        self.first.index(corpus)
        self.second.index(corpus)
        return self

    def search(self, text: str, k: int) -> dict[str, float]:
        return fuse({"q": self.first.search(text, k)}, {"q": self.second.search(text, k)}, self.weight, k)["q"]

    def retrieve(self, queries: Mapping[str, str], k: int = 100) -> Run:
        return fuse(self.first.retrieve(queries, k), self.second.retrieve(queries, k), self.weight, k)


def max_pool(run: Run, parents: Mapping[str, str], k: int) -> Run:
    """A run over chunks as a run over documents: a document gets the score of its best chunk.

    ``parents`` is {chunk_id: doc_id}. At most k documents per query, ties broken by id.
    """
    documents: Run = {}
    for query, chunks in run.items():
        best: dict[str, float] = {}
        for chunk, score in chunks.items():
            doc = parents.get(chunk, chunk)
            best[doc] = max(score, best.get(doc, score))
        documents[query] = top_k(list(best), list(best.values()), k)
    return documents


class ByDocument(Retriever):
    """A retriever over chunks that answers with their documents; it asks for three chunks per document wanted."""

    def __init__(self, inner: Retriever, parents: Mapping[str, str]):
        self.inner, self.parents, self.name = inner, parents, inner.name
        self.usd_per_1000_queries = inner.usd_per_1000_queries

    @property
    def key(self) -> str:
        return fingerprint("by document", self.inner.key, self.parents)

    def index(self, corpus: Mapping[str, str]) -> "ByDocument":
        self.inner.index(corpus)
        return self

    def search(self, text: str, k: int) -> dict[str, float]:
        return max_pool({"q": self.inner.search(text, 3 * k)}, self.parents, k)["q"]

    def retrieve(self, queries: Mapping[str, str], k: int = 100) -> Run:
        return max_pool(self.inner.retrieve(queries, 3 * k), self.parents, k)


def with_questions(
    corpus: Mapping[str, str], queries: Mapping[str, str], positives: Mapping[str, Mapping[str, int]]
) -> tuple[dict[str, str], dict[str, str]]:
    """(texts, parents) of an index that holds, beside each passage, the questions that it answers.

    ``positives`` are {query_id: {doc_id: grade}} of questions with known passages, such as those one could train on. A
    ``ByDocument`` over these texts and parents ranks a passage by the best of itself and its questions; a passage
    without questions ranks as it did. Source: Nogueira and Lin, From doc2query to docTTTTTquery, 2019.
    """
    parents = {
        f"{doc} ? {q}": doc
        for q, docs in positives.items()
        for doc, grade in docs.items()
        if grade > 0 and doc in corpus
    }
    questions = {key: queries[key.removeprefix(f"{doc} ? ")] for key, doc in parents.items()}
    return {**corpus, **questions}, parents


def nearest(queries: Mapping[str, str], vectors: np.ndarray, ids: Sequence[str], passages: np.ndarray, k: int) -> Run:
    """The k passages of the highest dot product for each query, exactly; ties by id."""
    found: Run = {}
    for q, row in zip(queries, vectors @ passages.T, strict=True):
        hits = np.arange(len(row))
        if len(row) > k:  # all that tie with the k-th, so that ids and not positions break the tie
            hits = np.flatnonzero(row >= np.partition(row, -k)[-k])
        found[q] = top_k([ids[i] for i in hits], row[hits], k)
    return found

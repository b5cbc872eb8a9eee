"""Second-stage ranking: ``rerank(queries, run, corpus, k) -> run`` puts the first stage's best k in a better order."""

import os
import time
from abc import ABC, abstractmethod
from collections import ChainMap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import CrossEncoder, MultiVectorEncoder

from helpers.models import services
from helpers.models.embed import VectorCache, encode
from helpers.models.load import model_key
from helpers.models.services import asking, clip, cohere_client, price
from helpers.retrieval.first_stages import Retriever, Run, fuse, top_k, truncate
from helpers.retrieval.read_pairs import pair_key
from helpers.store.answers import Answers
from helpers.store.files import fingerprint
from helpers.store.progress import progress_bar, tracked

BLOCK = 100  # queries at a time, with the token vectors of their passages in memory
PAIRS = 256  # that a cross-encoder reads between two writings of their scores
MOST_LOADED = 4000  # passages whose token vectors stay in memory between two blocks: about 0.5 GB at 150 tokens


class Reranker(ABC):
    """Scores passages for one query; the higher the better."""

    name = "reranker"
    usd_per_1000_queries = 0.0

    @property
    def key(self) -> str:
        """A fingerprint: rerankers with the same key give the same scores."""
        return fingerprint(type(self).__name__, self.name)

    @abstractmethod
    def score(self, query: str, passages: Sequence[str]) -> np.ndarray:
        """float of shape (passages,), higher is more relevant."""

    def prepare(self, passages: Sequence[str]) -> None:  # noqa: B027 — most rerankers have nothing to prepare
        """Compute for these passages, before any query is scored, what does not depend on it; by default nothing."""

    def rerank(self, queries: Mapping[str, str], run: Run, corpus: Mapping[str, str], k: int = 50) -> Run:
        """Score the first stage's best k passages of each query anew: a run of these alone; ties broken by id."""
        best = {qid: list(docs) for qid, docs in truncate(run, k).items()}
        self.prepare([corpus[d] for docs in best.values() for d in docs])
        reranked: Run = {}
        many = len(best) >= 10  # a bar for one query would only flicker
        for qid, docs in tracked(best.items(), f"Reranking ({self.name})", "query") if many else best.items():
            reranked[qid] = top_k(docs, self.score(queries[qid], [corpus[d] for d in docs]), k) if docs else {}
        return reranked


class LateInteraction(Reranker):
    """MaxSim of the query's token vectors against the passage's, averaged over the query's tokens: in [−1, 1].

    The passages' token vectors are kept on disk in half precision, so each passage is encoded once; without a folder
    they are kept only in memory. Source: Khattab and Zaharia, ColBERT, SIGIR 2020.
    """

    def __init__(self, model: MultiVectorEncoder, folder: Path | None, name: str = "late interaction"):
        self.model, self.name, self.folder = model, name, folder
        self.width = model.get_embedding_dimension()
        if folder is not None:
            key = model_key(model)
            self.cache = VectorCache(folder, key, self.width, np.float16)
            self.query_cache = VectorCache(folder, f"{key}_queries", self.width)  # full precision: few and short
        self._loaded: dict[str, torch.Tensor] = {}
        self._queries: dict[str, torch.Tensor] = {}

    @property
    def key(self) -> str:
        return fingerprint("late interaction", model_key(self.model))

    def prepare(self, passages: Sequence[str]) -> None:
        new = list(dict.fromkeys(p for p in passages if p not in self._loaded))
        if self.folder is None:
            self._loaded |= {p: torch.from_numpy(v) for p, v in zip(new, encode(self.model, new), strict=True)}
            return
        self.cache.add(new, "document", lambda texts, task: encode(self.model, texts, task))
        for passage, flat in zip(new, self.cache.get(new, "document"), strict=True):
            self._loaded[passage] = torch.from_numpy(flat.reshape(-1, self.width).copy())

    def rerank(self, queries: Mapping[str, str], run: Run, corpus: Mapping[str, str], k: int = 50) -> Run:
        """As in ``Reranker``; token vectors of several queries come from the cache, a single query is encoded anew."""
        if len(queries) > 1 and self.folder is None:
            vectors = encode(self.model, list(queries.values()), "query")
            self._queries = {t: torch.from_numpy(v) for t, v in zip(queries.values(), vectors, strict=True)}
        elif len(queries) > 1:
            texts = list(queries.values())
            self.query_cache.add(texts, "query", lambda new, task: encode(self.model, new, task))
            for text, flat in zip(texts, self.query_cache.get(texts, "query"), strict=True):
                self._queries[text] = torch.from_numpy(flat.reshape(-1, self.width).copy())
        found: Run = {}
        asked = list(run)
        try:
            for start in range(0, len(asked), BLOCK):  # so that memory does not grow with the queries
                if self.folder is not None and len(self._loaded) > MOST_LOADED:
                    self._loaded.clear()
                found |= super().rerank(queries, {q: run[q] for q in asked[start : start + BLOCK]}, corpus, k)
        finally:
            self._queries.clear()
        return found

    def score(self, query: str, passages: Sequence[str]) -> np.ndarray:
        self.prepare(passages)
        query_tokens = self._queries.get(query)
        if query_tokens is None:
            query_tokens = torch.as_tensor(encode(self.model, [query], "query")[0])
        documents = [self._loaded[p].float() for p in passages]
        return self.model.similarity([query_tokens], documents)[0].cpu().numpy()


class CrossEncoderReranker(Reranker):
    """A cross-encoder reads query and passage together; scores are the model's own, higher is better.

    With a folder, the scores of several queries' pairs are kept there in a file, so that no pair is read twice and an
    interrupted run goes on where it stopped; ``given`` are scores that are known before (``read_pairs.known_pairs``).
    A single query is always read anew, for its time to be true.
    """

    def __init__(
        self,
        model: CrossEncoder,
        folder: Path | None = None,
        name: str = "cross-encoder",
        given: Mapping[str, float] | None = None,
    ):
        self.model, self.name, self.given = model, name, given or {}
        self._known = Answers(Path(folder) / f"pairs_{model_key(model)}.jsonl") if folder is not None else None

    @property
    def key(self) -> str:
        return fingerprint("cross-encoder", model_key(self.model))

    def rerank(self, queries: Mapping[str, str], run: Run, corpus: Mapping[str, str], k: int = 50) -> Run:
        """As in ``Reranker``; what the folder has is not read again."""
        if self._known is None or len(run) < 2:
            return super().rerank(queries, run, corpus, k)
        best = truncate(run, k)
        pairs = {(q, d): (queries[q], corpus[d]) for q, docs in best.items() for d in docs}
        keys = {ids: pair_key(*pair) for ids, pair in pairs.items()}
        known = ChainMap(dict(self.given), self._known)  # what is committed goes before what was read here
        new = {keys[ids]: pair for ids, pair in pairs.items() if keys[ids] not in known}
        todo = sorted(new, key=lambda key: sum(map(len, new[key])))  # a batch takes as long as its longest pair
        blocks = [todo[start : start + PAIRS] for start in range(0, len(todo), PAIRS)]
        with progress_bar(len(todo), f"Reranking ({self.name})", "pair") as bar:
            for block in blocks:
                scores = self.model.predict([new[key] for key in block], show_progress_bar=False)
                self._known.keep(dict(zip(block, map(float, scores), strict=True)))
                bar.update(len(block))
        return {q: top_k(list(docs), [known[keys[q, d]] for d in docs], k) for q, docs in best.items()}

    def score(self, query: str, passages: Sequence[str]) -> np.ndarray:
        return self.model.predict([(query, p) for p in passages], show_progress_bar=False)


class TwoStage(Retriever):
    """A retriever whose best ``depth`` passages are put in a new order by a reranker; the others follow unchanged.

    ``weight`` in [0, 1] mixes the reranker's scores with the first stage's by ``fuse``; 1 is the reranker alone, whose
    scores are then kept. Passages below ``depth`` get scores under the lowest of them, in their old order.
    """

    def __init__(
        self, first: Retriever, reranker: Reranker, depth: int = 50, weight: float = 1.0, name: str | None = None
    ):
        self.first, self.reranker, self.depth, self.weight = first, reranker, depth, weight
        self.name = name or f"{first.name} → {reranker.name}"
        self.usd_per_1000_queries = first.usd_per_1000_queries + reranker.usd_per_1000_queries

    @property
    def key(self) -> str:
        return fingerprint("two stages", self.first.key, self.reranker.key, self.depth, self.weight)

    def index(self, corpus: Mapping[str, str]) -> "TwoStage":
        self.corpus = corpus
        self.first.index(corpus)
        return self

    def search(self, text: str, k: int) -> dict[str, float]:
        return self._second_stage({"q": text}, {"q": self.first.search(text, max(k, self.depth))}, k)["q"]

    def retrieve(self, queries: Mapping[str, str], k: int = 100) -> Run:
        return self._second_stage(queries, self.first.retrieve(queries, max(k, self.depth)), k)

    def _second_stage(self, queries: Mapping[str, str], run: Run, k: int) -> Run:
        reranked = self.reranker.rerank(queries, run, self.corpus, self.depth)
        return second_stage(run, reranked, self.depth, self.weight, k)


def second_stage(run: Run, reranked: Run, depth: int, weight: float = 1.0, k: int = 100) -> Run:
    """The first stage's best ``depth`` per query in the order of a reranker's scores; the rest below, in its old order.

    ``weight`` in [0, 1] mixes these scores with the first stage's, as in ``TwoStage``. ``reranked`` holds the
    reranker's scores of at least the best ``depth``, so that one scoring serves every smaller depth.
    """
    best = truncate(run, depth)
    scores = {qid: {d: reranked[qid][d] for d in docs} for qid, docs in best.items()}
    if weight < 1:
        scores = fuse(best, scores, weight, depth)
    for qid, docs in run.items():
        floor = min(scores[qid].values(), default=0.0)
        rest = [d for d in docs if d not in scores[qid]]
        scores[qid] |= {d: floor - 1.0 - i for i, d in enumerate(rest)}
    return truncate(scores, k)


class CohereReranker(Reranker):
    """Cohere's rerank API; scores in [0, 1], higher is more relevant.

    At most ``$CO_REQUESTS_PER_MINUTE`` requests a minute (default 10, a trial key's limit). Answers are kept in a
    file in ``folder``, so nothing is asked twice and an interrupted run goes on where it stopped.
    """

    def __init__(self, folder: Path, model: str = "rerank-v3.5"):
        self.client = cohere_client()
        self.model, self.name = model, f"Cohere {model}"
        self.usd_per_1000_queries = price(model, "usd_per_1000_searches")
        self._known = Answers(Path(folder) / "cohere_rerank.jsonl")
        self.seconds_between = 60.0 / float(os.environ.get("CO_REQUESTS_PER_MINUTE") or 10)
        self._last = 0.0

    def score(self, query: str, passages: Sequence[str]) -> np.ndarray:
        """float of shape (passages,) in [0, 1]."""
        key = fingerprint(self.model, query, list(passages))
        if key not in self._known:
            time.sleep(max(0.0, self._last + self.seconds_between - time.monotonic()))
            self._last = time.monotonic()
            results = asking(
                "Cohere",
                "CO_API_KEY",
                lambda: list(
                    self.client.rerank(
                        model=self.model,
                        query=query,
                        documents=[clip(p) for p in passages],
                        request_options={"max_retries": services.RETRIES},
                    ).results
                ),
            )
            scores = [0.0] * len(passages)
            for result in results:
                scores[result.index] = result.relevance_score
            self._known.keep({key: scores})
        return np.asarray(self._known[key])

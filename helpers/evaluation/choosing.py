"""nDCG@10 on dev, to choose between checkpoints of an encoder (over a small corpus) or reranker (on a first stage)."""

from collections.abc import Mapping

import numpy as np
from sentence_transformers import CrossEncoder, MultiVectorEncoder, SentenceTransformer
from sentence_transformers.base.evaluation import BaseEvaluator

from helpers.evaluation.measures import Qrels, per_query
from helpers.models.embed import LocalEmbedder
from helpers.models.load import model_key
from helpers.retrieval.first_stages import Run, nearest
from helpers.retrieval.rerankers import CrossEncoderReranker, LateInteraction, Reranker
from helpers.store.files import fingerprint

# Passages in the corpus that dev is scored on during training: the whole collection would take as long as the training.
DEV_PASSAGES = 500
METRIC = "dev_ndcg@10"


def dev_corpus(
    corpus: Mapping[str, str], qrels: Qrels, run: Run, limit: int = DEV_PASSAGES, seed: int = 0
) -> dict[str, str]:
    """A small corpus for choosing checkpoints, of about ``limit`` passages: {doc_id: text}.

    It holds all relevant passages, the ``limit`` / 2 that ``run`` ranks highest for the queries, and passages drawn at
    random up to ``limit``; it is larger only where the first two are more. Scores over it are higher than over the
    whole collection; what counts is which checkpoint has the highest.
    """
    chosen = dict.fromkeys(d for docs in qrels.values() for d, grade in docs.items() if grade > 0 and d in corpus)
    deepest = max(map(len, run.values()), default=0)
    ranked = (list(docs)[rank] for rank in range(deepest) for docs in run.values() if rank < len(docs))
    chosen |= dict.fromkeys(d for d, _ in zip(dict.fromkeys(ranked), range(limit // 2), strict=False))
    rest = [d for d in sorted(corpus) if d not in chosen]
    spare = np.random.default_rng(seed).permutation(len(rest))[: max(0, limit - len(chosen))]
    return {d: corpus[d] for d in sorted([*chosen, *(rest[i] for i in spare)])}


class DevRetrieval(BaseEvaluator):
    """nDCG@10 of an encoder on dev queries over the passages it is given."""

    def __init__(self, queries: Mapping[str, str], qrels: Qrels, corpus: Mapping[str, str]):
        super().__init__()
        self.primary_metric = METRIC
        self.queries, self.qrels, self.corpus = dict(queries), qrels, dict(corpus)
        self.key = fingerprint(self.queries, qrels, self.corpus)
        self._scores: dict[str, float] = {}  # by the key of the weights: several trainings start from the same ones

    def retrieve(self, model: SentenceTransformer, k: int = 10) -> Run:
        """The k best passages for each dev query, by exact search; nothing is kept on disk."""
        embedder = LocalEmbedder(model)
        passages = embedder.embed(list(self.corpus.values()), "document")
        return nearest(
            self.queries, embedder.embed(list(self.queries.values()), "query"), list(self.corpus), passages, k
        )

    def __call__(self, model: SentenceTransformer, output_path=None, epoch: float = -1, steps: int = -1) -> dict:
        key = model_key(model)
        if key not in self._scores:
            self._scores[key] = float(per_query(self.qrels, self.retrieve(model))["ndcg@10"].mean())
        return {METRIC: self._scores[key]}


class DevReranking(BaseEvaluator):
    """nDCG@10 of a reranker on the best ``depth`` passages of a first stage's dev run."""

    def __init__(self, queries: Mapping[str, str], qrels: Qrels, run: Run, corpus: Mapping[str, str], depth: int = 20):
        super().__init__()
        self.primary_metric = METRIC
        self.queries, self.qrels, self.depth = dict(queries), qrels, depth
        self.run = {q: dict(list(docs.items())[:depth]) for q, docs in run.items()}
        self.corpus = {d: corpus[d] for docs in self.run.values() for d in docs}
        self.key = fingerprint(self.queries, qrels, {q: list(docs) for q, docs in self.run.items()}, self.corpus)

    def __call__(self, model, output_path=None, epoch: float = -1, steps: int = -1) -> dict:
        run = reranker_of(model).rerank(self.queries, self.run, self.corpus, self.depth)
        return {METRIC: float(per_query(self.qrels, run)["ndcg@10"].mean())}


def reranker_of(model: MultiVectorEncoder | CrossEncoder) -> Reranker:
    """The model as a reranker that keeps nothing on disk."""
    return CrossEncoderReranker(model) if isinstance(model, CrossEncoder) else LateInteraction(model, None)

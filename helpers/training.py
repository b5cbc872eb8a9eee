"""Fine-tune an encoder, a late-interaction model or a cross-encoder on triplets; dev chooses the checkpoint."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from sentence_transformers import CrossEncoder, MultiVectorEncoder, SentenceTransformer
from sentence_transformers.base.evaluation import BaseEvaluator

from helpers.adapters import nearest
from helpers.collection import Collection
from helpers.embedding import LocalEmbedder
from helpers.evaluation import Qrels, per_query
from helpers.examples import same
from helpers.export import to_dataset
from helpers.fitting import Trained, fit
from helpers.questions import Question, as_queries
from helpers.recipe import Recipe
from helpers.rerankers import CrossEncoderReranker, LateInteraction, Reranker
from helpers.retrievers import Run
from helpers.splits import COLLECT_BELOW, split_by_passage
from helpers.store import WorkbookError, fingerprint
from helpers.triplets import Triplet, build_triplets

FEWEST = 32  # different queries: below this a batch has too few passages to tell apart
DEV_PASSAGES = (
    500  # passages that dev is asked over while training; the whole collection would take as long as the training
)
METRIC = "dev_ndcg@10"


class RerankerPlan(NamedTuple):
    """How many questions a reranker is trained on, with how many hard negatives each, and how."""

    questions: int
    negatives: int
    recipe: Recipe


RERANKER = RerankerPlan(1200, 2, Recipe(epochs=1, batch_size=32, learning_rate=5e-5, evaluations=3))


@dataclass(frozen=True)
class TrainingSet:
    """What to train on and what to choose by: queries and qrels of each, and a sentence that says where they come from."""

    queries: dict[str, str]
    positives: dict[str, dict[str, int]]
    dev: dict[str, str]
    dev_qrels: dict[str, dict[str, int]]
    source: str


def training_set(collection: Collection, questions: Sequence[Question], held_out: float = 0.25) -> TrainingSet:
    """Train on the questions and the train split, choose by the dev split; without one, by a part of the questions.

    That part (``held_out``) shares no query and no passage with the rest. Test is never touched.
    Raises WorkbookError when there is nothing to train on.
    """
    queries, positives = as_queries(questions)
    sources = [f"{len(queries):,} synthetic questions"] if queries else []
    if "train" in collection.qrels:
        train, qrels = collection.split("train")
        queries, positives = queries | train, positives | qrels
        sources.append(f"{len(train):,} train queries")
    if not positives:
        raise WorkbookError(
            f"The collection {collection.name} has neither questions nor a train split: make questions with notebook 03."
        )
    said = " and ".join(sources)
    if "dev" in collection.qrels:
        dev, dev_qrels = collection.split("dev")
        return TrainingSet(queries, positives, dev, dev_qrels, f"Training on {said}; {len(dev)} dev queries choose.")
    pairs = build_triplets(collection.corpus, queries, positives, "in-batch")
    kept, held = split_by_passage(pairs, held_out, corpus=collection.corpus)
    parts = []
    for part in (kept, held):
        chosen = {t.query_id for t in part}
        parts += [{q: queries[q] for q in chosen}, {q: positives[q] for q in chosen}]
    return TrainingSet(
        *(dict(sorted(part.items())) for part in parts),
        f"Training on {len(parts[0]):,} of {said}; there is no dev split, so the other {len(parts[2]):,}, on other passages, choose.",
    )


def sample_queries(data: TrainingSet, size: int | None, seed: int) -> tuple[dict[str, str], dict[str, dict[str, int]]]:
    """The queries and positives of ``size`` queries drawn by ``seed``, of two sizes the smaller within the larger; None for all."""
    order = np.random.default_rng(seed).permutation(sorted(data.positives))[:size].tolist()
    return {q: data.queries[q] for q in order}, {q: data.positives[q] for q in order}


def dev_corpus(
    corpus: Mapping[str, str], qrels: Qrels, run: Run, limit: int = DEV_PASSAGES, seed: int = 0
) -> dict[str, str]:
    """A small collection for choosing checkpoints: what is relevant, what is nearest to the queries in ``run``, and a random rest.

    Scores over it are higher than over the whole collection; what counts is which checkpoint has the highest.
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

    def retrieve(self, model: SentenceTransformer, k: int = 10) -> Run:
        """The k best passages for each dev query, by exact search; nothing is kept on disk."""
        embedder = LocalEmbedder(model)
        passages = embedder.embed(list(self.corpus.values()), "document")
        return nearest(
            self.queries, embedder.embed(list(self.queries.values()), "query"), list(self.corpus), passages, k
        )

    def __call__(self, model: SentenceTransformer, output_path=None, epoch: float = -1, steps: int = -1) -> dict:
        return {METRIC: float(per_query(self.qrels, self.retrieve(model))["ndcg@10"].mean())}


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


def check_triplets(triplets: Sequence[Triplet], corpus: Mapping[str, str]) -> None:
    """Raises WorkbookError, in one sentence, for what would teach nothing or the opposite."""
    for t in triplets:
        if not t.query.strip():
            raise WorkbookError(f"The text of query {t.query_id!r} is empty: write it or drop its triplets.")
        if not t.positive_id or not corpus.get(t.positive_id, "").strip():
            what = (
                "has no positive"
                if not t.positive_id
                else f"has the positive {t.positive_id!r}, which is empty or missing"
            )
            raise WorkbookError(f"Query {t.query_id!r} {what}: give it a passage of the collection or drop it.")
        lost = next((d for d in t.negative_ids if not corpus.get(d, "").strip()), None)
        if lost is not None:
            raise WorkbookError(f"The negative {lost!r} of query {t.query_id!r} is empty or missing: drop it.")
    right = Counter((same(t.query), same(corpus[t.positive_id])) for t in triplets)
    for t in triplets:
        wrong = next((d for d in t.negative_ids if (same(t.query), same(corpus[d])) in right), None)
        if wrong is not None:
            raise WorkbookError(
                f"{wrong!r} is a negative of query {t.query_id!r} and a positive of the same words: keep one of the two."
            )
    found = len({same(t.query) for t in triplets})
    if found < FEWEST:
        raise WorkbookError(
            f"{found} different queries are too few to tune a model (at least {FEWEST}; from about {COLLECT_BELOW} on it may help, "
            "500 to 1,000 usually do): make questions with notebook 03, or add judged queries as qrels/train.tsv."
        )


def finetune_encoder(
    collection: Collection,
    triplets: Sequence[Triplet],
    dev: DevRetrieval,
    base: SentenceTransformer,
    recipe: Recipe | None = None,
    name: str = "encoder",
) -> Trained:
    """Tune a bi-encoder with in-batch and, where the triplets have them, mined negatives.

    ``base`` is changed; its best checkpoint by ``dev`` is kept under ``build/<collection>/models/<name>``. Rows have as many
    negatives as the triplet with the most; triplets with fewer are left out, unless none has any.
    """
    check_triplets(triplets, collection.corpus)
    form = "tuples" if any(t.negative_ids for t in triplets) else "pairs"
    return fit(collection, name, base, to_dataset(triplets, collection.corpus, form), dev, recipe or Recipe())


def finetune_late_interaction(
    collection: Collection,
    triplets: Sequence[Triplet],
    dev: DevReranking,
    base: MultiVectorEncoder,
    recipe: Recipe | None = None,
    name: str = "late-interaction",
) -> Trained:
    """Tune a late-interaction model; the same rows and choices as ``finetune_encoder``, scored by MaxSim."""
    check_triplets(triplets, collection.corpus)
    form = "tuples" if any(t.negative_ids for t in triplets) else "pairs"
    return fit(collection, name, base, to_dataset(triplets, collection.corpus, form), dev, recipe or Recipe())


def finetune_reranker(
    collection: Collection,
    triplets: Sequence[Triplet],
    dev: DevReranking,
    base: CrossEncoder,
    recipe: Recipe | None = None,
    name: str = "cross-encoder",
) -> Trained:
    """Tune a cross-encoder listwise: of each query's passages, its positive is to score highest. Needs mined negatives."""
    check_triplets(triplets, collection.corpus)
    rows = to_dataset(triplets, collection.corpus, "labelled lists")
    return fit(collection, name, base, rows, dev, recipe or Recipe(batch_size=8))

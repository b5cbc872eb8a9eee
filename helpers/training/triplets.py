"""Triplets for training: negatives of six kinds, and how many of them are false."""

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass

import numpy as np
import torch
from datasets import Dataset
from scipy.stats import binomtest
from sentence_transformers.util import dot_score, mine_hard_negatives, pairwise_dot_score

from helpers.collection.text import normalise
from helpers.evaluation.measures import Qrels
from helpers.models.embed import Task
from helpers.retrieval.first_stages import Retriever
from helpers.store.files import WorkbookError, fingerprint

_MINED = {  # the kinds of negatives, and whether they are mined with an encoder's vectors
    "random": False,
    "in-batch": False,
    "bm25-hard": False,
    "encoder-hard": True,
    "filtered": True,
    "mixed": True,
}
NEGATIVES = tuple(_MINED)
_ASKED_AT_ONCE = 2  # passages that a judge sees at a time, for each negative that is wanted
Keep = Callable[[str, list[str]], Sequence[bool]]


@dataclass(frozen=True)
class Triplet:
    """A query, one passage that answers it, and any number of passages that do not; passages by their ids."""

    query_id: str
    query: str
    positive_id: str
    negative_ids: tuple[str, ...] = ()


class _Looked:
    """Stands in for a model in ``mine_hard_negatives``: it is given ids instead of texts and looks up their vectors."""

    device = torch.device("cpu")
    similarity, similarity_pairwise = staticmethod(dot_score), staticmethod(pairwise_dot_score)

    def __init__(self, embedder, queries: Mapping[str, str], passages: Mapping[str, str]):
        def vectors(texts: Mapping[str, str], task: Task) -> dict[str, np.ndarray]:
            return dict(zip(texts, embedder.embed(list(texts.values()), task), strict=True))

        self.queries, self.passages = vectors(queries, "query"), vectors(passages, "document")

    def encode_query(self, ids: Sequence[str], **_) -> np.ndarray:
        return np.stack([self.queries[i] for i in ids])

    def encode_document(self, ids: Sequence[str], **_) -> np.ndarray:
        return np.stack([self.passages[i] for i in ids])


class _Pool:
    """The passages that may become negatives, one id for each different text, and what is barred for each query."""

    def __init__(self, corpus: Mapping[str, str], queries: Mapping[str, str], *judged: Qrels):
        first: dict[str, str] = {}
        self.twin = {doc: first.setdefault(normalise(text), doc) for doc, text in sorted(corpus.items())}
        self.ids = list(first.values())
        needs = {q: normalise(text) for q, text in queries.items()}
        relevant: dict[str, set[str]] = {}
        for qrels in judged:
            for q, d in _positives(qrels):
                if q in needs and d in self.twin:
                    relevant.setdefault(needs[q], set()).add(self.twin[d])
        self.barred = {q: relevant.get(need, set()) for q, need in needs.items()}
        self.most_barred = max(map(len, self.barred.values()), default=0)

    def allowed(self, q: str, docs: Iterable[str], depth: int) -> list[str]:
        """The first ``depth`` of the docs that are neither barred for the query nor the same text again."""
        candidates: dict[str, str] = {}
        for doc in docs:
            if self.twin[doc] not in self.barred[q]:
                candidates.setdefault(self.twin[doc], doc)
        return list(candidates.values())[:depth]

    def draw(self, q: str, n: int, besides: Sequence[str], rng: np.random.Generator) -> list[str]:
        """n random passages that are neither barred nor among ``besides``; fewer where the corpus has no more."""
        out = self.barred[q] | {self.twin[doc] for doc in besides}
        positions = rng.choice(len(self.ids), min(len(self.ids), n + len(out)), replace=False)
        return [self.ids[i] for i in positions if self.ids[i] not in out][:n]


def _positives(qrels: Qrels) -> Iterator[tuple[str, str]]:
    return ((q, d) for q, docs in qrels.items() for d, grade in docs.items() if grade >= 1)


def build_triplets(
    corpus: Mapping[str, str],
    queries: Mapping[str, str],
    positives: Qrels,
    negatives: str = "encoder-hard",
    *,
    n: int = 1,
    seed: int = 0,
    known: Qrels | None = None,
    bm25: Retriever | None = None,
    embedder=None,
    keep: Keep | None = None,
    margin: float | None = 0.05,
    depth: int = 50,
) -> list[Triplet]:
    """One triplet for each query and positive (grade ≥ 1), with up to n negatives of one kind.

    ============== ==============================================================================================
    random         drawn from the corpus by ``seed``
    in-batch       none: in training the positives of the other queries in a batch are the negatives
    bm25-hard      the best of ``bm25``, a retriever that has indexed the corpus
    encoder-hard   the nearest of ``embedder`` (``embed(texts, task)`` → unit vectors) below the margin
    filtered       those encoder-hard ones that ``keep(query, passages)`` → [bool] says are truly irrelevant
    mixed          half encoder-hard (the larger half), half random; with n = 1 alternating from query to query
    ============== ==============================================================================================

    A passage with grade ≥ 1 in ``positives`` or ``known``, for this query or one of the same words, never becomes a
    negative, nor does one with the same text. The negatives of a triplet all have different texts. Where fewer than n
    are left, the triplet has fewer (see ``shortfall``).

    ``margin``: a negative's cosine is at most (1 − margin) times that of the query's *least* similar positive; None for
    no margin. Source: Moreira et al., NV-Retriever, 2024 (TopK-PercPos), by ``mine_hard_negatives``. ``depth``: how
    many of the best passages are looked at; where a positive ranks below them, only a greater depth leaves negatives.

    Raises WorkbookError for ids without text, for empty texts, and when there is no positive.
    """
    _check(corpus, queries, positives)
    pairs = list(_positives(positives))
    asked = {q: queries[q] for q, _ in pairs}
    pool = _Pool(corpus, queries, positives, known or {})
    hard: dict[str, list[str]] = {}
    if negatives == "bm25-hard":
        run = bm25.retrieve(asked, depth + pool.most_barred)
        hard = {q: pool.allowed(q, docs, depth) for q, docs in run.items()}
    elif _MINED[negatives]:
        hard = _encoder_hard(corpus, asked, pairs, pool, embedder, margin, depth)
    if negatives == "filtered":
        hard = {q: _kept(asked[q], docs, corpus, keep, n) for q, docs in hard.items()}
    place = {q: i for i, q in enumerate(asked)}
    triplets = []
    for q, d in pairs:
        wanted = n if negatives != "mixed" else (n + 1) // 2 if n > 1 else (place[q] + 1) % 2
        chosen = hard.get(q, [])[:wanted]
        if negatives in ("random", "mixed"):
            rng = np.random.default_rng(int(fingerprint(seed, q, d), 16))
            chosen = chosen + pool.draw(q, n if negatives == "random" else n - wanted, chosen, rng)
        triplets.append(Triplet(q, queries[q], d, tuple(chosen)))
    return triplets


def _check(corpus: Mapping[str, str], queries: Mapping[str, str], positives: Qrels) -> None:
    empty = next((doc for doc, text in corpus.items() if not text.strip()), None)
    if empty is not None:
        raise WorkbookError(f"The text of passage {empty!r} is empty: write it or take it out of the corpus.")
    pair = None
    for pair in _positives(positives):
        if not queries.get(pair[0], "").strip():
            what = "is empty" if pair[0] in queries else "is missing"
            raise WorkbookError(f"The text of query {pair[0]!r} {what}: add it to the queries or drop its positives.")
        if pair[1] not in corpus:
            raise WorkbookError(
                f"The positive {pair[1]!r} of query {pair[0]!r} is not in the corpus: add the passage or drop the pair."
            )
    if pair is None:
        raise WorkbookError("No passage has a grade of 1 or more: a triplet needs a positive.")


def _encoder_hard(corpus, asked, pairs, pool: _Pool, embedder, margin, depth) -> dict[str, list[str]]:
    """{query_id: candidates for its negatives, the nearest first}, at most ``depth`` each."""
    model = _Looked(embedder, asked, {doc: corpus[doc] for doc in pool.ids})
    dataset = Dataset.from_dict({"anchor": [q for q, _ in pairs], "positive": [pool.twin[d] for _, d in pairs]})
    own = {q: set() for q in asked}
    for q, d in pairs:
        own[q].add(pool.twin[d])
    deep = depth + max(len(pool.barred[q] - own[q]) for q in asked)  # the library sets the positives aside itself
    with redirect_stderr(io.StringIO()):  # its progress bar has no switch
        mined = mine_hard_negatives(
            dataset,
            model,
            corpus=pool.ids,
            num_negatives=deep,
            range_max=deep,
            relative_margin=margin,
            output_format="labeled-list",
            faiss_batch_size=1024,
            verbose=False,
        )
    # A row holds a positive and then the negatives, which are the same for all positives of a query.
    ranked = {row["anchor"]: row["positive"][1:] for row in mined}
    return {q: pool.allowed(q, ranked.get(q, []), depth) for q in asked}


def _kept(query: str, docs: Sequence[str], corpus: Mapping[str, str], keep: Keep, n: int) -> list[str]:
    """The first n passages that ``keep`` accepts; it is asked block by block, and no more often than it takes."""
    kept: list[str] = []
    for start in range(0, len(docs), _ASKED_AT_ONCE * n):
        block = docs[start : start + _ASKED_AT_ONCE * n]
        answers = keep(query, [corpus[doc] for doc in block])
        kept += [doc for doc, answer in zip(block, answers, strict=True) if answer]
        if len(kept) >= n:
            break
    return kept[:n]


def shortfall(triplets: Sequence[Triplet], n: int) -> dict[str, int]:
    """How far the triplets fall short of n negatives each.

    Counts: "triplets"; their "negatives"; triplets with fewer than n ("short") and with none ("empty").
    """
    counts = [len(t.negative_ids) for t in triplets]
    return {
        "triplets": len(counts),
        "negatives": sum(counts),
        "short": sum(count < n for count in counts),
        "empty": sum(count == 0 for count in counts),
    }


def false_negatives(triplets: Sequence[Triplet], qrels: Qrels) -> dict[str, float]:
    """How many negatives are relevant after all, by judgments that the mining did not see (by its own there are none).

    Counts are of different (query, negative) pairs: ``negatives``; those of them that are ``judged``; those judged
    ``relevant`` (grade ≥ 1). ``rate`` is relevant / judged with its 95 % Wilson interval ``low``, ``high`` (Wilson,
    1927); nan when nothing is judged. ``at_least`` is relevant / negatives: the rate if no unjudged one is relevant.
    """
    pairs = {(t.query_id, doc) for t in triplets for doc in t.negative_ids}
    grades = [qrels[q][doc] for q, doc in pairs if doc in qrels.get(q, {})]
    relevant = sum(grade >= 1 for grade in grades)
    rate = low = high = float("nan")
    if grades:
        rate = relevant / len(grades)
        low, high = map(float, binomtest(relevant, len(grades)).proportion_ci(method="wilson"))
    at_least = relevant / len(pairs) if pairs else float("nan")
    return {
        "negatives": len(pairs),
        "judged": len(grades),
        "relevant": relevant,
        "rate": rate,
        "low": low,
        "high": high,
        "at_least": at_least,
    }

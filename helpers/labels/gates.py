"""Quality gates for synthetic questions: answerable, no copy, no template, no near-duplicate, no leak."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from helpers.collection.collection import Collection
from helpers.collection.repeats import SharedWords
from helpers.labels.questions import (
    ASKED,
    Question,
    as_queries,
    generate_questions,
    made_questions_file,
    overlap,
    questions_of,
    write_questions,
)
from helpers.models.embed import CachedEmbedder, Embedder, LocalEmbedder
from helpers.models.llm import open_llm
from helpers.models.load import load_encoder
from helpers.retrieval.first_stages import BM25, Dense, Retriever
from helpers.store.files import WorkbookError

DEPTH = 100  # answerable: at least one retriever has the passage at this rank or above
MOST_OVERLAP = 0.5  # no copy: at most this share of the question's words is in the passage
SAME_OPENING = 3  # no template: so many questions, or one in a hundred, may begin with the same three words
SAME_COSINE, SAME_WORDS = 0.90, 0.80  # no near-duplicate: below both, against every earlier question
LEAK_COSINE, LEAK_WORDS = 0.75, 0.50  # no leak: below both, against every dev and test query
GATES = ("answerable", "no copy", "no template", "no near-duplicate", "no leak")


def opening(text: str) -> str:
    """The first three words in lower case, by which questions from one template are recognised."""
    return " ".join(re.findall(r"\w+", text.lower())[:3])


def _nearest(
    texts: Sequence[str],
    vectors: np.ndarray,
    others: Sequence[str],
    other_vectors: np.ndarray,
    cosine: float,
    words: float,
    earlier: bool,
) -> list[tuple[float, int]]:
    """For each text its highest cosine to the others, and the position of one that is too alike, -1 where none is.

    Too alike means at least ``cosine`` or a share of common words of at least ``words``. With ``earlier``, the others
    are the same list, and a text is compared only with those before it that were kept themselves.
    """
    words_shared = SharedWords(others)
    kept = np.ones(len(others), dtype=bool)
    nearest: list[tuple[float, int]] = []
    for i, text in enumerate(texts):
        reach = i if earlier else len(others)
        if not reach:
            nearest.append((0.0, -1))
            continue
        similarities = np.where(kept[:reach], other_vectors[:reach] @ vectors[i], -1.0)
        shared = np.where(kept[:reach], words_shared(text)[:reach], 0.0)
        best, closest = int(similarities.argmax()), int(shared.argmax())
        alike = best if similarities[best] >= cosine else closest if shared[closest] >= words else -1
        if earlier and alike >= 0:
            kept[i] = False
        nearest.append((float(similarities[best]), alike))
    return nearest


def check_questions(
    questions: Sequence[Question],
    collection: Collection,
    retrievers: Sequence[Retriever],
    embedder: Embedder,
    protected: Mapping[str, str] | None = None,
    depth: int = DEPTH,
) -> pd.DataFrame:
    """One row per question: a column of True/False per gate, and what the gates measured.

    ``retrievers`` are two different ones, indexed; ``protected`` are the queries that no question may repeat, by
    default all of the collection's. Measured are ``rank`` of the passage at the best retriever (inf if not found),
    ``overlap`` with the passage, ``nearest`` (cosine to an earlier question) and ``leak`` (cosine to a protected
    query); ``duplicate_of`` and ``leaks`` name what was repeated. Raises WorkbookError without a retriever, and on a
    question whose passage the collection does not have.
    """
    if not retrievers:
        raise WorkbookError("No retriever was given, so nothing is answerable: pass two different ones, indexed.")
    strange = next((q for q in questions if q.doc not in collection.corpus), None)
    if strange:
        raise WorkbookError(
            f"The question {strange.id} is about {strange.doc!r}, which {collection.name} does not have: remove it."
        )
    queries = dict(collection.queries if protected is None else protected)
    texts = [q.text for q in questions]
    table = pd.DataFrame(index=pd.Index([q.id for q in questions], name="question"))
    asked, _ = as_queries(questions)
    runs = [retriever.retrieve(asked, depth) for retriever in retrievers]
    ranks = [{d: r for r, d in enumerate(run.get(q.id, {}), 1)}.get(q.doc, np.inf) for run in runs for q in questions]
    table["rank"] = np.array(ranks, dtype=float).reshape(len(runs), -1).min(axis=0)
    table["overlap"] = [overlap(q.text, collection.corpus[q.doc]) for q in questions]
    vectors = embedder.embed(texts, "query")
    twins = _nearest(texts, vectors, texts, vectors, SAME_COSINE, SAME_WORDS, earlier=True)
    table["nearest"] = [cosine for cosine, _ in twins]
    table["duplicate_of"] = [questions[j].id if j >= 0 else "" for _, j in twins]
    others = list(queries.values())
    leaks = [(0.0, -1)] * len(texts)
    if others:
        leaks = _nearest(
            texts, vectors, others, embedder.embed(others, "query"), LEAK_COSINE, LEAK_WORDS, earlier=False
        )
    table["leak"] = [cosine for cosine, _ in leaks]
    table["leaks"] = [list(queries)[j] if j >= 0 else "" for _, j in leaks]
    seen: Counter[str] = Counter()
    most = max(SAME_OPENING, len(texts) // 100)
    kept = []
    for text in texts:
        seen[opening(text)] += 1
        kept.append(seen[opening(text)] <= most)
    table["answerable"] = table["rank"] <= depth
    table["no copy"] = table["overlap"] <= MOST_OVERLAP
    table["no template"] = np.array(kept, dtype=bool)
    table["no near-duplicate"] = table["duplicate_of"] == ""
    table["no leak"] = table["leaks"] == ""
    return table


def passing(questions: Sequence[Question], table: pd.DataFrame) -> list[Question]:
    """The questions that pass every gate, in their order."""
    good = table[list(GATES)].all(axis=1).to_numpy()
    return [q for q, keep in zip(questions, good, strict=True) if keep]


def gate_counts(table: pd.DataFrame) -> pd.DataFrame:
    """One row per gate: how many questions fail it, how many reach it after the gates before, how many are left."""
    alive = np.ones(len(table), dtype=bool)
    rows = []
    for gate in GATES:
        passes = table[gate].to_numpy()
        rows.append((gate, int((~passes).sum()), int(alive.sum()), int((alive & passes).sum())))
        alive &= passes
    return pd.DataFrame(rows, columns=["gate", "fail it", "reach it", "left after it"]).set_index("gate")


def open_questions(collection: Collection) -> list[Question]:
    """The collection's questions: shipped, or made before, else made now as notebook 03 makes them, and kept.

    They are the same whichever notebook asks first: the language model at hand writes ``ASKED`` questions, and those
    that pass every gate are taken, or all of them if none passes.
    """
    existing = questions_of(collection)
    if existing:
        return existing
    llm = open_llm(collection.build)
    live = generate_questions(collection, llm, ASKED[llm.small])
    tables = collection.build / "lancedb"
    dense = Dense(LocalEmbedder(load_encoder(), "encoder"), tables).index(collection.corpus)
    checked = check_questions(
        live, collection, [BM25().index(collection.corpus), dense], CachedEmbedder(dense.embedder, tables)
    )
    questions = passing(live, checked) or live
    write_questions(questions, made_questions_file(collection))
    return questions

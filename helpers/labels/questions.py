"""Synthetic questions: written by a language model from passages, so that each comes with its answer."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from helpers.collection.collection import Collection
from helpers.collection.text import normalise, tokenize
from helpers.models.llm import LLM
from helpers.models.prompts import Prompt
from helpers.store.files import DATA, WorkbookError, fingerprint, write_text
from helpers.store.rows import Text, read_rows

Kind = Literal["keyword", "question", "problem"]
KINDS: tuple[Kind, ...] = get_args(Kind)
ASKED = {True: 120, False: 400}  # questions that notebook 03 asks a small model for, a larger one
PASSAGE_CHARACTERS = {True: 500, False: 8000}  # of a passage shown to a small model, to a larger one


class Question(NamedTuple):
    """A query made from a passage; ``doc`` is the passage that answers it."""

    id: str
    text: str
    kind: str
    doc: str


class _Line(BaseModel):
    """A question as it stands in a file."""

    model_config = ConfigDict(coerce_numbers_to_str=True)
    id: Text = Field(alias="_id")
    text: Text
    kind: Literal["keyword", "question", "problem", "typed"]
    doc: Text


class Written(BaseModel):
    """One query as a model writes it."""

    model_config = ConfigDict(extra="forbid")
    kind: Kind
    text: str


class WrittenQueries(BaseModel):
    """What a capable model answers for a passage; an empty list when the passage is nobody's need."""

    model_config = ConfigDict(extra="forbid")
    queries: list[Written]


class OneQuestion(BaseModel):
    """What the small model answers: one line."""

    question: str


def shown(passage: str, small: bool) -> str:
    """The passage in one line, cut to what the model is shown."""
    return normalise(passage)[: PASSAGE_CHARACTERS[small]]


def sample_passages(collection: Collection, n: int, seed: int = 0) -> list[str]:
    """n doc ids drawn without replacement, spread over the collection's groups in proportion to their sizes.

    The shares are rounded by largest remainder. A group is what ``collection.groups()`` says: a module of the API, a
    document. With fewer passages than n, all of them.
    """
    rng = np.random.default_rng(seed)
    by_group: dict[str, list[str]] = defaultdict(list)
    for doc, group in sorted(collection.groups().items()):
        by_group[group].append(doc)
    total = sum(map(len, by_group.values()))
    shares = {group: min(n, total) * len(docs) / total for group, docs in by_group.items()}
    counts = {group: int(share) for group, share in shares.items()}
    short = min(n, total) - sum(counts.values())
    tie = dict(zip(shares, rng.permutation(len(shares)), strict=True))
    for group in sorted(shares, key=lambda g: (counts[g] - shares[g], tie[g]))[:short]:
        counts[group] += 1
    chosen = [doc for group, docs in by_group.items() for doc in rng.permutation(docs)[: counts[group]].tolist()]
    return rng.permutation(chosen).tolist() if chosen else []


def style_examples(collection: Collection, n: int = 8) -> list[str]:
    """Up to n of the collection's own queries to show how people here ask; [] where it has none to spare.

    They are drawn by a hash of their id from queries that nothing is measured on: never one of dev or test.
    """
    measured = {q for split, qrels in collection.qrels.items() if split != "train" for q in qrels}
    free = sorted(set(collection.queries) - measured, key=lambda q: fingerprint("style", q))
    return [collection.queries[q] for q in free[:n]]


def generate_questions(
    collection: Collection,
    llm: LLM,
    n: int,
    kinds: Sequence[str] = KINDS,
    seed: int = 0,
    per_passage: int = 2,
    examples: Sequence[str] = (),
) -> list[Question]:
    """About n questions on n / per_passage passages; the kinds take turns, two different ones per passage.

    ``examples`` are real queries whose style a capable model shall write in (``style_examples``); a small one imitates
    the questions of its prompt and nothing else, and does not get them.

    What the model refuses, leaves empty or spoils is missing from the list and counted in ``llm.counts``. Raises
    WorkbookError on an unknown kind, a number below 1 or a collection without passages.
    """
    kinds = list(dict.fromkeys(kinds))
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise WorkbookError(f"There is no kind of question {unknown[0] if unknown else ''!r}: use {', '.join(KINDS)}.")
    if n < 1 or per_passage < 1:
        raise WorkbookError(f"{n} questions, {per_passage} a passage, cannot be made: ask for at least one of each.")
    if not collection.corpus:
        raise WorkbookError(f"The collection {collection.name} has no passages: there is nothing to ask about.")
    per_passage = min(per_passage, len(kinds))
    docs = sample_passages(collection, -(-n // per_passage), seed)
    wanted = [[kinds[(i * per_passage + j) % len(kinds)] for j in range(per_passage)] for i in range(len(docs))]
    if llm.small:
        answers = _write_small(collection, llm, docs, wanted)
    else:
        answers = _write(collection, llm, docs, wanted, examples)
    written = list(dict.fromkeys(answers))[:n]
    return [Question(f"g-{fingerprint(doc, kind, text)[:10]}", text, kind, doc) for doc, kind, text in written]


def small_prompt(collection: Collection, kind: str) -> Prompt:
    """The prompt that asks a small model for a question of this kind, by examples: it imitates better than it obeys.

    It is the collection's own from ``data/<collection>/prompts/`` if there is one, since examples from another field
    mislead a small model; otherwise a general one with two unlike examples.
    """
    name, own = f"questions_small_{kind}", DATA / collection.name / "prompts"
    return Prompt(name, own) if (own / f"{name}.md").is_file() else Prompt(name)


def _write(
    collection: Collection, llm: LLM, docs: list[str], wanted: list[list[str]], examples: Sequence[str] = ()
) -> list[tuple[str, str, str]]:
    prompt, style = Prompt("questions"), Prompt("questions_style")
    conversations = [
        prompt.fill(doc=doc, passage=shown(collection.corpus[doc], False), kinds=", ".join(kinds))
        for doc, kinds in zip(docs, wanted, strict=True)
    ]
    if examples:
        shown_style = style.fill(examples="\n".join(f"- {normalise(example)}" for example in examples))
        conversations = [[*conversation[:-1], *shown_style, conversation[-1]] for conversation in conversations]
    answers = llm.ask(conversations, WrittenQueries)
    written = [(doc, q.kind, normalise(q.text)) for doc, a in zip(docs, answers, strict=True) if a for q in a.queries]
    return [row for row in written if row[2]]


def _write_small(
    collection: Collection, llm: LLM, docs: list[str], wanted: list[list[str]]
) -> list[tuple[str, str, str]]:
    """Ask a small model for one line per passage and kind; (doc, kind, text) of what it wrote."""
    written: dict[tuple[str, str], str] = {}
    for kind in dict.fromkeys(kind for kinds in wanted for kind in kinds):
        prompt = small_prompt(collection, kind)
        of_kind = [doc for doc, kinds in zip(docs, wanted, strict=True) if kind in kinds]
        answers = llm.ask([prompt.fill(passage=shown(collection.corpus[doc], True)) for doc in of_kind], OneQuestion)
        lines = [normalise(a.question) if a else "" for a in answers]
        written |= {(doc, kind): line for doc, line in zip(of_kind, lines, strict=True) if line}
    asked = [(doc, kind) for doc, kinds in zip(docs, wanted, strict=True) for kind in kinds]
    return [(doc, kind, written[doc, kind]) for doc, kind in asked if (doc, kind) in written]


def overlap(question: str, passage: str) -> float:
    """The share of the question's words (stemmed, without stop words) that the passage has too, in [0, 1]."""
    words = set(tokenize(question))
    return len(words & set(tokenize(passage))) / len(words) if words else 0.0


def as_queries(questions: Iterable[Question]) -> tuple[dict[str, str], dict[str, dict[str, int]]]:
    """Queries and qrels: each question's own passage has grade 1, nothing else is known."""
    rows = list(questions)
    return {q.id: q.text for q in rows}, {q.id: {q.doc: 1} for q in rows}


def write_questions(questions: Iterable[Question], path: Path) -> None:
    """Write one JSON object per line: _id, text, kind, doc."""
    rows = ({"_id": q.id, "text": q.text, "kind": q.kind, "doc": q.doc} for q in questions)
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_questions(path: Path, corpus: Mapping[str, str]) -> list[Question]:
    """Read the questions that ``write_questions`` wrote.

    Raises WorkbookError on a line that does not fit, an id that stands there twice, or a passage that the corpus does
    not have.
    """
    rows = read_rows(path, _Line, unique="id")
    for number, row in rows.items():
        if row.doc not in corpus:
            raise WorkbookError(
                f"{path}, line {number}: the passage {row.doc!r} is not in the corpus: remove the line."
            )
    return [Question(row.id, row.text, row.kind, row.doc) for row in rows.values()]


def shipped_questions(collection: Collection) -> list[Question]:
    """The questions that come with the course for this collection; none for a user's own collection."""
    path = DATA / collection.name / "questions.jsonl"
    return read_questions(path, collection.corpus) if path.is_file() else []


def typed_questions(collection: Collection) -> list[Question]:
    """The shipped questions that are written as people type; none for a user's own collection."""
    path = DATA / collection.name / "questions_typed.jsonl"
    return read_questions(path, collection.corpus) if path.is_file() else []


def made_questions_file(collection: Collection) -> Path:
    """Where made questions are kept for these passages, and for these queries, which no question may repeat."""
    return collection.build / f"questions_{fingerprint(collection.corpus, collection.queries)}.jsonl"


def questions_of(collection: Collection) -> list[Question]:
    """The shipped questions, else those that notebook 03 made and kept for this collection, else none."""
    made = made_questions_file(collection)
    shipped = shipped_questions(collection)
    return shipped or (read_questions(made, collection.corpus) if made.is_file() else [])

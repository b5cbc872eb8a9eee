"""Training data as rows: the course's four schemas, their validation, and conversion without loss."""

from collections.abc import Iterable, Sequence
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, model_validator

from helpers.collection.text import normalise
from helpers.store.files import WorkbookError
from helpers.store.rows import Text, parse_row

Row = dict[str, Any]
PAIRS, EXAMPLES, JUDGMENTS, CITATIONS = "pairs", "examples", "judgments", "citations"


class TrainingRow(BaseModel):
    """A row of training data: exactly its fields, each with a value of its kind, and no empty text.

    Where there are two lists, the first has the positives and the second the negatives: at least one positive, no
    passage in both lists, and none twice in one.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="after")
    def _check_lists(self) -> Self:
        sides = {key: [normalise(text) for text in value] for key, value in self if isinstance(value, list)}
        if not sides:
            return self
        (positives, good), (negatives, bad) = sides.items()
        if not good:
            raise ValueError(f"{positives} is empty: give at least one passage or remove the row")
        both = next((text for text in bad if text in good), None)
        if both is not None:
            raise ValueError(
                f"{both[:60]!r} is in both {positives} and {negatives}: decide what it is and keep it in one"
            )
        for key, texts in sides.items():
            twice = next((text for i, text in enumerate(texts) if text in texts[:i]), None)
            if twice is not None:
                raise ValueError(f"{twice[:60]!r} is in {key} twice: keep it once")
        return self


class Pair(TrainingRow):
    """A question and a passage that answers it."""

    question: Text
    answer: Text


class Example(TrainingRow):
    """A question with passages that answer it and passages that do not."""

    question: Text
    positive_examples: list[Text]
    negative_examples: list[Text]


class JudgedPair(TrainingRow):
    """Whether a passage is relevant to a query."""

    query: Text
    passage: Text
    is_relevant: bool


class Citation(TrainingRow):
    """Whether an answer to a query cited a passage."""

    query: Text
    passage: Text
    is_cited: bool


SCHEMAS: dict[str, type[TrainingRow]] = {PAIRS: Pair, EXAMPLES: Example, JUDGMENTS: JudgedPair, CITATIONS: Citation}


def _schema_of(row: Any) -> str:
    """The schema that has the most keys in common with the row; of equals the first."""
    return max(SCHEMAS, key=lambda s: len(set(SCHEMAS[s].model_fields) & set(row)) if isinstance(row, dict) else 0)


def validate(rows: Sequence[Row]) -> str:
    """The schema of the rows: "pairs", "examples", "judgments" or "citations".

    Raises WorkbookError that names the first wrong row (counted from 1): keys missing or unknown, a wrong type, an
    empty text, an example without a positive, a passage in both lists, a duplicate, one pair with two labels.
    """
    if not isinstance(rows, Sequence) or isinstance(rows, str):
        raise WorkbookError(
            f"Rows are a list of dicts, not a {type(rows).__name__}: of a DataFrame pass to_dict('records')."
        )
    if not rows:
        raise WorkbookError("There are no rows: a training set needs at least one.")
    schema = _schema_of(rows[0])
    seen: dict[tuple[str, ...], tuple[int, Any]] = {}
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            keys = ", ".join(SCHEMAS[schema].model_fields)
            raise WorkbookError(f"Row {number}: expected a dict with {keys}, found {type(row).__name__}.")
        parse_row(row, SCHEMAS[schema], f"Row {number}")
        texts = [normalise(value) for value in row.values() if isinstance(value, str)]
        label = next((value for value in row.values() if isinstance(value, bool)), None)
        earlier, its_label = seen.setdefault(tuple(texts), (number, label))
        if label is not its_label:
            raise WorkbookError(f"Row {number} contradicts row {earlier}: the same pair with another label; keep one.")
        if earlier != number:
            repair = "merge their lists into one row" if schema == EXAMPLES else "remove one"
            raise WorkbookError(f"Row {number} repeats row {earlier}: {repair}.")
    return schema


def _judgments(rows: Sequence[Row], schema: str, uncited_is_negative: bool | None) -> Iterable[tuple[str, str, bool]]:
    """Yield (query, passage, is relevant) for each judgment in the rows.

    Raises WorkbookError for uncited passages when it is not said what they mean (see ``convert``).
    """
    if schema == CITATIONS and uncited_is_negative is None and not all(row["is_cited"] for row in rows):
        uncited = sum(not row["is_cited"] for row in rows)
        raise WorkbookError(
            f"{uncited} of {len(rows)} passages are not cited, which does not make them irrelevant: pass "
            "uncited_is_negative=False to leave them out, or True to take them as irrelevant."
        )
    for row in rows:
        if schema == PAIRS:
            yield row["question"], row["answer"], True
        elif schema == EXAMPLES:
            yield from ((row["question"], passage, True) for passage in row["positive_examples"])
            yield from ((row["question"], passage, False) for passage in row["negative_examples"])
        elif schema == JUDGMENTS:
            yield row["query"], row["passage"], row["is_relevant"]
        elif row["is_cited"] or uncited_is_negative:
            yield row["query"], row["passage"], row["is_cited"]


def convert(rows: Sequence[Row], to: str, *, uncited_is_negative: bool | None = None) -> list[Row]:
    """The rows in another schema and in the same order; rows of one question are merged when they become one example.

    Raises WorkbookError where something would be lost (irrelevant passages → pairs; a query with irrelevant passages
    alone → examples) or made up (anything → citations: a relevant passage need not have been cited).

    Cited passages count as relevant. Uncited ones are no judgment, since an answer seldom cites all that is right. So
    you choose: ``uncited_is_negative=False`` leaves them out, True takes them as irrelevant, some of them falsely.
    """
    schema = validate(rows)
    if to not in SCHEMAS:
        raise WorkbookError(f"There is no schema {to!r}: name one of {', '.join(SCHEMAS)}.")
    if to == schema:
        return [{k: list(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows]
    if to == CITATIONS:
        raise WorkbookError(
            f"Rows of {schema} do not say what an answer cited: citations come from logged answers only."
        )
    judgments = list(_judgments(rows, schema, uncited_is_negative))
    if not judgments:
        raise WorkbookError("No passage is cited: without the uncited ones nothing is left to convert.")
    if to == JUDGMENTS:
        return [{"query": query, "passage": passage, "is_relevant": relevant} for query, passage, relevant in judgments]
    if to == PAIRS:
        lost = sum(not relevant for _, _, relevant in judgments)
        if lost:
            raise WorkbookError(f"{lost} irrelevant passages would be lost: pairs hold answers only; use examples.")
        return [{"question": query, "answer": passage} for query, passage, _ in judgments]
    return group_by_query(judgments)


def group_by_query(judgments: Iterable[tuple[str, str, bool]]) -> list[Row]:
    """Group (query, passage, is relevant) into rows of the schema "examples", one a query; repetitions count once.

    Raises WorkbookError for a query without a relevant passage and for a passage judged both relevant and irrelevant.
    """
    examples: dict[str, Row] = {}
    sides: dict[tuple[str, str], bool] = {}
    for query, passage, relevant in judgments:
        row = examples.setdefault(
            normalise(query), {"question": query, "positive_examples": [], "negative_examples": []}
        )
        pair = (normalise(query), normalise(passage))
        if sides.get(pair, relevant) is not relevant:
            raise WorkbookError(
                f"{passage[:60]!r} is both relevant and irrelevant to {query[:60]!r}: decide what it is and keep one."
            )
        if pair not in sides:
            row["positive_examples" if relevant else "negative_examples"].append(passage)
        sides[pair] = relevant
    lone = [row["question"] for row in examples.values() if not row["positive_examples"]]
    if lone:
        raise WorkbookError(
            f"{len(lone)} queries have irrelevant passages alone and would be lost (the first: {lone[0][:60]!r}): "
            "an example needs a positive; keep them as judgments."
        )
    return list(examples.values())

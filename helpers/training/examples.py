"""Training data as rows: the course's four schemas, their validation, and conversion without loss."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from helpers.collection.text import normalise
from helpers.store.files import WorkbookError

Row = dict[str, Any]
PAIRS, EXAMPLES, JUDGMENTS, CITATIONS = "pairs", "examples", "judgments", "citations"
SCHEMAS: dict[str, dict[str, type]] = {
    PAIRS: {"question": str, "answer": str},
    EXAMPLES: {"question": str, "positive_examples": list, "negative_examples": list},
    JUDGMENTS: {"query": str, "passage": str, "is_relevant": bool},
    CITATIONS: {"query": str, "passage": str, "is_cited": bool},
}
_SHOULD_BE = {str: "a text", list: "a list of texts", bool: "True or False"}


def _schema_of(row: Any) -> str:
    """The schema that has the most keys in common with the row; of equals the first."""
    return max(SCHEMAS, key=lambda name: len(set(SCHEMAS[name]) & set(row)) if isinstance(row, dict) else 0)


def check_row(row: Any, kinds: Mapping[str, type], where: str) -> None:
    """Raises WorkbookError unless the row has exactly the keys of ``kinds``, each with a valid value of its kind.

    No text may be empty. Where there are two list keys, the first has the positives and the second the negatives: at
    least one positive, no passage in both lists, and none twice in one. ``where`` is how the message begins.
    """
    if not isinstance(row, dict):
        raise WorkbookError(f"{where}: expected a dict with {', '.join(kinds)}, found {type(row).__name__}.")
    wrong = [f"{key!r} is missing" for key in kinds if key not in row]
    wrong += [f"{key!r} is unknown" for key in row if key not in kinds]
    if wrong:
        raise WorkbookError(f"{where}: {' and '.join(wrong)}: expected {', '.join(kinds)}.")
    for key, kind in kinds.items():
        value = row[key]
        if not isinstance(value, kind) or (kind is list and not all(isinstance(text, str) for text in value)):
            raise WorkbookError(f"{where}: {key} should be {_SHOULD_BE[kind]}, not {value!r:.60}.")
        texts = value if kind is list else [value] if kind is str else []
        if not all(normalise(text) for text in texts):
            raise WorkbookError(f"{where}: {key} holds an empty text: write it or remove it.")
    lists = [key for key, kind in kinds.items() if kind is list]
    if lists:
        _check_lists(row, *lists, where)


def _check_lists(row: Row, positives: str, negatives: str, where: str) -> None:
    if not row[positives]:
        raise WorkbookError(f"{where}: {positives} is empty: give at least one passage or remove the row.")
    sides = {key: [normalise(text) for text in row[key]] for key in (positives, negatives)}
    both = next((text for text in sides[negatives] if text in sides[positives]), None)
    if both is not None:
        raise WorkbookError(
            f"{where}: {both[:60]!r} is in both {positives} and {negatives}: decide what it is and keep it in one."
        )
    for key, texts in sides.items():
        twice = next((text for i, text in enumerate(texts) if text in texts[:i]), None)
        if twice is not None:
            raise WorkbookError(f"{where}: {twice[:60]!r} is in {key} twice: keep it once.")


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
        check_row(row, SCHEMAS[schema], f"Row {number}")
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
    said = list(_judgments(rows, schema, uncited_is_negative))
    if not said:
        raise WorkbookError("No passage is cited: without the uncited ones nothing is left to convert.")
    if to == JUDGMENTS:
        return [{"query": query, "passage": passage, "is_relevant": relevant} for query, passage, relevant in said]
    if to == PAIRS:
        lost = sum(not relevant for _, _, relevant in said)
        if lost:
            raise WorkbookError(f"{lost} irrelevant passages would be lost: pairs hold answers only; use examples.")
        return [{"question": query, "answer": passage} for query, passage, _ in said]
    return group_by_query(said)


def group_by_query(said: Iterable[tuple[str, str, bool]]) -> list[Row]:
    """Group (query, passage, is relevant) into rows of the schema "examples", one a query; repetitions count once.

    Raises WorkbookError for a query without a relevant passage and for a passage judged both relevant and irrelevant.
    """
    found: dict[str, Row] = {}
    sides: dict[tuple[str, str], bool] = {}
    for query, passage, relevant in said:
        row = found.setdefault(normalise(query), {"question": query, "positive_examples": [], "negative_examples": []})
        pair = (normalise(query), normalise(passage))
        if sides.get(pair, relevant) is not relevant:
            raise WorkbookError(
                f"{passage[:60]!r} is both relevant and irrelevant to {query[:60]!r}: decide what it is and keep one."
            )
        if pair not in sides:
            row["positive_examples" if relevant else "negative_examples"].append(passage)
        sides[pair] = relevant
    lone = [row["question"] for row in found.values() if not row["positive_examples"]]
    if lone:
        raise WorkbookError(
            f"{len(lone)} queries have irrelevant passages alone and would be lost (the first: {lone[0][:60]!r}): "
            "an example needs a positive; keep them as judgments."
        )
    return list(found.values())

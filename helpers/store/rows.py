"""Rows of .jsonl and .csv files, read into small pydantic models; every error names file, line and field."""

import csv
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ValidationError

from helpers.store.files import WorkbookError

Model = TypeVar("Model", bound=BaseModel)
_PLAIN = {
    "string_type": "should be a text",
    "list_type": "should be a list of texts",
    "bool_type": "should be True or False",
}


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty: mend or remove it")
    return text


Text = Annotated[str, AfterValidator(_not_blank)]  # a text that holds more than white space


def kind_of(path: Path) -> str:
    """The file type without .gz: ``notes.md.gz`` → ``.md``."""
    return Path(path.stem if path.suffix == ".gz" else path.name).suffix.lower()


def read_bytes(path: Path) -> bytes:
    """The file's content, unpacked if it ends in .gz; raises WorkbookError if it cannot be read."""
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise WorkbookError(
            f"{path} cannot be read ({error}): check that it is there, whole, and yours to read."
        ) from error


def read_text(path: Path) -> str:
    """The file as UTF-8 text (a byte-order mark is dropped)."""
    data = read_bytes(path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise WorkbookError(
            f"{path}, line {line}: not UTF-8 (byte {data[error.start]:#04x}): save the file as UTF-8."
        ) from error


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) for each line that is not blank."""
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise WorkbookError(f"{path}, line {number}: broken JSON ({error}): mend or remove the line.") from error
        if not isinstance(row, dict):
            raise WorkbookError(
                f'{path}, line {number}: expected an object like {{"_id": …, "text": …}}, found {line[:40]!r}.'
            )
        if "\\u" in line:  # half an emoji, as JSON may have it, is no text and could not be written again
            row = json.loads(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace"))
        yield number, row


def read_csv(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, {column: cell}) for each row below the header; of a row over several lines, the first one's."""
    reader = csv.DictReader(StringIO(read_text(path), newline=""), strict=True)
    line = 2
    try:
        for row in reader:
            if None in row or None in row.values():
                wrong = "more" if None in row else "fewer"
                raise WorkbookError(
                    f"{path}, line {line}: {wrong} cells than the header has columns: quote cells that hold a comma."
                )
            yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        raise WorkbookError(f"{path}, line {line}: broken csv ({error}): mend or remove the line.") from error


def parse_row(row: Mapping[str, Any], model: type[Model], where: str) -> Model:
    """The row as an instance of ``model``.

    Raises WorkbookError, one sentence that begins with ``where``, names the field and says what was expected.
    """
    try:
        return model.model_validate(row)
    except ValidationError as error:
        wrong = error.errors()
    names = [field.alias or name for name, field in model.model_fields.items()]
    said = {"missing": "missing", "extra_forbidden": "unknown", "invalid_key": "unknown"}
    keys = [f"{e['loc'][0]!r} is {said[e['type']]}" for e in wrong if e["type"] in said]
    if keys:
        raise WorkbookError(f"{where}: {' and '.join(keys)} (expected {', '.join(names)}): mend or remove this row.")
    first = wrong[0]
    field = "".join(str(part) if isinstance(part, str) else f", item {part + 1}," for part in first["loc"])
    if first["type"] == "value_error":  # of a validator of ours, which says what is wrong and what to do
        raise WorkbookError(f"{where}: {f'{field} ' if field else ''}{first['ctx']['error']}.")
    expected = _PLAIN.get(first["type"]) or first["msg"].removeprefix("Input ").split(", unable to")[0]
    raise WorkbookError(f"{where}: {field} {expected}, not {first['input']!r:.60}: mend or remove this row.")


def read_rows(path: Path, model: type[Model], unique: str = "") -> dict[int, Model]:
    """{line number: row} of a .csv file, or of a file with one JSON object a line, each row as a ``model``.

    An empty cell of a csv file counts as a missing field; fields that the model does not have are ignored unless it
    forbids them. ``unique`` names the field in which no value may come twice. Raises WorkbookError for the first row
    that does not fit.
    """
    lines = read_jsonl(path)
    if kind_of(path) == ".csv":
        lines = ((number, {name: cell for name, cell in row.items() if cell}) for number, row in read_csv(path))
    rows: dict[int, Model] = {}
    seen: set[Any] = set()
    for number, row in lines:
        rows[number] = parse_row(row, model, f"{path}, line {number}")
        value = getattr(rows[number], unique) if unique else number
        if value in seen:
            raise WorkbookError(
                f"{path}, line {number}: the {unique} {value!r} stands there twice: give every row its own {unique}."
            )
        seen.add(value)
    return rows

"""Committed evidence: results that take too long to compute every time, shown only while they fit this code and data.

A row of a table (``data/results/<name>.csv``) and a run (``data/runs/<name>.tsv.gz``) carry two fingerprints. ``key``
covers everything that the values depend on (weights, texts, parameters, seed); ``check`` covers that key and the values
as they stand in the file. Whoever reads evidence says which key it must have. If the key differs or the file was
edited, a WorkbookError says so and names the command that makes the evidence again.
"""

import csv
import gzip
import io
import os
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from helpers.store.files import DATA, ROOT, WorkbookError, fingerprint, write_text

RESULTS, RUNS = DATA / "results", DATA / "runs"
BY = ("name", "seed")  # what tells the rows of a table apart
MARKS = ("key", "check")
Id = tuple[str, int]
Row = dict[str, str]  # the cells that are not empty, as they stand in the file
_EDITED = "was edited by hand: its values are not those that were measured"
_STALE = "is stale: weights, texts or parameters have changed since it was made"


@dataclass(frozen=True)
class Piece:
    """One row of evidence: its table, its name and seed in that table, its key, and the function that makes it.

    make : computes the row as {column: value}; takes minutes
    measured : the columns that another machine must reproduce; the first of them is the one that is reported
    tolerance : how far a measured value may differ on another machine
    quick : whether it takes about three minutes or less
    """

    table: str
    name: str
    seed: int
    key: str
    make: Callable[[], dict[str, Any]]
    measured: tuple[str, ...]
    tolerance: float = 0.03
    quick: bool = False

    def __str__(self) -> str:
        return f"{self.table}/{self.name}, seed {self.seed}"


def display_path(file: Path) -> str:
    """A file's path as a person would type it: relative to the workbook's folder if it lies in there, else as it is."""
    return file.relative_to(ROOT).as_posix() if file.is_relative_to(ROOT) else str(file)


def as_row(values: Mapping[str, Any], key: str) -> Row:
    """The cells of a row as text that reads back to the same numbers, with key and check; empty ones are left out."""
    cells = {c: str(v) for c, v in values.items() if c not in MARKS and v is not None and str(v) != ""}
    row = cells | {"key": key}
    return row | {"check": _check(row)}


def _check(row: Row) -> str:
    return fingerprint(sorted((c, cell) for c, cell in row.items() if c != "check"))


def _id(row: Row) -> tuple[str, ...]:
    return tuple(row.get(c, "") for c in BY)


def _ids(known: Iterable[Id]) -> list[tuple[str, ...]]:
    return [(str(name), str(seed)) for name, seed in known]


def fault(row: Row, expected: Mapping[Id, str]) -> str:
    """What is wrong with a row, worded as the end of "the row …"; empty when the row may be shown.

    ``expected`` is {(name, seed): key} of all rows that the table may have.
    """
    if row.get("check") != _check(row):
        return _EDITED
    keys = dict(zip(_ids(expected), expected.values(), strict=True))
    if _id(row) not in keys:
        return "belongs to nothing that is measured any more"
    return "" if row.get("key") == keys[_id(row)] else _STALE


def read_cells(file: Path) -> list[Row]:
    """The rows of a table as they stand in the file, unchecked; none where there is no file.

    Raises WorkbookError for a file that cannot be read as a table.
    """
    try:
        lines = csv.DictReader(io.StringIO(file.read_text(encoding="utf-8")), restkey="", restval="")
        return [{c: cell for c, cell in row.items() if cell} for row in lines]
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise WorkbookError(f"{display_path(file)} is no table ({error}): remove it and make it anew.") from error


def read_evidence(file: Path, expected: Mapping[Id, str], remake: str) -> pd.DataFrame:
    """A table of evidence, after a check of every row in it; rows that have not been made yet may be missing.

    ``expected`` is {(name, seed): key} and ``remake`` the command that makes the table. Empty where there is no file.
    Raises WorkbookError for a row that was edited by hand, is stale, is not among the expected, or stands there twice.
    """
    rows, seen = read_cells(file), set()
    for row in rows:
        wrong = fault(row, expected) or ("stands there twice" if _id(row) in seen else "")
        if wrong:
            name, seed = (cell or "?" for cell in _id(row))
            raise WorkbookError(
                f"{display_path(file)}: the row {name!r}, seed {seed}, {wrong}; make it anew with `{remake}`."
            )
        seen.add(_id(row))
    return pd.read_csv(file, dtype={"name": str}) if rows else pd.DataFrame()


def write_row(file: Path, row: Row, known: Iterable[Id]) -> None:
    """Put a row into a table in place of the one with its name and seed; the other rows keep their values.

    The rows are sorted in the order of ``known``, the (name, seed) of all rows that the table may have; other rows are
    dropped. A crash leaves either the old table or the new one.
    """
    ids = _ids(known)
    rows = [row, *(other for other in read_cells(file) if _id(other) in ids and _id(other) != _id(row))]
    rows.sort(key=lambda other: ids.index(_id(other)))
    columns = dict.fromkeys(c for other in rows for c in other if c and c not in MARKS)
    text = io.StringIO()
    writer = csv.DictWriter(
        text, [*dict.fromkeys([*BY, *columns]), *MARKS], restval="", extrasaction="ignore", lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(rows)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, text.getvalue())


def write_run(file: Path, run: Mapping[str, Mapping[str, float]], key: str) -> None:
    """Keep a run, ``{query_id: {doc_id: score}}``, with its key; the same run gives the same bytes."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    for query, docs in run.items():  # a query that found nothing is a line of its own
        writer.writerows([(query, doc, repr(float(score))) for doc, score in docs.items()] or [(query,)])
    body, packed = text.getvalue(), io.BytesIO()
    with gzip.GzipFile("", "wb", fileobj=packed, mtime=0) as stream:
        stream.write(f"# key={key} check={fingerprint(key, body)}\n{body}".encode())
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(packed.getvalue())
        part.replace(file)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise WorkbookError(f"Cannot write {file} ({error.strerror}): free some space and run again.") from error


def read_run(file: Path, key: str, remake: str) -> dict[str, dict[str, float]]:
    """The run that was kept under this key, ``{query_id: {doc_id: score}}``; empty where there is no file.

    Raises WorkbookError when the file is damaged, was edited by hand or is stale; ``remake`` is the command it names.
    """
    try:
        head, _, body = gzip.decompress(file.read_bytes()).decode().partition("\n")
    except FileNotFoundError:
        return {}
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise WorkbookError(f"{display_path(file)} is damaged ({error}); make it anew with `{remake}`.") from error
    marks = re.fullmatch(r"# key=(\w+) check=(\w+)", head)
    if not marks or marks[2] != fingerprint(marks[1], body):
        raise WorkbookError(f"{display_path(file)} {_EDITED}; make it anew with `{remake}`.")
    if marks[1] != key:
        raise WorkbookError(f"{display_path(file)} {_STALE}; make it anew with `{remake}`.")
    run: dict[str, dict[str, float]] = {}
    for query, *found in csv.reader(io.StringIO(body), delimiter="\t"):
        run.setdefault(query, {}).update({found[0]: float(found[1])} if found else {})
    return run

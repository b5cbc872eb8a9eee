"""Import an existing search log, a csv or jsonl file with columns of its own, into a SearchLog."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from helpers.labels.search_log import EVENTS, SearchLog, as_utc
from helpers.store.files import WorkbookError, fingerprint
from helpers.store.rows import kind_of, read_csv, read_jsonl

_BOOLEANS = dict.fromkeys(("1", "true", "yes", "y"), True) | dict.fromkeys(("", "0", "false", "no", "n"), False)


def _text(cell: Any) -> str:
    return "" if cell is None else str(cell).strip()


def _ids(cell: Any) -> list[str]:
    if isinstance(cell, str) and cell.strip().startswith("["):
        cell = json.loads(cell)
    if isinstance(cell, str):
        return [part.strip() for part in cell.split("|") if part.strip()] if "|" in cell else cell.split()
    cells = cell if isinstance(cell, list) else [] if cell is None else [cell]
    if not all(isinstance(c, str | int) for c in cells):
        raise ValueError
    return [str(c) for c in cells]


def _scores(cell: Any) -> list[float]:
    return [float(c) for c in (cell if isinstance(cell, list) else _ids(cell) if isinstance(cell, str) else [])]


def _boolean(cell: Any) -> bool:
    if _text(cell).lower() not in _BOOLEANS:
        raise ValueError
    return _BOOLEANS[_text(cell).lower()]


def _time(cell: Any) -> datetime | None:
    if not _text(cell):
        return None
    try:
        number = float(cell)
    except ValueError:
        return as_utc(cell)
    if number < 1e8:
        raise ValueError
    return datetime.fromtimestamp(number / 1000 if number > 1e11 else number, UTC)


_READ: dict[str, tuple[Callable[[Any], Any], str]] = {
    "query": (_text, "text"),
    "time": (_time, "a time like 2026-11-22T09:30:00 or Unix seconds"),
    "session": (_text, "text"),
    "system": (_text, "text"),
    "results": (_ids, "ids"),
    "scores": (_scores, "numbers"),
    **{kind: (_ids, "ids") if kind in ("clicked", "cited", "copied") else (_boolean, "yes or no") for kind in EVENTS},
}


def _parsed(row: Mapping[str, Any], columns: Mapping[str, str], where: str) -> dict[str, Any]:
    """The row's values under our names; what the row does not have is empty or None."""
    values = {}
    for name, (read, expected) in _READ.items():
        cell = row.get(columns.get(name))
        try:
            values[name] = read(cell)
        except (ValueError, TypeError, OverflowError, OSError, WorkbookError):
            raise WorkbookError(
                f"{where}, column {columns[name]!r}: expected {expected}, found {str(cell)[:40]!r}."
            ) from None
    return values


def import_log(path: Path | str, log: SearchLog, columns: Mapping[str, str]) -> int:
    """Read an existing .csv or .jsonl log (.gz too) into ``log``; returns the number of searches that were new.

    ``columns`` gives the file's column for each of our fields; only query is needed. For example:

        {"query": "q", "time": "ts", "session": "user", "results": "doc_ids", "clicked": "click_doc"}

    ``results``, ``clicked``, ``cited`` and ``copied`` hold ids, best first: a list, a JSON list, or text with ``|`` or
    spaces between them. ``thumbs_up``, ``thumbs_down`` and ``reformulated`` hold yes or no. Times are ISO 8601 (UTC
    where no zone is named) or Unix seconds or milliseconds; events get the time of their search.

    What the file does not have is not made up: without ``scores`` they stay empty, without ``session`` each search is
    one of its own, without ``time`` it is the time of the import, in the order of the file.

    The search_id comes from the content of the row, so importing a file twice, or again when it has grown, adds nothing
    twice. Rows alike in every column are told apart by their order. Raises WorkbookError with file, line and column.
    """
    path = Path(path)
    if kind_of(path) not in (".csv", ".jsonl"):
        raise WorkbookError(f"{path} is neither .csv nor .jsonl: save the log as one of these.")
    return import_rows(list(read_csv(path) if kind_of(path) == ".csv" else read_jsonl(path)), path, log, columns)


def import_rows(
    rows: Sequence[tuple[int, Mapping[str, Any]]], path: Path, log: SearchLog, columns: Mapping[str, str]
) -> int:
    """``import_log`` for rows that were read already, as (line number, {column: cell}); errors name ``path``."""
    if wrong := [name for name in columns if name not in _READ]:
        raise WorkbookError(f"columns names {wrong[0]!r}, which the search log does not have: use {', '.join(_READ)}.")
    if "query" not in columns:
        raise WorkbookError('columns does not say where the query is: add {"query": "its column in the file"}.')
    if not rows:
        raise WorkbookError(f"{path} has no rows: it needs one search a row.")
    file_columns = dict.fromkeys(name for _, row in rows for name in row)
    for ours, theirs in columns.items():
        if theirs not in file_columns:
            names = ", ".join(file_columns)
            raise WorkbookError(f"{path}, line 1: missing column {theirs!r} for {ours} (found {names}).")

    stored = log.searches()
    times, now, alike = dict(zip(stored["search_id"], stored["time"], strict=True)), as_utc(), Counter()
    searches, events = [], []
    for line, row in rows:
        where = f"{path}, line {line}"
        values = _parsed(row, columns, where)
        if not values["query"]:
            raise WorkbookError(
                f"{where}, column {columns['query']!r}: the query is empty: write it or remove the line."
            )
        if values["scores"] and len(values["scores"]) != len(values["results"]):
            raise WorkbookError(
                f"{where}, column {columns['scores']!r}: {len(values['scores'])} scores "
                f"for {len(values['results'])} results: give each a score, or none."
            )
        content = fingerprint(row, [columns.get(name) for name in _READ if name not in EVENTS])
        search_id = fingerprint(content, alike[content]) + fingerprint(alike[content], content)
        alike[content] += 1
        # Without a time of its own, a search keeps the one that an earlier import gave it.
        time = values["time"] or times.get(search_id, now + timedelta(microseconds=line))
        searches.append(
            {
                "search_id": search_id,
                "time": time,
                "session": values["session"] or search_id,
                "system": values["system"] or "imported",
                "query": values["query"],
                "doc_ids": values["results"],
                "scores": values["scores"],
                "source": "imported",
            }
        )
        for kind in EVENTS:
            docs = values[kind] if isinstance(values[kind], list) else [None] * values[kind]
            events += [{"search_id": search_id, "time": time, "kind": kind, "doc_id": doc} for doc in docs]
    return log.add(searches, events)

"""The search log: what people searched, what they were shown and what they did with it, with personal data taken out.

Two LanceDB tables. ``searches`` has one row per search:

| field | type | meaning |
|---|---|---|
| search_id | string | unique; 32 hex digits at random for live searches |
| time | timestamp, µs, UTC | when the list was shown |
| session | string | the searches of one person in one sitting share it; a random id, not a name (``new_session()``) |
| system | string | which retriever answered |
| query | string | what was typed, after redaction |
| doc_ids | list of string | what was shown, best first: the first has rank 1 |
| scores | list of float64 | as many as doc_ids, higher is better; empty where not known |
| source | string | live, simulated or imported |

``events`` has one row for each thing that happened later:

| field | type | meaning |
|---|---|---|
| search_id | string | the search it belongs to |
| time | timestamp, µs, UTC | when it happened |
| kind | string | clicked, cited (by the answer), copied, thumbs_up, thumbs_down, reformulated (asked in other words) |
| doc_id | string or null | the passage; null for events about the whole answer |
| detail | string or null | a comment, the new wording …, after redaction |

Several processes and threads may write at once: LanceDB's appends do not conflict. Two that *create* a table at once
could lose rows, so a table is made under another name and renamed into place.
"""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pandas as pd
import pyarrow as pa

from helpers.labels.redaction import apply_hook, redact
from helpers.store.files import WorkbookError, fingerprint

EVENTS = ("clicked", "cited", "copied", "thumbs_up", "thumbs_down", "reformulated")
SOURCES = ("live", "simulated", "imported")
_TEXT, _TIME = pa.string(), pa.timestamp("us", tz="UTC")
SCHEMAS = {
    "searches": pa.schema(
        {
            "search_id": _TEXT,
            "time": _TIME,
            "session": _TEXT,
            "system": _TEXT,
            "query": _TEXT,
            "doc_ids": pa.list_(_TEXT),
            "scores": pa.list_(pa.float64()),
            "source": _TEXT,
        }
    ),
    "events": pa.schema({"search_id": _TEXT, "time": _TIME, "kind": _TEXT, "doc_id": _TEXT, "detail": _TEXT}),
}
REQUIRED = {"searches": ("session", "system", "query", "doc_ids"), "events": ("search_id", "kind")}


def new_session() -> str:
    """A random id for one person's sitting; keep it in the application for as long as the sitting lasts."""
    return uuid4().hex


def as_utc(time: datetime | str | None = None) -> datetime:
    """The time in UTC; the current time if none is given.

    A string is ISO 8601, and in UTC where it names no zone; a datetime must have a zone, or WorkbookError is raised.
    """
    if isinstance(time, str):
        try:
            time = datetime.fromisoformat(time.strip())
        except ValueError:
            raise WorkbookError(f"{time!r} is not a time: write it like 2026-11-22T09:30:00+01:00.") from None
        time = time if time.tzinfo else time.replace(tzinfo=UTC)
    if time is None:
        return datetime.now(UTC)
    if not isinstance(time, datetime) or time.tzinfo is None:
        raise WorkbookError(f"The time {time!r} has no time zone: use datetime.now(UTC) or a string with an offset.")
    return time.astimezone(UTC)


def _one_of(value: Any, allowed: tuple[str, ...], what: str) -> None:
    if value not in allowed:
        raise WorkbookError(f"There is no {what} {value!r} in the search log: use one of {', '.join(allowed)}.")


class SearchLog:
    """An append-only log in ``folder``, safe with several writers; each process opens its own. No row is ever changed.

    ``redact`` is applied to every query and detail before it is stored. If it changes a session id (such as an e-mail
    address), the id is personal and is replaced by its fingerprint.
    """

    def __init__(self, folder: Path | str, redact: Callable[[str], str] = redact):
        self.folder, self.redact = Path(folder), redact
        self._tables: dict[str, Any] = {}

    def search(
        self,
        query: str,
        ranked: Mapping[str, float],
        *,
        system: str,
        session: str,
        time: datetime | str | None = None,
        source: str = "live",
    ) -> str:
        """Log one search and what it showed, ``{doc_id: score}`` best first; returns the search_id, for its events."""
        try:
            shown = {"doc_ids": list(ranked), "scores": [float(score) for score in ranked.values()]}
        except (AttributeError, TypeError, ValueError):
            raise WorkbookError(
                "What a search showed is {doc_id: score}, best first, as Retriever.search returns it."
            ) from None
        row = {"time": time, "session": session, "system": system, "query": query, "source": source, **shown}
        rows = self._checked("searches", [row])
        self._append("searches", rows)
        return rows[0]["search_id"]

    def event(
        self,
        search_id: str,
        kind: str,
        doc_id: str | None = None,
        detail: str | None = None,
        time: datetime | str | None = None,
    ) -> None:
        """Log that something happened to a search: one of ``EVENTS``, with the passage where there is one."""
        row = {"search_id": search_id, "time": time, "kind": kind, "doc_id": doc_id, "detail": detail}
        self._append("events", self._checked("events", [row]))

    def add(self, searches: Iterable[Mapping], events: Iterable[Mapping] = ()) -> int:
        """Log many rows in two writes, as dicts with the fields of the schema; returns how many searches were new.

        What the log has already (a search_id; an event equal in every field) is not added again, so that a simulation
        or an import that was cut off can simply be repeated. If left out, search_id is random, time is now, scores are
        empty and source is live.
        """
        new, happened = self._checked("searches", searches), self._checked("events", events)  # all, before any write
        stored = self._read("searches", ["search_id", "system", "doc_ids"]).to_pylist()
        known, ids = {row["search_id"]: row for row in stored}, Counter(row["search_id"] for row in new)
        for row in new:
            earlier = known.get(row["search_id"], row)
            differs = (earlier["system"], earlier["doc_ids"]) != (row["system"], list(row["doc_ids"]))
            if differs or ids[row["search_id"]] > 1:
                raise WorkbookError(f"The id {row['search_id']!r} stands for two searches: give each its own.")
        new = [row for row in new if row["search_id"] not in known]
        self._append("searches", new)
        before = {tuple(row.values()) for row in self._read("events").to_pylist()}
        distinct = {tuple(row.values()): row for row in happened}
        self._append("events", [row for key, row in distinct.items() if key not in before])
        return len(new)

    def searches(self) -> pd.DataFrame:
        """All searches, in the order of time and search_id."""
        return self._frame("searches").drop_duplicates("search_id", ignore_index=True)

    def events(self) -> pd.DataFrame:
        """All events, in the order of time and search_id."""
        return self._frame("events").drop_duplicates(ignore_index=True)

    def compact(self) -> int:
        """Join the small files that single-row writes leave (one each) into large ones; returns how many are left.

        Call it now and then, for example nightly or every thousand searches: 2,000 single rows are read a hundred times
        as fast afterwards. Writers may go on meanwhile; the old files are removed after seven days.
        """
        for name in SCHEMAS:
            try:
                self._stored(self._table(name).optimize)
            except WorkbookError as error:
                if "commit conflict" not in str(error.__cause__):  # else another process is compacting at this moment
                    raise
        return sum(self._table(name).stats()["fragment_stats"]["num_fragments"] for name in SCHEMAS)

    def _checked(self, name: str, rows: Iterable[Mapping]) -> list[dict]:
        """Whole, redacted rows of one table, in the order of its fields."""
        fields, checked = SCHEMAS[name].names, []
        for row in rows:
            if wrong := [f for f in row if f not in fields]:
                raise WorkbookError(f"{name} have no field {wrong[0]!r}: they have {', '.join(fields)}.")
            if missing := [f for f in REQUIRED[name] if row.get(f) is None]:
                raise WorkbookError(f"A row of {name} lacks {missing[0]}: it needs {', '.join(REQUIRED[name])}.")
            row = {f: row.get(f) for f in fields} | {"time": as_utc(row.get("time"))}
            if name == "searches":
                row["search_id"] = row["search_id"] or uuid4().hex
                row["query"] = apply_hook(self.redact, row["query"])
                private = apply_hook(self.redact, row["session"]) != row["session"]
                row["session"] = fingerprint(row["session"]) if private else row["session"]
                row["scores"], row["source"] = row["scores"] or [], row["source"] or "live"
                if row["scores"] and len(row["scores"]) != len(row["doc_ids"]):
                    raise WorkbookError(
                        f"A search shows {len(row['doc_ids'])} passages with {len(row['scores'])} scores: "
                        "give each a score, or none."
                    )
                _one_of(row["source"], SOURCES, "source")
            else:
                row["detail"] = None if row["detail"] is None else apply_hook(self.redact, row["detail"])
                _one_of(row["kind"], EVENTS, "kind")
            checked.append(row)
        return checked

    def _table(self, name: str):
        if name not in self._tables:
            self._tables[name] = self._stored(lambda: self._open(name))
        return self._tables[name]

    def _open(self, name: str):
        os.environ.setdefault("LANCE_LOG", "error")  # LanceDB reads it when it is imported
        import lancedb

        path = self.folder / f"{name}.lance"
        if not path.is_dir():
            aside = self.folder / f".{uuid4().hex}.part"
            try:
                lancedb.connect(aside).create_table(name, schema=SCHEMAS[name])
                (aside / path.name).rename(path)
            except OSError:
                if not path.is_dir():  # it is there when another process was quicker
                    raise
            finally:
                shutil.rmtree(aside, ignore_errors=True)
        db = lancedb.connect(self.folder, read_consistency_interval=timedelta(0))  # sees what others have written
        table = db.open_table(name)
        if not table.schema.equals(SCHEMAS[name]):
            raise WorkbookError(
                f"{self.folder} holds another table called {name}: give the search log a folder of its own."
            )
        return table

    def _stored(self, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except (OSError, RuntimeError, ValueError) as error:
            raise WorkbookError(
                f"The search log in {self.folder} cannot be read or written "
                f"({' '.join(str(error).split())[:120]}): "
                "check that the folder is yours and has space, and do it again."
            ) from error

    def _read(self, name: str, fields: list[str] | None = None) -> pa.Table:
        query = self._table(name).search().select(fields or SCHEMAS[name].names).limit(None)
        return self._stored(query.to_arrow)

    def _frame(self, name: str) -> pd.DataFrame:
        frame = (table := self._read(name)).to_pandas()
        for field in frame.columns.intersection(["doc_ids", "scores"]):
            frame[field] = pd.Series(table[field].to_pylist(), dtype=object)  # lists, not arrays
        order = ["search_id", "kind", "doc_id"] if name == "events" else ["search_id"]
        return frame.sort_values(["time", *order])

    def _append(self, name: str, rows: list[dict]) -> None:
        if not rows:
            return
        try:
            table = pa.Table.from_pylist(rows, schema=SCHEMAS[name])
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            raise WorkbookError(
                f"A row does not fit the table {name} ({error}): see SCHEMAS in helpers/labels/search_log.py."
            ) from error
        self._stored(lambda: self._table(name).add(table))

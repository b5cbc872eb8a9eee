"""One's own data for the homework: a collection as everywhere in the course, a search log, or one of each together."""

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from helpers.collection.collection import Collection, carve_splits, open_collection, own_name
from helpers.collection.readers import find, kind_of, read_jsonl, read_text, read_texts
from helpers.collection.text import normalise
from helpers.homework.to_judge import read_judged
from helpers.labels.clicks import SHUFFLED, click_rates, estimate_examination, inverse_propensity, labels_from_clicks
from helpers.labels.log_files import import_log, import_rows
from helpers.labels.search_log import SearchLog
from helpers.store.files import ROOT, WorkbookError, build_dir, fingerprint

# {our name of a log's column: the names that others have for it, ours among them}
COLUMNS = {
    "query": "query q search_query search question",
    "time": "time timestamp ts when date",
    "session": "session session_id user user_id",
    "system": "system",
    "results": "results doc_ids shown hits documents",
    "scores": "scores",
    "clicked": "clicked clicks click clicked_doc click_doc",
    "cited": "cited citations",
    "copied": "copied",
    "thumbs_up": "thumbs_up",
    "thumbs_down": "thumbs_down",
    "reformulated": "reformulated",
}
_ID, _TEXT = ("id", "_id", "doc_id", "docid"), ("text", "passage", "content", "snippet")
# The share of a log's labels on passages that the collection does not have; above it, it is another collection's log.
MOST_LABELS_LOST = 0.5


def log_columns(path: Path) -> dict[str, str] | None:
    """{our column: its name in the file} of a search log, or None for a file that is none.

    A search log is a .jsonl or .csv file with a query and with what was shown, clicked or cited.
    """
    if not path.is_file() or kind_of(path) not in (".jsonl", ".csv"):
        return None
    if kind_of(path) == ".csv":
        names = [name.strip().strip('"') for name in read_text(path).split("\n", 1)[0].split(",")]
    else:
        names = list(dict.fromkeys(name for _, row in read_jsonl(path) for name in row))
    by_lower = {str(name).lower(): name for name in names}
    named = {
        ours: next((by_lower[n] for n in theirs.split() if n in by_lower), None) for ours, theirs in COLUMNS.items()
    }
    columns = {ours: theirs for ours, theirs in named.items() if theirs is not None}
    if not {"results", "cited"} & set(columns) and {"text", "passage", "content", "body", "answer"} & set(by_lower):
        return None  # passages, with a column that counts their clicks
    return columns if "query" in columns and {"results", "clicked", "cited"} & set(columns) else None


def _with_ids(path: Path, columns: Mapping[str, str]) -> tuple[list[tuple[int, dict[str, Any]]], dict[str, str]]:
    """(rows of a .jsonl log with their line numbers, {doc_id: text} of the results that came with their texts).

    In the rows, such results are replaced by their ids. Raises WorkbookError for a result without an id.
    """
    corpus: dict[str, str] = {}
    rows: list[tuple[int, dict[str, Any]]] = []
    for number, row in read_jsonl(path):
        ids: list[Any] = []
        cell = row.get(columns.get("results"))
        for hit in cell if isinstance(cell, list) else []:
            if isinstance(hit, dict):
                key = next((hit[n] for n in _ID if n in hit), None)
                if key is None:
                    raise WorkbookError(
                        f"{path}, line {number}: a result has no id: give each {', '.join(_ID[:2])} or an id alone."
                    )
                corpus.setdefault(str(key), str(next((hit[n] for n in _TEXT if hit.get(n)), "")).strip())
                ids.append(str(key))
            else:
                ids.append(hit)
        rows.append((number, row | ({columns["results"]: ids} if isinstance(cell, list) else {})))
    return rows, {doc: text for doc, text in corpus.items() if text}


def _read_log(path: Path, columns: Mapping[str, str], folder: Path) -> tuple[SearchLog, dict[str, str]]:
    """(the log, {doc_id: text} of the passages that came with it).

    The log is kept redacted in a table under ``folder``; nothing else of it is written to disk.
    """
    (folder / "log.jsonl").unlink(missing_ok=True)  # an unredacted copy that earlier versions left there
    log = SearchLog(folder / f"log-{fingerprint(path.read_bytes())}")
    if kind_of(path) == ".jsonl":
        rows, corpus = _with_ids(path, columns)
        read = lambda names: import_rows(rows, path, log, names)  # noqa: E731
    else:
        corpus, read = {}, lambda names: import_log(path, log, names)
    try:
        read(columns)
    except WorkbookError:  # an optional column of another form, "Nov 2, 2026" for a time, stops no log
        read({name: columns[name] for name in columns if name in ("query", "results", "clicked", "cited")})
    return log, corpus


@dataclass
class LogLabels:
    """What a search log says about relevance.

    queries : {query_id: text};  labels : {query_id: {doc_id: grade}}, for queries that have some
    clicked : queries whose labels are clicks alone;  corrected : whether position bias was taken out of the clicks
    """

    queries: dict[str, str]
    labels: dict[str, dict[str, int]]
    clicked: set[str]
    corrected: bool


def _click_rates(searches: pd.DataFrame, events: pd.DataFrame) -> tuple[pd.DataFrame, bool]:
    """(click rates, whether they were corrected for position bias).

    They are corrected where enough searches were shown in random order, and else raw.
    """
    shuffled = searches["system"].astype(str).str.endswith(SHUFFLED)
    depth = int(searches["doc_ids"][shuffled].map(len).mode().max()) if shuffled.any() else 0
    if depth:
        try:
            return inverse_propensity(searches, events, estimate_examination(searches, events, depth)), True
        except WorkbookError:  # too few of them
            pass
    return click_rates(searches, events), False


def log_labels(log: SearchLog) -> LogLabels:
    """Relevance labels from a log: grade 2 for what an answer cited or a person copied, grade 1 for what was clicked.

    A click counts for a passage that was clicked in at least 0.3 of the searches that showed it. Clicks depend on the
    rank at which a passage stood. Where the log has searches in random order, their rates are corrected for that as in
    notebook 04; else they are raw, and favour the system that was logged.
    """
    searches, events = log.searches(), log.events()
    texts = {query: f"log-{fingerprint(normalise(query))[:12]}" for query in searches["query"]}
    labels: dict[str, dict[str, int]] = {}
    used: set[str] = set()
    corrected = False
    if len(events):
        rates, corrected = _click_rates(searches, events)
        for query, docs in labels_from_clicks(rates, least=0.3, strong=math.inf, min_impressions=1).items():
            labels.setdefault(texts[query], {}).update(docs)
        of_search = dict(zip(searches["search_id"], searches["query"], strict=True))
        # of some searches only what was clicked was logged, not what was shown
        bare = set(searches["search_id"][searches["doc_ids"].map(len) == 0])
        known = events[events["search_id"].isin(of_search) & events["doc_id"].notna()]
        for search, kind, doc in zip(known["search_id"], known["kind"], known["doc_id"], strict=True):
            query = texts[of_search[search]]
            if kind in ("cited", "copied"):
                labels.setdefault(query, {})[doc] = 2
                used.add(query)
            elif kind == "clicked" and search in bare:
                labels.setdefault(query, {}).setdefault(doc, 1)
    return LogLabels({key: query for query, key in texts.items()}, labels, set(labels) - used, corrected)


def _with_log(collection: Collection, log: SearchLog, path: Path) -> Collection:
    """The collection with the log's queries and labels; what was judged in the collection stays as it is.

    The labels go into the train split, or are divided into splits where the collection has none; those on passages that
    it does not have are left out. Raises WorkbookError when these are more than ``MOST_LABELS_LOST`` of all.
    """
    from_log = log_labels(log)
    queries, labels = from_log.queries, from_log.labels
    judged = {q for part in collection.qrels.values() for q in part}
    known = {normalise(collection.queries[q]) for q in judged}
    # queries of the collection that are not judged yet
    ids = {normalise(text): q for q, text in collection.queries.items() if q not in judged}
    named = {q: ids.get(normalise(text), q) for q, text in queries.items() if normalise(text) not in known}
    queries = {named[q]: text for q, text in queries.items() if q in named}
    pairs = [(named[q], d, g) for q, docs in labels.items() if q in named for d, g in docs.items()]
    kept: dict[str, dict[str, int]] = {}
    for q, d, g in pairs:
        if d in collection.corpus:
            kept.setdefault(q, {})[d] = g
    lost = len(pairs) - sum(map(len, kept.values()))
    notices = [
        *collection.notices,
        f"The log {path.name}: {len(queries):,} queries, {len(kept):,} with a click or a citation to learn from.",
    ]
    if pairs and lost > MOST_LABELS_LOST * len(pairs):
        raise WorkbookError(
            f"{path}: {lost} of {len(pairs)} clicked or cited ids are not in {collection.name} "
            f"(the first: {pairs[0][1]!r}): open the collection that was searched, with the ids of the log."
        )
    if lost:
        notices.append(f"{lost} clicked or cited passages of the log are not in the collection and were left out.")
    clicked = frozenset(named[q] for q in from_log.clicked if q in named) & set(kept)
    if clicked and not from_log.corrected:
        notices.append(
            f"The labels of {len(clicked):,} queries are clicks, and no search was shown in random order, "
            "so they could not be corrected for the rank at which a passage stood (notebook 04)."
        )
    if collection.qrels:
        qrels = dict(collection.qrels)
        qrels["train"] = {**qrels.get("train", {}), **kept}
        qrels = carve_splits({split: part for split, part in qrels.items() if part}, notices)
    else:
        qrels = carve_splits({"all": kept}, notices) if kept else {}
        if kept:
            notices.append(
                "Its labels are clicks and citations, which favour the system that was logged: "
                "read the scores with that in mind."
            )
    qrels = {split: part for split, part in qrels.items() if part}
    clicked |= collection.clicked
    return replace(collection, queries=collection.queries | queries, qrels=qrels, clicked=clicked, notices=notices)


def _existing(given: str | Path) -> Path:
    """The path as it is given or, where nothing is there, seen from the workbook's folder.

    Notebooks run in the folder ``notebooks`` below it.
    """
    path = Path(given).expanduser()
    return path if path.exists() or not (ROOT / path).exists() else ROOT / path


def open_own(
    name_or_path: str | Path | None = None, log: str | Path | None = None
) -> tuple[Collection, SearchLog | None]:
    """(collection, search log or None), opened from paths; by default those in COLLECTION and LOG.

    ``name_or_path`` is what ``open_collection`` opens, or a search log. A log is a .jsonl or .csv file with one query a
    row and the ids that were shown, clicked or cited (``COLUMNS`` has the names that are understood). Its passages come
    with it (results as objects with id and text) or from corpus.jsonl beside it, or are those of the collection that
    ``log`` is given with.

    Raises WorkbookError, in one sentence, when there are no passages or ``log`` is no search log.
    """
    name_or_path, log = name_or_path or os.environ.get("COLLECTION"), log or os.environ.get("LOG")
    path = _existing(name_or_path) if name_or_path else None
    columns = log_columns(path) if path is not None else None
    if path is not None and columns:
        name = own_name(path)
        opened, corpus = _read_log(path, columns, build_dir(name) / "homework")
        beside = find(path.parent, "corpus.jsonl")
        if beside is not None:
            corpus = read_texts(beside)[0] | corpus
        corpus = {doc: text for doc, text in corpus.items() if text}
        if not corpus:
            raise WorkbookError(
                f"{path} is a search log without the passages' texts: put corpus.jsonl beside it, or run "
                f"make homework COLLECTION=<the documents> LOG={path.name}."
            )
        return _with_log(Collection(name, corpus), opened, path), opened
    collection = open_collection(name_or_path)
    if not log:
        return collection, None
    log = _existing(log)
    columns = log_columns(log)
    if not columns:
        raise WorkbookError(
            f"{log} is not a search log: it needs a file .jsonl or .csv "
            "with the columns query and results, clicked or cited."
        )
    opened, _ = _read_log(log, columns, collection.build / "homework")
    return _with_log(collection, opened, log), opened


@dataclass(frozen=True)
class Data:
    """What a person has: a collection, perhaps a search log, and grades that were put into to_judge.csv.

    log : None where there is none
    graded : number of grades that were new in to_judge.csv; they are in reviews.jsonl now
    """

    collection: Collection
    log: SearchLog | None = None
    graded: int = 0

    @property
    def folder(self) -> Path:
        """Where the homework keeps what it has made of the collection."""
        return self.collection.build / "homework"


def open_data(name_or_path: str | Path | None, log: str | Path | None, say: Callable[[str], None]) -> Data:
    """Open the collection and the log as ``open_own`` does, and take over the grades of to_judge.csv.

    Raises WorkbookError, in one sentence, when something is wrong with one of the three.
    """
    collection, searches = open_own(name_or_path, log)
    say(str(collection))
    data = Data(collection, searches)
    return replace(data, graded=read_judged(collection, data.folder / "to_judge.csv"))

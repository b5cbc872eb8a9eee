"""Card transactions and the categories of a policy: read, checked, split by merchant, and turned into a collection."""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from pydantic import BaseModel

from helpers.collection.collection import Collection, open_collection, own_name
from helpers.collection.readers import read_frame
from helpers.store.files import DATA, ROOT, WorkbookError
from helpers.store.rows import Text, kind_of, read_rows

TEXT, LABEL, GROUP = (
    ("text", "description", "descriptor", "memo"),
    ("label", "category", "class"),
    ("merchant", "group"),
)
NEW = ("insurance", "sponsorship", "wellbeing", "outside-testing")  # categories that training never sees
SHOWN = ("descriptor", "amount", "currency", "department", "place", "memo")  # what the encoder reads, in this order
SHARES = (0.55, 0.70)  # below the first: train; below the second: dev; else test


@dataclass(frozen=True)
class Transactions:
    """Labelled texts: {id: text}, {id: label}, {id: group}; no group is in two splits.

    descriptions : {label: what the policy says of it}; the label itself if it says nothing
    new : labels that only test has
    rule : ids that a later rule takes out of their category
    """

    name: str
    texts: dict[str, str]
    labels: dict[str, str]
    groups: dict[str, str]
    descriptions: dict[str, str]
    splits: dict[str, list[str]]
    new: tuple[str, ...] = ()
    rule: frozenset[str] = frozenset()
    notices: list[str] = field(default_factory=list)

    def ids(self, split: str, new: bool = False) -> list[str]:
        """The ids of a split whose label training knows; with ``new`` those whose label it does not."""
        return [i for i in self.splits[split] if (self.labels[i] in self.new) == new]

    def of(self, ids: list[str]) -> tuple[list[str], list[str]]:
        """(texts, labels) in the order of the ids."""
        return [self.texts[i] for i in ids], [self.labels[i] for i in ids]

    def collection(self) -> Collection:
        """The transactions as queries, the categories' descriptions as passages, and one relevant passage per query.

        New categories are in test alone.
        """
        qrels = {s: {i: {self.labels[i]: 1} for i in self.ids(s)} for s in self.splits}
        qrels["test"] |= {i: {self.labels[i]: 1} for i in self.ids("test", new=True)}
        return Collection(self.name, dict(self.descriptions), dict(self.texts), qrels)


def bucket(group: str, seed: int = 0) -> float:
    """A number in [0, 1) that depends on the group's name alone."""
    return int.from_bytes(hashlib.sha256(f"{seed} {group}".encode()).digest()[:8], "big") / 2**64


def split_by_group(groups: Mapping[str, str], new: frozenset[str] = frozenset()) -> dict[str, list[str]]:
    """{"train", "dev", "test": ids}: all rows of a group are in one split; 55 / 15 / 30 % of the groups.

    Ids in ``new`` are in test or, if their group is in another split, left out.
    """
    splits: dict[str, list[str]] = {"train": [], "dev": [], "test": []}
    for i in sorted(groups):
        share = bucket(groups[i])
        chosen = "train" if share < SHARES[0] else "dev" if share < SHARES[1] else "test"
        if i in new and chosen != "test":
            continue  # its merchant's other rows are trained on; a new category is measured on unseen merchants alone
        splits[chosen].append(i)
    return splits


def open_transactions(path: str | Path | None = None) -> Transactions:
    """The course's transactions, or your own table or collection, named by ``path`` or the setting ``TRANSACTIONS``.

    A table is a csv or tsv file with the columns ``text`` and ``label`` (or category, class); a ``merchant`` or
    ``group`` column keeps what belongs together in one split. A collection consists of BEIR files whose judgments link
    each query to one passage, its label.

    Raises WorkbookError for a missing column, a single class, a class with one row, an empty text or label.
    """
    chosen = path or os.environ.get("TRANSACTIONS")
    if not chosen:
        return _course()
    file = Path(chosen).expanduser()
    # a notebook runs in notebooks/, but a relative path is meant from the workbook's folder
    file = file if file.exists() else ROOT / file
    return _from_table(file) if file.is_file() else _from_collection(open_collection(str(chosen)))


class _Line(BaseModel):
    """A card transaction of the course; ``trade_show`` is yes where a later rule takes it out of its category."""

    id: Text
    merchant: Text
    descriptor: Text
    amount: Text
    currency: Text
    department: str = ""
    place: str = ""
    memo: str = ""
    category: Text
    trade_show: str = ""


class _Category(BaseModel):
    """A category of the course's policy, and what the policy says of it."""

    category: Text
    name: Text
    description: Text


def _course() -> Transactions:
    folder = DATA / "transactions"
    rows = read_rows(folder / "transactions.csv", _Line, unique="id").values()
    policy = read_rows(folder / "categories.csv", _Category, unique="category").values()
    texts = {row.id: " | ".join(filter(None, (getattr(row, c) for c in SHOWN))) for row in rows}
    labels, groups = {row.id: row.category for row in rows}, {row.id: row.merchant for row in rows}
    descriptions = {row.category: f"{row.name}. {row.description}" for row in policy}
    new = frozenset(i for i, label in labels.items() if label in NEW)
    rule = frozenset(row.id for row in rows if row.trade_show == "yes")
    return Transactions("transactions", texts, labels, groups, descriptions, split_by_group(groups, new), NEW, rule)


def _column(frame: pd.DataFrame, names: tuple[str, ...]) -> str | None:
    by_lower = {str(c).lower(): c for c in frame.columns}
    return next((by_lower[n] for n in names if n in by_lower), None)


def _from_table(path: Path) -> Transactions:
    if kind_of(path) not in (".csv", ".tsv"):
        raise WorkbookError(f"{path} is neither csv nor tsv: save the table as a csv with a text and a label column.")
    frame = read_frame(path)
    text, label = _column(frame, TEXT), _column(frame, LABEL)
    for column, what, names in ((text, "text", TEXT), (label, "label", LABEL)):
        if column is None:
            raise WorkbookError(
                f"{path}: there is no {what} column "
                f"(expected {' or '.join(names)}, found {', '.join(map(str, frame.columns))}): rename one."
            )
    group = _column(frame, GROUP) or text
    for column in (text, label):
        empty = frame.index[frame[column].str.strip() == ""]
        if len(empty):
            raise WorkbookError(f"{path}, row {empty[0] + 1}: {column} is empty: fill it in or drop the row.")
    ids = [f"r{i + 1:0{len(str(len(frame)))}d}" for i in range(len(frame))]
    texts, labels = dict(zip(ids, frame[text], strict=True)), dict(zip(ids, frame[label].str.strip(), strict=True))
    named = [g if g.strip() else t for g, t in zip(frame[group], frame[text], strict=True)]
    groups = {i: re.sub(r"\W+", " ", g).strip().lower() for i, g in zip(ids, named, strict=True)}
    return checked(own_name(path), str(path), texts, labels, groups, {c: c for c in sorted(set(labels.values()))})


def _from_collection(collection: Collection) -> Transactions:
    judged: dict[str, list[str]] = {}
    for qrels in collection.qrels.values():
        for q, docs in qrels.items():
            judged[q] = sorted({*judged.get(q, []), *(d for d, grade in docs.items() if grade > 0)})
    if not judged or any(len(docs) != 1 for docs in judged.values()):
        raise WorkbookError(
            f"The collection {collection.name} does not link every query to one passage, its label: "
            "give a table with a text and a label column."
        )
    texts = {q: collection.queries[q] for q in sorted(judged)}
    labels = {q: judged[q][0] for q in texts}
    return checked(
        collection.name, collection.name, texts, labels, {q: t.lower() for q, t in texts.items()}, collection.corpus
    )


def checked(
    name: str,
    where: str,
    texts: dict[str, str],
    labels: dict[str, str],
    groups: dict[str, str],
    descriptions: dict[str, str],
) -> Transactions:
    """Your own rows, split by group. Raises WorkbookError when there are too few rows or labels to tell apart."""
    counts = pd.Series(labels).value_counts()
    if len(counts) < 2:
        raise WorkbookError(
            f"{where}: all rows have the label {counts.index[0]!r}: two or more are needed to tell apart."
        )
    if (counts < 2).any():
        lonely = sorted(counts.index[counts < 2])[0]
        raise WorkbookError(f"{where}: the label {lonely!r} has one row: give it more rows or drop it.")
    splits = split_by_group(groups)
    trained = {labels[i] for i in splits["train"]}
    unseen = sorted(set(labels.values()) - trained)
    splits = {s: [i for i in ids if labels[i] in trained] for s, ids in splits.items()}
    if min(map(len, splits.values())) == 0 or len(trained) < 2:
        raise WorkbookError(f"{where}: {len(texts)} rows are too few to split into train, dev and test: add rows.")
    notices = [f"Left out, for no row of theirs fell into train: {', '.join(unseen)}."] if unseen else []
    return Transactions(name, texts, labels, groups, dict(descriptions), splits, notices=notices)

"""to_judge.csv: pairs of a query and a passage that a person grades, and that the next run reads."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from helpers.collection.collection import Collection
from helpers.collection.readers import read_text
from helpers.labels.review import Reviews
from helpers.retrieval.first_stages import Run
from helpers.store.files import WorkbookError, write_text

MOST_TO_JUDGE = 50  # queries
SHOWN = 2000  # characters of a passage that a person sees; a cell of a spreadsheet has its limits
JUDGE_COLUMNS = ("query", "doc", "text", "grade")


def write_to_judge(collection: Collection, file: Path, queries: Mapping[str, str], run: Run) -> int:
    """Write a csv of pairs for a person to judge; returns the number of queries in it.

    Its columns are query, doc, the beginning of the passage's text, and an empty grade. The next run reads the grades
    0, 1 or 2 that were put in (``read_judged``). A file that has grades is left as it is, and 0 is returned.
    """
    if file.is_file() and any(row["grade"].strip() for row in _rows(file)):
        return 0
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(JUDGE_COLUMNS)
    for q, docs in run.items():
        for doc in docs:
            writer.writerow([queries[q], doc, collection.corpus[doc][:SHOWN], ""])
    write_text(file, table.getvalue())
    return len(run)


def _rows(file: Path) -> list[dict[str, str]]:
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(file), newline="")))
    except csv.Error as error:
        raise WorkbookError(f"{file} is no csv any more ({error}): remove it, and it is written anew.") from error
    if any(set(JUDGE_COLUMNS) - set(row) or None in row.values() for row in rows):
        raise WorkbookError(
            f"{file} needs the columns {', '.join(JUDGE_COLUMNS)}: restore its first line, or remove the file."
        )
    return rows


def read_judged(collection: Collection, file: Path) -> int:
    """Copy the grades that a person has put into the csv to ``reviews.jsonl``; returns the number of new ones.

    Raises WorkbookError for a grade other than 0, 1 or 2, and for a passage that the collection does not have.
    """
    if not file.is_file():
        return 0
    reviews = Reviews(collection.build / "reviews.jsonl")
    known = {(row.query, row.doc): row.grade for row in reviews.read().itertuples()}
    new = 0
    for number, row in enumerate(_rows(file), 2):
        grade = row["grade"].strip()
        if not grade:
            continue
        if grade not in ("0", "1", "2"):
            raise WorkbookError(f"{file}, row {number}: {grade!r} is no grade: write 0, 1 or 2, or leave it empty.")
        if row["doc"] not in collection.corpus:
            raise WorkbookError(
                f"{file}, row {number}: the collection has no passage {row['doc']!r}: "
                "a spreadsheet may have changed the ids; keep them as text."
            )
        if known.get((row["query"], row["doc"])) != int(grade):
            new += 1
            if int(grade):
                reviews.accept(row["query"], row["doc"], grade=int(grade))
            else:
                reviews.reject(row["query"], row["doc"])
    return new

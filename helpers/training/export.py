"""Triplets as datasets for sentence-transformers' losses, and as files: parquet and Cohere's archived format."""

import json
import os
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset

from helpers.collection.text import normalise
from helpers.store.files import WorkbookError, write_text
from helpers.store.rows import Text, parse_row, read_rows
from helpers.training.examples import Example, Row, TrainingRow, group_by_query
from helpers.training.triplets import Triplet

FORMS = ("pairs", "triplets", "tuples", "labelled pairs", "labelled lists")
COHERE_QUERIES = 256  # fewer unique queries were refused
COHERE_NEGATIVES = 5  # hard negatives a query that Cohere advised
_TEXT, _TEXTS = pa.string(), pa.list_(pa.string())
_PARQUET = pa.schema(
    {
        "query_id": _TEXT,
        "query": _TEXT,
        "positive_id": _TEXT,
        "positive": _TEXT,
        "negative_ids": _TEXTS,
        "negatives": _TEXTS,
    }
)


class CohereRow(TrainingRow):
    """A line of Cohere's format: an ``Example`` under other names."""

    query: Text
    relevant_passages: list[Text]
    hard_negatives: list[Text]


def _text(corpus: Mapping[str, str], doc: str) -> str:
    if doc not in corpus:
        raise WorkbookError(
            f"The corpus has no passage {doc!r}: export with the corpus that the triplets were built from."
        )
    return corpus[doc]


def to_examples(triplets: Sequence[Triplet], corpus: Mapping[str, str]) -> list[Row]:
    """One row of the schema "examples" for each query text, with all its positives and negatives.

    Raises WorkbookError when a passage is a positive of one triplet and a negative of another with the same query.
    """
    judgments = []
    for t in triplets:
        judgments.append((t.query, _text(corpus, t.positive_id), True))
        judgments += [(t.query, _text(corpus, doc), False) for doc in t.negative_ids]
    return group_by_query(judgments)


def to_dataset(triplets: Sequence[Triplet], corpus: Mapping[str, str], form: str) -> Dataset:
    """The triplets as a ``datasets.Dataset`` with the columns, in the order, that a family of losses expects.

    ================  ============================================  ========================================
    form              columns                                       losses
    ================  ============================================  ========================================
    "pairs"           anchor, positive                              MultipleNegativesRanking
    "triplets"        anchor, positive, negative: a row a negative  MultipleNegativesRanking, Triplet
    "tuples"          anchor, positive, negative_1 … negative_n     MultipleNegativesRanking
    "labelled pairs"  sentence1, sentence2, label (1.0 or 0.0)      CoSENT, Contrastive, BinaryCrossEntropy
    "labelled lists"  query, docs, labels: a row a query            LambdaLoss, ListNet
    ================  ============================================  ========================================

    n is the largest number of negatives of any triplet. Some rows are left out, so compare the numbers of rows: from
    "triplets" a triplet without negatives, from "tuples" one with fewer than n, from "labelled lists" a query without
    negatives. Raises WorkbookError when no row is left.
    """
    if form.startswith("labelled"):
        columns = _labelled(to_examples(triplets, corpus), form)
    else:
        columns = _unlabelled(triplets, corpus, form)
    dataset = Dataset.from_dict(columns)
    if not len(dataset):
        raise WorkbookError(f"No triplet {'has a negative' if triplets else 'was given'}: {form} would be empty.")
    return dataset


def _unlabelled(triplets: Sequence[Triplet], corpus: Mapping[str, str], form: str) -> dict[str, list]:
    n = max((len(t.negative_ids) for t in triplets), default=0)
    if form == "pairs":
        rows = [(t, ()) for t in triplets]
    elif form == "triplets":
        rows = [(t, (doc,)) for t in triplets for doc in t.negative_ids]
    else:
        rows = [(t, t.negative_ids) for t in triplets if n and len(t.negative_ids) == n]
    columns = {"anchor": [t.query for t, _ in rows], "positive": [_text(corpus, t.positive_id) for t, _ in rows]}
    names = {"pairs": [], "triplets": ["negative"], "tuples": [f"negative_{i}" for i in range(1, n + 1)]}[form]
    return columns | {name: [_text(corpus, docs[i]) for _, docs in rows] for i, name in enumerate(names)}


def _labelled(examples: Sequence[Row], form: str) -> dict[str, list]:
    lists = [(row["question"], row["positive_examples"], row["negative_examples"]) for row in examples]
    if form == "labelled lists":
        lists = [row for row in lists if row[2]]
        return {
            "query": [query for query, _, _ in lists],
            "docs": [good + bad for _, good, bad in lists],
            "labels": [[1.0] * len(good) + [0.0] * len(bad) for _, good, bad in lists],
        }
    pairs = [(q, d, label) for q, good, bad in lists for docs, label in ((good, 1.0), (bad, 0.0)) for d in docs]
    return {name: [pair[i] for pair in pairs] for i, name in enumerate(("sentence1", "sentence2", "label"))}


def _make_folder(path: Path) -> None:
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkbookError(f"Cannot create the folder of {path} ({error.strerror}): name another file.") from error


def write_parquet(triplets: Sequence[Triplet], corpus: Mapping[str, str], path: Path) -> None:
    """Write the triplets into a parquet file, one row a triplet; it is written completely or not at all.

    Columns: query_id, query, positive_id, positive, and the lists negative_ids and negatives.
    """
    rows = [
        {
            "query_id": t.query_id,
            "query": t.query,
            "positive_id": t.positive_id,
            "positive": _text(corpus, t.positive_id),
            "negative_ids": t.negative_ids,
            "negatives": [_text(corpus, d) for d in t.negative_ids],
        }
        for t in triplets
    ]
    _make_folder(path)
    part = Path(path).with_name(f"{Path(path).name}.{os.getpid()}.part")
    try:
        pq.write_table(pa.Table.from_pylist(rows, schema=_PARQUET), part)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise WorkbookError(f"Cannot write {path} ({error}): free some space or name another file.") from error


def read_parquet(path: Path) -> tuple[list[Triplet], dict[str, str]]:
    """The triplets of a ``write_parquet`` file and the texts of their passages, {doc_id: text}."""
    try:
        table = pq.read_table(BytesIO(Path(path).read_bytes()))
        missing = [name for name in _PARQUET.names if name not in table.column_names]
        if missing:
            raise WorkbookError(
                f"{path}: missing columns {', '.join(missing)} (found {', '.join(table.column_names)})."
            )
        rows = table.select(_PARQUET.names).cast(_PARQUET).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise WorkbookError(
            f"{path} is not a parquet file of triplets ({error}): write it with write_parquet."
        ) from error
    triplets, corpus = [], {}
    for number, row in enumerate(rows, 1):
        ids, texts = row["negative_ids"], row["negatives"]
        if None in row.values() or None in [*ids, *texts] or len(ids) != len(texts):
            raise WorkbookError(
                f"{path}, row {number}: a value is missing: every id needs its text and every text its id."
            )
        for doc, text in zip((row["positive_id"], *ids), (row["positive"], *texts), strict=True):
            if corpus.setdefault(doc, text) != text:
                raise WorkbookError(f"{path}, row {number}: the passage {doc!r} has another text than further up.")
        triplets.append(Triplet(row["query_id"], row["query"], row["positive_id"], tuple(ids)))
    return triplets, corpus


def write_cohere(triplets: Sequence[Triplet], corpus: Mapping[str, str], path: Path) -> list[str]:
    """Write Cohere's reranker fine-tuning file: JSON lines {"query", "relevant_passages": […], "hard_negatives": […]}.

    Cohere retired fine-tuning on 15 September 2025: the file is for an archive, or for a trainer that reads this
    format. Triplets of one query become one line. Returns notices about advice that is not followed. Raises
    WorkbookError when a rule of the format is broken: at least 256 unique queries, no passage in both lists.
    """
    rows = to_examples(triplets, corpus)
    if len(rows) < COHERE_QUERIES:
        raise WorkbookError(
            f"The format asks for at least {COHERE_QUERIES} unique queries, and there are {len(rows)}: collect more."
        )
    for number, row in enumerate(rows, 1):
        parse_row(row, Example, f"Query {number}")
    names = CohereRow.model_fields
    lines = [json.dumps(dict(zip(names, row.values(), strict=True)), ensure_ascii=False) + "\n" for row in rows]
    _make_folder(path)
    write_text(Path(path), "".join(lines))
    few = sum(len(row["negative_examples"]) < COHERE_NEGATIVES for row in rows)
    advice = f"{few} of {len(rows)} queries have fewer than the {COHERE_NEGATIVES} hard negatives that Cohere advised."
    return [advice] if few else []


def read_cohere(path: Path) -> list[Row]:
    """Read a file of ``write_cohere`` as rows of the schema "examples"; unlike for writing, one query is enough.

    Raises WorkbookError that names the first line that breaks a rule of the format.
    """
    lines: dict[str, int] = {}
    rows = []
    for number, row in read_rows(Path(path), CohereRow).items():
        earlier = lines.setdefault(normalise(row.query), number)
        if earlier != number:
            raise WorkbookError(f"{path}, line {number}: the query of line {earlier} again: merge their passages.")
        rows.append(dict(zip(Example.model_fields, (value for _, value in row), strict=True)))
    if not rows:
        raise WorkbookError(
            f"{path} is empty: it needs one JSON object a line with {', '.join(CohereRow.model_fields)}."
        )
    return rows

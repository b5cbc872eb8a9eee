"""Read collections from disk: a BEIR folder, a folder of documents, or one table; errors name the file and line."""

from io import BytesIO, StringIO
from pathlib import Path

import pandas as pd

from helpers.store.files import WorkbookError
from helpers.store.rows import kind_of, read_bytes, read_jsonl, read_text

DOCUMENT_TYPES = (".md", ".txt", ".rst", ".html", ".htm", ".pdf")
TABLE_TYPES = (".csv", ".tsv", ".jsonl", ".parquet")
TEXT_COLUMNS = ("text", "passage", "content", "body", "document", "chunk", "contents", "abstract", "description")
ID_COLUMNS = ("_id", "id", "doc_id", "docid", "corpus-id", "passage_id", "pid")
Qrels = dict[str, dict[str, int]]


def find(folder: Path, name: str) -> Path | None:
    """``folder/name`` or ``folder/name.gz``, whichever is there."""
    return next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def read_texts(path: Path) -> tuple[dict[str, str], dict[str, dict]]:
    """{id: text} and {id: metadata} of a BEIR jsonl file; a title is put before its text."""
    texts: dict[str, str] = {}
    metadata: dict[str, dict] = {}
    for number, row in read_jsonl(path):
        if "_id" not in row or "text" not in row:
            raise WorkbookError(
                f"{path}, line {number}: missing column {'_id' if '_id' not in row else 'text'!r} "
                f"(expected _id and text, found {', '.join(map(str, row)) or 'nothing'})."
            )
        key = str(row["_id"])
        if key in texts:
            raise WorkbookError(f"{path}, line {number}: the id {key!r} stands there twice: give every row its own id.")
        texts[key] = " ".join(p for p in (str(row.get("title") or "").strip(), str(row["text"] or "").strip()) if p)
        metadata[key] = row.get("metadata") or {}
    if not texts:
        raise WorkbookError(f"{path} is empty: it needs one JSON object a line with _id and text.")
    return texts, metadata


def read_qrels(path: Path, queries: dict[str, str], corpus: dict[str, str]) -> Qrels:
    """{query_id: {doc_id: grade}} of a file with query-id, corpus-id and score between tabs; more columns are ignored.

    Raises WorkbookError for unknown ids, for grades that are not whole numbers, and if no grade is above 0.
    """
    qrels: Qrels = {}
    for number, line in enumerate(read_text(path).split("\n"), 1):
        row = line.rstrip("\r").split("\t")
        if not line.strip() or (number == 1 and row[0].lower().replace("_", "-") in ("query-id", "qid", "query")):
            continue
        if len(row) < 3:
            raise WorkbookError(
                f"{path}, line {number}: expected query-id, corpus-id and score apart by tabs, found {row}."
            )
        query, doc, grade = (cell.strip() for cell in row[:3])
        for what, key, known in (("query", query, queries), ("document", doc, corpus)):
            if key not in known:
                raise WorkbookError(
                    f"{path}, line {number}: the {what} {key!r} is not in "
                    f"{'queries' if what == 'query' else 'corpus'}.jsonl: correct the id or remove the line."
                )
        try:
            qrels.setdefault(query, {})[doc] = int(grade)
        except ValueError:
            raise WorkbookError(
                f"{path}, line {number}: the grade {grade!r} is not a whole number such as 0, 1 or 2."
            ) from None
    if not any(grade > 0 for docs in qrels.values() for grade in docs.values()):
        raise WorkbookError(f"{path} names no relevant document: at least one line needs a grade of 1 or more.")
    return qrels


def read_beir(folder: Path) -> tuple[dict[str, str], dict[str, str], dict[str, Qrels], dict[str, dict]]:
    """Corpus, queries, qrels by file name, and query metadata of a BEIR folder; queries and qrels may be missing."""
    corpus_file, query_file = find(folder, "corpus.jsonl"), find(folder, "queries.jsonl")
    if corpus_file is None:
        raise WorkbookError(f"{folder} has no corpus.jsonl: a BEIR folder needs one, with _id and text on each line.")
    corpus, _ = read_texts(corpus_file)
    if query_file is None:
        return corpus, {}, {}, {}
    queries, metadata = read_texts(query_file)
    blank = next((q for q, text in queries.items() if not text), None)
    if blank is not None:
        raise WorkbookError(f"{query_file}: the text of query {blank!r} is empty: write it or remove the line.")
    found = (*folder.glob("qrels/*.tsv*"), *folder.glob("qrels.tsv*"))
    files = sorted(p for p in found if kind_of(p) == ".tsv" and not p.name.startswith("."))
    return corpus, queries, {p.name.split(".")[0]: read_qrels(p, queries, corpus) for p in files}, metadata


def read_document(path: Path) -> str:
    """The text of one document; HTML without tags, PDF page by page."""
    kind = kind_of(path)
    if kind in (".html", ".htm"):
        from bs4 import BeautifulSoup

        soup = BeautifulSoup(read_text(path), "html.parser")
        for element in soup(["script", "style", "nav", "footer"]):
            element.decompose()
        for level in range(1, 7):
            for heading in soup.find_all(f"h{level}"):
                heading.string = f"\n{'#' * level} {heading.get_text(' ', strip=True)}\n"
        return soup.get_text("\n").strip()
    if kind == ".pdf":
        from pypdf import PdfReader

        data = BytesIO(read_bytes(path))
        try:
            return "\n\n".join(page.extract_text() for page in PdfReader(data).pages).strip()
        except Exception as error:  # on a damaged or encrypted file pypdf raises more than its own errors
            raise WorkbookError(
                f"{path} is not a PDF that can be read ({_one_line(error)}): save it anew or take it out."
            ) from error
    return read_text(path).replace("\r\n", "\n").strip()


def read_documents(folder: Path, made: Path | None = None) -> dict[str, str]:
    """{path inside the folder: text} of all documents below it, in the order of their paths.

    Hidden documents are left out, and so are those in ``made``, the folder that the workbook writes to.
    """
    inside = sorted(p for p in folder.rglob("*") if p.is_file() and kind_of(p) in DOCUMENT_TYPES)
    if made is not None and not folder.resolve().is_relative_to(made):
        inside = [p for p in inside if not p.resolve().is_relative_to(made)]
    paths = [p for p in inside if not any(part.startswith(".") for part in p.relative_to(folder).parts)]
    if not paths:
        raise WorkbookError(
            f"{folder} holds neither a corpus.jsonl nor a document ({', '.join(DOCUMENT_TYPES)}): "
            "name another folder or file."
        )
    return {p.relative_to(folder).as_posix(): read_document(p) for p in paths}


def _obvious(columns: list[str], frame: pd.DataFrame, path: Path) -> str:
    by_lower = {str(c).lower(): c for c in columns}
    named = next((by_lower[name] for name in TEXT_COLUMNS if name in by_lower), None)
    if named is not None:
        return named
    texts = [c for c in columns if str(c).lower() not in ID_COLUMNS and pd.api.types.is_string_dtype(frame[c])]
    if len(texts) == 1:
        return texts[0]
    raise WorkbookError(
        f"{path}: no column is plainly the text (expected one of {', '.join(TEXT_COLUMNS[:5])} …, found "
        f"{', '.join(map(str, columns))}): name it with TEXT_COLUMN=… or open_collection(path, text=…)."
    )


def read_frame(path: Path) -> pd.DataFrame:
    """A csv, tsv, jsonl or parquet file as a table; raises WorkbookError if it cannot be read or has no rows."""
    kind = kind_of(path)
    try:
        if kind == ".jsonl":
            frame = pd.DataFrame([row for _, row in read_jsonl(path)])
        elif kind == ".parquet":
            frame = pd.read_parquet(BytesIO(read_bytes(path)))
        else:
            content = StringIO(read_text(path))
            frame = pd.read_csv(content, sep="\t" if kind == ".tsv" else ",", dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, OSError, ValueError) as error:
        raise WorkbookError(
            f"{path} is not a {kind[1:]} file that can be read ({_one_line(error)}): mend it or save it anew."
        ) from error
    if kind in (".csv", ".tsv") and not isinstance(frame.index, pd.RangeIndex):  # pandas made the surplus an index
        raise WorkbookError(
            f"{path}, line 2: more cells than the header has columns: quote texts that hold the separator."
        )
    if frame.empty:
        raise WorkbookError(f"{path} has no rows: it needs one passage a row.")
    return frame


def read_table(path: Path, text: str | None = None) -> dict[str, str]:
    """{id: text} of a csv, tsv, jsonl or parquet file; ids from an id column, else row numbers from 1."""
    frame = read_frame(path)
    columns = list(frame.columns)
    if text is not None and text not in columns:
        raise WorkbookError(
            f"{path}: missing column {text!r} (found {', '.join(map(str, columns))}): name one of these."
        )
    column = text or _obvious(columns, frame, path)
    id_column = next((c for c in columns if str(c).lower() in ID_COLUMNS), None)
    if id_column is not None and frame[id_column].isna().any():
        row = int(frame[id_column].isna().to_numpy().argmax()) + 1
        raise WorkbookError(f"{path}, row {row}: the id is missing: give every row its own {id_column}.")
    ids = [str(i) for i in (frame[id_column] if id_column is not None else range(1, len(frame) + 1))]
    seen: set[str] = set()
    for row, key in enumerate(ids, 1):
        if key in seen:
            raise WorkbookError(f"{path}, row {row}: the id {key!r} stands there twice: give every row its own id.")
        seen.add(key)
    for row, value in enumerate(frame[column], 1):
        if pd.api.types.is_list_like(value):
            raise WorkbookError(f"{path}, row {row}: {column} holds a list or an object: make it one text a row.")
    values = ("" if pd.isna(value) else str(value).strip() for value in frame[column])
    return dict(zip(ids, values, strict=True))

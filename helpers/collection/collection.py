"""A collection to search: passages, queries and relevance judgments, from whatever a person has."""

import importlib.metadata
import json
import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from helpers.collection import chunking, hub, pydocs, readers
from helpers.collection.sentences import sentence_splits
from helpers.store.files import DATA, ROOT, WorkbookError, build_dir, build_path, fingerprint, write_text

BUILT_IN = ("pydocs",)
SPLITS = ("train", "dev", "test")
_SAME = {"val": "dev", "valid": "dev", "validation": "dev", "all": "all", "qrels": "all"}
AUTHORS = "authors"  # the name of the test sentences among the splits
SHARE_DEV_FROM = 100  # dev queries from which on half of them may become a train split


@dataclass
class Collection:
    """Passages, queries and judgments on plain dicts.

    corpus : {doc_id: text};  queries : {query_id: text}
    qrels : {split: {query_id: {doc_id: grade}}}, grade 0 = not relevant, higher = more relevant
    pages : {document_id: whole text} where the passages are parts of longer documents, else {}
    query_info : {query_id: what is known of the query, such as kind or library}
    clicked : ids of the queries whose labels are clicks of a search log, not judgments
    notices : sentences about what was found and put right when the collection was opened
    sentences : {"train" or "test": (queries, qrels)} of what the passages' authors wrote over their examples; one known
        right passage each and nothing else judged
    """

    name: str
    corpus: dict[str, str]
    queries: dict[str, str] = field(default_factory=dict)
    qrels: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    pages: dict[str, str] = field(default_factory=dict)
    query_info: dict[str, dict] = field(default_factory=dict)
    clicked: frozenset[str] = frozenset()
    notices: list[str] = field(default_factory=list)
    sentences: dict[str, tuple[dict[str, str], dict[str, dict[str, int]]]] = field(default_factory=dict)

    @property
    def build(self) -> Path:
        """The folder for everything made from this collection."""
        return build_dir(self.name)

    @property
    def key(self) -> str:
        """A fingerprint of passages, queries and judgments: results of two keys must not be mixed."""
        slices = [self.query_info.get(q, {}).get("slice") for q in self.queries]
        return fingerprint(self.corpus, self.queries, self.qrels, self.sentences, slices)

    def split(self, name: str) -> tuple[dict[str, str], dict[str, dict[str, int]]]:
        """Queries and qrels of a split, of one slice of it ("test/typed"), or of the test sentences (``AUTHORS``).

        Raises WorkbookError when the collection has none of that name.
        """
        if name == AUTHORS and self.sentences:
            return self.sentences["test"]
        whole, _, part = name.partition("/")
        qrels = self.qrels.get(whole, {})
        if part:
            qrels = {q: docs for q, docs in qrels.items() if str(self.query_info.get(q, {}).get("slice")) == part}
        if not qrels:
            raise WorkbookError(
                f"The collection {self.name} has no {name} split (it has {', '.join(self.qrels) or 'none'})."
            )
        return {q: self.queries[q] for q in qrels}, qrels

    def slices(self, split: str) -> list[str]:
        """The slices of a split, as "test/typed", by what the queries' metadata say under "slice"; [] where it is one.

        Slices are kinds of query that are scored apart, since a system can gain on one and lose on the other. One
        without a relevant passage is left out.
        """
        qrels = self.qrels.get(split, {})
        answered = [q for q, docs in qrels.items() if any(grade > 0 for grade in docs.values())]
        named = {self.query_info.get(q, {}).get("slice") for q in answered}
        return sorted(f"{split}/{name}" for name in named) if len(named) > 1 and None not in named else []

    def kinds(self, split: str | None) -> list[str]:
        """The kinds of query that are scored apart: the slices of a split and, on the final one, the test sentences."""
        authors = [AUTHORS] if self.sentences and split == self.final_split else []
        return [*self.slices(split), *authors] if split else []

    def asked(self, split: str) -> dict[str, str]:
        """What a system is asked that is reported on a split: its queries and, on the final one, the test sentences."""
        return self.split(split)[0] | (self.split(AUTHORS)[0] if self.sentences and split == self.final_split else {})

    @property
    def final_split(self) -> str | None:
        """The split on which systems are reported: test; dev where there is no test; None where there is neither."""
        return next((split for split in ("test", "dev") if split in self.qrels), None)

    def groups(self) -> dict[str, str]:
        """{doc_id: group}: the module of an API passage, the folder or document of a document's passage, else "all".

        Groups spread a sample over the collection and count what is covered.
        """
        if self.name in BUILT_IN:
            return {doc: ".".join(doc.split(".")[:-1][:2]) for doc in self.corpus}
        if not self.pages:
            return dict.fromkeys(self.corpus, "all")
        documents = {doc: chunking.document_of(doc) for doc in self.corpus}
        folders = {doc: Path(document).parent.as_posix() for doc, document in documents.items()}
        folders = {doc: "(top folder)" if folder == "." else folder for doc, folder in folders.items()}
        return folders if len(set(folders.values())) > 1 else documents

    def __repr__(self) -> str:
        splits = ", ".join(f"{len(qrels)} {split}" for split, qrels in self.qrels.items())
        return (
            f"Collection({self.name}: {len(self.corpus):,} passages, "
            f"{len(self.queries):,} queries{f' ({splits})' if splits else ''})"
        )


def _bucket(query_id: str) -> float:
    """A number in [0, 1) that depends on the id alone, so that a query stays in its split when others come and go."""
    return int(fingerprint("split", query_id), 16) / 16**16


def carve_splits(
    qrels: dict[str, dict[str, dict[str, int]]], notices: list[str]
) -> dict[str, dict[str, dict[str, int]]]:
    """Make missing dev and train splits by a hash of the query id; a test split that came with the data is not touched.

    Adds a sentence about each split it makes to ``notices``. Splits without a relevant passage are dropped.
    """

    def cut(source: dict, *shares: float) -> list[dict]:
        bounds = [sum(shares[: i + 1]) for i in range(len(shares))]
        parts: list[dict] = [{} for _ in shares]
        for q, docs in source.items():
            parts[next((i for i, b in enumerate(bounds) if _bucket(q) < b), len(shares) - 1)][q] = docs
        return parts

    found = dict(qrels)
    if "all" in found:
        undivided = found.pop("all")
        known = {q for split in found.values() for q in split}
        shares = (0.8, 0.2) if "test" in found else (0.5, 0.2, 0.3)
        parts = cut({q: d for q, d in undivided.items() if q not in known}, *shares)
        carved = SPLITS[: len(shares)]
        found |= {split: part | found.get(split, {}) for split, part in zip(carved, parts, strict=True)}
        notices.append(f"The judgments came undivided: {', '.join(carved)} were carved by a hash of the query id.")
    if "train" in found and "test" not in found and "dev" not in found:
        found["train"], found["dev"], found["test"] = cut(found["train"], 0.6, 0.2, 0.2)
        notices.append("There was a train split only: dev and test were carved from it by a hash of the query id.")
    if "train" in found and "dev" not in found:
        found["train"], found["dev"] = cut(found["train"], 0.8, 0.2)
        notices.append("There was no dev split: a fifth of train was carved off by a hash of the query id.")
    if "dev" in found and "train" not in found and len(found["dev"]) >= SHARE_DEV_FROM:
        found["train"], found["dev"] = cut(found["dev"], 0.5, 0.5)
        notices.append("There was no train split: half of dev was carved off by a hash of the query id.")
    relevant = {s: q for s, q in found.items() if any(g > 0 for docs in q.values() for g in docs.values())}
    return {split: relevant[split] for split in SPLITS if split in relevant}


def _check_corpus(corpus: dict[str, str], qrels: dict, where: str, notices: list[str]) -> dict[str, str]:
    empty = {doc for doc, text in corpus.items() if not text.strip()}
    if empty:
        notices.append(f"{len(empty)} passages are empty and were left out (the first: {min(empty)!r}).")
        for docs in (docs for split in qrels.values() for docs in split.values()):
            for doc in empty & set(docs):
                del docs[doc]
    kept = {doc: text for doc, text in corpus.items() if doc not in empty}
    if not kept:
        raise WorkbookError(f"{where}: every passage is empty: check that the right column or folder was named.")
    twice = sum(count - 1 for count in Counter(kept.values()).values())
    if twice:
        notices.append(f"{twice} passages repeat the text of another one; a judgment of one says nothing of its twin.")
    return kept


def _open_pydocs() -> Collection:
    versions = {p: importlib.metadata.version(p) for p in ("numpy", "pandas", "scipy", "scikit-learn", "matplotlib")}
    key = fingerprint(versions, Path(pydocs.__file__).read_text(encoding="utf-8"))
    cached = build_dir("pydocs") / f"corpus_{key}.json"
    if not cached.is_file():
        write_text(cached, json.dumps(pydocs.read_pydocs(), ensure_ascii=False))
    passages, pages = json.loads(cached.read_text(encoding="utf-8"))
    folder = DATA / "pydocs"
    queries, info = readers.read_texts(folder / "queries.jsonl")
    qrels = {s: readers.read_qrels(folder / "qrels" / f"{s}.tsv", queries, passages) for s in ("dev", "test")}
    return Collection("pydocs", passages, queries, qrels, pages, info, sentences=sentence_splits(pages))


def own_name(path: Path) -> str:
    """The name of a user's own collection and of its build folder: the file's or folder's name and a hash of its path.

    With the hash, two folders of one name have separate build folders, and so does a file called pydocs.jsonl.
    """
    whole = path.resolve()
    stem = whole.name if whole.is_dir() else whole.name.split(".")[0]
    name = re.sub(r"[^\w.-]+", "-", stem).strip("-.") or "collection"
    return f"{name}-{fingerprint(str(whole))[:6]}"


def open_collection(name_or_path: str | Path | None = None, *, text: str | None = None) -> Collection:
    """Open a collection by its built-in name or from a path; by default ``$COLLECTION``, else ``pydocs``.

    A path is a BEIR folder (corpus.jsonl, and queries.jsonl and qrels/*.tsv where there are any), a folder of
    .md, .txt, .rst, .html or .pdf documents, or one .csv, .tsv, .jsonl or .parquet file with a text column
    (``text`` or ``$TEXT_COLUMN`` names it); .gz files too. Nothing is written there. ``hub:BeIR/scifact`` is a dataset
    of the Hugging Face hub in BEIR's layout, which is fetched once (``hub.fetch``).

    Raises WorkbookError, in one sentence with file and line, when something is wrong with it.
    """
    chosen = str(name_or_path or os.environ.get("COLLECTION") or "pydocs")
    if chosen in BUILT_IN:
        return _open_pydocs()
    if chosen.startswith(hub.PREFIX):
        path = hub.fetch(chosen.removeprefix(hub.PREFIX))
    else:
        path = next((p for p in (Path(chosen).expanduser(), ROOT / chosen) if p.exists()), None)
    if path is None:
        raise WorkbookError(
            f"There is no collection {chosen!r}: it is neither built in ({', '.join(BUILT_IN)}) "
            "nor a file or folder here: correct the path."
        )
    name = own_name(path)
    queries, qrels, info, pages, notices = {}, {}, {}, {}, []
    if path.is_file():
        if readers.kind_of(path) not in readers.TABLE_TYPES:
            raise WorkbookError(
                f"{path} is not a {', '.join(readers.TABLE_TYPES)} file: name one, or a folder of documents."
            )
        corpus = readers.read_table(path, text or os.environ.get("TEXT_COLUMN") or None)
    elif readers.find(path, "corpus.jsonl"):
        corpus, queries, qrels, info = readers.read_beir(path)
    else:
        built = build_path("").resolve()
        pages = readers.read_documents(path, build_path(name).resolve() if built == path.resolve() else built)
        corpus = chunking.chunk_documents(pages)
        blank = sum(not t for t in pages.values())
        if blank:
            notices.append(
                f"{blank} of {len(pages)} documents have no text (a scanned PDF has none) and were left out."
            )
    corpus = _check_corpus(corpus, qrels, str(path), notices)
    unknown = [s for s in qrels if _SAME.get(s, s) not in (*SPLITS, "all")]
    if unknown:
        raise WorkbookError(
            f"{path / 'qrels' / unknown[0]}.tsv is no split: "
            "name the files train.tsv, dev.tsv and test.tsv (any of them)."
        )
    times = Counter(_SAME.get(s, s) for s in qrels)
    rivals = [s for s in qrels if times[_SAME.get(s, s)] > 1]
    if rivals:
        raise WorkbookError(f"{path / 'qrels'} has {' and '.join(rivals)}, which mean the same split: keep one file.")
    qrels = carve_splits({_SAME.get(s, s): q for s, q in qrels.items()}, notices)
    return Collection(name, corpus, queries, qrels, pages, info, notices=notices)

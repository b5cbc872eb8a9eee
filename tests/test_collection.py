"""Collections from whatever a person has, and what is said when something is wrong with it."""

import gzip
import io
import itertools
import json
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from fakes import save_beir

from helpers.collection import collection as collections
from helpers.collection.chunking import document_of
from helpers.collection.collection import BUILT_IN, SHARE_DEV_FROM, Collection, carve_splits, open_collection, own_name
from helpers.homework.data import open_own
from helpers.labels.questions import shipped_questions
from helpers.store.files import WorkbookError, build_dir

HEADER = "query-id\tcorpus-id\tscore\n"
CORPUS = '{"_id": "d1", "text": "one"}\n{"_id": "d2", "text": "two"}\n'
QUERIES = '{"_id": "q1", "text": "what"}\n{"_id": "q2", "text": "why"}\n'
SPLIT_NAMES = ("train", "dev", "test")
SUBSETS = [names for size in (1, 2, 3) for names in itertools.combinations(SPLIT_NAMES, size)]


def write(folder: Path, files: dict[str, str | bytes]) -> Path:
    """Write files below a folder; names that end with .gz are compressed unless bytes are given."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content if isinstance(content, bytes) else content.encode()
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") and isinstance(content, str) else data)
    return folder


def beir(**changes: str | bytes) -> dict[str, str | bytes]:
    """The files of a small BEIR folder; a keyword replaces a file, or adds qrels of its name."""
    files = {"corpus.jsonl": CORPUS, "queries.jsonl": QUERIES}
    for name, content in changes.items():
        files[f"{name}.jsonl" if f"{name}.jsonl" in files else f"qrels/{name}.tsv"] = content
    return files


def pdf(text: str) -> bytes:
    """A PDF of one page, written by hand."""
    stream = f"BT /F1 24 Tf 72 720 Td ({text}) Tj ET".encode()
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(stream), stream),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    body, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        offsets.append(len(body))
        body += b"%d 0 obj%s endobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    end = b"trailer<</Size 6/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % len(body)
    return body + b"xref\n0 6\n0000000000 65535 f \n" + table + end


def parquet(columns: dict[str, list]) -> bytes:
    buffer = io.BytesIO()
    pd.DataFrame(columns).to_parquet(buffer)
    return buffer.getvalue()


def judged(start: int, stop: int) -> dict[str, dict[str, int]]:
    """Qrels of the queries q<start> … q<stop - 1>, one relevant document each."""
    return {f"q{n}": {"d1": 1, "d2": 0} for n in range(start, stop)}


def made(splits: dict[str, dict[str, dict[str, int]]]) -> Collection:
    """A collection with these judgments."""
    queries = {q: f"question {q}" for qrels in splits.values() for q in qrels}
    return Collection("made", {"d1": "one", "d2": "two"}, queries, splits)


def in_slices() -> Collection:
    kinds = {"q0": "typed", "q1": "described", "q2": "typed", "q3": "empty"}
    collection = made({"dev": judged(4, 6), "test": judged(0, 3) | {"q3": {"d1": 0}}})
    collection.query_info = {q: {"slice": name} for q, name in kinds.items()} | {q: {} for q in ("q4", "q5")}
    collection.sentences = {
        "train": ({"d2/0": "two of them"}, {"d2/0": {"d2": 1}}),
        "test": ({"d1/0": "one of them"}, {"d1/0": {"d1": 1}}),
    }
    return collection


def test_slices_are_named_by_the_metadata_and_have_something_relevant():
    assert in_slices().slices("test") == ["test/described", "test/typed"]
    assert in_slices().slices("dev") == in_slices().slices("train") == []


def test_a_slice_opens_like_a_split():
    queries, qrels = in_slices().split("test/typed")
    assert queries == {"q0": "question q0", "q2": "question q2"}
    assert qrels == {"q0": {"d1": 1, "d2": 0}, "q2": {"d1": 1, "d2": 0}}
    with pytest.raises(WorkbookError, match=r"made has no test/spoken split \(it has dev, test\)"):
        in_slices().split("test/spoken")


def test_the_authors_sentences_are_asked_with_the_final_split():
    collection = in_slices()
    assert collection.split("authors") == ({"d1/0": "one of them"}, {"d1/0": {"d1": 1}})
    assert set(collection.asked("test")) == {"q0", "q1", "q2", "q3", "d1/0"}
    assert set(collection.asked("dev")) == {"q4", "q5"}
    with pytest.raises(WorkbookError, match="has no authors split"):
        made({"test": judged(0, 3)}).split("authors")


def test_another_slice_or_sentence_is_another_collection():
    one, other, third = in_slices(), in_slices(), in_slices()
    other.query_info["q0"] = {"slice": "described"}
    third.sentences = {}
    assert len({one.key, other.key, third.key}) == 3


def state(folder: Path) -> dict[str, tuple]:
    """All that can change in a folder."""
    paths = [folder, *folder.rglob("*")]
    return {str(p): (p.stat().st_mtime_ns, p.read_bytes() if p.is_file() else None) for p in paths}


# BEIR folders


def test_a_saved_collection_opens_as_it_was(tmp_path):
    saved = Collection(
        "saved",
        corpus={
            "a/b.md#1": "line one\nline two",
            "ü-日本": 'quotes "…" and\ttabs',
            "3": "a\u2028b\x85c",
            "x y": "four",
        },
        queries={"1": "Größe?", "q/2": "two\nlines", "q3": "three", "q4": "four"},
        qrels={
            "train": {"1": {"a/b.md#1": 2, "ü-日本": 0}},
            "dev": {"q/2": {"ü-日本": 1}},
            "test": {"q3": {"3": 1}, "q4": {"x y": 3, "3": 0}},
        },
        query_info={"1": {"kind": "keyword", "level": 2}, "q/2": {}, "q3": {}, "q4": {}},
    )
    (tmp_path / "saved").mkdir()
    saved = replace(saved, name=own_name(tmp_path / "saved"))
    save_beir(saved, tmp_path / "saved")
    opened = open_collection(tmp_path / "saved")
    assert opened == saved
    assert opened.key == saved.key
    assert [list(opened.corpus), list(opened.queries)] == [list(saved.corpus), list(saved.queries)]


def test_a_collection_without_queries_is_saved_and_opened(tmp_path):
    save_beir(Collection("plain", {"d1": "one"}), tmp_path / "plain")
    assert open_collection(tmp_path / "plain") == Collection(own_name(tmp_path / "plain"), {"d1": "one"})


def test_the_key_changes_with_texts_queries_and_grades():
    first = made({"test": {"q1": {"d1": 1}}})
    others = [made({"test": {"q1": {"d1": 2}}}), made({"dev": {"q1": {"d1": 1}}}), made({"test": {"q2": {"d1": 1}}})]
    others.append(Collection("made", {**first.corpus, "d2": "other"}, first.queries, first.qrels))
    assert len({first.key, *(other.key for other in others)}) == 5
    assert made({"test": {"q1": {"d1": 1}}}).key == first.key


def test_compressed_files_read_as_plain_ones(tmp_path):
    files = beir(train=f"{HEADER}q1\td1\t1\n", dev=f"{HEADER}q2\td2\t1\n")
    plain = open_collection(write(tmp_path / "mine", files))
    packed = open_collection(write(tmp_path / "packed" / "mine", {f"{name}.gz": text for name, text in files.items()}))
    assert replace(packed, name=plain.name) == plain


def test_titles_stand_before_texts(tmp_path):
    corpus = '{"_id": "a", "title": "Title", "text": "text"}\n{"_id": "b", "title": "", "text": "bare"}\n'
    assert open_collection(write(tmp_path / "mine", beir(corpus=corpus))).corpus == {"a": "Title text", "b": "bare"}


@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "bom"])
@pytest.mark.parametrize("header", [HEADER, "", "query_id\tdoc_id\trelevance\n"], ids=["header", "none", "other"])
def test_files_of_other_systems_read_the_same(tmp_path, end, mark, header):
    files = beir(test=f"{header}q1\td1\t1\n\nq2\td2\t0\treason\u2028with \x0ban odd break\n")
    files = {name: (mark + text.replace("\n", end)).encode() for name, text in files.items()}
    opened = open_collection(write(tmp_path / "mine", files))
    assert opened.corpus == {"d1": "one", "d2": "two"}
    assert opened.qrels == {"test": {"q1": {"d1": 1}, "q2": {"d2": 0}}}


def test_files_that_an_operating_system_leaves_behind_are_ignored(tmp_path):
    rest = {"qrels/._test.tsv": b"\x00\xff", "qrels/.DS_Store": b"\x00", "qrels/notes.md": "hello"}
    opened = open_collection(write(tmp_path / "mine", beir(test="q1\td1\t1\n") | rest))
    assert opened.qrels == {"test": {"q1": {"d1": 1}}}


@pytest.mark.parametrize(
    ("ids", "expected"),
    [([1, 2], ["1", "2"]), (["a/b", "a/c#1"], ["a/b", "a/c#1"]), (["größe", "日本"], ["größe", "日本"])],
    ids=["numbers", "slashes", "unicode"],
)
def test_ids_of_any_kind_match_between_files(tmp_path, ids, expected):
    corpus = "".join(json.dumps({"_id": i, "text": f"text {i}"}) + "\n" for i in ids)
    queries = json.dumps({"_id": ids[0], "text": "what"})
    files = beir(corpus=corpus, queries=queries, test=f"{ids[0]}\t{ids[1]}\t1\n")
    opened = open_collection(write(tmp_path / "mine", files))
    assert list(opened.corpus) == expected
    assert opened.qrels == {"test": {expected[0]: {expected[1]: 1}}}


def test_split_gives_the_queries_and_judgments_of_one_split():
    collection = made({"dev": judged(0, 2), "test": judged(2, 5)})
    assert collection.split("dev") == ({"q0": "question q0", "q1": "question q1"}, judged(0, 2))


def test_a_split_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(WorkbookError, match=r"no train split \(it has dev, test\)"):
        made({"dev": judged(0, 2), "test": judged(2, 5)}).split("train")


# Splits


def test_systems_are_reported_on_test_or_else_on_dev():
    train, dev, test = judged(0, 2), judged(2, 4), judged(4, 6)
    assert made({"train": train, "dev": dev, "test": test}).final_split == "test"
    assert made({"train": train, "dev": dev}).final_split == "dev"
    assert made({"train": train}).final_split is None
    assert made({}).final_split is None


@pytest.mark.parametrize("names", SUBSETS, ids="+".join)
def test_any_subset_of_splits_opens(tmp_path, names):
    given = {name: judged(50 * i, 50 * (i + 1)) for i, name in enumerate(SPLIT_NAMES) if name in names}
    save_beir(made(given), tmp_path / "mine")
    found = open_collection(tmp_path / "mine").qrels
    expected = {("train",): SPLIT_NAMES, ("train", "test"): SPLIT_NAMES}.get(names, names)
    assert tuple(found) == expected
    assert {q: docs for split in found.values() for q, docs in split.items()} == {
        q: docs for split in given.values() for q, docs in split.items()
    }
    assert [name for name in ("dev", "test") if name in given and found[name] != given[name]] == []


@pytest.mark.parametrize("name", ["dev", "val", "valid", "validation"])
def test_a_validation_split_is_dev_by_any_name(tmp_path, name):
    opened = open_collection(write(tmp_path / "mine", beir(**{name: "q1\td1\t1\n"})))
    assert opened.qrels == {"dev": {"q1": {"d1": 1}}}


@pytest.mark.parametrize("size", [1, 500])
def test_a_test_split_alone_stays_whole(size):
    notices = []
    assert carve_splits({"test": judged(0, size)}, notices) == {"test": judged(0, size)}
    assert notices == []


CARVED = {
    "undivided": lambda n: {"all": judged(0, n)},
    "undivided and test": lambda n: {"all": judged(0, n), "test": judged(5000, 5300)},
    "undivided and test inside": lambda n: {"all": judged(0, n), "test": judged(0, 30)},
    "undivided and dev": lambda n: {"all": judged(0, n), "dev": judged(5000, 5020)},
    "train": lambda n: {"train": judged(0, n)},
    "train and test": lambda n: {"train": judged(0, n), "test": judged(5000, 5300)},
    "large dev": lambda n: {"dev": judged(0, n)},
    "large dev and test": lambda n: {"dev": judged(0, n), "test": judged(5000, 5300)},
}


@pytest.mark.parametrize("given", CARVED.values(), ids=CARVED)
class TestCarving:
    def test_is_the_same_every_time(self, given):
        assert carve_splits(given(300), []) == carve_splits(given(300), [])

    def test_does_not_depend_on_the_order_of_the_queries(self, given):
        turned = {name: dict(reversed(qrels.items())) for name, qrels in given(300).items()}
        assert carve_splits(turned, []) == carve_splits(given(300), [])

    def test_puts_each_query_into_one_split(self, given):
        carved = [q for split in carve_splits(given(300), []).values() for q in split]
        assert len(carved) == len(set(carved))
        assert set(carved) == {q for split in given(300).values() for q in split}

    def test_keeps_the_judgments(self, given):
        assert {q: d for split in carve_splits(given(300), []).values() for q, d in split.items()} == {
            q: d for split in given(300).values() for q, d in split.items()
        }

    def test_leaves_a_query_in_its_split_when_others_come(self, given):
        before, after = carve_splits(given(150), []), carve_splits(given(300), [])
        assert [q for split, qrels in before.items() for q in qrels if q not in after[split]] == []

    def test_gives_train_and_dev_and_says_so(self, given):
        notices = []
        assert {"train", "dev"} <= carve_splits(given(300), notices).keys()
        assert len(notices) == 1
        assert "carved" in notices[0]

    def test_leaves_what_it_was_given(self, given):
        qrels = given(300)
        carve_splits(qrels, [])
        assert qrels == given(300)


@pytest.mark.parametrize("case", [case for case in CARVED if "and test" in case])
def test_carving_never_touches_a_test_split(case):
    given = CARVED[case](300)
    assert carve_splits(given, [])["test"] == given["test"]


@pytest.mark.parametrize(
    ("given", "shares"),
    [
        ({"all": judged(0, 2000)}, {"train": 0.5, "dev": 0.2, "test": 0.3}),
        ({"all": judged(0, 2000), "test": judged(5000, 5001)}, {"train": 0.8, "dev": 0.2}),
        ({"train": judged(0, 2000)}, {"train": 0.6, "dev": 0.2, "test": 0.2}),
        ({"train": judged(0, 2000), "test": judged(5000, 5001)}, {"train": 0.8, "dev": 0.2}),
        ({"dev": judged(0, 2000)}, {"train": 0.5, "dev": 0.5}),
    ],
    ids=["undivided", "undivided and test", "train", "train and test", "dev"],
)
def test_carved_splits_have_their_shares(given, shares):
    carved = carve_splits(given, [])
    assert {name: len(carved[name]) / 2000 for name in shares} == pytest.approx(shares, abs=0.03)


def test_a_small_dev_is_not_shared():
    small, large = judged(0, SHARE_DEV_FROM - 1), judged(0, SHARE_DEV_FROM)
    assert carve_splits({"dev": small}, []) == {"dev": small}
    assert carve_splits({"dev": large}, []).keys() == {"train", "dev"}


@pytest.mark.parametrize("name", ["qrels.tsv", "qrels/qrels.tsv", "qrels/all.tsv", "qrels.tsv.gz"])
def test_undivided_judgments_are_carved(tmp_path, name):
    save_beir(made({"test": judged(0, 100)}), tmp_path / "mine")
    split = tmp_path / "mine" / "qrels" / "test.tsv"
    write(tmp_path / "mine", {name: split.read_text(encoding="utf-8")})
    split.unlink()
    opened = open_collection(tmp_path / "mine")
    assert opened.qrels == carve_splits({"all": judged(0, 100)}, [])
    assert tuple(opened.qrels) == SPLIT_NAMES
    assert "undivided" in opened.notices[0]


# Folders of documents


def test_a_folder_of_documents_is_chunked(tmp_path):
    html = (
        "<html><style>p {}</style><nav>menu</nav>"
        "<h2>Head <i>line</i></h2><p>html text</p><script>code()</script></html>"
    )
    folder = write(
        tmp_path / "mine",
        {
            "a.md": "# Title\nmarkdown text",
            "b.txt": "plain text",
            "c.rst": "Title\n=====\n\nrst text",
            "d.html": html,
            "deep/er/e.PDF": pdf("pdf text"),
            "f.htm": "<p>htm text",
            "deep/g.md.gz": "packed text",
        },
    )
    opened = open_collection(folder)
    assert opened.corpus == {
        "a.md#1": "a.md › Title: markdown text",
        "b.txt#1": "b.txt: plain text",
        "c.rst#1": "c.rst › Title: rst text",
        "d.html#1": "d.html › Head line: html text",
        "deep/er/e.PDF#1": "deep/er/e.PDF: pdf text",
        "deep/g.md.gz#1": "deep/g.md.gz: packed text",
        "f.htm#1": "f.htm: htm text",
    }
    assert {document_of(i) for i in opened.corpus} == opened.pages.keys()
    assert opened.pages["b.txt"] == "plain text"
    assert (opened.queries, opened.qrels, opened.notices) == ({}, {}, [])


def test_hidden_files_and_other_types_stay_out(tmp_path):
    files = {"a.md": "text", ".b.md": "no", ".git/c.md": "no", "d/.e/f.txt": "no", "g.docx": b"\xff", "h": "no"}
    assert open_collection(write(tmp_path / "mine", files)).pages == {"a.md": "text"}


@pytest.mark.parametrize("build", [".", "docs", "docs/build"])  # the folder's parent, itself, inside it
def test_what_is_made_stays_out_of_the_documents_that_are_read(tmp_path, monkeypatch, build):
    folder = write(tmp_path / "docs", {"a.md": "text"})
    monkeypatch.setenv("WORKBOOK_BUILD", str(tmp_path / build))
    opened = open_collection(folder)
    assert opened.build.resolve() != folder.resolve()
    (opened.build / "report.html").write_text("<p>made")
    assert open_collection(folder).pages == {"a.md": "text"}


def test_hidden_folders_above_do_not_matter(tmp_path):
    assert open_collection(write(tmp_path / ".home" / "mine", {"a.md": "text"})).pages == {"a.md": "text"}


def test_documents_without_text_are_counted(tmp_path):
    opened = open_collection(write(tmp_path / "mine", {"a.md": "text", "b.md": " \n", "scan.pdf": pdf("")}))
    assert list(opened.corpus) == ["a.md#1"]
    assert opened.notices[0].startswith("2 of 3 documents have no text")


@pytest.mark.parametrize("text", ["Title\n=====\none\n\nNext\n----\ntwo\n", "# Title\none\n\n## Next\ntwo\n"])
def test_headings_are_found_in_files_from_windows(tmp_path, text):
    folder = write(tmp_path / "mine", {"a.md": text.replace("\n", "\r\n")})
    assert open_collection(folder).corpus == {"a.md#1": "a.md › Title: one", "a.md#2": "a.md › Next: two"}


# Tables

ROWS = {"id": ["x", "y/ü"], "text": ["one, two", "drei\nvier"]}
TABLES = {
    "csv": lambda columns: pd.DataFrame(columns).to_csv(index=False),
    "tsv": lambda columns: pd.DataFrame(columns).to_csv(index=False, sep="\t"),
    "jsonl": lambda columns: pd.DataFrame(columns).to_json(orient="records", lines=True),
    "parquet": parquet,
}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("kind", TABLES)
def test_a_table_of_each_type_opens(tmp_path, kind, packed):
    content = TABLES[kind](ROWS)
    data = content if isinstance(content, bytes) else content.encode()
    name = f"mine.{kind}.gz" if packed else f"mine.{kind}"
    write(tmp_path, {name: gzip.compress(data) if packed else data})
    assert open_collection(tmp_path / name) == Collection(
        own_name(tmp_path / name), {"x": "one, two", "y/ü": "drei\nvier"}
    )


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("ids", [[7, 8], None], ids=["numbers", "none"])
def test_rows_are_called_by_their_numbers(tmp_path, kind, ids):
    columns = {"text": ["one", "two"]} | ({"id": ids} if ids else {})
    content = TABLES[kind](columns)
    write(tmp_path, {f"mine.{kind}": content})
    assert list(open_collection(tmp_path / f"mine.{kind}").corpus) == [str(i) for i in ids or (1, 2)]


@pytest.mark.parametrize(
    ("columns", "column"),
    [
        (["title", "text"], "text"),
        (["title", "Body"], "Body"),
        (["passage", "title"], "passage"),
        (["id", "note"], "note"),
        (["description", "title"], "description"),
    ],
)
def test_the_obvious_text_column_is_taken(tmp_path, columns, column):
    row = {name: f"the {name}" for name in columns}
    write(tmp_path, {"mine.csv": TABLES["csv"]([row])})
    assert list(open_collection(tmp_path / "mine.csv").corpus.values()) == [f"the {column}"]


def test_the_only_column_of_words_is_taken(tmp_path):
    write(tmp_path, {"mine.jsonl": '{"price": 1.5, "remark": "good"}\n{"price": 2, "remark": "bad"}\n'})
    assert open_collection(tmp_path / "mine.jsonl").corpus == {"1": "good", "2": "bad"}


@pytest.mark.parametrize(
    ("argument", "setting", "found"),
    [("b", None, "beta"), (None, "a", "alpha"), ("b", "a", "beta"), (None, None, "gamma")],
    ids=["argument", "setting", "argument before setting", "neither"],
)
def test_the_text_column_can_be_named(tmp_path, monkeypatch, argument, setting, found):
    write(tmp_path, {"mine.csv": "a,b,text\nalpha,beta,gamma\n"})
    if setting:
        monkeypatch.setenv("TEXT_COLUMN", setting)
    assert open_collection(tmp_path / "mine.csv", text=argument).corpus == {"1": found}


def test_cells_stay_as_they_were_written(tmp_path):
    write(tmp_path, {"mine.csv": "id,text\n007,NA\n1e3,null\n 5 ,0.10\n"})
    assert open_collection(tmp_path / "mine.csv").corpus == {"007": "NA", "1e3": "null", " 5 ": "0.10"}


# Names, notices, and what is left alone


def test_the_collection_of_the_setting_is_opened(tmp_path, monkeypatch):
    write(tmp_path, {"mine.csv": "text\none\n"})
    monkeypatch.setenv("COLLECTION", str(tmp_path / "mine.csv"))
    assert open_collection() == Collection(own_name(tmp_path / "mine.csv"), {"1": "one"})


def test_a_name_goes_before_the_setting(tmp_path, monkeypatch):
    write(tmp_path, {"mine.csv": "text\none\n", "other.csv": "text\ntwo\n"})
    monkeypatch.setenv("COLLECTION", str(tmp_path / "mine.csv"))
    assert open_collection(tmp_path / "other.csv").name == own_name(tmp_path / "other.csv")


@pytest.mark.parametrize("setting", [None, "", "pydocs"])
def test_without_a_setting_it_is_pydocs(monkeypatch, pydocs_collection, setting):
    monkeypatch.setattr(collections.pydocs, "read_pydocs", lambda: (pydocs_collection.corpus, pydocs_collection.pages))
    if setting is not None:
        monkeypatch.setenv("COLLECTION", setting)
    assert open_collection() == pydocs_collection


def test_pydocs_is_read_once(tmp_path, monkeypatch, pydocs_collection):
    reads = []
    found = (pydocs_collection.corpus, pydocs_collection.pages)
    monkeypatch.setattr(collections.pydocs, "read_pydocs", lambda: reads.append(1) or found)
    assert open_collection("pydocs") == open_collection("pydocs")
    assert reads == [1]


@pytest.mark.parametrize("name", ["pydocs/a.md", "pydocs.csv"])
def test_data_with_a_built_in_name_gets_its_own_folder(tmp_path, name):
    write(tmp_path / "my", {name: "text\nmine\n"})
    opened = open_collection(tmp_path / "my" / name.split("/")[0])
    assert "mine" in next(iter(opened.corpus.values()))
    assert opened.name != "pydocs"
    assert opened.build != build_dir("pydocs")


@pytest.mark.parametrize(
    ("file", "name"),
    [("my notes (1).csv", "my-notes-1"), ("größe.v2.csv.gz", "größe"), ("...csv", "collection"), ("a.b/x.md", "a.b")],
)
def test_names_are_fit_for_a_folder(tmp_path, file, name):
    write(tmp_path / "my", {file: "text\none\n"})
    opened = open_collection(tmp_path / "my" / file.split("/")[0])
    assert re.fullmatch(rf"{re.escape(name)}-[0-9a-f]{{6}}", opened.name)
    assert opened.build == build_dir(opened.name)
    assert opened.build.is_dir()


def test_two_folders_of_one_name_share_nothing(tmp_path):
    names = [open_collection(write(tmp_path / place / "docs", {"a.md": "text"})).name for place in ("one", "two")]
    assert len(set(names)) == 2
    assert all(name.startswith("docs-") for name in names)
    assert open_collection(tmp_path / "one" / "docs").name == names[0]


def test_a_log_with_a_built_in_name_takes_nothing_of_the_built_in_collection(tmp_path):
    log = {"query": "bread", "results": [{"id": "1", "text": "loaf"}], "clicked": ["1"]}
    write(tmp_path, {"pydocs.jsonl": json.dumps(log)})
    opened, _ = open_own(tmp_path / "pydocs.jsonl")
    assert opened.name not in BUILT_IN
    assert opened.build != build_dir("pydocs")
    assert shipped_questions(opened) == []


def test_home_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(write(tmp_path / "home", {"mine.csv": "text\none\n"})))
    assert open_collection("~/mine.csv").corpus == {"1": "one"}


@pytest.mark.parametrize(
    "files",
    [beir(train="q1\td1\t1\nq2\td2\t1\n"), {"a.md": "text", "b.pdf": pdf("hello")}, {"mine.csv": "text\none\n"}],
    ids=["beir", "documents", "table"],
)
def test_nothing_is_written_beside_the_data(tmp_path, monkeypatch, files):
    monkeypatch.setenv("WORKBOOK_BUILD", str(tmp_path / "build"))
    folder = write(tmp_path / "data", files)
    monkeypatch.chdir(write(tmp_path / "elsewhere", {}).parent)
    before = state(folder)
    opened = open_collection(folder / "mine.csv" if "mine.csv" in files else folder)
    assert opened.build.is_relative_to(tmp_path / "build")
    assert state(folder) == before
    assert {p.name for p in tmp_path.iterdir()} <= {"data", "build"}


def test_empty_passages_are_left_out_with_their_judgments_and_counted(tmp_path):
    corpus = '{"_id": "d3", "text": " "}\n{"_id": "d4", "text": null}\n{"_id": "d5", "title": "", "text": ""}\n'
    files = beir(corpus=CORPUS + corpus, test="q1\td1\t1\nq1\td3\t1\nq2\td2\t1\nq2\td4\t0\n")
    opened = open_collection(write(tmp_path / "mine", files))
    assert opened.corpus == {"d1": "one", "d2": "two"}
    assert opened.qrels == {"test": {"q1": {"d1": 1}, "q2": {"d2": 1}}}
    assert [notice for notice in opened.notices if "empty" in notice and notice.startswith("3 ") and "'d3'" in notice]


def test_repeated_passages_stay_and_are_counted(tmp_path):
    write(tmp_path, {"mine.csv": "text\nsame\nother\nsame\nsame\nother\n"})
    opened = open_collection(tmp_path / "mine.csv")
    assert len(opened.corpus) == 5
    assert [notice for notice in opened.notices if "repeat" in notice and notice.startswith("3 ")]


def test_sound_data_gives_no_notice(tmp_path):
    files = beir(train="q1\td1\t1\n", dev="q2\td1\t1\n")
    assert open_collection(write(tmp_path / "mine", files)).notices == []


def test_a_collection_shows_its_size():
    splits = {"dev": judged(0, 2), "test": judged(2, 5)}
    assert repr(made(splits)) == "Collection(made: 2 passages, 5 queries (2 dev, 3 test))"


# What can be wrong: the files, what is opened, what the sentence names, and the repair that it gives


def wrong(id_: str, files: dict, opened: str, names: list[str], repair: str):
    return pytest.param(files, opened, names, repair, id=id_)


def table(id_: str, name: str, content: str | bytes, names: list[str], repair: str):
    return wrong(id_, {name: content}, name, [name, *names], repair)


def folder(id_: str, files: dict, names: list[str], repair: str):
    return wrong(id_, files, "", names, repair)


PACKED = gzip.compress(CORPUS.encode() * 9)
BROKEN_STREAM = PACKED[:15] + b"\xff" * 10 + PACKED[25:]
WRONG = [
    wrong("file missing", {}, "nowhere.csv", ["nowhere.csv", "pydocs"], "correct the path"),
    folder("folder empty", {"sub/.keep": ""}, [".md", ".pdf", "corpus.jsonl"], "name another folder or file"),
    folder("no corpus", {"queries.jsonl": QUERIES}, ["corpus.jsonl"], "name another folder or file"),
    folder("corpus empty", beir(corpus=""), ["corpus.jsonl"], "one JSON object a line"),
    folder("corpus not UTF-8", beir(corpus=CORPUS.encode() + b"caf\xe9"), ["corpus.jsonl, line 3", "0xe9"], "as UTF-8"),
    folder("qrels not UTF-8", beir(test=HEADER.encode() + b"q\xe9\td1\t1"), ["test.tsv, line 2"], "as UTF-8"),
    folder("document not UTF-8", {"deep/a.md": b"one\ntwo\n\xff"}, ["deep/a.md, line 3"], "save the file as UTF-8"),
    table("table not UTF-8", "a.csv", b"text\nok\ncaf\xe9\n", [", line 3"], "save the file as UTF-8"),
    table("table in UTF-16", "a.csv", "text\nok\n".encode("utf-16"), [", line 1"], "save the file as UTF-8"),
    folder("broken JSON", beir(corpus=CORPUS + "\n{oops\n"), ["corpus.jsonl, line 4"], "mend or remove the line"),
    folder("broken query", beir(queries='{"_id": 1,'), ["queries.jsonl, line 1"], "mend or remove the line"),
    table("broken JSON table", "a.jsonl", '{"text": "a"}\n{"text": "b"', [", line 2"], "mend or remove the line"),
    folder("JSON no object", beir(corpus=CORPUS + "[1]\n"), ["corpus.jsonl, line 3", "[1]"], "expected an object"),
    table("JSON table of words", "a.jsonl", '{"text": "a"}\n"b"\n', [", line 2"], "expected an object"),
    folder(
        "no id",
        beir(corpus=CORPUS + '{"id": 3, "text": "a"}'),
        ["corpus.jsonl, line 3", "'_id'", "found id, text"],
        "expected _id and text",
    ),
    folder(
        "no text",
        beir(queries='{"_id": 3, "query": "a"}'),
        ["queries.jsonl, line 1", "'text'", "found _id, query"],
        "expected _id and text",
    ),
    table("no such column", "a.csv", "a,b\n1,2\n", ["a, b", "expected one of text"], "TEXT_COLUMN="),
    table("two columns of words", "a.jsonl", '{"x": "one", "y": "two"}', ["found x, y", "expected"], "text="),
    folder("id twice", beir(corpus=CORPUS + CORPUS), ["corpus.jsonl, line 3", "'d1'"], "its own id"),
    folder("query id twice", beir(queries=QUERIES + QUERIES), ["queries.jsonl, line 3", "'q1'"], "its own id"),
    folder("number and word", beir(corpus='{"_id": 1, "text": "a"}\n{"_id": "1", "text": "b"}'), ["line 2"], "own id"),
    table("row id twice", "a.csv", "id,text\n1,a\n2,b\n1,c\n", [", row 3", "'1'"], "give every row its own id"),
    table(
        "row id missing", "a.jsonl", '{"id": 1, "text": "a"}\n{"text": "b"}', [", row 2"], "give every row its own id"
    ),
    folder("all passages empty", beir(corpus='{"_id": "d", "text": ""}'), ["every passage"], "right column or folder"),
    folder("all documents empty", {"a.md": "\n", "b.txt": ""}, ["every passage"], "right column or folder"),
    table("all cells empty", "a.csv", "id,text\n1,\n2, \n", ["every passage"], "right column or folder"),
    folder(
        "query empty", beir(queries=QUERIES + '{"_id": "q3", "text": " "}'), ["queries.jsonl", "'q3'"], "write it or"
    ),
    folder(
        "unknown query", beir(test=f"{HEADER}q1\td1\t1\nq9\td1\t1\n"), ["test.tsv, line 3", "'q9'"], "correct the id"
    ),
    folder("unknown document", beir(dev=f"{HEADER}q1\td9\t1\n"), ["dev.tsv, line 2", "'d9'"], "correct the id"),
    folder(
        "grade in words", beir(test=f"{HEADER}q1\td1\tgood\n"), ["test.tsv, line 2", "'good'"], "whole number such as"
    ),
    folder(
        "grade in parts", beir(test=f"{HEADER}q1\td1\t0.5\n"), ["test.tsv, line 2", "'0.5'"], "whole number such as"
    ),
    folder("short row", beir(test=f"{HEADER}q1\td1\t1\nq2\td1\n"), ["test.tsv, line 3"], "apart by tabs"),
    folder("blanks for tabs", beir(test="q1 d1 1\n"), ["test.tsv, line 1"], "apart by tabs"),
    folder("nothing relevant", beir(test=f"{HEADER}q1\td1\t0\n"), ["test.tsv"], "needs a grade of 1 or more"),
    folder("no judgment", beir(test=HEADER), ["test.tsv"], "needs a grade of 1 or more"),
    folder("unknown split", beir(final="q1\td1\t1\n"), ["final.tsv"], "train.tsv, dev.tsv and test.tsv"),
    folder("two names of a split", beir(dev="q1\td1\t1\n", val="q2\td1\t1\n"), ["dev and val"], "keep one"),
    table("unknown type", "a.xlsx", b"PK", [".csv", ".parquet"], "name one, or a folder of documents"),
    table("gzip cut off", "a.csv.gz", gzip.compress(b"text\none\n" * 99)[:-12], [], "check that it is there, whole"),
    table("gzip broken inside", "a.jsonl.gz", BROKEN_STREAM, [], "check that it is there, whole"),
    table("gzip by name only", "a.csv.gz", b"text\none\n", [], "check that it is there, whole"),
    folder(
        "corpus gzip broken", {"corpus.jsonl.gz": BROKEN_STREAM}, ["corpus.jsonl.gz"], "check that it is there, whole"
    ),
    folder("PDF by name only", {"a.md": "text", "b.pdf": b"hello"}, ["b.pdf"], "save it anew or take it out"),
    folder("PDF cut off", {"b.pdf": pdf("hello")[:150]}, ["b.pdf"], "save it anew or take it out"),
    folder("PDF empty", {"b.pdf": b""}, ["b.pdf"], "save it anew or take it out"),
    folder(
        "PDF of an unknown filter",
        {"b.pdf": pdf("hello").replace(b"<</Length", b"<</Filter/Odd/Length")},
        ["b.pdf"],
        "save it anew or take it out",
    ),
    table("CSV with a long row", "a.csv", "id,text\n1,a\n2,b,c\n", ["line 3"], "mend it or save it anew"),
    table("CSV with long rows", "a.csv", "id,text\n1,a,b\n2,c,d\n", ["line 2"], "quote texts"),
    table("CSV with an open quote", "a.csv", 'id,text\n1,"a\n2,b\n', ["row 1"], "mend it or save it anew"),
    table("Parquet by name only", "a.parquet", b"hello" * 9, [], "mend it or save it anew"),
    table("Parquet cut off", "a.parquet", parquet(ROWS)[:-20], [], "mend it or save it anew"),
    table("list for a text", "a.jsonl", '{"text": "a"}\n{"text": ["b", "c"]}', [", row 2", "text"], "one text a row"),
    table("CSV empty", "a.csv", "", [], "mend it or save it anew"),
    table("CSV of a header", "a.csv", "id,text\n", [], "needs one passage a row"),
    table("JSONL empty", "a.jsonl", "\n\n", [], "needs one passage a row"),
    table("Parquet empty", "a.parquet", parquet({"text": []}), [], "needs one passage a row"),
]


@pytest.mark.parametrize(("files", "opened", "names", "repair"), WRONG)
def test_what_is_wrong_is_said_in_one_sentence(tmp_path, files, opened, names, repair):
    path = write(tmp_path / "mine", files) / opened
    with pytest.raises(WorkbookError) as error:
        open_collection(path)
    sentence = str(error.value)
    assert str(path) in sentence
    assert "\n" not in sentence
    assert sentence.endswith(".")
    assert [part for part in (*names, repair) if part not in sentence] == []


def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path):
    write(tmp_path, {"mine.csv": "a,b\none,two\n"})
    with pytest.raises(WorkbookError, match=r"mine\.csv: missing column 'c' \(found a, b\): name one of these\.$"):
        open_collection(tmp_path / "mine.csv", text="c")

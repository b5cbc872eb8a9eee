"""What the homework leaves behind: pairs that a person judges, a model with its adapter inside, costs and failures."""

import csv
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fakes import random_texts
from sentence_transformers import SentenceTransformer

from helpers.collection.collection import Collection
from helpers.homework import handover
from helpers.homework.handover import beside_the_model, costs, failures, with_adapter
from helpers.homework.systems import System
from helpers.homework.to_judge import JUDGE_COLUMNS, SHOWN, read_judged, write_to_judge
from helpers.labels.review import Reviews
from helpers.store.files import WorkbookError

COLLECTION = Collection(
    "own",
    {"d1": "one, with a comma", "d/2": 'two "quoted"\nlines', "007": "ünïcode", "long": "x" * 5000},
    {"q1": "bread, how?", "q2": 'say "tea"'},
)
RUN = {"q1": {"d/2": 0.0, "007": -1.0}, "q2": {"d1": 0.0, "long": -1.0}}


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


def write_rows(file: Path, rows: list[dict[str, str]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.DictWriter(opened, JUDGE_COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def graded(file: Path, *grades: str) -> Path:
    """The file to judge with these grades in its first rows."""
    write_to_judge(COLLECTION, file, COLLECTION.queries, RUN)
    rows = rows_of(file)
    for row, grade in zip(rows, grades, strict=False):
        row["grade"] = grade
    write_rows(file, rows)
    return file


def verdicts() -> dict[str, dict[str, int]]:
    return Reviews(COLLECTION.build / "reviews.jsonl").as_qrels()


def refused(file: Path) -> str:
    with pytest.raises(WorkbookError) as raised:
        read_judged(COLLECTION, file)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_pairs_to_judge_have_query_passage_and_an_empty_grade(tmp_path):
    assert write_to_judge(COLLECTION, tmp_path / "a.csv", COLLECTION.queries, RUN) == 2
    assert [tuple(row.values()) for row in rows_of(tmp_path / "a.csv")[:3]] == [
        ("bread, how?", "d/2", 'two "quoted"\nlines', ""),
        ("bread, how?", "007", "ünïcode", ""),
        ('say "tea"', "d1", "one, with a comma", ""),
    ]
    assert read_judged(COLLECTION, tmp_path / "a.csv") == 0
    assert verdicts() == {}


def test_a_long_passage_is_shown_by_its_beginning(tmp_path):
    write_to_judge(COLLECTION, tmp_path / "a.csv", COLLECTION.queries, RUN)
    assert rows_of(tmp_path / "a.csv")[3]["text"] == "x" * SHOWN
    assert SHOWN < 5000


def test_grades_become_verdicts_once(tmp_path):
    file = graded(tmp_path / "a.csv", "2", " 0 ", "", "1")
    assert read_judged(COLLECTION, file) == 3
    assert verdicts() == {"bread, how?": {"d/2": 2, "007": 0}, 'say "tea"': {"long": 1}}
    assert read_judged(COLLECTION, file) == 0
    rows = rows_of(file)
    rows[0]["grade"] = "1"  # on second thoughts
    write_rows(file, rows)
    assert read_judged(COLLECTION, file) == 1
    assert verdicts()["bread, how?"] == {"d/2": 1, "007": 0}


def test_a_file_with_grades_is_left_as_it_is_and_one_without_is_written_anew(tmp_path):
    file = graded(tmp_path / "a.csv", "", "", "1")
    before = file.read_bytes()
    assert write_to_judge(COLLECTION, file, COLLECTION.queries, {"q1": {"d1": 0.0}}) == 0
    assert file.read_bytes() == before
    graded(tmp_path / "b.csv", "", " ")
    assert write_to_judge(COLLECTION, tmp_path / "b.csv", COLLECTION.queries, {"q1": {"d1": 0.0}}) == 1
    assert [row["doc"] for row in rows_of(tmp_path / "b.csv")] == ["d1"]


def test_no_file_has_no_grades(tmp_path):
    assert read_judged(COLLECTION, tmp_path / "a.csv") == 0


def test_a_grade_that_is_none_is_refused(tmp_path):
    said = refused(graded(tmp_path / "a.csv", "1", "3"))
    assert "a.csv, row 3: '3' is no grade: write 0, 1 or 2" in said


def test_an_id_that_the_collection_does_not_have_is_refused(tmp_path):
    rows = rows_of(graded(tmp_path / "a.csv", "", "1"))
    rows[1]["doc"] = "7"  # what a spreadsheet makes of 007
    write_rows(tmp_path / "a.csv", rows)
    said = refused(tmp_path / "a.csv")
    assert "row 3: the collection has no passage '7'" in said
    assert "keep them as text" in said


def test_a_file_that_is_no_csv_any_more_is_refused(tmp_path):
    rows = rows_of(graded(tmp_path / "a.csv", "1"))
    rows[0]["text"] = "x" * 200_000
    write_rows(tmp_path / "a.csv", rows)
    assert "a.csv is no csv any more" in refused(tmp_path / "a.csv")


@pytest.mark.parametrize("text", ["query;doc;text;grade\nbread;d1;x;1\n", "bread,d1,x,1\nbread,d1,x,1\n"])
def test_lost_columns_are_refused(tmp_path, text):
    (tmp_path / "a.csv").write_text(text)
    assert "needs the columns query, doc, text, grade" in refused(tmp_path / "a.csv")


# The model


@pytest.fixture
def encoder(tiny) -> SentenceTransformer:
    return tiny


def test_queries_go_through_the_adapter_and_passages_do_not(encoder, tmp_path):
    matrix = np.random.default_rng(0).standard_normal((32, 32)).astype(np.float32)
    texts = random_texts(5, seed=4)
    passages, plain = encoder.encode_document(texts), encoder.encode_query(texts)
    queries = plain @ matrix
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    with_adapter(encoder, matrix).save_pretrained(str(tmp_path / "model"))
    for model in (with_adapter(encoder, matrix), SentenceTransformer(str(tmp_path / "model"), device="cpu")):
        np.testing.assert_allclose(model.encode_query(texts), queries, atol=1e-5)
        np.testing.assert_allclose(model.encode_document(texts), passages, atol=1e-5)
        for found in (model.encode_query(texts), model.encode_document(texts)):
            np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert np.abs(queries - plain).max() > 0.1
    np.testing.assert_allclose(encoder.encode_query(texts), plain, atol=1e-6)  # the encoder itself is as it was


# Costs and failures


def test_costs_are_tokens_times_the_price_and_passages_by_seconds(monkeypatch):
    # 0.02 dollars a million tokens: 3 million cost 0.06, 1,000 queries of 25 tokens 0.0005
    found = costs(600, 3_000_000, 25, 30.0)
    assert found["passages_per_second"] == 20
    assert found["api_usd_index"] == pytest.approx(0.06)
    assert found["api_usd_1000_queries"] == pytest.approx(0.0005)
    assert math.isnan(costs(600, 3_000_000, 25, 0.0)["passages_per_second"])
    monkeypatch.setattr(handover, "API_MODEL", "no such model")
    assert math.isnan(costs(600, 3_000_000, 25, 30.0)["api_usd_index"])


def ranked(*docs: str) -> dict[str, float]:
    return {doc: -float(place) for place, doc in enumerate(docs)}


def test_failures_are_queries_without_a_right_passage_among_ten_worst_losses_first():
    others = [f"x{i}" for i in range(10)]
    collection = Collection("own", {d: f"text of {d}" for d in ["a", "b", "c", *others]})
    queries = {"found": "one", "below": "two", "nowhere": "three", "lost": "four", "never": "five"}
    qrels = {"found": {"a": 1}, "below": {"a": 1, "b": 2}, "nowhere": {"c": 1}, "lost": {"a": 1}, "never": {"c": 1}}
    run = {
        "found": ranked(*others[:9], "a"),
        "below": ranked(*others, "b", "a"),
        "nowhere": ranked("x3"),
        "lost": ranked("x1", "x2"),
        "never": {},
    }
    base = {
        "found": ranked("a"),
        "below": ranked("x0", "x1", "x2", "a"),
        "nowhere": ranked("x4"),
        "lost": ranked("a"),
        "never": {},
    }
    # nDCG@10 of the base: "lost" 1;
    # "below" one of grade 1 at rank 4 of two, 1 / log2(5) over 2 + 1 / log2(3): 0.16; the others 0
    found = failures(collection, queries, qrels, run, base)
    assert [(row["query"], row["wanted"], row["rank"], row["came"], row["lost"]) for row in found] == [
        ("four", "a", 0, "x1", True),
        ("two", "b", 11, "x0", True),
        ("five", "c", 0, "", False),
        ("three", "c", 0, "x3", False),
    ]
    assert (found[0]["wanted_text"], found[0]["came_text"]) == ("text of a", "text of x1")
    assert found[2]["came_text"] == ""


def test_ten_failures_are_enough_to_look_at_and_without_judgments_there_are_none():
    queries = {f"q{i:02d}": f"query {i}" for i in range(12)}
    run = {q: {"b": 1.0} for q in queries}
    found = failures(Collection("own", {"a": "x", "b": "y"}), queries, {q: {"a": 1} for q in queries}, run, run)
    assert [row["query"] for row in found] == [f"query {i}" for i in range(10)]
    assert failures(Collection("own", {"a": "x"}), {}, {}, {}, {}) == []


def test_what_a_system_does_beside_the_model_is_told_of_its_parts_and_not_of_its_name():
    words = System(SimpleNamespace(name="words"), "w")
    vectors = System(SimpleNamespace(name="BM25 + tuned"), "v", encoder="one")
    mixed = System(SimpleNamespace(name="m", weight=0.3), "m", encoder="one", words=words, vectors=vectors)
    second = SimpleNamespace(name="t", weight=0.6, depth=20, reranker=SimpleNamespace(name="a cross-encoder"))
    both = System(second, "t", encoder="one", first=mixed)
    assert beside_the_model(vectors, cut=False) == ""
    assert beside_the_model(words, cut=False).startswith("BM25 alone does the search")
    assert beside_the_model(mixed, cut=False).startswith("It adds BM25, weighing 0.7, to the vectors, weighing 0.3 ")
    told = beside_the_model(both, cut=True)
    assert told.startswith("It puts the best 20 passages in order by a cross-encoder, weighing 0.6, and the first ")
    assert told.index("weighing 0.4") < told.index("It adds BM25, weighing 0.7") < told.index("It cuts long passages")
    assert "BM25 alone" not in beside_the_model(System(second, "s", first=words), cut=False)

"""Search logs as data: which file is one, what its queries are, and what labels come of it."""

import json
import os
from pathlib import Path

import pytest

from helpers.collection.collection import own_name
from helpers.homework.data import log_columns, open_own
from helpers.homework.options import HEADLESS, headings
from helpers.store.files import ROOT, WorkbookError


def write(file, rows):
    file.write_text("\n".join(json.dumps(row) for row in rows))
    return file


def test_a_log_is_known_by_its_columns(tmp_path):
    log = write(tmp_path / "a.jsonl", [{"Q": "x", "doc_ids": ["1"]}, {"Q": "y", "doc_ids": ["1"], "click": "1"}])
    assert log_columns(log) == {"query": "Q", "results": "doc_ids", "clicked": "click"}
    assert log_columns(write(tmp_path / "b.jsonl", [{"_id": "1", "text": "x"}])) is None
    assert log_columns(write(tmp_path / "c.jsonl", [{"query": "x", "text": "y"}])) is None
    (tmp_path / "d.csv").write_text('when,"query",results,clicked\n2026-01-01,x,a|b,b\n')
    assert log_columns(tmp_path / "d.csv") == {
        "query": "query",
        "time": "when",
        "results": "results",
        "clicked": "clicked",
    }
    assert log_columns(tmp_path) is None


def test_passages_with_counts_of_clicks_are_no_log_and_queries_with_results_are_one(tmp_path):
    (tmp_path / "faq.csv").write_text("question,text,clicks\nhow,so,3\n")
    assert log_columns(tmp_path / "faq.csv") is None
    (tmp_path / "log.csv").write_text("query,results\nhow,a|b\n")
    assert log_columns(tmp_path / "log.csv") == {"query": "query", "results": "results"}
    (tmp_path / "cited.csv").write_text("question,answer,citations\nhow,so,a\n")
    assert log_columns(tmp_path / "cited.csv") == {"query": "question", "cited": "citations"}


ROWS = [
    {"query": "bread", "results": [{"id": 1, "text": "loaf"}, {"id": 2, "text": "knife"}], "clicked": [2]},
    {"query": "bread", "results": [{"id": 1}, {"id": 2}], "clicked": []},
    {"query": "bread", "results": [{"id": 1}, {"id": 2}], "clicked": []},
    {"query": "tea", "results": [{"id": 3, "text": "kettle"}, {"id": 1}], "cited": [3]},
    {"query": "nothing", "results": [{"id": 1}]},
]


def test_labels_are_clicks_often_enough_and_citations(tmp_path):
    collection, log = open_own(write(tmp_path / "log.jsonl", ROWS))
    assert collection.corpus == {"1": "loaf", "2": "knife", "3": "kettle"}
    assert sorted(collection.queries.values()) == ["bread", "nothing", "tea"]
    labels = {collection.queries[q]: docs for part in collection.qrels.values() for q, docs in part.items()}
    assert labels == {"bread": {"2": 1}, "tea": {"3": 2}}  # 2 was clicked in 1 of 3 searches: 0.33
    assert len(log.searches()) == 5
    again, log = open_own(tmp_path / "log.jsonl")
    assert again == collection
    assert len(log.searches()) == 5


def test_what_a_person_typed_of_themselves_is_kept_nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBOOK_BUILD", str(tmp_path / "build"))
    secret = "jane.doe@example.com"
    asked = [row | {"query": f"{row['query']} for {secret}", "session": secret} for row in ROWS]
    log = write(tmp_path / "log.jsonl", asked)
    old = tmp_path / "build" / own_name(log) / "homework" / "log.jsonl"  # what earlier versions left there
    old.parent.mkdir(parents=True)
    old.write_text(secret)
    collection, searches = open_own(log)
    assert collection.corpus == {"1": "loaf", "2": "knife", "3": "kettle"}
    assert len(searches.searches()) == 5
    files = [path for path in (tmp_path / "build").rglob("*") if path.is_file()]
    assert len(files) > 1
    assert not [path for path in files if secret.encode() in path.read_bytes()]


def shuffled_log(share: int) -> list[dict]:
    """Each query is shown two passages, 1 above 2.

    People look at rank 1 always and at rank 2 every fourth time, and like both.
    One search in ``share`` is shown in random order (0: none is).
    """
    rows = []
    for n in range(240):
        mixed = share and n % share == 0
        shown = ["2", "1"] if mixed and n % (2 * share) == 0 else ["1", "2"]
        clicked = [doc for rank, doc in enumerate(shown) if rank == 0 or n // 12 % 4 == 0]
        system = "BM25 (shuffled)" if mixed else "BM25"
        rows.append({"query": "bread", "results": shown, "clicked": clicked, "system": system, "session": str(n)})
    return rows


@pytest.mark.parametrize(("share", "labels"), [(3, {"1": 1, "2": 1}), (0, {"1": 1})])
def test_clicks_are_corrected_for_their_rank_where_the_log_can_tell(tmp_path, share, labels):
    (tmp_path / "corpus.jsonl").write_text('{"_id": "1", "text": "loaf"}\n{"_id": "2", "text": "knife"}')
    collection, _ = open_own(write(tmp_path / "log.jsonl", shuffled_log(share)))
    assert labelled(collection) == {"bread": labels}
    assert {collection.queries[q] for q in collection.clicked} == {"bread"}
    assert any("could not be corrected" in notice for notice in collection.notices) is (share == 0)


def test_clicks_are_told_from_citations(tmp_path):
    collection, _ = open_own(write(tmp_path / "log.jsonl", ROWS))
    assert {collection.queries[q] for q in collection.clicked} == {"bread"}  # tea was cited


def test_clicks_count_where_what_was_shown_was_not_logged(tmp_path):
    rows = [{"query": "bread", "clicked": ["2"]}]
    (tmp_path / "corpus.jsonl").write_text('{"_id": "2", "text": "knife"}')
    collection, _ = open_own(write(tmp_path / "log.jsonl", rows))
    assert [docs for part in collection.qrels.values() for docs in part.values()] == [{"2": 1}]


def labelled(collection) -> dict[str, dict[str, int]]:
    return {collection.queries[q]: docs for part in collection.qrels.values() for q, docs in part.items()}


def test_a_date_of_another_form_stops_no_log(tmp_path):
    rows = [row | {"date": "Nov 2, 2026"} for row in ROWS]
    collection, log = open_own(write(tmp_path / "log.jsonl", rows))
    assert labelled(collection) == {"bread": {"2": 1}, "tea": {"3": 2}}
    assert len(log.searches()) == len(ROWS)


def own(folder: Path) -> tuple[Path, Path]:
    """(a collection of two passages, a log of one search on it)."""
    (folder / "shop").mkdir(parents=True)
    (folder / "shop" / "corpus.jsonl").write_text('{"_id": "1", "text": "loaf"}\n{"_id": "2", "text": "knife"}')
    return folder / "shop", write(folder / "log.jsonl", [{"query": "bread", "results": ["1", "2"], "clicked": ["2"]}])


def test_collection_and_log_come_from_the_settings(tmp_path, monkeypatch):
    shop, log = own(tmp_path / "data")
    monkeypatch.setenv("COLLECTION", str(shop))
    monkeypatch.setenv("LOG", str(log))
    collection, searches = open_own()
    assert collection.corpus == {"1": "loaf", "2": "knife"}
    assert labelled(collection) == {"bread": {"2": 1}}
    assert searches.searches()["query"].tolist() == ["bread"]
    monkeypatch.delenv("LOG")
    collection, searches = open_own()
    assert (collection.name, collection.queries, searches) == (own_name(shop), {}, None)


def test_a_relative_path_is_looked_up_from_the_workbooks_folder_too(tmp_path, monkeypatch):
    shop, log = own(tmp_path / "data")
    alone = write(tmp_path / "data" / "searches.jsonl", ROWS)
    (tmp_path / "elsewhere" / "deep" / "down").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "elsewhere" / "deep" / "down")
    relative = [os.path.relpath(path, ROOT) for path in (shop, log, alone)]
    assert not any(Path(path).exists() for path in relative)
    collection, searches = open_own(relative[0], relative[1])
    assert labelled(collection) == {"bread": {"2": 1}}
    assert len(searches.searches()) == 1
    assert open_own(relative[2])[0].corpus == {"1": "loaf", "2": "knife", "3": "kettle"}


def test_a_result_without_an_id_is_named(tmp_path):
    with pytest.raises(WorkbookError, match="line 1: a result has no id"):
        open_own(write(tmp_path / "log.jsonl", [{"query": "x", "results": [{"text": "y"}]}]))


def test_what_is_no_log_is_said(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("# A\n\nSome text.")
    with pytest.raises(WorkbookError, match="is not a search log"):
        open_own(tmp_path / "docs", write(tmp_path / "x.jsonl", [{"a": 1}]))


def test_headings_ask_for_what_follows_them():
    long = "eight words or more follow here, and then some"
    corpus = {
        "a.md#1": f"a.md › Cutting bread: {long}",
        "b": f"Toasting a bun\n{long}",
        "c": f"One: {long}",
        "d": "Short tail: few words",
        "e": f"toasting a bun. {long}",
        "f": "no heading at all here",
    }
    queries, positives, headless = headings(corpus)
    assert "Cutting bread" in queries.values()
    assert sum(text.lower() == "toasting a bun" for text in queries.values()) == 1
    assert len(queries) == 2
    heading = {text: q for q, text in queries.items()}["Cutting bread"]
    assert positives[heading] == {f"a.md#1{HEADLESS}": 1}
    assert headless[f"a.md#1{HEADLESS}"] == long

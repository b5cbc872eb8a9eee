"""Runs of services that are kept with their day, for readers without a key."""

import pytest

from helpers.collection.collection import Collection
from helpers.evaluation import recorded
from helpers.evaluation.recorded import keep_run, recorded_runs
from helpers.store.files import WorkbookError

QUERIES = {"q1": "what?", "q2": "who?"}
OWN = Collection("own", {"a": "apple", "b": "pear"}, QUERIES, {"test": {"q1": {"a": 1}, "q2": {"b": 1}}})
RUN = {"q1": {"a": 0.5, "b": 0.25}, "q2": {"b": 1.0}}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(recorded, "RUNS", tmp_path)
    return tmp_path


def test_a_kept_run_comes_back_under_its_name_and_day():
    file = keep_run(OWN, "test", "text-embedding-3-small", RUN, "2026-11-30")
    assert file.name == "text-embedding-3-small.2026-11-30.tsv.gz"
    assert recorded_runs(OWN, "test") == {"text-embedding-3-small (recorded on 2026-11-30)": RUN}


def test_there_are_none_for_another_split_or_collection():
    keep_run(OWN, "test", "some model", RUN, "2026-11-30")
    assert recorded_runs(OWN, "dev") == {}
    assert recorded_runs(Collection("other", OWN.corpus, QUERIES, OWN.qrels), "test") == {}


def test_new_judgments_keep_a_run_and_new_queries_leave_it_out(capsys):
    keep_run(OWN, "test", "some model", RUN, "2026-11-30")
    judged = Collection("own", OWN.corpus, QUERIES, {"test": {"q1": {"a": 1, "b": 2}, "q2": {"b": 1}}})
    assert list(recorded_runs(judged, "test")) == ["some model (recorded on 2026-11-30)"]
    asked = Collection("own", OWN.corpus, {**QUERIES, "q2": "when?"}, OWN.qrels)
    assert recorded_runs(asked, "test") == {}
    assert "Left out: " in capsys.readouterr().out


def test_a_file_with_another_name_is_left_out_with_a_sentence(folder, capsys):
    keep_run(OWN, "test", "some model", RUN, "2026-11-30").rename(folder / "own" / "test" / "mine.tsv.gz")
    assert recorded_runs(OWN, "test") == {}
    assert "mine.tsv.gz is not named as system.YYYY-MM-DD.tsv.gz" in capsys.readouterr().out


def test_a_name_that_is_no_files_is_refused():
    with pytest.raises(WorkbookError, match="cannot be part of a file's name"):
        keep_run(OWN, "test", "a/b", RUN)

"""Answers kept on disk: each the moment it is there, none lost to a line that a crash cut short, from many threads."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from helpers.store.answers import Answers
from helpers.store.files import WorkbookError


def test_an_answer_is_on_disk_when_it_is_kept_and_read_again(tmp_path):
    answers = Answers(tmp_path / "deep" / "answers.jsonl")
    assert "a" not in answers
    answers.keep({"a": [0.1 + 0.2, "line\nbreak \u2028 \ud83d"]})
    assert json.loads(answers.file.read_text()) == ["a", answers["a"]]
    answers.keep({"a": 1, "b": None})
    assert Answers(answers.file) == answers == {"a": 1, "b": None}


@pytest.mark.parametrize("rubbish", [b'\n["c", "caf\xc3', b"\n\xff\xfe\x00\x00", b"\n\n\n", b"\n{", b"\n"])
def test_a_line_that_was_cut_short_is_ignored_and_spoils_no_later_one(tmp_path, rubbish):
    file = tmp_path / "answers.jsonl"
    Answers(file).keep({"a": 1, "b": 2})
    with file.open("ab") as stream:
        stream.write(rubbish)
    again = Answers(file)
    assert again == {"a": 1, "b": 2}
    again.keep({"c": 3})
    assert Answers(file) == {"a": 1, "b": 2, "c": 3}


def test_threads_keep_their_answers_at_the_same_time(tmp_path):
    answers = Answers(tmp_path / "answers.jsonl")
    expected = {str(i): "x" * 10_000 for i in range(200)}
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda item: answers.keep(dict([item])), expected.items()))
    assert Answers(answers.file) == answers == expected


def test_a_file_that_cannot_be_written_is_one_sentence_and_keeps_nothing(tmp_path):
    (tmp_path / "folder").write_text("a file where the folder should be")
    answers = Answers(tmp_path / "folder" / "answers.jsonl")
    with pytest.raises(WorkbookError, match=r"^Cannot write .*free some space and run again\.$"):
        answers.keep({"a": 1})
    assert not answers

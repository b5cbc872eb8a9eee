"""Stages: kept under the key of their inputs, told once a run, made again when something changed or broke."""

import pytest

from helpers.stages import Stages
from helpers.store import WorkbookError


def test_a_stage_is_worked_on_once_and_kept_for_the_next_run(tmp_path):
    lines, calls = [], []

    def make():
        calls.append(1)
        return {"a": [1, 2.5], "ü": None}

    first = Stages(tmp_path, lines.append)
    assert first.run("a stage: x/y", ["key"], make, lambda value: f"{len(value)} things") == {"a": [1, 2.5], "ü": None}
    second = Stages(tmp_path, lines.append)
    assert second.run("a stage: x/y", ["key"], make) == {"a": [1, 2.5], "ü": None}
    second.run("a stage: x/y", ["key"], make)
    assert len(calls) == 1
    assert (first.made, first.kept, second.made, second.kept) == (["a stage: x/y"], [], [], ["a stage: x/y"])
    assert len(lines) == 2
    assert lines[0].endswith("2 things")
    assert "kept" in lines[1]


def test_another_input_makes_it_anew(tmp_path):
    stages = Stages(tmp_path, lambda line: None)
    assert [stages.run("s", [key], lambda key=key: key) for key in (1, 2, 2, 1)] == [1, 2, 2, 1]
    assert stages.made == ["s", "s", "s"]


@pytest.mark.parametrize("broken", ["", '{"key": "', "[1]", "7", '{"key": "another", "value": 3}'])
def test_a_broken_file_is_made_again(tmp_path, broken):
    stages = Stages(tmp_path, lambda line: None)
    stages.file("s").write_text(broken)
    assert stages.run("s", [], lambda: 5) == 5


def test_a_stage_that_fails_leaves_what_was_there(tmp_path):
    stages = Stages(tmp_path, lambda line: None)
    stages.run("s", [1], lambda: "old")
    with pytest.raises(KeyboardInterrupt):
        stages.run("s", [2], lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    assert Stages(tmp_path, lambda line: None).run("s", [1], lambda: "new") == "old"


def test_two_names_of_the_same_words_have_two_files(tmp_path):
    stages = Stages(tmp_path, lambda line: None)
    stages.run("weight of a + b", [], lambda: 1)
    stages.run("weight of a, b", [], lambda: 2)
    assert Stages(tmp_path, lambda line: None).run("weight of a + b", [], lambda: 3) == 1


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkbookError, match="Cannot create"):
        Stages(tmp_path / "file" / "below")

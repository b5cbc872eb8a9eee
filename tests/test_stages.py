"""Stages: kept under a key derived from all inputs, told once a run, made again when something changed or broke."""

from dataclasses import dataclass

import numpy as np
import pytest
from fakes import FakeEmbedder

from helpers.collection.collection import Collection
from helpers.labels import gates
from helpers.store.files import WorkbookError
from helpers.store.stages import Stages, key_of, thresholds

calls: list = []
LEAST = 3  # a threshold of `above`


def quiet(folder) -> Stages:
    return Stages(folder, lambda line: None)


def same(value):
    calls.append(value)
    return value


def above(numbers: list[int], most: int = 9) -> list[int]:
    return [n for n in numbers if LEAST < n < most]


def counted(numbers: list[int]) -> int:
    return len(above(numbers))


def stopped(value):
    raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def _no_calls():
    calls.clear()


def test_a_stage_is_worked_on_once_and_kept_for_the_next_run(tmp_path):
    lines, value = [], {"a": [1, 2.5], "ü": None}
    first = Stages(tmp_path, lines.append)
    assert first.run("a stage: x/y", same, value, tell=lambda value: f"{len(value)} things") == value
    second = Stages(tmp_path, lines.append)
    assert second.run("a stage: x/y", same, value) == value
    second.run("a stage: x/y", same, value)
    assert len(calls) == 1
    assert (first.made, first.kept, second.made, second.kept) == (["a stage: x/y"], [], [], ["a stage: x/y"])
    assert len(lines) == 2
    assert lines[0].endswith("2 things")
    assert "kept" in lines[1]


def test_another_input_makes_it_anew(tmp_path):
    stages = quiet(tmp_path)
    assert [stages.run("s", same, value) for value in (1, 2, 2, 1)] == [1, 2, 2, 1]
    assert stages.made == ["s", "s", "s"]


def test_another_threshold_makes_it_anew_its_own_and_those_of_what_it_calls(tmp_path, monkeypatch):
    assert quiet(tmp_path).run("s", counted, [2, 4, 6]) == 2
    monkeypatch.setattr("test_stages.LEAST", 5)
    assert quiet(tmp_path).run("s", counted, [2, 4, 6]) == 1
    assert set(thresholds(counted)) == {*thresholds(above), "test_stages: counted"}


def test_a_default_of_a_parameter_that_is_left_out_is_an_input(tmp_path, monkeypatch):
    assert quiet(tmp_path).run("s", above, [2, 4, 6]) == [4, 6]
    monkeypatch.setattr(above, "__defaults__", (5,))
    assert quiet(tmp_path).run("s", above, [2, 4, 6]) == [4]


def test_a_function_that_reaches_for_variables_around_it_is_refused(tmp_path):
    hidden = 5

    def reaching(value):
        return value + hidden

    for make in (reaching, lambda value: value + hidden, [].append):
        with pytest.raises(TypeError, match="'s' needs a function that gets all it uses as inputs"):
            quiet(tmp_path).run("s", make, 1)


def test_an_input_of_which_nobody_can_tell_that_it_changed_is_refused(tmp_path):
    with pytest.raises(TypeError, match="s: value: nothing tells when a object changes"):
        quiet(tmp_path).run("s", same, object())


@dataclass
class Pair:
    text: str
    number: float


def test_keys_differ_where_the_values_do():
    corpus = {"a": "apple"}
    values = [
        1,
        "1",
        b"1",
        [1],
        {"a": 1},
        {"a": 2},
        None,
        {1, 2},
        np.zeros(2),
        np.zeros((2, 1)),
        np.zeros(2, dtype=np.float32),
        Pair("a", 1),
        Pair("a", 2),
        Pair("b", 1),
        [Pair("a", 1)],
        FakeEmbedder("a"),
        FakeEmbedder("b"),
        Collection("c", corpus),
        Collection("c", corpus, {"q": "x"}),
        Collection("c", corpus, {"q": "x"}, {"test": {"q": {"a": 1}}}),
    ]
    keys = [str(key_of(value)) for value in values]
    assert len(set(keys)) == len(keys)
    assert keys == [str(key_of(value)) for value in values]
    assert key_of({2, 1}) == key_of({1, 2})


def test_the_gates_thresholds_are_found():
    found = set(thresholds(gates.check_questions))
    assert {
        "helpers.labels.gates: LEAK_WORDS",
        "helpers.labels.gates: MOST_OVERLAP",
        "helpers.labels.gates: check_questions",
    } <= found


@pytest.mark.parametrize("broken", ["", '{"key": "', "[1]", "7", '{"key": "another", "value": 3}'])
def test_a_broken_file_is_made_again(tmp_path, broken):
    stages = quiet(tmp_path)
    stages.file("s").write_text(broken)
    assert stages.run("s", same, 5) == 5


def test_a_stage_that_fails_leaves_what_was_there(tmp_path):
    quiet(tmp_path).run("s", same, "old")
    with pytest.raises(KeyboardInterrupt):
        quiet(tmp_path).run("s", stopped, "old")
    assert quiet(tmp_path).run("s", same, "old") == "old"
    assert len(calls) == 1


def test_two_names_of_the_same_words_have_two_files(tmp_path):
    stages = quiet(tmp_path)
    stages.run("weight of a + b", same, 1)
    stages.run("weight of a, b", same, 2)
    assert quiet(tmp_path).run("weight of a + b", same, 1) == 1
    assert calls == [1, 2]


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkbookError, match="Cannot create"):
        Stages(tmp_path / "file" / "below")

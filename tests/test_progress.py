"""How far a long work is: a bar for who watches, few whole lines for a log, nothing where it is not wanted."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from helpers.course.run import execute
from helpers.store.files import ROOT
from helpers.store.progress import progress_bar, tracked


class Clock:
    """A clock that stands still until it is set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _shown(monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def work(clock: Clock, seconds: float, total: int = 1000, what: str = "Encoding (document)", unit: str = "text"):
    """Do all of it, evenly over the seconds."""
    with progress_bar(total, what, unit, clock=clock) as bar:
        for i in range(1, total + 1):
            clock.now = seconds * i / total
            bar.update(1)


def test_work_of_less_than_ten_seconds_says_nothing(clock, capsys):
    work(clock, 9)
    assert capsys.readouterr().err == ""


def test_a_log_gets_a_few_whole_lines(clock, capsys):
    work(clock, 65, total=3144)
    shown = capsys.readouterr().err
    assert "\r" not in shown
    assert shown.endswith("\n")
    lines = shown.splitlines()
    assert 2 <= len(lines) <= 7
    assert lines[0] == "Encoding (document): 484 of 3,144 texts, 15 %, about 55 s left"
    assert lines[-1] == "Encoding (document): 3,144 texts in 65 s"


def test_between_two_lines_are_ten_seconds(clock, capsys):
    times = []
    with progress_bar(1000, "Reranking", "query", clock=clock) as bar:
        for i in range(1000):
            clock.now = i * 0.3
            bar.update(1)
            if capsys.readouterr().err:
                times.append(clock.now)
    assert 25 <= len(times) <= 29
    assert min(b - a for a, b in zip([0, *times], times, strict=False)) >= 10


@pytest.mark.parametrize(
    ("at", "seconds", "line"),
    [
        (1280, 17.2, "Asking m: 1,280 of 3,144 queries, 41 %, about 25 s left"),
        (1572, 1000, "Asking m: 1,572 of 3,144 queries, 50 %, about 17 min left"),
        (3143, 86400, "Asking m: 3,143 of 3,144 queries, 99 %, about 27 s left"),
        (1, 10, "Asking m: 1 of 3,144 queries, 0 %, about 8.7 h left"),
    ],
)
def test_a_line_says_how_far_and_how_long(clock, capsys, at, seconds, line):
    bar = progress_bar(3144, "Asking m", "query", clock=clock)
    clock.now = seconds
    bar.update(at)
    assert capsys.readouterr().err == line + "\n"


def test_what_was_done_before_is_counted_and_takes_no_time(clock, capsys):
    with progress_bar(100, "Training mine", "step", done=50, clock=clock) as bar:
        assert bar.n == 50
        bar.set_postfix_str("dev nDCG@10 0.512")
        clock.now = 10
        bar.update(10)
        assert bar.n == 60
    first, last = capsys.readouterr().err.splitlines()
    assert first == "Training mine: 60 of 100 steps, 60 %, about 40 s left, dev nDCG@10 0.512"
    assert last == "Training mine: 60 of 100 steps in 10 s, dev nDCG@10 0.512"  # it stopped early, or failed


def test_the_last_line_comes_once(clock, capsys):
    bar = progress_bar(1, "Reading", "file", clock=clock)
    clock.now = 20
    bar.update(1)
    assert capsys.readouterr().err == ""
    bar.close()
    bar.close()
    assert capsys.readouterr().err == "Reading: 1 file in 20 s\n"


def test_tracked_items_come_as_they_are_and_are_counted(clock, capsys):
    found = []
    for item in tracked({"a": 1, "b": 2, "c": 3}.items(), "Chunking", "document", clock=clock):
        found.append(item)
        clock.now += 10
    assert found == [("a", 1), ("b", 2), ("c", 3)]
    assert capsys.readouterr().err.splitlines() == [
        "Chunking: 1 of 3 documents, 33 %, about 20 s left",
        "Chunking: 2 of 3 documents, 67 %, about 10 s left",
        "Chunking: 3 documents in 30 s",
    ]


def test_a_terminal_gets_a_bar_that_goes_away(clock, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    work(clock, 65)
    shown = sys.stderr.getvalue()
    assert re.search(r"\rEncoding \(document\): +\d+%\|", shown)
    assert shown.endswith(" \r")
    assert "\n" not in shown


@pytest.mark.parametrize("stream", [Terminal, io.StringIO])
def test_nothing_is_shown_when_tqdm_is_disabled(clock, monkeypatch, stream):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.setattr(sys, "stderr", stream())
    work(clock, 65)
    assert list(tracked([1, 2], "Chunking", "document")) == [1, 2]
    with progress_bar(10, "Training mine", "step", done=5) as bar:
        bar.update(5)
        bar.set_postfix_str("dev nDCG@10 0.512")
    assert sys.stderr.getvalue() == ""


@pytest.mark.parametrize(("settings", "drawn"), [({}, True), ({"TQDM_DISABLE": "1"}, False)])
def test_an_open_notebook_gets_the_bar(tmp_path, settings, drawn):
    cell = (
        "from helpers.store.progress import progress_bar\n"
        "with progress_bar(3, 'Working', 'step') as bar:\n    bar.update(3)"
    )
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)]), tmp_path / "a.ipynb")
    execute(tmp_path / "a.ipynb", tmp_path / "b.ipynb", {**os.environ, **settings})
    shown = "".join(output["text"] for output in nbformat.read(tmp_path / "b.ipynb", as_version=4).cells[0].outputs)
    assert ("Working: " in shown and "%|" in shown) == drawn
    assert drawn or shown == ""


def piped(code: str, *arguments: str) -> str:
    """What a Python process writes to a stderr that is a pipe."""
    settings = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    process = subprocess.run([sys.executable, "-c", code, *arguments], env=settings, capture_output=True)
    assert process.returncode == 0, process.stderr.decode()
    return process.stderr.decode()


ENCODE = """
import sys
from pathlib import Path
from fakes import FakeEmbedder
from helpers.collection.chunking import chunk_documents
from helpers.models.embed import CachedEmbedder
from helpers.models.load import load_encoder, load_late_interaction

CachedEmbedder(FakeEmbedder(), Path(sys.argv[1])).embed([f"text number {i}" for i in range(600)], "document")
chunk_documents({str(i): "A sentence. " * 5 for i in range(200)}, "fixed size")
load_encoder(), load_late_interaction()
"""

TRAIN = """
import sys
from pathlib import Path
from datasets import Dataset
from fakes import tiny_encoder
from helpers.collection.collection import Collection
from helpers.training.fitting import Recipe, fit
from helpers.models.load import load_trained
from helpers.models.packaged import quiet_files
from helpers.course.relations import DevRelation

texts = {f"t{i}": f"text number {i} of {'tea' if i % 2 else 'coffee'}" for i in range(16)}
with quiet_files():  # the tests' own encoder, which the course does not make
    encoder = tiny_encoder(Path(sys.argv[1]))
dev = DevRelation(texts, {a: {b: 1 for b in texts if b != a} for a in texts})
rows = Dataset.from_dict({"anchor": list(texts.values()), "positive": list(texts.values())[::-1]})
recipe = Recipe(epochs=1, batch_size=8, fewest_steps=2, evaluations=2, dimensions=())
tuned = fit(Collection("tiny", texts), "mine", encoder, rows, dev, recipe)
load_trained(tuned.folder, type(encoder))
"""


@pytest.mark.parametrize("code", [ENCODE, pytest.param(TRAIN, marks=pytest.mark.slow)], ids=["encode", "train"])
def test_a_log_gets_no_bar_whoever_would_draw_it(code, tmp_path):
    shown = piped(code, str(tmp_path))
    assert "\r" not in shown
    assert "%|" not in shown


def test_nobody_but_the_progress_module_draws_bars():
    for path in (ROOT / "helpers").rglob("*.py"):
        assert path.stem == "progress" or not re.search(r"^\s*(from|import) tqdm", path.read_text(), re.M), path.name

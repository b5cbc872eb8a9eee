"""Running the course: notebooks in order, failures that name the cell, the scoreboard and the report;
and the set-up's files.
"""

import re
import tomllib

import nbformat
import pytest

from helpers.collection.collection import Collection, own_name
from helpers.course import run as course
from helpers.evaluation import report
from helpers.evaluation.measures import record
from helpers.store.files import ROOT, SETTINGS, WorkbookError

TINY = Collection(
    "tiny", {"a": "apple tart", "b": "bread"}, {"q1": "apple", "q2": "loaf"}, {"test": {"q1": {"a": 1}, "q2": {"b": 2}}}
)


def write_notebook(folder, name, *cells):
    folder.mkdir(parents=True, exist_ok=True)
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbformat.write(nb, folder / name)
    return folder / name


@pytest.fixture
def own_course(tmp_path, monkeypatch):
    """A course of its own in tmp_path, so that a run takes seconds."""
    monkeypatch.setattr(course, "ROOT", tmp_path)
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "one.md").write_text("# Apples\nApples are round.\n")
    monkeypatch.setenv("COLLECTION", str(docs))
    monkeypatch.setenv("WORKBOOK_BUILD", str(tmp_path / "build"))
    return tmp_path


def test_notebooks_come_in_order_and_by_number(own_course):
    for name in ("02_b.ipynb", "00_a.ipynb", "10_c.ipynb", "draft.ipynb"):
        write_notebook(own_course / "notebooks", name, "1")
    assert [p.name for p in course.notebooks()] == ["00_a.ipynb", "02_b.ipynb", "10_c.ipynb"]
    assert [p.name for p in course.notebooks("10, 00")] == ["00_a.ipynb", "10_c.ipynb"]
    with pytest.raises(WorkbookError, match=r"no notebook '07'.*00, 02, 10"):
        course.notebooks("02 07")


def test_a_run_executes_into_build_prints_a_line_each_and_writes_the_report(own_course, capsys):
    write_notebook(own_course / "notebooks", "00_a.ipynb", "import os; print(os.environ['COLLECTION'])")
    course.run_notebooks()
    shown = capsys.readouterr().out
    assert re.search(r"^00_a +\d+ s$", shown, re.M)
    assert "no judged queries" in shown
    made = nbformat.read(
        own_course / "build" / own_name(own_course / "docs") / "notebooks" / "00_a.ipynb", as_version=4
    )
    assert made.cells[0].outputs[0]["text"].strip() == str(own_course / "docs")
    assert (own_course / "build" / own_name(own_course / "docs") / "report.html").is_file()


def test_a_run_leaves_no_progress_in_the_notebooks(own_course):
    working = (
        "from helpers.store.progress import progress_bar\n"
        "with progress_bar(3, 'Working', 'step') as bar:\n    bar.update(3)"
    )
    path = write_notebook(own_course / "notebooks", "00_a.ipynb", working)
    course.run_notebooks()
    (made,) = (own_course / "build").glob(f"*/notebooks/{path.name}")
    assert nbformat.read(made, as_version=4).cells[0].outputs == []


def test_a_failing_notebook_stops_with_its_name_the_cell_and_the_error_and_keeps_its_outputs(
    own_course, capsys, monkeypatch
):
    write_notebook(own_course / "notebooks", "00_a.ipynb", "print('fine')", "1 / 0", "print('never')")
    write_notebook(own_course / "notebooks", "02_b.ipynb", "print('never')")
    monkeypatch.setattr("sys.argv", ["course", "run"])
    assert course.main() == 1
    shown = capsys.readouterr()
    assert "00_a.ipynb stopped at cell 2: ZeroDivisionError: division by zero" in shown.err
    assert "02_b" not in shown.out
    made = nbformat.read(
        own_course / "build" / own_name(own_course / "docs") / "notebooks" / "00_a.ipynb", as_version=4
    )
    assert made.cells[0].outputs[0]["text"] == "fine\n"


def test_a_missing_collection_ends_in_one_sentence(own_course, capsys, monkeypatch):
    monkeypatch.setenv("COLLECTION", "no-such-place")
    monkeypatch.setattr("sys.argv", ["course", "run"])
    assert course.main() == 1
    assert "no-such-place" in capsys.readouterr().err


def test_refresh_leaves_nothing_of_this_machine(own_course):
    path = write_notebook(own_course / "notebooks", "00_a.ipynb", "print('hello')")
    course.refresh()
    notebook = nbformat.read(path, as_version=4)
    assert notebook.cells[0].outputs[0]["text"] == "hello\n"
    assert notebook.cells[0].metadata == {}
    assert set(notebook.metadata) == {"kernelspec", "language_info"}


def test_committed_notebooks_are_executed_without_any_setting_of_a_person(own_course, monkeypatch):
    for name in SETTINGS:
        monkeypatch.setenv(name, "mine")
    shown = f"import os; print({{n: os.environ[n] for n in {SETTINGS} if n in os.environ}})"
    path = write_notebook(own_course / "notebooks", "00_a.ipynb", shown)
    course.refresh()
    assert nbformat.read(path, as_version=4).cells[0].outputs[0]["text"] == "{'COLLECTION': 'pydocs'}\n"


NO_RESULT = re.compile(r"WORKBOOK_BUILD|LANCE_LOG|(HF|TQDM)_\w+")  # where things go, and what is shown meanwhile


def variables_of(text: str) -> set[str]:
    """The environment variables a module reads: by their names, or in a loop over quoted WORDS_LIKE_THIS."""
    if not re.search("environ|getenv", text):
        return set()
    named = re.findall(r"""(?:os\.environ(?:\.\w+\(|\[)|getenv\()\s*["'](\w+)["']""", text)
    return {*named, *re.findall(r"""["']([A-Z]+(?:_[A-Z0-9]+)+)["']""", text)}


def test_every_setting_that_is_read_is_in_the_list_of_settings():
    read = set().union(*(variables_of(path.read_text()) for path in (ROOT / "helpers").rglob("*.py")))
    assert {name for name in read if not NO_RESULT.fullmatch(name)} == set(SETTINGS)


def test_make_test_sees_no_setting_of_a_person():
    cleared = re.findall(r"^test check audit: export (\w+) :=[ \t]*$", (ROOT / "Makefile").read_text(), re.M)
    assert set(SETTINGS) <= set(cleared)


def test_the_report_is_one_page_with_scoreboard_figures_and_verdicts_and_loads_nothing():
    from matplotlib.figure import Figure

    record(TINY, "test", "BM25 <plain>", {"q1": {"a": 1.0}}, "02_baselines", ms=1.5)
    figure = Figure(figsize=(1, 1))
    figure.subplots().plot([1, 2])
    findings = report.Findings(TINY, "02_baselines")
    findings.show("line", figure, "A line & more.")
    findings.say("decision", "Keep BM25.")
    findings.say("decision", "Keep BM25, really.")
    page = report.write_report(TINY).read_text(encoding="utf-8")
    assert "BM25 &lt;plain&gt;" in page
    assert "Keep BM25, really." in page
    assert "Keep BM25.<" not in page
    assert 'src="data:image/png;base64,' in page
    assert "A line &amp; more." in page
    assert not re.search(r'(?:src|href)="?(?:https?:|//|/)', page)


def test_findings_of_an_older_collection_are_dropped():
    report.Findings(TINY, "02_baselines").say("decision", "Old news.")
    newer = Collection("tiny", {"a": "apple pie"}, TINY.queries, {"test": {"q1": {"a": 1}}})
    assert "Old news." not in report.write_report(newer).read_text(encoding="utf-8")


def test_format_scoreboard_puts_the_best_first():
    record(TINY, "test", "worse", {"q1": {"a": 1.0}}, "02_baselines")
    record(TINY, "test", "better", {"q1": {"a": 1.0}, "q2": {"b": 1.0}}, "02_baselines", ms=2.0, usd=0.5)
    from helpers.evaluation.measures import read_scoreboard

    table = report.format_scoreboard(read_scoreboard(TINY))
    assert list(table.index) == ["better", "worse"]
    assert table.loc["better", "nDCG@10"] == "1.000"
    assert table.loc["worse", "nDCG@10"] == "0.500"


def pins(text: str) -> set[str]:
    return set(re.findall(r"^[ -]*([A-Za-z0-9_.-]+==[\w.]+)$", text, re.M))


def test_the_conda_environment_has_the_same_pins_as_the_lock():
    lock = pins((ROOT / "requirements.txt").read_text())
    assert len(lock) > 100
    assert pins((ROOT / "environment.yml").read_text()) == lock


def test_every_direct_dependency_is_pinned_and_justified():
    text = (ROOT / "pyproject.toml").read_text()
    names = {p.split("==")[0].lower().replace("_", "-") for p in pins((ROOT / "requirements.txt").read_text())}
    direct = tomllib.loads(text)["project"]["dependencies"]
    assert {d.lower() for d in direct} <= names
    for name in direct:
        assert re.search(rf'^  "{re.escape(name)}", +# \w', text, re.M), f"say what {name} is for"


def test_every_imported_package_is_a_direct_dependency():
    modules = {"bs4": "beautifulsoup4", "sklearn": "scikit-learn", "Stemmer": "pystemmer", "rank_bm25": "rank-bm25"}
    carried = {
        "helpers",
        "pyarrow",
        "tqdm",
        "nbformat",
        "nbclient",
        "huggingface_hub",
        "tokenizers",
        "werkzeug",
        "IPython",
    }
    import sys

    direct = {d.lower() for d in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]}
    for path in (ROOT / "helpers").rglob("*.py"):
        for name in re.findall(r"^\s*(?:from|import) (\w+)", path.read_text(), re.M):
            if name in sys.stdlib_module_names or name in carried:
                continue
            assert modules.get(name, name).replace("_", "-") in direct, f"{path.name} imports {name}"


def test_ci_runs_the_readmes_test_command():
    assert "make test" in (ROOT / "README.md").read_text()
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith("make test")


ROOMS = "store models collection retrieval evaluation labels training homework course".split()


def test_the_helpers_have_these_rooms_and_nothing_beside_them():
    found = {path.name for path in (ROOT / "helpers").iterdir() if not path.name.startswith("__")}
    assert found == set(ROOMS)
    for room in ROOMS:
        assert (ROOT / "helpers" / room / "__init__.py").read_text().startswith('"""'), "say what lives there"


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_knows_those_before_it_and_none_after_it(room):
    for path in sorted((ROOT / "helpers" / room).glob("*.py")):
        text = path.read_text()
        assert "from helpers import" not in text, path.name
        known = re.findall(r"^\s*(?:from|import) helpers\.(\w+)", text, re.M)
        assert all(ROOMS.index(other) <= ROOMS.index(room) for other in known), path.name

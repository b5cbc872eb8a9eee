"""Every notebook in notebooks/, found by glob: its form, its outputs, its exercises."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from helpers.course import exercises
from helpers.labels.redaction import redact
from helpers.store.files import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("**/*.ipynb"))
TO_DO = [p for p in NOTEBOOKS if p.parent.name != "solutions"]  # those with exercises to fill in
MACHINE_PATH = re.compile(r"/(home|Users|root|work|tmp|private)/\w|[A-Z]:\\\\")


def load(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def source(cell: dict) -> str:
    return "".join(cell["source"])


def code_cells(notebook: dict) -> list[dict]:
    return [c for c in notebook["cells"] if c["cell_type"] == "code" and source(c).strip()]


def outputs(notebook: dict) -> list[str]:
    return [json.dumps(o, ensure_ascii=False) for c in code_cells(notebook) for o in c["outputs"]]


def text_of(output: dict) -> str:
    return "".join(output.get("text", "")) + "".join(output.get("data", {}).get("text/plain", ""))


@pytest.fixture(params=NOTEBOOKS, ids=lambda p: p.stem)
def notebook(request) -> dict:
    return load(request.param)


def test_there_are_notebooks():
    assert len(NOTEBOOKS) >= 2


def test_it_opens_with_what_you_will_do_learn_and_need(notebook):
    opening = source(notebook["cells"][0])
    assert opening.startswith("# ")
    for heading in ("**What you will do.**", "**What you will learn.**", "**What you need.**"):
        assert heading in opening
    assert re.search(r"minutes?", opening)


def test_it_closes_with_what_we_did_and_what_to_do_on_monday(notebook):
    closing = source(notebook["cells"][-1])
    assert "## In this notebook we" in closing
    assert "**On Monday at work:**" in closing


def test_it_was_executed_top_to_bottom_in_a_fresh_kernel(notebook):
    counts = [c["execution_count"] for c in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))


def test_no_output_shows_an_error_a_warning_or_a_path_of_one_machine(notebook):
    for cell in code_cells(notebook):
        for output in cell["outputs"]:
            assert output["output_type"] != "error"
            assert output.get("name") != "stderr"
            shown = text_of(output)
            assert "Warning" not in shown
            assert not MACHINE_PATH.search(shown)


def test_no_key_is_shown(notebook):
    for output in outputs(notebook):
        assert not re.search(r"\bsk-[A-Za-z0-9_-]{10,}", output)


def test_code_cells_are_short_and_most_are_very_short(notebook):
    lengths = sorted(len([line for line in source(c).splitlines() if line.strip()]) for c in code_cells(notebook))
    assert lengths[-1] <= 20
    assert lengths[len(lengths) // 2] <= 8


def test_every_code_cell_is_introduced_or_discussed(notebook):
    """No run of more than three code cells without a word in between."""
    run = 0
    for cell in notebook["cells"]:
        run = run + 1 if cell["cell_type"] == "code" else 0
        assert run <= 3


def test_its_metadata_names_no_machine(notebook):
    assert notebook["metadata"] == {
        "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }


def test_prose_types_in_no_result(notebook):
    """Scores with three decimals are computed and printed, never typed; only the meaning of 1.000 is explained."""
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            assert set(re.findall(r"\b[01]\.\d{3}\b", source(cell))) <= {"1.000"}


def test_the_map_in_00_has_every_notebook_that_is_there_as_ready():
    cells = load(ROOT / "notebooks" / "00_start_here.ipynb")["cells"]
    text = next(source(cell) for cell in cells if "| notebook | the question it answers |" in source(cell))
    rows = re.findall(r"^\|\W*(\d\d) ([^|]*)\|[^|]*\| *([^|]*?) *\|$", text, re.M)
    there = {p.name[:2]: p.name for p in TO_DO if not p.name.startswith("00")}
    assert {number for number, _, state in rows if state == "ready"} == set(there)
    assert all(f"]({there[number]})" in name for number, name, state in rows if state == "ready")
    assert not {number for number, _, state in rows if state == "to come"} & set(there)


def test_each_of_the_three_worlds_of_01_has_a_heading_of_its_own():
    heading, under = "", {}
    for cell in load(ROOT / "notebooks" / "01_what_is_similar.ipynb")["cells"]:
        if cell["cell_type"] == "markdown":
            heading = (re.findall(r"^## (.+)$", source(cell), re.M) or [heading])[-1]
        for world in ("statements", "read_profiles", "read_products"):  # drinks, dating, products
            if cell["cell_type"] == "code" and f"{world}(" in source(cell):
                under.setdefault(world, heading)
    assert len(under) == 3
    assert len(set(under.values())) == 3, under


def exercises_of(notebook: dict) -> list[tuple[str, str, str]]:
    """(number, the check's cell, the folded solution) of each exercise."""
    found = []
    cells = notebook["cells"]
    for i, cell in enumerate(cells):
        if "exercise" in cell["metadata"].get("tags", []):
            before, check, after = source(cells[i - 1]), source(cells[i + 1]), source(cells[i + 2])
            number = re.findall(r"\*\*Exercise (\d\d\.\d+)\*\* \((?:easy|medium|hard), \d+ minutes?\)", before)[-1]
            assert "<summary>Hint</summary>" in after
            solution = after.split("<summary>Solution</summary>")[1].split("</details>")[0]
            found.append((number, check, re.search(r"```python\n(.*?)```", solution, re.S)[1]))
    return found


@pytest.mark.parametrize("path", TO_DO, ids=lambda p: p.stem)
def test_each_exercise_has_difficulty_minutes_hint_solution_and_check(path):
    found = exercises_of(load(path))
    assert found, "a notebook without an exercise"
    assert [number for number, _, _ in found] == [f"{path.stem[:2]}.{i}" for i in range(1, len(found) + 1)]
    assert all("check_" in check for _, check, _ in found)


def checked(number: str, given: str, capsys, pydocs_collection) -> str:
    """What the notebook's check prints for a solution's code, run where the notebook would run it."""
    from helpers.evaluation.measures import per_query

    qrels = {"q1": {"a": 1}, "q2": {"b": 2}, "q3": {"c": 1}, "q4": {"d": 1}}
    good = {q: {next(iter(docs)): 2.0, "z": 1.0} for q, docs in qrels.items()}
    bad = {"q1": {"z": 1.0}, "q2": {"z": 2.0, "b": 1.0}, "q3": {"z": 3.0, "y": 2.0, "c": 1.0}, "q4": {"d": 1.0}}

    class Fixed:
        def __init__(self, run):
            self.run = run

        def retrieve(self, queries):
            return self.run

    gates = pd.DataFrame({"one": [True, False, False, False], "other": [False, True, True, False]})
    per_topic = pd.DataFrame({"searches": [10, 90], "no click": [0.9, 0.5]}, index=["small", "large"])
    names = {
        "checked": gates,
        "GATES": tuple(gates),
        "redact": redact,
        "per_topic": per_topic,
        "per_query": per_query,
        "exercises": exercises,
        "collection": pydocs_collection,
        "dev": {},
        "dev_qrels": qrels,
        "dense": Fixed(good),
        "hybrid": Fixed(bad),
    }
    notebook = next(p for p in TO_DO if p.stem.startswith(number[:2]))
    check = {n: c for n, c, _ in exercises_of(load(notebook))}[number]
    exec(given, names)
    capsys.readouterr()
    exec(check, names)
    return capsys.readouterr().out


# The homework's solutions need what its other cells make: test_student.py runs them.
SOLUTIONS = [(n, s) for p in TO_DO if not p.stem.startswith("11") for n, _, s in exercises_of(load(p))]


@pytest.mark.parametrize(("number", "solution"), SOLUTIONS, ids=[n for n, _ in SOLUTIONS])
def test_the_solution_passes_the_check_with_one_line(number, solution, capsys, pydocs_collection):
    shown = checked(number, solution, capsys, pydocs_collection)
    assert shown.startswith("✓ ")
    assert shown.count("\n") == 1


@pytest.mark.parametrize(
    ("number", "wrong"),
    [
        ("00.1", "answer = 7"),
        (
            "02.1",
            (
                "def precision_at(judged, ranking, k): "
                "return sum(judged.get(d, 0) > 0 for d in ranking[:k]) / len(ranking)"
            ),
        ),
        ("02.1", "def precision_at(judged, ranking, k): return None"),
        ("02.2", "def rrf(rankings, constant): return rankings[0]"),
        ("02.2", "def rrf(rankings): return []"),
        ("02.3", "three_losses = ['q4', 'q3', 'q2']"),
        ("03.1", "def copied(question, passage): return len(set(question.split()) & set(passage.split()))"),
        ("03.1", "def copied(question, passage): return None"),
        ("03.2", "def leaks_into(question, queries): return [i for i, text in queries.items() if text == question]"),
        ("03.3", "decisive = 'other way round'"),
        ("04.1", "def redact_staff(text): return redact(text)"),
        ("04.1", "def redact_staff(text): return text.replace('E-20417', '[staff]')"),
        ("04.2", "def corrected_rate(shown, examined): return sum(c for _, c in shown) / len(shown)"),
        ("04.3", "most_unhappy = per_topic['no click'].idxmax()"),
        (
            "05.1",
            (
                "def to_pairs(examples): "
                "return [{'question': r['question'], 'answer': r['positive_examples'][0]} for r in examples]"
            ),
        ),
        ("05.2", "def hard_negatives(scores, positives, n, margin): return sorted(scores, key=scores.get)[-n:]"),
        ("05.3", "def leaked(train, held_out): return len(set(train) & set(held_out)) / len(held_out)"),
        ("06.1", "def in_batch_loss(cosines, scale): return -sum(row[i] for i, row in enumerate(cosines))"),
        ("06.2", "def shorten(vector, width): return vector[:width]"),
        ("06.2", "def shorten(vector, width): return None"),
        (
            "06.3",
            "def unseen(qrels, trained): return sorted(q for q, docs in qrels.items() if not set(docs) & trained)",
        ),
        ("07.1", "def max_sim(table): return max(max(row) for row in table)"),
        ("07.2", "def frontier_of(systems): return sorted(systems, key=lambda name: systems[name][0])"),
        ("07.3", "def reranked_top(first, scores, k): return sorted(first, key=lambda d: -scores[d])[:k]"),
    ],
)
def test_a_wrong_answer_fails_with_one_sentence(number, wrong, capsys, pydocs_collection):
    shown = checked(number, wrong, capsys, pydocs_collection)
    assert shown.startswith("Not yet: ")
    assert shown.count("\n") == 1

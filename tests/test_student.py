"""The student's homework: made from the solutions, run untouched, and filled in cell by cell."""

import json
import re
from pathlib import Path

import nbformat
import pytest
from cells import Notebook
from fakes import random_texts
from werkzeug import Response

from helpers.collection.collection import Collection
from helpers.course import exercises_homework, student
from helpers.store.files import WorkbookError

SOURCE, TARGET = student.paths()


def code(source: str, *tags: str):
    cell = nbformat.v4.new_code_cell(source)
    if tags:
        cell.metadata["tags"] = list(tags)
    return cell


def book(*cells) -> nbformat.NotebookNode:
    return nbformat.v4.new_notebook(cells=list(cells))


def test_the_committed_student_version_is_what_the_solutions_give():
    made = student.student_version(nbformat.read(SOURCE, as_version=4))
    found = nbformat.read(TARGET, as_version=4)
    assert [(c.id, c.cell_type, c.source, c.metadata) for c in made.cells] == [
        (c.id, c.cell_type, c.source, c.metadata) for c in found.cells
    ]
    assert made.metadata == found.metadata


def test_an_exercise_becomes_its_names_and_the_solution_goes_below_the_hint():
    hint = f"{student.HINT}\n\nThink.\n\n</details>\n\nMore text."
    solution = "import math\n\n\ndef area(r):\n    return math.pi * r**2\n\n\nhelper = 2\nanswer = area(helper)"
    made = student.student_version(
        book(code(solution, "exercise"), code("check(area, answer)"), nbformat.v4.new_markdown_cell(hint))
    )
    assert made.cells[0].source == "area = ...\nanswer = ..."
    assert made.cells[1].source == "check(area, answer)"
    assert (
        f"<details><summary>Solution</summary>\n\n```python\n{solution}\n```\n\n</details>\n\nMore text."
        in made.cells[2].source
    )


def test_outputs_go_and_other_cells_stay():
    cell = code("1 + 1")
    cell.outputs, cell.execution_count = [nbformat.v4.new_output("stream", text="2")], 3
    made = student.student_version(book(cell))
    assert (made.cells[0].source, made.cells[0].outputs, made.cells[0].execution_count) == ("1 + 1", [], None)


def test_links_lead_from_one_folder_higher():
    cells = [
        nbformat.v4.new_markdown_cell("See [02](../02_baselines.ipynb) and [04](../04_relevance_and_traffic.ipynb).")
    ]
    made = student.student_version(book(*cells))
    assert made.cells[0].source == "See [02](02_baselines.ipynb) and [04](04_relevance_and_traffic.ipynb)."


@pytest.mark.parametrize("check", ["check(other)", "check()"])
def test_an_exercise_whose_check_looks_elsewhere_is_refused(check):
    cells = [code("answer = 1", "exercise"), code(check), nbformat.v4.new_markdown_cell(f"{student.HINT}\n</details>")]
    with pytest.raises(WorkbookError, match="Cell 0 is tagged exercise"):
        student.student_version(book(*cells))


def test_made_again_a_cell_keeps_its_outputs_and_takes_the_solutions_tags(tmp_path, monkeypatch):
    same_cells = {"id": "cell-00", "source": "print(2)"}
    source, target = (tmp_path / name / "11_homework.ipynb" for name in ("solutions", "notebooks"))
    output = nbformat.v4.new_output("stream", text="2\n")
    for path, tags, outputs in ((source, [], []), (target, ["nbval-ignore-output"], [output])):
        path.parent.mkdir()
        cell = nbformat.v4.new_code_cell(**same_cells, metadata={"tags": tags}, outputs=outputs, execution_count=1)
        nbformat.write(book(cell), path)
    monkeypatch.setattr(student, "paths", lambda: (source, target))
    monkeypatch.setattr(student, "ROOT", tmp_path)
    assert student.main() == 0
    (cell,) = nbformat.read(target, as_version=4).cells
    assert (cell.outputs, cell.execution_count, cell.metadata.tags) == ([output], 1, [])


# Run on a small collection, with a service as the LLM ranker


def small(place: Path) -> Path:
    texts = [f"{text} number {i} of them" for i, text in enumerate(random_texts(200, seed=3, words=60, length=9))]
    (place / "qrels").mkdir(parents=True)
    (place / "corpus.jsonl").write_text("\n".join(json.dumps({"_id": f"d{i}", "text": t}) for i, t in enumerate(texts)))
    asked = [" ".join([*t.split()[:3], f"number {i}"]) for i, t in enumerate(texts)]
    (place / "queries.jsonl").write_text(
        "\n".join(json.dumps({"_id": f"q{i}", "text": t}) for i, t in enumerate(asked))
    )
    for split, positions in (("train", range(100)), ("dev", range(100, 150)), ("test", range(150, 200))):
        rows = "\n".join(f"q{i}\td{i}\t1" for i in positions)
        (place / "qrels" / f"{split}.tsv").write_text(f"query-id\tcorpus-id\tscore\n{rows}")
    return place


def judged(request):
    told = request.get_json()["messages"][-1]["content"]
    query, passage = (part.split() for part in re.match(r"Query: (.*?)\s+Passage: (.*)", told, re.S).groups())
    answer = json.dumps({"reason": "the number", "grade": 2 if query[-1] in passage else 0})
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": answer}}
    body = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    return Response(json.dumps(body), content_type="application/json")


class Student(Notebook):
    """The student's notebook, with the solutions beside it, some of which a test fills in."""

    def __init__(self):
        super().__init__(TARGET)
        self.solved = Notebook(SOURCE).cells


def last(text: str) -> str:
    return text.strip().splitlines()[-1]


@pytest.fixture
def notebook(tmp_path, tiny_folder, monkeypatch, httpserver):
    httpserver.expect_request("/v1/chat/completions", method="POST").respond_with_handler(judged)
    for name, value in {
        "ENCODER_MODEL": str(tiny_folder),
        "RERANKER_MODEL": "none",
        "COLLECTION": str(small(tmp_path / "small")),
        "TQDM_DISABLE": "1",
        "NO_PROXY": "localhost",
        "OPENAI_BASE_URL": httpserver.url_for("/v1"),
        "LLM_MODEL": "gpt-4.1-nano",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("LOG", raising=False)
    return Student()


def test_untouched_it_runs_and_says_what_is_left_and_filled_in_each_check_turns(notebook):
    checks = [i + 1 for i in notebook.exercises()]
    printed = {i: notebook.run(i) for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"}
    assert len(checks) == len(exercises_homework.TASKS)
    for i, number in zip(checks, exercises_homework.TASKS, strict=True):
        assert printed[i].startswith(f"Left to do: {number}, ")
        assert printed[i].count("\n") == 1
    final = max(printed)
    assert "0 of 10 done" in printed[final]
    for done, i in enumerate(notebook.exercises(), 1):
        notebook.run(i, notebook.solved[i].source)
        said = notebook.run(i + 1)
        assert said.startswith("✓ "), said
        assert said.count("\n") == 1
        assert f"{done} of 10 done" in notebook.run(final)
    assert "make homework COLLECTION=" in notebook.run(final)


def test_wrong_answers_fail_with_one_sentence(notebook):
    for i, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            notebook.run(i)
    wrong = {
        "11.1": [
            "evaluation_set = 7",
            "evaluation_set = ({}, {})",
            "evaluation_set = (data.queries, data.positives)",
            "evaluation_set = (dev, {q: {'nowhere': 1} for q in dev})",
            "evaluation_set = (dev, {q: list(dev_qrels[q]) for q in dev})",
        ],
        "11.2": [
            "baselines = {'bm25': 1}",
            "baselines = {'BM25': {}, 'encoder': {}, 'hybrid': {}}",
            "baselines = dict.fromkeys(('BM25', 'encoder', 'hybrid', 'two stages'), {})",
            "baselines = dict.fromkeys(('BM25', 'encoder', 'hybrid', 'two stages'), ['d1', 'd2'])",
            "baselines = dict.fromkeys(('BM25', 'encoder', 'hybrid', 'two stages'), {q: ['d1', 'd2'] for q in dev})",
            (
                "baselines = "
                "dict.fromkeys(('BM25', 'encoder', 'hybrid', 'HYBRID: BM25 + encoder'), dense.retrieve(dev, 100))"
            ),
            "baselines = dict.fromkeys(('BM25 → encoder', 'hybrid'), dense.retrieve(dev, 100))",
        ],
        "11.3": [
            "chunk_recall = {'fixed size': 0.5, 'sentence': 0.4}",
            "chunk_recall = {'a': 'x', 'b': 1}",
            "chunk_recall = 3",
        ],
        "11.4": ["low_precision = []", "low_precision = sorted(precision, key=precision.get, reverse=True)[:5]"],
        "11.5": [
            "flywheel = [{'day': 'Monday'}]",
            "flywheel = [{'day': 'Monday', 'step': 'sample', 'who': 'A', 'minutes': 1}]",
            *(
                f"flywheel = [{{'day': {day!r}, 'step': s, 'who': {who!r}, 'minutes': {minutes!r}}} "
                "for s in homework.STEPS]"
                for day, who, minutes in (
                    ("Monday", "", 1),
                    ("Monday", "A", 100),
                    ("d", "A", 1),
                    ("Monday", None, 1),
                    ("Monday", "A", "30"),
                    ("Monday", "A", -5),
                    ("Monday", "A", 0),
                )
            ),
        ],
        "11.6": [
            "recall_by_task, weakest = {}, ''",
            "recall_by_task, weakest = dict.fromkeys(subtasks, 0.5), next(iter(subtasks))",
            "recall_by_task, weakest = dict(zip(subtasks, (0.1, 0.2, 0.3))), 'query → snippet'",
            "recall_by_task, weakest = dict.fromkeys(subtasks), min(subtasks)",
            "recall_by_task, weakest = dict(zip(subtasks, (2.0, 3.0, 4.0))), next(iter(subtasks))",
        ],
        "11.7": [
            "triplets = []",
            (
                "from helpers.training import build_triplets\n"
                "triplets = build_triplets(collection.corpus, dev, dev_qrels, 'in-batch')"
            ),
            "triplets = build_triplets(collection.corpus, data.queries, data.positives, 'in-batch')",
            "triplets = build_triplets(collection.corpus, dev, dev_qrels, 'random')",
        ],
        "11.8": [
            "reranker_helps = 'yes'",
            "reranker_helps = not (against.iloc[0]['adjusted'] < 0.05 and against.iloc[0]['difference'] > 0)",
        ],
        "11.9": ["enough_for = 'encoder'", "enough_for = 100"],
        "11.10": [
            "hosting = {'self': 0.0, 'API': 0.0}",
            "hosting = 3",
            "hosting = {'self': ..., 'API': ...}",
            "hosting = {'self': 'x', 'API': 1}",
        ],
    }
    for i, number in zip(notebook.exercises(), exercises_homework.TASKS, strict=True):
        for answer in wrong[number]:
            notebook.run(i, answer)
            said = notebook.run(i + 1)
            assert said.startswith("Not yet: "), (answer, said)
            assert said.count("\n") == 1
    assert "not yet" in notebook.run(max(j for j, c in enumerate(notebook.cells) if c.cell_type == "code"))


@pytest.mark.parametrize(
    "answer",
    [
        {"a": "x", "b": 1},
        {"a": 0.5, "b": 0.4},
        {"fixed size": "x", "sentence": 1},
        {"fixed size": None, "sentence": None},
        {"fixed size": 0.5},
        {"fixed size": 0.5, "sentence": 1.5},
        {},
        ["fixed size", "sentence"],
        7,
    ],
)
def test_wrong_recalls_of_chunkers_fail_with_one_sentence_where_there_are_pages(answer, capsys):
    exercises_homework.check_11_chunkers(answer, Collection("own", {"a#1": "text"}, pages={"a": "text"}))
    said = capsys.readouterr().out
    assert said.startswith("Not yet: ")
    assert said.count("\n") == 1


def test_recalls_of_two_chunkers_are_right_where_there_are_pages(capsys):
    given = {"fixed size": 0.5, "structure-aware": 0.75}
    exercises_homework.check_11_chunkers(given, Collection("own", {"a#1": "text"}, pages={"a": "text"}))
    assert capsys.readouterr().out == "✓ highest recall first: structure-aware 0.75, fixed size 0.50.\n"


def test_the_worst_queries_come_with_what_was_found_for_them(capsys):
    precision = {f"query {i} <b>": i / 10 for i in range(7)}
    found = {query: [f"passage {i} of {query}" for i in range(5)] for query in precision}
    shown = exercises_homework.check_11_low_precision(list(precision)[:5], precision, found).data
    assert [shown.count(f"of query {i} &lt;b&gt;") for i in range(7)] == [3] * 5 + [0] * 2
    assert shown.index("passage 0 of query 1") < shown.index("passage 1 of query 1") < shown.index("query 2")
    assert exercises_homework.check_11_low_precision(list(precision), precision, found) is None
    assert capsys.readouterr().out.count("\n") == 2

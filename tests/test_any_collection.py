"""The rule of the course: its notebooks run on any collection and in any order.

They say in a sentence what they skip.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
from cells import Notebook, StandIn, course
from fakes import random_texts

from helpers.retrieval.first_stages import Retriever

NUMBERS = ("02", "03", "04", "05", "06", "07", "11")
TEXTS = [f"{text} number {i} of them" for i, text in enumerate(random_texts(160, seed=3, words=60, length=9))]


def beir(place: Path) -> Path:
    """160 passages with a query each, in two slices: 80 to train on, 40 to choose by, 40 to test with."""
    (place / "qrels").mkdir(parents=True)
    asked = [" ".join([*text.split()[:3], f"number {i}"]) for i, text in enumerate(TEXTS)]
    for name, prefix, texts in (("corpus", "d", TEXTS), ("queries", "q", asked)):
        kinds = [{"metadata": {"slice": ("short", "long")[i % 2]}} if prefix == "q" else {} for i in range(len(texts))]
        rows = [json.dumps({"_id": f"{prefix}{i}", "text": text, **kinds[i]}) for i, text in enumerate(texts)]
        (place / f"{name}.jsonl").write_text("\n".join(rows))
    for split, positions in (("train", range(80)), ("dev", range(80, 120)), ("test", range(120, 160))):
        rows = [f"q{i}\td{i}\t1" for i in positions]
        (place / "qrels" / f"{split}.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *rows]))
    return place


def documents(place: Path) -> Path:
    """Forty Markdown pages of four paragraphs, and nothing else."""
    place.mkdir(parents=True)
    for page in range(40):
        parts = [f"## Part {i}\n\n{TEXTS[i].capitalize()}. And it goes on." for i in range(4 * page, 4 * page + 4)]
        (place / f"page{page}.md").write_text(f"# Page {page}\n\n" + "\n\n".join(parts))
    return place


def as_they_come(systems: Sequence[Retriever], *_, **__) -> pd.DataFrame:
    """In place of ``latencies``: each system takes a millisecond more than the one before it."""
    columns = ("ms", "ms_p95", "ms_low", "ms_high")
    return pd.DataFrame({system.name: dict.fromkeys(columns, float(i)) for i, system in enumerate(systems, 1)}).T


def run(order: tuple[str, ...], build: Path, collection: Path, encoder: Path) -> dict[str, str]:
    """{number: all that it prints} of notebooks in an order, in a build folder of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("helpers.models.llm.SmolLM2", StandIn)
        patch.setattr("helpers.labels.gates.SAME_COSINE", 2.0)  # to an encoder of random weights all texts are alike
        patch.setattr("helpers.labels.gates.LEAK_COSINE", 2.0)
        patch.setattr("helpers.evaluation.latencies", as_they_come)  # timing is not what is tested
        for name, value in {
            "WORKBOOK_BUILD": build,
            "COLLECTION": collection,
            "ENCODER_MODEL": encoder,
            "RERANKER_MODEL": "none",
            "TQDM_DISABLE": 1,
        }.items():
            patch.setenv(name, str(value))
        paths = {path.name[:2]: path for path in course()}
        return {number: "".join(Notebook(paths[number]).run_all().values()) for number in order}


def scoreboard(build: Path) -> pd.DataFrame:
    """The rows of the one collection in a build folder, without who wrote them last and what a clock decides."""
    board = pd.read_csv(next(build.glob("*/scoreboard.csv")))
    clock = ["ms_per_query", "ms_p95", "ms_low", "ms_high"]
    return board.drop(columns=[*clock, "notebook"]).sort_values(["split", "system"]).reset_index(drop=True)


def skipped(printed: dict[str, str]) -> dict[str, list[str]]:
    """{number: the sentences that say what is skipped or not there}, without the name and place of the collection."""
    words = ("Skipped", "Refused", "There is no", "none is set", "no row", "none, no key")
    found = {n: [line for line in text.splitlines() if any(w in line for w in words)] for n, text in printed.items()}
    plain = {n: [re.sub(r"COLLECTION=\S+ |data-[0-9a-f]{6}", "", line) for line in lines] for n, lines in found.items()}
    return {n: [re.sub(r"there are \d+", "there are N", line) for line in lines] for n, lines in plain.items()}


@pytest.fixture(scope="module")
def on_beir(tmp_path_factory, tiny_folder) -> tuple[Path, dict[str, str]]:
    """(where it is, what the notebooks print on it)."""
    place = tmp_path_factory.mktemp("beir")
    return place, run(NUMBERS, place / "build", beir(place / "data"), tiny_folder)


@pytest.fixture(scope="module")
def on_documents(tmp_path_factory, tiny_folder) -> tuple[Path, dict[str, str]]:
    """(where they are, what the notebooks print on them)."""
    place = tmp_path_factory.mktemp("documents")
    return place, run(NUMBERS, place / "build", documents(place / "data"), tiny_folder)


def test_these_are_the_notebooks_that_open_a_collection():
    assert {path.name[:2] for path in course()} == {"00", *NUMBERS}


NO_KEY = ["rows of services: none, no key is set"]
NO_COHERE = ["no row for Cohere: no key is set"]
SAME_QUERIES = ["There is no test split: the queries that chose are asked again, so the scores below are too good."]
TOO_FEW = ["Refused: The format asks for at least 256 unique queries, and there are N: collect more."]
UNSURE = [
    "Skipped: this collection's judgments come in one piece; look at Judged@10 above.",
    "Skipped: no passage was judged wrong, so there is nothing to compare the right ones with.",
]


def evidence(*tables: str) -> list[str]:
    """What is said of tables that nobody has made for this collection."""
    return [f"Skipped: `make evidence ONLY={table}` makes this evidence for ." for table in tables]


@pytest.mark.slow
def test_on_judged_queries_nothing_is_skipped_that_could_be_done(on_beir):
    assert skipped(on_beir[1]) == {
        "02": ["Skipped: comparing chunkers needs whole documents and judged dev queries."],
        "03": [],
        "04": [],
        "05": [],
        "06": [
            *evidence("learning-curve", "negatives"),
            *NO_KEY,
            UNSURE[0],
            *evidence("texts"),
            UNSURE[1],
            *evidence("recipes"),
        ],
        "07": [*evidence("rerankers"), *NO_COHERE, *TOO_FEW],
        "11": [],
    }


@pytest.mark.slow
def test_on_documents_alone_what_needs_judgments_is_skipped_and_the_rest_is_done(on_documents):
    no_groups = "Skipped: the queries carry no groups"
    assert skipped(on_documents[1]) == {
        "02": [
            "Skipped below: every score, because this collection has no relevance judgments.",
            "Skipped: the queries are of one kind.",
            f"{no_groups}, or there are no judgments.",
            "Skipped: comparing chunkers needs whole documents and judged dev queries.",
        ],
        "03": [
            "Skipped: this collection has no queries that could leak.",
            "Skipped: without a judged test split there is nothing to compare with.",
        ],
        "04": [
            "Skipped: calibration needs at least 10 judged dev queries. Judge some by hand first; "
            "until then no automatic grade below can be trusted.",
            "Skipped: without judged dev queries there is nothing to calibrate on.",
        ],
        "05": ["Skipped: without judged dev queries nobody knows which negatives are false. Read fifty."],
        "06": [
            *evidence("learning-curve", "negatives"),
            *SAME_QUERIES,
            *NO_KEY,
            UNSURE[0],
            *evidence("texts"),
            UNSURE[1],
            f"{no_groups}.",
            *evidence("recipes"),
        ],
        "07": [*evidence("rerankers"), *SAME_QUERIES, *NO_COHERE, *TOO_FEW],
        "11": ["Skipped: judge some dev queries first."],
    }
    assert "Training on " in on_documents[1]["06"]


@pytest.mark.slow
def test_on_judged_queries_all_kinds_of_system_are_on_tests_scoreboard(on_beir):
    board = scoreboard(on_beir[0] / "build")
    on_test = board[board["split"] == "test"]
    assert set(on_test["n_queries"]) == {40}
    assert on_test["ndcg@10"].between(0.05, 1).all()
    assert {
        "BM25",
        "encoder",
        "hybrid (RRF)",
        "hybrid (weighted)",
        "encoder → late interaction",
        "encoder + late interaction",
        "encoder + questions",
        "encoder + adapter",
        "tuned encoder",
        "tuned encoder + adapter",
        "tuned hybrid (weighted)",
        "query-side tuned encoder",
        "tuned encoder + late interaction",
        "tuned encoder + tuned late interaction",
    } <= set(on_test["system"])


@pytest.mark.slow
def test_the_last_first_gives_the_same(on_beir, tmp_path, tiny_folder):
    run(("07", "06", "02"), tmp_path / "build", on_beir[0] / "data", tiny_folder)
    pd.testing.assert_frame_equal(scoreboard(tmp_path / "build"), scoreboard(on_beir[0] / "build"))

"""The rules that the shipped questions and judgments keep."""

import hashlib
import json
import re
from collections import Counter

import pytest
from sklearn.metrics import cohen_kappa_score

from helpers.store.files import DATA

pytestmark = pytest.mark.audit
PYDOCS = DATA / "pydocs"
QUERIES = [json.loads(line) for line in (PYDOCS / "queries.jsonl").read_text(encoding="utf-8").splitlines()]
UNANSWERABLE = [
    json.loads(line) for line in (PYDOCS / "queries_unanswerable.jsonl").read_text(encoding="utf-8").splitlines()
]
TEXTS = {query["_id"]: query["text"] for query in QUERIES}
SHIPPED = sorted(
    p.relative_to(DATA).as_posix()
    for p in DATA.rglob("*")
    if p.is_file() and p != DATA / "README.md" and not p.name.startswith(".")
)


def rows(path) -> list[list[str]]:
    """The cells of a TSV file without its header."""
    return [line.split("\t") for line in path.read_text(encoding="utf-8").split("\n")[1:] if line]


JUDGED = {split: rows(PYDOCS / "qrels" / f"{split}.tsv") for split in ("dev", "test")}
ALL_JUDGED = [row for split in JUDGED.values() for row in split]
SECOND = rows(PYDOCS / "second_judging.tsv")


def naming_their_answer(texts: dict[str, str], judged: list[list[str]]) -> set[str]:
    """Queries that hold, as a word, the last part of the name of an answer of grade 2."""
    answers = [(query, name.split(".")[-1]) for query, name, grade, *_ in judged if grade == "2"]
    return {q for q, last in answers if re.search(rf"(?<!\w){re.escape(last)}(?!\w)", texts[q], re.IGNORECASE)}


def share_of_commonest_opening(texts: list[str]) -> float:
    """The share of texts that begin with the same three words."""
    openings = Counter(" ".join(re.findall(r"\w+", text.lower())[:3]) for text in texts)
    return max(openings.values()) / len(texts)


@pytest.fixture(scope="module")
def readme() -> str:
    return (DATA / "README.md").read_text(encoding="utf-8")


def test_there_are_300_queries_with_their_own_ids_and_texts():
    assert len(QUERIES) == len(TEXTS) == 300
    assert len({" ".join(text.lower().split()) for text in TEXTS.values()}) == 300


def test_100_are_for_dev_and_200_others_for_test():
    dev, test = ({row[0] for row in JUDGED[split]} for split in ("dev", "test"))
    assert (len(dev), len(test)) == (100, 200)
    assert dev | test == set(TEXTS)
    assert not dev & test


def test_few_queries_name_their_answer():
    assert len(naming_their_answer(TEXTS, ALL_JUDGED)) <= len(TEXTS) / 10


def test_queries_that_name_their_answer_are_noticed():
    texts = {"a": "how does Resample work", "b": "hourly averages", "c": "resampled means"}
    judged = [[q, "pandas.DataFrame.resample", "2", ""] for q in texts] + [["b", "numpy.averages", "1", ""]]
    assert naming_their_answer(texts, judged) == {"a"}


def test_queries_are_not_made_from_a_template():
    assert share_of_commonest_opening(list(TEXTS.values())) <= 0.03


def test_queries_made_from_a_template_are_noticed():
    varied = [f"{n} is where it begins" for n in range(95)]
    templated = ["How do I sort?", "how do I, flip", "HOW DO I slice", "How do I sum", "how do i cut"]
    assert share_of_commonest_opening(varied) < 0.03
    assert share_of_commonest_opening(varied + templated) == 0.05


def test_each_kind_of_query_is_at_least_a_quarter():
    kinds = Counter(query["metadata"]["kind"] for query in QUERIES)
    assert set(kinds) == {"keyword", "problem", "question"}
    assert min(kinds.values()) >= 300 / 4


def test_each_library_is_at_least_fifteen_percent():
    libraries = Counter(query["metadata"]["library"] for query in QUERIES)
    assert set(libraries) == {"numpy", "pandas", "scipy", "scikit-learn", "matplotlib"}
    assert min(libraries.values()) >= 0.15 * 300


def test_judged_ids_are_in_the_collection(pydocs_collection):
    assert {row[1] for row in ALL_JUDGED} <= pydocs_collection.corpus.keys()


def test_the_opened_collection_has_these_queries_and_judgments(pydocs_collection):
    assert pydocs_collection.queries == TEXTS
    for split, judged in JUDGED.items():
        opened = pydocs_collection.qrels[split]
        assert sorted((q, d, str(g)) for q, docs in opened.items() for d, g in docs.items()) == sorted(
            tuple(row[:3]) for row in judged
        )


def test_no_pair_is_judged_twice():
    assert len({tuple(row[:2]) for row in ALL_JUDGED}) == len(ALL_JUDGED)


def test_grades_are_0_1_or_2():
    assert {row[2] for row in ALL_JUDGED} == {"0", "1", "2"}


def test_every_relevant_judgment_has_a_reason_in_one_line_and_no_other_has():
    assert {len(row) for row in ALL_JUDGED} == {4}
    assert [row for row in ALL_JUDGED if (row[2] != "0") != bool(row[3].strip())] == []


def test_every_query_has_a_full_answer():
    assert {row[0] for row in ALL_JUDGED if row[2] == "2"} == set(TEXTS)


def test_fifteen_unanswerable_queries_stand_apart_with_a_reason_each():
    texts = {query["text"] for query in UNANSWERABLE}
    ids = {query["_id"] for query in UNANSWERABLE}
    assert len(UNANSWERABLE) == len(texts) == len(ids) == 15
    assert not texts & set(TEXTS.values())
    assert not ids & set(TEXTS)
    assert all(query["metadata"]["why"].strip() for query in UNANSWERABLE)


def test_200_judged_pairs_were_judged_again():
    first = {tuple(row[:2]) for row in ALL_JUDGED}
    second = {tuple(row[:2]) for row in SECOND}
    assert len(second) == len(SECOND) == 200
    assert second <= first
    assert {row[2] for row in SECOND} <= {"0", "1", "2"}


@pytest.mark.parametrize(("weights", "stated"), [(None, "κ = 0.83"), ("quadratic", "κ = 0.91")])
def test_the_agreement_stated_is_the_agreement_found(weights, stated, readme):
    first = {tuple(row[:2]): int(row[2]) for row in ALL_JUDGED}
    kappa = cohen_kappa_score([first[tuple(row[:2])] for row in SECOND], [int(r[2]) for r in SECOND], weights=weights)
    assert f"κ = {kappa:.2f}" == stated
    assert re.search(rf"(?m)^.*{re.escape(stated)}(?!\d)", readme)


def test_the_later_pairs_and_the_check_pairs_are_judged():
    judged = {tuple(row[:2]) for row in ALL_JUDGED}
    later = [tuple(row[:2]) for row in rows(PYDOCS / "later.tsv")]
    check = [tuple(row[:2]) for row in rows(PYDOCS / "later_check.tsv")]
    assert len(set(later)) == len(later)
    assert len(set(check)) == len(check)
    assert set(later) < judged
    assert set(check) < judged


@pytest.mark.parametrize(("weights", "stated"), [(None, "κ = 0.94"), ("quadratic", "κ = 0.98")])
def test_the_later_judges_use_the_scale_of_the_first(weights, stated, readme):
    first = {tuple(row[:2]): int(row[2]) for row in ALL_JUDGED}
    check = rows(PYDOCS / "later_check.tsv")
    kappa = cohen_kappa_score([first[tuple(r[:2])] for r in check], [int(r[2]) for r in check], weights=weights)
    assert f"κ = {kappa:.2f}" == stated
    assert stated in readme


@pytest.mark.parametrize("name", SHIPPED)
def test_the_readme_names_each_file(name, readme):
    assert name in readme


def test_the_fingerprints_in_the_readme_are_right(readme):
    stated = dict(re.findall(r"(?m)^\|\s*`?([\w./-]+)`?\s*\|.*\|\s*`?([0-9a-f]{64})`?\s*\|", readme))
    assert {name for name in SHIPPED if name.startswith("pydocs/")} <= stated.keys()
    assert stated == {name: hashlib.sha256((DATA / name).read_bytes()).hexdigest() for name in stated}

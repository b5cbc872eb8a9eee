"""The rules that the shipped questions and judgments keep."""

import hashlib
import json
import re
from collections import Counter

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from helpers.collection.repeats import Repeats, SharedWords
from helpers.store.files import DATA

pytestmark = pytest.mark.audit
PYDOCS = DATA / "pydocs"
QUERIES = [json.loads(line) for line in (PYDOCS / "queries.jsonl").read_text(encoding="utf-8").splitlines()]
UNANSWERABLE = [
    json.loads(line) for line in (PYDOCS / "queries_unanswerable.jsonl").read_text(encoding="utf-8").splitlines()
]
TEXTS = {query["_id"]: query["text"] for query in QUERIES}
DESCRIBED, TYPED = (
    {query["_id"]: query["text"] for query in QUERIES if query["metadata"]["slice"] == name}
    for name in ("described", "typed")
)
LIBRARIES = "numpy|np|pandas|pd|scipy|scikit-?learn|scikit learn|sklearn|sklaern|matplotlib|plt|pyplot"
OBJECTS = (
    "data ?fr|df|dfs|array|arr|colum|row|cell|index|axis|axes|series|matri|vector|list|dict|string|text|value|number|"
    "date|time|csv|xlsx|sheet|excel|file|json|table|group|plot|figure|chart|bar|legend|label|tick|title|subplot|image|"
    "color|colour|line|point|histogram|contour|scatter|model|feature|cluster|class|pipeline|target|sample|fold|token|"
    "document|signal|curve|spline|function|distribution|peak|filter|integral|equation|tree|dtype|element|nan|duplicat|"
    "int|float|bool|uint8|byte|backend|fft|eigen|determinant|distance|graph|batch|grid|kmeans|score|metric|probabilit"
)
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


def test_there_are_298_described_and_300_typed_queries_with_their_own_ids_and_texts():
    assert (len(DESCRIBED), len(TYPED)) == (298, 300)
    assert len(QUERIES) == len(TEXTS) == 598
    assert len({" ".join(text.lower().split()) for text in TEXTS.values()}) == 598


def test_100_of_each_slice_are_for_dev_and_the_others_for_test():
    dev, test = ({row[0] for row in JUDGED[split]} for split in ("dev", "test"))
    assert [(len(dev & set(part)), len(test & set(part))) for part in (DESCRIBED, TYPED)] == [(100, 198), (100, 200)]
    assert dev | test == set(TEXTS)
    assert not dev & test


def test_few_described_queries_name_their_answer():
    assert len(naming_their_answer(DESCRIBED, [row for row in ALL_JUDGED if row[0] in DESCRIBED])) <= 298 / 10


def share(texts: dict[str, str], pattern: str) -> float:
    """The share of texts in which the pattern is found, capitals or not."""
    return sum(bool(re.search(pattern, text, re.IGNORECASE)) for text in texts.values()) / len(texts)


def test_typed_queries_are_as_long_as_what_people_type():
    words = np.array([len(text.split()) for text in TYPED.values()])
    assert abs(np.percentile(words, 10) - 5) <= 1
    assert abs(np.median(words) - 9) <= 1
    assert abs(np.percentile(words, 90) - 13) <= 1


def test_typed_queries_name_libraries_and_objects_as_often_as_people_do():
    assert abs(share(TYPED, rf"\b({LIBRARIES})\b") - 0.60) <= 0.10
    assert abs(share(TYPED, rf"\b({OBJECTS})") - 0.85) <= 0.10
    assert abs(share(TYPED, r"^(how|what|why|can|is)\b") - 0.30) <= 0.10


def test_typed_queries_have_function_names_and_error_messages_in_some():
    named = naming_their_answer(TYPED, [row for row in ALL_JUDGED if row[0] in TYPED])
    underscored = {q for q, text in TYPED.items() if re.search(r"\w_\w|\.\w+\(|\w\(\)", text)}
    assert 0.05 <= len(named | underscored) / 300 <= 0.30
    assert 0.03 <= share(TYPED, r"\w+(Error|Warning)\b|cannot|must be|ambiguous|mismatch|unexpected") <= 0.15


def test_typed_queries_come_from_ten_briefs_that_are_shipped():
    briefs = Counter(query["metadata"]["brief"] for query in QUERIES if query["_id"] in TYPED)
    assert set(briefs) == {file.stem for file in (PYDOCS / "briefs").glob("*.md")} - {"all", "training"}
    assert len(briefs) == 10
    assert min(briefs.values()) >= 25


def test_no_training_question_nor_sentence_is_typed_again(pydocs_collection):
    questions = [json.loads(line)["text"] for line in (PYDOCS / "questions.jsonl").read_text().splitlines()]
    sentences = [text for queries, _ in pydocs_collection.sentences.values() for text in queries.values()]
    repeats = Repeats([*questions, *sentences])
    assert [text for text in TYPED.values() if repeats(text)] == []


TYPED_QUESTIONS = [json.loads(line) for line in (PYDOCS / "questions_typed.jsonl").read_text().splitlines()]


def test_at_least_2500_questions_are_typed_on_at_least_1500_passages(pydocs_collection):
    assert len(TYPED_QUESTIONS) >= 2500
    assert len({q["doc"] for q in TYPED_QUESTIONS}) >= 1500
    assert {q["doc"] for q in TYPED_QUESTIONS} <= set(pydocs_collection.corpus)
    assert len({q["_id"] for q in TYPED_QUESTIONS}) == len({q["text"].lower() for q in TYPED_QUESTIONS})
    assert {q["kind"] for q in TYPED_QUESTIONS} == {"typed"}


def test_typed_questions_are_as_long_and_name_as_much_as_what_people_type():
    texts = {q["_id"]: q["text"] for q in TYPED_QUESTIONS}
    words = np.array([len(text.split()) for text in texts.values()])
    assert words.max() <= 18
    assert abs(np.percentile(words, [10, 50, 90]) - [5, 9, 13]).max() <= 1
    assert abs(share(texts, rf"\b({LIBRARIES})\b") - 0.60) <= 0.10
    assert abs(share(texts, rf"\b({OBJECTS})") - 0.85) <= 0.10
    assert abs(share(texts, r"^(how|what|why|can|is)\b") - 0.30) <= 0.10


def test_typed_questions_come_from_the_ten_briefs_and_few_name_their_passage():
    assert {q["brief"] for q in TYPED_QUESTIONS} == {q["metadata"]["brief"] for q in QUERIES if q["_id"] in TYPED}
    texts = {q["_id"]: q["text"] for q in TYPED_QUESTIONS}
    named = naming_their_answer(texts, [[q["_id"], q["doc"], "2"] for q in TYPED_QUESTIONS])
    assert len(named) <= len(texts) / 12


def test_no_typed_question_repeats_a_query_or_a_test_sentence(pydocs_collection):
    repeats = Repeats([*TEXTS.values(), *pydocs_collection.sentences["test"][0].values()])
    assert [q["text"] for q in TYPED_QUESTIONS if repeats(q["text"])] == []


def test_no_need_stands_in_dev_and_in_test_in_nearly_the_same_words():
    dev, test = ([TEXTS[q] for q in {row[0] for row in JUDGED[split]}] for split in ("dev", "test"))
    shared = SharedWords(dev)
    assert [text for text in test if shared(text).max() >= 0.6] == []


def test_queries_that_name_their_answer_are_noticed():
    texts = {"a": "how does Resample work", "b": "hourly averages", "c": "resampled means"}
    judged = [[q, "pandas.DataFrame.resample", "2", ""] for q in texts] + [["b", "numpy.averages", "1", ""]]
    assert naming_their_answer(texts, judged) == {"a"}


@pytest.mark.parametrize("texts", ["DESCRIBED", "TYPED"])
def test_queries_are_not_made_from_a_template(texts):
    assert share_of_commonest_opening(list(globals()[texts].values())) <= 0.03


def test_queries_made_from_a_template_are_noticed():
    varied = [f"{n} is where it begins" for n in range(95)]
    templated = ["How do I sort?", "how do I, flip", "HOW DO I slice", "How do I sum", "how do i cut"]
    assert share_of_commonest_opening(varied) < 0.03
    assert share_of_commonest_opening(varied + templated) == 0.05


def test_each_kind_of_described_query_is_at_least_a_quarter():
    kinds = Counter(query["metadata"]["kind"] for query in QUERIES if query["_id"] in DESCRIBED)
    assert set(kinds) == {"keyword", "problem", "question"}
    assert min(kinds.values()) >= 298 / 4


@pytest.mark.parametrize(("slice_name", "least"), [("described", 0.15), ("typed", 0.10)])
def test_each_library_has_its_part_of_a_slice(slice_name, least):
    rows = [query["metadata"] for query in QUERIES if query["metadata"]["slice"] == slice_name]
    libraries = Counter(row["library"] for row in rows)
    assert set(libraries) == {"numpy", "pandas", "scipy", "scikit-learn", "matplotlib"}
    assert min(libraries.values()) >= least * len(rows)
    assert {row["level"] for row in rows} == {"basic", "intermediate", "advanced"}


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


@pytest.mark.parametrize("name", ["second_judging", "second_judging_typed"])
def test_200_judged_pairs_of_each_slice_were_judged_again(name):
    again = rows(PYDOCS / f"{name}.tsv")
    first = {tuple(row[:2]) for row in ALL_JUDGED}
    second = {tuple(row[:2]) for row in again}
    assert len(second) == len(again) == 200
    assert second <= first
    assert {row[2] for row in again} <= {"0", "1", "2"}


@pytest.mark.parametrize(
    ("name", "weights", "stated"),
    [
        ("second_judging", None, "κ = 0.83"),
        ("second_judging", "quadratic", "κ = 0.91"),
        ("second_judging_typed", None, "κ = 0.89"),
        ("second_judging_typed", "quadratic", "κ = 0.94"),
    ],
)
def test_the_agreement_stated_is_the_agreement_found(name, weights, stated, readme):
    again = rows(PYDOCS / f"{name}.tsv")
    first = {tuple(row[:2]): int(row[2]) for row in ALL_JUDGED}
    kappa = cohen_kappa_score([first[tuple(row[:2])] for row in again], [int(r[2]) for r in again], weights=weights)
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


def test_the_completed_pairs_are_described_ones_and_judged():
    completed = [tuple(row[:2]) for row in rows(PYDOCS / "completed.tsv")]
    later = {tuple(row[:2]) for row in rows(PYDOCS / "later.tsv")}
    assert len(set(completed)) == len(completed)
    assert set(completed) < {tuple(row[:2]) for row in JUDGED["test"] if row[0] in DESCRIBED}
    assert not set(completed) & later


@pytest.mark.parametrize(
    ("query", "answers"),
    [
        ("cap sensor readings 0 to 100", "numpy.clip pandas.DataFrame.clip"),
        ("At which frequency is my guitar string", "scipy.fft.rfft numpy.fft.rfft scipy.signal.welch"),
        (
            "what straight line passes best",
            "scipy.stats.linregress numpy.polyfit sklearn.linear_model.LinearRegression",
        ),
        ("0/1 colums", "sklearn.preprocessing.OneHotEncoder sklearn.preprocessing.LabelBinarizer pandas.get_dummies"),
        ("bucket ages 0-17", "numpy.digitize pandas.cut"),
        ("why does customer spending look so lopsided", "scipy.stats.boxcox scipy.stats.yeojohnson"),
        ("Does height go up with shoe size", "numpy.corrcoef pandas.DataFrame.corr"),
        ("16 representative colours", "scipy.cluster.vq.kmeans scipy.cluster.vq.kmeans2 sklearn.cluster.KMeans"),
        ("np rolling window view of array", "numpy.lib.stride_tricks.sliding_window_view"),
    ],
)
def test_the_same_thing_under_other_names_is_judged_right_too(query, answers):
    (asked,) = [q for q, text in TEXTS.items() if query in text]
    full = {row[1] for row in ALL_JUDGED if row[0] == asked and row[2] == "2"}
    assert set(answers.split()) <= full


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

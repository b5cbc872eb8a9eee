"""What tuning may cost is measured on links that pages name themselves and on questions of everyday life."""

import json
from collections import Counter

import numpy as np
import pytest
from fakes import FakeEmbedder

from helpers.labels.questions import overlap
from helpers.store.files import DATA, WorkbookError
from helpers.training import forgetting
from helpers.training.forgetting import answered, everyday, relatedness, see_also

CORPUS = dict.fromkeys(
    (
        "numpy.sum numpy.cumsum numpy.mean numpy.linalg.norm numpy.linalg.det numpy.ma.sum numpy.ndarray.sum "
        "scipy.linalg.norm scipy.stats.iqr pandas.concat pandas.DataFrame.sum pandas.DataFrame.mean "
        "pandas.DataFrame.cumsum pandas.Series.sum"
    ).split(),
    "text",
)


def page(section: str, rest: str = "\n\nExamples\n--------\n>>> numpy.mean([1, 2])\n1.5") -> str:
    return (
        f"Sum of elements.\n\nParameters\n----------\na : array\n    Of numbers.\n\nSee Also\n--------\n{section}{rest}"
    )


def links_of(section: str, name: str = "numpy.sum", **more) -> list[str]:
    return list(see_also({name: page(section, **more)}, CORPUS).get(name, {}))


def test_a_page_is_linked_to_what_its_section_names():
    found = see_also(
        {"numpy.sum": page("numpy.cumsum : Running sum.\n\nnumpy.mean : Average."), "numpy.mean": ""}, CORPUS
    )
    assert found == {"numpy.sum": {"numpy.cumsum": 1, "numpy.mean": 1}}


def test_only_names_are_read_and_neither_their_descriptions_nor_other_sections():
    section = (
        "numpy.cumsum : The running numpy.sum, unlike\n"
        "    numpy.mean : not a name, as it is indented.\n"
        "numpy.linalg.norm"
    )
    assert links_of(section) == ["numpy.cumsum", "numpy.linalg.norm"]
    assert links_of(
        "numpy.cumsum", rest="\n\nNotes\n-----\nnumpy.mean\n\nReferences\n----------\nnumpy.linalg.det"
    ) == ["numpy.cumsum"]


def test_a_name_may_stand_on_a_line_of_its_own_with_its_description_below():
    assert links_of("numpy.cumsum\n    Running sum.\nnumpy.mean\n    numpy.linalg.norm") == [
        "numpy.cumsum",
        "numpy.mean",
    ]


def test_the_section_may_be_the_last_of_the_page_or_the_whole_page():
    assert links_of("numpy.cumsum : Running sum.\nnumpy.mean", rest="") == ["numpy.cumsum", "numpy.mean"]
    assert links_of("numpy.mean", rest="\n") == ["numpy.mean"]
    assert see_also({"numpy.sum": "See Also\n--------\nnumpy.mean"}, CORPUS) == {"numpy.sum": {"numpy.mean": 1}}


@pytest.mark.parametrize(
    ("name", "short", "target"),
    [
        ("numpy.mean", "sum", "numpy.sum"),  # beside the page, and not numpy.ma.sum
        ("pandas.DataFrame.mean", "sum", "pandas.DataFrame.sum"),  # beside it, though pandas.Series.sum is there too
        ("pandas.DataFrame.mean", "Series.sum", "pandas.Series.sum"),  # one further up
        ("pandas.DataFrame.mean", "concat", "pandas.concat"),
        ("numpy.linalg.det", "norm", "numpy.linalg.norm"),  # numpy's, not scipy's
        ("numpy.linalg.det", "scipy.linalg.norm", "scipy.linalg.norm"),
        ("numpy.linalg.det", "sum", "numpy.sum"),
        ("numpy.linalg.det", "linalg.norm", "numpy.linalg.norm"),
        ("numpy.sum", "ma.sum", "numpy.ma.sum"),
    ],
)
def test_short_names_are_looked_up_beside_the_page_and_then_further_up(name, short, target):
    assert links_of(f"{short} : Something else.", name) == [target]


def test_a_full_name_is_meant_before_a_short_one():
    corpus = {"sum": "", "numpy.sum": "", "numpy.mean": ""}
    assert see_also({"numpy.mean": page("sum")}, corpus) == {"numpy.mean": {"sum": 1}}


@pytest.mark.parametrize(
    "section",
    [
        "cumsum, mean, linalg.norm",
        "cumsum, mean,\nlinalg.norm : Length.",
        "cumsum, unknown, mean, linalg.norm : Several.",
        "cumsum mean linalg.norm",
    ],
)
def test_a_line_may_hold_several_names(section):
    assert links_of(section) == ["numpy.cumsum", "numpy.linalg.norm", "numpy.mean"]


@pytest.mark.parametrize(
    "section",
    [
        ":func:`cumsum`, :func:`mean`",
        ":func:`~numpy.cumsum` : Running sum.\n:meth:`numpy.mean` : Average.",
        ":obj:`cumsum` : As :func:`linalg.norm` is not.\n`mean`",
        "``cumsum``, mean()",
        ".cumsum : With a leading dot, as Matplotlib writes.\nmean.",
    ],
)
def test_roles_and_quotes_around_a_name_are_taken_off(section):
    assert links_of(section) == ["numpy.cumsum", "numpy.mean"]


def test_unknown_names_and_links_to_the_page_itself_are_dropped():
    assert links_of("sum : This page.\nnumpy.sum\nnumpy.nothing : Not in the corpus.\nmean") == ["numpy.mean"]
    assert see_also({"numpy.sum": page("sum\nnothing, :func:`nobody`\n:ref:`how-to`")}, CORPUS) == {}


def test_a_name_that_comes_twice_is_one_link_and_links_are_sorted():
    assert links_of("mean : Average.\ncumsum\nnumpy.mean : Again.") == ["numpy.cumsum", "numpy.mean"]


def test_pages_without_the_section_and_pages_of_no_passage_have_no_links():
    pages = {
        "numpy.mean": "Average.\n\nNotes\n-----\nSee Also numpy.sum.\n\nExamples\n--------\nnumpy.sum",
        "numpy.cumsum": "",
        "numpy.secret": page("numpy.sum"),
    }
    assert see_also(pages, CORPUS) == {}
    assert see_also({}, CORPUS) == {}
    assert see_also({"numpy.sum": page("mean"), **pages}, CORPUS) == {"numpy.sum": {"numpy.mean": 1}}


def test_the_default_collection_names_links_for_about_half_of_its_pages(pydocs_collection):
    corpus, pages = pydocs_collection.corpus, pydocs_collection.pages
    links = see_also(pages, corpus)
    assert 0.4 * len(corpus) < len(links) < 0.7 * len(corpus)
    assert all(targets and set(targets) <= set(corpus) - {doc} for doc, targets in links.items())
    assert {"numpy.std", "numpy.var", "numpy.nanmean"} <= set(links["numpy.mean"])


class ByHand:
    """An embedder whose vectors in the plane are given by their angles in degrees; keeps what was asked for."""

    name, key, width = "by hand", "by hand", 2

    def __init__(self, angles: dict[str, float]):
        self.angles, self.tasks = angles, []

    def embed(self, texts, task):
        self.tasks.append(task)
        radians = np.radians([self.angles[text] for text in texts])
        return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


# Seen from "a", the others come in the order of their names; seen from "e": d, c, b, a.
ANGLES = {"text of a": 0, "text of b": 10, "text of c": 25, "text of d": 45, "text of e": 70}
FIVE = {d: f"text of {d}" for d in "ecadb"}


def test_relatedness_by_hand_is_in_the_order_of_the_links():
    links = {"e": {"c": 1}, "a": {"b": 1}, "b": {"a": 1, "c": 1}, "c": {"e": 1}}
    # e: c is the second, 1 / log2(3) = 0.6309. a: b is the first. b: a (10°) and c (15°) are the first two.
    # c: b (15°), d (20°), a (25°), e (45°): the fourth, 1 / log2(5) = 0.4307.
    embedder = ByHand(ANGLES)
    found = relatedness(embedder, FIVE, links)
    np.testing.assert_allclose(found, [0.6309, 1, 1, 0.4307], atol=1e-4)
    assert set(embedder.tasks) == {"document"}


def test_relatedness_of_several_links_by_hand():
    # a's first and third: (1 + 1/2) / (1 + 0.6309) = 0.9197. All four of e's, whatever their order: 1.
    found = relatedness(ByHand(ANGLES), FIVE, {"a": {"b": 1, "d": 1}, "e": dict.fromkeys("abcd", 1)})
    np.testing.assert_allclose(found, [0.9197, 1], atol=1e-4)


def test_a_passage_is_not_its_own_neighbour_even_where_a_twin_comes_before_it():
    # All but "b" have the same vector, so that their order is that of their ids. From a: twin, twin2, b, so b is the
    # third, 1 / log2(4) = 0.5. From twin: a is the first. From twin2: a, twin, so twin is the second, 0.6309.
    corpus = {"b": "text of b", "a": "text of a", "twin": "text of a", "twin2": "text of a"}
    found = relatedness(ByHand(ANGLES), corpus, {"a": {"b": 1}, "twin": {"a": 1}, "twin2": {"twin": 1}})
    np.testing.assert_allclose(found, [0.5, 1, 0.6309], atol=1e-4)


def test_the_tenth_neighbour_counts_and_the_eleventh_does_not():
    corpus = {f"d{i:02}": f"text {i}" for i in range(12)}
    embedder = ByHand({f"text {i}": 5 * i for i in range(12)})
    found = relatedness(embedder, corpus, {"d00": {"d10": 1}, "d11": {"d00": 1}})
    np.testing.assert_allclose(found, [1 / np.log2(11), 0], atol=1e-6)


def test_relatedness_is_1_where_every_passage_lies_beside_those_it_names():
    corpus = {f"{word}{i}": f"{word} {word} {i}" for word in ("tea", "house", "river") for i in range(3)}
    links = {d: {other: 1 for other in corpus if other[:-1] == d[:-1] and other != d} for d in corpus}
    assert relatedness(FakeEmbedder(width=256), corpus, links).tolist() == [1.0] * 9


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    text = (DATA / "everyday" / "pairs.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_everyday_has_160_questions_each_with_the_answer_of_its_own_row(rows):
    corpus, queries, qrels = everyday()
    assert len(corpus) == len(queries) == len(qrels) == len(rows) == 160
    for row in rows:
        [(answer, grade)] = qrels[f"q-{row['_id']}"].items()
        assert (queries[f"q-{row['_id']}"], corpus[answer], grade) == (row["question"], row["answer"], 1)
    assert list(queries) == list(qrels)
    assert len({answer for docs in qrels.values() for answer in docs}) == 160


def test_everyday_repeats_no_id_and_no_text_and_leaves_none_empty(rows):
    assert len({row["_id"] for row in rows}) == 160
    texts = [" ".join(row[key].lower().split()) for row in rows for key in ("question", "answer")]
    assert len(set(texts)) == 320
    assert all(len(text.split()) >= 3 for text in texts)


def test_everyday_has_16_topics_of_10(rows):
    assert all(set(row) == {"_id", "question", "answer", "topic"} for row in rows)
    assert sorted(Counter(row["topic"] for row in rows).values()) == [10] * 16


def test_everyday_answers_share_few_words_with_their_questions(rows):
    # Or counting words would do, and nothing were shown about meaning.
    shares = [overlap(row["question"], row["answer"]) for row in rows]
    assert np.mean(shares) < 0.1
    assert max(shares) < 0.5


@pytest.mark.parametrize("key", ["question", "answer"])
def test_everyday_texts_do_not_all_begin_alike(rows, key):
    openings = Counter(" ".join(row[key].lower().split()[:3]) for row in rows)
    assert max(openings.values()) <= 3


def test_everyday_that_is_not_there_ends_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(forgetting, "DATA", tmp_path)
    with pytest.raises(WorkbookError, match=r"pairs\.jsonl is missing: fetch the workbook anew\.$"):
        everyday()


class Oracle(FakeEmbedder):
    """Puts each question on its own answer."""

    def __init__(self, corpus, queries, qrels):
        super().__init__()
        self.answers = {text: corpus[next(iter(qrels[q]))] for q, text in queries.items()}

    def embed(self, texts, task):
        return super().embed([self.answers[text] for text in texts] if task == "query" else texts, task)


def test_every_question_is_answered_by_an_embedder_that_puts_it_on_its_answer():
    collection = everyday()
    assert answered(Oracle(*collection), *collection).tolist() == [1.0] * 160


def test_words_alone_answer_few_everyday_questions():
    assert 0.02 < answered(FakeEmbedder(), *everyday()).mean() < 0.5


def test_answered_by_hand_is_in_the_order_of_the_queries():
    queries = {"q2": "far", "q1": "near", "q3": "between"}
    embedder = ByHand({**ANGLES, "near": 1, "far": 69, "between": 30})
    qrels = {"q1": {"a": 1}, "q2": {"c": 1}, "q3": {"d": 1, "e": 1, "a": 0}}
    # q2: e, d, c, so c is the third, 1 / log2(4) = 0.5. q1: first.
    # q3 (30°): c 5°, d 15°, b 20°, a 30°, e 40°, so its two are second and fifth:
    # (1 / log2(3) + 1 / log2(6)) / (1 + 1 / log2(3)) = (0.6309 + 0.3869) / 1.6309 = 0.6241.
    np.testing.assert_allclose(answered(embedder, FIVE, queries, qrels), [0.5, 1, 0.6241], atol=1e-4)
    assert sorted(embedder.tasks) == ["document", "query"]


def test_an_answer_below_the_tenth_place_is_none():
    corpus = {f"d{i:02}": f"text {i}" for i in range(11)}
    embedder = ByHand({f"text {i}": 5 * i for i in range(11)} | {"first": 0, "last": 50})
    found = answered(embedder, corpus, {"q": "first", "r": "last"}, {"q": {"d10": 1}, "r": {"d01": 1}})
    np.testing.assert_allclose(found, [0, 1 / np.log2(11)], atol=1e-6)

"""Gates for questions: each on a case worked by hand, and near-duplicates against a plain second implementation."""

import numpy as np
import pandas as pd
import pytest
from fakes import FakeEmbedder, random_texts

from helpers.collection.collection import Collection
from helpers.collection.text import tokenize
from helpers.labels.gates import (
    GATES,
    LEAK_COSINE,
    LEAK_WORDS,
    SAME_COSINE,
    SAME_OPENING,
    SAME_WORDS,
    check_questions,
    gate_counts,
    opening,
    passing,
)
from helpers.labels.questions import Question, made_questions_file
from helpers.retrieval.first_stages import BM25, Dense, Retriever
from helpers.store.files import WorkbookError

CORPUS = {"fox": "the red fox hunts mice", "whale": "a blue whale eats krill", "owl": "owls fly at night"}


def shared_words(a: str, b: str) -> float:
    """The share of the words of both (stemmed, without stop words) that both have; 1 for the same text."""
    first, second = set(tokenize(a)), set(tokenize(b))
    if " ".join(a.lower().split()) == " ".join(b.lower().split()):
        return 1.0
    return len(first & second) / len(first | second) if first | second else 0.0


class Fixed(Retriever):
    """Finds the same passages for every query, in the order given."""

    def __init__(self, *docs: str):
        self.docs = docs

    def index(self, corpus):
        return self

    def search(self, text, k):
        return {doc: -float(rank) for rank, doc in enumerate(self.docs[:k])}


class Angles:
    """A text that ends in a number of degrees is that direction in the plane; each other text is far from all."""

    def embed(self, texts, task):
        vectors = np.zeros((len(texts), 2))
        for row, text in enumerate(texts):
            degrees = text.split()[-1]
            angle = float(degrees) if degrees.isdigit() else 180.0
            vectors[row] = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        return vectors


class Apart:
    """Every text has a direction of its own: the embedding sees no two texts as alike, not even equal ones."""

    def __init__(self):
        self.count = 0

    def embed(self, texts, task):
        vectors = np.eye(200)[self.count : self.count + len(texts)]
        self.count += len(texts)
        return vectors


def asked(*texts: str, doc: str = "fox") -> list[Question]:
    return [Question(f"g{i}", text, "question", doc) for i, text in enumerate(texts)]


def check(questions, queries=None, embedder=None, retrievers=None, **options) -> pd.DataFrame:
    collection = Collection("tiny", CORPUS, queries or {})
    found = [Fixed("fox")] if retrievers is None else retrievers
    return check_questions(questions, collection, found, embedder or Apart(), **options)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("Where DO I, then, sort?", "where do i"), ("sort", "sort"), ("what's up there", "what s up"), ("?!", "")],
)
def test_the_opening_is_the_first_three_words(text, expected):
    assert opening(text) == expected


def test_answerable_means_that_one_retriever_finds_the_passage():
    questions = [*asked("one", "two words", doc="whale"), Question("lost", "three", "question", "owl")]
    table = check(questions, retrievers=[Fixed("fox", "owl", "whale"), Fixed("fox", "whale")], depth=2)
    assert table["rank"].tolist() == [2, 2, 2]
    assert table["answerable"].all()
    table = check(questions, retrievers=[Fixed("fox", "owl", "whale"), Fixed("fox", "whale")], depth=1)
    assert table["rank"].tolist() == [np.inf] * 3
    assert not table["answerable"].any()


def test_the_best_rank_of_the_retrievers_counts():
    table = check(asked("one"), retrievers=[Fixed("owl", "whale", "fox"), Fixed("owl", "fox"), Fixed("owl")])
    assert table["rank"].tolist() == [2]


def test_a_question_with_more_than_half_of_its_words_from_the_passage_is_a_copy():
    # of {fox, mice, winter, sleep} the passage has two, of {fox, mice, winter} two: 0.5 passes and 0.67 does not
    table = check(asked("foxes and mice sleep in winter", "fox, mice: winter", "where is it"))
    assert table["overlap"].tolist() == pytest.approx([0.5, 2 / 3, 0])
    assert table["no copy"].tolist() == [True, False, True]


def test_three_questions_may_begin_alike_and_the_fourth_is_a_template():
    table = check(asked("Where do I a1", "where do you b1", "where do i c1", "WHERE do I, d1", "where do i e1"))
    assert SAME_OPENING == 3
    assert table["no template"].tolist() == [True, True, True, True, False]


def test_one_in_a_hundred_questions_may_begin_alike():
    texts = [f"where do i n{i}" for i in range(10)] + [f"m{i} is another one" for i in range(390)]
    table = check(asked(*texts), embedder=FakeEmbedder())
    assert (~table["no template"]).sum() == 10 - 400 // 100


def test_a_near_duplicate_by_embedding_names_the_earlier_question():
    table = check(asked("red 0", "blue 90", "green 20"), embedder=Angles())  # cos 20° = 0.940, cos 70° = 0.342
    assert table["duplicate_of"].tolist() == ["", "", "g0"]
    assert table["no near-duplicate"].tolist() == [True, True, False]
    assert table["nearest"].tolist() == pytest.approx([0, 0, np.cos(np.radians(20))], abs=1e-9)


def test_only_questions_that_were_kept_make_a_later_one_a_duplicate():
    # cos 20° = 0.940: 20 repeats 0 and is dropped;
    # 40 is near 20 but not near 0 (cos 40° = 0.766), so it stays; 60 repeats it
    table = check(asked("red 0", "blue 20", "green 40", "black 60"), embedder=Angles())
    assert table["duplicate_of"].tolist() == ["", "g0", "", "g2"]


def test_a_near_duplicate_by_words_is_noticed_where_the_embedding_sees_none():
    # 4 of 5 words: 0.8; 3 of 4: 0.75
    table = check(asked("red fox eats mice", "mice: the red fox eats today", "red fox eats mice", "foxes eat mice"))
    assert table["duplicate_of"].tolist() == ["", "g0", "g0", ""]
    assert table["nearest"].tolist() == [0, 0, 0, 0]


def test_a_short_duplicate_is_found_among_many_longer_questions_with_its_words():
    longer = [f"rolling mean of a{i} and b{i} by c{i}" for i in range(40)]
    table = check(asked(*longer, "rolling mean", "mean, rolling"))
    assert table["duplicate_of"].tolist() == [""] * 41 + ["g40"]


def test_a_leak_by_embedding_names_the_query():
    queries = {"q1": "lion 0", "q2": "tiger 90"}
    table = check(
        asked("red 30", "blue 60", "green 45", "black 200"), queries, Angles()
    )  # cos 30° = 0.866, cos 45° = 0.707
    assert table["leaks"].tolist() == ["q1", "q2", "", ""]
    assert table["leak"].tolist() == pytest.approx([0.866, 0.866, 0.707, np.cos(np.radians(110))], abs=1e-3)
    assert table["no leak"].tolist() == [False, False, True, True]


@pytest.mark.parametrize(
    ("text", "leaks"),
    [
        ("compass bearing from easting and northing", True),  # word for word
        ("NORTHING and Easting: Compass BEARINGS!", True),  # in other case and order
        ("compass direction from easting and altitude", False),  # 2 of 6 words
        ("compass bearing from easting and altitude", True),  # 3 of 5 words
        ("is a compass any good", False),
    ],
)
def test_a_leak_by_words_is_noticed_where_the_embedding_sees_none(text, leaks):
    queries = {"q1": "who ate the cake", "q2": "compass bearing from easting and northing"}
    table = check(asked(text), queries)
    assert table["leaks"].tolist() == ["q2" if leaks else ""]
    assert table["no leak"].tolist() == [not leaks]


def test_a_planted_leak_is_noticed_among_honest_questions():
    queries = {f"q{i}": text for i, text in enumerate(random_texts(30, seed=1, words=90, length=9))}
    honest = [f"honest{i} unlike{i} other{i}" for i in range(50)]
    table = check(asked(*honest, queries["q7"].upper()), queries, FakeEmbedder(width=256))
    assert table["leaks"].tolist() == [""] * 50 + ["q7"]


def test_all_queries_of_the_collection_are_protected_unless_others_are_named():
    queries = {"dev": "red fox", "test": "blue whale"}
    questions = asked("fox, red", "whale, blue", "owl at night")
    assert check(questions, queries)["leaks"].tolist() == ["dev", "test", ""]
    assert check(questions, queries, protected={"n": "owl night"})["leaks"].tolist() == ["", "", "n"]
    table = check(questions, queries, protected={})
    assert table["leaks"].tolist() == ["", "", ""]
    assert table["no leak"].all()


def plain(questions, queries, embedder) -> tuple[list[str], list[str]]:
    """Duplicates and leaks, pair by pair."""
    texts = [q.text for q in questions]
    vectors, others = embedder.embed(texts, "query"), embedder.embed(list(queries.values()), "query")
    kept: list[int] = []
    duplicates, leaks = [], []
    for i, text in enumerate(texts):
        near = [j for j in kept if vectors[i] @ vectors[j] >= SAME_COSINE or shared_words(text, texts[j]) >= SAME_WORDS]
        duplicates.append(bool(near))
        kept += [] if near else [i]
        leaks.append(
            any(
                vectors[i] @ others[j] >= LEAK_COSINE or shared_words(text, query) >= LEAK_WORDS
                for j, query in enumerate(queries.values())
            )
        )
    return duplicates, leaks


@pytest.mark.parametrize("seed", range(5))
def test_duplicates_and_leaks_agree_with_a_plain_implementation(seed):
    questions = asked(*random_texts(120, seed=seed, words=30, length=7))
    queries = {f"q{i}": text for i, text in enumerate(random_texts(20, seed=seed + 100, words=60, length=7))}
    table = check(questions, queries, FakeEmbedder())
    duplicates, leaks = plain(questions, queries, FakeEmbedder())
    assert (~table["no near-duplicate"]).tolist() == duplicates
    assert (~table["no leak"]).tolist() == leaks
    assert 5 < sum(duplicates) < 115
    assert 5 < sum(leaks) < 115


def test_the_table_with_real_retrievers(tmp_path):
    questions = [
        Question("a", "which animal of the woods catches rodents, foxes perhaps?", "question", "fox"),
        Question("b", "blue whale eats krill", "keyword", "whale"),
        Question("c", "a submarine captain's lunch", "keyword", "owl"),
    ]
    collection = Collection("tiny", CORPUS, {"q": "what animals catch rodents in the woods?"})
    embedder = FakeEmbedder(width=256)
    retrievers = [BM25().index(CORPUS), Dense(embedder, tmp_path).index(CORPUS)]
    table = check_questions(questions, collection, retrievers, embedder, depth=1)
    assert list(table.index) == ["a", "b", "c"]
    failed = {q: [gate for gate in GATES if not row[gate]] for q, row in table.iterrows()}
    assert failed == {"a": ["no leak"], "b": ["no copy"], "c": ["answerable"]}
    assert passing(questions, table) == []


def test_passing_keeps_the_questions_that_pass_every_gate_in_their_order():
    questions = asked("red 0", "fox mice hunts 90", "blue 100", "green 180", "black 270")
    table = check(questions, {"q": "lion 275"}, Angles())
    # g1 is a copy; 100 repeats 90 (cos 10° = 0.985), 180 stands alone, 270 repeats the query
    assert [q.id for q in passing(questions, table)] == ["g0", "g3"]


def test_gate_counts_by_hand():
    passes = {
        "answerable": [0, 1, 1, 1, 1, 1],
        "no copy": [0, 0, 1, 1, 1, 1],
        "no template": [1, 1, 1, 1, 1, 1],
        "no near-duplicate": [0, 0, 0, 1, 1, 1],
        "no leak": [1, 0, 1, 0, 0, 1],
    }
    counts = gate_counts(pd.DataFrame(passes).astype(bool))
    assert list(counts.index) == list(GATES)
    assert counts["fail it"].tolist() == [1, 2, 0, 3, 3]
    assert counts["reach it"].tolist() == [6, 5, 4, 4, 3]
    assert counts["left after it"].tolist() == [5, 4, 4, 3, 1]


def test_no_questions_make_an_empty_table():
    table = check([], {"q": "red"})
    assert passing([], table) == []
    assert gate_counts(table).to_numpy().tolist() == [[0, 0, 0]] * len(GATES)


def test_the_same_questions_give_the_same_table():
    questions = asked(*random_texts(60, seed=3))
    first, second = (check(questions, {"q": "bakl"}, FakeEmbedder()) for _ in range(2))
    pd.testing.assert_frame_equal(first, second)


def test_a_question_on_a_passage_of_another_collection_is_named():
    with pytest.raises(WorkbookError, match=r"g0 is about 'badger', which tiny does not have"):
        check(asked("one", doc="badger"))


def test_without_a_retriever_nothing_can_be_checked():
    with pytest.raises(WorkbookError, match="pass two"):
        check(asked("one"), retrievers=[])


def test_questions_made_before_a_query_was_added_are_not_taken_for_checked_against_it():
    before = Collection("tiny", CORPUS)
    later = Collection("tiny", CORPUS, {"q": "which fox hunts?"})
    assert made_questions_file(before) != made_questions_file(later)
    assert made_questions_file(before) == made_questions_file(Collection("tiny", dict(CORPUS)))

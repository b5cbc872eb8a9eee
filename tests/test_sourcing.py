"""What is trained on, chosen by and tested with: nothing that is held out comes back in other clothes."""

from dataclasses import replace

import pytest
from fakes import FakeEmbedder, random_texts

from helpers.collection.collection import Collection
from helpers.collection.repeats import Repeats
from helpers.collection.text import tokenize
from helpers.homework.chunks import Chunks
from helpers.homework.data import Data
from helpers.homework.options import HEADLESS, training_options
from helpers.homework.sources import HALVE_DEV_FROM, MOST_TEST, Sources, find_sources, make_questions
from helpers.labels import gates
from helpers.labels.questions import Question
from helpers.retrieval.first_stages import BM25, Dense
from helpers.store.stages import Stages

TEN = "anchor basket candle dragon engine feather garden hammer island jacket"


@pytest.mark.parametrize(
    "text",
    [
        # one word, stemmed
        "Refund",
        "refund?",
        "  REFUND!  ",
        "the refund",
        "refunds",
        # two words in any order
        "policy: returns",
        "Returns\n\tpolicy",
        "policy of the returns",
    ],
)
def test_the_same_words_in_other_clothes_are_a_repeat(text):
    assert Repeats(["refund?", "return policy"])(text)


@pytest.mark.parametrize(
    ("text", "repeats"),
    [
        (" ".join(TEN.split()[:9]), True),  # 9 of 10 words: 0.9
        (f"{TEN} kitchen", True),  # 10 of 11: 0.91
        (" ".join(TEN.split()[:8]), False),  # 8 of 10
        (" ".join([*TEN.split()[:9], "kitchen"]), False),  # 9 of 11: 0.82
        (f"{TEN} kitchen ladder", False),  # 10 of 12: 0.83
    ],
)
def test_a_repeat_shares_nine_tenths_of_all_words_of_both(text, repeats):
    assert Repeats(["unlike", TEN])(text) is repeats


def test_one_word_of_four_makes_another_question():
    assert not Repeats(["reset admin account password"])("reset guest account password")  # 3 of 5: 0.6


def test_a_text_without_words_of_its_own_repeats_itself_alone():
    repeats = Repeats(["To be, or not?", "", "???"])
    assert repeats("to  be, OR not?")
    assert repeats("")
    assert repeats(" ??? ")
    assert not repeats("is it the")
    assert not repeats("!!!")
    assert not repeats("refund")
    assert not Repeats([])("refund")
    assert not Repeats([])("")


def test_repeats_are_what_counting_words_pair_by_pair_finds():
    texts = random_texts(300, seed=1, words=14, length=14)
    held, asked = texts[:100], texts[100:]
    repeats = Repeats(held)

    def alike(a: str, b: str) -> bool:
        first, second = set(tokenize(a)), set(tokenize(b))
        return 10 * len(first & second) >= 9 * len(first | second)

    expected = [any(alike(text, other) for other in held) for text in asked]
    assert [repeats(text) for text in asked] == expected
    assert 20 < sum(expected) < 180


def sources_of(given: Collection, duplicates=None) -> Sources:
    """Sources for which nothing has to be searched or asked."""
    return find_sources(Data(given), Chunks({}, {}, None, None, duplicates or {}), None, 0)


def collection(**splits: dict[str, tuple[str, dict[str, int]]]) -> Collection:
    """Splits of {query id: (text, qrels)} on passages that the qrels name."""
    queries = {q: text for part in splits.values() for q, (text, _) in part.items()}
    qrels = {split: {q: docs for q, (_, docs) in part.items()} for split, part in splits.items()}
    docs = sorted({d for part in qrels.values() for docs in part.values() for d in docs})
    return Collection("own", {d: f"text of {d}" for d in docs}, queries, qrels)


def test_a_dev_query_that_repeats_a_test_query_is_left_out():
    found = sources_of(
        collection(
            dev={"d1": ("How do I get a refund?", {"a": 1}), "d2": ("open hours", {"b": 1})},
            test={"t1": ("a REFUND, how do I get", {"a": 1})},
        ),
    )
    assert found.dev == {"d2": "open hours"}
    assert found.dev_qrels == {"d2": {"b": 1}}
    assert found.test == {"t1": "a REFUND, how do I get"}
    assert "Left out of the dev queries, since they repeat one that is held out: 1." in found.notices


def test_a_train_query_that_repeats_a_dev_or_a_test_query_is_left_out():
    found = sources_of(
        collection(
            train={"1": ("Open hours?", {"b": 1}), "2": ("get refund", {"a": 1}), "3": ("ship abroad", {"c": 1})},
            dev={"d1": ("hours open", {"b": 1})},
            test={"t1": ("refund: get!", {"a": 1})},
        ),
    )
    assert found.queries == {"3": "ship abroad"}
    assert found.positives == {"3": {"c": 1}}
    assert "Left out of the train queries, since they repeat one that is held out: 2." in found.notices


def test_near_duplicates_of_held_out_passages_are_not_trained_on():
    found = sources_of(
        collection(
            train={
                "twin": ("alpha", {"a2": 1}),
                "same passage": ("bravo", {"a": 1}),
                "wrong twin": ("charlie", {"a2": 0, "c": 1}),
                "other twins": ("delta", {"d2": 1}),
                "dev twin": ("echo", {"b2": 2}),
            },
            dev={"d1": ("foxtrot", {"b": 1}), "d2": ("golf", {"a3": 1})},
            test={"t1": ("hotel", {"a": 1, "d": 0})},
        ),
        {"a": "a", "a2": "a", "a3": "a", "b": "b", "b2": "b", "d": "d", "d2": "d"},
    )
    assert sorted(found.queries) == ["other twins", "same passage", "wrong twin"]
    assert list(found.dev) == ["d1"]
    said = "queries, since a near-duplicate of a held-out passage answers them"
    assert f"Left out of the train {said}: 2." in found.notices
    assert f"Left out of the dev {said}: 1." in found.notices


def test_more_test_queries_than_are_scored_are_drawn_and_said():
    words = random_texts(MOST_TEST + 1, seed=5, length=6)
    found = sources_of(
        collection(train={"1": ("alpha", {"a": 1})}, test={f"t{i}": (text, {"b": 1}) for i, text in enumerate(words)}),
    )
    assert (len(found.test), found.judged_test) == (MOST_TEST, MOST_TEST + 1)
    assert "1,000 of the 1,001 test queries, drawn by a hash of their ids, are scored." in found.notices


def test_nothing_is_left_out_where_nothing_leaks():
    found = sources_of(
        collection(train={"1": ("alpha", {"a": 1})}, dev={"2": ("bravo", {"a": 1})}, test={"3": ("charlie", {"b": 1})}),
    )
    assert (list(found.queries), list(found.dev), list(found.test)) == (["1"], ["2"], ["3"])
    assert found.notices == []
    assert found.judged


def numbered(n: int) -> dict[str, tuple[str, dict[str, int]]]:
    return {f"q{i}": (f"topic{i} help{i}", {f"d{i}": 1}) for i in range(n)}


def test_half_of_a_large_dev_becomes_test_where_there_is_none():
    given = collection(dev=numbered(HALVE_DEV_FROM))
    found = sources_of(given)
    assert found.dev | found.test == given.queries
    assert not set(found.dev) & set(found.test)
    assert found.dev_qrels | found.test_qrels == given.qrels["dev"]
    assert 20 <= len(found.test) <= 40
    assert any(f"{len(found.test)} of the dev queries" in notice for notice in found.notices)
    assert sources_of(given) == found


def test_a_smaller_dev_and_one_beside_a_test_stay_whole():
    assert sources_of(collection(dev=numbered(HALVE_DEV_FROM - 1))).test == {}
    both = collection(dev=numbered(HALVE_DEV_FROM), test={"t": ("charlie", {"d0": 1})})
    assert len(sources_of(both).dev) == HALVE_DEV_FROM


ASKED = [
    Question(f"g{i}", text, "question", f"d{i}") for i, text in enumerate(random_texts(120, seed=7, words=70, length=9))
]


def ship(monkeypatch, questions: list[Question]) -> None:
    """Let the collection come with questions."""
    monkeypatch.setattr("helpers.homework.sources.shipped_questions", lambda collection: questions)


def documents(n: int = 120) -> Collection:
    """Passages with a heading each, two of them twins, and no query."""
    texts = random_texts(n, seed=9, words=70, length=20)
    return Collection(
        "own", {f"d{i}": f"Heading number {i}: {texts[i]} and more of the same text {i}" for i in range(n)}
    )


def indexed(given: Collection, folder, duplicates=None) -> Chunks:
    dense = Dense(FakeEmbedder(), folder / "lancedb").index(given.corpus)
    return Chunks(given.corpus, {}, dense, BM25().index(given.corpus), duplicates or {})


def questions_of(given: Collection, folder) -> list[Question]:
    return make_questions(given, indexed(given, folder), Stages(folder, lambda line: None), 0).questions


def test_test_queries_that_are_added_later_are_kept_out_of_the_training_by_the_gates(tmp_path, monkeypatch):
    monkeypatch.setattr(gates, "MOST_OVERLAP", 1.0)
    given = Collection("own", {f"d{i}": f"{word} thing" for i, word in enumerate(TEN.split()[:6])})
    questions = [Question(f"g{i}", f"{word}?", "keyword", f"d{i}") for i, word in enumerate(TEN.split()[:6])]
    ship(monkeypatch, questions)
    assert len(questions_of(given, tmp_path)) == 6
    later = replace(given, queries={"t": "the CANDLE"}, qrels={"test": {"t": {"d2": 1}}})
    kept = questions_of(later, tmp_path)  # the same folder of stages
    assert [q.id for q in kept] == ["g0", "g1", "g3", "g4", "g5"]


def test_no_heading_of_a_held_out_passage_nor_of_its_twin_is_trained_on(tmp_path, monkeypatch):
    given = documents()
    ship(monkeypatch, ASKED)
    twins = {"d3": "d3", "d4": "d3"}
    chunks = indexed(given, tmp_path, twins)
    found = find_sources(Data(given), chunks, Stages(tmp_path, lambda line: None), 0)
    held = {d for docs in (*found.dev_qrels.values(), *found.test_qrels.values()) for d in docs}
    assert len(held) > 20
    assert held <= found.held_passages
    assert len({"d3", "d4"} & found.held_passages) != 1
    options = training_options(chunks, found, FakeEmbedder())
    trained = {d.removesuffix(HEADLESS) for o in options for docs in o.positives.values() for d in docs}
    assert [option.name for option in options] == ["made questions", "made questions and headings"]
    assert len(options[-1].headless) > 20
    assert not trained & found.held_passages


def test_what_is_held_out_is_not_among_the_made_questions(monkeypatch):
    given = collection(
        dev={"d1": ("open hours", {"b": 1})},
        test={"t1": ("get a refund", {"a": 1})},
        train={"1": ("ship abroad", {"a2": 0, "c": 1})},
    )
    questions = [
        Question("g1", "Refund, get!", "question", "c"),
        Question("g2", "Hours: open?", "keyword", "c"),
        Question("g3", "money back", "problem", "a2"),
        Question("g4", "lost parcel", "problem", "c"),
    ]
    ship(monkeypatch, questions)
    found = sources_of(given, {"a": "a", "a2": "a"})
    assert found.made == ({"g4": "lost parcel"}, {"g4": {"c": 1}})
    assert "Left out of the made queries, since they repeat one that is held out: 2." in found.notices
    assert found.queries == {"1": "ship abroad"}

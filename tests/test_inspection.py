"""What is noticed about a collection: other languages, passages that are too long, near-duplicates."""

import numpy as np
import pytest
from fakes import FakeEmbedder, random_texts

from helpers.collection.chunking import cut_long, token_counts
from helpers.collection.repeats import near_duplicates
from helpers.collection.text import guess_language, tokenize
from helpers.retrieval.first_stages import BM25, ByDocument, max_pool


@pytest.mark.parametrize(
    ("texts", "language"),
    [
        (["Der Hund ist nicht im Haus und die Katze schläft auf dem Sofa."], "German"),
        (["Le chien est dans la maison et les chats sont sur le toit pour dormir."], "French"),
        (["El perro no está en la casa, pero los gatos son como una familia más."], "Spanish"),
        (["De hond is niet in het huis en de kat zit op een stoel met een bal."], "Dutch"),
        (["Собака спит в доме, а кошка сидит на крыше."], "the Cyrillic script"),
        (["狗在房子里睡觉，猫在屋顶上。"], "the Cjk script"),
        (["The dog is not in the house and the cat sleeps on that sofa."], None),
        (["red shirt", "blue coat", "die cast"], None),
        (["def f(x):", "    return x + 1", "import os"], None),
        (["12 34", ""], None),
        ([], None),
    ],
)
def test_languages(texts, language):
    assert guess_language(texts * 3) == language


def test_an_english_collection_with_a_german_page_is_english():
    assert (
        guess_language(["The dog is not in the house and the cat is on it."] * 9 + ["Der Hund ist nicht im Haus."])
        is None
    )


@pytest.fixture
def encoder(tiny):
    return tiny  # reads 64 tokens


def test_only_what_is_too_long_is_cut_and_nothing_is_lost(encoder):
    long = " ".join(f"word{i}." for i in range(60))
    pieces, owner = cut_long({"a/ü": long, "b": "short"}, encoder)
    assert pieces["b"] == "short"
    assert set(owner.values()) == {"a/ü"}
    assert set(pieces) == {"b", *owner}
    assert max(token_counts(list(pieces.values()), encoder)) <= 64
    assert "".join("".join(pieces[p].split()) for p in owner) == "".join(long.split())


def test_chunk_ids_do_not_collide_with_ids_that_are_there(encoder):
    long = " ".join(f"word{i}." for i in range(60))
    pieces, owner = cut_long({"a#1": "mine", "a": long}, encoder)
    assert pieces["a#1"] == "mine"
    assert "a#1" not in owner
    assert len(owner) == len(pieces) - 1


def test_nothing_long_nothing_cut(encoder):
    assert cut_long({"a": "x", "b": "y"}, encoder) == ({"a": "x", "b": "y"}, {})


def test_a_document_ranks_by_its_best_chunk():
    run = {"q": {"a#1": 0.2, "b": 0.5, "a#2": 0.9, "c": 0.5}}
    assert max_pool(run, {"a#1": "a", "a#2": "a"}, 3) == {"q": {"a": 0.9, "b": 0.5, "c": 0.5}}
    assert list(max_pool(run, {"a#1": "a", "a#2": "a"}, 2)["q"]) == ["a", "b"]


def test_searching_by_document():
    pieces = {"a#1": "apple tart", "a#2": "apple pie", "b": "bread"}
    retriever = ByDocument(BM25(), {"a#1": "a", "a#2": "a"}).index(pieces)
    assert list(retriever.search("apple", 5)) == ["a"]
    assert list(retriever.retrieve({"q": "bread"}, 5)["q"]) == ["b"]


def test_near_duplicates_go_by_words_and_vectors():
    corpus = {
        "a": "the quick brown fox jumps over the lazy dog today",
        "b": "the quick brown fox jumps over the lazy dog today again",
        "c": "an entirely different text about bread",
        "d": "the quick brown fox jumps over the lazy dog today again again",
    }
    vectors = FakeEmbedder().embed(list(corpus.values()), "document")
    found = near_duplicates(corpus, vectors)
    assert found == dict.fromkeys("abd", "a")
    assert near_duplicates(corpus, np.eye(4, 32, dtype=np.float32)) == {}  # far apart by their vectors
    same = np.tile(vectors[:1], (4, 1))
    assert "c" not in near_duplicates(corpus, same)  # far apart by their words


WORDS = "alpha bravo charlie delta echo foxtrot golf hotel india juliet kilo".split()


def words(first: int, last: int) -> str:
    return " ".join(WORDS[first - 1 : last])


def turned(*degrees: float) -> np.ndarray:
    """Unit vectors at these angles in a plane; the cosine of 18° is 0.951, of 19° 0.946."""
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_near_duplicates_share_four_fifths_of_their_words_and_a_cosine_of_95():
    assert near_duplicates({"x": words(1, 8), "y": words(1, 10)}, turned(0, 18)) == {"x": "x", "y": "x"}  # 8 of 10
    assert near_duplicates({"x": words(1, 8), "y": words(1, 10)}, turned(0, 19)) == {}
    assert near_duplicates({"x": words(1, 7), "y": words(1, 9)}, turned(0, 0)) == {}  # 7 of 9: 0.78
    assert near_duplicates({"x": words(1, 4), "y": words(5, 8)}, turned(0, 0)) == {}


def test_chains_of_near_duplicates_are_one_group():
    # a and b share 8 of 10 words, b and c too, a and c 7 of 11; and a and c are 30° apart
    corpus = {"far": words(1, 2), "c": words(3, 11), "a": words(1, 9), "b": words(2, 10)}
    assert near_duplicates(corpus, turned(90, 30, 0, 15)) == dict.fromkeys("cab", "c")
    del corpus["b"]
    assert near_duplicates(corpus, turned(90, 30, 0)) == {}


def test_the_same_text_without_a_word_is_a_duplicate_and_another_one_is_not():
    corpus = {"a": "--- ---", "b": "***", "c": "--- ---"}
    assert near_duplicates(corpus, turned(0, 0, 0)) == {"a": "a", "c": "a"}


def test_vectors_are_in_the_order_of_the_corpus():
    corpus = dict.fromkeys("zya", "the same words")
    assert near_duplicates(corpus, turned(0, 0, 90)) == {"z": "z", "y": "z"}
    assert near_duplicates(corpus, turned(0, 90, 0)) == {"z": "z", "a": "z"}
    assert near_duplicates(corpus, turned(90, 0, 0)) == {"y": "y", "a": "y"}


def test_of_many_near_passages_the_nearest_are_compared(monkeypatch):
    monkeypatch.setattr("helpers.collection.repeats._NEIGHBOURS", 2)
    corpus = {"a": words(1, 5), "b": words(6, 7), "c": words(8, 9), "d": words(1, 5)}
    assert near_duplicates(corpus, turned(0, 2, 3, 1)) == {"a": "a", "d": "a"}
    assert near_duplicates(corpus, turned(0, 1, 2, 3)) == {}  # the third nearest
    assert near_duplicates(dict.fromkeys("abcdefg", "all alike"), turned(*[0] * 7)) == dict.fromkeys("abcdefg", "a")


@pytest.mark.parametrize("block", [1, 7, 500])
def test_near_duplicates_are_what_comparing_all_pairs_finds(monkeypatch, block):
    monkeypatch.setattr("helpers.collection.repeats._BLOCK", block)
    corpus = {f"d{i}": text for i, text in enumerate(random_texts(60, seed=2, words=8, length=6))}
    vectors = FakeEmbedder().embed(list(corpus.values()), "document")
    sets = [set(tokenize(text)) for text in corpus.values()]
    group = list(range(60))
    for i in range(60):
        for j in range(i):
            if vectors[i] @ vectors[j] >= 0.95 and 10 * len(sets[i] & sets[j]) >= 8 * len(sets[i] | sets[j]):
                old, new = max(group[i], group[j]), min(group[i], group[j])
                group = [new if g == old else g for g in group]
    expected = {f"d{i}": f"d{g}" for i, g in enumerate(group) if group.count(g) > 1}
    assert near_duplicates(corpus, vectors) == expected
    assert 5 < len(expected) < 60

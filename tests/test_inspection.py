"""What is noticed about a collection: other languages, passages that are too long, near-duplicates."""

import numpy as np
import pytest
from fakes import FakeEmbedder, tiny_encoder

from helpers.inspection import ByDocument, cut_long, fold, guess_language, near_duplicates, token_counts
from helpers.retrievers import BM25


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


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return tiny_encoder(tmp_path_factory.mktemp("tiny"))  # reads 64 tokens


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
    assert fold(run, {"a#1": "a", "a#2": "a"}, 3) == {"q": {"a": 0.9, "b": 0.5, "c": 0.5}}
    assert list(fold(run, {"a#1": "a", "a#2": "a"}, 2)["q"]) == ["a", "b"]


def test_searching_by_document():
    pieces = {"a#1": "apple tart", "a#2": "apple pie", "b": "bread"}
    retriever = ByDocument(BM25(), {"a#1": "a", "a#2": "a"}).index(pieces)
    assert list(retriever.search("apple", 5)) == ["a"]
    assert list(retriever.retrieve({"q": "bread"}, 5)["q"]) == ["b"]


def test_near_duplicates_go_by_words_and_vectors():
    corpus = {
        "a": "the quick brown fox jumps over the lazy dog today", "b": "the quick brown fox jumps over the lazy dog today again",
        "c": "an entirely different text about bread", "d": "the quick brown fox jumps over the lazy dog today again again",
    }  # fmt: skip
    vectors = FakeEmbedder().embed(list(corpus.values()), "document")
    found = near_duplicates(corpus, vectors)
    assert found == dict.fromkeys("abd", "a")
    assert near_duplicates(corpus, np.eye(4, 32, dtype=np.float32)) == {}  # far apart by their vectors
    same = np.tile(vectors[:1], (4, 1))
    assert "c" not in near_duplicates(corpus, same)  # far apart by their words

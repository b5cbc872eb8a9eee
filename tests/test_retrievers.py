"""BM25, dense and hybrid retrieval against numbers worked out by hand or by another implementation."""

import math
import shutil
from collections import Counter

import lancedb
import numpy as np
import pytest
from fakes import FakeEmbedder, random_texts
from lancedb.query import MatchQuery
from rank_bm25 import BM25Okapi

from helpers.collection.text import tokenize
from helpers.retrieval.first_stages import (
    BM25,
    ByDocument,
    Dense,
    Hybrid,
    WeightedHybrid,
    fuse,
    top_k,
    truncate,
    with_questions,
)
from helpers.retrieval.rerankers import Reranker, TwoStage
from helpers.store.files import WorkbookError

CORPUS = {f"d{i:02}": text for i, text in enumerate(random_texts(60, seed=1))}
QUERIES = {f"q{i}": text for i, text in enumerate(random_texts(12, seed=2, length=4))}


class CountingReranker(Reranker):
    """Scores a passage by how many of its words the query has."""

    def score(self, query, passages):
        return np.array([sum(w in query.split() for w in p.split()) for p in passages], dtype=float)


def dense(folder) -> Dense:
    return Dense(FakeEmbedder(), folder)


MAKERS = {
    "BM25": lambda folder: BM25(),
    "dense": dense,
    "hybrid": lambda folder: Hybrid(dense(folder)),
    "weighted hybrid": lambda folder: WeightedHybrid(BM25(), dense(folder), 0.4),
    "two stages": lambda folder: TwoStage(dense(folder), CountingReranker(), depth=5),
}
EVERY_RETRIEVER = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Read the FILES, reading a file.", ["read", "file", "read", "file"]),
        ("pd.read_fwf(path)", ["pd", "read", "fwf", "path"]),
        ("Größe 3.5", ["größe", "3", "5"]),
        ("the of and", []),
        ("", []),
        ("— … !?", []),
    ],
)
def test_tokenize_gives_lower_case_stems_without_stop_words(text, words):
    assert tokenize(text) == words


def test_top_k_breaks_ties_by_id():
    assert list(top_k(["c", "a", "d", "b"], [1, 1, 2, 1], 3).items()) == [("d", 2.0), ("a", 1.0), ("b", 1.0)]


def test_truncate_keeps_the_best_of_each_query_whatever_their_order():
    run = {"q1": {"c": 1.0, "a": 1.0, "d": 2.0, "b": 1.0}, "q2": {"x": 3.0}, "q3": {}}
    cut = truncate(run, 2)
    assert {q: list(docs.items()) for q, docs in cut.items()} == {
        "q1": [("d", 2.0), ("a", 1.0)],
        "q2": [("x", 3.0)],
        "q3": [],
    }


FIVE = {"d1": "cat dog", "d2": "cat cat bird", "d3": "dog", "d4": "bird fish fish fish", "d5": "cow"}


def test_bm25_of_five_documents_by_hand():
    # Lengths 2, 3, 1, 4, 1: average 2.2. The weight of a word that a document of length L has tf times is
    #   idf · tf · 2.5 / (tf + 1.5 · (0.25 + 0.75 · L / 2.2)),  idf = ln(1 + (5 − n + 0.5) / (n + 0.5)).
    # cat: n = 2, idf = ln 2.4 = 0.87547;  fish: n = 1, idf = ln 4 = 1.38629
    # d1: 0.87547 · 1 · 2.5 / (1 + 1.39773) = 0.9128
    # d2: 0.87547 · 2 · 2.5 / (2 + 1.90909) = 1.1198
    # d4: 1.38629 · 3 · 2.5 / (3 + 2.42045) = 1.9181
    found = BM25().index(FIVE).search("Cats or fish?", 10)
    assert list(found) == ["d4", "d2", "d1"]
    assert list(found.values()) == pytest.approx([1.9181, 1.1198, 0.9128], abs=5e-5)


def rank_bm25(corpus, lucene):
    """rank-bm25's own search, with Lucene's idf or with its own."""
    okapi = BM25Okapi([tokenize(text) for text in corpus.values()])
    if lucene:
        having = Counter(word for counts in okapi.doc_freqs for word in counts)
        okapi.idf = {w: math.log(1 + (len(corpus) - n + 0.5) / (n + 0.5)) for w, n in having.items()}

    def search(text, k):
        scores = okapi.get_scores(tokenize(text))
        return top_k([d for d, s in zip(corpus, scores, strict=True) if s > 0], scores[scores > 0], k)

    return search


@pytest.mark.parametrize("k", [10, 1000])
def test_bm25_ranks_as_rank_bm25_does(k):
    corpus = {f"d{i:03}": text for i, text in enumerate(random_texts(400, seed=3, length=30))}
    ours, theirs = BM25().index(corpus), rank_bm25(corpus, lucene=True)
    for text in random_texts(60, seed=4, length=6):
        found, expected = ours.search(text, k), theirs(text, k)
        assert list(found) == list(expected)
        np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-9)


def test_rank_bm25s_own_idf_can_put_a_word_of_most_passages_above_a_rarer_one():
    # "blue" is in six of seven passages: ln(1.5 / 6.5) < 0, so rank-bm25 takes a quarter of the mean idf, 1.12 / 4.
    # "whale" is in three: ln(4.5 / 3.5) = 0.25 < 0.28. Lucene's idf is ln(8 / 6.5) = 0.21 and ln(8 / 3.5) = 0.83.
    corpus = {
        "a": "blue",
        "b": "blue fox owl bat",
        "c": "blue elk cat dog",
        "d": "blue whale hen",
        "e": "blue whale cow",
    }
    corpus |= {"f": "blue pig ram", "g": "whale"}
    ours, theirs = (found("blue whale", 10) for found in (BM25().index(corpus).search, rank_bm25(corpus, lucene=False)))
    assert ours["g"] > ours["a"]
    assert theirs["g"] < theirs["a"]


@pytest.mark.parametrize("k", [1, 2, 5, 100])
def test_bm25_breaks_ties_by_id(k):
    corpus = dict.fromkeys("hcaebgdf", "a blue whale") | {"x": "a blue blue whale", "y": "red"}
    assert list(BM25().index(corpus).search("blue", k)) == list("xabcdefgh")[:k]


@pytest.mark.parametrize("query", ["xylophone zebra", "", "the of", "?!"])
def test_bm25_finds_nothing_without_a_known_word(query):
    corpus = {**CORPUS, "only stop words": "the of and", "no words": "— — —"}
    bm25 = BM25().index(corpus)
    assert bm25.search(query, 10) == {}
    assert bm25.retrieve({"q": query}) == {"q": {}}


@EVERY_RETRIEVER
def test_empty_collection_is_refused(make, tmp_path):
    with pytest.raises(WorkbookError, match="no passages"):
        make(tmp_path).index({})


@EVERY_RETRIEVER
@pytest.mark.parametrize("k", [1, 7, 1000])
def test_search_and_retrieve_agree(make, tmp_path, k):
    retriever = make(tmp_path).index(CORPUS)
    run = retriever.retrieve(QUERIES, k)
    assert list(run) == list(QUERIES)
    for q, text in QUERIES.items():
        single = retriever.search(text, k)
        assert list(run[q]) == list(single)
        assert list(run[q].values()) == pytest.approx(list(single.values()), abs=1e-6)


@EVERY_RETRIEVER
def test_run_is_sorted_with_known_ids_and_at_most_k_passages(make, tmp_path):
    for docs in make(tmp_path).index(CORPUS).retrieve(QUERIES, 9).values():
        assert 0 < len(docs) <= 9
        assert set(docs) <= set(CORPUS)
        assert list(docs.items()) == sorted(docs.items(), key=lambda pair: (-pair[1], pair[0]))


@EVERY_RETRIEVER
def test_k_may_be_larger_than_the_collection(make, tmp_path):
    corpus = dict(list(CORPUS.items())[:3])
    found = make(tmp_path).index(corpus).search(" ".join(CORPUS.values()), 50)
    assert set(found) == set(corpus)


@EVERY_RETRIEVER
def test_no_queries_make_an_empty_run(make, tmp_path):
    assert make(tmp_path).index(CORPUS).retrieve({}) == {}


@EVERY_RETRIEVER
def test_same_collection_gives_the_same_run_in_whatever_order_it_comes(make, tmp_path):
    reordered = dict(sorted(CORPUS.items(), key=lambda pair: pair[1]))
    first = make(tmp_path / "one").index(CORPUS).retrieve(QUERIES, 10)
    second = make(tmp_path / "two").index(reordered).retrieve(QUERIES, 10)
    assert {q: list(docs) for q, docs in first.items()} == {q: list(docs) for q, docs in second.items()}


def test_dense_equals_numpy_brute_force(tmp_path):
    run = dense(tmp_path).index(CORPUS).retrieve(QUERIES, 10)
    documents = FakeEmbedder().embed(list(CORPUS.values()), "document")
    cosines = FakeEmbedder().embed(list(QUERIES.values()), "query") @ documents.T
    for row, q in zip(cosines, QUERIES, strict=True):
        best = np.argsort(-row, kind="stable")[:10]
        assert list(run[q].values()) == pytest.approx(row[best].tolist(), abs=1e-6)
        assert {d: CORPUS[d] for d in run[q]} == {d: CORPUS[d] for d in np.array(list(CORPUS))[best].tolist()}


@pytest.mark.parametrize("k", [1, 3, 8])
def test_dense_breaks_ties_by_id_also_at_the_cut(tmp_path, k):
    corpus = dict.fromkeys("hcaebgdf", "a blue whale") | {"0": "red"}
    retriever = dense(tmp_path).index(corpus)
    assert list(retriever.search("blue", k)) == list("abcdefgh")[:k]
    assert list(retriever.retrieve({"p": "blue", "q": "whale"}, k)["q"]) == list("abcdefgh")[:k]


def test_dense_indexed_again_embeds_nothing(tmp_path):
    first = dense(tmp_path).index(CORPUS)
    before = first.retrieve(QUERIES)
    again = dense(tmp_path).index(CORPUS)
    assert again.retrieve(QUERIES) == before
    assert again.embedder.embedded == []


def test_dense_search_caches_no_query(tmp_path):
    retriever = dense(tmp_path).index(CORPUS)
    retriever.embedder.embedded.clear()
    for _ in range(2):
        retriever.search("a question", 3)
    assert retriever.embedder.embedded == ["a question"] * 2


def test_changed_text_makes_a_new_table_and_embeds_that_text_alone(tmp_path):
    old = dense(tmp_path).index(CORPUS)
    new = dense(tmp_path).index({**CORPUS, "d00": "entirely new words"})
    assert new.table.name != old.table.name
    assert new.embedder.embedded == ["entirely new words"]
    assert list(new.search("entirely new words", 1)) == ["d00"]


def test_changed_id_makes_a_new_table_and_embeds_nothing(tmp_path):
    old = dense(tmp_path).index(CORPUS)
    new = dense(tmp_path).index({f"x{d}": text for d, text in CORPUS.items()})
    assert new.table.name != old.table.name
    assert new.embedder.embedded == []
    assert all(d.startswith("x") for d in new.search("anything", 5))


def test_a_table_that_was_cut_off_while_it_was_written_is_written_again(tmp_path):
    whole = Dense(FakeEmbedder(), tmp_path).index(CORPUS)
    expected = whole.retrieve({"q": "green tea"}, 3)
    shutil.rmtree(tmp_path / f"{whole.table.name}.lance" / "_versions")
    assert Dense(FakeEmbedder(), tmp_path).index(CORPUS).retrieve({"q": "green tea"}, 3) == expected


def test_another_model_makes_a_new_table(tmp_path):
    tables = [Dense(FakeEmbedder(name), tmp_path).index(CORPUS).table.name for name in ("one", "two")]
    assert len(set(tables)) == 2


def reciprocal_ranks(*lists: list[str]) -> dict[str, float]:
    """The sum of 1 / (60 + rank) over the lists that have the passage."""
    return {d: sum(1 / (60 + one.index(d) + 1) for one in lists if d in one) for d in set().union(*lists)}


@pytest.mark.parametrize("k", [3, 10])
def test_hybrid_is_the_reciprocal_rank_fusion_of_both_lists_100_deep(tmp_path, k):
    hybrid = Hybrid(dense(tmp_path)).index(CORPUS)
    for text in QUERIES.values():
        words = hybrid.dense.table.search(MatchQuery(text, "text"), query_type="fts").limit(100).to_arrow()
        expected = reciprocal_ranks(words["id"].to_pylist(), list(hybrid.dense.search(text, 100)))
        found = hybrid.search(text, k)
        assert len(found) == k
        assert found == pytest.approx({d: expected[d] for d in found}, abs=1e-6)
        assert min(found.values()) >= max((s for d, s in expected.items() if d not in found), default=0) - 1e-6


def test_hybrid_gives_the_same_order_however_many_are_asked_for(tmp_path):
    hybrid = Hybrid(dense(tmp_path)).index(CORPUS)
    for text in QUERIES.values():
        assert list(hybrid.search(text, 3)) == list(hybrid.search(text, 10))[:3]


def test_hybrid_by_hand(tmp_path):
    # Full text finds "blue" in a and b only; a is shorter, so a comes before b.
    # The vectors are chosen so that b comes first, then c, then a.
    corpus = {"a": "blue", "b": "blue sea water", "c": "red"}
    vectors = {"blue": [0.0, 1.0], "blue sea water": [1.0, 0.0], "red": [0.8, 0.6], "Blue?": [1.0, 0.0]}

    class Chosen(FakeEmbedder):
        def _vector(self, text):
            return np.array(vectors[text])

    found = Hybrid(Dense(Chosen(width=2), tmp_path)).index(corpus).search("Blue?", 3)
    assert found == pytest.approx({"a": 1 / 61 + 1 / 63, "b": 1 / 62 + 1 / 61, "c": 1 / 62}, abs=1e-6)
    assert list(found) == ["b", "a", "c"]


@pytest.mark.parametrize("query", ["xylophone zebra", "the of", "?!", 'pd.read_csv("x") AND (', ""])
def test_hybrid_is_dense_where_full_text_finds_nothing(tmp_path, query):
    hybrid = Hybrid(dense(tmp_path)).index(CORPUS)
    found = hybrid.search(query, 5)
    assert list(found) == list(hybrid.dense.search(query, 5))
    assert list(found.values()) == pytest.approx([1 / 61, 1 / 62, 1 / 63, 1 / 64, 1 / 65], abs=1e-6)


def test_hybrid_indexed_again_makes_no_second_text_index(tmp_path):
    for _ in range(2):
        hybrid = Hybrid(dense(tmp_path)).index(CORPUS)
    assert len(hybrid.dense.table.list_indices()) == 1
    assert len([t for t in lancedb.connect(tmp_path).list_tables().tables if t.startswith("passages_")]) == 1


def test_fuse_by_hand():
    # first, scaled:  a (10 − 2) / 8 = 1, b (4 − 2) / 8 = 0.25, c 0;   second, scaled:  c 1, a 0.5, d 0
    # with weight 0.4:  a 0.6 · 1 + 0.4 · 0.5 = 0.8;  b 0.6 · 0.25 = 0.15;  c 0.4 · 1 = 0.4;  d 0
    first, second = {"q": {"a": 10.0, "b": 4.0, "c": 2.0}}, {"q": {"c": 0.9, "a": 0.8, "d": 0.7}}
    fused = fuse(first, second, 0.4)["q"]
    assert fused == pytest.approx({"a": 0.8, "c": 0.4, "b": 0.15, "d": 0.0})
    assert list(fused) == ["a", "c", "b", "d"]
    assert list(fuse(first, second, 0.4, k=2)["q"]) == ["a", "c"]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({"b": 3.0, "a": 3.0}, {}, {"a": 0.75, "b": 0.75}),  # equal scores are all the best
        ({"a": -7.0}, {"a": 2.0, "b": 1.0}, {"a": 1.0, "b": 0.0}),
        ({}, {"a": 0.5}, {"a": 0.25}),
        ({}, {}, {}),
    ],
)
def test_fuse_of_constant_and_empty_results(first, second, expected):
    fused = fuse({"q": first}, {"q": second}, 0.25)["q"]
    assert fused == pytest.approx(expected)
    assert list(fused) == list(expected)


def test_fuse_keeps_the_queries_of_both_runs():
    fused = fuse({"q1": {"a": 1.0}}, {"q2": {"b": 1.0}}, 0.25)
    assert fused == {"q1": {"a": 0.75}, "q2": {"b": 0.25}}


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
def test_fuse_refuses_a_weight_out_of_range(weight):
    with pytest.raises(WorkbookError, match="between 0 and 1"):
        fuse({}, {}, weight)


@pytest.mark.parametrize(("weight", "part"), [(0, "first"), (1, "second")])
def test_weighted_hybrid_with_all_weight_on_one_part_keeps_its_order(tmp_path, weight, part):
    hybrid = WeightedHybrid(BM25(), dense(tmp_path), weight).index(CORPUS)
    alone = getattr(hybrid, part).retrieve(QUERIES, 100)
    for q, docs in hybrid.retrieve(QUERIES, 100).items():
        positive = [d for d, score in docs.items() if score > 0]
        assert positive == list(alone[q])[: len(positive)]
        assert len(positive) >= len(set(alone[q].values())) - 1  # the part's lowest scores are scaled to 0


def test_weighted_hybrid_is_the_fusion_of_its_parts(tmp_path):
    hybrid = WeightedHybrid(BM25(), dense(tmp_path), 0.3).index(CORPUS)
    parts = [retriever.retrieve(QUERIES, 20) for retriever in (hybrid.first, hybrid.second)]
    assert hybrid.retrieve(QUERIES, 20) == fuse(*parts, 0.3, 20)


def test_a_passage_ranks_by_the_best_of_itself_and_its_questions():
    corpus = {"cut": "cut bread", "toast": "toast bread", "knife": "a sharp knife"}
    queries = {"q1": "slicing a loaf", "q2": "slicing a loaf evenly", "q3": "not relevant", "q4": "of no passage"}
    positives = {"q1": {"cut": 2}, "q2": {"cut": 1, "toast": 1}, "q3": {"knife": 0}, "q4": {"gone": 1}}
    texts, parents = with_questions(corpus, queries, positives)
    assert sorted(parents.values()) == ["cut", "cut", "toast"]
    assert sorted(set(texts.values()) - set(corpus.values())) == ["slicing a loaf", "slicing a loaf evenly"]
    found = ByDocument(BM25().index(texts), parents)
    plain = BM25().index(corpus)
    assert plain.search("slicing a loaf", 10) == {}
    assert list(found.search("slicing a loaf", 10)) == ["cut", "toast"]
    assert list(found.search("sharp knife", 10)) == list(plain.search("sharp knife", 10)) == ["knife"]


def test_questions_do_not_lower_a_passage_without_any(tmp_path):
    texts, parents = with_questions(CORPUS, {"q": "a question"}, {"q": {"d00": 1}})
    plain, expanded = dense(tmp_path).index(CORPUS), ByDocument(dense(tmp_path).index(texts), parents)
    for before, after in zip(
        plain.retrieve(QUERIES, 60).values(), expanded.retrieve(QUERIES, 60).values(), strict=True
    ):
        assert all(after[d] == pytest.approx(score) for d, score in before.items() if d != "d00")
        assert after["d00"] >= before["d00"] - 1e-6

"""The homework's systems: a run made of parts is the retriever's own, kept, scored and put on the scoreboard;
and what is trained on.
"""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import FakeEmbedder, random_texts

from helpers.collection.collection import Collection
from helpers.evaluation import measures
from helpers.evaluation.measures import read_scoreboard, record
from helpers.homework import chunks as chunking
from helpers.homework import scores as scoring
from helpers.homework import systems
from helpers.homework.chunks import Chunks
from helpers.homework.options import once, to_chunks
from helpers.homework.scores import NOTEBOOK, RERANKED, keep_rows, put_on_scoreboard, rerank_depth
from helpers.homework.sources import pooled
from helpers.homework.systems import Runs, System, hybrid, system_of, with_reranker
from helpers.retrieval.first_stages import BM25, Dense, Retriever
from helpers.retrieval.rerankers import Reranker
from helpers.store.stages import Stages


class Fixed(Retriever):
    """What it is given, {query text: {doc: score}}; ``asked`` holds every query that was asked for, in order."""

    usd_per_1000_queries = 0.5

    def __init__(self, found: dict[str, dict[str, float]], name: str = "fixed", key: str = "fixed"):
        self.found, self.name, self._key = found, name, key
        self.asked: list[str] = []

    @property
    def key(self):
        return self._key

    def index(self, corpus):
        return self

    def search(self, text, k):
        self.asked.append(text)
        return dict(list(self.found.get(text, {}).items())[:k])


class SharedWords(Reranker):
    """How many of its words a passage shares with the query."""

    name = "shared words"

    def __init__(self):
        self.model = torch.nn.Identity()

    def score(self, query, passages):
        return np.array([len({*query.split()} & {*p.split()}) for p in passages], dtype=np.float32)


def quiet(folder: Path) -> Stages:
    return Stages(folder / "stages", lambda line: None)


# Runs made of parts

N = 60
TEXTS = [f"{text} number{i}" for i, text in enumerate(random_texts(N, seed=3, words=60, length=9))]
QUERIES = {f"q{i}": " ".join([*text.split()[:3], f"number{i}"]) for i, text in enumerate(TEXTS)}


def runs_of_two(folder: Path, cut: bool) -> tuple[Runs, System, System]:
    """(runs, BM25, a dense system) on 60 passages, two of three cut in halves or none.

    40 dev queries and 20 test queries.
    """
    corpus = {f"d{i}": text for i, text in enumerate(TEXTS)}
    qrels = {f"q{i}": {f"d{i}": 1} for i in range(N)}
    splits = {"dev": dict(list(qrels.items())[:40]), "test": dict(list(qrels.items())[40:])}
    texts, parents = dict(corpus), {}
    if cut:
        texts = {}
        for i, (doc, text) in enumerate(corpus.items()):
            words = text.split()
            halves = [" ".join(part) for part in (words[: len(words) // 2], words[len(words) // 2 :]) if part]
            if i % 3 == 0 or len(halves) < 2:
                texts[doc] = text
                continue
            texts |= {f"{doc}#{n}": part for n, part in enumerate(halves, 1)}
            parents |= {f"{doc}#{n}": doc for n in (1, 2)}
    dense = Dense(FakeEmbedder("dense"), folder / "lancedb").index(texts)
    chunks = Chunks(texts, parents, dense, BM25().index(texts))
    runs = Runs(Collection("own", corpus, QUERIES, splits), chunks, quiet(folder))
    return runs, system_of(chunks, chunks.bm25), system_of(chunks, dense, encoder="an encoder")


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("split", ["dev", "test"])
def test_a_run_made_of_parts_is_what_the_retriever_gives(tmp_path, monkeypatch, cut, split):
    for module in (chunking, systems):
        monkeypatch.setattr(module, "K", 10)
    monkeypatch.setattr(measures, "WEIGHTS", (0.3,))  # so that both parts count
    runs, bm25, dense = runs_of_two(tmp_path, cut)
    mixed = hybrid(runs, bm25, dense, "hybrid", True)
    two, _ = with_reranker(runs, mixed, SharedWords(), 8)
    assert mixed.weight == two.weight == 0.3
    for system in (mixed, two):
        run = runs.of_documents(system, split)
        expected = runs.chunks.by_document(system.retriever).retrieve(runs.queries(split)[0], 10)
        assert list(run) == list(expected)
        for q in expected:
            assert list(run[q]) == list(expected[q])
            assert run[q] == pytest.approx(expected[q])
            assert set(run[q]) <= set(runs.collection.corpus)
    alone = runs.of_documents(mixed, split)
    assert any(list(runs.of_documents(two, split)[q]) != list(alone[q]) for q in runs.queries(split)[0])


def test_a_system_knows_what_it_is_made_of(tmp_path):
    runs, bm25, dense = runs_of_two(tmp_path, False)
    tuned = replace(dense, tuned=True, matrix=np.eye(32))
    mixed = hybrid(runs, bm25, tuned, "hybrid", True)
    assert (mixed.words, mixed.vectors, mixed.encoder, mixed.tuned) == (bm25, tuned, tuned.encoder, True)
    assert mixed.matrix is tuned.matrix
    two, _ = with_reranker(runs, mixed, SharedWords(), 8)
    assert two.name == "hybrid + shared words"
    assert (two.first, two.words, two.vectors, two.encoder, two.tuned) == (mixed, None, None, tuned.encoder, True)
    assert two.key != mixed.key
    words, _ = with_reranker(runs, bm25, SharedWords(), 8)
    assert [system.lexical for system in (bm25, words, dense, mixed, two)] == [True, True, False, False, False]
    assert [system.weight is None for system in (bm25, dense, mixed, two)] == [True, True, False, False]


def test_made_questions_do_not_weigh_words_against_vectors(tmp_path, monkeypatch):
    monkeypatch.setattr(measures, "WEIGHTS", (0.3,))
    runs, bm25, dense = runs_of_two(tmp_path, False)
    assert hybrid(runs, bm25, dense, "by judged queries", True).weight == 0.3
    assert hybrid(runs, bm25, dense, "by made ones", False).weight == 0.5
    assert with_reranker(runs, dense, SharedWords(), 8)[0].weight == 0.3


def test_a_second_stage_without_weight_leaves_the_first_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(measures, "WEIGHTS", (0.0,))
    runs, _, dense = runs_of_two(tmp_path, False)
    two, _ = with_reranker(runs, dense, SharedWords(), 8)
    assert two.weight == 0
    assert runs.scores(two, "test") == runs.scores(dense, "test")


# Runs that are kept and scored

ASKED = {"1": "one", "2": "two", "3": "three"}
FOUND = {"one": {"a": 2.0, "b": 1.0}, "two": {"a": 2.0, "b": 1.0}, "three": {"a": 1.0}}
QRELS = {"1": {"a": 1}, "2": {"b": 1}, "3": {"c": 1}}  # at rank 1, at rank 2, not found
MEAN = (1 + 1 / math.log2(3)) / 3


def small(folder: Path, **splits: dict) -> Runs:
    collection = Collection("own", {d: f"text {d}" for d in "abc"}, ASKED, splits)
    return Runs(collection, Chunks(collection.corpus, {}, None, None), quiet(folder))


def test_scores_by_hand(tmp_path):
    runs = small(tmp_path, dev=QRELS)
    system = system_of(runs.chunks, Fixed(FOUND))
    assert runs.scores(system, "dev") == pytest.approx([1, 1 / math.log2(3), 0])
    assert runs.scores(system, "test") == []
    assert runs.of_documents(system, "test") == {}


def test_a_run_is_made_once_and_again_for_another_key(tmp_path):
    runs, retriever = small(tmp_path, dev=QRELS), Fixed(FOUND)
    system = system_of(runs.chunks, retriever)
    first = runs.of_documents(system, "dev")
    assert retriever.asked == ["one", "two", "three"]
    assert runs.of_documents(system, "dev") == first
    runs.scores(system, "dev")
    later = small(tmp_path, dev=QRELS)
    assert later.of_documents(system_of(later.chunks, retriever), "dev") == first
    assert len(retriever.asked) == 3
    another = Fixed(FOUND, key="another key")
    later.of_documents(system_of(later.chunks, another), "dev")
    assert len(another.asked) == 3


def test_a_second_stage_looks_only_as_deep_as_memory_allows_and_at_dev_alone(tmp_path, monkeypatch):
    runs = small(tmp_path, dev={q: QRELS[q] for q in "12"}, test={"3": QRELS["3"]})
    lists = {text: {f"{text} {i}": -float(i) for i in range(60)} for text in ("one", "two")}
    lists["three"] = {f"three {i}": -float(i) for i in range(1000)}
    first, second = Fixed(lists, "first"), Fixed({"one": lists["two"], "two": lists["one"]}, "second")
    both = [system_of(runs.chunks, retriever) for retriever in (first, second)]
    # both find the same passages for the two dev queries: 100 of them at depth 50, 40 at depth 20
    for most, depth in ((100, 50), (99, 20), (40, 20), (39, 10), (0, RERANKED[-1])):
        monkeypatch.setattr(scoring, "MOST_RERANKED", most)
        assert rerank_depth(runs, both) == depth
    assert {*first.asked, *second.asked} == {"one", "two"}


def test_a_system_gets_its_row_on_the_scoreboard(tmp_path):
    runs = small(tmp_path, dev=QRELS)
    system = system_of(runs.chunks, Fixed(FOUND))
    told = put_on_scoreboard(runs, system, "dev")
    again = put_on_scoreboard(runs, system, "dev")
    assert again == told  # its latency too: it is measured once
    board = read_scoreboard(runs.collection)
    assert len(board) == 1
    row = board.iloc[0]
    assert (row["system"], row["notebook"], row["split"], row["n_queries"]) == ("fixed", NOTEBOOK, "dev", 3)
    assert row["ndcg@10"] == pytest.approx(MEAN, abs=1e-5)
    assert told["ndcg@10"] == pytest.approx(MEAN)
    assert row["usd_per_1000_queries"] == told["usd"] == 0.5
    assert told["ms"] >= 0


def test_rows_of_an_older_homework_go_and_those_of_notebooks_stay(tmp_path):
    runs = small(tmp_path, dev=QRELS)
    run = {q: FOUND[text] for q, text in ASKED.items()}
    for system, notebook in (("BM25", NOTEBOOK), ("gone", NOTEBOOK), ("gone too", "02_baselines"), ("old", NOTEBOOK)):
        record(runs.collection, "dev", system, run, notebook)
    keep_rows(runs, ["BM25", "encoder"])
    assert read_scoreboard(runs.collection)["system"].tolist() == ["BM25", "gone too"]
    before = (runs.collection.build / "scoreboard.csv").read_bytes()
    keep_rows(runs, ["BM25"])
    assert (runs.collection.build / "scoreboard.csv").read_bytes() == before


# What is judged


def test_two_retrievers_take_turns():
    first = Fixed({"x": {"a": 9.0, "b": 8.0, "c": 7.0}}, "first")
    second = Fixed({"x": {"b": 0.3, "d": 0.2, "e": 0.1}}, "second")
    # a, then b of the second, b again, then d; c and e are below the depth of 2
    found = pooled([first, second], {"q": "x"}, 2)
    assert list(found["q"].items()) == [("a", 0.0), ("b", -1.0), ("d", -2.0)]
    assert list(pooled([second, first], {"q": "x"}, 2)["q"]) == ["b", "a", "d"]
    assert list(pooled([first, second], {"q": "x"}, 3)["q"]) == ["a", "b", "d", "c", "e"]


def test_one_that_finds_nothing_leaves_the_pool_to_the_other():
    nothing, something = Fixed({}, "nothing"), Fixed({"x": {"a": 2.0, "b": 1.0, "c": 0.5}}, "something")
    for both in ([nothing, something], [something, nothing]):
        assert list(pooled(both, {"q": "x"}, 2)["q"]) == ["a", "b"]
    assert pooled([nothing, nothing], {"q": "x", "r": "y"}, 2) == {"q": {}, "r": {}}


def test_the_depth_of_a_pool_holds_for_a_retriever_that_gives_more():
    class Generous(Fixed):
        def search(self, text, k):
            return self.found[text]

    generous = Generous({"x": {"a": 3.0, "b": 2.0, "c": 1.0}})
    assert list(pooled([generous, Fixed({"x": {"d": 1.0}})], {"q": "x"}, 2)["q"]) == ["a", "d", "b"]


# What is trained on


def test_a_text_is_trained_on_once_with_the_passages_of_all_its_queries():
    queries = {"1": "cut bread", "2": "toast", "3": "cut  bread\n", "4": "Cut bread", "5": "not asked"}
    positives = {"1": {"a": 1}, "2": {"b": 1}, "3": {"c": 2, "a": 1}, "4": {"d": 1}}
    assert once(queries, positives) == (
        {"1": "cut bread", "2": "toast", "4": "Cut bread"},
        {"1": {"a": 1, "c": 2}, "2": {"b": 1}, "4": {"d": 1}},
    )
    assert once({}, {}) == ({}, {})


CHUNKS = {"a#1": "red apple tart", "a#2": "green pear jam", "b": "white bread", "c#1": "black tea", "c#2": "cold milk"}
PARENTS = {"a#1": "a", "a#2": "a", "c#1": "c", "c#2": "c"}


def test_of_a_passage_that_was_cut_the_nearest_chunk_is_trained_on():
    chunks = Chunks(CHUNKS, PARENTS, None, None)
    queries = {"1": "green pear jam", "2": "red apple tart", "3": "white bread"}
    positives = {"1": {"a": 2, "b": 1}, "2": {"a": 1}, "3": {"b": 1}}
    embedder = FakeEmbedder()
    found = to_chunks(chunks, queries, positives, embedder)
    assert found == {"1": {"a#2": 2, "b": 1}, "2": {"a#1": 1}, "3": {"b": 1}}
    assert {CHUNKS["c#1"], CHUNKS["c#2"]}.isdisjoint(embedder.embedded)  # nobody's answer
    assert positives["1"] == {"a": 2, "b": 1}


def test_where_nothing_was_cut_nothing_is_embedded():
    chunks = Chunks({"a": "x"}, {}, None, None)
    assert to_chunks(chunks, {"1": "y"}, {"1": {"a": 1}}, None) == {"1": {"a": 1}}

"""The homework's systems: a run made of parts is the retriever's own, kept, scored and put on the scoreboard;
and what is trained on.
"""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import FakeEmbedder, random_texts

from helpers.collection.collection import Collection
from helpers.evaluation.measures import read_scoreboard, record
from helpers.homework import bench as measuring
from helpers.homework.bench import NOTEBOOK, RERANKED, Bench
from helpers.homework.sources import pooled
from helpers.homework.tuning import once, to_pieces
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


def bench_of_two(folder: Path, cut: bool) -> Bench:
    """BM25 and a dense retriever on 60 passages, two of three cut in halves or none.

    40 dev queries and 20 test queries.
    """
    corpus = {f"d{i}": text for i, text in enumerate(TEXTS)}
    qrels = {f"q{i}": {f"d{i}": 1} for i in range(N)}
    splits = {"dev": dict(list(qrels.items())[:40]), "test": dict(list(qrels.items())[40:])}
    pieces, owner = dict(corpus), {}
    if cut:
        pieces = {}
        for i, (doc, text) in enumerate(corpus.items()):
            words = text.split()
            halves = [" ".join(part) for part in (words[: len(words) // 2], words[len(words) // 2 :]) if part]
            if i % 3 == 0 or len(halves) < 2:
                pieces[doc] = text
                continue
            pieces |= {f"{doc}#{n}": part for n, part in enumerate(halves, 1)}
            owner |= {f"{doc}#{n}": doc for n in (1, 2)}
    bench = Bench(Collection("own", corpus, QUERIES, splits), pieces, owner, quiet(folder))
    bench.add(BM25())
    bench.add(Dense(FakeEmbedder("dense"), bench.tables))
    return bench


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("split", ["dev", "test"])
def test_a_run_made_of_parts_is_what_the_retriever_gives(tmp_path, monkeypatch, cut, split):
    monkeypatch.setattr(measuring, "K", 10)
    monkeypatch.setattr(measuring, "WEIGHTS", (0.3,))  # so that both parts count
    bench = bench_of_two(tmp_path, cut)
    hybrid = bench.hybrid(bench.systems["BM25"], bench.systems["dense"], "hybrid")
    two, weight, _ = bench.reranked(hybrid, SharedWords(), 8, "two stages")
    assert hybrid.retriever.weight == two.retriever.weight == weight == 0.3
    for system in (hybrid, two):
        found = bench.run(system, split)
        expected = bench.final(system).retrieve(bench.queries(split)[0], 10)
        assert list(found) == list(expected)
        for q in expected:
            assert list(found[q]) == list(expected[q])
            assert found[q] == pytest.approx(expected[q])
            assert set(found[q]) <= set(bench.collection.corpus)
    assert any(list(bench.run(two, split)[q]) != list(bench.run(hybrid, split)[q]) for q in bench.queries(split)[0])


def test_made_questions_do_not_weigh_words_against_vectors(tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "WEIGHTS", (0.3,))
    bench = bench_of_two(tmp_path, False)
    parts = bench.systems["BM25"], bench.systems["dense"]
    assert bench.hybrid(*parts, "by judged queries").retriever.weight == 0.3
    bench.dev_made = True
    assert bench.hybrid(*parts, "by made ones").retriever.weight == 0.5
    assert bench.reranked(parts[1], SharedWords(), 8, "two stages")[1] == 0.3


def test_a_second_stage_without_weight_leaves_the_first_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "WEIGHTS", (0.0,))
    bench = bench_of_two(tmp_path, False)
    first = bench.systems["dense"]
    two, weight, _ = bench.reranked(first, SharedWords(), 8, "two stages")
    assert weight == 0
    assert bench.scores(two, "test") == bench.scores(first, "test")


# Runs that are kept and scored

ASKED = {"1": "one", "2": "two", "3": "three"}
FOUND = {"one": {"a": 2.0, "b": 1.0}, "two": {"a": 2.0, "b": 1.0}, "three": {"a": 1.0}}
QRELS = {"1": {"a": 1}, "2": {"b": 1}, "3": {"c": 1}}  # at rank 1, at rank 2, not found
MEAN = (1 + 1 / math.log2(3)) / 3


def small(folder: Path, **splits: dict) -> Bench:
    collection = Collection("own", {d: f"text {d}" for d in "abc"}, ASKED, splits)
    return Bench(collection, collection.corpus, {}, quiet(folder))


def test_scores_by_hand(tmp_path):
    bench = small(tmp_path, dev=QRELS)
    system = bench.add(Fixed(FOUND))
    assert bench.scores(system, "dev") == pytest.approx([1, 1 / math.log2(3), 0])
    assert bench.scores(system, "test") == []
    assert bench.run(system, "test") == {}


def test_a_run_is_made_once_and_again_for_another_key(tmp_path):
    bench, retriever = small(tmp_path, dev=QRELS), Fixed(FOUND)
    system = bench.add(retriever)
    first = bench.run(system, "dev")
    assert retriever.asked == ["one", "two", "three"]
    assert bench.run(system, "dev") == first
    bench.scores(system, "dev")
    later = small(tmp_path, dev=QRELS)
    assert later.run(later.add(retriever), "dev") == first
    assert len(retriever.asked) == 3
    another = Fixed(FOUND, key="another key")
    later.run(later.add(another), "dev")
    assert len(another.asked) == 3


def test_a_second_stage_looks_only_as_deep_as_memory_allows_and_at_dev_alone(tmp_path, monkeypatch):
    bench = small(tmp_path, dev={q: QRELS[q] for q in "12"}, test={"3": QRELS["3"]})
    lists = {text: {f"{text} {i}": -float(i) for i in range(60)} for text in ("one", "two")}
    lists["three"] = {f"three {i}": -float(i) for i in range(1000)}
    first, second = Fixed(lists, "first"), Fixed({"one": lists["two"], "two": lists["one"]}, "second")
    systems = [bench.add(first), bench.add(second)]
    # both find the same passages for the two dev queries: 100 of them at depth 50, 40 at depth 20
    for most, depth in ((100, 50), (99, 20), (40, 20), (39, 10), (0, RERANKED[-1])):
        monkeypatch.setattr(measuring, "MOST_RERANKED", most)
        assert bench.rerank_depth(systems) == depth
    assert {*first.asked, *second.asked} == {"one", "two"}


def test_a_system_gets_its_row_on_the_scoreboard(tmp_path):
    bench = small(tmp_path, dev=QRELS)
    system = bench.add(Fixed(FOUND))
    told = bench.put_on_scoreboard(system, "dev")
    again = bench.put_on_scoreboard(system, "dev")
    assert again == told  # its latency too: it is measured once
    board = read_scoreboard(bench.collection)
    assert len(board) == 1
    row = board.iloc[0]
    assert (row["system"], row["notebook"], row["split"], row["n_queries"]) == ("fixed", NOTEBOOK, "dev", 3)
    assert row["ndcg@10"] == pytest.approx(MEAN, abs=1e-5)
    assert told["ndcg@10"] == pytest.approx(MEAN)
    assert row["usd_per_1000_queries"] == told["usd"] == 0.5
    assert told["ms"] >= 0


def test_rows_of_an_older_homework_go_and_those_of_notebooks_stay(tmp_path):
    bench = small(tmp_path, dev=QRELS)
    run = {q: FOUND[text] for q, text in ASKED.items()}
    for system, notebook in (("BM25", NOTEBOOK), ("gone", NOTEBOOK), ("gone too", "02_baselines"), ("old", NOTEBOOK)):
        record(bench.collection, "dev", system, run, notebook)
    bench.keep_rows(["BM25", "encoder"])
    assert read_scoreboard(bench.collection)["system"].tolist() == ["BM25", "gone too"]
    before = (bench.collection.build / "scoreboard.csv").read_bytes()
    bench.keep_rows(["BM25"])
    assert (bench.collection.build / "scoreboard.csv").read_bytes() == before


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


PIECES = {"a#1": "red apple tart", "a#2": "green pear jam", "b": "white bread", "c#1": "black tea", "c#2": "cold milk"}
OWNER = {"a#1": "a", "a#2": "a", "c#1": "c", "c#2": "c"}


def test_of_a_passage_that_was_cut_the_nearest_chunk_is_trained_on(tmp_path):
    bench = Bench(Collection("own", dict.fromkeys("abc", "x")), PIECES, OWNER, quiet(tmp_path))
    queries = {"1": "green pear jam", "2": "red apple tart", "3": "white bread"}
    positives = {"1": {"a": 2, "b": 1}, "2": {"a": 1}, "3": {"b": 1}}
    embedder = FakeEmbedder()
    found = to_pieces(bench, queries, positives, embedder)
    assert found == {"1": {"a#2": 2, "b": 1}, "2": {"a#1": 1}, "3": {"b": 1}}
    assert {PIECES["c#1"], PIECES["c#2"]}.isdisjoint(embedder.embedded)  # nobody's answer
    assert positives["1"] == {"a": 2, "b": 1}


def test_where_nothing_was_cut_nothing_is_embedded(tmp_path):
    bench = Bench(Collection("own", {"a": "x"}), {"a": "x"}, {}, quiet(tmp_path))
    assert to_pieces(bench, {"1": "y"}, {"1": {"a": 1}}, None) == {"1": {"a": 1}}

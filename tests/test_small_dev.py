"""What chooses checkpoints stays small, and scores by all that is known of the queries it asks."""

from pathlib import Path

import pytest

from helpers.collection.collection import Collection
from helpers.evaluation.choosing import DEV_PASSAGES
from helpers.homework import tuning as small_dev
from helpers.homework.bench import Bench
from helpers.homework.sources import Sources
from helpers.homework.tuning import MOST_DEV_RELEVANT, DevByDocument, best_positives, dev_set, parts_of
from helpers.retrieval.first_stages import Retriever
from helpers.store.stages import Stages


class First(Retriever):
    """The first passages of the corpus, whatever is asked."""

    name = "first"

    def index(self, corpus):
        self.ids = list(corpus)
        return self

    def search(self, text, k):
        return {doc: -float(i) for i, doc in enumerate(self.ids[:k])}


def bench_of(folder: Path, corpus: dict, qrels: dict, owner: dict | None = None, pieces: dict | None = None):
    """(bench, its sources, the base system), with dev alone."""
    queries = {q: f"question {q}" for q in qrels}
    collection = Collection("own", corpus, queries, {"dev": qrels})
    bench = Bench(collection, pieces or corpus, owner or {}, Stages(folder / "stages", lambda line: None))
    return bench, Sources(dev=queries, dev_qrels=qrels), bench.add(First())


def test_the_best_graded_stay():
    positives = {"q": {"a": 1, "b": 3, "c": 0, "d": 2}, "r": {"e": 1}, "s": {"f": 0}}
    assert best_positives(positives, 2) == {"q": {"b": 3, "d": 2}, "r": {"e": 1}, "s": {}}
    assert list(best_positives(positives, 9)["q"].items()) == [("b", 3), ("d", 2), ("a", 1)]


def test_of_equal_grades_the_same_stay_in_whatever_order_they_come():
    docs = {f"d{i}": 1 for i in range(20)} | {"best": 2}
    found = best_positives({"q": docs}, 5)["q"]
    assert len(found) == 5
    assert next(iter(found)) == "best"
    assert found == best_positives({"q": dict(reversed(docs.items()))}, 5)["q"]
    assert set(found) != {"best", "d0", "d1", "d2", "d3"}  # drawn, not the first


def test_many_relevant_passages_make_a_small_collection_all_the_same(tmp_path):
    # 150 queries with 20 relevant passages each, of which 10 count: 80 queries reach 800.
    qrels = {f"q{i}": {f"d{20 * i + j}": 1 + j % 2 for j in range(20)} for i in range(150)}
    corpus = {f"d{i}": f"passage {i}" for i in range(4000)}
    bench, sources, base = bench_of(tmp_path, corpus, qrels)
    evaluator, all_qrels = dev_set(bench, sources, base)
    assert len(evaluator.queries) == MOST_DEV_RELEVANT // 10
    assert MOST_DEV_RELEVANT <= len(evaluator.corpus) <= MOST_DEV_RELEVANT + DEV_PASSAGES
    assert evaluator.qrels == {q: qrels[q] for q in evaluator.queries}
    assert all(len(docs) == 20 for docs in evaluator.qrels.values())
    assert list(evaluator.queries) == [q for q in sources.dev if q in evaluator.queries]
    assert all_qrels == qrels
    best = best_positives(evaluator.qrels, 10)
    assert {d for docs in best.values() for d in docs} <= set(evaluator.corpus)


def test_a_usual_dev_is_asked_whole(tmp_path):
    qrels = {f"q{i}": {f"d{i}": 1} for i in range(40)}
    bench, sources, base = bench_of(tmp_path, {f"d{i}": f"passage {i}" for i in range(60)}, qrels)
    evaluator, _ = dev_set(bench, sources, base)
    assert (evaluator.queries, evaluator.qrels) == (sources.dev, qrels)
    assert len(evaluator.corpus) == 60


def test_one_query_is_asked_however_much_is_relevant_to_it(tmp_path, monkeypatch):
    monkeypatch.setattr(small_dev, "MOST_DEV_RELEVANT", 5)
    qrels = {q: {f"{q}{i}": 1 for i in range(10)} for q in "ab"}
    bench, sources, base = bench_of(tmp_path, {d: d for docs in qrels.values() for d in docs}, qrels)
    assert len(dev_set(bench, sources, base)[0].queries) == 1


PIECES = {"a#1": "one", "a#2": "two", "b": "three", "c#1": "four", "c#2": "five"}
OWNER = {"a#1": "a", "a#2": "a", "c#1": "c", "c#2": "c"}


def test_the_parts_of_the_passages_that_were_cut(tmp_path):
    bench, *_ = bench_of(tmp_path, dict.fromkeys("abc", "x"), {}, OWNER, PIECES)
    assert parts_of(bench) == {"a": ["a#1", "a#2"], "c": ["c#1", "c#2"]}


def test_chunks_of_a_right_passage_are_right_and_what_chooses_names_passages(tmp_path):
    qrels = {"q": {"a": 2, "b": 1}}
    bench, sources, base = bench_of(tmp_path, dict.fromkeys("abc", "x"), qrels, OWNER, PIECES)
    evaluator, chunked = dev_set(bench, sources, base)
    assert chunked == {"q": {"a#1": 2, "a#2": 2, "b": 1}}
    assert isinstance(evaluator, DevByDocument)
    assert evaluator.qrels == qrels
    assert evaluator.corpus == PIECES


@pytest.mark.parametrize("owner", [OWNER, {}])
def test_another_owner_is_another_key(owner):
    kept = DevByDocument({"q": "x"}, {"q": {"a": 1}}, PIECES, OWNER)
    other = DevByDocument({"q": "x"}, {"q": {"a": 1}}, PIECES, owner)
    assert (kept.key == other.key) is (owner == OWNER)

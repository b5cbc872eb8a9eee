"""What chooses checkpoints stays small, and scores by all that is known of the queries it asks."""

import pytest

from helpers.collection.collection import Collection
from helpers.evaluation.choosing import DEV_PASSAGES
from helpers.homework import plan
from helpers.homework.chunks import Chunks
from helpers.homework.options import best_positives
from helpers.homework.plan import MOST_DEV_RELEVANT, DevByDocument, DevSet, dev_set
from helpers.homework.sources import Sources


def dev_of(corpus: dict, qrels: dict, parents: dict | None = None, texts: dict | None = None) -> DevSet:
    """The dev set of a collection; a first stage finds the first passages of the corpus, whatever is asked."""
    queries = {q: f"question {q}" for q in qrels}
    sources = Sources(Collection("own", corpus, queries, {"dev": qrels}), dev=queries, dev_qrels=qrels)
    chunks = Chunks(texts or corpus, parents or {}, None, None)
    run = {q: {doc: -float(i) for i, doc in enumerate(list(chunks.texts)[:100])} for q in qrels}
    return dev_set(chunks, sources, run)


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


def test_many_relevant_passages_make_a_small_collection_all_the_same():
    # 150 queries with 20 relevant passages each, of which 10 count: 80 queries reach 800.
    qrels = {f"q{i}": {f"d{20 * i + j}": 1 + j % 2 for j in range(20)} for i in range(150)}
    corpus = {f"d{i}": f"passage {i}" for i in range(4000)}
    dev = dev_of(corpus, qrels)
    evaluator = dev.evaluator
    assert len(evaluator.queries) == MOST_DEV_RELEVANT // 10
    assert MOST_DEV_RELEVANT <= len(evaluator.corpus) <= MOST_DEV_RELEVANT + DEV_PASSAGES
    assert evaluator.qrels == {q: qrels[q] for q in evaluator.queries}
    assert all(len(docs) == 20 for docs in evaluator.qrels.values())
    assert list(evaluator.queries) == [q for q in dev.queries if q in evaluator.queries]
    assert dev.qrels == qrels
    best = best_positives(evaluator.qrels, 10)
    assert {d for docs in best.values() for d in docs} <= set(evaluator.corpus)


def test_a_usual_dev_is_asked_whole():
    qrels = {f"q{i}": {f"d{i}": 1} for i in range(40)}
    dev = dev_of({f"d{i}": f"passage {i}" for i in range(60)}, qrels)
    assert (dev.evaluator.queries, dev.evaluator.qrels) == (dev.queries, qrels)
    assert len(dev.evaluator.corpus) == 60


def test_one_query_is_asked_however_much_is_relevant_to_it(monkeypatch):
    monkeypatch.setattr(plan, "MOST_DEV_RELEVANT", 5)
    qrels = {q: {f"{q}{i}": 1 for i in range(10)} for q in "ab"}
    assert len(dev_of({d: d for docs in qrels.values() for d in docs}, qrels).evaluator.queries) == 1


CHUNKS = {"a#1": "one", "a#2": "two", "b": "three", "c#1": "four", "c#2": "five"}
PARENTS = {"a#1": "a", "a#2": "a", "c#1": "c", "c#2": "c"}


def test_the_parts_of_the_passages_that_were_cut():
    assert Chunks(CHUNKS, PARENTS, None, None).parts == {"a": ["a#1", "a#2"], "c": ["c#1", "c#2"]}


def test_chunks_of_a_right_passage_are_right_and_what_chooses_names_passages():
    qrels = {"q": {"a": 2, "b": 1}}
    dev = dev_of(dict.fromkeys("abc", "x"), qrels, PARENTS, CHUNKS)
    evaluator = dev.evaluator
    assert dev.qrels == {"q": {"a#1": 2, "a#2": 2, "b": 1}}
    assert isinstance(evaluator, DevByDocument)
    assert evaluator.qrels == qrels
    assert evaluator.corpus == CHUNKS


@pytest.mark.parametrize("parents", [PARENTS, {}])
def test_other_parents_are_another_key(parents):
    kept = DevByDocument({"q": "x"}, {"q": {"a": 1}}, CHUNKS, PARENTS)
    other = DevByDocument({"q": "x"}, {"q": {"a": 1}}, CHUNKS, parents)
    assert (kept.key == other.key) is (parents == PARENTS)

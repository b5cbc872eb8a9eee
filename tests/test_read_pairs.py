"""The committed scores of the cross-encoder: used instead of reading, checked by reading some of them again."""

import numpy as np
import pytest

from helpers.collection.collection import Collection
from helpers.retrieval import read_pairs
from helpers.retrieval.read_pairs import known_pairs, pairs_file, pairs_key
from helpers.retrieval.rerankers import CrossEncoderReranker
from helpers.store.evidence import write_run
from helpers.store.files import WorkbookError
from helpers.training import pair_evidence

OWN = Collection(
    "own",
    {"a": "apple", "b": "pear tree", "c": "plum"},
    {"q1": "what?", "q2": "who?"},
    {"test": {"q1": {"a": 1}, "q2": {"b": 1}}},
)
RUN = {"q1": {"a": 3.0, "b": 2.0, "c": 1.0}, "q2": {"a": 3.0, "b": 2.0}}
SHIPPED = {"q1": {"a": 5.0, "b": 9.0}, "q2": {"b": 8.0}}


class LengthModel:
    """Scores a pair by the characters of both texts, and counts what it read."""

    def __init__(self):
        self.read = []

    def predict(self, pairs, show_progress_bar=False):
        self.read += pairs
        return np.array([len(q) + len(p) for q, p in pairs], dtype=float)


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.setattr(read_pairs, "RUNS", tmp_path / "runs")
    for module in (read_pairs, __import__("helpers.retrieval.rerankers", fromlist=["rerankers"])):
        monkeypatch.setattr(module, "model_key", lambda model: "0123")
    monkeypatch.setattr(pair_evidence, "load_reranker", lambda name: model)
    monkeypatch.setattr(pair_evidence, "is_packaged", lambda name: True)
    model = LengthModel()
    write_run(pairs_file(OWN, model), SHIPPED, pairs_key(OWN, model))
    return model


def test_committed_scores_are_used_and_the_others_are_read(model, tmp_path):
    reranker = CrossEncoderReranker(model, tmp_path, given=known_pairs(OWN, model))
    scored = reranker.rerank(OWN.queries, RUN, OWN.corpus, k=3)
    assert scored["q1"] == {"b": 9.0, "c": len("what?plum"), "a": 5.0} | {}
    assert list(scored["q2"].items()) == [("a", len("who?apple")), ("b", 8.0)]
    assert sorted(model.read) == [("what?", "plum"), ("who?", "apple")]


def test_the_deeper_and_the_cut_run_agree(model, tmp_path):
    reranker = CrossEncoderReranker(model, tmp_path, given=known_pairs(OWN, model))
    two = reranker.rerank(OWN.queries, RUN, OWN.corpus, k=2)
    assert two == {"q1": {"b": 9.0, "a": 5.0}, "q2": {"a": len("who?apple"), "b": 8.0}}


def test_a_changed_text_makes_them_stale_and_the_pairs_are_read(model, capsys):
    changed = Collection("own", OWN.corpus | {"c": "prune"}, OWN.queries, OWN.qrels)
    assert known_pairs(changed, model) == {}
    assert "is stale" in capsys.readouterr().out


def test_another_collection_has_none(model, capsys):
    assert known_pairs(Collection("other", OWN.corpus, OWN.queries, OWN.qrels), model) == {}
    assert capsys.readouterr().out == ""


def test_a_check_passes_on_the_models_own_scores_and_fails_on_others(model):
    own = {q: {d: float(len(OWN.queries[q]) + len(OWN.corpus[d])) for d in docs} for q, docs in RUN.items()}
    write_run(pairs_file(OWN, model), own, pairs_key(OWN, model))
    said = []
    pair_evidence.check_pairs(OWN, "c0ffee", said.append)
    assert said == ["cross-encoder, 5 of 5 pairs read again: at most 0.0000 apart"]
    own["q2"]["b"] += 0.02
    write_run(pairs_file(OWN, model), own, pairs_key(OWN, model))
    with pytest.raises(WorkbookError, match=r"score of q2 and b is 0\.020 away.*make evidence ONLY=pairs"):
        pair_evidence.check_pairs(OWN, "c0ffee", said.append)


def test_a_check_without_any_is_refused(model):
    pairs_file(OWN, model).unlink()
    with pytest.raises(WorkbookError, match="No scores of the cross-encoder are committed"):
        pair_evidence.check_pairs(OWN, "c0ffee")

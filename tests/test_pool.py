"""The judgments of pydocs cover what the four pooled systems return, and the shipped course's own claims hold."""

import pytest

from helpers.collection.collection import open_collection
from helpers.evaluation.measures import evaluate
from helpers.models.embed import LocalEmbedder
from helpers.models.load import load_encoder, load_late_interaction
from helpers.retrieval.first_stages import BM25, Dense, Hybrid
from helpers.retrieval.rerankers import LateInteraction, TwoStage
from helpers.store.files import ROOT


@pytest.fixture(scope="module")
def pooled_runs():
    """The runs of the four systems that made the pool; vectors are shared with the notebooks under build/."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBOOK_BUILD", str(ROOT / "build"))
        collection = open_collection("pydocs")
        folder = collection.build / "lancedb"
        dense = Dense(LocalEmbedder(load_encoder(), "encoder"), folder)
        late = LateInteraction(load_late_interaction(), folder)
        systems = {"BM25": BM25(), "encoder": dense, "hybrid": Hybrid(dense), "late interaction": TwoStage(dense, late)}
        runs = {name: s.index(collection.corpus).retrieve(collection.queries) for name, s in systems.items()}
    return collection, runs


@pytest.mark.slow
@pytest.mark.parametrize("split", ["dev", "test"])
@pytest.mark.parametrize("system", ["BM25", "encoder", "hybrid", "late interaction"])
def test_the_first_ten_of_each_pooled_system_are_all_judged(pooled_runs, system, split):
    collection, runs = pooled_runs
    assert evaluate(collection.split(split)[1], runs[system])["judged@10"] == 1.0


@pytest.mark.slow
def test_meaning_beats_words_on_these_queries(pooled_runs):
    collection, runs = pooled_runs
    qrels = collection.split("dev")[1]
    assert evaluate(qrels, runs["encoder"])["ndcg@10"] > evaluate(qrels, runs["BM25"])["ndcg@10"] + 0.1

"""Query-side tuning: its loss by hand, what is no negative, and one training that leaves the passages alone."""

import copy

import numpy as np
import pytest
import torch
from fakes import FakeEmbedder, random_texts

from helpers.collection.collection import Collection
from helpers.evaluation.measures import per_query
from helpers.models.embed import CachedEmbedder, LocalEmbedder, TwoEncoders
from helpers.models.load import model_key
from helpers.retrieval.first_stages import Dense
from helpers.store.files import WorkbookError
from helpers.training.fitting import Recipe
from helpers.training.losses import PassagesLoss
from helpers.training.query_side import DevQueries, finetune_queries, query_rows
from helpers.training.triplets import Triplet

PASSAGES = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], dtype=np.float32)


def loss_of(vectors: list[list[float]], labels: list[list[int]], scale: float = 1.0) -> float:
    loss = PassagesLoss(lambda features: {"sentence_embedding": torch.tensor(vectors)}, PASSAGES, scale)
    return float(loss([{}], torch.tensor(labels)))


def test_loss_by_hand():
    # cosines of the query (1, 0): 1, 0, −1; cross-entropy of the first: log(e + 1 + 1/e) − 1 = log(4.08616) − 1
    assert loss_of([[3.0, 0.0]], [[0]]) == pytest.approx(np.log(np.e + 1 + 1 / np.e) - 1, abs=1e-6)
    # at scale 2 the cosines count twice; of two queries the mean
    assert loss_of([[1.0, 0.0]], [[1]], 2) == pytest.approx(np.log(np.e**2 + 1 + np.e**-2), abs=1e-6)
    both = loss_of([[1.0, 0.0], [1.0, 0.0]], [[0], [2]])
    assert both == pytest.approx(np.log(np.e + 1 + 1 / np.e), abs=1e-6)


def test_another_positive_of_a_query_is_no_negative():
    # the second passage is right too, so that the first competes with the third alone
    assert loss_of([[1.0, 0.0]], [[0, 1]]) == pytest.approx(np.log(np.e + 1 / np.e) - 1, abs=1e-6)
    assert loss_of([[1.0, 0.0]], [[0, -1]]) == loss_of([[1.0, 0.0]], [[0]])


def test_a_loss_that_is_no_number_is_said_in_a_sentence():
    with pytest.raises(WorkbookError, match="diverged"):
        loss_of([[float("nan"), 0.0]], [[0]])


def test_rows_name_the_right_passage_first_and_the_querys_others_after_it():
    triplets = [
        Triplet("1", "one", "a"),
        Triplet("2", "two  words", "b"),
        Triplet("3", "two words", "c"),
        Triplet("1", "one", "a"),
    ]
    rows = query_rows(triplets, ["a", "b", "c"])
    assert rows.to_dict() == {"anchor": ["one", "two  words", "two words"], "label": [[0, -1], [1, 2], [2, 1]]}


TEXTS = list(dict.fromkeys(f"{text} {i}" for i, text in enumerate(random_texts(60, seed=5, words=60, length=8))))
CORPUS = {f"d{i:02d}": text for i, text in enumerate(TEXTS)}
QUERIES = {f"q{i:02d}": " ".join(text.split()[::-1][:3]) for i, text in enumerate(TEXTS)}
RECIPE = Recipe(epochs=4, batch_size=16, learning_rate=1e-3, dimensions=(), evaluations=2, seed=1)


@pytest.fixture
def tuned(tiny):
    """(collection, dev, trained) of one training on 40 queries, with 20 as dev."""
    collection = Collection("small", CORPUS)
    documents = LocalEmbedder(tiny, "tiny")
    ids = list(CORPUS)
    held = list(QUERIES)[40:]
    qrels = {q: {q.replace("q", "d"): 1} for q in held}
    dev = DevQueries({q: QUERIES[q] for q in held}, qrels, ids, documents.embed(list(CORPUS.values()), "document"))
    triplets = [Triplet(q, text, q.replace("q", "d")) for q, text in list(QUERIES.items())[:40]]
    return collection, dev, triplets, finetune_queries(collection, triplets, dev, copy.deepcopy(tiny), RECIPE)


def test_what_is_kept_is_at_least_as_good_on_dev_and_found_again(tuned, tiny):
    collection, dev, triplets, trained = tuned
    assert trained.record["dev"]["best"] >= trained.record["dev"]["start"]
    assert trained.record["loss"] == "PassagesLoss"
    assert trained.record["dev"]["best"] == pytest.approx(dev(trained.model)["dev_ndcg@10"], abs=1e-6)
    again = finetune_queries(collection, triplets, dev, copy.deepcopy(tiny), RECIPE)
    assert again.loaded
    assert model_key(again.model) == model_key(trained.model)
    other = DevQueries(dev.queries, dev.qrels, dev.ids, -dev.passages)
    assert other.key != dev.key  # other vectors of the passages are another training


def test_dev_is_scored_as_the_retriever_finds(tuned, tiny, tmp_path):
    _, dev, _, trained = tuned
    pair = TwoEncoders(LocalEmbedder(trained.model), LocalEmbedder(tiny, "tiny"), "tuned for queries")
    dense = Dense(pair, tmp_path).index(CORPUS)
    found = dense.retrieve(dev.queries, 10)
    assert per_query(dev.qrels, found)["ndcg@10"].mean() == pytest.approx(dev(trained.model)["dev_ndcg@10"], abs=1e-6)


def test_the_passages_are_embedded_by_their_own_encoder_and_their_index_is_shared(tmp_path):
    queries, documents = FakeEmbedder("queries"), FakeEmbedder("documents")
    Dense(documents, tmp_path).index(CORPUS)
    embedded = len(documents.embedded)
    pair = Dense(TwoEncoders(queries, documents, "both"), tmp_path).index(CORPUS)
    assert len(documents.embedded) == embedded  # nothing anew
    cached = CachedEmbedder(pair.embedder, tmp_path).embed(list(CORPUS.values()), "document")
    assert len(documents.embedded) == embedded
    assert np.allclose(cached, documents.embed(list(CORPUS.values()), "document"))
    pair.search("some query", 3)
    assert queries.embedded == ["some query"]
    assert TwoEncoders(FakeEmbedder("other"), documents, "both").key != pair.embedder.key


def test_too_few_queries_are_refused(tiny):
    dev = DevQueries({"q": "a"}, {"q": {"d00": 1}}, list(CORPUS), PASSAGES)
    with pytest.raises(WorkbookError, match="too few"):
        finetune_queries(Collection("small", CORPUS), [Triplet("q", "a", "d00")], dev, tiny)

"""Second-stage ranking: what is reordered, what keeps its place, and what is computed once."""

import numpy as np
import pytest
import torch
from fakes import FakeEmbedder, random_texts

from helpers.models import load as models
from helpers.models.embed import encode
from helpers.retrieval import rerankers
from helpers.retrieval.first_stages import Dense, Retriever, fuse
from helpers.retrieval.rerankers import CrossEncoderReranker, LateInteraction, Reranker, TwoStage, second_stage
from helpers.store.files import WorkbookError

CORPUS = {"a": "one", "b": "three", "c": "two", "d": "eleven", "e": "seven", "f": "sixteen"}


class LengthReranker(Reranker):
    """The longer a passage, the higher its score."""

    name = "length"
    usd_per_1000_queries = 2.0

    def __init__(self):
        self.prepared: list[str] = []

    def prepare(self, passages):
        self.prepared += passages

    def score(self, query, passages):
        return np.array([len(passage) for passage in passages], dtype=np.float32)


class FixedRetriever(Retriever):
    """Gives the same scores for every query."""

    name = "fixed"
    usd_per_1000_queries = 0.5

    def __init__(self, scores):
        self.scores = scores

    def index(self, corpus):
        return self

    def search(self, text, k):
        return dict(list(self.scores.items())[:k])


FIRST = {"a": 6.0, "b": 5.0, "c": 4.0, "d": 3.0, "e": 2.0, "f": 1.0}


def test_rerank_orders_by_score_with_ties_by_id():
    run = LengthReranker().rerank({"q": "?"}, {"q": FIRST}, CORPUS, k=6)
    assert list(run["q"].items()) == [("f", 7.0), ("d", 6.0), ("b", 5.0), ("e", 5.0), ("a", 3.0), ("c", 3.0)]


def test_rerank_leaves_out_what_is_below_k_and_does_not_prepare_it():
    reranker = LengthReranker()
    run = reranker.rerank({"q": "?"}, {"q": dict(reversed(FIRST.items()))}, CORPUS, k=3)
    assert list(run["q"]) == ["b", "a", "c"]
    assert reranker.prepared == ["one", "three", "two"]


def test_rerank_takes_the_lower_id_where_a_tie_straddles_k():
    run = LengthReranker().rerank({"q": "?"}, {"q": {"e": 1.0, "b": 1.0, "a": 2.0}}, CORPUS, k=2)
    assert list(run["q"]) == ["b", "a"]


def test_rerank_of_a_query_without_passages_is_empty():
    assert LengthReranker().rerank({"q": "?"}, {"q": {}}, CORPUS) == {"q": {}}


def test_two_stages_keep_what_is_deeper_in_the_old_order_below():
    two = TwoStage(FixedRetriever(FIRST), LengthReranker(), depth=4).index(CORPUS)
    found = two.search("?", 6)
    assert list(found) == ["d", "b", "a", "c", "e", "f"]
    assert list(found.values())[:4] == [6.0, 5.0, 3.0, 3.0]
    assert 3.0 > found["e"] > found["f"]


@pytest.mark.parametrize("k", [1, 2, 4, 5, 100])
def test_two_stages_rerank_to_their_depth_however_few_are_wanted(k):
    two = TwoStage(FixedRetriever(FIRST), LengthReranker(), depth=4).index(CORPUS)
    assert list(two.search("?", k)) == ["d", "b", "a", "c", "e", "f"][:k]
    assert two.retrieve({"q": "?"}, k) == {"q": two.search("?", k)}


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_two_stages_with_a_weight_fuse_both_stages_scores(weight):
    two = TwoStage(FixedRetriever(FIRST), LengthReranker(), depth=4, weight=weight).index(CORPUS)
    best = {d: FIRST[d] for d in "abcd"}
    reranked = {d: float(len(CORPUS[d])) for d in "abcd"}
    expected = fuse({"q": best}, {"q": reranked}, weight)["q"]
    found = two.search("?", 6)
    assert list(found) == [*expected, "e", "f"]
    if weight < 1:
        assert {d: found[d] for d in expected} == pytest.approx(expected)


def test_two_stages_cost_what_both_cost_and_are_named_after_both():
    two = TwoStage(FixedRetriever(FIRST), LengthReranker())
    assert (two.usd_per_1000_queries, two.name) == (2.5, "fixed → length")


class StubCrossEncoder:
    """Has the method of a CrossEncoder that is used: pairs in, one number a pair out."""

    def predict(self, pairs, **options):
        return np.array([len(query) * 100 + len(passage) for query, passage in pairs], dtype=np.float32)


def test_cross_encoder_reads_query_and_passage_together():
    reranker = CrossEncoderReranker(StubCrossEncoder())
    assert reranker.score("??", ["one", "three"]).tolist() == [203, 205]
    assert list(reranker.rerank({"q": "?"}, {"q": FIRST}, CORPUS, k=2)["q"].items()) == [("b", 105.0), ("a", 103.0)]


@pytest.fixture
def read_pairs(tiny, monkeypatch):
    """(a small cross-encoder, the pairs that it has read, in order)."""
    model = models.pair_encoder(tiny)
    pairs = []
    predict = model.predict
    monkeypatch.setattr(model, "predict", lambda some, **options: pairs.extend(some) or predict(some, **options))
    return model, pairs


def test_a_cross_encoder_reads_each_pair_once_and_gives_the_same_scores_again(read_pairs, tmp_path):
    model, pairs = read_pairs
    queries, run = {"q1": "a first", "q2": "a second"}, {"q1": FIRST, "q2": FIRST}
    first = CrossEncoderReranker(model, tmp_path).rerank(queries, run, CORPUS, k=2)
    assert len(pairs) == 4
    again = CrossEncoderReranker(model, tmp_path).rerank(queries, run, CORPUS, k=2)
    assert again == first
    assert len(pairs) == 4
    deeper = CrossEncoderReranker(model, tmp_path).rerank(queries, run, CORPUS, k=3)
    assert len(pairs) == 6
    plain = CrossEncoderReranker(model).rerank(queries, run, CORPUS, k=3)
    assert {q: list(docs) for q, docs in plain.items()} == {q: list(docs) for q, docs in deeper.items()}
    for q in queries:
        np.testing.assert_allclose(list(plain[q].values()), list(deeper[q].values()), atol=1e-5)


def test_a_single_query_is_read_anew_for_its_time_to_be_true(read_pairs, tmp_path):
    model, pairs = read_pairs
    reranker = CrossEncoderReranker(model, tmp_path)
    for _ in range(2):
        reranker.rerank({"q": "a first"}, {"q": FIRST}, CORPUS, k=2)
    assert len(pairs) == 4


def test_what_was_read_before_an_interrupt_is_kept(read_pairs, tmp_path, monkeypatch):
    model, pairs = read_pairs
    monkeypatch.setattr(rerankers, "PAIRS", 3)
    queries, run = {"q1": "a first", "q2": "a second"}, {"q1": FIRST, "q2": FIRST}
    predict, calls = model.predict, []

    def stopped(some, **options):
        if calls:
            raise KeyboardInterrupt
        calls.append(some)
        return predict(some, **options)

    with monkeypatch.context() as patch:
        patch.setattr(model, "predict", stopped)
        with pytest.raises(KeyboardInterrupt):
            CrossEncoderReranker(model, tmp_path).rerank(queries, run, CORPUS, k=2)
    assert len(pairs) == 3
    CrossEncoderReranker(model, tmp_path).rerank(queries, run, CORPUS, k=2)
    assert len(pairs) == 4


@pytest.fixture(scope="module")
def late_model():
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("ENCODER_MODEL", raising=False)
        return models.load_late_interaction()


@pytest.fixture
def encoded(late_model, monkeypatch):
    """The passages the late-interaction model encoded, in order."""
    passages = []
    original = late_model.encode_document

    def counted(texts, **options):
        passages.extend(texts)
        return original(texts, **options)

    monkeypatch.setattr(late_model, "encode_document", counted)
    return passages


PASSAGES = {f"d{i}": text for i, text in enumerate(random_texts(12, seed=5))} | {
    "weather": "It is sunny and warm outside today.",
    "stadium": "He drove to the stadium to see the match.",
    "twin": "He drove to the stadium to see the match.",
}
ASKED = {"q1": "how is the weather", "q2": "who went to the football match"}


def test_late_interaction_equals_maxsim_by_numpy(late_model, tmp_path):
    reranker = LateInteraction(late_model, tmp_path)
    documents = encode(late_model, list(PASSAGES.values()), "document")
    for text in ASKED.values():
        query = encode(late_model, [text], "query")[0]
        expected = [(query @ tokens.T).max(axis=1).mean() for tokens in documents]
        # Passages are kept in half precision: about three decimals.
        np.testing.assert_allclose(reranker.score(text, list(PASSAGES.values())), expected, atol=1e-3)


def test_late_interaction_puts_the_right_passage_first_and_twins_by_id(late_model, tmp_path):
    run = {q: dict.fromkeys(PASSAGES, 0.0) for q in ASKED}
    reranked = LateInteraction(late_model, tmp_path).rerank(ASKED, run, PASSAGES, k=20)
    assert next(iter(reranked["q1"])) == "weather"
    assert list(reranked["q2"])[:2] == ["stadium", "twin"]


def test_late_interaction_encodes_each_passage_once(late_model, tmp_path, encoded):
    reranker = LateInteraction(late_model, tmp_path)
    run = {q: dict.fromkeys(PASSAGES, 0.0) for q in ASKED}
    first = reranker.rerank(ASKED, run, PASSAGES, k=20)
    assert sorted(encoded) == sorted(set(PASSAGES.values()))
    assert reranker.rerank(ASKED, run, PASSAGES, k=20) == first
    assert LateInteraction(late_model, tmp_path).rerank(ASKED, run, PASSAGES, k=20) == first
    assert len(encoded) == len(set(PASSAGES.values()))


def test_two_stages_with_late_interaction_search_as_they_retrieve(late_model, tmp_path):
    two = TwoStage(Dense(FakeEmbedder(), tmp_path), LateInteraction(late_model, tmp_path), depth=6).index(PASSAGES)
    run = two.retrieve(ASKED, 10)
    for q, text in ASKED.items():
        assert list(run[q]) == list(two.search(text, 10))


def test_two_stages_refuse_a_weight_out_of_range():
    with pytest.raises(WorkbookError, match="between 0 and 1"):
        TwoStage(FixedRetriever(FIRST), LengthReranker(), weight=-1).index(CORPUS).search("?", 3)


def test_one_scoring_serves_every_depth_and_weight():
    scored = LengthReranker().rerank({"q": "?"}, {"q": FIRST}, CORPUS, k=6)
    for depth in (1, 3, 6):
        for weight in (0.0, 0.4, 1.0):
            stages = TwoStage(FixedRetriever(FIRST), LengthReranker(), depth, weight).index(CORPUS)
            run = second_stage({"q": FIRST}, scored, depth, weight, k=6)
            assert list(run["q"]) == list(stages.retrieve({"q": "?"}, 6)["q"])


def test_late_interaction_without_a_folder_scores_the_same_and_keeps_nothing(late_model, tmp_path):
    texts = random_texts(6, seed=2)
    corpus = {f"d{i}": text for i, text in enumerate(texts)}
    first = {q: dict.fromkeys(corpus, 0.0) for q in ("q1", "q2")}
    queries = {"q1": texts[0], "q2": "buk dal"}
    kept = LateInteraction(late_model, tmp_path / "tables").rerank(queries, first, corpus)
    free = LateInteraction(late_model, None).rerank(queries, first, corpus)
    for q in queries:
        assert free[q] == pytest.approx(kept[q], abs=2e-3)  # the folder holds passages in half precision
    assert [p.name for p in tmp_path.iterdir()] == ["tables"]


def test_a_pair_encoder_starts_from_the_encoders_layers_and_scores_the_same_twice():
    encoder = models.load_encoder()
    first, second = models.pair_encoder(encoder), models.pair_encoder(encoder)
    pairs = [("cut bread", "slice a loaf"), ("cut bread", "toast")]
    assert first.predict(pairs) == pytest.approx(second.predict(pairs))
    theirs, ours = encoder[0].model.state_dict(), first[0].model.state_dict()
    assert all((theirs[name] == ours[name]).all() for name in theirs)


def test_a_token_encoder_has_the_weights_of_the_encoder_and_not_the_encoder_itself():
    encoder = models.load_encoder()
    tokens = models.token_encoder(encoder)
    with torch.no_grad():
        next(tokens[0].model.parameters()).add_(1.0)
        change = next(tokens[0].model.parameters()) - next(encoder[0].model.parameters())
    assert float(change.mean()) == pytest.approx(1.0, abs=1e-4)


def test_late_interaction_in_small_blocks_gives_the_same_and_holds_less(late_model, tmp_path, monkeypatch, encoded):
    docs = list(PASSAGES)  # three passages for each of five queries
    queries = {f"q{i}": text for i, text in enumerate(random_texts(5, seed=9))}
    run = {q: dict.fromkeys(docs[3 * i : 3 * i + 3], 0.0) for i, q in enumerate(queries)}
    whole = LateInteraction(late_model, tmp_path)
    expected = whole.rerank(queries, run, PASSAGES, k=3)
    once = len(encoded)
    monkeypatch.setattr(rerankers, "BLOCK", 2)
    monkeypatch.setattr(rerankers, "MOST_LOADED", 0)
    small = LateInteraction(late_model, tmp_path)
    assert small.rerank(queries, run, PASSAGES, k=3) == expected
    assert len(encoded) == once
    assert set(small._loaded) == {PASSAGES[doc] for doc in docs[12:]}  # of the last block, which has one query
    assert set(whole._loaded) == set(PASSAGES.values())
    free = LateInteraction(late_model, None).rerank(queries, run, PASSAGES, k=3)
    for q in queries:
        assert free[q] == pytest.approx(expected[q], abs=2e-3)  # the folder holds passages in half precision

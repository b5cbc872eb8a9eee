"""What is trained on and what chooses, what is refused, and one training of each family of models."""

import copy
import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from fakes import random_texts
from sentence_transformers import CrossEncoder, MultiVectorEncoder, SentenceTransformer

from helpers.collection.collection import Collection
from helpers.collection.text import normalise
from helpers.evaluation.choosing import DevReranking, DevRetrieval, dev_corpus
from helpers.evaluation.measures import per_query
from helpers.labels.questions import Question
from helpers.models.load import load_trained, model_key, pair_encoder, token_encoder
from helpers.store.files import WorkbookError
from helpers.training.fitting import Recipe
from helpers.training.triplets import Triplet, build_triplets
from helpers.training.tune import (
    FEWEST,
    check_triplets,
    finetune_encoder,
    finetune_late_interaction,
    finetune_reranker,
    sample_queries,
    training_set,
)

# What would teach nothing or the opposite is refused

CORPUS = {f"d{i}": f"passage number {i}" for i in range(40)} | {"blank": " \n", "twin": "passage  number\n3"}
FINE = [Triplet(f"q{i}", f"query number {i}", f"d{i}", (f"d{(i + 1) % 40}",)) for i in range(40)]


def test_triplets_with_nothing_wrong_pass():
    check_triplets(FINE, CORPUS)
    check_triplets(FINE[:FEWEST], CORPUS)
    check_triplets([Triplet(t.query_id, t.query, t.positive_id) for t in FINE], CORPUS)


@pytest.mark.parametrize(
    ("spoiled", "said"),
    [
        (Triplet("x", "a query", ""), r"^Query 'x' has no positive: give it a passage of the collection or drop it\.$"),
        (Triplet("x", "a query", "blank"), r"^Query 'x' has the positive 'blank', which is empty or missing: .*\.$"),
        (Triplet("x", "a query", "lost"), r"^Query 'x' has the positive 'lost', which is empty or missing: .*\.$"),
        (Triplet("x", " \n", "d1"), r"^The text of query 'x' is empty: write it or drop its triplets\.$"),
        (
            Triplet("x", "a query", "d1", ("d2", "lost")),
            r"^The negative 'lost' of query 'x' is empty or missing: .*\.$",
        ),
        (Triplet("x", "a query", "d1", ("blank",)), r"^The negative 'blank' of query 'x' is empty or missing: .*\.$"),
        (Triplet("x", "a query", "d1", ("d2", "d1")), r"^'d1' is a negative of query 'x' and a positive .*\.$"),
        (
            Triplet("x", "query  number\n3", "d1", ("d3",)),
            r"^'d3' is a negative of query 'x' and a positive of the same words: keep one of the two\.$",
        ),
        (Triplet("x", "query number 3", "d1", ("twin",)), r"^'twin' is a negative of query 'x' and a positive .*\.$"),
    ],
    ids=[
        "no positive",
        "empty positive",
        "missing positive",
        "empty query",
        "missing negative",
        "empty negative",
        "its own positive",
        "positive of the same words",
        "the same text by another id",
    ],
)
@pytest.mark.parametrize("place", [0, 40])
def test_triplet_that_is_wrong_is_named_in_one_sentence(spoiled, said, place):
    with pytest.raises(WorkbookError, match=said) as error:
        check_triplets([*FINE[:place], spoiled, *FINE[place:]], CORPUS)
    assert "\n" not in str(error.value)


def test_negative_that_is_a_positive_of_another_query_passes():
    check_triplets([*FINE, Triplet("x", "something else", "d1", ("d3",))], CORPUS)


@pytest.mark.parametrize("found", [0, 1, FEWEST - 1])
def test_too_few_queries_are_refused_with_the_number_needed_and_the_way_there(found):
    said = rf"^{found} different queries are too few .*at least 32; .*notebook 03.*qrels/train\.tsv\.$"
    with pytest.raises(WorkbookError, match=said):
        check_triplets(FINE[:found], CORPUS)


def test_queries_of_the_same_words_count_as_one():
    again = [Triplet(f"again {t.query_id}", t.query.replace(" ", "  "), "d0") for t in FINE[: FEWEST - 1]]
    with pytest.raises(WorkbookError, match=r"^31 different queries"):
        check_triplets([*FINE[: FEWEST - 1], *again], CORPUS)


# What is trained on and what chooses

SYNTHETIC = [Question(f"g-{i}", f"made query {i // 2 if i < 4 else i}", "question", f"d{i % 20}") for i in range(40)]
# Passages 0 and 5 have the same words; questions 0 and 1, 2 and 3 too.
PASSAGES = {f"d{i}": f"the text of passage {i if i != 5 else 0}" + " " * (i == 5) for i in range(40)}
JUDGED = {
    "train": {f"t{i}": {f"d{20 + i}": 2, f"d{i}": 0} for i in range(8)},
    "dev": {f"v{i}": {f"d{28 + i}": 1} for i in range(4)},
    "test": {f"e{i}": {f"d{34 + i}": 1} for i in range(6)},
}
ASKED = {q: f"judged query {q}" for split in JUDGED.values() for q in split}


def collection(*splits: str) -> Collection:
    return Collection("small", PASSAGES, ASKED, {split: JUDGED[split] for split in splits})


def test_questions_are_trained_on_and_the_dev_split_chooses():
    data = training_set(collection("dev", "test"), SYNTHETIC)
    assert data.queries == {q.id: q.text for q in SYNTHETIC}
    assert data.positives == {q.id: {q.doc: 1} for q in SYNTHETIC}
    assert data.dev == {q: ASKED[q] for q in JUDGED["dev"]}
    assert data.dev_qrels == JUDGED["dev"]
    assert data.source == "Training on 40 synthetic questions; 4 dev queries choose."


def test_train_split_is_added_to_the_questions():
    data = training_set(collection("train", "dev", "test"), SYNTHETIC)
    assert data.queries == {q.id: q.text for q in SYNTHETIC} | {q: ASKED[q] for q in JUDGED["train"]}
    assert data.positives == {q.id: {q.doc: 1} for q in SYNTHETIC} | JUDGED["train"]
    assert data.dev_qrels == JUDGED["dev"]
    assert data.source == "Training on 40 synthetic questions and 8 train queries; 4 dev queries choose."


def test_train_split_alone_is_enough():
    data = training_set(collection("train", "dev"), [])
    assert (data.queries, data.positives) == ({q: ASKED[q] for q in JUDGED["train"]}, JUDGED["train"])
    assert data.source == "Training on 8 train queries; 4 dev queries choose."


@pytest.mark.parametrize("splits", [("test",), ("train", "test")])
def test_without_a_dev_split_a_part_on_other_queries_and_passages_chooses(splits):
    data = training_set(collection(*splits), SYNTHETIC, held_out=0.25)
    everything = {q.id: q.text for q in SYNTHETIC} | {q: ASKED[q] for q in JUDGED["train"] if "train" in splits}
    assert data.queries | data.dev == everything
    assert len(data.queries) + len(data.dev) == len(everything)
    assert len(data.dev) == len(everything) // 4
    assert (data.queries.keys(), data.dev.keys()) == (data.positives.keys(), data.dev_qrels.keys())
    assert not {normalise(text) for text in data.queries.values()} & {normalise(text) for text in data.dev.values()}

    def passages(qrels):
        return {normalise(PASSAGES[d]) for docs in qrels.values() for d, grade in docs.items() if grade > 0}

    assert not passages(data.positives) & passages(data.dev_qrels)
    assert f"Training on {len(data.queries)} of 40 synthetic questions" in data.source
    assert f"there is no dev split, so the other {len(data.dev)}, on other passages, choose." in data.source


def test_part_that_chooses_is_the_same_each_time():
    first, again = (training_set(collection(), SYNTHETIC) for _ in range(2))
    assert first == again
    assert list(first.queries) == list(again.queries) == sorted(first.queries)


def test_larger_share_is_held_out_on_demand():
    sizes = [len(training_set(collection(), SYNTHETIC, share).dev) for share in (0.1, 0.5)]
    assert sizes == [4, 20]


@pytest.mark.parametrize("splits", [("test",), ("dev", "test"), ("train", "test"), ("train", "dev", "test")])
def test_test_is_never_touched(splits):
    data = training_set(collection(*splits), SYNTHETIC)
    used = data.queries.keys() | data.positives.keys() | data.dev.keys() | data.dev_qrels.keys()
    assert not used & JUDGED["test"].keys()
    assert data == training_set(collection(*(split for split in splits if split != "test")), SYNTHETIC)


@pytest.mark.parametrize("held", ["dev", "test"])
@pytest.mark.parametrize("text", ["how do i get a refund", "How do I get a REFUND", "a refund: how do I get?"])
def test_capitals_punctuation_and_the_order_of_words_make_no_other_question(held, text):
    qrels = JUDGED | {held: {"r0": {"d1": 1}}}
    given = Collection("small", PASSAGES, ASKED | {"r0": "How do I get a refund?", "t0": text}, qrels)
    data = training_set(given, [*SYNTHETIC, Question("g-x", text, "question", "d1")])
    assert data.queries.keys() == {q.id for q in SYNTHETIC} | JUDGED["train"].keys() - {"t0"}


def test_queries_that_repeat_a_held_out_one_are_left_out():
    asked = ASKED | {"t0": " judged  query v1", "t3": "judged query e2"}
    repeating = Collection("small", PASSAGES, asked, JUDGED)
    data = training_set(repeating, [*SYNTHETIC, Question("g-x", "judged query e0", "question", "d1")])
    assert data.queries.keys() == data.positives.keys()
    assert data.queries.keys() == {q.id for q in SYNTHETIC} | JUDGED["train"].keys() - {"t0", "t3"}
    assert "41 synthetic questions and 8 train queries less 3 that repeat a held-out query; 4 dev" in data.source


def test_only_the_described_dev_queries_watch_a_training_where_there_are_slices():
    kinds = {q: {"slice": "described" if q in ("v0", "v2") else "typed"} for q in ASKED}
    sliced = Collection("small", PASSAGES, ASKED, JUDGED, query_info=kinds)
    data = training_set(sliced, SYNTHETIC)
    assert (data.dev, data.dev_qrels) == ({q: ASKED[q] for q in JUDGED["dev"]}, JUDGED["dev"])
    assert data.watched == ({q: ASKED[q] for q in ("v0", "v2")}, {q: JUDGED["dev"][q] for q in ("v0", "v2")})
    assert data.source.endswith("4 dev queries choose, 2 of them the checkpoint.")
    whole = training_set(collection("dev"), SYNTHETIC)
    assert whole.watched == (whole.dev, whole.dev_qrels)


def test_a_question_that_repeats_an_authors_test_sentence_is_left_out():
    sentences = {"test": ({"d1/0": "Sort the rows by two columns"}, {"d1/0": {"d1": 1}})}
    given = Collection("small", PASSAGES, ASKED, JUDGED, sentences=sentences)
    data = training_set(given, [*SYNTHETIC, Question("g-x", "sort rows by two columns", "keyword", "d2")])
    assert "g-x" not in data.queries


@pytest.mark.parametrize("splits", [(), ("test",), ("dev", "test")])
def test_nothing_to_train_on_is_one_sentence(splits):
    with pytest.raises(WorkbookError, match=r"^The collection small has neither .*make questions with notebook 03\.$"):
        training_set(collection(*splits), [])


def test_sample_of_queries_holds_every_smaller_one_of_its_seed():
    data = training_set(collection("train", "dev"), SYNTHETIC)
    samples = [sample_queries(data, size, 3) for size in (1, 10, 47, 48, 1000, None)]
    assert [len(queries) for queries, _ in samples] == [1, 10, 47, 48, 48, 48]
    for (small, few), (large, many) in pairwise(samples):
        assert small.items() <= large.items()
        assert few.items() <= many.items()
    for queries, positives in samples:
        assert queries == {q: data.queries[q] for q in queries}
        assert positives == {q: data.positives[q] for q in queries}
    assert samples[-1] == (data.queries, data.positives)


def test_sample_of_queries_is_drawn_by_its_seed_alone():
    data = training_set(collection("train", "dev"), SYNTHETIC)
    assert sample_queries(data, 10, 3) == sample_queries(
        training_set(collection("train", "dev"), SYNTHETIC[::-1]), 10, 3
    )
    assert sample_queries(data, 10, 3) != sample_queries(data, 10, 4)


# The small collection that dev is asked over

MANY = {f"d{i:02}": f"passage {i}" for i in range(50)}
RUN = {
    "q1": {"d10": 3.0, "d11": 2.0, "d12": 1.0, "d13": 0.5},
    "q2": {"d20": 9.0, "d10": 8.0},
    "q3": {"d30": 7.0, "d31": 6.0, "d32": 5.0},
}
RELEVANT = {"q1": {"d40": 1, "d10": 2, "d41": 0}, "q2": {"d42": 1, "not there": 1}}


def test_small_collection_has_the_relevant_the_nearest_and_a_random_rest():
    small = dev_corpus(MANY, RELEVANT, RUN, limit=12)
    # Half of twelve are the nearest, rank by rank: 10, 20, 30, then 11, (10 again), 31, then 12.
    assert {"d10", "d20", "d30", "d11", "d31", "d12"} <= small.keys()
    assert {"d40", "d42"} <= small.keys()
    assert len(small) == 12
    assert small == {d: MANY[d] for d in sorted(small)}


def test_small_collection_is_the_same_each_time_and_only_its_rest_is_drawn():
    one, again, other = (dev_corpus(MANY, RELEVANT, RUN, 12, seed) for seed in (0, 0, 1))
    assert list(one) == list(again)
    assert one != other
    sure = {"d10", "d20", "d30", "d11", "d31", "d12", "d40", "d42"}
    assert sure <= one.keys() & other.keys()
    backwards = dict(reversed(MANY.items()))
    assert dev_corpus(backwards, RELEVANT, RUN, 12) == one


def test_small_collection_of_a_small_collection_is_all_of_it():
    assert dev_corpus(MANY, RELEVANT, RUN, limit=50) == MANY
    assert dev_corpus(MANY, RELEVANT, RUN, limit=500) == MANY


@pytest.mark.parametrize(("relevant", "size"), [(0, 10), (5, 10), (8, 13), (10, 15)])
def test_small_collection_keeps_its_limit_unless_what_is_relevant_and_near_is_more(relevant, size):
    qrels = {"q1": {f"d{i}": 1 for i in range(40, 40 + relevant)}}
    small = dev_corpus(MANY, qrels, RUN, limit=10)  # five are the nearest, none of them relevant
    assert set(qrels["q1"]) <= small.keys()
    assert len(small) == size


def test_small_collection_has_all_that_is_relevant_even_beyond_its_limit():
    qrels = {"q1": {f"d{i}": 1 for i in range(30, 50)}}
    assert set(qrels["q1"]) <= dev_corpus(MANY, qrels, RUN, limit=10).keys()


# A toy task: a query is the first words of its passage and its number; 50 to train on, 30 for dev.

TEXTS = [f"{text} {i}" for i, text in enumerate(random_texts(80, words=90, length=8))]
QUERIES = {f"q{i}": " ".join(text.split()[:3] + text.split()[-1:]) for i, text in enumerate(TEXTS)}
TOY = Collection("toy", {f"d{i}": text for i, text in enumerate(TEXTS)}, QUERIES)
POSITIVES = {f"q{i}": {f"d{i}": 1} for i in range(50)}
# The second passage of dev is relevant in part; a query without a relevant passage says nothing.
DEV_QRELS = {f"q{i}": {f"d{i}": 2, f"d{i - 1}": 1} for i in range(50, 79)} | {"q79": {"d79": 0}}
DEV_QUERIES = {q: QUERIES[q] for q in DEV_QRELS}
HARD = [Triplet(q, QUERIES[q], d, (f"d{(int(d[1:]) + 7) % 50}",)) for q, docs in POSITIVES.items() for d in docs]
PAIRS = build_triplets(TOY.corpus, QUERIES, POSITIVES, "in-batch")
RECIPE = Recipe(epochs=0, fewest_steps=4, batch_size=8, learning_rate=1e-3, evaluations=1, dimensions=(16,))
DOCS, BODIES = list(TOY.corpus), list(TOY.corpus.values())


@pytest.fixture
def encoder(tiny):
    return copy.deepcopy(tiny)


@pytest.fixture(scope="module")
def run(tiny):
    """Each dev query's scores of all passages by the untrained encoder, best first."""
    scores = tiny.encode(list(DEV_QUERIES.values())) @ tiny.encode(BODIES).T
    return {
        q: {DOCS[i]: float(row[i]) for i in np.argsort(-row, kind="stable")}
        for q, row in zip(DEV_QUERIES, scores, strict=True)
    }


def ndcg(run) -> float:
    return per_query(DEV_QRELS, run)["ndcg@10"].mean()


def test_dev_retrieval_scores_as_a_run_made_by_hand(encoder, run):
    dev = DevRetrieval(DEV_QUERIES, DEV_QRELS, TOY.corpus)
    assert dev(encoder) == {dev.primary_metric: pytest.approx(ndcg(run), abs=1e-9)}
    assert 0.05 < ndcg(run) < 0.95
    for q, docs in dev.retrieve(encoder, k=5).items():
        assert list(docs) == list(run[q])[:5]
        assert list(docs.values()) == pytest.approx(list(run[q].values())[:5], abs=1e-5)


def test_dev_retrieval_searches_the_passages_it_is_given(encoder, run):
    few = {d: TOY.corpus[d] for d in DOCS[40:]}
    dev = DevRetrieval(DEV_QUERIES, DEV_QRELS, few)
    expected = {q: {d: score for d, score in docs.items() if d in few} for q, docs in run.items()}
    assert dev(encoder)[dev.primary_metric] == pytest.approx(ndcg(expected), abs=1e-9)


def test_dev_retrieval_asks_once_for_the_same_weights_and_again_for_others(encoder, monkeypatch):
    asked = []
    retrieve = DevRetrieval.retrieve
    monkeypatch.setattr(DevRetrieval, "retrieve", lambda self, model, k=10: asked.append(1) or retrieve(self, model, k))
    dev, model = DevRetrieval(DEV_QUERIES, DEV_QRELS, TOY.corpus), copy.deepcopy(encoder)
    before = dev(encoder)
    assert dev(model) == before
    assert len(asked) == 1
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in model.parameters():
            weights.copy_(torch.randn(weights.shape, generator=random))
    changed = dev(model)
    assert len(asked) == 2
    assert changed != before
    assert changed == {dev.primary_metric: pytest.approx(ndcg(retrieve(dev, model)))}


@pytest.mark.parametrize("depth", [1, 8])
@pytest.mark.parametrize("family", [token_encoder, pair_encoder])
def test_dev_reranking_scores_as_a_run_made_by_hand(encoder, run, family, depth):
    model = family(encoder)

    def score(q, d):
        if isinstance(model, CrossEncoder):
            return float(model.predict([(QUERIES[q], TOY.corpus[d])])[0])
        query, passage = np.asarray(model.encode_query(QUERIES[q])), np.asarray(model.encode_document(TOY.corpus[d]))
        return float((query @ passage.T).max(axis=1).mean())

    dev = DevReranking(DEV_QUERIES, DEV_QRELS, run, TOY.corpus, depth)
    by_hand = {q: {d: score(q, d) for d in list(docs)[:depth]} for q, docs in run.items()}
    assert dev(model) == {dev.primary_metric: pytest.approx(ndcg(by_hand), abs=1e-9)}
    assert ndcg(by_hand) > 0


def test_evaluators_have_the_key_of_what_they_ask(run):
    def other(values, **changes):
        return {**values, **changes}

    few = {q: dict(list(docs.items())[:30]) for q, docs in run.items()}
    swapped = {q: dict(reversed(docs.items())) for q, docs in few.items()}
    asked = other(DEV_QUERIES, q50="another")
    judged = other(DEV_QRELS, q50={"d50": 1})
    text = other(TOY.corpus, **{next(iter(run["q50"])): "another"})
    retrieval = [
        (DEV_QUERIES, DEV_QRELS, TOY.corpus),
        (asked, DEV_QRELS, TOY.corpus),
        (DEV_QUERIES, judged, TOY.corpus),
        (DEV_QUERIES, DEV_QRELS, text),
    ]
    assert len({DevRetrieval(*given).key for given in retrieval}) == 4
    reranking = [
        (DEV_QUERIES, DEV_QRELS, few, TOY.corpus),
        (asked, DEV_QRELS, few, TOY.corpus),
        (DEV_QUERIES, judged, few, TOY.corpus),
        (DEV_QUERIES, DEV_QRELS, few, text),
        (DEV_QUERIES, DEV_QRELS, swapped, TOY.corpus),
        (DEV_QUERIES, DEV_QRELS, few, TOY.corpus, 5),
    ]
    assert len({DevReranking(*given).key for given in reranking}) == 6
    # What is below the depth is not asked.
    assert DevReranking(DEV_QUERIES, DEV_QRELS, run, TOY.corpus).key == DevReranking(*reranking[0]).key


# One training of each family


def finetuned(family: str, encoder, run, triplets, **more):
    retrieval = DevRetrieval(DEV_QUERIES, DEV_QRELS, TOY.corpus)
    reranking = DevReranking(DEV_QUERIES, DEV_QRELS, run, TOY.corpus)
    if family == "encoder":
        return finetune_encoder(TOY, triplets, retrieval, encoder, RECIPE, **more)
    if family == "late-interaction":
        return finetune_late_interaction(TOY, triplets, reranking, token_encoder(encoder), RECIPE, **more)
    return finetune_reranker(TOY, triplets, reranking, pair_encoder(encoder), RECIPE, **more)


FAMILIES = {"encoder": SentenceTransformer, "late-interaction": MultiVectorEncoder, "cross-encoder": CrossEncoder}
EVERY_FAMILY = pytest.mark.parametrize("family", FAMILIES)


@EVERY_FAMILY
def test_every_family_is_trained_kept_and_loaded_again(family, encoder, tiny, run, tmp_path):
    trained = finetuned(family, encoder, run, HARD)
    folder = tmp_path / "build" / "toy" / "models" / family
    assert (trained.folder, trained.loaded) == (folder, False)
    assert [path.name for path in folder.parent.iterdir()] == [family]
    record = json.loads((folder / "run.json").read_text())
    assert record["rows"] == 50
    assert record["columns"] == {"cross-encoder": ["query", "docs", "labels"]}.get(
        family, ["anchor", "positive", "negative_1"]
    )
    assert [point["step"] for point in record["dev"]["curve"]] == [4]
    assert f"model = {FAMILIES[family].__name__}(" in (folder / "README.md").read_text()
    assert model_key(load_trained(folder, FAMILIES[family])) == model_key(trained.model)
    again = finetuned(family, copy.deepcopy(tiny), run, HARD)
    assert again.loaded
    assert model_key(again.model) == model_key(trained.model)


@EVERY_FAMILY
def test_kept_model_scores_on_dev_what_its_record_says(family, encoder, run):
    trained = finetuned(family, encoder, run, HARD, name="other")
    dev = {"encoder": DevRetrieval(DEV_QUERIES, DEV_QRELS, TOY.corpus)}.get(
        family, DevReranking(DEV_QUERIES, DEV_QRELS, run, TOY.corpus)
    )
    kept = load_trained(trained.folder, FAMILIES[family])
    assert dev(kept)[dev.primary_metric] == pytest.approx(trained.record["dev"]["best"], abs=1e-6)
    assert trained.record["dev"]["best"] >= trained.record["dev"]["start"]
    assert trained.folder.name == "other"


@pytest.mark.parametrize("family", ["encoder", "late-interaction"])
def test_triplets_without_negatives_are_trained_on_as_pairs(family, encoder, run):
    trained = finetuned(family, encoder, run, PAIRS)
    assert (trained.record["columns"], trained.record["rows"]) == (["anchor", "positive"], 50)


def test_cross_encoder_needs_mined_negatives(encoder, run, tmp_path):
    with pytest.raises(WorkbookError, match="No triplet has a negative"):
        finetuned("cross-encoder", encoder, run, PAIRS)
    assert not (tmp_path / "build" / "toy" / "models").exists()


@EVERY_FAMILY
def test_triplets_are_checked_before_anything_is_trained_or_written(family, encoder, tiny, run, tmp_path):
    with pytest.raises(WorkbookError, match=r"^31 different queries are too few"):
        finetuned(family, encoder, run, HARD[:31])
    assert model_key(encoder) == model_key(tiny)
    assert not (tmp_path / "build" / "toy" / "models").exists()

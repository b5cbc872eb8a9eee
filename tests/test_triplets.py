"""Mining negatives: what may never be one, what each kind gives, and the count of the false ones."""

import random

import numpy as np
import pytest
from datasets import Dataset
from fakes import FakeEmbedder, random_texts
from sentence_transformers.util import dot_score, mine_hard_negatives, pairwise_dot_score

from helpers.models.embed import CachedEmbedder
from helpers.retrieval.first_stages import BM25
from helpers.store.files import WorkbookError
from helpers.training.triplets import NEGATIVES, Triplet, build_triplets, false_negatives, shortfall

# 12 of 60 passages are twins of another, by their text or but for white space.
CORPUS = {f"d{i:02}": text for i, text in enumerate(random_texts(48, seed=1))}
CORPUS |= {f"t{i:02}": CORPUS[f"d{i:02}"].replace(" ", "  " if i % 2 else " ") for i in range(12)}
QUERIES = {f"q{i:02}": text for i, text in enumerate(random_texts(20, seed=2, length=4))}
QUERIES["same"] = QUERIES["q00"]
_RNG = np.random.default_rng(3)
POSITIVES = {
    q: dict(zip(_RNG.choice(sorted(CORPUS), 4, replace=False).tolist(), [2, 1, 1, 0], strict=True)) for q in QUERIES
}
KNOWN = {q: dict.fromkeys(_RNG.choice(sorted(CORPUS), 10, replace=False).tolist(), 1) for q in list(QUERIES)[::2]}
EVERY_KIND = pytest.mark.parametrize("kind", NEGATIVES)


class Vectors:
    """An embedder whose vectors are given by hand, scaled to unit length."""

    def __init__(self, vectors: dict[str, tuple[float, ...]]):
        self.vectors = vectors

    def embed(self, texts, task):
        found = np.array([self.vectors[text] for text in texts], dtype=np.float32)
        return found / np.linalg.norm(found, axis=1, keepdims=True)


def at(cosine: float) -> tuple[float, float]:
    """A unit vector with this cosine to (1, 0)."""
    return cosine, (1 - cosine**2) ** 0.5


# "query" has the cosines 0.95 (near), 0.8 (good), 0.77, 0.75, 0.5 (c, d, e) and −0.2 (far) to the passages.
COSINES = {"near": 0.95, "good": 0.8, "c": 0.77, "d": 0.75, "e": 0.5, "far": -0.2}
BY_HAND = {
    "corpus": {name: f"text of {name}" for name in COSINES},
    "queries": {"q": "query"},
    "positives": {"q": {"good": 2}},
    "embedder": Vectors({"query": (1, 0), **{f"text of {name}": at(cosine) for name, cosine in COSINES.items()}}),
}


def build(kind: str, positives=POSITIVES, corpus=CORPUS, **more) -> list[Triplet]:
    needed = {
        "bm25": BM25().index(corpus),
        "embedder": FakeEmbedder(),
        "keep": lambda query, passages: [True] * len(passages),
    }
    return build_triplets(corpus, QUERIES, positives, kind, **{"n": 3, "margin": None, "depth": 20, **needed, **more})


def by_hand(kind: str = "encoder-hard", **more) -> list[tuple[str, ...]]:
    return [t.negative_ids for t in build_triplets(negatives=kind, **{**BY_HAND, **more})]


@EVERY_KIND
def test_one_triplet_for_each_positive_in_their_order(kind):
    expected = [(q, QUERIES[q], d) for q, docs in POSITIVES.items() for d, grade in docs.items() if grade >= 1]
    assert [(t.query_id, t.query, t.positive_id) for t in build(kind)] == expected
    assert len(expected) == 3 * len(QUERIES)


@EVERY_KIND
@pytest.mark.parametrize("n", [1, 4, 20])
def test_no_relevant_passage_and_no_twin_of_one_is_a_negative(kind, n):
    relevant = {}
    for q in QUERIES:
        docs = [d for d, grade in (POSITIVES[q] | KNOWN.get(q, {})).items() if grade >= 1]
        relevant[q] = {twin for d in docs for twin, text in CORPUS.items() if text.split() == CORPUS[d].split()}
    relevant["same"] = relevant["q00"] = relevant["same"] | relevant["q00"]  # the same words are the same need
    assert max(map(len, relevant.values())) > 10
    triplets = build(kind, n=n, known=KNOWN)
    for t in triplets:
        assert not set(t.negative_ids) & relevant[t.query_id]
    assert shortfall(triplets, n)["negatives"] > 0 or kind == "in-batch"


@EVERY_KIND
def test_no_negative_text_stands_twice_in_a_triplet(kind):
    for t in build(kind, n=20):
        assert len({" ".join(CORPUS[d].split()) for d in t.negative_ids}) == len(t.negative_ids) <= 20


@EVERY_KIND
def test_same_call_gives_the_same_triplets_in_whatever_order_the_corpus_comes(kind):
    docs = list(CORPUS.items())
    random.Random(0).shuffle(docs)
    assert build(kind) == build(kind, corpus=dict(docs)) == build(kind)


@EVERY_KIND
def test_fewer_are_left_than_wanted(kind):
    corpus = {"a": "red", "b": "red tea", "c": "red tea house", "twin": "red  tea house"}
    queries, positives = {"q": "red tea house"}, {"q": {"a": 1}}
    needed = {
        "bm25": BM25().index(corpus),
        "embedder": FakeEmbedder(),
        "keep": lambda query, passages: [True] * len(passages),
    }
    [t] = build_triplets(corpus, queries, positives, kind, n=5, margin=None, known={"q": {"b": 2}}, **needed)
    assert t.negative_ids in {"in-batch": [()]}.get(kind, [("c",), ("twin",)])
    assert shortfall([t], 5) == {
        "triplets": 1,
        "negatives": len(t.negative_ids),
        "short": 1,
        "empty": int(kind == "in-batch"),
    }


@EVERY_KIND
def test_no_passage_is_left_at_all(kind):
    corpus = {"a": "red", "b": " red "}
    needed = {"bm25": BM25().index(corpus), "embedder": FakeEmbedder(), "keep": lambda query, passages: [True]}
    [t] = build_triplets(corpus, {"q": "red"}, {"q": {"a": 1}}, kind, n=2, **needed)
    assert t == Triplet("q", "red", "a", ())


def test_random_negatives_depend_on_the_seed_and_on_their_own_pair_alone():
    triplets = build("random")
    assert triplets != build("random", seed=1)
    assert [t for t in triplets if t.query_id == "q05"] == build("random", {"q05": POSITIVES["q05"]})
    assert len({t.negative_ids for t in triplets}) == len(triplets)  # each positive of a query has its own draw
    drawn = {d for t in build("random", n=10) for d in t.negative_ids}
    assert len(drawn) > 40  # of 48 different texts


def test_bm25_hard_negatives_are_its_best_that_are_not_relevant():
    bm25 = BM25().index(CORPUS)
    texts = {d: " ".join(text.split()) for d, text in CORPUS.items()}
    for t in build("bm25-hard"):
        same_words = [q for q in QUERIES if QUERIES[q] == t.query]
        used = {texts[d] for q in same_words for d, grade in POSITIVES[q].items() if grade >= 1}
        expected = []
        for d in bm25.search(t.query, 60):
            if texts[d] not in used:
                used.add(texts[d])
                expected.append(d)
        assert list(t.negative_ids) == expected[:3]


def test_encoder_hard_negatives_lie_below_the_margin_by_hand():
    # The positive has 0.8. Margin 0: at most 0.8; 5 %: at most 0.76; 40 %: at most 0.48; none: whatever is no positive.
    assert by_hand(n=2, margin=0) == [("c", "d")]
    assert by_hand(n=2) == [("d", "e")]
    assert by_hand(n=2, margin=0.4) == [("far",)]
    assert by_hand(n=9, margin=None) == [("near", "c", "d", "e", "far")]


def test_the_margin_is_taken_from_the_least_similar_positive():
    # 0.5 − 5 % = 0.475: only "far" is below it, for both positives. A known passage sets no margin.
    assert by_hand(n=2, positives={"q": {"good": 2, "e": 1}}) == [("far",)] * 2
    assert by_hand(n=2, known={"q": {"e": 1}}) == [("d", "far")]


def test_a_positive_below_the_depth_leaves_no_negative_and_a_greater_depth_does():
    # "e" is the fifth; the positive itself does not count, so the best two are near and good, far above its 0.475.
    assert by_hand(n=1, positives={"q": {"e": 1}}, depth=2) == [()]
    assert by_hand(n=1, positives={"q": {"e": 1}}, depth=5) == [("far",)]


def test_relevant_passages_take_no_place_in_the_depth():
    known = {"q": {"near": 1, "c": 1}}
    bm25 = BM25().index(
        {name: f"query {'padding ' * i}" for i, name in enumerate(COSINES)}
    )  # best first: near, good, c, d
    assert by_hand(n=1, known=known, margin=None, depth=1) == [("d",)]
    assert by_hand("bm25-hard", n=1, known=known, bm25=bm25, depth=1) == [("d",)]


def test_encoder_hard_equals_the_library_on_texts():
    corpus = {d: text for d, text in CORPUS.items() if d.startswith("d")}
    queries = {text: text for text in QUERIES.values()}
    positives = {
        q: dict.fromkeys(np.random.default_rng(i).choice(sorted(corpus), 2).tolist(), 1) for i, q in enumerate(queries)
    }
    mined = build_triplets(corpus, queries, positives, n=3, embedder=FakeEmbedder(), margin=0.05, depth=30)

    class Model:
        device = "cpu"
        similarity, similarity_pairwise = staticmethod(dot_score), staticmethod(pairwise_dot_score)
        encode_query = encode_document = staticmethod(lambda texts, **_: FakeEmbedder().embed(texts, "query"))

    rows = [(queries[t.query_id], corpus[t.positive_id]) for t in mined]
    dataset = Dataset.from_dict({"anchor": [q for q, _ in rows], "positive": [p for _, p in rows]})
    found = mine_hard_negatives(
        dataset,
        Model(),
        corpus=list(corpus.values()),
        num_negatives=3,
        range_max=30,
        relative_margin=0.05,
        verbose=False,
    )
    ours = [(t.query, corpus[t.positive_id], corpus[d]) for t in mined for d in t.negative_ids]
    assert sorted(ours) == sorted(zip(found["anchor"], found["positive"], found["negative"], strict=True))
    assert len(ours) > 20


def test_nothing_is_encoded_twice_and_nothing_is_printed(tmp_path, capfd):
    embedder = FakeEmbedder()
    for kind in ("encoder-hard", "mixed", "filtered"):
        build(kind, embedder=CachedEmbedder(embedder, tmp_path))
    passages = {" ".join(text.split()) for text in CORPUS.values()}
    assert len(embedder.embedded) == len(set(QUERIES.values())) + len(passages)
    out, err = capfd.readouterr()
    assert out == ""
    assert "similarity" not in err


def test_filtered_negatives_are_the_first_that_the_judge_keeps():
    asked = []

    def keep(query, passages):
        asked.append((query, passages))
        return [passage not in ("text of near", "text of d") for passage in passages]

    # Candidates: near, c, d, e, far. Two are wanted, so four are shown; two of these stay, and "far" is not asked
    # about.
    assert by_hand("filtered", n=2, margin=None, keep=keep) == [("c", "e")]
    assert asked == [("query", [f"text of {name}" for name in ("near", "c", "d", "e")])]
    assert by_hand("filtered", n=3, margin=None, keep=keep) == [("c", "e", "far")]
    assert by_hand("filtered", n=2, keep=lambda query, passages: np.zeros(len(passages), dtype=bool)) == [()]


def test_judge_is_asked_once_a_query():
    asked = []

    def keep(query, passages):
        asked.append(query)
        return [True] * len(passages)

    build("filtered", keep=keep)
    assert len(asked) == len(QUERIES)


@pytest.mark.parametrize(("n", "hard"), [(2, 1), (3, 2), (4, 2)])
def test_mixed_is_half_encoder_hard_and_half_random(n, hard):
    for mixed, encoder in zip(build("mixed", n=n), build("encoder-hard", n=n), strict=True):
        assert mixed.negative_ids[:hard] == encoder.negative_ids[:hard]
        assert len(mixed.negative_ids) == n


def test_mixed_with_one_negative_alternates_from_query_to_query():
    mixed, encoder = build("mixed", n=1), build("encoder-hard", n=1)
    alike = [m.negative_ids == e.negative_ids for m, e in zip(mixed, encoder, strict=True)]
    assert all(alike[i] for i in range(len(alike)) if i // 3 % 2 == 0)  # three positives a query
    assert sum(alike[i] for i in range(len(alike)) if i // 3 % 2) < 5


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"corpus": {**BY_HAND["corpus"], "e": " \n"}}, "passage 'e' is empty"),
        ({"queries": {"q": " "}}, "query 'q' is empty"),
        ({"queries": {"other": "query"}}, "query 'q' is missing"),
        ({"positives": {"q": {"good": 1, "lost": 1}}}, "'lost' of query 'q' is not in the corpus"),
        ({"positives": {"q": {"good": 0}}}, "a triplet needs a positive"),
        ({"positives": {}}, "a triplet needs a positive"),
    ],
)
def test_what_a_person_can_get_wrong_ends_in_a_sentence(change, sentence):
    with pytest.raises(WorkbookError, match=sentence):
        build_triplets(**{**BY_HAND, **change})


def test_queries_without_a_positive_need_no_text_and_known_may_hold_anything():
    assert by_hand(positives={"q": {"good": 1}, "nothing": {"c": 0}}, known={"z": {"d": 1}, "q": {"lost": 1}}) == [
        ("d",)
    ]


def test_false_negatives_by_hand():
    # Different pairs: (q1, b), (q1, c), (q1, d), (q2, a), (q2, b). Judged: all but (q1, d). Relevant: (q1, c) alone.
    # Wilson, 1 of 4, z = 1.96: centre (0.25 + 1.9207 / 4) / (1 + 3.8415 / 4) = 0.3725;
    # half-width 1.96 / 1.9604 · sqrt(0.25 · 0.75 / 4 + 3.8415 / 64) = 0.3269.
    triplets = [
        Triplet("q1", "x", "a", ("b", "c")),
        Triplet("q1", "x", "e", ("c", "d")),
        Triplet("q2", "y", "c", ("a", "b")),
    ]
    qrels = {"q1": {"b": 0, "c": 2, "a": 2}, "q2": {"a": 0, "b": 0, "c": 1}}
    found = false_negatives(triplets, qrels)
    assert found == pytest.approx(
        {"negatives": 5, "judged": 4, "relevant": 1, "rate": 0.25, "low": 0.0456, "high": 0.6994, "at_least": 0.2},
        abs=2e-4,
    )


def test_false_negatives_without_judgments_or_negatives_have_no_rate():
    for triplets, negatives in (([Triplet("q", "x", "a", ("b",))], 1), ([Triplet("q", "x", "a")], 0)):
        found = false_negatives(triplets, {"q": {"a": 1}})
        assert (found["negatives"], found["judged"], found["relevant"]) == (negatives, 0, 0)
        assert np.isnan([found["rate"], found["low"], found["high"]]).all()


def test_mining_that_knows_the_judgments_leaves_no_false_negative_and_one_that_does_not_some():
    assert false_negatives(build("encoder-hard"), KNOWN)["relevant"] > 0
    assert false_negatives(build("encoder-hard", known=KNOWN), KNOWN)["relevant"] == 0

"""The adapter learns what can be learned from vectors; fewer dimensions and bits, worked by hand."""

import numpy as np
import pytest
from fakes import FakeEmbedder
from scipy.stats import ortho_group
from torch.nn import functional

from helpers.models.embed import AdaptedEmbedder, bytes_of, compressed, unit
from helpers.retrieval.first_stages import Dense, nearest
from helpers.store.files import WorkbookError
from helpers.training.adapter import train_adapter
from helpers.training.triplets import Triplet

WIDTH = 24
ROTATION = ortho_group.rvs(WIDTH, random_state=4).astype(np.float32)


class Rotated(FakeEmbedder):
    """A query's vector is its text's, rotated: no query is near the passage of the same words."""

    def __init__(self):
        super().__init__("rotated", width=WIDTH)

    def embed(self, texts, task):
        vectors = super().embed(texts, task)
        return vectors @ ROTATION if task == "query" else vectors


# 1,300 passages of one word each, and a query of the same word: 1,280 to train on, the other 20 for dev.
CORPUS = {f"d{i:04}": f"word{i}" for i in range(1300)}
TRIPLETS = [Triplet(f"q{i:04}", f"word{i}", f"d{i:04}") for i in range(1280)]
DEV = {f"q{i}": f"word{i}" for i in range(1280, 1300)}, {f"q{i}": {f"d{i}": 1} for i in range(1280, 1300)}


def train(triplets=TRIPLETS, embedder=None, **more):
    return train_adapter(triplets, embedder or Rotated(), CORPUS, DEV, **{"epochs": 8, **more})


def cosines_to_the_right_passage(matrix) -> np.ndarray:
    texts = list(DEV[0].values())
    queries = AdaptedEmbedder(Rotated(), matrix, "adapted").embed(texts, "query")
    return (queries * Rotated().embed(texts, "document")).sum(axis=1)


def test_a_rotation_is_undone_and_queries_that_were_not_trained_on_find_their_passage():
    matrix, curve = train(epochs=80)
    assert len(curve) == 81
    assert curve[0] < 0.1
    assert max(curve) > 0.99
    # The inverse of a rotation is its transpose. A query need only be nearer to its own passage than to the others, so
    # the matrix points that way without being it: the cosine between the two, at first 0.03, is 0.73.
    inverse = unit(ROTATION.T.ravel())
    assert unit(np.eye(WIDTH).ravel()) @ inverse < 0.1
    assert unit(matrix.ravel()) @ inverse > 0.7
    assert cosines_to_the_right_passage(np.eye(WIDTH)).mean() < 0.1
    assert cosines_to_the_right_passage(matrix).min() > 0.5
    np.testing.assert_allclose(cosines_to_the_right_passage(ROTATION.T), 1, rtol=1e-5)


def test_the_kept_matrix_is_that_of_the_best_epoch_by_dev():
    matrix, curve = train()
    best = int(np.argmax(curve))
    assert best > 0
    again, shorter = train(epochs=best)
    assert shorter == curve[: best + 1]
    np.testing.assert_array_equal(matrix, again)


def test_the_identity_is_kept_where_it_is_right_already():
    matrix, curve = train(embedder=FakeEmbedder(width=WIDTH))
    assert curve[0] == 1
    np.testing.assert_array_equal(matrix, np.eye(WIDTH))


def test_the_identity_is_kept_when_what_is_learned_hurts_dev():
    class RotatedButDev(Rotated):
        """What dev asks is not rotated, so that undoing the rotation turns it away from its passages."""

        def embed(self, texts, task):
            return super().embed(texts, "document" if set(texts) <= set(DEV[0].values()) else task)

    matrix, curve = train(embedder=RotatedButDev(), epochs=40)
    assert curve[0] == 1
    assert curve[-1] < 0.9
    np.testing.assert_array_equal(matrix, np.eye(WIDTH))


def test_no_epoch_leaves_the_identity():
    matrix, curve = train(epochs=0)
    assert len(curve) == 1
    np.testing.assert_array_equal(matrix, np.eye(WIDTH))


def test_the_same_seed_gives_the_same_matrix_and_curve_and_another_seed_another():
    matrix, curve = train(seed=3)
    again, same_curve = train(seed=3)
    np.testing.assert_array_equal(matrix, again)
    assert curve == same_curve
    assert (train(seed=4)[0] != matrix).any()


def test_a_pair_that_comes_again_with_other_negatives_or_white_space_counts_once():
    few = TRIPLETS[:50]
    again = [Triplet(t.query_id, f" {t.query}\n", t.positive_id, ("d1299",)) for t in few[:20]]
    np.testing.assert_array_equal(train(few)[0], train(few + again)[0])


def test_no_triplets_are_refused_in_one_sentence():
    with pytest.raises(WorkbookError, match=r"^There are no triplets: [^.]*\.$"):
        train([])


def test_an_adapted_embedder_turns_queries_and_leaves_passages_by_hand():
    class Fixed:
        name, key, width = "fixed", "key", 2

        def embed(self, texts, task):
            return np.array([[0.6, 0.8]] * len(texts), dtype=np.float32)

    # (0.6, 0.8) times the matrix is (0.6 · 1 + 0.8 · 3, 0.6 · 2 + 0.8 · −1) = (3, 0.4), of length √9.16.
    adapted = AdaptedEmbedder(Fixed(), np.array([[1, 2], [3, -1]], dtype=np.float32), "turned")
    expected = np.array([[3, 0.4]] * 2) / np.sqrt(9.16)
    np.testing.assert_allclose(adapted.embed(["a", "b"], "query"), expected, rtol=1e-6)
    np.testing.assert_array_equal(adapted.embed(["a"], "document"), np.float32([[0.6, 0.8]]))
    assert (adapted.name, adapted.width) == ("turned", 2)


def test_adapted_queries_have_unit_length_and_passages_are_the_embedders_own():
    matrix = np.random.default_rng(0).standard_normal((32, 32)).astype(np.float32)
    embedder = FakeEmbedder()
    adapted = AdaptedEmbedder(embedder, matrix, "adapted")
    texts = ["red tea", "house", "a long way"]
    queries = adapted.embed(texts, "query")
    assert (queries.shape, queries.dtype) == ((3, 32), np.float32)
    np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 1, rtol=1e-6)
    assert np.abs(queries - embedder.embed(texts, "query")).max() > 0.1
    np.testing.assert_array_equal(adapted.embed(texts, "document"), embedder.embed(texts, "document"))
    assert adapted.embed([], "query").shape == (0, 32)


def test_an_adapters_index_is_the_embedders_own_and_no_passage_is_embedded_again(tmp_path):
    corpus = {"a": "red tea", "b": "green tea", "c": "a long way"}
    embedder = FakeEmbedder()
    plain = Dense(embedder, tmp_path).index(corpus)
    matrix = np.random.default_rng(0).standard_normal((32, 32)).astype(np.float32)
    asked = len(embedder.embedded)
    adapted = Dense(AdaptedEmbedder(embedder, matrix, "adapted"), tmp_path).index(corpus)
    assert len(embedder.embedded) == asked
    assert adapted.table.name == plain.table.name
    by_hand = nearest(
        {"q": ""},
        adapted.embedder.embed(["tea"], "query"),
        list(corpus),
        embedder.embed(list(corpus.values()), "document"),
        3,
    )
    assert adapted.retrieve({"q": "tea"}, 3)["q"] == pytest.approx(by_hand["q"], abs=1e-6)


def test_a_query_that_the_matrix_maps_to_nothing_is_zero_and_not_nan():
    found = AdaptedEmbedder(FakeEmbedder(), np.zeros((32, 32), dtype=np.float32), "none").embed(["tea"], "query")
    np.testing.assert_array_equal(found, np.zeros((1, 32)))


def test_an_adapted_embedders_key_changes_with_the_matrix_and_with_the_embedder():
    matrix = np.arange(1024, dtype=np.float32).reshape(32, 32)
    nearly = matrix.copy()
    nearly[3, 4] += 0.001
    embedders = [
        AdaptedEmbedder(FakeEmbedder(), matrix, "a"),
        AdaptedEmbedder(FakeEmbedder(), nearly, "a"),
        AdaptedEmbedder(FakeEmbedder(), matrix.T, "a"),
        AdaptedEmbedder(FakeEmbedder("other"), matrix, "a"),
    ]
    assert len({FakeEmbedder().key, *(embedder.key for embedder in embedders)}) == 5
    assert AdaptedEmbedder(FakeEmbedder(), matrix.copy(), "b").key == embedders[0].key


def test_unit_vectors_by_hand():
    found = unit(np.array([[3, 4], [0, 0], [-2, 0]]))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[0.6, 0.8], [0, 0], [-1, 0]], rtol=1e-6)


BY_HAND = np.array([[3, 4, 12], [-4, 3, 0]], dtype=np.float32)


def test_float32_cuts_and_scales_to_length_1_by_hand():
    # |(3, 4, 12)| = 13 and |(3, 4)| = 5.
    np.testing.assert_allclose(
        compressed(BY_HAND, 3, "float32"), [[3 / 13, 4 / 13, 12 / 13], [-0.8, 0.6, 0]], rtol=1e-6
    )
    np.testing.assert_allclose(compressed(BY_HAND, 2, "float32"), [[0.6, 0.8], [-0.8, 0.6]], rtol=1e-6)
    np.testing.assert_allclose(compressed(BY_HAND, 1, "float32"), [[1], [-1]], rtol=1e-6)


def test_binary_keeps_the_signs_by_hand():
    # Every vector has length 1: three numbers of 1 / √3. Zero counts as negative.
    np.testing.assert_allclose(compressed(BY_HAND, 3, "binary") * np.sqrt(3), [[1, 1, 1], [-1, 1, -1]], rtol=1e-6)
    np.testing.assert_allclose(compressed(BY_HAND, 2, "binary") * np.sqrt(2), [[1, 1], [-1, 1]], rtol=1e-6)


def test_a_dot_product_of_binary_vectors_is_one_minus_twice_the_share_of_different_bits():
    rng = np.random.default_rng(0)
    a, b = compressed(rng.standard_normal((2, 64)), 48, "binary")
    assert a @ b == pytest.approx(1 - 2 * np.mean(np.sign(a) != np.sign(b)), abs=1e-6)


def test_int8_is_the_middle_of_one_of_256_steps_by_hand():
    # Both dimensions run from 0 to 1, so a step is 1/255. 7/25 · 255 = 71.4 lies in step 71, whose middle is 71.5;
    # 24/25 · 255 = 244.8 in step 244, whose middle is 244.5; 3/5 · 255 = 153 is an edge, half a step from either
    # middle.
    found = compressed(np.array([[1, 0], [0, 2], [7, 24], [3, 4]]), 2, "int8") * 255
    np.testing.assert_allclose(found[2], [71.5, 244.5], rtol=1e-5)
    np.testing.assert_allclose(
        np.abs(found - [[255, 0], [0, 255], [71.4, 244.8], [153, 204]])[[0, 1, 3]], 0.5, rtol=1e-3
    )


@pytest.mark.parametrize("width", [384, 100, 1])
def test_int8_is_within_half_a_step_of_the_vector(width):
    vectors = np.random.default_rng(1).standard_normal((500, 384)).astype(np.float32)
    cut = compressed(vectors, width, "float32")
    step = (cut.max(axis=0) - cut.min(axis=0)) / 255
    error = np.abs(compressed(vectors, width, "int8") - cut)
    assert (error <= step / 2 + 1e-6).all()
    assert width == 1 or (error.max(axis=0) > 0.45 * step).all()  # no finer than 256 steps either


def test_int8_takes_its_steps_from_the_calibration_and_clips_what_lies_outside():
    # Cut to two numbers and scaled, the passages are (0.6, 0.8) and (0.8, 0.6): each dimension runs from 0.6 to 0.8.
    passages = np.array([[3, 4, 99], [8, 6, -5]])
    low, high = 0.6 + 0.2 * 0.5 / 255, 0.6 + 0.2 * 255.5 / 255
    found = compressed(np.array([[0, 1, 0], [1, 0, 0]]), 2, "int8", calibration=passages)
    np.testing.assert_allclose(found, [[low, high], [high, low]], rtol=1e-6)


def test_int8_keeps_a_dimension_that_never_changes():
    found = compressed(np.array([[3, 4], [3, -4], [6, 8]]), 2, "int8")
    np.testing.assert_allclose(found[:, 0], 0.6, rtol=1e-6)


@pytest.mark.parametrize("precision", ["float32", "int8", "binary"])
def test_compressed_vectors_are_float32_of_the_width_and_compress_each_passage_by_itself(precision):
    vectors = np.random.default_rng(2).standard_normal((40, 16))
    original = vectors.copy()
    found = compressed(vectors, 10, precision, calibration=vectors)
    assert (found.shape, found.dtype) == ((40, 10), np.float32)
    np.testing.assert_array_equal(vectors, original)
    np.testing.assert_allclose(compressed(vectors[3:4], 10, precision, calibration=vectors), found[3:4], rtol=1e-6)
    # What is compressed is still near what it was, and the order of the passages much the same.
    assert np.median((unit(found) * unit(vectors[:, :10])).sum(axis=1)) > 0.75


@pytest.mark.parametrize(("width", "precision"), [(3, "int4"), (3, ""), (0, "float32"), (4, "binary"), (-1, "int8")])
def test_an_unknown_precision_or_width_is_refused_in_one_sentence(width, precision):
    with pytest.raises(WorkbookError, match=f"^There is no '{precision}' at {width} of 3 dimensions.*int8, binary.$"):
        compressed(BY_HAND, width, precision)


@pytest.mark.parametrize(
    ("width", "precision", "size"),
    [
        (384, "float32", 1536),
        (384, "int8", 384),
        (384, "binary", 48),
        (10, "float32", 40),
        (1, "binary", 1),
        (8, "binary", 1),
        (9, "binary", 2),
        (10, "binary", 2),
    ],
)
def test_bytes_of_a_vector_by_hand(width, precision, size):
    assert bytes_of(width, precision) == size


def test_the_nearest_are_the_highest_dot_products_with_ties_by_id():
    passages = np.array([[1, 0], [0, 1], [1, 0], [-1, 0], [0.5, 0]], dtype=np.float32)
    ids = ["d", "c", "a", "b", "e"]
    queries = {"q2": "whatever", "q1": "this says"}
    found = nearest(queries, np.array([[2, 0], [0, 1]], dtype=np.float32), ids, passages, 3)
    assert {q: list(docs.items()) for q, docs in found.items()} == {
        "q2": [("a", 2.0), ("d", 2.0), ("e", 1.0)],
        "q1": [("c", 1.0), ("a", 0.0), ("b", 0.0)],
    }
    assert list(found) == ["q2", "q1"]


def test_the_nearest_are_all_there_are_where_more_are_wanted():
    found = nearest({"q": "?"}, np.ones((1, 1)), ["b", "a"], np.array([[1], [2]]), 10)
    assert list(found["q"].items()) == [("a", 2.0), ("b", 1.0)]


def test_nearest_needs_a_vector_for_each_query():
    with pytest.raises(ValueError, match="shorter"):
        nearest({"p": "?", "q": "?"}, np.ones((1, 1)), ["a"], np.ones((1, 1)), 1)


def test_another_right_passage_of_a_query_in_the_batch_is_no_negative_of_it(monkeypatch):
    seen, entropy = [], functional.cross_entropy

    def spied(scores, position):
        seen.append((scores.detach(), position))
        return entropy(scores, position)

    monkeypatch.setattr("helpers.training.adapter.functional.cross_entropy", spied)
    rows = [Triplet("q", "one", "a"), Triplet("r", " one", "b"), Triplet("s", "other", "c")]
    texts = {"a": "the one", "b": "one more", "c": "an other"}
    train_adapter(rows, FakeEmbedder(), texts, ({"q": "one"}, {"q": {"a": 1}}), epochs=1)
    [(scores, position)] = seen
    masked = {(i, j) for i, j in np.argwhere(np.isneginf(scores.numpy())).tolist()}
    # Columns are a, b, c: the rows of the one query spare each other's passage, that of the other query meets all
    # three.
    assert masked == {(i, 1 - p) for i, p in enumerate(position.tolist()) if p in (0, 1)}
    assert len(masked) == 2

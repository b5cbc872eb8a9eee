"""Which items belong together, whether a model's neighbours are those, and a model tuned to say so."""

import copy
import re

import numpy as np
import pandas as pd
import pytest

from helpers.collection.collection import Collection
from helpers.course.relations import (
    DevRelation,
    alike,
    auc_each,
    difference,
    neighbours,
    relation_triplets,
    right_neighbours,
    roc,
    tune_on_triplets,
    vectors_of,
)
from helpers.store.files import WorkbookError
from helpers.training.fitting import Recipe

# 48 items: each of 6 colours with each of 8 things.
TEXTS = {
    f"{colour} {thing}": f"the {thing} is {colour}"
    for colour in ("red", "blue", "green", "white", "black", "brown")
    for thing in ("house", "river", "apple", "table", "horse", "train", "shirt", "stone")
}
COLOUR, THING = ({item: item.split()[i] for item in TEXTS} for i in (0, 1))
SHOP = Collection("shop", TEXTS)
QUICK = Recipe(
    epochs=0, fewest_steps=2, batch_size=8, learning_rate=2e-3, frozen_embeddings=False, dimensions=(), evaluations=1
)


def one_sentence(error) -> bool:
    """It ends with its only full stop that a blank or nothing follows."""
    return re.findall(r"[.!?](?=\s|$)|\n", str(error.value)) == ["."] and str(error.value).endswith(".")


def unlike(labels) -> dict[str, dict[str, int]]:
    return {a: {b: 1 for b in labels if labels[b] != labels[a]} for a in labels}


@pytest.fixture
def encoder(tiny):
    """Untrained, and the test's own."""
    return copy.deepcopy(tiny)


# Who belongs together


def test_items_with_one_label_are_alike_and_an_item_is_not_like_itself():
    labels = {"a": 1, "b": 2, "c": 1, "d": 3, "e": 1}
    assert alike(labels) == {"a": {"c": 1, "e": 1}, "b": {}, "c": {"a": 1, "e": 1}, "d": {}, "e": {"a": 1, "c": 1}}
    assert alike(labels, ["e", "d"]) == {"e": {"a": 1, "c": 1}, "d": {}}


def test_labels_can_be_tuples():
    assert alike({"a": ("x", 1), "b": ("x", 2), "c": ("x", 1)}, ["a"]) == {"a": {"c": 1}}


# Neighbours

# Unit vectors at 0, 90, 25 and 60 degrees.
IDS = ["east", "north", "low", "high"]
ANGLES = np.radians([0, 90, 25, 60])
VECTORS = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1).astype(np.float32)


def test_neighbours_come_by_cosine_without_the_item_itself():
    run = neighbours(IDS, VECTORS)
    assert {item: list(found) for item, found in run.items()} == {
        "east": ["low", "high", "north"],
        "north": ["high", "low", "east"],
        "low": ["east", "high", "north"],  # 25, 35 and 65 degrees away
        "high": ["north", "low", "east"],
    }
    # cos 25, cos 60 and cos 90 degrees
    assert list(run["east"].values()) == pytest.approx([0.9063, 0.5, 0.0], abs=1e-4)


def test_neighbours_of_equal_cosine_come_by_id():
    same = np.ones((4, 1), dtype=np.float32)
    assert {i: list(found) for i, found in neighbours(["c", "a", "d", "b"], same, ["a", "d"]).items()} == {
        "a": ["b", "c", "d"],
        "d": ["a", "b", "c"],
    }


def test_only_as_many_neighbours_as_asked_for_and_only_of_the_items_asked():
    run = neighbours(IDS, VECTORS, ["high", "east"], k=2)
    assert {item: list(found) for item, found in run.items()} == {"high": ["north", "low"], "east": ["low", "high"]}


def test_vectors_come_in_the_order_of_the_texts_and_at_unit_length(tiny):
    texts = {"long": "a long way down the hill to the sea", "short": "tea", "other": "the red house"}
    found = vectors_of(tiny, texts)
    assert (found.shape, found.dtype) == ((3, 32), np.float32)
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(3), abs=1e-6)
    np.testing.assert_allclose(found, np.stack([tiny.encode(text) for text in texts.values()]), atol=1e-6)
    assert np.abs(found[0] - found[1]).max() > 1e-3


def test_share_of_right_neighbours_is_worked_out_by_hand():
    run = {
        "a": {"b": 0.9, "c": 0.8, "d": 0.7, "e": 0.6},
        "b": {"a": 0.1, "d": 0.9, "c": 0.5},
        "c": {"d": 0.5, "b": 0.5, "a": 0.9},
        "d": {"a": 1.0},
    }
    relation = {
        "a": {"b": 1, "d": 1, "e": 1},  # the two nearest are b and c: 1 of 2
        "b": {"d": 1},  # d and c: 1 of the 1 that is possible
        "c": {"d": 1},  # a, then of the equal ones b: 0 of 1
        "d": {},  # no relatives
        "e": {"a": 1},  # not in the run
    }
    assert right_neighbours(relation, run, k=2).to_dict() == {"a": 0.5, "b": 1.0, "c": 0.0}


def test_relatives_of_grade_0_are_none():
    run = {"a": {"b": 0.9, "c": 0.8}, "b": {"a": 1.0}}
    assert right_neighbours({"a": {"b": 0, "c": 1}, "b": {"a": 0}}, run, k=1).to_dict() == {"a": 0.0}


def test_difference_is_of_the_items_of_both_and_of_second_less_first():
    first = pd.Series({"a": 0.25, "b": 0.5, "only": 0.0})
    second = pd.Series({"b": 0.75, "a": 1.0, "other": 1.0})
    found = difference(first, second)
    # The gains are 0.75 and 0.25. Of the four ways to flip their signs one has as large a mean: p is 2 x 1/4, and no
    # shift of two gains can be rejected.
    assert (found["difference"], found["p"]) == (0.5, pytest.approx(0.5))
    assert np.isnan([found["low"], found["high"]]).all()
    assert difference(second, first)["difference"] == -0.5


# ROC

SCORES = {"ann": [0.9, 0.1], "bob": [0.8, 0.4, 0.2], "cat": [0.3, 0.6], "dan": [0.5, 0.7]}
TRUTHS = {"dan": [0, 0], "cat": [1, 1], "bob": [0, 1, 0], "ann": [1, 0]}  # in another order


def test_area_under_the_curve_of_each_person_is_worked_out_by_hand():
    # Ann's like is above what she does not like; Bob's is above one of two; Cat likes all and Dan nothing.
    assert auc_each(SCORES, TRUTHS).to_dict() == {"ann": 1.0, "bob": 0.5}


def test_equal_scores_count_half():
    assert auc_each({"a": [0.5, 0.5, 0.1]}, {"a": [1, 0, 0]})["a"] == 0.75


def test_roc_pools_the_pairs_of_all_people():
    two = {p: SCORES[p] for p in ("ann", "bob")}
    # By score: 0.9 liked, 0.8 not, 0.4 liked, 0.2 not, 0.1 not. Up 1/2, right 1/3, up 1/2, right 2/3.
    false, true = roc(two, TRUTHS)
    assert false.tolist() == pytest.approx([0, 0, 1 / 3, 1 / 3, 1])
    assert true.tolist() == pytest.approx([0, 0.5, 0.5, 1, 1])


# Triplets


def test_each_triplet_has_its_items_text_a_relative_and_a_stranger():
    related, unrelated = alike(COLOUR), unlike(COLOUR)
    rows = relation_triplets(TEXTS, related, unrelated, 200)
    assert len(rows) == 200
    for row in rows:
        (negative,) = row.negative_ids
        assert row.query == TEXTS[row.query_id]
        assert row.positive_id in related[row.query_id]
        assert negative in unrelated[row.query_id]
    assert len({(row.query_id, row.positive_id) for row in rows}) > 100  # 48 x 7 are possible: not always the same one


def test_no_item_comes_again_before_all_others_have_come():
    rows = relation_triplets(TEXTS, alike(COLOUR), unlike(COLOUR), 100)
    for start in (0, 48):
        assert {row.query_id for row in rows[start : start + 48]} == set(TEXTS)
    assert len({row.query_id for row in rows[96:]}) == 4
    assert [row.query_id for row in rows[:48]] != [row.query_id for row in rows[48:96]]


def test_items_without_a_relative_or_without_a_stranger_are_no_anchors():
    texts = dict.fromkeys("abcd", "tea")
    related = {"a": {"b": 1}, "b": {"a": 1}, "c": {}}
    unrelated = {"a": {"c": 1}, "b": {}, "c": {"a": 1}, "d": {"a": 1}}
    rows = relation_triplets(texts, related, unrelated, 3)
    assert [(row.query_id, row.positive_id, row.negative_ids) for row in rows] == [("a", "b", ("c",))] * 3


def test_triplets_depend_on_the_seed_and_not_on_the_order_of_the_items():
    turned = {a: dict(reversed(others.items())) for a, others in reversed(alike(COLOUR).items())}
    args = (unlike(COLOUR), 60)
    one = relation_triplets(TEXTS, alike(COLOUR), *args, seed=1)
    assert relation_triplets(dict(reversed(TEXTS.items())), turned, *args, seed=1) == one
    assert relation_triplets(TEXTS, alike(COLOUR), *args, seed=2) != one


def test_without_a_relative_and_a_stranger_of_one_item_there_are_no_triplets():
    with pytest.raises(WorkbookError, match="No item has both") as caught:
        relation_triplets({"a": "tea", "b": "tee"}, {"a": {"b": 1}}, {"b": {"a": 1}}, 3)
    assert one_sentence(caught)


# Dev, and tuning


class Axes:
    """A model for which a text is what it says: two numbers."""

    max_seq_length = 8

    def tokenizer(self, texts, **_):
        return {"input_ids": [[1]] * len(texts)}

    def encode_document(self, texts, **_):
        return np.array([[float(number) for number in text.split()] for text in texts], dtype=np.float32)


def test_dev_is_the_mean_ndcg_of_the_neighbours_of_items_with_relatives():
    dev = DevRelation({"a": "1 0", "b": "4 1", "c": "0 1"}, {"a": {"b": 1}, "c": {"a": 1}, "b": {}})
    # a's nearest is b: 1. c's nearest is b and then a: 1 / log2(3) = 0.6309. Of b nothing is known.
    assert dev(Axes()) == {"dev_ndcg@10": pytest.approx((1 + 0.6309) / 2, abs=1e-4)}


def test_key_of_dev_changes_with_texts_and_relation():
    texts, relation = {"a": "1 0", "b": "0 1"}, {"a": {"b": 1}}
    key = DevRelation(texts, relation).key
    assert DevRelation(dict(texts), dict(relation)).key == key
    assert DevRelation(texts | {"b": "0 2"}, relation).key != key
    assert DevRelation(texts, {"b": {"a": 1}}).key != key


def share(model, labels) -> float:
    return right_neighbours(alike(labels), neighbours(list(TEXTS), vectors_of(model, TEXTS)), k=5).mean()


@pytest.mark.parametrize("wanted", ["colour", "thing"])
def test_same_texts_become_alike_by_what_the_triplets_say(encoder, wanted):
    mine, other = (COLOUR, THING) if wanted == "colour" else (THING, COLOUR)
    before = share(encoder, mine)
    triplets = relation_triplets(TEXTS, alike(mine), unlike(mine), 96)
    recipe = Recipe(
        epochs=0,
        fewest_steps=24,
        batch_size=16,
        learning_rate=3e-3,
        frozen_embeddings=False,
        dimensions=(),
        evaluations=2,
    )
    trained = tune_on_triplets(SHOP, wanted, triplets, DevRelation(TEXTS, alike(mine)), encoder, recipe)
    assert trained.model is encoder
    assert (trained.record["loss"], trained.record["rows"]) == ("triplet", 96)
    assert trained.record["columns"] == ["anchor", "positive", "negative"]
    assert share(trained.model, mine) > before + 0.2
    assert share(trained.model, mine) > share(trained.model, other) + 0.3


def test_tuning_takes_another_loss(encoder):
    triplets = relation_triplets(TEXTS, alike(COLOUR), unlike(COLOUR), 48)
    dev = DevRelation(TEXTS, alike(COLOUR))
    assert tune_on_triplets(SHOP, "m", triplets, dev, encoder, QUICK, "ranking").record["loss"] == "ranking"


def test_too_few_items_and_items_that_are_gone_are_one_sentence(encoder):
    dev = DevRelation(TEXTS, alike(COLOUR))
    triplets = relation_triplets(TEXTS, alike(COLOUR), unlike(COLOUR), 48)
    gone = Collection("shop", {i: t for i, t in TEXTS.items() if i != "red house"})
    for collection, rows, said in ((SHOP, triplets[:31], "31 different queries"), (gone, triplets, "'red house'")):
        with pytest.raises(WorkbookError, match=said) as caught:
            tune_on_triplets(collection, "m", rows, dev, encoder, QUICK)
        assert one_sentence(caught)
    assert not (SHOP.build / "models").exists()

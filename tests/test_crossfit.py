"""Cross-fitting: the halves, and a gain that is of trained passages alone or of all."""

import numpy as np
import pytest

from helpers.training.crossfit import NEW, TRAINED, cross_fitted, halves
from helpers.training.triplets import Triplet

TRIPLETS = [Triplet(f"q{i}", f"text {i}", f"d{i % 10}") for i in range(20)]


def test_halves_come_in_pairs_that_make_up_all_passages():
    drawn = halves(TRIPLETS, 6)
    assert len(drawn) == 6
    for one, other in zip(drawn[::2], drawn[1::2], strict=True):
        assert not one & other
        assert one | other == {f"d{i}" for i in range(10)}
        assert len(one) == len(other) == 5
    assert len(set(drawn)) == 6
    assert halves(TRIPLETS, 6) == drawn


class Turned:
    """Passages are the unit vectors of a space; the query for each is another one, ``shift`` axes further on."""

    name, key, width = "turned", "turned", 12

    def __init__(self, shift: int):
        self.shift = shift

    def embed(self, texts, task):
        axes = [(int(text.split()[-1]) + (self.shift if task == "query" else 0)) % self.width for text in texts]
        return np.eye(self.width, dtype=np.float32)[axes]


CORPUS = {f"d{i}": f"passage {i}" for i in range(12)}
ASKED = {f"t{i}": f"query {i}" for i in range(12)}, {f"t{i}": {f"d{i}": 1} for i in range(12)}


def gains(shift: int):
    """Of an adapter that learns each passage's turn by itself: one axis says nothing about another."""
    rows = [Triplet(f"q{i}", f"query {i}", f"d{i}") for i in range(12)]
    return cross_fitted(rows, Turned(shift), CORPUS, ASKED, ASKED, splits=2, epochs=300)


def test_what_is_learnt_of_one_passage_is_no_gain_for_another():
    found = gains(1)
    assert len(found) == 12
    assert found[TRAINED].mean() > 0.3
    assert found[NEW].mean() < found[TRAINED].mean() - 0.3


def test_where_there_is_nothing_to_gain_nothing_is_gained():
    assert gains(0)[TRAINED].tolist() == pytest.approx([0.0] * 12)


def test_a_query_that_was_never_in_a_group_has_no_gain_there():
    rows = [Triplet(f"q{i}", f"query {i}", f"d{i}") for i in range(4)]
    found = cross_fitted(rows, Turned(1), CORPUS, ASKED, ASKED, splits=2, epochs=1)
    assert found[TRAINED].notna().tolist() == [True] * 4 + [False] * 8
    assert found[NEW].notna().all()

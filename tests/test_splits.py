"""Splits: what leaks when rows are drawn, what does not when groups are; coverage and the verdict on the amount."""

import numpy as np
import pytest

from helpers.store.files import WorkbookError
from helpers.training.splits import coverage, enough, leaks, split_by_passage, split_rows
from helpers.training.triplets import Triplet


def chain(*groups: int) -> list[Triplet]:
    """Groups of triplets that hang together: in each, every triplet shares its query or its positive with the next."""
    return [
        Triplet(f"g{g}q{i // 2}", f"query {i // 2} of {g}", f"g{g}d{(i + 1) // 2}")
        for g, size in enumerate(groups)
        for i in range(size)
    ]


def group_of(t: Triplet) -> str:
    return t.query_id.split("q")[0]


MANY = chain(*np.random.default_rng(0).integers(1, 6, size=200).tolist())
BOTH_WAYS = pytest.mark.parametrize("split", [split_rows, split_by_passage])


@BOTH_WAYS
@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.9])
def test_every_triplet_is_on_one_side_in_its_order(split, share):
    train, held_out = split(MANY, share, seed=3)
    assert len(held_out) == round(share * len(MANY))  # with so many small groups every number can be made up
    place = {t: i for i, t in enumerate(MANY)}
    for side in (train, held_out):
        assert [place[t] for t in side] == sorted(place[t] for t in side)
    assert set(train) | set(held_out) == set(MANY)
    assert not set(train) & set(held_out)


@BOTH_WAYS
def test_same_seed_gives_the_same_split_and_another_one_another(split):
    assert split(MANY, 0.2, seed=1) == split(MANY, 0.2, seed=1)
    assert split(MANY, 0.2, seed=1) != split(MANY, 0.2, seed=2)


def test_rows_leak_and_passages_do_not():
    assert leaks(*split_by_passage(MANY, 0.2)) == {"queries": 0, "positives": 0, "triplets": 0}
    wrong = leaks(*split_rows(MANY, 0.2))
    assert wrong["queries"] > 20
    assert wrong["positives"] > 20
    assert wrong["triplets"] > len(MANY) * 0.2 / 2


def test_groups_stay_together_through_a_chain():
    train, held_out = split_by_passage(MANY, 0.3)
    assert not {group_of(t) for t in train} & {group_of(t) for t in held_out}


@pytest.mark.parametrize(
    ("groups", "share", "held_out"),
    [
        ((5, 4, 3), 7 / 12, 7),  # 4 + 3, which filling up from the largest misses
        ((10, 10, 10), 0.5, 10),  # of 10 and 20, equally near to 15, the smaller
        ((9, 1), 0.4, 1),
        ((9, 1), 0.6, 9),
        ((50, 30), 0.02, 30),  # never an empty side
        ((3, 2), 0.99, 3),
        ((1, 1), 0.5, 1),
    ],
)
def test_share_is_met_as_nearly_as_groups_allow(groups, share, held_out):
    for seed in range(5):
        train, held = split_by_passage(chain(*groups), share, seed)
        assert len(held) == held_out
        assert len(train) == sum(groups) - held_out


def test_share_is_met_as_well_as_by_trying_all_choices():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        sizes, share = rng.integers(2, 30, size=8).tolist(), rng.uniform(0.05, 0.95)
        target = min(max(1, round(share * sum(sizes))), sum(sizes) - 1)
        sums = {sum(s for i, s in enumerate(sizes) if choice >> i & 1) for choice in range(1, 2**8 - 1)}
        held = split_by_passage(chain(*sizes), share, seed)[1]
        assert abs(len(held) - target) == min(abs(s - target) for s in sums)


def test_every_group_has_its_chance_to_be_held_out():
    held = {group_of(t) for seed in range(40) for t in split_by_passage(chain(*[1] * 10), 0.2, seed)[1]}
    assert len(held) == 10


def test_same_words_are_the_same_query_and_same_text_the_same_passage_when_a_corpus_is_given():
    words = [Triplet("q1", "how to", "a"), Triplet("q2", "how  to", "b"), Triplet("q3", "other", "c")]
    for seed in range(6):
        assert split_by_passage(words, 0.4, seed) == (words[:2], words[2:])
    assert leaks(words[:1], words[1:])["queries"] == 1
    twins = [Triplet("q1", "one", "a"), Triplet("q2", "two", "b"), Triplet("q3", "three", "c")]
    corpus = {"a": "same text", "b": "same  text", "c": "other"}
    for seed in range(6):
        assert leaks(*split_by_passage(twins, 0.4, seed, corpus), corpus)["positives"] == 0
    assert leaks(twins[:1], twins[1:]) == {"queries": 0, "positives": 0, "triplets": 0}
    assert leaks(twins[:1], twins[1:], corpus) == {"queries": 0, "positives": 1, "triplets": 1}


def test_leaks_by_hand():
    train = [Triplet("q1", "one", "a"), Triplet("q1", "one", "b"), Triplet("q2", "two", "c")]
    held_out = [
        Triplet("q1", "one", "d"),
        Triplet("q3", "three", "a"),
        Triplet("q4", "four", "a"),
        Triplet("q5", "five", "e"),
    ]
    assert leaks(train, held_out) == {"queries": 1, "positives": 1, "triplets": 3}


@BOTH_WAYS
@pytest.mark.parametrize("triplets", [[], MANY[:1]])
def test_too_few_to_split_are_refused(split, triplets):
    with pytest.raises(WorkbookError, match="at least two triplets"):
        split(triplets, 0.5)


def test_triplets_that_all_hang_together_cannot_be_split():
    with pytest.raises(WorkbookError, match="no clean split exists"):
        split_by_passage(chain(12), 0.5)


def test_coverage_by_hand():
    groups = {"a1": "a", "a2": "a", "a3": "a", "b1": "b", "b2": "b", "c1": "c", "c2": "c", "c3": "c", "c4": "c"}
    triplets = [
        Triplet("q1", "one", "a1", ("b1",)),
        Triplet("q1", "one", "a2"),
        Triplet("q2", "two", "a1"),
        Triplet("q3", "three", "b2", ("c1", "c2")),
    ]
    table = coverage(triplets, groups)
    assert table.index.tolist() == ["c", "a", "b"]
    assert table.columns.tolist() == ["passages", "positives", "triplets", "queries", "share"]
    assert table.loc["a"].tolist() == pytest.approx([3, 2, 3, 2, 2 / 3])
    assert table.loc["b"].tolist() == [2, 1, 1, 1, 0.5]
    assert table.loc["c"].tolist() == [4, 0, 0, 0, 0]


def test_coverage_without_triplets_is_zero_and_of_equal_groups_the_name_decides():
    table = coverage([], {"1": "b", "2": "a"})
    assert table.index.tolist() == ["a", "b"]
    assert table[["positives", "share"]].to_numpy().sum() == 0


def test_coverage_needs_a_group_for_every_positive():
    with pytest.raises(WorkbookError, match="'lost' has no group"):
        coverage([Triplet("q", "x", "lost")], {"a": "a"})


@pytest.mark.parametrize(
    ("queries", "advice"),
    [
        (0, "collect more"),
        (99, "collect more"),
        (100, "adapter or a reranker"),
        (499, "adapter or a reranker"),
        (500, "may pay"),
        (999, "may pay"),
        (1000, "enough to fine-tune"),
    ],
)
def test_enough_counts_different_queries(queries, advice):
    triplets = [Triplet(f"q{i}", f"query {i}", f"d{side}") for i in range(queries) for side in range(3)]
    sentence = enough(triplets)
    assert advice in sentence
    assert f"{queries:,} different queries on {3 if queries else 0} passages ({3 * queries:,} triplets)" in sentence
    assert "rule of thumb" in sentence

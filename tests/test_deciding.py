"""From scores to a decision: the simplest system, what is proven, what more data may bring,
and each verdict by scores made by hand.
"""

import math

import pytest

from helpers.homework.deciding import (
    VERDICTS,
    Comparison,
    compared,
    decide,
    expected_gain,
    headline,
    nominee,
    p_value,
    simplest,
    surprises,
    unjudged,
)

N = 60
SECOND = 1 / math.log2(3)  # nDCG@10 of the one right passage at rank 2; at rank 1 it is 1


def scores(first: int, n: int = N) -> list[float]:
    """nDCG@10 of n queries whose right passage is at rank 1 for the first so many, else at rank 2."""
    return [1.0] * first + [SECOND] * (n - first)


def facts(pairs: dict[str, tuple[str, str]], per_query: dict[str, list[float]], **other) -> dict:
    found = dict(zip(pairs, compared(list(pairs.values()), per_query), strict=True)) if pairs else {}
    plain = {
        "base": "encoder",
        "untrained": "encoder",
        "tuned": None,
        "train": 500,
        "judged": True,
        "on_test": True,
        "gain": None,
    }
    return plain | {"comparisons": found} | other


def yes(given: dict) -> tuple[list[str], str]:
    verdicts, chosen = decide(given)
    assert sorted(v.name for v in verdicts) == sorted(VERDICTS)
    assert all(v.evidence for v in verdicts)
    return [v.name for v in verdicts if v.yes], chosen


def test_the_simplest_is_within_one_standard_error_of_the_best():
    # differences of "second" to "first": 0.1, 0.1, −0.1, 0.1: mean 0.05, sd 0.1, standard error 0.1 / √4 = 0.05:
    # not more than one.
    first = [0.5, 0.5, 0.5, 0.5]
    assert simplest({"first": first, "second": [0.6, 0.6, 0.4, 0.6]}) == "first"
    # 0.1, 0.1, 0.0, 0.1: mean 0.075, sd 0.05, standard error 0.025: the gain is three of them.
    assert simplest({"first": first, "second": [0.6, 0.6, 0.5, 0.6]}) == "second"


def test_the_simplest_of_equals_and_of_one_query_is_the_first():
    assert simplest({"a": [0.1, 0.2], "b": [0.1, 0.2]}) == "a"
    assert simplest({"a": [0.1], "b": [0.9]}) == "a"
    assert simplest({"a": [], "b": []}) == "a"


def test_what_few_dev_queries_cannot_tell_is_put_to_the_test():
    # "hybrid" against "encoder": 0.4, −0.1, 0.3, −0.2: mean 0.1, within one standard error (0.147); "BM25": mean 0.05.
    dev = {"encoder": [0.5] * 4, "BM25": [0.6, 0.4, 0.7, 0.5], "hybrid": [0.9, 0.4, 0.8, 0.3]}
    assert simplest(dev) == "encoder"
    assert nominee(dev) == "hybrid"
    assert nominee(dev | {"hybrid": [0.5, 0.5, 0.5, 0.53]}) == "BM25"
    less = {"encoder": [0.5] * 4, "hybrid": [0.9, 0.1, 0.51, 0.52]}  # mean 0.0075 more: not worth a comparison
    assert nominee(less) == "encoder"
    assert nominee({"encoder": [], "hybrid": []}) == "encoder"


def test_what_dev_can_tell_is_nominated_as_the_simplest():
    # Both are better than "encoder" in every query, and "hybrid" no better than "BM25" by more than one standard error.
    dev = {"encoder": [0.1] * 4, "BM25": [0.5, 0.6, 0.5, 0.6], "hybrid": [0.6, 0.5, 0.6, 0.53]}
    assert nominee(dev) == simplest(dev) == "BM25"


def test_a_comparison_counts_wins_and_corrects_p_for_the_number_of_pairs():
    both = {"encoder": scores(0), "x": scores(N), "y": scores(30)}
    alone = compared([("y", "encoder")], both)[0]
    assert alone.difference == pytest.approx((1 - SECOND) / 2)
    assert (alone.won, alone.lost, alone.n) == (30, 0, N)
    assert alone.proven
    two = compared([("x", "encoder"), ("y", "encoder")], both)
    assert two[1].p == pytest.approx(2 * alone.p)


def test_expected_gain_is_the_slope_over_the_doublings():
    # means 0.2, 0.3, 0.4 at 100, 200, 400: each doubling adds 0.1 for every query, so the interval has no width.
    gain = expected_gain({100: [0.1, 0.3], 200: [0.2, 0.4], 400: [0.3, 0.5]})
    assert gain == pytest.approx({"gain": 0.1, "low": 0.1, "high": 0.1})
    # 0.2 and 0.3 at 100 and 400, two doublings apart: 0.05 each.
    assert expected_gain({100: [0.2, 0.2], 400: [0.3, 0.3]})["gain"] == pytest.approx(0.05)


def test_expected_gain_is_wider_where_queries_disagree_and_none_with_one_size():
    gain = expected_gain({100: [0.0, 0.5, 0.2, 0.4], 200: [0.5, 0.0, 0.4, 0.3]})
    assert gain["low"] < gain["gain"] < gain["high"]
    assert expected_gain({100: [0.1, 0.2]}) is None
    assert expected_gain({}) is None


def test_do_nothing_when_nothing_is_better_and_the_interval_is_narrow():
    same = {"encoder": scores(30), "hybrid": scores(30), "tuned": scores(30)}
    given = facts(
        {"hybrid": ("hybrid", "encoder"), "tuned": ("tuned", "hybrid")}, same, untrained="hybrid", tuned="tuned"
    )
    assert yes(given) == (["do nothing"], "encoder")
    assert headline(*decide(given)) == "Do nothing: keep encoder."


def test_switch_on_hybrid_when_it_is_proven():
    given = facts({"hybrid": ("hybrid", "encoder")}, {"encoder": scores(0), "hybrid": scores(N)}, untrained="hybrid")
    assert yes(given) == (["switch on hybrid"], "hybrid")
    assert headline(*decide(given)) == "Switch on hybrid: use hybrid."


def test_a_hybrid_that_test_does_not_confirm_is_not_used():
    # one query of 60 better: p = 1 for a single changed sign of either direction
    given = facts({"hybrid": ("hybrid", "encoder")}, {"encoder": scores(30), "hybrid": scores(31)}, untrained="hybrid")
    assert yes(given)[1] == "encoder"


def test_tune_the_encoder_when_it_beats_the_best_untrained():
    table = {"encoder": scores(0), "hybrid": scores(20), "tuned": scores(N)}
    pairs = {"hybrid": ("hybrid", "encoder"), "tuned": ("tuned", "hybrid")}
    assert yes(facts(pairs, table, untrained="hybrid", tuned="tuned")) == (["tune the encoder"], "tuned")


def test_where_test_does_not_prove_the_hybrid_tuning_has_to_beat_what_is_there_now():
    # of 60 queries the hybrid wins 5 (p = 2 / 2**5, not proven), tuning 5 more, 10 against the encoder (p = 2 / 2**10)
    table = {"encoder": scores(30), "hybrid": scores(35), "tuned": scores(40)}
    pairs = {"hybrid": ("hybrid", "encoder"), "tuned": ("tuned", "hybrid"), "tuned against base": ("tuned", "encoder")}
    given = facts(pairs, table, untrained="hybrid", tuned="tuned")
    assert [given["comparisons"][name].proven for name in pairs] == [False, False, True]
    assert yes(given) == (["tune the encoder"], "tuned")
    evidence = next(v.evidence for v in decide(given)[0] if v.name == "tune the encoder")
    assert evidence.startswith("tuned against encoder: ")
    assert headline(*decide(given)) == "Tune the encoder: use tuned."
    del given["comparisons"]["tuned against base"]
    assert yes(given)[1] == "encoder"


def test_where_test_proves_the_hybrid_tuning_has_to_beat_the_hybrid():
    table = {"encoder": scores(0), "hybrid": scores(40), "tuned": scores(42)}
    pairs = {"hybrid": ("hybrid", "encoder"), "tuned": ("tuned", "hybrid"), "tuned against base": ("tuned", "encoder")}
    given = facts(pairs, table, untrained="hybrid", tuned="tuned")
    assert given["comparisons"]["tuned against base"].proven
    assert yes(given) == (["switch on hybrid"], "hybrid")


def test_where_words_alone_are_best_the_headline_says_bm25():
    given = facts({"hybrid": ("BM25", "encoder")}, {"encoder": scores(0), "BM25": scores(N)}, untrained="BM25")
    assert yes(given) == (["switch on hybrid"], "BM25")
    assert headline(*decide(given)) == "Search with BM25: use BM25."


def test_without_dev_queries_the_evidence_says_so():
    def evidence(given: dict) -> str:
        return next(v.evidence for v in decide(given)[0] if v.name == "switch on hybrid")

    assert evidence(facts({}, {}, on_dev=False)) == "there are no dev queries to choose by."
    assert evidence(facts({}, {}, on_dev=True)).startswith("on dev neither BM25 nor the hybrid beats encoder")


def test_add_a_reranker_on_what_is_chosen_and_on_nothing_else():
    table = {"encoder": scores(0), "two": scores(N), "tuned": scores(0), "tuned two": scores(N)}
    pairs = {"rerank encoder": ("two", "encoder")}
    assert yes(facts(pairs, table)) == (["add a reranker"], "two")
    # the tuned encoder is proven, its second stage is not: that of the untrained encoder does not count
    table = {"encoder": scores(0), "two": scores(N), "tuned": scores(N), "tuned two": scores(N)}
    pairs = {
        "tuned": ("tuned", "encoder"),
        "rerank encoder": ("two", "encoder"),
        "rerank tuned": ("tuned two", "tuned"),
    }
    assert yes(facts(pairs, table, tuned="tuned")) == (["tune the encoder"], "tuned")


def test_both_where_both_are_proven():
    table = {"encoder": scores(0), "tuned": scores(30), "tuned two": scores(N)}
    pairs = {"tuned": ("tuned", "encoder"), "rerank tuned": ("tuned two", "tuned")}
    given = facts(pairs, table, tuned="tuned")
    assert yes(given) == (["tune the encoder", "add a reranker"], "tuned two")
    assert headline(*decide(given)) == "Tune the encoder and add a reranker: use tuned two."


def test_collect_when_the_interval_is_too_wide_to_say_anything():
    few = {"encoder": [0.0, 1.0, 0.5, 0.2], "tuned": [0.5, 0.9, 0.6, 0.1]}
    names, chosen = yes(facts({"tuned": ("tuned", "encoder")}, few, tuned="tuned"))
    assert (names, chosen) == (["collect more data first"], "encoder")
    assert "judge more queries" in next(
        v.evidence for v in decide(facts({"tuned": ("tuned", "encoder")}, few, tuned="tuned"))[0] if v.yes
    )


def test_collect_when_there_is_little_to_train_on_or_the_curve_still_rises():
    same = {"encoder": scores(30), "tuned": scores(30)}
    pairs = {"tuned": ("tuned", "encoder")}
    assert yes(facts(pairs, same, tuned="tuned", train=40))[0] == ["collect more data first"]
    rising = {"gain": 0.03, "low": 0.01, "high": 0.05}
    assert yes(facts(pairs, same, tuned="tuned", gain=rising))[0] == ["collect more data first"]
    assert yes(facts(pairs, same, tuned="tuned", gain=rising | {"low": -0.01}))[0] == ["do nothing"]


def test_judged_test_queries_that_could_train_are_pointed_to():
    same = {"encoder": scores(30), "tuned": scores(30)}
    given = facts({"tuned": ("tuned", "encoder")}, same, tuned="tuned", train=0, test_only=1233)
    assert "1,233 judged test queries" in next(v.evidence for v in decide(given)[0] if v.yes)
    few = given | {"test_only": 60}
    assert "judged test queries" not in next(v.evidence for v in decide(few)[0] if v.yes)


def test_a_system_that_dev_puts_below_the_choice_and_test_above_it_is_a_surprise():
    dev = {"encoder": scores(40), "BM25": scores(20), "tuned": scores(50)}
    test = {"encoder": scores(20), "BM25": scores(N), "tuned": scores(50)}
    assert [c.system for c in surprises("encoder", dev, test)] == ["BM25"]  # of "tuned" dev said so
    assert surprises("encoder", dev, test | {"BM25": scores(21)}) == []  # one query of 60 is luck
    assert surprises("encoder", {}, test) == [] == surprises("encoder", dev, {})
    given = facts({}, {}, dev_scores=dev, test_scores=test)
    names, chosen = yes(given)
    assert (names, chosen) == (["collect more data first"], "encoder")
    assert "Dev misled: on test, BM25 against encoder" in next(v.evidence for v in decide(given)[0] if v.yes)
    assert yes(given | {"test_scores": {}})[1] == chosen  # the choice itself is dev's


def test_a_surprise_by_the_system_that_the_judgments_come_from_says_so():
    dev = {"encoder": scores(40), "BM25": scores(20)}
    test = {"encoder": scores(20), "BM25": scores(N)}
    given = facts({}, {}, dev_scores=dev, test_scores=test, seen={"BM25": 1.0, "encoder": 0.5})
    said = next(v.evidence for v in decide(given)[0] if v.yes)
    assert "100% of the first ten of BM25 are judged and 50% of encoder's" in said
    assert "Dev misled" not in said
    for seen in ({"BM25": 1.0, "encoder": 0.9}, {"BM25": 0.05, "encoder": 0.01}):
        assert "Dev misled" in next(v.evidence for v in decide(given | {"seen": seen})[0] if v.yes)


def test_what_was_measured_points_nowhere_when_test_speaks_against_it():
    given = facts(
        {"hybrid": ("hybrid", "encoder")},
        {"encoder": scores(0), "hybrid": scores(30), "BM25": scores(N)},
        untrained="hybrid",
        dev_scores={"encoder": scores(10), "BM25": scores(20), "hybrid": scores(30)},
        test_scores={"encoder": scores(0), "hybrid": scores(30), "BM25": scores(N)},
    )
    verdicts, chosen = decide(given)
    against = surprises(chosen, given["dev_scores"], given["test_scores"])
    assert [c.system for c in against] == ["BM25"]
    assert headline(verdicts, chosen, against) == "Collect more data first."
    assert headline(verdicts, chosen).startswith(
        "Collect more data first; what was measured points to: switch on hybrid"
    )


def test_synthetic_test_queries_say_collect_first_and_what_they_point_to():
    given = facts(
        {"tuned": ("tuned", "encoder")}, {"encoder": scores(0), "tuned": scores(N)}, tuned="tuned", judged=False
    )
    assert yes(given) == (["tune the encoder", "collect more data first"], "tuned")
    assert headline(*decide(given)) == "Collect more data first; what was measured points to: tune the encoder (tuned)."


def test_without_a_test_split_the_scores_are_called_too_good():
    verdicts, _ = decide(facts({}, {}, on_test=False))
    assert "too good" in next(v.evidence for v in verdicts if v.name == "collect more data first")


def test_nothing_compared_is_no_proof_of_nothing():
    assert yes(facts({}, {}))[0] == ["collect more data first"]


def test_a_comparison_in_words():
    text = str(Comparison("a", "b", 0.1, 0.05, 0.15, 0.01, 3, 1, 9))
    assert text == "a against b: +0.100 nDCG@10 [+0.050, +0.150], p = 0.010, won 3, lost 1 of 9 queries"
    assert "no interval" in str(Comparison("a", "b", 0.1, float("nan"), float("nan"), 1.0, 1, 0, 1))


def test_a_caution_where_the_pool_did_not_know_the_chosen_system():
    said = unjudged({"encoder": 1.0, "tuned": 0.92}, "encoder", "tuned")
    assert said == [
        "92% of the first ten of tuned are judged, 100% of encoder's; "
        "what is not judged counts as wrong, so the gain is more likely too small than too large."
    ]
    assert unjudged({"encoder": 1.0, "tuned": 0.99}, "encoder", "tuned") == []
    assert unjudged({"encoder": 0.12, "tuned": 0.09}, "encoder", "tuned") == []  # one judged passage a query
    assert unjudged({}, "encoder", "tuned") == []
    (other_way,) = unjudged({"encoder": 0.5, "BM25": 1.0}, "encoder", "BM25")
    assert other_way.endswith("the gain is more likely too large than too small.")
    assert unjudged({"encoder": 0.85, "BM25": 1.0}, "encoder", "BM25") == []


@pytest.mark.parametrize(
    ("p", "text"), [(0.01, "p = 0.010"), (0.0009, "p < 0.001"), (0.001, "p = 0.001"), (1.0, "p = 1.000")]
)
def test_a_p_value_is_never_written_as_nothing(p, text):
    assert p_value(p) == text

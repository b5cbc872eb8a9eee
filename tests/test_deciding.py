"""From scores to a decision: the simplest system, what is proven, what more data may bring,
and each verdict by scores made by hand.
"""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from helpers.evaluation.comparing import Comparison, compared, corrected, p_value
from helpers.homework.deciding import VERDICTS, Decision, decide, in_one_sentence, surprises, unjudged
from helpers.homework.plan import Plan
from helpers.homework.scores import Scores, compare_picks, nominee, simplest
from helpers.homework.sources import Sources
from helpers.homework.systems import System
from helpers.homework.tuning import Tuned, expected_gain
from helpers.training.tune import TrainingSet

N = 60
SECOND = 1 / math.log2(3)  # nDCG@10 of the one right passage at rank 2; at rank 1 it is 1


def scores(first: int, n: int = N) -> list[float]:
    """nDCG@10 of n queries whose right passage is at rank 1 for the first so many, else at rank 2."""
    return [1.0] * first + [SECOND] * (n - first)


def system(name: str, **parts) -> System:
    return System(SimpleNamespace(name=name), name, **parts)


BM25, ENCODER, TUNED = system("BM25"), system("encoder", encoder="one"), system("tuned", encoder="two", tuned=True)
HYBRID = system("hybrid", encoder="one", words=BM25, vectors=ENCODER)
RERANKED = {ENCODER: system("two", encoder="one", first=ENCODER)}
BOTH_RERANKED = RERANKED | {TUNED: system("tuned two", encoder="two", tuned=True, first=TUNED)}
TRAINED = Plan(TrainingSet({}, {f"q{i}": {} for i in range(500)}, {}, {}, ""), {}, 500, [], "")


def given(on_final: dict[str, list[float]], untrained=ENCODER, tuned=None, reranked=None, **other) -> Scores:
    """The scores of a test split; ``other`` are fields of ``Scores``."""
    reranked = reranked or {}
    comparisons = compare_picks(ENCODER, untrained, tuned, reranked, on_final)
    plain = {"base": ENCODER, "final": "test", "on_final": on_final, "comparisons": comparisons}
    return Scores(**plain | {"untrained": untrained, "tuned": tuned, "reranked": reranked} | other)


def decision(scores: Scores, gain=None, plan: Plan = TRAINED, **sources) -> Decision:
    found = decide(scores, Tuned(plan, gain=gain), Sources(None, **{"dev": {"q": "asked"}} | sources))
    assert sorted(v.name for v in found.verdicts) == sorted(VERDICTS)
    assert all(v.evidence for v in found.verdicts)
    return found


def yes(found: Decision) -> tuple[list[str], str]:
    return [v.name for v in found.verdicts if v.yes], found.chosen.name


def evidence(found: Decision, name: str = "collect more data first") -> str:
    return next(v.evidence for v in found.verdicts if v.name == name)


def few(n: int) -> Plan:
    return replace(TRAINED, data=replace(TRAINED.data, positives={f"q{i}": {} for i in range(n)}))


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


def test_a_comparison_counts_wins_and_p_is_corrected_for_the_number_of_pairs():
    alone = compared("y", scores(30), "encoder", scores(0))
    assert alone.difference == pytest.approx((1 - SECOND) / 2)
    assert (alone.won, alone.lost, alone.n) == (30, 0, N)
    assert alone.proven
    assert corrected([alone]) == [alone]
    two = corrected([compared("x", scores(N), "encoder", scores(0)), alone])
    assert two[1].p == alone.p
    assert two[1].adjusted == pytest.approx(2 * alone.p)
    assert corrected([]) == []


def test_picks_are_compared_with_what_they_would_replace_and_rerankers_with_their_first_stages():
    names = ("encoder", "hybrid", "tuned", "two", "tuned two")
    on_final = {name: scores(10 * i) for i, name in enumerate(names)}

    def pairs(*picks) -> list[tuple[str, str]]:
        return [(c.system, c.baseline) for c in compare_picks(ENCODER, *picks, on_final)]

    assert pairs(ENCODER, None, {}) == []
    assert pairs(HYBRID, None, {}) == [("hybrid", "encoder")]
    assert pairs(ENCODER, TUNED, RERANKED) == [("tuned", "encoder"), ("two", "encoder")]
    assert pairs(HYBRID, TUNED, BOTH_RERANKED) == [
        ("tuned two", "encoder"),  # the whole pipeline first
        ("hybrid", "encoder"),
        ("tuned", "hybrid"),
        ("tuned", "encoder"),
        ("two", "encoder"),
        ("tuned two", "tuned"),
    ]


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
    alike = {"encoder": scores(30), "hybrid": scores(30), "tuned": scores(30)}
    found = decision(given(alike, HYBRID, TUNED))
    assert yes(found) == (["do nothing"], "encoder")
    assert found.headline == "Do nothing: keep encoder."


def test_switch_on_hybrid_when_it_is_proven():
    found = decision(given({"encoder": scores(0), "hybrid": scores(N)}, HYBRID))
    assert yes(found) == (["switch on hybrid"], "hybrid")
    assert found.headline == "Switch on hybrid: use hybrid."


def test_a_hybrid_that_test_does_not_confirm_is_not_used():
    # one query of 60 better: p = 1 for a single changed sign of either direction
    assert yes(decision(given({"encoder": scores(30), "hybrid": scores(31)}, HYBRID)))[1] == "encoder"


def test_tune_the_encoder_when_it_beats_the_best_untrained():
    table = {"encoder": scores(0), "hybrid": scores(20), "tuned": scores(N)}
    assert yes(decision(given(table, HYBRID, TUNED))) == (["tune the encoder"], "tuned")


def test_where_test_does_not_prove_the_hybrid_tuning_has_to_beat_what_is_there_now():
    # of 60 queries the hybrid wins 5 (p = 2 / 2**5, not proven), tuning 5 more, 10 against the encoder (p = 2 / 2**10)
    table = {"encoder": scores(30), "hybrid": scores(35), "tuned": scores(40)}
    measured = given(table, HYBRID, TUNED)
    assert {(c.system, c.baseline): c.proven for c in measured.comparisons} == {
        ("tuned", "encoder"): True,
        ("hybrid", "encoder"): False,
        ("tuned", "hybrid"): False,
    }
    found = decision(measured)
    assert yes(found) == (["tune the encoder"], "tuned")
    assert evidence(found, "tune the encoder").startswith("tuned against encoder: ")
    assert found.headline == "Tune the encoder: use tuned."


def test_where_test_proves_the_hybrid_tuning_has_to_beat_the_hybrid():
    table = {"encoder": scores(0), "hybrid": scores(40), "tuned": scores(42)}
    measured = given(table, HYBRID, TUNED)
    assert measured.comparison(TUNED, ENCODER).proven
    assert yes(decision(measured)) == (["switch on hybrid"], "hybrid")


def test_where_the_whole_pipeline_is_not_better_no_part_of_it_is_used():
    # The hybrid alone would be proven (10 of 60 won); dev picked the tuned one, which test does not confirm.
    table = {"encoder": scores(30), "hybrid": scores(40), "tuned": scores(31)}
    measured = given(table, HYBRID, TUNED)
    assert [c.proven for c in measured.comparisons] == [False, False, False]
    found = decision(measured)
    assert yes(found)[1] == "encoder"
    assert "proves nothing: the whole is not better" in evidence(found, "switch on hybrid")


def test_where_the_whole_is_better_and_no_part_can_be_told_apart_the_whole_is_used():
    # 3 of 60 won by tuning, 3 more by the reranker (p = 2 / 2**3 each), 6 by both (p = 2 / 2**6)
    table = {"encoder": scores(30), "two": scores(30), "tuned": scores(33), "tuned two": scores(36)}
    found = decision(given(table, tuned=TUNED, reranked=BOTH_RERANKED))
    assert yes(found) == (["tune the encoder", "add a reranker"], "tuned two")


def simulated(gain: float, times: int, queries: int = 200) -> float:
    """The share of worlds in which something is deployed.

    In each, dev has picked a hybrid, a tuned encoder and two rerankers; each is better than the encoder by ``gain`` on
    average, with the spread of paired differences that the default collection has (0.32).
    """
    rng, deployed = np.random.default_rng(0), 0
    names = ("hybrid", "tuned", "two", "tuned two")
    for _ in range(times):
        encoder = rng.uniform(size=queries)
        table = {"encoder": encoder} | {name: encoder + gain + rng.normal(0, 0.32, queries) for name in names}
        deployed += decision(given(table, HYBRID, TUNED, BOTH_RERANKED)).chosen is not ENCODER
    return deployed / times


def test_of_300_worlds_without_a_gain_fewer_than_5_percent_deploy_something():
    assert simulated(0.0, 300) < 0.05


def test_of_worlds_with_a_gain_of_5_points_and_200_queries_most_deploy_something():
    assert simulated(0.05, 200) >= 0.55


def test_where_words_alone_are_best_the_headline_says_bm25():
    found = decision(given({"encoder": scores(0), "BM25": scores(N)}, BM25))
    assert yes(found) == (["switch on hybrid"], "BM25")
    assert found.headline == "Search with BM25: use BM25."


def test_where_an_adapter_is_best_the_headline_says_so_whatever_it_is_called():
    adapter = system("of any name", encoder="one", matrix=np.eye(2))
    found = decision(given({"encoder": scores(0), "of any name": scores(N)}, tuned=adapter))
    assert found.headline == "Tune the encoder by an adapter for its queries: use of any name."
    both = replace(adapter, tuned=True)
    found = decision(given({"encoder": scores(0), "of any name": scores(N)}, tuned=both))
    assert found.headline == "Tune the encoder: use of any name."


def test_without_dev_queries_the_evidence_says_so():
    alone = given({"encoder": scores(30)})
    assert evidence(decision(alone, dev={}), "switch on hybrid") == "there are no dev queries to choose by."
    assert evidence(decision(alone), "switch on hybrid") == "none was measured."


EXPANDED = system("encoder + questions", encoder="one", questions=40)
ANOTHER = system("bge-small", encoder="three")
CANDIDATES = [ENCODER, BM25, HYBRID, EXPANDED, ANOTHER]


@pytest.mark.parametrize(
    ("pick", "verdict"),
    [
        (BM25, "switch on hybrid"),
        (HYBRID, "switch on hybrid"),
        (EXPANDED, "index the questions too"),
        (ANOTHER, "use another encoder"),
    ],
)
def test_each_untrained_system_has_its_verdict(pick, verdict):
    dev = {s.name: scores(30 if s is pick else 10) for s in CANDIDATES}
    found = decision(
        given({"encoder": scores(0), pick.name: scores(N)}, untrained=pick, candidates=CANDIDATES, dev=dev)
    )
    assert yes(found) == ([verdict], pick.name)
    assert evidence(found, verdict).startswith(f"{pick.name} against encoder: +")
    for other in {"switch on hybrid", "index the questions too", "use another encoder"} - {verdict}:
        assert evidence(found, other).endswith(f"against {pick.name} {np.mean(scores(30)):.3f}, which was nominated.")


def test_what_dev_did_not_nominate_stands_beside_the_present_system():
    dev = {s.name: scores(10 if s is not HYBRID else 12) for s in CANDIDATES}
    found = decision(given({"encoder": scores(30)}, candidates=CANDIDATES, dev=dev))
    hybrid, encoder = np.mean(scores(12)), np.mean(scores(10))
    assert evidence(found, "switch on hybrid") == f"on dev, hybrid {hybrid:.3f} nDCG@10 against encoder {encoder:.3f}."
    only = given({"encoder": scores(30)}, candidates=[ENCODER, BM25, HYBRID], dev=dev)
    assert evidence(decision(only), "index the questions too") == "there are no questions to put into the index."


def test_the_tuned_system_has_to_beat_the_questions_in_the_index():
    table = {"encoder": scores(0), "encoder + questions": scores(50), "tuned": scores(50)}
    found = decision(given(table, untrained=EXPANDED, tuned=TUNED))
    assert yes(found) == (["index the questions too"], "encoder + questions")
    assert found.headline == "Index the questions too: use encoder + questions."


def test_where_nothing_was_tuned_the_evidence_says_why():
    alone = given({"encoder": scores(30)})
    assert evidence(decision(alone), "tune the encoder") == "on dev nothing tuned is better."
    plan = replace(TRAINED, size=0, why="nothing was tuned, as --minutes 0 asks")
    assert evidence(decision(alone, plan=plan), "tune the encoder") == "nothing was tuned, as --minutes 0 asks."


def test_add_a_reranker_on_what_is_chosen_and_on_nothing_else():
    table = {"encoder": scores(0), "two": scores(N), "tuned": scores(0), "tuned two": scores(N)}
    assert yes(decision(given(table, reranked=RERANKED))) == (["add a reranker"], "two")
    # the tuned encoder is proven, its second stage is not: that of the untrained encoder does not count
    table = {"encoder": scores(0), "two": scores(N), "tuned": scores(N), "tuned two": scores(N)}
    assert yes(decision(given(table, tuned=TUNED, reranked=BOTH_RERANKED))) == (["tune the encoder"], "tuned")


def test_both_where_both_are_proven():
    table = {"encoder": scores(0), "two": scores(0), "tuned": scores(30), "tuned two": scores(N)}
    found = decision(given(table, tuned=TUNED, reranked=BOTH_RERANKED))
    assert yes(found) == (["tune the encoder", "add a reranker"], "tuned two")
    assert found.headline == "Tune the encoder and add a reranker: use tuned two."


def test_collect_when_the_interval_is_too_wide_to_say_anything():
    found = decision(given({"encoder": [0.0, 1.0, 0.5, 0.2], "tuned": [0.5, 0.9, 0.6, 0.1]}, tuned=TUNED))
    assert yes(found) == (["collect more data first"], "encoder")
    assert "judge more queries" in evidence(found)
    # 30 queries whose differences are ±0.25 in turn: sd 0.254, (2.8016 · 0.2543 / 0.05)² = 203
    table = {"encoder": [0.5] * 30, "tuned": [0.75, 0.25] * 15}
    assert evidence(decision(given(table, tuned=TUNED))).endswith(
        "a gain of 0.05 in four cases of five takes about 203."
    )


def test_collect_when_there_is_little_to_train_on_or_the_curve_still_rises():
    alike = given({"encoder": scores(30), "tuned": scores(30)}, tuned=TUNED)
    assert yes(decision(alike, plan=few(40)))[0] == ["collect more data first"]
    rising = {"gain": 0.03, "low": 0.01, "high": 0.05}
    assert yes(decision(alike, gain=rising))[0] == ["collect more data first"]
    assert yes(decision(alike, gain=rising | {"low": -0.01}))[0] == ["do nothing"]


def test_judged_test_queries_that_could_train_are_pointed_to():
    alike = given({"encoder": scores(30), "tuned": scores(30)}, tuned=TUNED)
    assert "1,233 judged test queries" in evidence(decision(alike, plan=few(0), judged_test=1233))
    assert "judged test queries" not in evidence(decision(alike, plan=few(0), judged_test=60))
    trains = {"q": {"a": 1}}
    assert "judged test queries" not in evidence(decision(alike, plan=few(0), judged_test=1233, positives=trains))


def test_a_system_that_dev_puts_below_the_choice_and_test_above_it_is_a_surprise():
    dev = {"encoder": scores(40), "BM25": scores(20), "tuned": scores(50)}
    test = {"encoder": scores(20), "BM25": scores(N), "tuned": scores(50)}
    assert [c.system for c in surprises("encoder", dev, test)] == ["BM25"]  # of "tuned" dev said so
    assert surprises("encoder", dev, test | {"BM25": scores(21)}) == []  # one query of 60 is luck
    assert surprises("encoder", {}, test) == [] == surprises("encoder", dev, {})
    found = decision(given(test, dev=dev))
    assert yes(found) == (["collect more data first"], "encoder")
    assert "Dev misled: on test, BM25 against encoder" in evidence(found)
    assert "Dev misled" not in evidence(decision(given(test, dev=dev, final="dev")))
    assert yes(decision(given({"encoder": scores(20)}, dev=dev)))[1] == "encoder"  # the choice itself is dev's


def test_a_surprise_by_the_system_that_the_judgments_come_from_says_so():
    dev = {"encoder": scores(40), "BM25": scores(20)}
    test = {"encoder": scores(20), "BM25": scores(N)}
    reason = evidence(decision(given(test, dev=dev, judged={"BM25": 1.0, "encoder": 0.5})))
    assert "100% of the first ten of BM25 are judged and 50% of encoder's" in reason
    assert "Dev misled" not in reason
    for judged in ({"BM25": 1.0, "encoder": 0.9}, {"BM25": 0.05, "encoder": 0.01}):
        assert "Dev misled" in evidence(decision(given(test, dev=dev, judged=judged)))


def test_what_was_measured_points_nowhere_when_test_speaks_against_it():
    table = {"encoder": scores(0), "hybrid": scores(30), "BM25": scores(N)}
    dev = {"encoder": scores(10), "BM25": scores(20), "hybrid": scores(30)}
    found = decision(given(table, HYBRID, dev=dev))
    assert [c.system for c in surprises("hybrid", dev, table)] == ["BM25"]
    assert found.headline == "Collect more data first."
    assert in_one_sentence(found.verdicts, found.chosen).startswith(
        "Collect more data first; what was measured points to: switch on hybrid"
    )


def test_synthetic_test_queries_say_collect_first_and_what_they_point_to():
    found = decision(given({"encoder": scores(0), "tuned": scores(N)}, tuned=TUNED), judged=False)
    assert yes(found) == (["tune the encoder", "collect more data first"], "tuned")
    assert found.headline == "Collect more data first; what was measured points to: tune the encoder (tuned)."


def test_without_a_test_split_the_scores_are_called_too_good():
    assert "too good" in evidence(decision(given({"encoder": scores(30)}, final="dev")))


def test_nothing_compared_is_no_proof_of_nothing():
    assert yes(decision(given({"encoder": scores(30)})))[0] == ["collect more data first"]


def test_where_no_query_is_judged_only_collecting_is_advised():
    found = decision(Scores(ENCODER, ENCODER))
    assert yes(found) == (["collect more data first"], "encoder")
    assert found.headline == "Collect more data first."
    assert len({v.evidence for v in found.verdicts}) == 1


def test_a_comparison_in_words():
    text = str(Comparison("a", "b", 0.1, 0.05, 0.15, 0.01, 3, 1, 9, 0.01))
    assert text == "a against b: +0.100 nDCG@10 [+0.050, +0.150], p = 0.010, won 3, lost 1 of 9 queries"
    assert "proves nothing" in str(Comparison("a", "b", 0.1, 0.05, 0.15, 0.01, 3, 1, 9, float("nan")))
    assert "no interval" in str(Comparison("a", "b", 0.1, float("nan"), float("nan"), 1.0, 1, 0, 1, 1.0))


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


def test_a_caution_says_on_which_kind_of_query_the_choice_gains_and_loses():
    table = {"encoder": scores(0), "hybrid": scores(N)}
    short = {"encoder": [0.5] * 20, "hybrid": [0.75] * 20}
    long = {"encoder": [0.5] * 20, "hybrid": [0.375] * 20}
    found = decision(given(table, HYBRID, parts={"short": short, "long": long}))
    assert found.cautions == [
        "By kind of query, hybrid against encoder: short +0.250 [+0.250, +0.250], long -0.125 [-0.125, -0.125]; "
        "it is worse on long: find out first what your people ask."
    ]
    assert decision(given({"encoder": scores(30)}, parts={"short": short, "long": long})).cautions == []
    assert decision(given(table, HYBRID)).cautions == []


@pytest.mark.parametrize(
    ("p", "text"), [(0.01, "p = 0.010"), (0.0009, "p < 0.001"), (0.001, "p = 0.001"), (1.0, "p = 1.000")]
)
def test_a_p_value_is_never_written_as_nothing(p, text):
    assert p_value(p) == text

"""Measures and tests of significance against numbers worked out by hand, by enumeration
or by another implementation.
"""

import itertools
import json
import math
import re
import time
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import ndcg_score

from helpers.collection.collection import AUTHORS, Collection
from helpers.evaluation import measures as evaluation
from helpers.evaluation.comparing import compare
from helpers.evaluation.measures import (
    COLUMNS,
    MEASURES,
    choose_weight,
    evaluate,
    evaluate_slices,
    holm,
    interval,
    judged_only,
    latencies,
    latency,
    paired_test,
    per_query,
    queries_needed,
    randomisation_test,
    read_scoreboard,
    record,
    record_systems,
)
from helpers.evaluation.report import format_scoreboard
from helpers.retrieval.first_stages import Retriever, fuse
from helpers.store.files import WorkbookError


def test_measures_of_a_small_example_by_hand():
    # Grades a 2, b 1, d 1, c 0; retrieved b, x (not judged), a, c.
    # DCG  = 1/log2(2) + 0 + 2/log2(4) + 0 = 2;  ideal 2/log2(2) + 1/log2(3) + 1/log2(4) = 3.13093;  nDCG = 0.63879
    # recall = 2 of 3;  precision at 5 = 2/5;  the first relevant one is at rank 1;  judged 3 of 4
    row = per_query({"q": {"a": 2, "b": 1, "c": 0, "d": 1}}, {"q": {"b": 0.9, "x": 0.8, "a": 0.7, "c": 0.6}}).loc["q"]
    assert row.to_dict() == pytest.approx(
        {"ndcg@10": 0.63879, "recall@10": 2 / 3, "recall@100": 2 / 3, "p@5": 0.4, "mrr@10": 1.0, "judged@10": 0.75},
        abs=5e-6,
    )


def test_measures_look_at_ten_or_a_hundred_passages():
    # Relevant at ranks 4, 11 and 101: RR = 1/4, recall@10 = 1/3, recall@100 = 2/3, P@5 = 1/5,
    # DCG = 1/log2(5) = 0.43068, ideal 2.13093: nDCG = 0.20211; of the best ten, one is judged.
    run = {"q": {f"d{rank:03}": -float(rank) for rank in range(1, 121)}}
    row = per_query({"q": {"d004": 1, "d011": 1, "d101": 1}}, run).loc["q"]
    assert row.to_dict() == pytest.approx(
        {"ndcg@10": 0.20211, "recall@10": 1 / 3, "recall@100": 2 / 3, "p@5": 0.2, "mrr@10": 0.25, "judged@10": 0.1},
        abs=5e-6,
    )


def test_evaluate_is_the_mean_over_the_queries():
    qrels = {"p": {"a": 1}, "q": {"b": 1}}
    run = {"p": {"a": 1.0}, "q": {"a": 2.0, "b": 1.0}}
    assert evaluate(qrels, run)["mrr@10"] == pytest.approx((1 + 0.5) / 2)
    assert list(evaluate(qrels, run)) == list(MEASURES)


def random_judgments_and_run(seed: int, queries: int = 200, passages: int = 130):
    """Graded judgments and a run in which many scores are equal and some queries have few passages or none."""
    rng = np.random.default_rng(seed)
    ids = [f"d{i}" for i in range(passages)]
    qrels, run = {}, {}
    for q in range(queries):
        judged = rng.choice(ids, size=rng.integers(1, 40), replace=False)
        qrels[f"q{q}"] = {str(d): int(rng.integers(0, 4)) for d in judged} | {str(judged[0]): 1}
        found = rng.choice(ids, size=rng.integers(0, passages + 1), replace=False)
        run[f"q{q}"] = {str(d): float(rng.integers(0, 20)) / 20 for d in found}
    return qrels, run


def measured_again(grades: dict[str, int], scores: dict[str, float]) -> dict[str, float]:
    """The six measures of one query, written from their definitions."""
    ranked = [d for _, d in sorted((-score, d) for d, score in scores.items())]
    gains = np.array([grades.get(d, 0) for d in ranked], dtype=float)
    best = np.sort([float(g) for g in grades.values()])[::-1]
    relevant = (gains > 0).astype(float)

    def dcg(values):
        return float((values[:10] / np.log2(np.arange(2, len(values[:10]) + 2))).sum())

    hits = np.flatnonzero(relevant[:10])
    top = ranked[:10]
    return {
        "ndcg@10": dcg(gains) / dcg(best),
        "recall@10": relevant[:10].sum() / (best > 0).sum(),
        "recall@100": relevant[:100].sum() / (best > 0).sum(),
        "p@5": relevant[:5].sum() / 5,
        "mrr@10": 1 / (hits[0] + 1) if len(hits) else 0.0,
        "judged@10": sum(d in grades for d in top) / len(top) if top else 1.0,
    }


@pytest.mark.parametrize("seed", [0, 1])
def test_measures_agree_with_an_independent_implementation(seed):
    qrels, run = random_judgments_and_run(seed)
    table = per_query(qrels, run)
    expected = pd.DataFrame({q: measured_again(qrels[q], run[q]) for q in qrels}).T
    pd.testing.assert_frame_equal(table, expected[list(MEASURES)], check_exact=False, atol=1e-9)


def test_ndcg_agrees_with_scikit_learn():
    rng = np.random.default_rng(7)
    grades = rng.integers(0, 4, size=(50, 30))
    scores = rng.permuted(np.tile(np.arange(30.0), (50, 1)), axis=1)  # no ties, which scikit-learn averages
    qrels = {f"q{q:02}": {f"d{d}": int(g) for d, g in enumerate(row)} for q, row in enumerate(grades)}
    run = {f"q{q:02}": {f"d{d}": float(s) for d, s in enumerate(row)} for q, row in enumerate(scores)}
    expected = [ndcg_score(grades[[q]], scores[[q]], k=10) for q in range(50)]
    np.testing.assert_allclose(per_query(qrels, run)["ndcg@10"].to_numpy(), expected, atol=1e-9)


@pytest.mark.parametrize(("relevant", "reciprocal_rank"), [("a", 1.0), ("b", 1 / 2), ("c", 1 / 3)])
def test_equal_scores_count_in_the_order_of_the_ids(relevant, reciprocal_rank):
    for order in itertools.permutations("abc"):
        row = per_query({"q": {relevant: 1}}, {"q": dict.fromkeys(order, 1.0)}).loc["q"]
        assert row["mrr@10"] == pytest.approx(reciprocal_rank)


@pytest.mark.parametrize("missing", [{}, {"q2": {}}])
def test_query_the_run_does_not_have_scores_0(missing):
    table = per_query({"q1": {"a": 1}, "q2": {"b": 1}}, {"q1": {"a": 1.0}, **missing})
    assert table.loc["q2"].drop("judged@10").tolist() == [0.0] * 5
    assert evaluate({"q1": {"a": 1}, "q2": {"b": 1}}, {"q1": {"a": 1.0}, **missing})["recall@10"] == 0.5


def test_queries_without_a_relevant_passage_and_queries_without_judgments_are_left_out():
    qrels = {"q1": {"a": 1}, "q2": {"a": 0}, "q3": {}}
    run = {q: {"a": 1.0} for q in ("q1", "q2", "q3", "q4")}
    assert list(per_query(qrels, run).index) == ["q1"]


def test_run_and_judgments_without_a_common_query_are_refused():
    with pytest.raises(WorkbookError, match="share no query"):
        per_query({"q1": {"a": 1}}, {"x1": {"a": 1.0}})


@pytest.mark.parametrize("qrels", [{}, {"q": {}}, {"q": {"a": 0}}])
def test_judgments_without_a_relevant_passage_are_refused(qrels):
    with pytest.raises(WorkbookError, match="no relevant passage"):
        per_query(qrels, {"q": {"a": 1.0}})


def test_interval_covers_the_mean_and_is_the_same_twice():
    values = np.random.default_rng(0).random(40)
    low, high = interval(values)
    assert low < values.mean() < high
    assert interval(values) == (low, high)


def test_interval_is_about_two_standard_errors_to_each_side():
    values = np.random.default_rng(1).normal(size=400)
    low, high = interval(values)
    error = values.std(ddof=1) / math.sqrt(len(values))
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.05)


def test_interval_of_equal_values_is_that_value():
    assert interval([0.25] * 6) == pytest.approx((0.25, 0.25))


@pytest.mark.parametrize("values", [[], [0.5]])
def test_interval_of_fewer_than_two_values_is_not_a_number(values):
    assert all(math.isnan(bound) for bound in interval(values))


EIGHT = [
    [0.3, -0.1, 0.2, 0.4, 0.0, 0.1, -0.2, 0.5],
    [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8],
    [1.0, -1.0, 1.0, -1.0, 0.5, -0.5, 0.0, 0.0],
]


@pytest.mark.parametrize("differences", EIGHT)
def test_randomisation_test_of_eight_differences_is_the_enumeration_of_all_signs(differences):
    values = np.array(differences)
    flipped = np.array(list(itertools.product([1, -1], repeat=8))) @ values
    expected = (np.abs(flipped) >= abs(values.sum()) - 1e-12).mean()
    assert randomisation_test(differences) == pytest.approx(expected, abs=1e-12)


def test_randomisation_test_of_eight_gains_is_2_in_256():
    assert randomisation_test(EIGHT[1]) == 2 / 256


@pytest.mark.parametrize("differences", [[0.0] * 20, [], [0.4]])
def test_randomisation_test_without_evidence_gives_1(differences):
    assert randomisation_test(differences) == 1.0


@pytest.mark.parametrize("n", [8, 60])
def test_randomisation_test_gives_the_same_p_with_the_sides_exchanged(n):
    values = np.random.default_rng(3).normal(0.1, 1, size=n)
    assert randomisation_test(values) == pytest.approx(randomisation_test(-values))


def test_more_resamples_do_not_make_p_smaller(monkeypatch):
    values = np.random.default_rng(5).normal(0.15, 1, size=80)
    found = []
    for resamples in (999, 9_999, 49_999):
        monkeypatch.setattr(evaluation, "RESAMPLES", resamples)
        found.append(randomisation_test(values))
    assert found[-1] > 0.05
    # The standard error of the first is sqrt(p (1 − p) / 999), below 0.016.
    assert found == pytest.approx([found[-1]] * 3, abs=0.05)


def test_p_is_uniform_where_there_is_no_difference():
    rng = np.random.default_rng(11)
    found = [randomisation_test(rng.normal(size=10)) for _ in range(200)]
    # Of 200, 5 % should be below 0.05, with a standard deviation of 3.1 tests.
    assert 1 <= sum(p < 0.05 for p in found) <= 20


@pytest.mark.parametrize(
    ("p_values", "corrected"),
    [
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),  # 3 · 0.01;  2 · 0.03;  0.04, but not below the one before
        ([0.5, 0.9], [1.0, 1.0]),
        ([0.02, 0.02], [0.04, 0.04]),
        ([0.2], [0.2]),
        ([], []),
    ],
)
def test_holm_by_hand(p_values, corrected):
    assert holm(p_values) == pytest.approx(corrected)


def test_compare_of_a_run_with_itself_shows_no_difference():
    qrels, run = random_judgments_and_run(2, queries=30)
    row = compare(qrels, run, {"same": run}).loc["same"]
    assert row[["difference", "low", "high", "p", "won", "tied", "lost"]].tolist() == [0, 0, 0, 1, 0, 30, 0]


def test_compare_by_hand():
    # RR of the baseline: 1, 1/2, 1/2;  of the other: 1/2, 1, 1.  Mean difference (−1/2 + 1/2 + 1/2) / 3 = 1/6.
    # Of the eight ways to give signs to three halves every one has a mean at least as far from 0: p = 1.
    qrels = {q: {"a": 1} for q in "123"}
    first, second = {"a": 2.0, "b": 1.0}, {"b": 2.0, "a": 1.0}
    row = compare(
        qrels, {"1": first, "2": second, "3": second}, {"new": {"1": second, "2": first, "3": first}}, "mrr@10"
    ).loc["new"]
    assert row["mean"] == pytest.approx(5 / 6)
    assert row["difference"] == pytest.approx(1 / 6)
    assert math.isnan(row["low"])
    assert math.isnan(row["high"])
    assert row[["p", "won", "tied", "lost"]].tolist() == [1, 2, 0, 1]


def test_compare_corrects_p_for_the_number_of_systems():
    qrels = {f"q{i}": {"a": 1} for i in range(12)}
    bad = {q: {"b": 2.0, "a": 1.0} for q in qrels}
    good = {q: {"a": 1.0} for q in qrels}
    alone = compare(qrels, bad, {"good": good}).loc["good"]
    assert alone["p"] == alone["adjusted"] == pytest.approx(2 / 2**12)
    three = compare(qrels, bad, {"good": good, "same": bad, "as good": good})
    assert three["p"].tolist() == pytest.approx([alone["p"], 1.0, alone["p"]])
    assert three["adjusted"].tolist() == pytest.approx([3 * alone["p"], 1.0, 3 * alone["p"]])


@pytest.mark.parametrize("differences", EIGHT)
def test_the_interval_of_eight_differences_holds_the_shifts_that_no_enumeration_rejects(differences):
    low, high, _ = paired_test(differences)
    signs = np.array(list(itertools.product([1, -1], repeat=8)))
    for shift in np.linspace(-1.5, 1.5, 301):
        shifted = np.array(differences) - shift
        p = (np.abs(signs @ shifted) >= abs(shifted.sum()) - 1e-9).mean()
        assert (p >= 0.05) == (low - 1e-9 <= shift <= high + 1e-9), (shift, low, high, p)


def test_the_interval_leaves_out_0_exactly_when_p_is_below_5_percent():
    rng = np.random.default_rng(2)
    found = [paired_test(rng.normal(0.02, 0.3, size=n)) for n in (6, 12, 30, 200, 600) for _ in range(60)]
    assert all((p < 0.05) == (low > 0 or high < 0) for low, high, p in found)
    assert 20 < sum(p < 0.05 for *_, p in found) < 280


def test_p_and_interval_agree_with_the_librarys_permutation_test_and_bootstrap():
    values = np.random.default_rng(4).gamma(0.5, 0.1, size=150) - 0.04
    low, high, p = paired_test(values)
    library = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=9_999, rng=np.random.default_rng(1)
    )
    assert p == pytest.approx(library.pvalue, abs=0.02)
    assert (low, high) == pytest.approx(interval(values), abs=0.003)


def test_the_interval_covers_the_true_mean_in_95_of_100_cases_also_with_ten_queries():
    rng = np.random.default_rng(6)
    intervals = [paired_test(rng.normal(0.1, 0.3, size=10))[:2] for _ in range(300)]
    covered = sum(low <= 0.1 <= high for low, high in intervals)
    assert 274 <= covered <= 296  # 285 expected, standard deviation 3.8


@pytest.mark.parametrize("n", [2, 5])
def test_too_few_differences_for_an_interval_have_none(n):
    low, high, p = paired_test([0.1] * n)
    assert math.isnan(low)
    assert math.isnan(high)
    assert p == 2 / 2**n


def test_queries_needed_by_hand():
    # sd of −1, 1, −1, 1 with n − 1: 2 / √3; z₀.₉₇₅ = 1.95996, z₀.₈ = 0.84162: (2.80159 · 1.15470 / 0.5)² = 41.9
    assert queries_needed([-1.0, 1.0, -1.0, 1.0], 0.5) == 42
    assert queries_needed([0.1, 0.1, 0.1], 0.05) == 1
    with pytest.raises(WorkbookError, match="fewer than two"):
        queries_needed([0.1], 0.05)


def test_so_many_queries_find_such_a_gain_four_times_in_five():
    rng = np.random.default_rng(8)
    n = queries_needed(rng.normal(0, 0.3, size=2000), 0.05)
    found = sum(paired_test(rng.normal(0.05, 0.3, size=n))[2] < 0.05 for _ in range(200))
    assert 143 <= found <= 177  # 160 expected, standard deviation 5.7


def test_chosen_weight_is_the_best_of_the_tenths():
    # The first run has a at the top in q1 alone, the second in q2 alone; with both, only a middle weight serves both.
    qrels = {"q1": {"a": 1}, "q2": {"a": 1}}
    first = {"q1": {"a": 1.0, "b": 0.7, "c": 0.0}, "q2": {"b": 1.0, "a": 0.7, "c": 0.0}}
    second = {"q1": {"b": 1.0, "a": 0.8, "c": 0.0}, "q2": {"a": 1.0, "b": 0.2, "c": 0.0}}
    weight, means = choose_weight(qrels, first, second, "mrr@10")
    assert list(means) == pytest.approx([i / 10 for i in range(11)])
    assert all(mean == evaluate(qrels, fuse(first, second, w))["mrr@10"] for w, mean in means.items())
    # q1: a leads while 0.3 (1 − w) > 0.2 w, so w < 0.6;  q2: while 0.8 w > 0.3 (1 − w), so w > 0.27
    assert [w for w, mean in means.items() if mean == 1.0] == pytest.approx([0.3, 0.4, 0.5, 0.6])
    assert weight == 0.5


@pytest.fixture
def collection(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBOOK_BUILD", str(tmp_path))
    qrels = {"dev": {"q1": {"a": 1}, "q2": {"b": 2, "a": 1}}, "test": {"q3": {"c": 1}, "q4": {"a": 1}}}
    return Collection("small", {"a": "x", "b": "y", "c": "z"}, {f"q{i}": "?" for i in range(1, 5)}, qrels)


RUN = {q: {"a": 3.0, "b": 2.0, "c": 1.0} for q in ("q1", "q2", "q3", "q4")}


def test_scoreboard_of_nothing_is_empty(collection):
    assert list(read_scoreboard(collection).columns) == COLUMNS
    assert len(read_scoreboard(collection)) == 0


def test_recorded_run_is_on_the_scoreboard_and_in_a_file(collection):
    scores = record(collection, "test", "BM25 → reranker", RUN, "02", ms=1.234, usd=0.5)
    board = read_scoreboard(collection)
    assert list(board.columns) == COLUMNS
    row = board.iloc[0].to_dict()
    assert (row["system"], row["split"], row["n_queries"]) == ("BM25 → reranker", "test", 2)
    assert (row["ms_per_query"], row["usd_per_1000_queries"]) == (1.23, 0.5)
    low, high = interval(per_query(collection.qrels["test"], RUN)["ndcg@10"].tolist())
    judged = evaluate(collection.qrels["test"], judged_only(collection.qrels["test"], RUN))["ndcg@10"]
    expected = {**evaluate(collection.qrels["test"], RUN), "n_queries": 2, "ndcg@10_low": low, "ndcg@10_high": high}
    expected |= {"ndcg@10_judged": judged}
    assert scores == expected
    assert row["ndcg@10"] == pytest.approx(scores["ndcg@10"], rel=1e-5)
    assert row["ndcg@10_low"] <= row["ndcg@10"] <= row["ndcg@10_high"]
    (file,) = (collection.build / "runs").iterdir()
    assert re.fullmatch(r"BM25-reranker-[0-9a-f]{6}\.test\.json", file.name)
    assert json.loads(file.read_text()) == RUN


def test_systems_whose_names_differ_in_a_sign_only_keep_a_run_each(collection):
    other = {query: {"z": 1.0} for query in RUN}
    for system, run in (("encoder → reranker", RUN), ("encoder + reranker", other)):
        record(collection, "test", system, run, "02")
    assert [RUN, other] == sorted(
        (json.loads(file.read_text()) for file in (collection.build / "runs").iterdir()), key=lambda run: run == other
    )


def test_system_measured_again_replaces_its_row_of_that_split(collection):
    for split, system in [("test", "A"), ("test", "B"), ("dev", "A")]:
        record(collection, split, system, RUN, "01")
    record(collection, "test", "A", {"q3": {"c": 1.0}, "q4": {"a": 1.0}}, "05")
    board = read_scoreboard(collection)
    assert sorted(zip(board["system"], board["split"], strict=True)) == [("A", "dev"), ("A", "test"), ("B", "test")]
    again = board[(board["system"] == "A") & (board["split"] == "test")].iloc[0]
    assert (again["ndcg@10"], again["notebook"]) == (1.0, "05")


def test_changed_collection_starts_the_scoreboard_anew(collection):
    record(collection, "test", "A", RUN, "01")
    collection.qrels["test"]["q3"]["b"] = 1
    assert len(read_scoreboard(collection)) == 0
    record(collection, "test", "B", RUN, "02")
    assert read_scoreboard(collection)["system"].tolist() == ["B"]


def test_record_refuses_a_split_the_collection_does_not_have(collection):
    with pytest.raises(WorkbookError, match="no train split"):
        record(collection, "train", "A", RUN, "01")


class Priced(Retriever):
    """Costs something, and takes a while."""

    name, usd_per_1000_queries = "priced", 0.25

    def index(self, corpus):
        return self

    def search(self, text, k):
        time.sleep(0.002)
        return {}


def test_recorded_systems_have_time_and_price_and_bare_runs_have_neither(collection):
    record(collection, "test", "of another notebook", RUN, "01")
    record(collection, "dev", "priced", RUN, "01")
    board = record_systems(collection, "test", [Priced()], {"priced": RUN, "bare": RUN}, "02").set_index("system")
    assert set(board.index) == {"priced", "bare"}
    assert set(board["split"]) == {"test"}
    assert board["usd_per_1000_queries"].to_dict() == {"priced": 0.25, "bare": 0.0}
    assert board.loc["priced", "ms_per_query"] >= 2
    assert np.isnan(board.loc["bare", "ms_per_query"])
    assert len(read_scoreboard(collection)) == 4


def test_only_the_judged_passages_of_a_run_are_kept_in_their_order():
    run = {"q": {"unknown": 9.0, "right": 5.0, "wrong": 4.0}, "other": {"x": 1.0}}
    assert judged_only({"q": {"wrong": 0, "right": 1}}, run) == {"q": {"right": 5.0, "wrong": 4.0}, "other": {}}


SLICED = Collection(
    "sliced",
    {d: f"text of {d}" for d in "abcd"},
    {"q1": "one", "q2": "two", "q3": "three"},
    {"test": {"q1": {"a": 1}, "q2": {"b": 1}, "q3": {"c": 1}}},
    query_info={"q1": {"slice": "typed"}, "q2": {"slice": "described"}, "q3": {"slice": "typed"}},
    sentences={"test": ({"d/0": "what d is for"}, {"d/0": {"d": 1}})},
)


def test_each_slice_of_a_split_has_a_row_and_so_have_the_authors_sentences():
    # q1 is right at rank 1, q3 not at all: (1 + 0) / 2 for "typed"; q2 is right at rank 2: 1 / log2(3)
    run = {"q1": {"a": 2.0}, "q2": {"x": 2.0, "b": 1.0}, "q3": {"x": 1.0}, "d/0": {"d": 1.0}}
    record(SLICED, "test", "A", run, "02")
    board = read_scoreboard(SLICED).set_index("split")
    assert board["n_queries"].to_dict() == {"test": 3, "test/described": 1, "test/typed": 2, AUTHORS: 1}
    assert board.loc["test/typed", "ndcg@10"] == 0.5
    assert board.loc["test/described", "ndcg@10"] == pytest.approx(1 / np.log2(3), abs=1e-5)
    assert board.loc[AUTHORS, "ndcg@10"] == 1.0
    table = format_scoreboard(read_scoreboard(SLICED))
    assert table.loc["A", ["nDCG@10", "described", "typed", "authors"]].tolist() == ["0.544", "0.631", "0.500", "1.000"]


def test_evaluate_slices_gives_the_whole_and_its_parts():
    run = {"q1": {"a": 2.0}, "q2": {"x": 2.0, "b": 1.0}, "q3": {"x": 1.0}}
    scores = evaluate_slices(SLICED, "test", run)
    assert scores["n_queries"].to_dict() == {"test": 3, "described": 1, "typed": 2}
    assert scores["mrr@10"].to_dict() == pytest.approx({"test": 0.5, "described": 0.5, "typed": 0.5})
    assert evaluate_slices(SLICED, "test", run | {"d/0": {"d": 1.0}}).loc["authors", "ndcg@10"] == 1.0


def test_a_run_without_the_authors_sentences_has_no_row_of_them():
    record(SLICED, "test", "B", {"q1": {"a": 2.0}, "q2": {"b": 1.0}, "q3": {}}, "02")
    board = read_scoreboard(SLICED)
    assert AUTHORS not in set(board[board["system"] == "B"]["split"])
    assert "authors" not in format_scoreboard(board)


def test_where_little_was_judged_the_score_of_the_judged_stands_beside():
    run = {"q1": {"unseen": 3.0, "a": 2.0}, "q2": {"b": 1.0}, "q3": {"c": 1.0}}
    record(SLICED, "test", "found more", run, "02")
    table = format_scoreboard(read_scoreboard(SLICED))
    # q1: the right one second, 1 / log2(3) = 0.631; of the judged alone it comes first
    assert table.loc["found more", ["nDCG@10", "Judged@10", "of the judged"]].tolist() == ["0.877", "0.833", "1.000"]


class Asked(Retriever):
    """Keeps the searches it was asked for."""

    def __init__(self):
        self.searches = []

    def index(self, corpus):
        return self

    def search(self, text, k):
        self.searches.append((text, k))
        return {}

    def retrieve(self, queries, k=100):
        raise AssertionError("latency is measured one query at a time")


def clock(monkeypatch, milliseconds):
    """Let each timed search take the next of these."""
    times = iter(np.cumsum([t for ms in milliseconds for t in (0.0, ms / 1000)]))
    monkeypatch.setattr(evaluation, "time", SimpleNamespace(perf_counter=lambda: next(times)))


def test_latency_is_the_median_of_single_searches_after_a_warm_up(monkeypatch):
    clock(monkeypatch, [5.0, 1.0, 900.0, 3.0, 2.0])
    retriever = Asked()
    queries = {f"q{i}": f"text {i}" for i in range(8)}
    assert latency(retriever, queries) == pytest.approx(3.0)
    assert retriever.searches == [(text, 10) for text in queries.values()]


def test_latency_times_at_most_n_queries(monkeypatch):
    clock(monkeypatch, [1.0] * 4)
    retriever = Asked()
    latency(retriever, {f"q{i}": "text" for i in range(100)}, n=4)
    assert len(retriever.searches) == 3 + 4


def test_systems_are_timed_in_turn_and_their_rounds_tell_the_spread(monkeypatch):
    # two queries, two rounds: A takes 1 and 3, then 5 and 7 ms; B 10 and 10, then 20 and 20 ms
    clock(monkeypatch, [1.0, 10.0, 3.0, 10.0, 5.0, 20.0, 7.0, 20.0])
    a, b = Asked(), Asked()
    a.name, b.name = "A", "B"
    took = latencies([a, b], {f"q{i}": f"text {i}" for i in range(5)}, n=2, rounds=2)
    assert took.loc["A", ["ms", "ms_low", "ms_high", "timed"]].tolist() == pytest.approx([4.0, 2.0, 6.0, 4])
    assert took.loc["B", ["ms", "ms_low", "ms_high"]].tolist() == pytest.approx([15.0, 10.0, 20.0])
    assert took.loc["A", "ms_p95"] == pytest.approx(6.7)  # 95 % of the way from the first of four to the last


def test_a_slow_system_sits_out_the_rest_of_a_round(monkeypatch):
    clock(monkeypatch, [600.0, 1.0, 600.0, 1.0, 1.0])
    slow, fast = Asked(), Asked()
    slow.name, fast.name = "slow", "fast"
    took = latencies([slow, fast], {f"q{i}": f"text {i}" for i in range(6)}, rounds=1, seconds=1.0)
    assert took["timed"].to_dict() == {"slow": 2, "fast": 3}


@pytest.mark.parametrize("n", [1, 3])
def test_latency_of_few_queries_times_them_all(monkeypatch, n):
    clock(monkeypatch, [2.0] * n)
    assert latency(Asked(), {f"q{i}": "text" for i in range(n)}) == pytest.approx(2.0)

"""The click model and the correction of position bias, by hand and against a simulation whose truth is known."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from helpers.labels import clicks
from helpers.labels.clicks import (
    SHUFFLED,
    attraction,
    click_rates,
    estimate_examination,
    examination,
    inverse_propensity,
    labels_from_clicks,
    simulate,
)
from helpers.labels.search_log import EVENTS, SearchLog
from helpers.store.files import WorkbookError

START = datetime(2026, 10, 5, tzinfo=UTC)
QUERIES = {f"q{i}": f"query {i}" for i in range(20)} | {"none": "nobody can answer this"}
DOCS = [f"d{i:02}" for i in range(12)]
RUN = {q: {doc: 1.0 - i / 100 for i, doc in enumerate(DOCS)} for q in QUERIES}
QRELS = {q: {"d01": 1, "d03": 2, "d07": 2} for q in QUERIES if q != "none"}  # d03 and d07 are equally relevant


def traffic(searches=2000, seed=0, **given):
    given = {"system": "BM25", "start": START} | given
    return simulate(QUERIES, QRELS, RUN, searches=searches, seed=seed, **given)


# Two queries, four searches, worked by hand:
#   a: x y z, clicked x and z      a: x y z, clicked y      a: z y, clicked z twice      b: x, no click
HAND = [
    {"search_id": "1", "query": "a", "system": "s", "doc_ids": ["x", "y", "z"]},
    {"search_id": "2", "query": "a", "system": "s", "doc_ids": ["x", "y", "z"]},
    {"search_id": "3", "query": "a", "system": "s (shuffled)", "doc_ids": ["z", "y"]},
    {"search_id": "4", "query": "b", "system": "s", "doc_ids": ["x"]},
]
CLICKS = [
    {"search_id": search, "kind": "clicked", "doc_id": doc}
    for search, doc in (("1", "x"), ("1", "z"), ("2", "y"), ("3", "z"), ("3", "z"))
]
EVENTS_BY_HAND = [*CLICKS, {"search_id": "4", "kind": "cited", "doc_id": "x"}]


def by_pair(rates: pd.DataFrame) -> dict[tuple[str, str], tuple]:
    return {(r.query, r.doc_id): (r.impressions, r.clicks, r.rate, r.mean_rank) for r in rates.itertuples()}


def test_the_model_by_hand():
    # 1/4 at rank 4, its root 1/2 with eta 0.5, and 1 without bias;
    # with grades 0, 1, 2 of at most 2 the gains are 0, 1/3, 1
    assert examination(4) == 0.25
    assert examination(4, eta=0.5) == 0.5
    assert examination(np.array([1, 2, 5]), eta=0).tolist() == [1, 1, 1]
    np.testing.assert_allclose(attraction(np.array([0, 1, 2]), 2), [0.1, 0.1 + 0.9 / 3, 1.0])
    np.testing.assert_allclose(attraction(np.array([0, 1, 2]), 2, noise=0), [0, 1 / 3, 1])


def test_click_rates_by_hand():
    # a, x: shown twice at rank 1, clicked once;  y: thrice at rank 2, once;  z: ranks 3, 3, 1, clicked in two searches
    assert by_pair(click_rates(HAND, EVENTS_BY_HAND)) == {
        ("a", "x"): (2, 1, 0.5, 1.0),
        ("a", "y"): (3, 1, pytest.approx(1 / 3), 2.0),
        ("a", "z"): (3, 2, pytest.approx(2 / 3), pytest.approx(7 / 3)),
        ("b", "x"): (1, 0, 0.0, 1.0),
    }


def test_inverse_propensity_by_hand():
    # Weights 1, 2 and 4 at ranks 1, 2 and 3:  x: 1/2;  y: 2/3;  z: a click at rank 3 and one at rank 1, (4 + 1)/3
    looked = {1: 1.0, 2: 0.5, 3: 0.25}
    rates = by_pair(inverse_propensity(HAND, EVENTS_BY_HAND, looked))
    assert {pair: rate[2] for pair, rate in rates.items()} == {
        ("a", "x"): 0.5,
        ("a", "y"): pytest.approx(2 / 3),
        ("a", "z"): pytest.approx(5 / 3),
        ("b", "x"): 0.0,
    }
    assert by_pair(inverse_propensity(HAND, EVENTS_BY_HAND, looked, clip=3))[("a", "z")][2] == pytest.approx(4 / 3)
    # Without rank 3, z has one impression left, at rank 1, and one click
    assert by_pair(inverse_propensity(HAND, EVENTS_BY_HAND, {1: 1.0, 2: 0.5}))[("a", "z")] == (1, 1, 1.0, 1.0)
    # Nobody was seen to click at rank 3: the weight is the clip
    assert by_pair(inverse_propensity(HAND, EVENTS_BY_HAND, looked | {3: 0.0}))[("a", "z")][2] == pytest.approx(11 / 3)


def test_without_position_bias_the_correction_changes_nothing():
    rates = click_rates(HAND, EVENTS_BY_HAND)
    pd.testing.assert_frame_equal(inverse_propensity(HAND, EVENTS_BY_HAND, dict.fromkeys(range(1, 4), 1.0)), rates)


def test_examination_by_hand():
    # Three shuffled searches of two results: rank 1 is clicked in two of them, rank 2 in one. 1/3 over 2/3 is 0.5.
    # Searches that were not shuffled, or that show fewer than k results, have no say.
    searches = [{"search_id": str(i), "query": "a", "system": "s (shuffled)", "doc_ids": ["x", "y"]} for i in range(3)]
    events = [("0", "x"), ("1", "x"), ("1", "y"), ("fixed", "y"), ("short", "x")]
    events = [{"search_id": search, "kind": "clicked", "doc_id": doc} for search, doc in events]
    others = [
        {**searches[0], "search_id": "fixed", "system": "s"},
        {**searches[0], "search_id": "short", "doc_ids": ["x"]},
    ]
    assert estimate_examination(searches + others, events, 2) == {1: 1.0, 2: pytest.approx(0.5)}


def test_examination_needs_shuffled_searches_with_clicks():
    with pytest.raises(WorkbookError, match="No shuffled search shows 3 results"):
        estimate_examination(HAND, EVENTS_BY_HAND, 3)
    with pytest.raises(WorkbookError, match="No shuffled search"):
        estimate_examination([], [], 3)
    with pytest.raises(WorkbookError, match="has a click at rank 1"):
        estimate_examination(HAND, [], 2)


@pytest.mark.parametrize(
    ("looked", "clip"), [({}, 10), ({1: 1.0, 2: -0.5}, 10), ({1: 1.0}, 0)], ids=["none", "negative", "clip"]
)
def test_a_correction_that_makes_no_sense_is_refused(looked, clip):
    with pytest.raises(WorkbookError, match="estimate_examination"):
        inverse_propensity(HAND, CLICKS, looked, clip)


def test_labels_by_hand():
    rates = pd.DataFrame(
        [("a", "x", 9, 0.7), ("a", "y", 3, 0.3), ("a", "z", 2, 1.0), ("a", "w", 9, 0.29), ("b", "x", 3, 0.69)],
        columns=["query", "doc_id", "impressions", "rate"],
    )
    assert labels_from_clicks(rates) == {"a": {"x": 2, "y": 1}, "b": {"x": 1}}
    assert labels_from_clicks(rates, least=0.5, strong=0.6, min_impressions=1) == {"a": {"x": 2, "z": 2}, "b": {"x": 2}}
    with pytest.raises(WorkbookError, match="Thresholds rise"):
        labels_from_clicks(rates, least=0.8)


def test_an_empty_log_has_no_rates():
    assert click_rates([], []).empty
    assert labels_from_clicks(click_rates([], [])) == {}


# The simulation


def test_the_same_seed_gives_the_same_rows_and_another_seed_others():
    first = traffic(300, shuffled=0.3)
    assert traffic(300, shuffled=0.3) == first
    other = traffic(300, seed=1, shuffled=0.3)
    assert [s["query"] for s in other[0]] != [s["query"] for s in first[0]]
    assert not {s["search_id"] for s in other[0]} & {s["search_id"] for s in first[0]}


def test_the_rows_go_into_a_log_once(tmp_path):
    searches, events = traffic(200, shuffled=0.5)
    log = SearchLog(tmp_path)
    assert log.add(searches, events) == 200
    assert log.add(*traffic(200, shuffled=0.5)) == 0
    assert set(log.searches()["source"]) == {"simulated"}
    assert len(log.events()) == len(events)
    pd.testing.assert_frame_equal(click_rates(log.searches(), log.events()), click_rates(searches, events))


def test_each_search_shows_the_top_k_and_a_share_of_them_shuffled():
    searches, _ = traffic(2000, k=5, shuffled=0.25)
    kept = [s for s in searches if s["system"] == "BM25"]
    mixed = [s for s in searches if s["system"] == "BM25" + SHUFFLED]
    assert len(kept) + len(mixed) == 2000
    assert 420 < len(mixed) < 580  # 500 expected; four standard deviations of 19
    assert all(s["doc_ids"] == DOCS[:5] for s in kept)
    assert all(sorted(s["doc_ids"]) == DOCS[:5] for s in mixed)
    assert len({tuple(s["doc_ids"]) for s in mixed}) > 50  # of 120 orders
    assert all(s["scores"] == [RUN["q0"][d] for d in s["doc_ids"]] for s in searches)


def test_lists_shorter_than_k_and_empty_ones_are_shown_as_they_are():
    run = {"a": {"x": 1.0, "y": 1.0, "w": 3.0}, "b": {}}
    searches, events = simulate(
        {"a": "A", "b": "B"}, {"a": {"y": 1}}, run, searches=60, seed=0, system="s", start=START
    )
    assert {s["query"]: s["doc_ids"] for s in searches} == {"A": ["w", "x", "y"], "B": []}
    shown = {s["search_id"]: s["doc_ids"] for s in searches}
    assert all(e["doc_id"] in shown[e["search_id"]] for e in events if e["doc_id"])
    shuffled, _ = simulate({"a": "A"}, {}, run, searches=60, seed=0, system="s", start=START, shuffled=1.0)
    assert {tuple(sorted(s["doc_ids"])) for s in shuffled} == {("w", "x", "y")}


def test_popularity_falls_like_one_over_rank():
    searches, _ = traffic(20_000, kinds=())
    counts = [n for _, n in Counter(s["query"] for s in searches).most_common()]
    expected = 1 / np.arange(1, 22) / (1 / np.arange(1, 22)).sum()
    np.testing.assert_allclose(np.array(counts[:5]) / 20_000, expected[:5], rtol=0.1)


def test_sessions_have_one_to_three_searches_within_four_weeks():
    searches, events = traffic(900)
    sizes = Counter(s["session"] for s in searches)
    assert set(sizes.values()) == {1, 2, 3}
    times = [s["time"] for s in searches]
    assert min(times) >= START
    assert max(times) < START + timedelta(days=28)
    assert max(times) - min(times) > timedelta(days=27)
    for a, b in pairwise(searches):
        if a["session"] == b["session"]:
            assert timedelta(seconds=60) <= b["time"] - a["time"] <= timedelta(seconds=180)
    begun = {s["search_id"]: s["time"] for s in searches}
    assert all(timedelta(0) < e["time"] - begun[e["search_id"]] < timedelta(seconds=60) for e in events)


def rate_of(searches, events, kind) -> float:
    having = {e["search_id"] for e in events if e["kind"] == kind}
    return sum(s["search_id"] in having for s in searches) / len(searches)


def test_events_follow_the_grades():
    searches, events = traffic(6000)
    clicked = {e["search_id"] for e in events if e["kind"] == "clicked"}
    unanswerable = [s for s in searches if s["query"] == QUERIES["none"]]
    answerable = [s for s in searches if s["query"] != QUERIES["none"]]
    with_click = [s for s in answerable if s["search_id"] in clicked]
    without = [s for s in answerable if s["search_id"] not in clicked]
    for group, name in ((unanswerable, "no relevant passage"), (without, "no click"), (with_click, "clicked")):
        assert rate_of(group, events, "reformulated") == pytest.approx(clicks.REFORMULATED[name], abs=0.08)
    assert rate_of(answerable, events, "thumbs_up") == pytest.approx(clicks.THUMBS_UP, abs=0.01)  # best gain is 1
    assert rate_of(unanswerable, events, "thumbs_up") == 0
    pairs = {kind: {(e["search_id"], e["doc_id"]) for e in events if e["kind"] == kind} for kind in EVENTS}
    assert pairs["copied"] <= pairs["clicked"]
    cited = Counter(search for search, _ in pairs["cited"])
    assert max(cited.values()) == 2
    assert {doc for _, doc in pairs["cited"]} <= set(DOCS[:5])
    assert Counter(doc for _, doc in pairs["cited"]).most_common(1)[0][0] == "d03"
    # A query without a relevant passage: noise · (1/rank) and nothing else
    noise = click_rates(unanswerable, events).set_index("doc_id")["rate"]
    assert noise["d00"] == pytest.approx(0.1, abs=0.06)


def test_the_kinds_asked_for_do_not_change_what_happens():
    searches, events = traffic(400)
    same, only = traffic(400, kinds=["clicked", "cited"])
    assert same == searches
    assert only == [e for e in events if e["kind"] in ("clicked", "cited")]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"queries": {}}, "no queries"),
        ({"queries": {"other": "x"}}, "no results for query 'other'"),
        ({"searches": 0}, "at least one search"),
        ({"k": 0}, "at least one search"),
        ({"shuffled": 1.5}, "shuffled is a share"),
        ({"noise": -0.1}, "noise is a share"),
        ({"kinds": ["liked"]}, "no event 'liked'"),
        ({"start": datetime(2026, 10, 5)}, "no time zone"),
    ],
)
def test_a_simulation_that_makes_no_sense_is_refused(given, says):
    given = {"queries": QUERIES, "searches": 5, "seed": 0, "system": "s", "start": START} | given
    with pytest.raises(WorkbookError, match=says):
        simulate(given.pop("queries"), QRELS, RUN, **given)


# The correction, where the truth is known


def test_examination_is_recovered_from_shuffled_searches():
    searches, events = traffic(12_000, shuffled=0.5, kinds=["clicked"])
    looked = estimate_examination(searches, events, 10)
    assert list(looked) == list(range(1, 11))
    # About 6,000 searches and a mean attraction of 0.3: standard errors of about 0.02
    np.testing.assert_allclose(list(looked.values()), examination(np.arange(1, 11)), atol=0.05)


def test_raw_rates_mislead_by_position_and_corrected_ones_do_not():
    # d03 stands at rank 4 and d07 at rank 8; both have grade 2 and attraction 1. d00 (rank 1, grade 0) has 0.1.
    # Shown about 3,200 times; the standard error of d07's corrected rate is 0.05, and 0.1 of it more when
    # examination is estimated from 2,400 shuffled searches.
    searches, events = traffic(12_000, shuffled=0.2, kinds=["clicked"])
    query = Counter(s["query"] for s in searches).most_common(1)[0][0]
    raw = click_rates(searches, events).set_index(["query", "doc_id"])["rate"][query]
    assert raw["d03"] > 1.4 * raw["d07"]
    true = dict(enumerate(examination(np.arange(1, 11)), 1))
    for looked, tolerance in ((true, 0.15), (estimate_examination(searches, events, 10), 0.3)):
        corrected = inverse_propensity(searches, events, looked).set_index(["query", "doc_id"])["rate"][query]
        assert corrected["d03"] == pytest.approx(corrected["d07"], abs=tolerance)
        assert corrected["d03"] == pytest.approx(1.0, abs=tolerance)
        assert corrected["d07"] == pytest.approx(1.0, abs=tolerance)
        assert corrected["d00"] == pytest.approx(0.1, abs=0.05)


def test_labels_from_corrected_rates_find_what_raw_ones_miss():
    searches, events = traffic(8000, shuffled=0.1, kinds=["clicked"])
    looked = dict(enumerate(examination(np.arange(1, 11)), 1))
    corrected = labels_from_clicks(inverse_propensity(searches, events, looked), min_impressions=500)
    raw = labels_from_clicks(click_rates(searches, events), min_impressions=500)
    assert corrected
    for query, labels in corrected.items():
        if query != QUERIES["none"]:
            assert {doc for doc, grade in labels.items() if grade == 2} == {"d03", "d07"}
            assert "d07" not in raw.get(query, {})

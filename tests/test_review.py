"""The review queue, topics and verdicts, on logs small enough to work out by hand."""

import json

import ipywidgets
import numpy as np
import pandas as pd
import pytest
from fakes import FakeEmbedder

from helpers.labels.review import SIGNALS, Reviews, by_topic, precision, review_queue, sample_searches, topics
from helpers.labels.search_log import SearchLog
from helpers.store.files import WorkbookError


def logged(folder, searches: list[tuple], events: list[tuple] = ()) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The log's frames of (query, doc ids, scores[, system]) and (number of the search from 0, kind[, doc])."""
    log = SearchLog(folder / "log")
    log.add(
        [
            {
                "search_id": f"s{i:02}",
                "time": f"2026-11-02T09:{i:02}:00",
                "session": "x",
                "query": query,
                "doc_ids": list(docs),
                "scores": list(scores),
                "system": (*system, "dense")[0],
            }
            for i, (query, docs, scores, *system) in enumerate(searches)
        ],
        [
            {"search_id": f"s{i:02}", "time": f"2026-11-02T10:{n:02}:00", "kind": kind, "doc_id": (*doc, None)[0]}
            for n, (i, kind, *doc) in enumerate(events)
        ],
    )
    return log.searches(), log.events()


def by_query(queue: pd.DataFrame) -> dict[str, dict]:
    return queue.set_index("query").to_dict("index")


# a sample


def test_a_sample_is_drawn_from_searches_without_repeats_the_same_twice(tmp_path):
    searches, _ = logged(tmp_path, [(f"query {i % 3}", "a", [1.0]) for i in range(30)])
    sample = sample_searches(searches, 10, seed=1)
    assert len(sample) == sample["search_id"].nunique() == 10
    assert sample["time"].is_monotonic_increasing
    assert list(sample.index) == list(range(10))
    pd.testing.assert_frame_equal(sample, sample_searches(searches, 10, seed=1))
    assert set(sample["search_id"]) != set(sample_searches(searches, 10, seed=2)["search_id"])
    pd.testing.assert_frame_equal(sample_searches(searches, 99), searches)


def test_frequent_queries_are_sampled_as_often_as_they_are_asked(tmp_path):
    searches, _ = logged(tmp_path, [("often" if i % 4 else "rare", "a", [1.0]) for i in range(40)])
    drawn = [q for seed in range(100) for q in sample_searches(searches, 10, seed)["query"]]
    assert drawn.count("often") / 1000 == pytest.approx(0.75, abs=0.04)


# precision


def test_precision_at_five_with_probabilities(tmp_path):
    # 1: (1 + 0.5 + 0.5 + 0 + 0) / 5 = 0.4, its sixth passage does not count.
    # 2: three passages, (1 + 1 + 0.5) / 5 = 0.5.
    # 3: nothing found: 0. 4: a passage that was not judged: left out. Mean of 0.4, 0.5, 0: 0.3.
    relevance = {("one", doc): p for doc, p in zip("abcde", [1, 0.5, 0.5, 0, 0], strict=True)}
    relevance |= {("two", "a"): 1.0, ("two", "b"): 1.0, ("two", "c"): 0.5, ("four", "a"): 1.0}
    searches, _ = logged(
        tmp_path, [(q, docs, []) for q, docs in (("one", "abcdef"), ("two", "abc"), ("three", ""), ("four", "az"))]
    )
    mean, low, high = precision(searches, relevance)
    assert mean == pytest.approx(0.3)
    assert 0 <= low < 0.3 < high <= 0.5
    assert (mean, low, high) == precision(searches, relevance)
    # At 1 the fourth is judged as well: (1 + 1 + 0 + 1) / 4.
    assert precision(searches, relevance, k=1)[0] == pytest.approx(0.75)


def test_precision_of_one_search_has_no_interval(tmp_path):
    searches, _ = logged(tmp_path, [("one", "ab", [])])
    mean, low, high = precision(searches, {("one", "a"): 1.0, ("one", "b"): 0.0}, k=2)
    assert mean == 0.5
    assert np.isnan([low, high]).all()


def test_precision_without_judgments_ends_in_a_sentence(tmp_path):
    searches, _ = logged(tmp_path, [("one", "ab", [])])
    for frame, relevance in ((searches, {}), (searches, {("one", "a"): 1.0}), (searches.iloc[:0], {("one", "a"): 1.0})):
        with pytest.raises(WorkbookError, match="judge the sample first"):
            precision(frame, relevance)


# the queue


def test_review_queue_by_hand(tmp_path):
    # Ten searches; the lowest tenth of the top scores 0.1, 0.5 (4), 0.8 (2), 0.9 (3) ends at 0.1 + 0.9 · 0.4 = 0.46.
    #          searches  low precision        low top  no click  reformulated  cited low  mean             · searches
    # buried   4         1 − (0.5 + 0.5) / 2  0        0         0             3 of 4     1.25 / 5 = 0.25  1.00
    # failing  2         1 − (0 + 0.2) / 2    0        1         1 of 2        0          2.4 / 5 = 0.48   0.96
    # weak     1         not judged           1        0         0             0          1 / 4 = 0.25     0.25
    # good     3         1 − 1                0        0         0             0          0                0.00
    searches = [("weak", "ef", [0.1, 0.1])] + [("good", "ab", [0.9, 0.2])] * 3
    searches += [("failing", "cd", [0.8, 0.7])] * 2 + [("buried", "ghij", [0.5, 0.4, 0.3, 0.2])] * 4
    events = [(i, "clicked", "x") for i in (0, 1, 2, 3, 6, 7, 8, 9)] + [(4, "reformulated"), (4, "reformulated")]
    events += [
        (6, "cited", "j"),
        (6, "cited", "g"),
        (7, "cited", "j"),
        (8, "cited", "j"),
        (9, "cited", "i"),  # i: rank 3
    ]
    relevance = {
        ("good", "a"): 1,
        ("good", "b"): 1,
        ("failing", "c"): 0,
        ("failing", "d"): 0.2,
        ("buried", "g"): 0.5,
        ("buried", "h"): 0.5,
        ("buried", "i"): 1,
    }
    queue = review_queue(*logged(tmp_path, searches, events), relevance, k=2)
    assert queue["query"].tolist() == ["buried", "failing", "weak", "good"]
    assert queue["priority"].tolist() == pytest.approx([1.0, 0.96, 0.25, 0.0])
    assert queue["why"].tolist() == [
        "low precision, cited but ranked low",
        "low precision, no click, reformulated",
        "low top score",
        "",
    ]
    assert queue["searches"].tolist() == [4, 2, 1, 3]
    assert queue["precision"].tolist() == pytest.approx([0.5, 0.1, np.nan, 1.0], nan_ok=True)
    assert queue["doc_ids"].tolist() == [list("ghij"), list("cd"), list("ef"), list("ab")]
    failing = by_query(queue)["failing"]
    assert [failing[s] for s in SIGNALS] == pytest.approx([0.9, 0, 1, 0.5, 0])


def test_equal_priorities_go_by_query(tmp_path):
    queue = review_queue(*logged(tmp_path, [(q, "a", [1.0]) for q in "cab"]))
    assert queue["query"].tolist() == ["a", "b", "c"]


def test_without_a_judge_the_other_signals_decide(tmp_path):
    searches, events = logged(tmp_path, [("a", "x", [1.0]), ("b", "x", [1.0])], [(0, "clicked", "x")])
    for relevance in (None, {}):
        queue = review_queue(searches, events, relevance)
        assert queue["query"].tolist() == ["b", "a"]
        assert queue["precision"].isna().all()
        assert queue["priority"].tolist() == [0.25, 0.0]  # of four known signals


def test_the_lowest_scores_are_those_of_the_same_system(tmp_path):
    # 0.2 is the lowest of the dense searches; BM25 scores live on another scale, and 9 is the lowest of theirs.
    searches = [(f"d{i}", "a", [0.2 + i / 10]) for i in range(10)] + [
        (f"b{i}", "a", [9.0 + i], "bm25") for i in range(10)
    ]
    low = review_queue(*logged(tmp_path, searches)).set_index("query")["low top score"]
    assert sorted(low[low == 1].index) == ["b0", "d0"]


@pytest.mark.parametrize("scores", [[0.7], [0.7, 0.7, 0.7]])
def test_scores_that_do_not_differ_are_not_low(tmp_path, scores):
    queue = review_queue(*logged(tmp_path, [(f"q{i}", "a", [s]) for i, s in enumerate(scores)]))
    assert queue["low top score"].tolist() == [0.0] * len(scores)


def test_scores_that_were_not_logged_are_unknown_and_nothing_found_is_low(tmp_path):
    # An imported log has passages without scores. The mean of the three known signals: no click 1 of 3.
    searches = [("imported", "ab", []), ("found nothing", "", []), ("clicked", "a", [1.0])]
    queue = by_query(review_queue(*logged(tmp_path, searches, [(2, "clicked", "a")])))
    assert np.isnan(queue["imported"]["low top score"])
    assert queue["imported"]["priority"] == pytest.approx(1 / 3)
    assert queue["imported"]["why"] == "no click"
    assert queue["found nothing"]["low top score"] == 1.0


def test_partly_judged_results_count_with_what_is_known(tmp_path):
    queue = review_queue(*logged(tmp_path, [("q", "abc", [])]), {("q", "a"): 1.0, ("q", "c"): 0.0, ("other", "b"): 0.0})
    assert queue["precision"].tolist() == [0.5]


def test_a_cited_passage_that_was_not_shown_is_not_ranked_low(tmp_path):
    queue = review_queue(*logged(tmp_path, [("q", "abcde", [])], [(0, "cited", "zzz"), (0, "cited", "c")]))
    assert queue["cited but ranked low"].tolist() == [0.0]


def test_events_of_other_searches_do_not_count(tmp_path):
    searches, events = logged(tmp_path, [("q", "a", []), ("r", "a", [])], [(0, "clicked", "a"), (1, "reformulated")])
    queue = review_queue(searches[searches["query"] == "q"], events)
    assert queue[["no click", "reformulated"]].to_numpy().tolist() == [[0.0, 0.0]]


def test_empty_logs(tmp_path):
    searches, events = logged(tmp_path, [])
    for call in (
        lambda: review_queue(searches, events),
        lambda: sample_searches(searches, 5),
        lambda: review_queue(pd.DataFrame(), pd.DataFrame()),
    ):
        with pytest.raises(WorkbookError, match="log has no searches"):
            call()
    searches, _ = logged(tmp_path, [("q", "a", [1.0])])
    for nothing in (events, pd.DataFrame()):
        queue = review_queue(searches, nothing)
        assert queue[["reformulated", "cited but ranked low"]].to_numpy().tolist() == [[0.0, 0.0]]
        assert queue["no click"].isna().all()  # a log without any click never recorded them


# topics

TABLES = [f"sort table rows {word}" for word in ("quickly", "twice", "backwards", "safely")]
LETTERS = [f"parse date strings {word}" for word in ("quickly", "twice", "loosely", "safely")]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_two_different_groups_are_told_apart_and_named_by_their_words(seed):
    queries = [q for pair in zip(TABLES, LETTERS, strict=True) for q in pair]
    found = topics(queries, FakeEmbedder().embed(queries, "query"), n=2, seed=seed)
    assert found == ["rows, sort, table", "date, parse, strings"] * 4  # "quickly" is as frequent in either


def test_a_word_that_all_topics_share_names_them_last():
    # Six words a topic. pick: twice in either, 2 · ln(1 + 6/4) = 1.83; duck: 3 · ln(1 + 6/3) = 3.30;
    # egg, once and only here: ln(1 + 6/1) = 1.95, before the more frequent pick.
    queries = ["pick duck duck", "pick duck", "egg", "pick goat goat", "pick goat", "bee"]
    vectors = np.repeat(np.eye(2), 3, axis=0)
    assert topics(queries, vectors, n=2) == ["duck, egg, pick"] * 3 + ["goat, bee, pick"] * 3


def test_fewer_queries_than_clusters():
    assert topics(["sort table", "parse dates"], np.eye(2), n=5) == ["sort, table", "dates, parse"]
    assert topics(["sort table", "parse dates"], np.eye(2)) == ["sort, table", "dates, parse"]


@pytest.mark.filterwarnings("error")
def test_equal_vectors_make_one_topic():  # without k-means' warning
    assert topics(["sort table"] * 3, np.ones((3, 2)), n=3) == ["sort, table"] * 3


def test_only_stop_words_make_numbered_topics():
    found = topics(["what is the", "what is this", "and or", "and the"], np.repeat(np.eye(2), 2, axis=0), n=2)
    assert sorted(set(found)) == ["topic 1", "topic 2"]
    assert found[0] == found[1] != found[2] == found[3]


def test_a_topic_without_words_of_its_own_gets_a_number():
    found = topics(["what is the", "sort table"], np.eye(2), n=2)
    assert found[0] in ("topic 1", "topic 2")
    assert found[1] == "sort, table"


def test_topics_of_the_same_words_are_told_apart_by_a_number():
    assert sorted(topics(["sort table"] * 2, np.eye(2), n=2)) == ["sort, table (1)", "sort, table (2)"]


def test_one_query_and_none():
    assert topics(["sort table"], np.ones((1, 2))) == ["all"]
    assert topics([], np.ones((0, 2))) == []


def test_other_scripts_name_topics():
    assert topics(["größe ändern", "データ 並べ替え"], np.eye(2), n=2)[0] == "größe, ändern"


def test_the_number_of_topics_follows_the_number_of_queries():
    # One for 25 queries, at least 2, at most 12: 100 queries make 4, 400 make 12.
    for n, expected in ((10, 2), (100, 4), (400, 12)):
        queries = [f"word{'abcdefghijklmnopqrst'[i % 20]}" for i in range(n)]
        vectors = np.eye(20)[np.arange(n) % 20] + np.random.default_rng(0).normal(0, 0.01, (n, 20))
        assert len(set(topics(queries, vectors))) == expected


def test_topics_are_the_same_twice():
    vectors = np.random.default_rng(0).normal(size=(60, 4))
    queries = [f"query about {'abc' * (i % 7 + 1)}" for i in range(60)]
    assert topics(queries, vectors, seed=3) == topics(queries, vectors, seed=3)


def test_vectors_of_other_queries_are_refused():
    with pytest.raises(WorkbookError, match="3 queries and 2 vectors"):
        topics(["a", "b", "c"], np.eye(2))


def test_topics_weigh_queries_by_their_searches(tmp_path):
    # rare (1 search): no click 1, precision not judged. often (3 searches): no click in 1 of 3, precision 0.2 each.
    # Together: no click (1 · 1 + 3 · 1/3) / 4 = 0.5; precision 0.2, from the judged alone; low precision 0.8;
    # reformulated (0 + 3 · 2/3) / 4 = 0.5. failing: (0.8 + 0 + 0.5 + 0.5 + 0) / 5 = 0.36. fine: all 0, no precision.
    searches, events = logged(
        tmp_path,
        [("rare", "a", [1.0])] + [("often", "b", [1.0])] * 3 + [("fine", "c", [1.0])],
        [(1, "clicked", "b"), (2, "clicked", "b"), (2, "reformulated"), (3, "reformulated"), (4, "clicked", "c")],
    )
    queue = review_queue(searches, events, {("often", "b"): 0.2})
    table = by_topic(queue, {"rare": "birds", "often": "birds", "fine": "fish"})
    assert table.index.tolist() == ["birds", "fish"]
    assert table.index.name == "topic"
    assert table[["queries", "searches"]].to_numpy().tolist() == [[2, 4], [1, 1]]
    birds = table.loc["birds"]
    assert [birds[c] for c in ("precision", *SIGNALS)] == pytest.approx([0.2, 0.8, 0, 0.5, 0.5, 0])
    assert table["failing"].tolist() == pytest.approx([0.36, 0.0])
    assert np.isnan(table.loc["fish", "precision"])


def test_no_query_is_lost_on_the_way_to_topics(tmp_path):
    queue = review_queue(*logged(tmp_path, [("a", "x", [1.0]), ("b", "x", [1.0]), ("c", "x", [1.0])]))
    assert by_topic(queue, {"a": "birds"})["queries"].to_dict() == {"birds": 1, "(no topic)": 2}
    assert by_topic(queue, {})["queries"].to_dict() == {"(no topic)": 3}
    empty = by_topic(queue.iloc[:0], {})
    assert empty.empty
    assert list(empty.columns) == list(by_topic(queue, {}).columns)


# verdicts


def test_the_last_verdict_on_a_pair_counts(tmp_path):
    reviews = Reviews(tmp_path / "reviews.jsonl")
    reviews.accept("q", "a")
    reviews.reject("q", "b", "off topic")
    reviews.accept("r", "a", grade=1)
    reviews.reject("q", "a", "on second thought")
    assert reviews.read().to_dict("records") == [
        {"query": "q", "doc": "b", "grade": 0, "comment": "off topic"},
        {"query": "r", "doc": "a", "grade": 1, "comment": ""},
        {"query": "q", "doc": "a", "grade": 0, "comment": "on second thought"},
    ]
    assert len((tmp_path / "reviews.jsonl").read_text().splitlines()) == 4  # the earlier one is still there to read


def test_verdicts_are_labels(tmp_path):
    reviews = Reviews(tmp_path / "reviews.jsonl")
    assert reviews.as_qrels() == {}
    assert list(reviews.read().columns) == ["query", "doc", "grade", "comment"]
    reviews.accept("q", "a")
    reviews.reject("q", "b")
    reviews.accept("r", "a", grade=1)
    assert reviews.as_qrels() == {"q": {"a": 2, "b": 0}, "r": {"a": 1}}
    assert json.loads(json.dumps(reviews.as_qrels())) == reviews.as_qrels()


def test_work_goes_on_from_disk(tmp_path):
    file = tmp_path / "a" / "folder" / "reviews.jsonl"
    Reviews(file).accept("q", "a")
    Reviews(str(file)).reject("q", "b")
    assert Reviews(file).as_qrels() == {"q": {"a": 2, "b": 0}}


@pytest.mark.parametrize(
    "text", ["Größe ändern 🦆", "データ", 'a "quote" and \\', "two\nlines\r\n", "a\u2028b", "<b>&amp;"]
)
def test_any_text_comes_back_as_it_was(tmp_path, text):
    reviews = Reviews(tmp_path / "reviews.jsonl")
    reviews.accept(text, text, text)
    reviews.reject("next", "doc")
    assert Reviews(reviews.file).read().iloc[0].to_dict() == {"query": text, "doc": text, "grade": 2, "comment": text}
    assert reviews.as_qrels()[text] == {text: 2}


def test_a_file_edited_by_hand_goes_on(tmp_path):
    file = tmp_path / "reviews.jsonl"
    file.write_text(
        '{"query": "q", "doc": "a", "grade": 2, "comment": null}\r\n\r\n{"query": "q", "doc": "b", "grade": 0}'
    )
    reviews = Reviews(file)  # the last line has no end
    reviews.accept("q", "c")
    assert reviews.as_qrels() == {"q": {"a": 2, "b": 0, "c": 2}}
    assert reviews.read()["comment"].tolist() == ["", "", ""]


@pytest.mark.parametrize(
    "line",
    [
        '{"query": "q", "doc": "a"}',
        '{"query": "q", "doc": "a", "grade": 7}',
        '{"query": "", "doc": "a", "grade": 1}',
        '{"grade": 0}',
        "{",
    ],
)
def test_a_line_that_is_no_verdict_is_named(tmp_path, line):
    file = tmp_path / "reviews.jsonl"
    file.write_text(f'{{"query": "q", "doc": "b", "grade": 0}}\n{line}\n')
    with pytest.raises(WorkbookError, match=r"reviews\.jsonl, line 2: .*mend or remove"):
        Reviews(file).read()


def test_an_acceptance_of_grade_zero_is_refused(tmp_path):
    reviews = Reviews(tmp_path / "reviews.jsonl")
    for grade in (0, 3, "2", None):
        with pytest.raises(WorkbookError, match="grade 1 or 2"):
            reviews.accept("q", "a", grade=grade)
    reviews.accept("q", "a", grade=np.int64(1))
    assert reviews.as_qrels() == {"q": {"a": 1}}


def test_a_place_that_cannot_be_written_ends_in_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkbookError, match="Cannot create"):
        Reviews(tmp_path / "file" / "reviews.jsonl").accept("q", "a")


# the widget

QUEUE = pd.DataFrame({"query": ["tall <ducks>", "goats $1 or $2"], "doc_ids": [["a", "b", "c"], ["gone"]]})
CORPUS = {
    "a": "About <i>ducks</i> & $x$.\nSecond line. " + "More words. " * 50,
    "b": "About geese.",
    "c": "Never shown.",
}


def lines(widget) -> list[dict]:
    """One dict a passage of the widget: its buttons and fields by name."""
    assert isinstance(widget, ipywidgets.VBox)
    names = ("accept", "reject", "comment", "passage", "done")
    return [dict(zip(names, line.children, strict=True)) for query in widget.children for line in query.children[1:]]


def test_the_widgets_buttons_write(tmp_path):
    reviews = Reviews(tmp_path / "reviews.jsonl")
    shown = lines(reviews.widget(QUEUE, CORPUS, k=2))
    assert [line["accept"].description for line in shown] == ["accept"] * 3  # two passages, then one
    assert not reviews.file.exists()
    shown[0]["accept"].click()
    shown[1]["comment"].value = "wrong bird 🦆"
    shown[1]["reject"].click()
    shown[2]["accept"].click()
    shown[2]["reject"].click()
    assert reviews.as_qrels() == {"tall <ducks>": {"a": 2, "b": 0}, "goats $1 or $2": {"gone": 0}}
    assert reviews.read()["comment"].tolist() == ["", "wrong bird 🦆", ""]
    assert [line["done"].value for line in shown] == ["accepted", "rejected", "rejected"]


def test_the_widget_shows_verdicts_from_an_earlier_sitting(tmp_path):
    reviews = Reviews(tmp_path / "reviews.jsonl")
    reviews.accept("tall <ducks>", "a", "just right", grade=1)
    reviews.reject("goats $1 or $2", "gone")
    shown = lines(Reviews(reviews.file).widget(QUEUE, CORPUS, k=2))
    assert [line["done"].value for line in shown] == ["accepted", "", "rejected"]
    assert [line["comment"].value for line in shown] == ["just right", "", ""]


def test_the_widget_shows_texts_as_they_are(tmp_path):
    widget = Reviews(tmp_path / "reviews.jsonl").widget(QUEUE, CORPUS)
    titles = [query.children[0] for query in widget.children]
    shown = [line["passage"] for line in lines(widget)]
    # HTML, not a label: a label sets what stands between two $ as a formula. Markup is shown, not obeyed.
    assert all(type(w) is ipywidgets.HTML for w in (*titles, *shown))
    assert [t.value for t in titles] == ["<b>tall &lt;ducks&gt;</b>", "<b>goats $1 or $2</b>"]
    assert shown[0].value.startswith("About &lt;i&gt;ducks&lt;/i&gt; &amp; $x$. Second line. More words.")
    assert len(shown[0].value) < 150 < len(shown[0].tooltip)
    assert shown[3].value == "(no longer in the collection)"


def test_the_widget_says_what_went_wrong(tmp_path):
    (tmp_path / "file").write_text("")
    line = lines(Reviews(tmp_path / "file" / "reviews.jsonl").widget(QUEUE, CORPUS))[0]
    line["accept"].click()
    assert line["done"].value.startswith("Cannot create")


def test_the_widget_of_an_empty_queue_is_empty(tmp_path):
    assert Reviews(tmp_path / "reviews.jsonl").widget(QUEUE.iloc[:0], CORPUS).children == ()

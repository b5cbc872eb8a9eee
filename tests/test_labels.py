"""The LLM ranker and what its grades are worth, against numbers worked out by hand and a second implementation."""

import json

import numpy as np
import pandas as pd
import pytest

from helpers.labels.judging import (
    TRUSTED,
    USABLE,
    Judgment,
    as_qrels,
    calibrate,
    choose_thresholds,
    grade_by_thresholds,
    grades_from_scores,
    judge,
    pairs,
    probabilities,
    query_likelihood,
)
from helpers.models.llm import LLM, InProcess, Reply
from helpers.store.files import WorkbookError

QUERIES = {"query-4711": "keep the lawn short", "query-0815": "paint a fence"}
CORPUS = {
    "doc-alpha-7": "A mower cuts grass.",
    "doc-beta-7": "A brush spreads colour on wood.",
    "doc-gamma-7": "Bread is baked in an oven.",
}
RUN = {
    "query-4711": {"doc-gamma-7": 0.98765, "doc-alpha-7": 12.34567},
    "query-0815": {"doc-beta-7": 3.14159, "doc-gamma-7": 0.27182},
}


class FakeJudge:
    """Answers what ``reply`` gives for a conversation; ``asked`` holds every conversation."""

    name, key, batch = "fake-judge", "fake", 2

    def __init__(self, reply, small: bool = False):
        self.reply, self.small = reply, small
        self.asked: list[list[dict]] = []

    def answer(self, conversations, schema, keep):
        assert schema is Judgment
        self.asked += [list(c) for c in conversations]
        for i, conversation in enumerate(conversations):
            keep(i, self.reply(conversation[-1]["content"]))


def graded(grade: int, reason: str = "because") -> Reply:
    return Reply(json.dumps({"reason": reason, "grade": grade}))


def mower_is_right(prompt: str) -> Reply:
    return graded(2, "it cuts") if "mower" in prompt and "lawn" in prompt else graded(0, "it does not")


def pairs_of(grades: dict[str, list[tuple]], column: str = "grade") -> tuple[pd.DataFrame, dict]:
    """A judge's frame and the qrels from {query: [(truth, what the judge says), …]}; truth None is not judged."""
    rows = [(q, f"d{i}", said) for q, both in grades.items() for i, (_, said) in enumerate(both)]
    qrels = {q: {f"d{i}": t for i, (t, _) in enumerate(both) if t is not None} for q, both in grades.items()}
    return pd.DataFrame(rows, columns=["query", "doc", column]), qrels


# pairs and judge


def test_pairs_are_the_first_k_of_each_query_and_ties_go_by_id():
    run = {"q2": {"c": 1.0, "a": 1.0, "b": 2.0}, "q1": {"z": 0.1}, "q0": {}}
    assert pairs(run, 2) == [("q2", "b"), ("q2", "a"), ("q1", "z")]


def test_judge_gives_grade_and_reason_of_the_first_k(tmp_path):
    table = judge(LLM(FakeJudge(mower_is_right), tmp_path), QUERIES, RUN, CORPUS, k=1)
    assert table.to_dict("records") == [
        {"query": "query-4711", "doc": "doc-alpha-7", "grade": 2, "reason": "it cuts"},
        {"query": "query-0815", "doc": "doc-beta-7", "grade": 0, "reason": "it does not"},
    ]


@pytest.mark.parametrize("small", [False, True])
def test_the_judge_sees_query_and_passage_and_nothing_else(tmp_path, small):
    backend = FakeJudge(mower_is_right, small)
    judge(LLM(backend, tmp_path), QUERIES, RUN, CORPUS)
    assert len(backend.asked) == 4
    shown = [
        (q, d)
        for c in backend.asked
        for q in QUERIES
        for d in CORPUS
        if QUERIES[q] in c[-1]["content"] and CORPUS[d] in c[-1]["content"]
    ]
    assert sorted(shown) == sorted(pairs(RUN, 5))  # each prompt has one query and one passage
    for number in ("98765", "12.34", "3.14159", "27182"):
        assert number not in str(backend.asked)
    for name in (*QUERIES, *CORPUS, "rank 1", "Rank"):
        assert name not in str(backend.asked)


def test_the_judge_is_not_asked_again_when_only_system_rank_and_score_change(tmp_path):
    backend = FakeJudge(mower_is_right)
    judge(LLM(backend, tmp_path), QUERIES, RUN, CORPUS)
    other = {q: {d: -100 * score for d, score in docs.items()} for q, docs in reversed(RUN.items())}
    again = judge(LLM(backend, tmp_path), QUERIES, other, CORPUS)
    assert len(backend.asked) == len(again) == 4


def test_a_small_judge_gets_the_short_prompt_and_a_short_passage(tmp_path):
    small, large = (FakeJudge(mower_is_right, s) for s in (True, False))
    corpus = {"d": "word\n " * 1000 + "end"}
    for number, backend in enumerate((small, large)):
        judge(LLM(backend, tmp_path / str(number)), {"q": "lawn"}, {"q": {"d": 1.0}}, corpus)
    assert "end" in large.asked[0][-1]["content"]
    assert "end" not in small.asked[0][-1]["content"]
    assert small.asked[0][-1]["content"].count("word") == 100  # 500 characters of "word "
    assert [m["role"] for m in large.asked[0]] == ["system", "user"]
    assert "assistant" in [m["role"] for m in small.asked[0]]  # it is shown examples


def test_pairs_without_a_usable_answer_are_missing_and_counted(tmp_path):
    replies = {
        "mower": graded(1),
        "brush": Reply("I cannot judge that.", "refused"),
        "oven": Reply("", "empty"),
        "ladder": graded(7),  # no such grade
        "hammer": Reply("It is relevant!"),
    }
    corpus = {word: f"The {word}." for word in replies}
    llm = LLM(FakeJudge(lambda prompt: next(r for word, r in replies.items() if f"The {word}." in prompt)), tmp_path)
    table = judge(llm, {"q": "garden"}, {"q": dict.fromkeys(corpus, 1.0)}, corpus)
    assert table[["query", "doc", "grade"]].to_numpy().tolist() == [["q", "mower", 1]]
    assert dict(llm.counts) == {"answered": 1, "refused": 1, "empty": 1, "malformed": 2}


def test_pairs_over_the_budget_are_missing_and_come_with_a_higher_one(tmp_path):
    backend = FakeJudge(mower_is_right)
    first = LLM(backend, tmp_path, max_calls=3)
    assert len(judge(first, QUERIES, RUN, CORPUS)) == 3
    assert first.counts["over budget"] == 1
    assert len(judge(LLM(backend, tmp_path), QUERIES, RUN, CORPUS)) == len(backend.asked) == 4


def test_nothing_to_judge_gives_an_empty_table_with_its_columns(tmp_path):
    table = judge(LLM(FakeJudge(mower_is_right), tmp_path), QUERIES, {"query-4711": {}}, CORPUS)
    assert table.empty
    assert list(table.columns) == ["query", "doc", "grade", "reason"]
    assert as_qrels(table) == {}


@pytest.mark.parametrize("ask", [judge, query_likelihood])
@pytest.mark.parametrize(
    ("run", "named"),
    [({"query-12": {"doc-alpha-7": 1.0}}, "query 'query-12'"), ({"query-4711": {"doc-9": 1.0}}, "passage 'doc-9'")],
)
def test_a_run_of_another_collection_is_refused_before_anything_is_asked(tmp_path, ask, run, named):
    backend = FakeJudge(mower_is_right)
    with pytest.raises(WorkbookError, match=named):
        ask(LLM(backend, tmp_path), QUERIES, RUN | run, CORPUS)
    assert not backend.asked


# query likelihood


class CountingModel:
    """A text's likelihood is −10, plus 2 for each of its words that stands in the passage,
    plus 3 for "please" anywhere.
    """

    name = "counting"

    def __init__(self):
        self.asked: list[str] = []

    def log_likelihoods(self, conversations, texts):
        prompts = [c[-1]["content"].lower() for c in conversations]
        self.asked += prompts
        return [
            -10 + sum(2.0 * (w in p) + 3.0 * (w == "please") for w in t.split())
            for p, t in zip(prompts, texts, strict=True)
        ]


def test_query_likelihood_is_what_the_passage_adds(tmp_path):
    # zebra: −10 alone, −8 given its passage: 2 more. please zebra: −7 alone, −5 given its passage: 2 more as well, for
    # "please" is as likely without a passage.
    corpus = {"d1": "Zebra stripes.", "d2": "Quokka smiles."}
    queries = {"q1": "zebra", "q2": "please zebra", "q3": "zebra quokka"}
    model = CountingModel()
    llm = LLM(InProcess(model), tmp_path)
    table = query_likelihood(llm, queries, {q: {"d1": 2.0, "d2": 1.0} for q in queries}, corpus)
    assert list(table.columns) == ["query", "doc", "score"]
    assert table.to_numpy().tolist() == [
        ["q1", "d1", 2.0],
        ["q1", "d2", 0.0],
        ["q2", "d1", 2.0],
        ["q2", "d2", 0.0],
        ["q3", "d1", 2.0],
        ["q3", "d2", 2.0],
    ]
    assert len(model.asked) == 6 + 3  # a query alone is asked once, whatever its number of passages
    assert not any(name in prompt for prompt in model.asked for name in ("d1", "d2", "q1"))


def test_query_likelihood_needs_a_model_in_process(tmp_path):
    with pytest.raises(WorkbookError, match="small_llm"):
        query_likelihood(LLM(FakeJudge(mower_is_right), tmp_path), QUERIES, RUN, CORPUS)


def test_query_likelihood_of_nothing_is_an_empty_table(tmp_path):
    assert query_likelihood(LLM(InProcess(CountingModel()), tmp_path), QUERIES, {}, CORPUS).empty


# thresholds


def test_a_grade_begins_at_its_threshold():
    assert grade_by_thresholds([-1, 0.5, 0.7, 2, 9], (0.5, 2)).tolist() == [0, 1, 1, 2, 2]
    assert grade_by_thresholds([0, 1, 2], (1, 1)).tolist() == [0, 2, 2]  # nothing is left for grade 1


def test_thresholds_that_part_the_grades_are_found():
    scores, grades = [-3.0] * 10 + [0.5] * 10 + [4.0] * 10, [0] * 10 + [1] * 10 + [2] * 10
    assert choose_thresholds(scores, grades) == (0.5, 4.0)
    rng = np.random.default_rng(0)  # with noise: nearly all, for a twentieth of the scores is as fine as thresholds go
    noisy = np.repeat([0.0, 5.0, 10.0], 100) + rng.normal(size=300)
    found = grade_by_thresholds(noisy, choose_thresholds(noisy, np.repeat([0, 1, 2], 100)))
    assert np.mean(found == np.repeat([0, 1, 2], 100)) > 0.9


def test_grades_above_two_and_below_zero_count_as_two_and_zero():
    scores = [*range(10), *range(100, 110), *range(200, 210)]
    plain = choose_thresholds(scores, [0] * 10 + [1] * 10 + [2] * 10)
    assert choose_thresholds(scores, [-1, 0] * 5 + [1] * 10 + [3, 2] * 5) == plain
    # Three of four agree once 3 counts as 2 and −1 as 0: the true rows are 0: (1, 0, 1), 2: (0, 0, 2).
    judged, qrels = pairs_of({"q": [(0, 0), (-1, 2), (3, 2), (2, 2)]})
    assert calibrate(judged, qrels).confusion.to_numpy().tolist() == [[1, 0, 1], [0, 0, 0], [0, 0, 2]]


@pytest.mark.parametrize("grades", [[], [0, 0, 0], [2, 2, 2], [0, -1, 0]])
def test_thresholds_without_different_grades_end_in_a_sentence(grades):
    with pytest.raises(WorkbookError, match="different grades"):
        choose_thresholds([1.0, 2.0, 3.0][: len(grades)], grades)


def scored_queries(n: int = 20, seed: int = 0) -> tuple[pd.DataFrame, dict]:
    """n queries with six pairs each, whose grades follow the scores with some noise."""
    rng = np.random.default_rng(seed)
    rows = [(f"q{i:02}", f"d{j}", float(rng.normal(j % 3, 0.7))) for i in range(n) for j in range(6)]
    qrels = {f"q{i:02}": {f"d{j}": j % 3 for j in range(6)} for i in range(n)}
    return pd.DataFrame(rows, columns=["query", "doc", "score"]), qrels


def grades_by_query(table: pd.DataFrame) -> dict[str, list[int]]:
    return {q: rows["grade"].tolist() for q, rows in table.groupby("query")}


def test_thresholds_are_chosen_on_other_queries_only():
    # Turning a query's own judgments upside down must not touch its grades, and does touch those of others.
    scored, qrels = scored_queries(12)
    plain, touched = grades_by_query(grades_from_scores(scored, qrels)), set()
    for q in qrels:
        upside_down = qrels | {q: {d: 2 - grade for d, grade in qrels[q].items()}}
        found = grades_by_query(grades_from_scores(scored, upside_down))
        assert found[q] == plain[q]
        touched |= {other for other in qrels if found[other] != plain[other]}
    assert touched


def test_a_query_with_scores_of_its_own_scale_gets_the_others_thresholds():
    # Nineteen queries score 0, 10, 20; one scores 1,000, 1,001, 1,002.
    # Thresholds of others grade that one 2 throughout.
    rows = [(f"q{i:02}", f"d{j}", j * 10.0) for i in range(19) for j in range(3)]
    rows += [("odd", f"d{j}", 1000.0 + j) for j in range(3)]
    qrels = {q: {"d0": 0, "d1": 1, "d2": 2} for q, _, _ in rows}
    table = grades_by_query(grades_from_scores(pd.DataFrame(rows, columns=["query", "doc", "score"]), qrels))
    assert table.pop("odd") == [2, 2, 2]
    assert set(map(tuple, table.values())) == {(0, 1, 2)}


def test_queries_without_judgments_get_thresholds_from_all_that_have_some():
    scored, qrels = scored_queries()
    new = pd.DataFrame([("new", f"d{i}", v) for i, v in enumerate(np.linspace(-2, 4, 40))], columns=scored.columns)
    table = grades_from_scores(pd.concat([new, scored], ignore_index=True), qrels)
    truth = [qrels[q][d] for q, d in zip(scored["query"], scored["doc"], strict=True)]
    expected = grade_by_thresholds(new["score"], choose_thresholds(scored["score"], truth))
    assert grades_by_query(table)["new"] == expected.tolist()
    assert table["score"].tolist() == [*new["score"], *scored["score"]]  # nothing is lost or reordered


def test_queries_without_judgments_move_no_threshold():
    scored, qrels = scored_queries(12)
    new = pd.DataFrame([("new", f"d{i}", 50.0) for i in range(200)], columns=scored.columns)
    table = grades_from_scores(pd.concat([scored, new], ignore_index=True), qrels)
    assert table["grade"].tolist()[: len(scored)] == grades_from_scores(scored, qrels)["grade"].tolist()


def test_folds_are_the_same_twice_and_follow_the_seed():
    scored, qrels = scored_queries()
    first, again, other = (grades_from_scores(scored, qrels, seed) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(first, again)
    assert not first["grade"].equals(other["grade"])


def test_any_index_of_the_frame_will_do():
    scored, qrels = scored_queries()
    mixed = scored.set_index(np.arange(len(scored)) % 7)  # as left by concatenation
    assert grades_from_scores(mixed, qrels)["grade"].tolist() == grades_from_scores(scored, qrels)["grade"].tolist()


@pytest.mark.parametrize("n", [0, 9])
def test_too_few_judged_queries_end_in_a_sentence(n):
    scored, qrels = scored_queries(20)
    with pytest.raises(WorkbookError, match=f"at least 10 judged queries, here are {n}"):
        grades_from_scores(scored, dict(list(qrels.items())[:n]))
    with pytest.raises(WorkbookError, match="here are 0"):
        grades_from_scores(scored.iloc[:0], qrels)


# probabilities


def test_a_useless_judge_gets_the_base_rate():
    # Three of eight pairs are relevant; a judge that always says the same knows no more than that: 0.375.
    judged, qrels = pairs_of({"q": [(2, 7.0), (1, 7.0), (1, 7.0)] + [(0, 7.0)] * 5}, "score")
    new = pd.DataFrame([("n", "x", 7.0), ("n", "y", 7.0)], columns=["query", "doc", "score"])
    assert probabilities(new, judged, qrels) == pytest.approx({("n", "x"): 0.375, ("n", "y"): 0.375}, abs=1e-3)


def test_the_mean_over_the_judged_pairs_is_their_base_rate_and_higher_scores_are_likelier():
    # Logistic regression with a free intercept reproduces the mean of what it was fitted to.
    scored, qrels = scored_queries()
    found = probabilities(scored, scored, qrels)
    assert np.mean(list(found.values())) == pytest.approx(2 / 3, abs=1e-3)  # grades 0, 1, 2 in turn
    ordered = [found[q, d] for q, d, _ in scored.sort_values("score").itertuples(index=False)]
    assert ordered == sorted(ordered)
    assert ordered[0] < 0.5 < 0.9 < ordered[-1] < 1


def test_the_scale_of_the_scores_does_not_matter():
    scored, qrels = scored_queries()
    plain = probabilities(scored, scored, qrels)
    small = scored.assign(score=scored["score"] / 10_000 - 3)
    assert probabilities(small, small, qrels) == pytest.approx(plain, abs=1e-5)


def test_only_pairs_that_are_judged_teach():
    scored, qrels = scored_queries()
    noise = pd.DataFrame([("q00", f"new{i}", 99.0) for i in range(50)] + [("q99", "d0", 99.0)], columns=scored.columns)
    more = pd.concat([scored, noise], ignore_index=True)
    assert probabilities(scored, more, qrels) == probabilities(scored, scored, qrels)


@pytest.mark.parametrize("grades", [[], [1, 2], [0, 0]])
def test_probabilities_need_judged_pairs_of_both_kinds(grades):
    judged, qrels = pairs_of({"q": [(grade, 1.0) for grade in grades]}, "score")
    with pytest.raises(WorkbookError, match="all relevant or all not"):
        probabilities(judged, judged, qrels)


def test_probabilities_of_nothing_are_none():
    scored, qrels = scored_queries()
    assert probabilities(scored.iloc[:0], scored, qrels) == {}


# calibration


def test_calibration_by_hand():
    # True grade by judge's grade, seven pairs:   0  1  2
    #                                         0   2  1  1   Disagreement (distance squared): 1·1 + 4·1 + 1·1 = 6.
    #                                         1   0  1  1   Expected from rows (4, 2, 1) and columns (2, 2, 3):
    #                                         2   0  0  1   (1·4·2 + 4·4·3 + 1·2·2 + 1·2·3 + 4·1·2 + 1·1·2) / 7 = 76/7.
    # kappa = 1 − 6 · 7 / 76 = 34/76 = 0.4474. Of five pairs graded 1 or more three are: 0.6. Relevant are 3 of 7.
    judged, qrels = pairs_of(
        {"q1": [(0, 0), (0, 0), (0, 1), (0, 2), (None, 2)], "q2": [(1, 1), (1, 2), (2, 2), (None, 0)]}
    )
    found = calibrate(judged, qrels)
    assert found.pairs == 7  # the two that nobody judged are left out
    assert found.confusion.to_numpy().tolist() == [[2, 1, 1], [0, 1, 1], [0, 0, 1]]
    assert (found.confusion.index.name, found.confusion.columns.name) == ("true grade", "judge says")
    assert found.kappa == pytest.approx(34 / 76)
    assert found.precision == pytest.approx(0.6)
    assert found.share_relevant == pytest.approx(3 / 7)


def test_kappa_is_one_minus_the_squared_distance_seen_over_that_of_strangers():
    rng = np.random.default_rng(0)
    for n in (5, 20, 300):
        truth, said = rng.integers(0, 3, n).tolist(), rng.integers(0, 3, n).tolist()
        judged, qrels = pairs_of({"q": list(zip(truth, said, strict=True))})
        seen = sum((a - b) ** 2 for a, b in zip(truth, said, strict=True)) / n
        strangers = sum((a - b) ** 2 for a in truth for b in said) / n**2  # any true grade beside any other pair's
        assert calibrate(judged, qrels).kappa == pytest.approx(1 - seen / strangers)


def alike(right: int, of: int, queries: int = 6) -> tuple[pd.DataFrame, dict]:
    """Queries with the same pairs: half of them of grade 0 and half of grade 2.

    ``right`` of 2 · ``of`` on either side are alike. Of grades 0 and 2 in equal parts, kappa = 2 · right / of − 1,
    on every resample of the queries.
    """
    wrong = of - right
    both = [(0, 0)] * right + [(0, 2)] * wrong + [(2, 2)] * right + [(2, 0)] * wrong
    return pairs_of({f"q{i}": both for i in range(queries)})


@pytest.mark.parametrize(
    ("right", "of", "kappa", "verdict"),
    [
        (5, 5, 1.0, "trust it"),
        (4, 5, TRUSTED, "trust it"),  # 0.6 itself
        (79, 100, 0.58, "use it beside a person"),
        (7, 10, USABLE, "use it beside a person"),  # 0.4 itself
        (69, 100, 0.38, "do not trust it"),
        (1, 2, 0.0, "do not trust it"),
        (0, 5, -1.0, "do not trust it"),
    ],
)
def test_the_verdict_at_its_limits(right, of, kappa, verdict):
    found = calibrate(*alike(right, of))
    assert found.kappa == found.kappa_low == found.kappa_high == pytest.approx(kappa)
    assert found.verdict == verdict


def test_the_verdict_rests_on_the_lower_end_and_resamples_queries():
    # Half the queries perfect, half at chance (two right, two wrong):
    # kappa is 0.5 of all, near 0 for an unlucky draw of queries.
    good, _ = pairs_of({f"q{i}": [(0, 0), (0, 0), (2, 2), (2, 2)] for i in range(4)})
    bad, qrels = pairs_of({f"q{i}": [(0, 0), (0, 2), (2, 0), (2, 2)] for i in range(8)})
    judged = pd.concat([good, bad[bad["query"] >= "q4"]], ignore_index=True)
    found = calibrate(judged, qrels)
    assert found.kappa == pytest.approx(0.5)
    # Of 8 draws, the number of good queries is binomial:
    # 2.5 % below 2 (kappa 0.25), 2.5 % above 6 (kappa 0.75), nearly.
    assert 0.1 <= found.kappa_low <= 0.25
    assert 0.75 <= found.kappa_high <= 0.9
    assert found.verdict == "do not trust it"
    assert calibrate(judged, qrels)[3:5] == found[3:5]  # the same twice


def test_one_query_has_no_interval_and_no_trust():
    found = calibrate(*alike(5, 5, queries=1))
    assert found.kappa == 1.0
    assert np.isnan([found.kappa_low, found.kappa_high]).all()
    assert found.verdict == "do not trust it"


@pytest.mark.parametrize("always", [0, 1, 2])
def test_a_judge_that_always_says_the_same_is_not_trusted(always):
    found = calibrate(*pairs_of({f"q{i}": [(0, always), (1, always), (2, always)] for i in range(4)}))
    assert (found.kappa, found.verdict) == (0.0, "do not trust it")
    if always:
        assert found.precision == pytest.approx(2 / 3) == found.share_relevant  # yes to everything
    else:
        assert np.isnan(found.precision)  # it called nothing relevant


def test_calibration_without_a_judged_pair_ends_in_a_sentence(tmp_path):
    judged, qrels = pairs_of({"q": [(None, 1), (None, 0)]})
    for table, known in ((judged, qrels), (judged, {}), (judged.iloc[:0], {"q": {"d0": 1}})):
        with pytest.raises(WorkbookError, match="judged split"):
            calibrate(table, known)


def test_as_qrels_gives_plain_dicts(tmp_path):
    table = judge(LLM(FakeJudge(mower_is_right), tmp_path), QUERIES, RUN, CORPUS)
    qrels = as_qrels(table)
    assert qrels == {
        "query-4711": {"doc-alpha-7": 2, "doc-gamma-7": 0},
        "query-0815": {"doc-beta-7": 0, "doc-gamma-7": 0},
    }
    assert json.loads(json.dumps(qrels)) == qrels

"""Checks of the exercises: one line when an answer is right, one sentence when it is not yet."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from helpers.collection.collection import Collection
from helpers.evaluation.measures import per_query


def _report(passed: bool, done: str, not_yet: str) -> None:
    print(f"✓ {done}" if passed else f"Not yet: {not_yet}")


def _started(answer: Any) -> bool:
    if answer is ...:
        print("Not started: put your answer where the ... stands and run both cells again.")
    return answer is not ...


def _called(function: Callable, *arguments: Any) -> tuple[Any, str]:
    """Call the function: (its answer, ""), or (``...``, a description of the error) when it raises one."""
    try:
        return function(*arguments), ""
    except Exception as error:
        return ..., f"it raised {type(error).__name__}: {error}"


def check_00_passages(answer: Any, collection: Collection) -> None:
    """The number of passages in the collection."""
    n = len(collection.corpus)
    if _started(answer):
        _report(answer == n, f"{n:,} passages.", f"{answer!r} is not the number of passages.")


def check_02_precision(function: Any) -> None:
    """``precision_at(qrels_of_one_query, ranking, k)``: the share of the first k that is relevant."""
    cases = [(({"a": 1, "b": 0}, ["a", "b", "c"], 2), 0.5), (({"a": 2}, ["b", "a"], 5), 0.2), (({"a": 1}, [], 3), 0.0)]
    done = "precision counts what is relevant among the first k, and divides by k even when fewer were found."
    by_hand(function, cases, done)


def check_02_rrf(function: Any) -> None:
    """``rrf(rankings, constant)``: ids by the sum of 1 / (constant + rank), ranks from 1, ties by id."""
    if not _started(function):
        return None
    for rankings, expected in (([["a", "b", "c"], ["c", "a"]], ["a", "c", "b"]), ([["b"], ["a"]], ["a", "b"])):
        found, trouble = _called(function, rankings, 60)
        if trouble or found is ... or list(found or []) != expected:
            return _report(False, "", trouble or f"for {rankings} it gives {found}, by hand it is {expected}.")
    return _report(True, "a passage that both lists name beats one that a single list puts first.", "")


def check_02_losses(answer: Any, qrels: dict, first: dict, second: dict) -> None:
    """The ids of the three queries that lose most nDCG@10 from the first run to the second, worst first."""
    if not _started(answer):
        return None
    change = (per_query(qrels, second) - per_query(qrels, first))["ndcg@10"]
    worst = sorted(change.index, key=lambda q: (change[q], q))[:3]
    return _report(
        list(answer) == worst,
        f"the largest losses are {', '.join(worst)}: read them.",
        "sort by the change, worst first, ties by id, and keep three.",
    )


def by_hand(function: Any, cases: Sequence[tuple[tuple, Any]], done: str) -> None:
    """Compare a function's answers with those worked out by hand."""
    if not _started(function):
        return None
    for arguments, expected in cases:
        found, trouble = _called(function, *arguments)
        if trouble or found is ... or type(found) is bool or not _alike(found, expected):
            return _report(False, "", trouble or f"for {arguments} it gives {found!r}, by hand it is {expected!r}.")
    return _report(True, done, "")


def _alike(found: Any, expected: Any) -> bool:
    if isinstance(expected, float):
        return isinstance(found, int | float) and abs(found - expected) < 1e-9
    if isinstance(expected, list) and expected and isinstance(expected[0], float):
        return isinstance(found, list) and len(found) == len(expected) and all(map(_alike, found, expected))
    return found == expected


def check_03_copied(function: Any) -> None:
    """``copied(question, passage)``: the share of the question's different words that stand in the passage."""
    cases = [
        (("Cut the Bread", "cut a loaf of bread"), 2 / 3),
        (("why why not", "not here"), 1 / 2),
        (("", "text"), 0.0),
    ]
    by_hand(function, cases, "the more a question copies, the less a retriever learns from it.")


def check_03_leaks(function: Any) -> None:
    """``leaks_into(question, queries)``: ids of the queries that are the same as the question.

    Capitals, blanks and punctuation make no difference.
    """
    queries = {"b": "Cut bread, please!", "a": "cut  BREAD please", "c": "cut breadcrumbs please"}
    cases = [(("cut bread please?", queries), ["a", "b"]), (("toast", queries), [])]
    by_hand(function, cases, "the same question in other clothes is still the same question.")


def check_03_decisive(answer: Any, gates: pd.DataFrame) -> None:
    """The gate that is most often the only one to turn a question away."""
    if _started(answer):
        failed = ~gates
        alone = failed[failed.sum(axis=1) == 1].sum()
        best = alone.idxmax()
        _report(
            answer == best,
            f"{best!r} alone decided about {alone[best]} questions.",
            "count the rows in which a gate is the only False.",
        )


def check_04_redaction(function: Any) -> None:
    """``redact_staff(text)``: the text with [staff] for employee numbers and without what the default hook finds."""
    cases = [
        (("call E-20417 now",), "call [staff] now"),
        (("E-20417 or jane@example.com",), "[staff] or [email]"),
        (("part E-204170 of type SE-20417",), "part E-204170 of type SE-20417"),
    ]
    by_hand(function, cases, "what is not stored cannot leak.")


def check_04_corrected(function: Any) -> None:
    """``corrected_rate(shown, examined)``: the clicks, each weighted by 1 / the chance that its rank is looked at.

    Their sum is divided by the number of times the passage was shown.
    """
    chance = {1: 1.0, 2: 0.5, 4: 0.25}
    cases = [
        (([(1, True), (1, False)], chance), 0.5),
        (([(2, True), (4, True), (4, False)], chance), 2.0),
        (([], chance), 0.0),
    ]
    by_hand(function, cases, "a click at a rank where few look says more than one at the top.")


def check_04_topic(answer: Any, per_topic: pd.DataFrame) -> None:
    """The topic with the largest number of searches without a click."""
    if _started(answer):
        counts = per_topic["searches"] * per_topic["no click"]
        best = counts.idxmax()
        _report(
            answer == best,
            f"{best!r}: about {counts[best]:.0f} searches without a click.",
            "multiply the share by the number of searches.",
        )


def check_05_pairs(function: Any) -> None:
    """``to_pairs(examples)``: one row per positive, in order."""
    row = {"question": "q", "positive_examples": ["a", "b"], "negative_examples": ["c"]}
    pairs = [{"question": "q", "answer": "a"}, {"question": "q", "answer": "b"}]
    by_hand(function, [(([row],), pairs), (([],), [])], "one pair a positive.")


def check_05_hard(function: Any) -> None:
    """``hard_negatives(scores, positives, n, margin)``: the ``n`` best that the margin allows, ties by id."""
    scores = {"p": 0.8, "q": 0.5, "a": 0.49, "b": 0.4, "c": 0.4, "d": 0.1}
    cases = [
        ((scores, {"p", "q"}, 2, 0.1), ["b", "c"]),
        ((scores, {"p"}, 2, 0.0), ["q", "a"]),
        ((scores, {"q"}, 9, 0.5), ["d"]),
    ]
    by_hand(function, cases, "near enough to teach, far enough to be wrong.")


def check_05_leaked(function: Any) -> None:
    """``leaked(train, held_out)``: the share of held-out rows that share a query or a passage with train."""
    train = [("q1", "p1"), ("q2", "p2")]
    cases = [((train, [("q1", "p9"), ("q9", "p2"), ("q8", "p8"), ("q1", "p1")]), 0.75), ((train, [("q3", "p3")]), 0.0)]
    by_hand(function, cases, "either side is enough for a leak.")


def check_06_loss(function: Any) -> None:
    """``in_batch_loss(cosines, scale)``: the mean of −log softmax on the diagonal."""
    cases = [
        (([[0.5, 0.5], [0.5, 0.5]], 20.0), math.log(2)),  # each passage as likely as the other
        (([[1.0, 0.0], [1.0, 0.0]], 1.0), (math.log(1 + math.exp(-1)) + math.log(1 + math.e)) / 2),
        (([[0.3]], 20.0), 0.0),  # nothing to confuse it with
    ]
    by_hand(function, cases, "with nothing to be confused with there is nothing to learn: batches matter.")


def check_06_shorten(function: Any) -> None:
    """``shorten(vector, width)``: the first ``width`` numbers of the vector, scaled to length 1."""
    cases = [(([3.0, 4.0, 12.0], 2), [0.6, 0.8]), (([0.0, -2.0], 2), [0.0, -1.0]), (([5.0, 1.0, 1.0], 1), [1.0])]
    by_hand(function, cases, "a shorter vector needs its length back before a dot product is a cosine.")


def check_06_unseen(function: Any) -> None:
    """``unseen(qrels, trained)``: queries none of whose relevant passages was trained on."""
    qrels = {"b": {"p": 1, "x": 0}, "a": {"q": 2, "t": 0}, "c": {"t": 1, "q": 1}, "d": {"p": 0}}
    cases = [((qrels, {"t"}), ["a", "b"]), ((qrels, {"p", "q"}), []), (({}, {"t"}), [])]
    by_hand(function, cases, "what was judged irrelevant does not count as seen.")


def check_07_maxsim(function: Any) -> None:
    """``max_sim(table)``: the mean of the rows' maxima."""
    cases = [(([[0.2, 0.8], [0.5, 0.1]],), 0.65), (([[0.3]],), 0.3), (([[-0.2, -0.4], [0.4, 0.0]],), 0.1)]
    by_hand(function, cases, "each query token finds its own partner.")


def check_07_frontier(function: Any) -> None:
    """``frontier_of(systems)``: {name: (ms, quality)} → names of those that no other beats in both, fastest first."""
    cases = [
        (({"a": (10, 0.3), "b": (20, 0.5), "c": (30, 0.4)},), ["a", "b"]),
        (({"slow": (9, 0.2), "fast": (1, 0.2)},), ["fast"]),
        (({"x": (5, 0.1), "y": (5, 0.2)},), ["y"]),
    ]
    by_hand(function, cases, "what is slower has to be better, or nobody needs it.")


def check_07_rerank(function: Any) -> None:
    """``reranked_top(first, scores, k)``: the first ``k`` sorted by score, the rest as it was."""
    scores = {"a": 0.1, "b": 0.9, "c": 0.1, "d": 5.0}
    cases = [
        ((["a", "b", "c", "d"], scores, 3), ["b", "a", "c", "d"]),
        ((["a", "d"], scores, 1), ["a", "d"]),
        (([], scores, 5), []),
    ]
    by_hand(function, cases, "what is below the depth stays below, however good it is.")

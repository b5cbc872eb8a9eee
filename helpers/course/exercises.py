"""Checks of the exercises: one line when an answer is right, one sentence when it is not yet.

A check is a function that returns the line for a right answer and raises NotYet with the sentence for another one;
``exercise`` makes it print them. The checks of notebook 11 are in exercises_homework.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from helpers.collection.collection import Collection
from helpers.evaluation.measures import Qrels, per_query
from helpers.retrieval.first_stages import Run
from helpers.store.files import WorkbookError


class NotYet(Exception):
    """What is not right yet with an answer, in one sentence."""


def require(holds: bool, otherwise: str) -> None:
    """Raise NotYet with the sentence ``otherwise`` unless the answer has what is asked for."""
    if not holds:
        raise NotYet(otherwise)


def mark(check: Callable[..., Any], *given: Any) -> tuple[bool, Any]:
    """Run a check and print its line or its sentence: (whether the answer is right, what is shown below the line).

    A check returns the line, or a pair of the line and something to show, such as a figure. An answer of another form
    than asked for gets a sentence, not a traceback.
    """
    try:
        result = check(*given)
    except NotYet as problem:
        print(f"Not yet: {problem}")
        return False, None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, WorkbookError):
        print(f"Not yet: the answer has another form than asked for; {check.__name__} says which in its docstring.")
        return False, None
    line, shown = result if isinstance(result, tuple) else (result, None)
    print(f"✓ {line}")
    return True, shown


def exercise(check: Callable[..., str]) -> Callable[..., None]:
    """Turn a function into the check of an exercise; an answer that is still ``...`` is not started."""

    @functools.wraps(check)
    def run(answer: Any, *facts: Any) -> None:
        if answer is ...:
            print("Not started: put your answer where the ... stands and run both cells again.")
        else:
            mark(check, answer, *facts)

    return run


def by_hand(function: Callable, cases: Sequence[tuple[tuple, Any]], line: str) -> str:
    """The ``line``, if a function gives for the arguments of each case the answer that was worked out by hand.

    Raises NotYet for the first case in which it gives another answer or raises an error.
    """
    for arguments, expected in cases:
        try:
            answer = function(*arguments)
        except Exception as error:
            raise NotYet(f"it raised {type(error).__name__}: {error}") from None
        require(_equal(answer, expected), f"for {arguments} it gives {answer!r}, by hand it is {expected!r}.")
    return line


def _equal(answer: Any, expected: Any) -> bool:
    if isinstance(answer, bool):  # True is not 1.0 here
        return False
    if isinstance(expected, float):
        return isinstance(answer, int | float) and abs(answer - expected) < 1e-9
    if isinstance(expected, list) and expected and isinstance(expected[0], float):
        return isinstance(answer, list) and len(answer) == len(expected) and all(map(_equal, answer, expected))
    return answer == expected


@exercise
def check_00_passages(answer: Any, collection: Collection) -> str:
    """The number of passages in the collection."""
    n = len(collection.corpus)
    require(answer == n, f"{answer!r} is not the number of passages.")
    return f"{n:,} passages."


@exercise
def check_01_triplet_loss(function: Any) -> str:
    """``triplet_loss(anchor, positive, negative, margin)``: how far the negative is from being far enough away.

    Far enough is further from the anchor than the positive by at least the margin: then the loss is 0.
    """
    cases = [
        (([1.0, 0.0], [1.0, 0.0], [0.0, 1.0], 0.5), 0.0),  # 0 − 1 + 0.5: no loss
        (([1.0, 0.0], [0.0, 1.0], [1.0, 0.0], 0.5), 1.5),
        (([1.0, 0.0], [0.6, 0.8], [0.8, 0.6], 0.1), 0.3),
    ]
    return by_hand(function, cases, "0 when the order is right with the margin to spare: then nothing moves.")


@exercise
def check_01_cart_triplets(function: Any) -> str:
    """``cart_triplets(carts, catalogue)``: (anchor, positive, negative) for the pairs of each cart, in order."""
    shop = ["shirt", "jeans", "shoes", "tent"]
    cases = [
        (([["shirt", "jeans"]], shop), [("shirt", "jeans", "shoes")]),
        (
            ([["shirt", "jeans"], ["shoes", "shirt", "tent"]], shop),
            [("shoes", "shirt", "jeans"), ("shoes", "tent", "jeans")],
        ),
        (([["tent"]], shop), []),
    ]
    return by_hand(function, cases, "what was never bought together is a negative only as far as the log goes.")


@exercise
def check_01_auc(function: Any) -> str:
    """``auc(scores, liked)``: the share of pairs (liked, not liked) in the right order, ties one half."""
    cases = [
        (([0.9, 0.1], [1, 0]), 1.0),
        (([0.5, 0.5, 0.1], [1, 0, 0]), 0.75),
        (([0.2, 0.4, 0.3], [1, 0, 0]), 0.0),
        (([0.9, 0.2, 0.5, 0.1], [1, 1, 0, 0]), 0.75),
    ]
    return by_hand(function, cases, "half is what guessing gets.")


@exercise
def check_02_precision(function: Any) -> str:
    """``precision_at(qrels_of_one_query, ranking, k)``: the share of the first k that is relevant."""
    cases = [(({"a": 1, "b": 0}, ["a", "b", "c"], 2), 0.5), (({"a": 2}, ["b", "a"], 5), 0.2), (({"a": 1}, [], 3), 0.0)]
    line = "precision counts what is relevant among the first k, and divides by k even when fewer were found."
    return by_hand(function, cases, line)


@exercise
def check_02_rrf(function: Any) -> str:
    """``rrf(rankings, constant)``: ids by the sum of 1 / (constant + rank), ranks from 1, ties by id."""
    cases = [(([["a", "b", "c"], ["c", "a"]], 60), ["a", "c", "b"]), (([["b"], ["a"]], 60), ["a", "b"])]
    line = "a passage that both lists name beats one that a single list puts first."
    return by_hand(lambda *arguments: list(function(*arguments)), cases, line)  # a tuple of ids is right as well


@exercise
def check_02_losses(answer: Any, qrels: Qrels, first: Run, second: Run) -> str:
    """The ids of the three queries that lose most nDCG@10 from the first run to the second, worst first."""
    change = (per_query(qrels, second) - per_query(qrels, first))["ndcg@10"]
    worst = sorted(change.index, key=lambda q: (change[q], q))[:3]
    require(list(answer) == worst, "sort by the change, worst first, ties by id, and keep three.")
    return f"the largest losses are {', '.join(worst)}: read them."


@exercise
def check_03_copied(function: Any) -> str:
    """``copied(question, passage)``: the share of the question's different words that stand in the passage."""
    cases = [
        (("Cut the Bread", "cut a loaf of bread"), 2 / 3),
        (("why why not", "not here"), 1 / 2),
        (("", "text"), 0.0),
    ]
    return by_hand(function, cases, "the more a question copies, the less a retriever learns from it.")


@exercise
def check_03_leaks(function: Any) -> str:
    """``leaks_into(question, queries)``: ids of the queries that are the same as the question.

    Capitals, blanks and punctuation make no difference.
    """
    queries = {"b": "Cut bread, please!", "a": "cut  BREAD please", "c": "cut breadcrumbs please"}
    cases = [(("cut bread please?", queries), ["a", "b"]), (("toast", queries), [])]
    return by_hand(function, cases, "the same question in other clothes is still the same question.")


@exercise
def check_03_decisive(answer: Any, gates: pd.DataFrame) -> str:
    """The gate that is most often the only one to turn a question away."""
    failed = ~gates
    alone = failed[failed.sum(axis=1) == 1].sum()
    most = alone.idxmax()
    require(answer == most, "count the rows in which a gate is the only False.")
    return f"{most!r} alone decided about {alone[most]} questions."


@exercise
def check_04_redaction(function: Any) -> str:
    """``redact_staff(text)``: the text with [staff] for employee numbers and without what the default hook finds."""
    cases = [
        (("call E-20417 now",), "call [staff] now"),
        (("E-20417 or jane@example.com",), "[staff] or [email]"),
        (("part E-204170 of type SE-20417",), "part E-204170 of type SE-20417"),
    ]
    return by_hand(function, cases, "what is not stored cannot leak.")


@exercise
def check_04_corrected(function: Any) -> str:
    """``corrected_rate(shown, examined)``: the clicks, each weighted by 1 / the chance that its rank is looked at.

    Their sum is divided by the number of times the passage was shown.
    """
    chance = {1: 1.0, 2: 0.5, 4: 0.25}
    cases = [
        (([(1, True), (1, False)], chance), 0.5),
        (([(2, True), (4, True), (4, False)], chance), 2.0),
        (([], chance), 0.0),
    ]
    return by_hand(function, cases, "a click at a rank where few look says more than one at the top.")


@exercise
def check_04_topic(answer: Any, per_topic: pd.DataFrame) -> str:
    """The topic with the largest number of searches without a click."""
    counts = per_topic["searches"] * per_topic["no click"]
    most = counts.idxmax()
    require(answer == most, "multiply the share by the number of searches.")
    return f"{most!r}: about {counts[most]:.0f} searches without a click."


@exercise
def check_05_pairs(function: Any) -> str:
    """``to_pairs(examples)``: one row per positive, in order."""
    row = {"question": "q", "positive_examples": ["a", "b"], "negative_examples": ["c"]}
    pairs = [{"question": "q", "answer": "a"}, {"question": "q", "answer": "b"}]
    return by_hand(function, [(([row],), pairs), (([],), [])], "one pair a positive.")


@exercise
def check_05_hard(function: Any) -> str:
    """``hard_negatives(scores, positives, n, margin)``: the ``n`` best that the margin allows, ties by id."""
    scores = {"p": 0.8, "q": 0.5, "a": 0.49, "b": 0.4, "c": 0.4, "d": 0.1}
    cases = [
        ((scores, {"p", "q"}, 2, 0.1), ["b", "c"]),
        ((scores, {"p"}, 2, 0.0), ["q", "a"]),
        ((scores, {"q"}, 9, 0.5), ["d"]),
    ]
    return by_hand(function, cases, "near enough to teach, far enough to be wrong.")


@exercise
def check_05_leaked(function: Any) -> str:
    """``leaked(train, held_out)``: the share of held-out rows that share a query or a passage with train."""
    train = [("q1", "p1"), ("q2", "p2")]
    cases = [((train, [("q1", "p9"), ("q9", "p2"), ("q8", "p8"), ("q1", "p1")]), 0.75), ((train, [("q3", "p3")]), 0.0)]
    return by_hand(function, cases, "either side is enough for a leak.")


@exercise
def check_06_loss(function: Any) -> str:
    """``in_batch_loss(cosines, scale)``: the mean of −log softmax on the diagonal."""
    cases = [
        (([[0.5, 0.5], [0.5, 0.5]], 20.0), math.log(2)),  # each passage as likely as the other
        (([[1.0, 0.0], [1.0, 0.0]], 1.0), (math.log(1 + math.exp(-1)) + math.log(1 + math.e)) / 2),
        (([[0.3]], 20.0), 0.0),  # nothing to confuse it with
    ]
    return by_hand(function, cases, "with nothing to be confused with there is nothing to learn: batches matter.")


@exercise
def check_06_shorten(function: Any) -> str:
    """``shorten(vector, width)``: the first ``width`` numbers of the vector, scaled to length 1."""
    cases = [(([3.0, 4.0, 12.0], 2), [0.6, 0.8]), (([0.0, -2.0], 2), [0.0, -1.0]), (([5.0, 1.0, 1.0], 1), [1.0])]
    return by_hand(function, cases, "a shorter vector needs its length back before a dot product is a cosine.")


@exercise
def check_06_unseen(function: Any) -> str:
    """``unseen(qrels, trained)``: queries none of whose relevant passages was trained on."""
    qrels = {"b": {"p": 1, "x": 0}, "a": {"q": 2, "t": 0}, "c": {"t": 1, "q": 1}, "d": {"p": 0}}
    cases = [((qrels, {"t"}), ["a", "b"]), ((qrels, {"p", "q"}), []), (({}, {"t"}), [])]
    return by_hand(function, cases, "what was judged irrelevant does not count as seen.")


@exercise
def check_07_maxsim(function: Any) -> str:
    """``max_sim(table)``: the mean of the rows' maxima."""
    cases = [(([[0.2, 0.8], [0.5, 0.1]],), 0.65), (([[0.3]],), 0.3), (([[-0.2, -0.4], [0.4, 0.0]],), 0.1)]
    return by_hand(function, cases, "each query token finds its own partner.")


@exercise
def check_07_frontier(function: Any) -> str:
    """``frontier_of(systems)``: {name: (ms, quality)} → names of those that no other beats in both, fastest first."""
    cases = [
        (({"a": (10, 0.3), "b": (20, 0.5), "c": (30, 0.4)},), ["a", "b"]),
        (({"slow": (9, 0.2), "fast": (1, 0.2)},), ["fast"]),
        (({"x": (5, 0.1), "y": (5, 0.2)},), ["y"]),
    ]
    return by_hand(function, cases, "what is slower has to be better, or nobody needs it.")


@exercise
def check_07_rerank(function: Any) -> str:
    """``reranked_top(first, scores, k)``: the first ``k`` sorted by score, the rest as it was."""
    scores = {"a": 0.1, "b": 0.9, "c": 0.1, "d": 5.0}
    cases = [
        ((["a", "b", "c", "d"], scores, 3), ["b", "a", "c", "d"]),
        ((["a", "d"], scores, 1), ["a", "d"]),
        (([], scores, 5), []),
    ]
    return by_hand(function, cases, "what is below the depth stays below, however good it is.")


@exercise
def check_09_leaks(function: Any) -> str:
    """``leaking(train, test)``: merchants on both sides, in alphabetical order; rows are (merchant, label)."""
    train, test = [("Kumo", "a"), ("Vedel", "b")], [("Vedel", "a"), ("Orca", "b"), ("Kumo", "b"), ("Vedel", "b")]
    return by_hand(
        function,
        [((train, test), ["Kumo", "Vedel"]), ((train, []), [])],
        "a merchant on both sides is a hint that nobody has in production.",
    )


@exercise
def check_09_vote(function: Any) -> str:
    """``vote(neighbours)``: (label, similarity) pairs → the label with the largest sum, ties by label."""
    cases = [
        (([("a", 0.9), ("b", 0.5), ("b", 0.5)],), "b"),
        (([("a", 0.9), ("b", 0.5)],), "a"),
        (([("b", 0.4), ("a", 0.4)],), "a"),
    ]
    return by_hand(function, cases, "near neighbours count for more, and two of them for more than one.")


@exercise
def check_09_majority(function: Any) -> str:
    """``purity(labels, clusters)``: the share of rows whose label is the most frequent one of their cluster."""
    cases = [
        ((["a", "a", "b"], [0, 0, 0]), 2 / 3),
        ((["a", "a", "b", "b"], [0, 0, 1, 1]), 1.0),
        ((["a", "a", "b", "a"], [0, 0, 0, 1]), 0.75),  # large clusters count for more
        ((["a", "b"], [0, 1]), 1.0),
    ]
    return by_hand(function, cases, "and it is 1 when every row is its own cluster: that is why NMI and ARI exist.")

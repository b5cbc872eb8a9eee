"""Checks of the exercises: one line when an answer is right, one sentence when it is not yet."""

from collections.abc import Callable
from typing import Any

from helpers.collection import Collection
from helpers.evaluation import per_query


def _report(passed: bool, done: str, not_yet: str) -> None:
    print(f"✓ {done}" if passed else f"Not yet: {not_yet}")


def _started(answer: Any) -> bool:
    if answer is ...:
        print("Not started: put your answer where the ... stands and run both cells again.")
    return answer is not ...


def _called(function: Callable, *arguments: Any) -> tuple[Any, str]:
    """The function's answer, or what it raised in words."""
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
    if not _started(function):
        return None
    cases = [(({"a": 1, "b": 0}, ["a", "b", "c"], 2), 0.5), (({"a": 2}, ["b", "a"], 5), 0.2), (({"a": 1}, [], 3), 0.0)]
    for arguments, expected in cases:
        found, trouble = _called(function, *arguments)
        if trouble or found is ... or found is None or abs(found - expected) > 1e-9:
            return _report(False, "", trouble or f"for {arguments} it gives {found}, by hand it is {expected}.")
    return _report(
        True, "precision counts what is relevant among the first k, and divides by k even when fewer were found.", ""
    )


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

"""Checks of the homework, and how far it is: one line when an answer is right, one sentence when it is not yet."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from helpers.collection import Collection
from helpers.evaluation import Qrels, evaluate
from helpers.examples import same
from helpers.splits import COLLECT_BELOW, LIGHT_BELOW, enough, leaks
from helpers.triplets import Triplet

TASKS = {
    "11.1": "the evaluation set",
    "11.2": "baselines",
    "11.3": "chunkers",
    "11.4": "questions with low precision",
    "11.5": "the weekly flywheel",
    "11.6": "recall for each sub-task",
    "11.7": "triplets",
    "11.8": "does a reranker help?",
    "11.9": "enough data to tune?",
    "11.10": "host it yourself?",
}
FEWEST_QUERIES = 30  # of an evaluation set: fewer give intervals in which everything fits
STEPS = ("sample", "judge", "review", "label", "measure")  # of a week in which search gets better
_state: dict[str, str] = {}


def progress() -> None:
    """Print the state of every task: done, not yet right, or not started."""
    for number, task in TASKS.items():
        print(f"{_state.get(number, 'not started'):<12}{number:<6} {task}")
    done = sum(state == "done" for state in _state.values())
    print(
        f"\n{done} of {len(TASKS)} done."
        + (" Now run it on your own data: make homework COLLECTION=…" if done == len(TASKS) else "")
    )


def start() -> None:
    """Forget what was checked before; the first cell of the notebook calls it."""
    _state.clear()


def _turn(number: str, problem: str, done: str) -> None:
    """Say and keep whether a task is done; ``problem`` is empty when it is."""
    _state[number] = "not yet" if problem else "done"
    print(f"Not yet: {problem}" if problem else f"✓ {done}")


def _left(number: str, *answers: Any) -> bool:
    """Whether nothing was filled in; says what is left to do."""
    if any(answer is ... for answer in answers):
        _state.pop(number, None)
        print(f"Left to do: {number}, {TASKS[number]}. Put your answer where the ... stands and run both cells again.")
        return True
    return False


def _first(problems: Sequence[tuple[bool, str]]) -> str:
    return next((text for wrong, text in problems if wrong), "")


def check_11_evaluation_set(answer: Any, collection: Collection, trained_on: Mapping[str, str]) -> None:
    """``(queries, qrels)``: at least 30 queries, each with a right passage of the collection, none of them trained on."""
    if _left("11.1", answer):
        return
    if not (isinstance(answer, tuple) and len(answer) == 2 and all(isinstance(part, Mapping) for part in answer)):
        return _turn("11.1", "the answer is a pair of dicts, (queries, qrels).", "")
    queries, qrels = answer
    seen = {same(text) for text in trained_on.values()}
    right = {q: [d for d, grade in docs.items() if grade > 0] for q, docs in qrels.items()}
    problem = _first([
        (set(queries) != set(qrels), "queries and qrels have different ids."),
        (len(qrels) < FEWEST_QUERIES, f"{len(qrels)} queries are too few, at least {FEWEST_QUERIES}."),
        (not all(right.values()), "a query has no right passage: it cannot tell one system from another."),
        (any(d not in collection.corpus for docs in right.values() for d in docs), "a right passage is not in the collection."),
        (any(same(text) in seen for text in queries.values()), "a query is trained on as well: take it out of one of the two."),
    ])  # fmt: skip
    return _turn("11.1", problem, f"{len(qrels)} queries with {sum(map(len, right.values()))} right passages.")


def check_11_baselines(answer: Any, queries: Mapping[str, str], qrels: Qrels) -> None:
    """``{name: run}``: at least BM25, an encoder, a hybrid and a second stage, on the same queries."""
    if _left("11.2", answer):
        return
    if not isinstance(answer, Mapping) or not all(isinstance(run, Mapping) for run in answer.values()):
        return _turn("11.2", "the answer is a dict of runs, {name: run}.", "")
    missing = [word for word in ("bm25", "encoder", "hybrid") if not any(word in name.lower() for name in answer)]
    problem = _first([
        (bool(missing), f"there is no run named after {' and '.join(missing)}."),
        (len(answer) < 4, f"{len(answer)} systems: add one with a second stage."),
        (any(set(run) != set(queries) for run in answer.values()), "all systems answer the same queries, all of them."),
    ])  # fmt: skip
    if problem:
        return _turn("11.2", problem, "")
    means = {name: evaluate(qrels, run)["ndcg@10"] for name, run in answer.items()}
    best = max(means, key=means.get)
    return _turn("11.2", "", f"{len(means)} baselines; the one to beat is {best}, {means[best]:.3f} nDCG@10 on dev.")


def check_11_chunkers(answer: Any, collection: Collection) -> None:
    """``{method: recall@10}`` of at least two chunkers, in [0, 1]; {} for a collection without whole documents."""
    if _left("11.3", answer):
        return
    if not collection.pages:
        return _turn(
            "11.3",
            "" if answer == {} else "there are no whole documents here: the answer is {}.",
            "passages are all there is.",
        )
    fine = isinstance(answer, Mapping) and len(answer) >= 2 and all(0 <= value <= 1 for value in answer.values())
    best = max(answer, key=answer.get) if fine else ""
    return _turn(
        "11.3",
        "" if fine else "the answer has the recall, in [0, 1], of at least two chunkers.",
        f"highest recall: {best}.",
    )


def check_11_low_precision(answer: Any, precision: Mapping[str, float]) -> None:
    """The five queries of the sample with the lowest precision by the judge, worst first, ties by text."""
    if _left("11.4", answer):
        return
    worst = sorted(precision, key=lambda query: (precision[query], query))[:5]
    fine = isinstance(answer, list) and answer == worst
    _turn("11.4", "" if fine else "sort the sample by its precision, lowest first, ties by text, and keep five.",
          f"these {len(worst)} are worth a person's look.")  # fmt: skip


def check_11_flywheel(answer: Any) -> None:
    """A list of dicts with day, step, who and minutes; every step of STEPS has somebody's name, all within a working day a week."""
    if _left("11.5", answer):
        return
    keys = {"day", "step", "who", "minutes"}
    if not isinstance(answer, list) or not all(isinstance(row, dict) and keys <= set(row) for row in answer):
        return _turn("11.5", f"each row has {', '.join(sorted(keys))}.", "")
    lacking = [step for step in STEPS if not any(row["step"] == step for row in answer)]
    minutes = sum(row["minutes"] for row in answer)
    problem = _first([
        (bool(lacking), f"nobody does this: {', '.join(lacking)}."),
        (not all(str(row["who"]).strip() for row in answer), "a step without a name is done by nobody."),
        (minutes > 480, f"{minutes} minutes are more than a day: nobody will keep that up."),
    ])  # fmt: skip
    return _turn("11.5", problem, f"{minutes} minutes a week; put them into the calendar.")


def check_11_subtasks(recall: Any, weakest: Any, subtasks: Mapping[str, Any]) -> None:
    """``{sub-task: recall@10}`` for every sub-task, and the name of the one that needs improvement most."""
    if _left("11.6", recall, weakest):
        return
    if not isinstance(recall, Mapping) or set(recall) != set(subtasks):
        return _turn("11.6", f"one recall for each of {', '.join(subtasks)}.", "")
    worst = min(recall, key=lambda name: (recall[name], name))
    problem = _first([
        (not all(0 <= value <= 1 for value in recall.values()), "a recall lies between 0 and 1."),
        (len(set(recall.values())) == 1 and len(recall) > 1, "all are the same: index each sub-task's own texts."),
        (weakest != worst, f"{weakest!r} has not the lowest recall."),
    ])  # fmt: skip
    return _turn("11.6", problem, f"{worst} needs improvement most ({recall[worst]:.2f}).")


def check_11_triplets(answer: Any, held_out: Sequence[Triplet], corpus: Mapping[str, str]) -> None:
    """Triplets of the training queries, none of which is a query of the evaluation set."""
    if _left("11.7", answer):
        return
    if not isinstance(answer, list) or not answer or not all(isinstance(t, Triplet) for t in answer):
        return _turn("11.7", "the answer is a list of triplets, as build_triplets gives it.", "")
    problem = _first([
        (leaks(answer, held_out, corpus)["queries"] > 0, "a query of the evaluation set is among them."),
        (any(t.positive_id in t.negative_ids for t in answer), "a passage is right and wrong for the same query."),
    ])  # fmt: skip
    return _turn("11.7", problem, enough(answer))


def check_11_reranker(answer: Any, against: pd.DataFrame) -> None:
    """True when the second stage is better than the first by more than luck, else False; ``against`` comes from ``compare``."""
    if _left("11.8", answer):
        return
    row = against.iloc[0]
    helps = bool(row["p"] < 0.05 and row["difference"] > 0)
    said = f"{row['difference']:+.3f} nDCG@10 [{row['low']:+.3f}, {row['high']:+.3f}], p = {row['p']:.3f}"
    right = isinstance(answer, bool | np.bool_) and bool(answer) == helps
    _turn("11.8", "" if right else "True only if p is below 0.05 and the difference above 0.",
          f"{said}: it {'helps' if helps else 'cannot be told from luck, or hurts'}.")  # fmt: skip


def check_11_enough(answer: Any, queries: int) -> None:
    """ "collect", "adapter" or "encoder", by the number of different training queries."""
    if _left("11.9", answer):
        return
    right = "collect" if queries < COLLECT_BELOW else "adapter" if queries < LIGHT_BELOW else "encoder"
    _turn("11.9", "" if answer == right else f"with {queries:,} different queries it is not {answer!r}: see helpers/splits.py.",
          f"{queries:,} different queries: {right}. The learning curve in the report tests this rule of thumb.")  # fmt: skip


def check_11_hosting(answer: Any, facts: Mapping[str, float]) -> None:
    """``{"self": dollars, "API": dollars}`` a month, by the facts of the cell above."""
    if _left("11.10", answer):
        return
    servers = max(1, math.ceil(facts["queries_a_second_at_peak"] * facts["ms_per_query"] / 1000))
    tokens = facts["index_tokens"] + facts["queries_a_month"] * facts["tokens_per_query"]
    right = {"self": servers * facts["server_usd_a_month"], "API": tokens * facts["api_usd_per_million_tokens"] / 1e6}
    fine = (
        isinstance(answer, Mapping)
        and set(answer) == set(right)
        and all(math.isclose(answer[k], right[k], rel_tol=1e-6) for k in right)
    )
    cheaper = min(right, key=right.get)
    _turn("11.10", "" if fine else "servers (at least one) times their price; tokens, of the index once and of the queries, times theirs.",
          f"{cheaper} is cheaper at this traffic; now ask whether your texts may leave the house.")  # fmt: skip

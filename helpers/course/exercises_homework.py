"""Checks of the homework: one line when an answer is right, one sentence when it is not yet.

``progress`` prints how far the learner is.
"""

import functools
import html
import math
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import HTML
from matplotlib.figure import Figure

from helpers.collection.chunking import METHODS
from helpers.collection.collection import Collection
from helpers.collection.text import normalise
from helpers.course.exercises import mark, require
from helpers.course.figures import rates
from helpers.evaluation.comparing import p_value
from helpers.evaluation.measures import Qrels, interval, per_query
from helpers.evaluation.plots import scores_with_intervals
from helpers.training.splits import COLLECT_BELOW, LIGHT_BELOW, enough, leaks
from helpers.training.triplets import Triplet, shortfall

TASKS = {
    "11.1": "the evaluation set",
    "11.2": "baselines",
    "11.3": "chunkers",
    "11.4": "questions with low precision",
    "11.5": "the weekly flywheel",
    "11.6": "recall for each sub-task",
    "11.7": "triplets",
    "11.8": "whether a tuned reranker helps",
    "11.9": "whether there is enough data to tune an encoder",
    "11.10": "whether to host it yourself",
}
FEWEST_QUERIES = 30  # of an evaluation set: fewer give intervals in which everything fits
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
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


def _task(number: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Turn a function into the check of a task, whose state is remembered; an answer that is ``...`` is left to do."""

    def wrap(check: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(check)
        def run(*given: Any) -> Any:
            if any(answer is ... for answer in given):
                _state.pop(number, None)
                print(
                    f"Left to do: {number}, {TASKS[number]}. "
                    "Put your answer where the ... stands and run both cells again."
                )
                return None
            right, shown = mark(check, *given)
            _state[number] = "done" if right else "not yet"
            return shown

        return run

    return wrap


@_task("11.1")
def check_11_evaluation_set(answer: Any, collection: Collection, trained_on: Mapping[str, str]) -> str:
    """``(queries, qrels)``: at least 30 queries, each with a right passage of the collection.

    None of them is trained on.
    """
    is_pair = isinstance(answer, tuple) and len(answer) == 2 and all(isinstance(part, Mapping) for part in answer)
    require(is_pair, "the answer is a pair of dicts, (queries, qrels).")
    queries, qrels = answer
    seen = {normalise(text) for text in trained_on.values()}
    right = {q: [d for d, grade in docs.items() if grade > 0] for q, docs in qrels.items()}
    require(set(queries) == set(qrels), "queries and qrels have different ids.")
    require(len(qrels) >= FEWEST_QUERIES, f"{len(qrels)} queries are too few, at least {FEWEST_QUERIES}.")
    require(all(right.values()), "a query has no right passage: it cannot tell one system from another.")
    known = all(d in collection.corpus for docs in right.values() for d in docs)
    require(known, "a right passage is not in the collection.")
    unseen = all(normalise(text) not in seen for text in queries.values())
    require(unseen, "a query is trained on as well: take it out of one of the two.")
    return f"{len(qrels)} queries with {sum(map(len, right.values()))} right passages."


@_task("11.2")
def check_11_baselines(answer: Any, queries: Mapping[str, str], qrels: Qrels) -> tuple[str, Figure]:
    """``{name: run}``: at least BM25, an encoder, a hybrid and a second stage, all on the same queries.

    When it is right, a figure shows their scores.
    """
    are_runs = isinstance(answer, Mapping) and all(isinstance(run, Mapping) for run in answer.values())
    require(are_runs, "the answer is a dict of runs, {name: run}.")
    kinds = {
        "BM25": "bm25",
        "encoder": "encoder|dense|embed",
        "hybrid": "hybrid",
        "first → second": "→|rerank|interaction|cross|stage",
    }
    missing = [kind for kind, words in kinds.items() if not any(re.search(words, name.lower()) for name in answer)]
    require(not missing, f"no run has {' or '.join(map(repr, missing))} in its name.")
    require(len(answer) >= 4, f"there are {len(answer)} runs, and four kinds are asked for.")
    same_queries = all(set(run) == set(queries) for run in answer.values())
    require(same_queries, "all systems answer the same queries, all of them.")
    scores = {name: per_query(qrels, run)["ndcg@10"] for name, run in answer.items()}
    rows = [(name, values.mean(), *interval(values)) for name, values in scores.items()]
    board = pd.DataFrame(rows, columns=["system", "ndcg@10", "ndcg@10_low", "ndcg@10_high"])
    best, score = board.loc[board["ndcg@10"].idxmax(), ["system", "ndcg@10"]]
    line = f"{len(board)} baselines; the one to beat is {best}, {score:.3f} nDCG@10 on dev."
    return line, scores_with_intervals(board, f"The one to beat: {best}")


@_task("11.3")
def check_11_chunkers(answer: Any, collection: Collection) -> str:
    """``{method: recall}`` of at least two chunkers of METHODS, in [0, 1].

    {} if the collection has no whole documents.
    """
    if not collection.pages:
        require(answer == {}, "there are no whole documents here: the answer is {}.")
        return "passages are all there is."
    are_recalls = len(answer) >= 2 and set(answer) <= set(METHODS) and all(0 <= v <= 1 for v in answer.values())
    require(are_recalls, f"the answer has the recall, in [0, 1], of at least two of {', '.join(METHODS)}.")
    by_recall = sorted(answer, key=answer.get, reverse=True)
    return f"highest recall first: {', '.join(f'{method} {answer[method]:.2f}' for method in by_recall)}."


@_task("11.4")
def check_11_low_precision(
    answer: Any, precision: Mapping[str, float], passages: Mapping[str, list[str]]
) -> str | tuple[str, HTML]:
    """The five queries with the lowest precision by the judge, worst first, ties by text.

    When it is right, the first three ``passages`` that were found for each are shown.
    """
    if not precision:
        require(answer == [], "nothing was judged: the answer is [].")
        return "nothing could be judged here."
    worst = sorted(precision, key=lambda query: (precision[query], query))[:5]
    is_worst = isinstance(answer, list) and answer == worst
    require(is_worst, "sort the sample by its precision, lowest first, ties by text, and keep five.")
    shown = ""
    for query in worst:
        shown += f"<p><b>{html.escape(query)}</b> ({precision[query]:.2f})</p>"
        for text in passages[query][:3]:
            shown += f"<p>· {html.escape(textwrap.shorten(text, 300, placeholder=' …'))}</p>"
    return f"these {len(worst)} are worth a person's look.", HTML(shown)


@_task("11.5")
def check_11_flywheel(answer: Any) -> str:
    """A list of dicts with day, step, who and minutes.

    Every step of STEPS has somebody's name, and all of them together take at most one working day per week.
    """
    keys = {"day", "step", "who", "minutes"}
    are_rows = isinstance(answer, list) and all(isinstance(row, dict) and keys <= set(row) for row in answer)
    require(are_rows, f"each row has {', '.join(sorted(keys))}.")
    lacking = [step for step in STEPS if not any(row["step"] == step for row in answer)]
    minutes = sum(row["minutes"] for row in answer)
    require(not lacking, f"nobody does this: {', '.join(lacking)}.")
    require(all(row["day"] in DAYS for row in answer), "the day is one of Monday to Sunday.")
    named = all(isinstance(row["who"], str) and row["who"].strip() for row in answer)
    require(named, "a step without a name is done by nobody.")
    require(all(row["minutes"] > 0 for row in answer), "every step takes some minutes.")
    require(minutes <= 480, f"{minutes} minutes are more than a day: nobody will keep that up.")
    return f"{minutes} minutes a week; put them into the calendar."


@_task("11.6")
def check_11_subtasks(recall: Any, weakest: Any, subtasks: Mapping[str, Any]) -> tuple[str, Figure]:
    """``{sub-task: recall@10}`` for every sub-task, and the name of the one that needs improvement most.

    When it is right, a figure shows them.
    """
    one_each = isinstance(recall, Mapping) and set(recall) == set(subtasks)
    require(one_each, f"one recall for each of {', '.join(subtasks)}.")
    worst = min(recall, key=lambda name: (recall[name], name))
    require(all(0 <= value <= 1 for value in recall.values()), "a recall lies between 0 and 1.")
    require(weakest == worst, f"{weakest!r} does not have the lowest recall.")
    table = pd.DataFrame({"rate": recall}).sort_values("rate", ascending=False)
    line = f"{worst} has the lowest recall@10, {recall[worst]:.0%}."
    return line, rates(table, "recall@10 on dev (higher is better)", f"Weakest: {worst}")


@_task("11.7")
def check_11_triplets(answer: Any, held_out: Sequence[Triplet], corpus: Mapping[str, str]) -> str:
    """Triplets of the training queries with hard negatives; none of the queries is a dev or test query."""
    are_triplets = isinstance(answer, list) and answer and all(isinstance(t, Triplet) for t in answer)
    require(are_triplets, "the answer is a list of triplets, as build_triplets gives it.")
    with_negatives = len(answer) - shortfall(answer, 1)["empty"]
    require(leaks(answer, held_out, corpus)["queries"] == 0, "a dev or test query is among them.")
    hint = 'none has a negative: use "encoder-hard", and a greater depth where positives rank low.'
    require(with_negatives > 0, hint)
    contradicts = any(t.positive_id in t.negative_ids for t in answer)
    require(not contradicts, "a passage is right and wrong for the same query.")
    return f"{with_negatives:,} of {len(answer):,} have a negative. {enough(answer)}"


@_task("11.8")
def check_11_reranker(answer: Any, against: pd.DataFrame) -> str:
    """True if the second stage is better than the first by more than luck, else False.

    ``against`` comes from ``compare``.
    """
    row = against.iloc[0]
    helps = bool(row["adjusted"] < 0.05 and row["difference"] > 0)
    right = isinstance(answer, bool | np.bool_) and bool(answer) == helps
    require(right, "True only if p, adjusted for both comparisons, is below 0.05 and the difference above 0.")
    gain = f"{row['difference']:+.3f} nDCG@10 [{row['low']:+.3f}, {row['high']:+.3f}], {p_value(row['p'])}"
    return f"{gain}: on dev it {'helps' if helps else 'cannot be told from luck, or hurts'}."


@_task("11.9")
def check_11_enough(answer: Any, queries: Mapping[str, str]) -> str:
    """ "collect", "adapter" or "encoder", by the number of different texts among the training queries."""
    n = len({normalise(text) for text in queries.values()})
    right = "collect" if n < COLLECT_BELOW else "adapter" if n < LIGHT_BELOW else "encoder"
    require(answer == right, f"with {n:,} different queries it is not {answer!r}: see helpers/training/splits.py.")
    return (
        f"{n:,} different queries: {right}. The learning curve in the report of make homework tests this rule of thumb."
    )


@_task("11.10")
def check_11_hosting(answer: Any, facts: Mapping[str, float]) -> str:
    """``{"self": dollars, "API": dollars}`` a month, by the facts of the cell above."""
    servers = max(1, math.ceil(facts["queries_a_second_at_peak"] * facts["ms_per_query"] / 1000))
    tokens = facts["index_tokens"] + facts["queries_a_month"] * facts["tokens_per_query"]
    right = {"self": servers * facts["server_usd_a_month"], "API": tokens * facts["api_usd_per_million_tokens"] / 1e6}
    is_right = (
        isinstance(answer, Mapping)
        and set(answer) == set(right)
        and all(math.isclose(answer[k], right[k], rel_tol=1e-6) for k in right)
    )
    hint = "servers (at least one) times their price; tokens, of the index once and of the queries, times theirs."
    require(is_right, hint)
    cheaper, names = min(right, key=right.get), {"self": "vectors of your own", "API": "the API's vectors"}
    return f"{names[cheaper]} cost less at this traffic; now ask whether your texts may leave the house."

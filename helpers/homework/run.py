"""The homework: ``python -m helpers.homework path`` measures, trains, decides and reports on one's own collection.

Everything is chosen on dev; test is read once. A run that was interrupted continues where it stopped: run it again.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from helpers.collection.chunking import token_counts
from helpers.evaluation.report import format_scoreboard
from helpers.homework import report as homework_report
from helpers.homework.chunks import Chunks, cut_passages
from helpers.homework.data import Data, open_data
from helpers.homework.deciding import Decision, decide
from helpers.homework.handover import beside_the_model, costs, failures, hand_over
from helpers.homework.ladder import ladder
from helpers.homework.scores import Scores, score_systems
from helpers.homework.sources import JUDGED_DEPTH, LLM_QUESTIONS, Sources, find_sources, pooled
from helpers.homework.systems import Systems, untrained_systems
from helpers.homework.to_judge import MOST_TO_JUDGE, write_to_judge
from helpers.homework.tuning import Tuned, tune_systems
from helpers.labels.review import review_queue
from helpers.labels.search_log import SearchLog
from helpers.models.embed import LocalEmbedder
from helpers.store.files import WorkbookError, exit_code, fingerprint, write_text
from helpers.store.stages import Stages

QUEUE = 10  # queries of a search log that a person should look at first


def do_homework(
    name: str | Path | None = None,
    log: str | Path | None = None,
    questions: int = LLM_QUESTIONS,
    minutes: float | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Do the whole homework on one collection; returns the result that the report shows.

    name, log : paths as ``open_own`` takes them
    questions : how many an LLM may be asked to write; 0 asks none
    minutes : for all trainings together, by default what the number of passages allows; 0 trains nothing
    say : takes the lines that tell of the progress

    The result is also kept as ``build/<collection>/homework/result.json``. Raises WorkbookError, in one sentence, when
    the collection cannot be opened or ``minutes`` is not a finite number from 0.
    """
    if minutes is not None and not 0 <= minutes < float("inf"):
        raise WorkbookError(f"--minutes {minutes} is no time to train for: give a number from 0 (train nothing).")
    data = open_data(name, log, say)
    stages = Stages(data.folder, say)
    chunks = cut_passages(data, stages)
    sources = find_sources(data, chunks, stages, questions)
    for what, n, origin in sources.rows:
        say(f"          {n:>6,} {what} ({origin})")
    systems = untrained_systems(chunks, sources, stages)
    tuned = tune_systems(systems, sources, minutes)
    say(f"          {'trained on: ' if tuned.plan.size else ''}{tuned.plan.why}")
    scores = score_systems(systems, tuned, sources)
    decision = decide(scores, tuned, sources)
    ask_for_judgments(data, chunks, sources)
    result = as_result(data, chunks, sources, systems, tuned, scores, decision)
    keep_model(systems, decision, result)
    plain = {
        k: [v._asdict() for v in values] if k in ("verdicts", "comparisons") else values for k, values in result.items()
    }
    write_text(data.folder / "result.json", json.dumps(plain, indent=1, ensure_ascii=False))
    return result | {"report": homework_report.write(sources.collection, result)}


def ask_for_judgments(data: Data, chunks: Chunks, sources: Sources) -> None:
    """Write pairs for a person to judge into to_judge.csv, for some queries that nobody has judged."""
    drawn = sorted(sources.unjudged, key=lambda q: fingerprint("to judge", q))[:MOST_TO_JUDGE]
    queries = {q: sources.unjudged[q] for q in drawn}
    if queries:
        pool = pooled(chunks.finders, queries, JUDGED_DEPTH)
        write_to_judge(data.collection, data.folder / "to_judge.csv", queries, pool)


def as_result(
    data: Data, chunks: Chunks, sources: Sources, systems: Systems, tuned: Tuned, scores: Scores, decision: Decision
) -> dict[str, Any]:
    """What the report shows and result.json keeps: plain values, but for lists of ``Verdict`` and ``Comparison``."""
    collection, chosen, plan = sources.collection, decision.chosen, tuned.plan
    result = {
        "collection": collection.name,
        "summary": str(collection),
        "notices": [
            *data.collection.notices,
            *chunks.notices,
            *sources.notices,
            *systems.notices,
            *scores.notices,
            *decision.cautions,
        ],
        "sources": list(sources.rows),
        "final": scores.final,
        "judged": sources.judged,
        "trained_on": plan.why,
        "queue": _queue(data.log),
        "curve": dict(tuned.curve),
        "gain": tuned.gain,
        "start": tuned.start,
        "training": {
            "queries": len(plan.data.positives),
            "size": plan.size,
            "seconds": tuned.seconds,
            "used": chosen.tuned,
        },
        "verdicts": list(decision.verdicts),
        "chosen": chosen.name,
        "decision": decision.headline,
        "comparisons": list(scores.comparisons),
        "failures": [],
        "ladder": [],
        "weights": {first.name: system.weight for first, system in scores.reranked.items()},
        "dev": {name: float(np.mean(values)) for name, values in scores.dev.items() if values},
    }
    if scores.final:
        result["ladder"] = ladder(systems, tuned, scores)
        split = "dev" if sources.dev else scores.final
        runs = [systems.runs.of_documents(system, split) for system in (chosen, scores.base)]
        result |= {
            "picks": [scores.untrained.name, scores.tuned.name if scores.tuned else None],
            "failures": failures(collection, *systems.runs.queries(split), *runs),
            "failures_on": "synthetic dev" if split == "dev" and sources.dev_made else split,
            "n": {"dev": len(sources.dev), "test": len(sources.test)},
        }
    asked = list((sources.test or sources.dev or collection.queries).values())[:100]
    tokens = float(np.mean(token_counts(asked, systems.encoder.encoder))) if asked else 20.0
    return result | {
        "cost": costs(len(chunks.texts), chunks.tokens, tokens, chunks.encode_seconds),
        "beside": beside_the_model(chosen, cut=bool(chunks.parents)),
        "enough": tuned.enough,
    }


def _queue(log: SearchLog | None) -> list[dict]:
    """The queries of a search log that a person should look at first, as rows with query, searches and why."""
    if log is None:
        return []
    queue = review_queue(log.searches(), log.events()).head(QUEUE)
    return queue[["query", "searches", "why"]].to_dict("records")


def keep_model(systems: Systems, decision: Decision, result: Mapping[str, Any]) -> None:
    """Write the chosen model's folder; where BM25 alone is chosen, it has the encoder for comparison."""
    chosen, folder = decision.chosen, systems.runs.collection.build / "chosen"
    encoder = (systems.encoder if chosen.lexical else chosen).encoder
    about = {"system": chosen.name} | {name: result[name] for name in ("decision", "beside", "collection")}
    key = fingerprint(chosen.key, about, LocalEmbedder(encoder).key)
    hand_over(folder, encoder, chosen.matrix, about | {"key": key})


def main() -> int:
    """The command line; returns 0 when all went well, and 1, after a sentence on stderr, when not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("collection", nargs="?", help="a path, or the default collection (or set COLLECTION)")
    parser.add_argument("--log", help="a search log beside the collection (or set LOG)")
    parser.add_argument(
        "--questions", type=int, default=LLM_QUESTIONS, help="how many an LLM may be asked for; 0: none is asked"
    )
    parser.add_argument(
        "--minutes", type=float, help="for all trainings together, 0: none; by default what the passages allow"
    )
    arguments = parser.parse_args()
    chosen = arguments.collection, arguments.log, arguments.questions, arguments.minutes
    return exit_code(lambda: _tell(do_homework(*chosen, lambda line: print(line, flush=True))))


def _tell(result: Mapping[str, Any]) -> None:
    """Print what was found: notices, the scoreboard, the decision with its evidence, and where the rest is."""
    build = Path(result["report"]).parent
    print()
    for notice in result["notices"]:
        print(f"· {notice}")
    board = pd.read_csv(build / "scoreboard.csv") if result["final"] else pd.DataFrame()
    if len(board):
        print(f"\nScoreboard on {result['final']}\n")
        with pd.option_context("display.width", 200, "display.max_columns", None):
            print(format_scoreboard(board, result["final"]).to_string())
    print(f"\nDecision: {result['decision']}")
    for verdict in result["verdicts"]:
        print(f"  {'yes' if verdict.yes else 'no ':<4}{verdict.name}: {verdict.evidence}")
    print(f"\nReport: {result['report']}\nModel:  {build / 'chosen'}")


if __name__ == "__main__":
    sys.exit(main())

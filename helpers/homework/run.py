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
from helpers.collection.collection import Collection
from helpers.evaluation.report import format_scoreboard
from helpers.homework import deciding, handover
from helpers.homework import report as homework_report
from helpers.homework.bench import Bench
from helpers.homework.data import open_own
from helpers.homework.sources import (
    JUDGED_DEPTH,
    LLM_QUESTIONS,
    Sources,
    Tools,
    find_sources,
    measured_collection,
    pooled,
)
from helpers.homework.steps import prepare, second_stages, tune
from helpers.labels.review import review_queue
from helpers.labels.search_log import SearchLog
from helpers.models.embed import LocalEmbedder
from helpers.models.load import load_encoder
from helpers.store.files import WorkbookError, exit_code, fingerprint, write_text
from helpers.store.stages import Stages

UNTRAINED = ("encoder", "BM25", "hybrid (weighted)")  # cheapest first; the encoder is the present system
TUNED = ("encoder + adapter", "tuned encoder", "tuned encoder + adapter", "tuned hybrid (weighted)")
QUEUE = 10  # queries of a search log that a person should look at first


def run(
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
    collection, searches = open_own(name, log)
    folder = collection.build / "homework"
    stages = Stages(folder, say)
    say(str(collection))
    taken = handover.read_judged(collection, folder / "to_judge.csv")
    bench, tools, notices, cost = prepare(collection, stages, questions)
    if taken:
        notices.append(f"{taken} grades of to_judge.csv were taken over.")
    sources = find_sources(collection, tools)
    bench.collection, bench.dev_made = measured_collection(collection, sources), sources.dev_made
    for row in sources.rows:
        say(f"          {row[1]:>6,} {row[0]} ({row[2]})")
    final = "test" if sources.test else "dev" if sources.dev else None
    if sources.dev:
        bench.hybrid(bench.systems["BM25"], bench.systems["encoder"], "hybrid (weighted)")
    tuned = tune(bench, sources, minutes)
    say(f"          {'trained on: ' if tuned['size'] else ''}{tuned['why']}")
    result: dict[str, Any] = {
        "collection": collection.name,
        "summary": str(bench.collection),
        "notices": [*notices, *sources.notices],
        "sources": sources.rows,
        "final": final,
        "judged": sources.judged,
        "trained_on": tuned["why"],
        "queue": _queue(searches),
        "curve": tuned["curve"],
        "gain": tuned["gain"],
        "start": tuned.get("start"),
        "training": {"queries": tuned["queries"], "size": tuned["size"], "seconds": tuned.get("seconds")},
    }
    if final:
        _measure(bench, sources, tuned, final, result)
    else:
        reason = (
            "No query is judged and no question could be made: write queries.jsonl and qrels for 50 real questions."
        )
        verdicts = [deciding.Verdict(v, v == deciding.VERDICTS[4], reason) for v in deciding.VERDICTS]
        result |= {"verdicts": verdicts, "chosen": "encoder", "decision": deciding.headline(verdicts, "encoder")}
        result |= {"comparisons": [], "failures": [], "weights": {}, "dev": {}}
    _to_judge(bench, collection, sources, tools)
    _finish(bench, sources, tuned, cost, result)
    return result


def _measure(bench: Bench, sources: Sources, tuned: dict, final: str, result: dict) -> None:
    """Choose on dev, then fill ``result`` with the scoreboard's rows, the comparisons on test and the verdicts."""
    if "hybrid (weighted)" not in bench.systems:
        bench.hybrid(bench.systems["BM25"], bench.systems["encoder"], "hybrid (weighted)")
    names = [name for name in (*UNTRAINED, *TUNED) if name in bench.systems]
    dev = {name: bench.scores(bench.systems[name], "dev") for name in names}
    untrained, tuned_pick = "hybrid (weighted)", None  # named before test is read, where dev cannot choose it
    if sources.dev and not sources.dev_made:
        untrained = deciding.nominee({name: dev[name] for name in UNTRAINED})
    if sources.dev:
        trained = {name: dev[name] for name in TUNED if name in dev}
        best = deciding.simplest(trained) if trained else None
        tuned_pick = best if best and np.mean(dev[best]) > np.mean(dev[UNTRAINED[0]]) else None
    firsts = list(dict.fromkeys(name for name in (UNTRAINED[0], untrained, tuned_pick) if name))
    second = second_stages(bench, firsts, tuned.get("model"))
    names += [system for system, _ in second.values()]
    scores = {name: bench.scores(bench.systems[name], final) for name in names}
    seen: dict[str, float] = {}
    for name in names:
        if sources.dev:
            dev[name] = bench.scores(bench.systems[name], "dev")
            bench.put_on_scoreboard(bench.systems[name], "dev")
        if final == "test":
            seen[name] = bench.put_on_scoreboard(bench.systems[name], "test")["judged@10"]
    bench.keep_rows(names)
    pairs = {"hybrid": (untrained, UNTRAINED[0])} if untrained != UNTRAINED[0] else {}
    if tuned_pick:
        pairs["tuned"] = (tuned_pick, untrained)
        if untrained != UNTRAINED[0]:
            pairs["tuned against base"] = (tuned_pick, UNTRAINED[0])
    pairs |= {f"rerank {first}": (system, first) for first, (system, _) in second.items()}
    comparisons = dict(zip(pairs, deciding.compared(list(pairs.values()), scores), strict=True)) if pairs else {}
    on_test = scores if final == "test" else {}
    verdicts, chosen = deciding.decide(
        {
            "base": UNTRAINED[0],
            "untrained": untrained,
            "tuned": tuned_pick,
            "comparisons": comparisons,
            "train": tuned["queries"],
            "judged": sources.judged,
            "clicks": sources.clicks,
            "on_test": final == "test",
            "gain": tuned["gain"],
            "untuned": None if tuned["size"] else tuned["why"],
            "on_dev": bool(sources.dev),
            "dev_scores": dev,
            "test_scores": on_test,
            "seen": seen,
            "test_only": 0 if sources.positives else sources.judged_test,
        }
    )
    decision = deciding.headline(verdicts, chosen, deciding.surprises(chosen, dev, on_test))
    result["notices"] += deciding.unjudged(seen, UNTRAINED[0], chosen)
    shown = bench.systems[chosen]
    queries, qrels = bench.queries("dev" if sources.dev else final)
    split = "dev" if sources.dev else final
    runs = bench.run(shown, split), bench.run(bench.systems[UNTRAINED[0]], split)
    weights = {first: weight for first, (_, weight) in second.items()}
    result |= {
        "verdicts": verdicts,
        "chosen": chosen,
        "decision": decision,
        "picks": [untrained, tuned_pick],
        "comparisons": list(comparisons.values()),
        "failures": handover.failures(bench.collection, queries, qrels, *runs),
        "failures_on": "synthetic dev" if split == "dev" and sources.dev_made else split,
        "weights": weights,
        "dev": {name: float(np.mean(values)) for name, values in dev.items() if values},
        "n": {"dev": len(sources.dev), "test": len(sources.test)},
    }


def _queue(log: SearchLog | None) -> list[dict]:
    """The queries of a search log that a person should look at first, as rows with query, searches and why."""
    if log is None:
        return []
    queue = review_queue(log.searches(), log.events()).head(QUEUE)
    return queue[["query", "searches", "why"]].to_dict("records")


def _to_judge(bench: Bench, collection: Collection, sources: Sources, tools: Tools) -> None:
    """Write pairs for a person to judge, for some queries that nobody has judged; those with clicks are among them.

    ``collection`` is as it was opened, before splits were made.
    """
    judged = {q for part in collection.qrels.values() for q in part} | {*sources.queries, *sources.dev, *sources.test}
    judged -= collection.clicked
    rest = sorted(set(collection.queries) - judged, key=lambda q: fingerprint("to judge", q))
    unjudged = {q: collection.queries[q] for q in rest[: handover.MOST_TO_JUDGE]}
    if unjudged:
        run = pooled(tools.retrievers, unjudged, JUDGED_DEPTH)
        handover.write_to_judge(collection, bench.stages.folder / "to_judge.csv", unjudged, run)


def _finish(bench: Bench, sources: Sources, tuned: dict, cost: dict, result: dict) -> None:
    """Write the chosen model's folder, result.json and the report, and add the costs to ``result``."""
    collection, chosen = bench.collection, result["chosen"]
    encoder = tuned["model"] if chosen.startswith("tuned") else load_encoder()
    matrix = next(
        (m for name, m in tuned["matrices"].items() if chosen == name or chosen.startswith(f"{name} + ")), None
    )
    system = bench.systems[chosen]
    part = system.retriever
    beside = []
    depth = getattr(part, "depth", None)
    if depth is not None:
        beside.append(
            f"It puts the best {depth} passages in order by {part.reranker.name}, weighing {part.weight:.1f}, "
            f"and the first stage, weighing {1 - part.weight:.1f} (helpers/retrieval/rerankers.py)."
        )
        part = part.first
    if hasattr(part, "weight"):
        beside.append(
            f"It adds BM25, weighing {1 - part.weight:.1f}, to the vectors, weighing {part.weight:.1f} "
            "(helpers/retrieval/first_stages.py, WeightedHybrid)."
        )
    if chosen == "BM25":
        beside.append("BM25 alone does the search; the model is here for comparison.")
    if len(bench.pieces) > len(collection.corpus):
        beside.append(
            "It cuts long passages into chunks, and a document ranks by its best one (helpers/collection/chunking.py)."
        )
    about = {
        "system": chosen,
        "decision": result["decision"],
        "beside": " ".join(beside),
        "collection": collection.name,
    }
    handover.hand_over(
        collection.build / "chosen",
        encoder,
        matrix,
        about | {"key": fingerprint(system.key, about, LocalEmbedder(encoder).key)},
    )
    queries = sources.test or sources.dev or dict(list(collection.queries.items())[:100])
    per_query = float(np.mean(token_counts(list(queries.values())[:100], encoder))) if queries else 20.0
    result["cost"] = handover.costs(len(bench.pieces), cost["tokens"], per_query, cost["seconds"])
    result["beside"] = about["beside"]
    result["enough"] = tuned.get("enough", "")
    plain = {
        k: [v._asdict() for v in values] if k in ("verdicts", "comparisons") else values for k, values in result.items()
    }
    write_text(bench.stages.folder / "result.json", json.dumps(plain, indent=1, ensure_ascii=False))
    result["report"] = homework_report.write(collection, result)


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
    return exit_code(lambda: _tell(run(*chosen, lambda line: print(line, flush=True))))


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

"""The homework's report.html: one page to send to a colleague, which loads nothing from elsewhere."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from helpers.collection.collection import Collection
from helpers.evaluation import plots
from helpers.evaluation.measures import read_scoreboard
from helpers.evaluation.report import png, render, scoreboards
from helpers.homework import handover
from helpers.models.services import priced
from helpers.store.files import write_text


def _bars(rows: pd.DataFrame, chosen: str, split: str, collect: bool) -> Figure:
    """The scores on the reported split, titled with the decision: the chosen system, or to collect more data first."""
    decided = "more data is needed first" if collect else f"{chosen} is the decision"
    return plots.scores_with_intervals(rows, f"nDCG@10 on {split}: {decided}")


def _curve(curve: Mapping[int, float], start: float, gain: Mapping[str, float] | None) -> Figure:
    """The learning curve: nDCG@10 on dev by number of queries trained on.

    ``start`` is the score of the untuned encoder, ``gain`` what twice the data may bring, as ``expected_gain`` gave it.
    """
    figure, axes = plots.blank(7.5, 3.8)
    sizes = sorted(curve)
    axes.plot(sizes, [curve[s] for s in sizes], "o-", color=plots.COLORS[0], linewidth=2, label="tuned encoder")
    axes.axhline(start, color=plots.COLORS[1], linestyle="--", label="untuned encoder")
    ticks = sizes
    if gain:
        last, twice = sizes[-1], 2 * sizes[-1]
        axes.errorbar(
            [twice],
            [curve[last] + gain["gain"]],
            [[gain["gain"] - gain["low"]], [gain["high"] - gain["gain"]]],
            fmt="o",
            color=plots.COLORS[6],
            capsize=5,
            label="expected at twice the data",
        )
        ticks = [*sizes, twice]
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{t:,}" for t in ticks])
    axes.set(xlabel="queries trained on (log scale)", ylabel="nDCG@10 on dev, small collection\n(does not start at 0)")
    axes.legend(frameon=False, fontsize=9)
    plots.bold_title(axes, "What more data buys")
    return figure


def page(collection: Collection, result: Mapping[str, Any]) -> str:
    """The report as HTML; ``result`` is what ``homework.run`` gathered."""
    board = read_scoreboard(collection) if result["final"] else pd.DataFrame(columns=["split", "system"])
    tables = scoreboards(board)
    for split, table in tables.items():
        if (table["$/1000 queries"].astype(float) == 0).all():
            tables[split] = table.drop(columns="$/1000 queries")
    reported = board[board["split"] == result["final"]]
    chosen = reported[reported["system"] == result["chosen"]]
    collect = next(v for v in result["verdicts"] if v.name == "collect more data first")
    curve = {int(size): score for size, score in result["curve"].items()}
    return render(
        "helpers.homework",
        collection=collection,
        result=result,
        collect=collect,
        scoreboards=tables,
        bars=png(_bars(reported, result["chosen"], result["final"], collect.yes)) if len(reported) else None,
        curve=png(_curve(curve, result["start"], result["gain"])) if curve else None,
        cost={name: value for name, value in result["cost"].items() if not math.isnan(value)},
        milliseconds=chosen["ms_per_query"].iloc[0] if len(chosen) else None,
        api_model=handover.API_MODEL,
        api_priced=priced(handover.API_MODEL),
        loading=handover.loading("chosen"),
    )


def write(collection: Collection, result: Mapping[str, Any]) -> Path:
    """Write ``build/<collection>/report.html`` and return its path."""
    path = collection.build / "report.html"
    write_text(path, page(collection, result))
    return path

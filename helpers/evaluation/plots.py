"""Figures of scores: each function draws one idea under a title that says the takeaway, and returns the Figure."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

# Colours that most eyes can tell apart.
COLORS = ["#2f6db5", "#d1682a", "#3a8f5c", "#8b5bb0", "#b8860b", "#c2477f", "#5f6b7a", "#1f9aa8"]
MARKERS = "osD^vPX*"
STYLE = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "figure.dpi": 100,
    "savefig.bbox": "tight",
}


def blank(width: float, height: float, columns: int = 1):
    """A figure of this size in inches in the course's style, and its axes: one, or an array of several side by side."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, columns, sharey=True, figsize=(width, height), layout="constrained")
    plt.close(figure)  # shown once, by the cell that returns it
    return figure, axes


def bold_title(axes, title: str, x: float = 0.0) -> None:
    """Put the takeaway in bold above the axes; it begins at ``x``, where 0 is the left end of the axes."""
    axes.set_title(title, loc="left", fontweight="bold", fontsize=12, x=x)


def look(i: int) -> dict[str, str]:
    """The colour and the marker of the i-th thing in a figure."""
    return {"color": COLORS[i % len(COLORS)], "marker": MARKERS[i % len(MARKERS)]}


def legend_beside(axes) -> None:
    """Put the legend to the right of the axes, where it hides nothing."""
    axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))


def write_above(axes, x: float, y: float, text: str) -> None:
    """Write a small text above a point."""
    axes.annotate(text, (x, y), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=8)


def interval_rows(table: pd.DataFrame, value: str, low: str, high: str, names: Sequence[str], colors=COLORS[0]):
    """A figure with a row per row of the table, the first one below: a dot at the value, a bar for its interval.

    ``value``, ``low`` and ``high`` are columns; ``colors`` is one colour or one per row. Returns figure and axes.
    """
    figure, axes = blank(8, 1.2 + 0.42 * len(table))
    positions = np.arange(len(table))
    axes.hlines(positions, table[low], table[high], colors=colors, alpha=0.45, linewidth=6)
    axes.scatter(table[value], positions, c=colors, s=64, zorder=3)
    axes.set(yticks=positions, yticklabels=names, ylim=(-0.6, len(table) - 0.4))
    return figure, axes


def log_milliseconds(axes) -> None:
    """Make the x axis one of milliseconds a query, on a log scale."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda ms, _: f"{ms:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("milliseconds a query, one at a time, on this machine (log scale)")


def efficient(table: pd.DataFrame, ms: str = "ms") -> pd.DataFrame:
    """The rows that no other row beats in both ``ms`` (lower is better) and ``ndcg@10`` (higher), fastest first.

    Where the table has ``ms_low`` and ``ms_high``, the spread of a time over its rounds, two rows whose spreads overlap
    are equally fast: of them only the better one is kept.
    """
    low, high = (table[name].fillna(table[ms]) if name in table else table[ms] for name in ("ms_low", "ms_high"))
    beaten = [
        bool(((low <= high[i]) & (table["ndcg@10"] > table.loc[i, "ndcg@10"])).any())
        or bool(((high < low[i]) & (table["ndcg@10"] >= table.loc[i, "ndcg@10"])).any())
        for i in table.index
    ]
    return table[~np.array(beaten, dtype=bool)].sort_values([ms, "ndcg@10"], ascending=[True, False])


def scores_with_intervals(board: pd.DataFrame, title: str) -> Figure:
    """nDCG@10 of each system with its 95 % interval, best on top; ``board`` has the scoreboard's columns."""
    rows = board.sort_values("ndcg@10")
    figure, axes = interval_rows(rows, "ndcg@10", "ndcg@10_low", "ndcg@10_high", rows["system"])
    for y, score in enumerate(rows["ndcg@10"]):
        write_above(axes, score, y, f"{score:.3f}")
    axes.set(xlabel="nDCG@10 (0 to 1, higher is better; bar: 95 % interval over queries)")
    axes.set_xlim(left=0)
    axes.set_ylim(top=len(rows) - 0.2)
    bold_title(axes, title)
    return figure


def differences(table: pd.DataFrame, baseline: str, title: str) -> Figure:
    """Mean difference of each system to a baseline with its 95 % interval; ``table`` is what ``compare`` gives.

    A system is in colour where p is below .05 after the correction for the comparisons made together (``adjusted``).
    """
    rows = table.sort_values("difference")
    colors = [
        COLORS[6] if p >= 0.05 else COLORS[2] if difference > 0 else COLORS[1]
        for p, difference in zip(rows["adjusted"], rows["difference"], strict=True)
    ]
    figure, axes = interval_rows(rows, "difference", "low", "high", rows.index, colors)
    axes.axvline(0, color="black", linewidth=1)
    axes.set(xlabel=f"difference in nDCG@10 to {baseline} (bar: 95 % interval; grey: not beyond luck)")
    bold_title(axes, title)
    return figure


def recall_curves(curves: Mapping[str, Mapping[int, float]], title: str) -> Figure:
    """Recall in percent against the number of passages looked at, one line a system."""
    figure, axes = blank(8, 4.4)
    for i, (name, curve) in enumerate(curves.items()):
        axes.plot(list(curve), list(curve.values()), **look(i), label=name, linewidth=2)
    ks = sorted({k for curve in curves.values() for k in curve})
    axes.set_xscale("log")
    axes.set_xticks(ks, [str(k) for k in ks], minor=False)
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set(xlabel="k: passages looked at (log scale)", ylabel="recall@k: right passages found", ylim=(0, 1))
    axes.legend(frameon=False, loc="upper left")
    bold_title(axes, title)
    return figure


def grouped_scores(table: pd.DataFrame, title: str, ylabel: str = "nDCG@10") -> Figure:
    """Bars of each system (columns) in each group of queries (rows)."""
    figure, axes = blank(max(6.5, 1.2 + 1.5 * len(table)), 3.8)
    width = 0.8 / len(table.columns)
    for i, name in enumerate(table.columns):
        positions = np.arange(len(table)) + (i - (len(table.columns) - 1) / 2) * width
        axes.bar(positions, table[name], width * 0.94, color=COLORS[i % 8], label=name)
    axes.set(xticks=range(len(table)), xticklabels=table.index, ylabel=ylabel)
    axes.set_ylim(0, 1.25 * float(np.nanmax(table.to_numpy())))
    axes.grid(axis="x", visible=False)
    axes.legend(frameon=False, ncols=min(4, len(table.columns)), loc="upper left")
    bold_title(axes, title)
    return figure


def scores_by_slice(table: pd.DataFrame, title: str) -> Figure:
    """A point for each system (rows, the best by the first column on top) and slice (columns); nDCG@10 to the right."""
    rows = table.sort_values(table.columns[0])
    figure, axes = blank(8, 1.2 + 0.34 * len(rows))
    heights = np.arange(len(rows))
    axes.hlines(heights, rows.min(axis=1), rows.max(axis=1), color="#d8dde5", linewidth=2, zorder=1)
    for i, name in enumerate(rows.columns):
        axes.scatter(rows[name], heights, s=60, **look(i), label=name, zorder=3)
    axes.set_yticks(heights, rows.index)
    axes.set(xlabel="nDCG@10", xlim=(0, 1.1 * float(np.nanmax(rows.to_numpy()))))
    axes.grid(axis="y", visible=False)
    legend_beside(axes)
    bold_title(axes, title)
    return figure


def quality_and_cost(board: pd.DataFrame, title: str) -> Figure:
    """nDCG@10 against milliseconds per query; a line joins the systems that no other beats on both.

    A bar through a point is the spread of its time over the rounds, where the board has it.
    """
    rows = board.dropna(subset=["ms_per_query"]).sort_values("ms_per_query").reset_index(drop=True)
    frontier = efficient(rows, "ms_per_query")
    figure, axes = blank(8, 4.4)
    axes.plot(frontier["ms_per_query"], frontier["ndcg@10"], color=COLORS[6], linestyle="--", zorder=1)
    for i, row in rows.iterrows():
        style = look(i) | {"color": COLORS[0] if i in frontier.index else COLORS[6]}
        axes.scatter(row["ms_per_query"], row["ndcg@10"], s=70, **style, label=row["system"], zorder=3)
        if "ms_low" in row and row["ms_low"] == row["ms_low"]:
            axes.plot([row["ms_low"], row["ms_high"]], [row["ndcg@10"]] * 2, color=style["color"], zorder=2)
    log_milliseconds(axes)
    axes.set(ylabel="nDCG@10")
    axes.set_ylim(bottom=0)
    legend_beside(axes)
    bold_title(axes, title)
    return figure


def weight_curve(means: Mapping[float, float], chosen: float, ends: tuple[str, str], title: str) -> Figure:
    """A measure against the weight of a fusion; ``ends`` name what weight 0 and weight 1 stand for."""
    figure, axes = _chosen_on_dev(means, chosen)
    axes.set(xlabel=f"weight (0: {ends[0]} alone, 1: {ends[1]} alone)", xlim=(-0.03, 1.03))
    bold_title(axes, title)
    return figure


def training_curve(curve: Sequence[Mapping[str, float]], start: float, chosen: int, title: str) -> Figure:
    """Dev nDCG@10 at each checkpoint, with the untrained model at step 0; a ring marks the chosen step.

    ``curve`` is ``record["dev"]["curve"]`` of a training, ``start`` the score of the untrained model.
    """
    figure, axes = _chosen_on_dev({0: start} | {point["step"]: point["dev"] for point in curve}, chosen)
    axes.set(xlabel="training step")
    bold_title(axes, title)
    return figure


def _chosen_on_dev(scores: Mapping[float, float], chosen: float):
    """Figure and axes with a line through {x: nDCG@10 on dev} and a ring around the chosen x."""
    figure, axes = blank(7, 3.4)
    axes.plot(list(scores), list(scores.values()), marker="o", color=COLORS[0], linewidth=2)
    ring = {"markerfacecolor": "none", "markeredgecolor": COLORS[1], "markeredgewidth": 2.5}
    axes.plot(chosen, scores[chosen], "o", markersize=14, **ring)
    axes.set(ylabel="nDCG@10 on dev", ylim=(0, 1.15 * max(scores.values())))
    return figure, axes

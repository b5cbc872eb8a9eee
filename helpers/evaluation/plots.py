"""The course's figures: each function draws one idea under a title that says the takeaway, and returns the Figure."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, PercentFormatter, ScalarFormatter

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


def bold_title(axes, title: str) -> None:
    """Put the takeaway in bold above the axes, at the left."""
    axes.set_title(title, loc="left", fontweight="bold", fontsize=12)


def scores_with_intervals(board: pd.DataFrame, title: str) -> Figure:
    """nDCG@10 of each system with its 95 % interval, best on top; ``board`` has the scoreboard's columns."""
    rows = board.sort_values("ndcg@10").reset_index(drop=True)
    figure, axes = blank(8, 1.2 + 0.42 * len(rows))
    axes.hlines(rows.index, rows["ndcg@10_low"], rows["ndcg@10_high"], color=COLORS[0], alpha=0.45, linewidth=6)
    axes.plot(rows["ndcg@10"], rows.index, "o", color=COLORS[0], markersize=8)
    for y, value in enumerate(rows["ndcg@10"]):
        axes.annotate(f"{value:.3f}", (value, y), xytext=(0, 8), textcoords="offset points", ha="center", fontsize=9)
    axes.set(
        yticks=rows.index,
        yticklabels=rows["system"],
        xlabel="nDCG@10 (0 to 1, higher is better; bar: 95 % interval over queries)",
    )
    axes.set_xlim(left=0)
    axes.set_ylim(-0.6, len(rows) - 0.2)
    bold_title(axes, title)
    return figure


def differences(table: pd.DataFrame, baseline: str, title: str) -> Figure:
    """Mean difference of each system to a baseline with its 95 % interval; ``table`` is what ``compare`` gives."""
    rows = table.sort_values("difference")
    figure, axes = blank(8, 1.2 + 0.42 * len(rows))
    colors = [
        COLORS[6] if p >= 0.05 else COLORS[2] if difference > 0 else COLORS[1]
        for p, difference in zip(rows["p"], rows["difference"], strict=True)
    ]
    positions = np.arange(len(rows))
    axes.axvline(0, color="black", linewidth=1)
    axes.hlines(positions, rows["low"], rows["high"], colors=colors, alpha=0.5, linewidth=6)
    axes.scatter(rows["difference"], positions, c=colors, s=60, zorder=3)
    axes.set(
        yticks=positions,
        yticklabels=rows.index,
        xlabel=f"difference in nDCG@10 to {baseline} (bar: 95 % interval; grey: p ≥ 0.05)",
    )
    axes.set_ylim(-0.6, len(rows) - 0.4)
    bold_title(axes, title)
    return figure


def recall_curves(curves: Mapping[str, Mapping[int, float]], title: str) -> Figure:
    """Recall in percent against the number of passages looked at, one line a system."""
    figure, axes = blank(8, 4.4)
    for i, (name, curve) in enumerate(curves.items()):
        axes.plot(
            list(curve), list(curve.values()), marker=MARKERS[i % 8], color=COLORS[i % 8], label=name, linewidth=2
        )
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


def quality_and_cost(board: pd.DataFrame, title: str) -> Figure:
    """nDCG@10 against milliseconds per query; a line joins the systems that no other beats on both."""
    rows = board.dropna(subset=["ms_per_query"]).sort_values("ms_per_query").reset_index(drop=True)
    figure, axes = blank(8, 4.4)
    best, frontier = -1.0, []
    for i, score in enumerate(rows["ndcg@10"]):
        if score > best:
            best = score
            frontier.append(i)
    axes.plot(
        rows.loc[frontier, "ms_per_query"], rows.loc[frontier, "ndcg@10"], color=COLORS[6], linestyle="--", zorder=1
    )
    for i, row in rows.iterrows():
        color = COLORS[0] if i in frontier else COLORS[6]
        axes.scatter(
            row["ms_per_query"], row["ndcg@10"], s=70, color=color, marker=MARKERS[i % 8], label=row["system"], zorder=3
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="milliseconds a query, one at a time, on this machine (log scale)", ylabel="nDCG@10")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    bold_title(axes, title)
    return figure


def similarity_matrix(similarities: np.ndarray, labels: list[str], title: str) -> Figure:
    """Cosine similarities of a few texts as a labelled heat map."""
    figure, axes = blank(1.6 * len(labels) + 3.2, 0.9 * len(labels) + 1.2)
    image = axes.imshow(similarities, vmin=0, vmax=1, cmap="Blues")
    for (row, column), value in np.ndenumerate(similarities):
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", color="white" if value > 0.6 else "black")
    axes.set(xticks=range(len(labels)), yticks=range(len(labels)), yticklabels=labels)
    axes.set_xticklabels([str(i + 1) for i in range(len(labels))])
    axes.grid(visible=False)
    figure.colorbar(image, ax=axes, label="cosine similarity")
    bold_title(axes, title)
    return figure


def weight_curve(means: Mapping[float, float], chosen: float, ends: tuple[str, str], title: str) -> Figure:
    """A measure against the weight of a fusion; ``ends`` name what weight 0 and weight 1 stand for."""
    figure, axes = blank(7, 3.4)
    axes.plot(list(means), list(means.values()), marker="o", color=COLORS[0], linewidth=2)
    axes.plot(
        chosen,
        means[chosen],
        marker="o",
        markersize=14,
        markerfacecolor="none",
        markeredgecolor=COLORS[1],
        markeredgewidth=2.5,
    )
    axes.set(xlabel=f"weight (0: {ends[0]} alone, 1: {ends[1]} alone)", ylabel="nDCG@10 on dev", xlim=(-0.03, 1.03))
    axes.set_ylim(0, 1.15 * max(means.values()))
    bold_title(axes, title)
    return figure


def training_curve(curve: Sequence[Mapping[str, float]], start: float, chosen: int, title: str) -> Figure:
    """Dev nDCG@10 at each checkpoint, with the untrained model at step 0; a ring marks the chosen step.

    ``curve`` is ``record["dev"]["curve"]`` of a training, ``start`` the score of the untrained model.
    """
    steps = [0, *(point["step"] for point in curve)]
    values = [start, *(point["dev"] for point in curve)]
    figure, axes = blank(7, 3.4)
    axes.plot(steps, values, marker="o", color=COLORS[0], linewidth=2)
    axes.plot(
        chosen,
        values[steps.index(chosen)],
        "o",
        markersize=14,
        markerfacecolor="none",
        markeredgecolor=COLORS[1],
        markeredgewidth=2.5,
    )
    axes.set(xlabel="training step", ylabel="nDCG@10 on dev")
    axes.set_ylim(0, 1.15 * max(values))
    bold_title(axes, title)
    return figure

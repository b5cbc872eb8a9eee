"""More of the course's figures: distributions, maps, matrices and rates.

Each function takes the title as an argument: it states the takeaway.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from helpers.evaluation.plots import COLORS, MARKERS, blank, bold_title


def similarity_histograms(kinds: Mapping[str, tuple[Sequence[float], Sequence[float]]], title: str) -> Figure:
    """Draw one panel per kind of negatives: the cosine of the anchor to its positive, and to its negatives."""
    figure, panels = blank(2.5 * len(kinds) + 0.5, 3.2, columns=len(kinds))
    everything = np.concatenate([np.asarray(v, dtype=float) for pair in kinds.values() for v in pair])
    edges = np.linspace(everything.min(), everything.max(), 25)
    for axes, (kind, (positive, negative)) in zip(np.atleast_1d(panels), kinds.items(), strict=True):
        for values, color, label in ((negative, COLORS[1], "negative"), (positive, COLORS[0], "positive")):
            axes.hist(
                values,
                edges,
                weights=np.full(len(values), 1 / max(1, len(values))),
                color=color,
                alpha=0.55,
                label=label,
            )
        axes.set_title(kind, fontsize=11)
        axes.set(xlabel="cosine to the anchor")
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    np.atleast_1d(panels)[0].set_ylabel("share")
    np.atleast_1d(panels)[-1].legend(frameon=False, fontsize=9)
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=12)
    return figure


def text_map(groups: Mapping[str, np.ndarray], title: str) -> Figure:
    """Draw texts as points in the plane, with one colour and marker per group.

    Texts that are alike lie near each other; the axes mean nothing.
    """
    figure, axes = blank(8, 5.6)
    for i, (name, points) in enumerate(groups.items()):
        axes.scatter(
            points[:, 0],
            points[:, 1],
            s=12 + 8 * i,
            alpha=0.65,
            color=COLORS[(6, 0, 1, 2)[i % 4]],
            marker=MARKERS[i % 8],
            linewidths=0,
            label=name,
        )
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    bold_title(axes, title)
    return figure


def agreement(first: Mapping[str, float], second: Mapping[str, float], xlabel: str, ylabel: str, title: str) -> Figure:
    """Draw one point per system: its score by one evaluation against its score by another."""
    figure, axes = blank(7.5, 4.4)
    for i, name in enumerate(first):
        axes.scatter(first[name], second[name], s=80, color=COLORS[i % 8], marker=MARKERS[i % 8], label=name, zorder=3)
    axes.set(xlabel=xlabel, ylabel=ylabel, xlim=(0, 1.15 * max(first.values())), ylim=(0, 1.15 * max(second.values())))
    axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    bold_title(axes, title)
    return figure


def confusion(matrices: Mapping[str, pd.DataFrame], title: str) -> Figure:
    """Draw one panel per judge: how many pairs of each true grade (rows) the judge gave which grade (columns)."""
    figure, panels = blank(3.2 * len(matrices) + 0.6, 3.4, columns=len(matrices))
    for axes, (name, matrix) in zip(np.atleast_1d(panels), matrices.items(), strict=True):
        counts = matrix.to_numpy()
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
        for (row, column), count in np.ndenumerate(counts):
            axes.text(
                column,
                row,
                f"{count}",
                ha="center",
                va="center",
                color="white" if shares[row, column] > 0.6 else "black",
            )
        axes.set(
            xticks=range(len(counts)),
            yticks=range(len(counts)),
            xlabel="grade by the judge",
            xticklabels=matrix.columns,
            yticklabels=matrix.index,
        )
        axes.set_title(name, fontsize=11)
        axes.grid(visible=False)
    np.atleast_1d(panels)[0].set_ylabel("true grade")
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=12)
    return figure


def rates(table: pd.DataFrame, xlabel: str, title: str) -> Figure:
    """Draw one rate per row, the first row on top, with its 95 % interval if the table has one.

    ``table`` has the columns rate, low and high, or rate alone; all are in [0, 1].
    """
    rows = table.iloc[::-1]
    figure, axes = blank(8, 1.2 + 0.42 * len(rows))
    positions = np.arange(len(rows))
    if "low" in rows:
        axes.hlines(positions, rows["low"], rows["high"], color=COLORS[0], alpha=0.45, linewidth=6)
        axes.plot(rows["rate"], positions, "o", color=COLORS[0], markersize=8)
    else:
        axes.barh(positions, rows["rate"], color=COLORS[0], height=0.65)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set(yticks=positions, yticklabels=rows.index, xlabel=xlabel)
    axes.set_xlim(left=0)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.grid(axis="y", visible=False)
    bold_title(axes, title)
    return figure


def by_rank(lines: Mapping[str, Mapping[int, float]], ylabel: str, title: str) -> Figure:
    """Draw a value against the rank at which a passage was shown, one line per group.

    The line is dashed if the group's name contains "corrected".
    """
    figure, axes = blank(8, 3.8)
    for i, (name, line) in enumerate(lines.items()):
        style = "--" if "corrected" in name else "-"
        axes.plot(
            list(line),
            list(line.values()),
            marker=MARKERS[i % 8],
            color=COLORS[i % 8],
            linestyle=style,
            linewidth=2,
            label=name,
        )
    axes.set(xlabel="rank at which the passage was shown", ylabel=ylabel)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    bold_title(axes, title)
    return figure

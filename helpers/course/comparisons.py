"""Figures that compare two models, show what more training examples bring, and what quality costs.

Each function takes the title as an argument: it states the takeaway.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, ScalarFormatter

from helpers.evaluation.plots import COLORS, MARKERS, blank, bold_title


def two_maps(panels: Mapping[str, tuple[np.ndarray, np.ndarray]], title: str) -> Figure:
    """Draw queries and their right passages in the plane, one panel per model; lines join each query and its passage.

    ``panels`` maps a model's name to two arrays of shape (n, 2): the queries, and their passages in the same order.
    """
    figure, axes = blank(9.5, 4.6, columns=len(panels))
    everything = np.concatenate([points for pair in panels.values() for points in pair])
    for ax, (name, (queries, passages)) in zip(np.atleast_1d(axes), panels.items(), strict=True):
        ax.add_collection(
            LineCollection(np.stack([queries, passages], axis=1), colors="#9aa4b2", linewidths=0.8, alpha=0.7)
        )
        ax.scatter(*passages.T, s=22, color=COLORS[0], marker="s", linewidths=0, alpha=0.85, label="right passage")
        ax.scatter(*queries.T, s=26, color=COLORS[1], marker="o", linewidths=0, alpha=0.85, label="query")
        ax.set(xticks=[], yticks=[], xlabel=f"{name}: mean gap {np.linalg.norm(queries - passages, axis=1).mean():.2f}")
        ax.set_xlim(everything[:, 0].min() * 1.05, everything[:, 0].max() * 1.05)
        ax.set_ylim(everything[:, 1].min() * 1.05, everything[:, 1].max() * 1.05)
        ax.grid(visible=False)
    np.atleast_1d(axes)[0].legend(frameon=False, fontsize=9, loc="upper left")
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=12)
    return figure


def rank_shifts(
    before: Sequence[int], after: Sequence[int], deepest: int, names: tuple[str, str], title: str
) -> Figure:
    """Draw one point per query: the rank of its first right passage by two systems.

    Below the diagonal the second system is better. Ranks count from 1; a passage that was not found within
    ``deepest`` gets the rank ``deepest`` + 1.
    """
    figure, axes = blank(5.8, 5.2)
    rng = np.random.default_rng(0)
    x, y = (np.asarray(r, dtype=float) * np.exp(rng.normal(0, 0.045, len(r))) for r in (before, after))
    better, worse = np.asarray(after) < np.asarray(before), np.asarray(after) > np.asarray(before)
    for chosen, color, label in (
        (better, COLORS[2], "better"),
        (worse, COLORS[1], "worse"),
        (~(better | worse), COLORS[6], "the same"),
    ):
        axes.scatter(x[chosen], y[chosen], s=22, alpha=0.6, color=color, linewidths=0, label=f"{label}: {chosen.sum()}")
    axes.plot([0.8, deepest * 1.4], [0.8, deepest * 1.4], color="black", linewidth=1)
    ticks = [t for t in (1, 3, 10, 30, 100) if t < deepest] + [deepest + 1]
    labels = [str(t) if t <= deepest else f">{deepest}" for t in ticks]
    for axis in (axes.xaxis, axes.yaxis):
        axis.axes.set_xscale("log")
        axis.axes.set_yscale("log")
    axes.set_xticks(ticks, labels, minor=False)
    axes.set_yticks(ticks, labels, minor=False)
    axes.minorticks_off()
    axes.set(xlabel=f"rank of the first right passage, {names[0]}", ylabel=f"the same, {names[1]}")
    axes.legend(frameon=True, fontsize=9, loc="upper left")
    bold_title(axes, title)
    return figure


def learning_curve(table: pd.DataFrame, lines: Mapping[str, float], title: str) -> Figure:
    """Draw nDCG@10 against the number of training questions: a dot per seed, and a line through the means.

    ``table`` has the columns questions and ndcg@10; ``lines`` are the scores of untrained systems, drawn dashed.
    """
    figure, axes = blank(8.5, 4.6)
    means = table.groupby("questions")["ndcg@10"].mean()
    positions = {size: i for i, size in enumerate(means.index)}
    axes.plot(
        range(len(means)),
        means,
        color=COLORS[0],
        linewidth=2,
        marker="o",
        markersize=8,
        label="tuned encoder, mean of the seeds",
    )
    axes.scatter(
        [positions[q] for q in table["questions"]],
        table["ndcg@10"],
        s=22,
        color=COLORS[0],
        alpha=0.5,
        label="one seed",
        zorder=3,
    )
    for i, (name, value) in enumerate(lines.items()):
        axes.axhline(value, color=COLORS[1:][i % 7], linestyle="--", linewidth=1.5, label=f"{name} ({value:.3f})")
    axes.set(
        xticks=range(len(means)),
        xticklabels=[f"{size:,}" for size in means.index],
        xlabel="questions trained on (not to scale)",
        ylabel="nDCG@10 on dev",
    )
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    bold_title(axes, title)
    return figure


def seeds(table: pd.DataFrame, baseline: float, xlabel: str, title: str) -> Figure:
    """Draw one row per name: a dot for each seed and a bar up to their mean; the dashed line is the untrained model.

    ``table`` has the columns name and small dev; ``baseline`` is the untrained model's score.
    """
    means = table.groupby("name")["small dev"].mean().sort_values()
    figure, axes = blank(8, 1.3 + 0.42 * len(means))
    axes.barh(range(len(means)), means, color=COLORS[0], alpha=0.3, height=0.65)
    places = {name: i for i, name in enumerate(means.index)}
    axes.scatter(table["small dev"], [places[name] for name in table["name"]], s=28, color=COLORS[0], zorder=3)
    axes.axvline(baseline, color=COLORS[1], linestyle="--", linewidth=1.5)
    axes.annotate(
        "untrained",
        (baseline, len(means) - 0.45),
        xytext=(4, 0),
        textcoords="offset points",
        fontsize=9,
        color=COLORS[1],
    )
    axes.set(yticks=range(len(means)), yticklabels=means.index, xlabel=xlabel)
    axes.set_xlim(0.8 * min(baseline, table["small dev"].min()), 1.04 * table["small dev"].max())
    axes.grid(axis="y", visible=False)
    bold_title(axes, title)
    return figure


def quality_per_byte(table: pd.DataFrame, title: str) -> Figure:
    """Draw nDCG@10 against the bytes that a passage takes, one line per model and precision.

    ``table`` has the columns precision, width, bytes, ndcg@10 and model. The lines of its first model are solid; the
    numbers at their points are widths.
    """
    figure, axes = blank(8.5, 4.4)
    for i, ((model, precision), rows) in enumerate(table.groupby(["model", "precision"], sort=False)):
        rows = rows.sort_values("bytes")
        style = "-" if model == table["model"].iloc[0] else ":"
        axes.plot(
            rows["bytes"],
            rows["ndcg@10"],
            style,
            marker=MARKERS[i % 3],
            color=COLORS[i % 8],
            linewidth=2,
            label=f"{model}, {precision}",
        )
        if style == "-":
            for _, row in rows.iterrows():
                axes.annotate(
                    f"{row['width']:.0f}",
                    (row["bytes"], row["ndcg@10"]),
                    xytext=(0, 7),
                    textcoords="offset points",
                    fontsize=8,
                    ha="center",
                )
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set(xlabel="bytes a passage (log scale); the small numbers are dimensions", ylabel="nDCG@10")
    axes.set_ylim(0, 1.18 * table["ndcg@10"].max())
    axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    bold_title(axes, title)
    return figure


def efficient(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that no other row beats in both ``ms`` (lower is better) and ``ndcg@10`` (higher), fastest first."""
    rows = table.sort_values(["ms", "ndcg@10"], ascending=[True, False])
    return rows[rows["ndcg@10"] > rows["ndcg@10"].cummax().shift(fill_value=-1.0)]


def trade_off(table: pd.DataFrame, title: str) -> Figure:
    """Draw nDCG@10 against milliseconds per query, one line per pair of first stage and reranker.

    The numbers at the points say how many passages are reranked; the grey band is the frontier, where no system is both
    better and faster. ``table`` has the columns first, reranker, k, ms and ndcg@10.
    """
    figure, axes = blank(9, 5)
    frontier = efficient(table)
    axes.plot(
        frontier["ms"],
        frontier["ndcg@10"],
        color="#c3cad4",
        linewidth=9,
        solid_capstyle="round",
        label="nothing is better and faster",
        zorder=1,
    )
    firsts = list(dict.fromkeys(table["first"]))
    rerankers = list(dict.fromkeys(table["reranker"]))
    for (first, reranker), rows in table.groupby(["first", "reranker"], sort=False):
        rows, style = rows.sort_values("k"), ("-", ":")[firsts.index(first) % 2]
        i = rerankers.index(reranker)
        axes.plot(
            rows["ms"],
            rows["ndcg@10"],
            style,
            marker=MARKERS[i % 8],
            color=COLORS[i % 8],
            label=f"{first} → {reranker}",
            zorder=3,
        )
        for _, row in rows[rows["k"] > 0].iterrows():
            axes.annotate(
                f"{row['k']:.0f}",
                (row["ms"], row["ndcg@10"]),
                xytext=(0, 6),
                textcoords="offset points",
                fontsize=8,
                ha="center",
            )
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="milliseconds a query, one at a time, on this machine (log scale)", ylabel="nDCG@10 on dev")
    axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    bold_title(axes, title)
    return figure


def token_scores(scores: np.ndarray, query: Sequence[str], passage: Sequence[str], title: str) -> Figure:
    """Draw the cosine of each query token (rows) to each passage token (columns).

    A frame marks the best passage token of each row: these are the values that MaxSim uses.
    """
    figure, axes = blank(max(7.0, 1.8 + 0.34 * len(passage)), 1.6 + 0.3 * len(query))
    axes.imshow(scores, cmap="Blues", vmin=0, vmax=max(0.01, float(scores.max())), aspect="auto")
    axes.scatter(
        scores.argmax(axis=1),
        range(len(query)),
        s=110,
        marker="s",
        facecolors="none",
        edgecolors=COLORS[1],
        linewidths=1.8,
    )
    axes.xaxis.set_major_locator(FixedLocator(range(len(passage))))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: passage[int(x)]))
    axes.tick_params(axis="x", rotation=90)
    axes.set(yticks=range(len(query)), yticklabels=query)
    axes.grid(visible=False)
    bold_title(axes, title)
    return figure

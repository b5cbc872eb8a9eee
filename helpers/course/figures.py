"""The figures of single notebooks: heat maps, maps, curves, distributions, and what quality costs.

Each function takes the title as an argument, which states the takeaway, and returns the Figure.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch, Polygon
from matplotlib.ticker import PercentFormatter, ScalarFormatter

from helpers.course.shop import Product
from helpers.evaluation.plots import (
    COLORS,
    MARKERS,
    blank,
    bold_title,
    efficient,
    interval_rows,
    legend_beside,
    log_milliseconds,
    look,
    write_above,
)

PAINT = {
    "red": "#c8322b",
    "navy": "#22335c",
    "white": "#f7f5ef",
    "olive": "#6b6b35",
    "black": "#262626",
    "grey": "#8d9299",
    "orange": "#e07a2b",
    "green": "#3d7a4a",
    "blue": "#4a78b8",
    "pink": "#e7a3b5",
    "sand": "#d8c39a",
    "teal": "#2a8a8a",
    "yellow": "#e8c53a",
    "cream": "#efe3c8",
    "purple": "#7a5494",
    "burgundy": "#6e1f33",
    "charcoal": "#4a4d52",
    "brown": "#7a5437",
}
BODY = [
    (-0.2, 0.42),
    (0.2, 0.42),
    (0.28, 0.36),
    (0.48, 0.1),
    (0.32, -0.02),
    (0.24, 0.1),
    (0.24, -0.45),
    (-0.24, -0.45),
    (-0.24, 0.1),
    (-0.32, -0.02),
    (-0.48, 0.1),
    (-0.28, 0.36),
]
SHAPES = {
    "top": [BODY],
    "layer": [[*BODY[:3], (0.5, -0.3), (0.36, -0.34), *BODY[5:9], (-0.36, -0.34), (-0.5, -0.3), BODY[-1]]],
    "bottom": [[(-0.26, 0.45), (0.26, 0.45), (0.3, -0.45), (0.08, -0.45), (0, 0.15), (-0.08, -0.45), (-0.3, -0.45)]],
    "shoes": [[(-0.45, -0.2), (-0.45, 0.25), (-0.15, 0.25), (0, 0.05), (0.42, -0.05), (0.46, -0.2)]],
    "bag": [[(-0.35, 0.1), (0.35, 0.1), (0.42, -0.4), (-0.42, -0.4)]],
    "skirt": [[(-0.2, 0.3), (0.2, 0.3), (0.38, -0.35), (-0.38, -0.35)]],
    "shorts": [[(-0.28, 0.3), (0.28, 0.3), (0.34, -0.2), (0.06, -0.2), (0, 0.02), (-0.06, -0.2), (-0.34, -0.2)]],
    "tie": [[(-0.08, 0.42), (0.08, 0.42), (0.05, 0.3), (0.13, -0.3), (0, -0.46), (-0.13, -0.3), (-0.05, 0.3)]],
    "hat": [
        [
            (-0.48, -0.12),
            (-0.26, -0.08),
            (-0.24, 0.2),
            (-0.1, 0.3),
            (0.1, 0.3),
            (0.24, 0.2),
            (0.26, -0.08),
            (0.48, -0.12),
        ]
    ],
    "accessory": [[(-0.4, 0.12), (0.4, 0.12), (0.4, -0.12), (-0.4, -0.12)]],
}


def _side_by_side(columns: int, width: float, height: float, title: str) -> Figure:
    """A figure with empty axes side by side under one title."""
    figure, _ = blank(width, height, columns=columns)
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=12)
    return figure


# Heat maps


def _shade(axes, table: pd.DataFrame, texts: np.ndarray | None = None, darkest: float = 1.0) -> None:
    """Draw a table in blues, from white for 0 to the darkest, with its rows' names and a text in each cell, if any."""
    axes.imshow(table.to_numpy(), vmin=0, vmax=darkest, cmap="Blues", aspect="auto")
    for (row, column), text in np.ndenumerate(texts if texts is not None else np.empty((0, 0))):
        color = "white" if table.iat[row, column] > 0.6 * darkest else "black"
        axes.text(column, row, text, ha="center", va="center", fontsize=9, color=color)
    axes.set(yticks=range(len(table)), yticklabels=table.index)
    axes.grid(visible=False)


def heat_map(table: pd.DataFrame, title: str, label: str = "cosine similarity") -> Figure:
    """Draw numbers from 0 to 1 as colours, with each number written in its cell; ``label`` says what they are."""
    figure, axes = blank(3.4 + 0.8 * len(table.columns), 1.9 + 0.42 * len(table))
    _shade(axes, table, np.vectorize("{:.2f}".format)(table.to_numpy()))
    axes.set_xticks(range(len(table.columns)), table.columns, rotation=30, ha="right")
    axes.set(xlabel=label)
    bold_title(axes, title, x=-0.25 if len(table.columns) < 4 else 0)
    return figure


def confusion(matrices: Mapping[str, pd.DataFrame], title: str) -> Figure:
    """Draw one panel per judge: how many pairs of each true grade (rows) the judge gave which grade (columns)."""
    figure = _side_by_side(len(matrices), 3.2 * len(matrices) + 0.6, 3.4, title)
    for axes, (name, counts) in zip(figure.axes, matrices.items(), strict=True):
        _shade(axes, counts.div(counts.sum(axis=1).clip(lower=1), axis=0), counts.to_numpy())
        axes.set(xticks=range(len(counts)), xticklabels=counts.columns, xlabel="grade by the judge", aspect="equal")
        axes.set_title(name, fontsize=11)
    figure.axes[0].set_ylabel("true grade")
    return figure


def token_scores(scores: np.ndarray, query: Sequence[str], passage: Sequence[str], title: str) -> Figure:
    """Draw the cosine of each query token (rows) to each passage token (columns).

    A frame marks the best passage token of each row: these are the values that MaxSim uses.
    """
    figure, axes = blank(max(7.0, 1.8 + 0.34 * len(passage)), 1.6 + 0.3 * len(query))
    _shade(axes, pd.DataFrame(scores, index=query), darkest=max(0.01, float(scores.max())))
    frames = {"s": 110, "marker": "s", "facecolors": "none", "edgecolors": COLORS[1], "linewidths": 1.8}
    axes.scatter(scores.argmax(axis=1), range(len(query)), **frames)
    axes.set_xticks(range(len(passage)), passage, rotation=90)
    bold_title(axes, title)
    return figure


# Maps


def two_maps(panels: Mapping[str, tuple[np.ndarray, np.ndarray]], title: str) -> Figure:
    """Draw queries and their right passages in the plane, one panel per model; lines join each query and its passage.

    ``panels`` maps a model's name to two arrays of shape (n, 2): the queries, and their passages in the same order.
    """
    figure = _side_by_side(len(panels), 9.5, 4.6, title)
    points = np.concatenate([points for pair in panels.values() for points in pair])
    low, high = 1.05 * points.min(axis=0), 1.05 * points.max(axis=0)
    for axes, (name, (queries, passages)) in zip(figure.axes, panels.items(), strict=True):
        pairs = np.stack([queries, passages], axis=1)
        axes.add_collection(LineCollection(pairs, colors="#9aa4b2", linewidths=0.8, alpha=0.7))
        axes.scatter(*passages.T, s=22, color=COLORS[0], marker="s", linewidths=0, alpha=0.85, label="right passage")
        axes.scatter(*queries.T, s=26, color=COLORS[1], marker="o", linewidths=0, alpha=0.85, label="query")
        gap = np.linalg.norm(queries - passages, axis=1).mean()
        axes.set(xticks=[], yticks=[], xlim=(low[0], high[0]), ylim=(low[1], high[1]))
        axes.set_xlabel(f"{name}: mean gap {gap:.2f}")
        axes.grid(visible=False)
    figure.axes[0].legend(frameon=False, fontsize=9, loc="upper left")
    return figure


def text_map(groups: Mapping[str, np.ndarray], title: str) -> Figure:
    """Draw texts as points in the plane, with one colour and marker per group.

    Texts that are alike lie near each other; the axes mean nothing.
    """
    figure, axes = blank(8, 5.6)
    for i, (name, points) in enumerate(groups.items()):
        style = look(i) | {"color": COLORS[(6, 0, 1, 2)[i % 4]]}
        axes.scatter(*points.T, s=12 + 8 * i, alpha=0.65, linewidths=0, label=name, **style)
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    bold_title(axes, title)
    return figure


def labelled_maps(
    panels: Mapping[str, np.ndarray],
    labels: Sequence[str],
    title: str,
    marks: Sequence[str] | None = None,
    one_scale: bool = False,
) -> Figure:
    """Draw the same items by several models, one panel per model, coloured by label.

    ``panels`` maps a model's name to points of shape (items, 2); ``marks`` choose the shape of each point. With
    ``one_scale`` all panels show the same part of one plane; without it the points of each fill its panel.
    """
    figure = _side_by_side(len(panels), 4.4 * len(panels) + 1.4, 4.6, title)
    kinds, shapes = sorted(set(labels)), sorted(set(marks or [""]))
    marks, labels = np.asarray(marks or [""] * len(labels)), np.asarray(labels)
    all_points = np.vstack(list(panels.values()))
    for axes, (name, points) in zip(figure.axes, panels.items(), strict=True):
        extent = all_points if one_scale else points
        low, high = extent.min(axis=0), extent.max(axis=0)
        points = (points - low) / np.maximum(high - low, 1e-9)
        for i, kind in enumerate(kinds):
            for j, shape in enumerate(shapes):
                chosen = (labels == kind) & (marks == shape)
                if not chosen.any():
                    continue
                style = {"color": COLORS[i % 8], "marker": MARKERS[(j + i // 8) % 8], "alpha": 0.8, "linewidths": 0}
                axes.scatter(*points[chosen].T, s=42, **style, label=", ".join(filter(None, (kind, shape))))
        axes.set(xticks=[], xlim=(-0.07, 1.07), ylim=(-0.07, 1.07))
        axes.tick_params(axis="y", left=False, labelleft=False)
        axes.spines[:].set_visible(True)
        axes.set_title(name, fontsize=11)
        axes.grid(visible=False)
    figure.axes[-1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def pull_and_push(
    paths: np.ndarray, losses: Sequence[float], margin: float, moments: Sequence[int], title: str
) -> Figure:
    """Draw anchor, positive and negative at a few moments of a training, and the loss at each step.

    ``paths`` has the shape (steps, 3, 2): the positions of anchor, positive and negative after each step; ``moments``
    are the steps to draw.
    """
    figure = _side_by_side(len(moments) + 1, 11.5, 3.1, title)
    *panels, last = figure.axes
    names, colors = ("anchor", "positive", "negative"), (COLORS[6], COLORS[2], COLORS[1])
    for axes, moment in zip(panels, moments, strict=True):
        axes.add_patch(Circle((0, 0), 1, fill=False, color="#c9ced6"))
        for i, (name, color) in enumerate(zip(names, colors, strict=True)):
            axes.plot(*paths[: moment + 1, i].T, color=color, alpha=0.5)
            axes.plot([0, paths[moment, i, 0]], [0, paths[moment, i, 1]], color=color, linewidth=2)
            axes.plot(*paths[moment, i], MARKERS[i], color=color, markersize=9, label=name)
        axes.set(xlim=(-1.25, 1.25), ylim=(-1.25, 1.25), xticks=[], yticks=[], aspect="equal")
        axes.set_title(f"step {moment}", fontsize=10)
        axes.spines[:].set_visible(False)
        axes.grid(visible=False)
    panels[0].legend(frameon=False, fontsize=8, loc="lower left")
    last.remove()  # it shares its y axis with the panels
    last = figure.add_subplot(1, len(moments) + 1, len(moments) + 1)
    last.plot(losses, color=COLORS[0], linewidth=2)
    last.set(xlabel="step", ylabel=f"loss (margin {margin:g})", ylim=(0, None))
    last.grid(alpha=0.3)
    return figure


def _garment(axes, product: Product) -> None:
    paint = PAINT.get(product.colour, "#cccccc")
    worn = product.type.replace("cap", "hat").replace("beanie", "hat").split()[-1]
    for outline in SHAPES.get(worn, SHAPES[product.role]):
        axes.add_patch(Polygon(outline, closed=True, facecolor=paint, edgecolor="#444444", linewidth=1))
    if product.role == "bag":
        axes.add_patch(Circle((0, 0.12), 0.2, fill=False, edgecolor="#444444", linewidth=2, zorder=0))
    if product.role == "layer":
        axes.plot([0, 0], [0.42, -0.45], color="#444444", linewidth=1)


def wardrobe(rows: Mapping[str, Sequence[Product]], right: Mapping[str, Sequence[bool]], title: str) -> Figure:
    """Draw one row per model: the product asked about, then its neighbours.

    A green frame marks a neighbour that the row's objective wants.
    """
    count = max(map(len, rows.values()))
    figure, axes = blank(1.75 * count + 1.2, 2.25 * len(rows) + 0.4)
    for r, (name, products) in enumerate(rows.items()):
        y = -r * 1.5
        axes.text(-0.75, y, name.replace(": ", ":\n"), ha="right", va="center", fontsize=10, fontweight="bold")
        for c, product in enumerate(products):
            x = c * 1.25
            mark = None if c == 0 else right[name][c - 1]
            edge = COLORS[6] if c == 0 else COLORS[2] if mark else "#d5d9df"
            axes.add_patch(
                FancyBboxPatch(
                    (x - 0.5, y - 0.5),
                    1,
                    1,
                    boxstyle="round,pad=0.03",
                    facecolor="#eef1f5",
                    edgecolor=edge,
                    linewidth=2.6 if mark else 1.2,
                )
            )
            inset = axes.inset_axes((x - 0.5, y - 0.5, 1, 1), transform=axes.transData)
            _garment(inset, product)
            inset.set(xlim=(-0.62, 0.62), ylim=(-0.62, 0.62), aspect="equal")
            inset.axis("off")
            axes.text(x, y - 0.58, f"{product.colour} {product.type}\n{product.cut}", ha="center", va="top", fontsize=8)
    axes.set(xlim=(-2.3, 1.25 * count - 0.6), ylim=(-1.5 * (len(rows) - 1) - 0.95, 0.62), aspect="equal")
    axes.axis("off")
    bold_title(axes, title)
    return figure


# Distributions, rates and curves


def similarity_histograms(kinds: Mapping[str, tuple[Sequence[float], Sequence[float]]], title: str) -> Figure:
    """Draw one panel per kind of negatives: the cosine of the anchor to its positive, and to its negatives."""
    figure = _side_by_side(len(kinds), 2.5 * len(kinds) + 0.5, 3.2, title)
    cosines = np.concatenate([np.asarray(side, dtype=float) for pair in kinds.values() for side in pair])
    edges = np.linspace(cosines.min(), cosines.max(), 25)
    for axes, (kind, (positive, negative)) in zip(figure.axes, kinds.items(), strict=True):
        for values, color, label in ((negative, COLORS[1], "negative"), (positive, COLORS[0], "positive")):
            share = np.full(len(values), 1 / max(1, len(values)))
            axes.hist(values, edges, weights=share, color=color, alpha=0.55, label=label)
        axes.set_title(kind, fontsize=11)
        axes.set(xlabel="cosine to the anchor")
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    figure.axes[0].set_ylabel("share")
    figure.axes[-1].legend(frameon=False, fontsize=9)
    return figure


def rates(table: pd.DataFrame, xlabel: str, title: str) -> Figure:
    """Draw one rate per row, the first row on top, with its 95 % interval if the table has one.

    ``table`` has the columns rate, low and high, or rate alone; all are in [0, 1].
    """
    rows = table.iloc[::-1]
    if "low" in rows:
        figure, axes = interval_rows(rows, "rate", "low", "high", rows.index)
    else:
        figure, axes = blank(8, 1.2 + 0.42 * len(rows))
        axes.barh(range(len(rows)), rows["rate"], color=COLORS[0], height=0.65)
        axes.set(yticks=range(len(rows)), yticklabels=rows.index, ylim=(-0.6, len(rows) - 0.4))
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set(xlabel=xlabel)
    axes.set_xlim(left=0)
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
        axes.plot(list(line), list(line.values()), **look(i), linestyle=style, linewidth=2, label=name)
    axes.set(xlabel="rank at which the passage was shown", ylabel=ylabel)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    bold_title(axes, title)
    return figure


def roc_curves(curves: Mapping[str, tuple[np.ndarray, np.ndarray]], title: str) -> Figure:
    """Draw the true against the false positive rate, one line per model; the dashed diagonal is guessing."""
    figure, axes = blank(5.6, 4.8)
    for i, (name, (false, true)) in enumerate(curves.items()):
        axes.plot(false, true, color=COLORS[i % 8], linewidth=2, label=name)
    axes.plot([0, 1], [0, 1], color=COLORS[6], linestyle="--", linewidth=1)
    axes.set(xlabel="pairs without a like that rank above the line", ylabel="likes that rank above it")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    bold_title(axes, title)
    return figure


def spread_lines(frames: Mapping[str, pd.DataFrame], x: str, y: str, xlabel: str, ylabel: str, title: str) -> Figure:
    """Draw the mean of ``y`` at each ``x``, one line per model; a band shows the range over the draws."""
    figure, axes = blank(7.5, 4.2)
    for i, (name, frame) in enumerate(frames.items()):
        at = frame.groupby(x)[y].agg(["mean", "min", "max"])
        axes.fill_between(at.index, at["min"], at["max"], color=COLORS[i % 8], alpha=0.15, linewidth=0)
        axes.plot(at.index, at["mean"], **look(i), linewidth=2, label=name)
    ticks = sorted({v for frame in frames.values() for v in frame[x]})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.set(xlabel=xlabel, ylabel=ylabel, ylim=(0, 1))
    legend_beside(axes)
    bold_title(axes, title)
    return figure


# Systems compared


def two_evaluations(
    first: Mapping[str, float], second: Mapping[str, float], xlabel: str, ylabel: str, title: str
) -> Figure:
    """Draw one point per system: its score by one evaluation against its score by another."""
    figure, axes = blank(7.5, 4.4)
    for i, name in enumerate(first):
        axes.scatter(first[name], second[name], s=80, **look(i), label=name, zorder=3)
    axes.set(xlabel=xlabel, ylabel=ylabel, xlim=(0, 1.15 * max(first.values())), ylim=(0, 1.15 * max(second.values())))
    legend_beside(axes)
    bold_title(axes, title)
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
    direction = np.sign(np.asarray(after) - np.asarray(before))
    for sign, color, label in ((-1, COLORS[2], "better"), (1, COLORS[1], "worse"), (0, COLORS[6], "the same")):
        chosen = direction == sign
        axes.scatter(x[chosen], y[chosen], s=22, alpha=0.6, color=color, linewidths=0, label=f"{label}: {chosen.sum()}")
    axes.plot([0.8, deepest * 1.4], [0.8, deepest * 1.4], color="black", linewidth=1)
    ticks = [t for t in (1, 3, 10, 30, 100) if t < deepest] + [deepest + 1]
    labels = [str(t) if t <= deepest else f">{deepest}" for t in ticks]
    axes.set(xscale="log", yscale="log")
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
    mean_line = {"linewidth": 2, "marker": "o", "markersize": 8, "label": "tuned encoder, mean of the seeds"}
    axes.plot(range(len(means)), means, color=COLORS[0], **mean_line)
    places = means.index.get_indexer(table["questions"])
    axes.scatter(places, table["ndcg@10"], s=22, color=COLORS[0], alpha=0.5, label="one seed", zorder=3)
    for i, (name, value) in enumerate(lines.items()):
        axes.axhline(value, color=COLORS[1:][i % 7], linestyle="--", linewidth=1.5, label=f"{name} ({value:.3f})")
    axes.set(xticks=range(len(means)), xticklabels=[f"{size:,}" for size in means.index])
    axes.set(xlabel="questions trained on (not to scale)", ylabel="nDCG@10 on dev")
    axes.set_ylim(bottom=0)
    legend_beside(axes)
    bold_title(axes, title)
    return figure


def seeds(table: pd.DataFrame, baseline: float, xlabel: str, title: str) -> Figure:
    """Draw one row per name: a dot for each seed and a bar up to their mean; the dashed line is the untrained model.

    ``table`` has the columns name and small dev; ``baseline`` is the untrained model's score.
    """
    means = table.groupby("name")["small dev"].mean().sort_values()
    figure, axes = blank(8, 1.3 + 0.42 * len(means))
    axes.barh(range(len(means)), means, color=COLORS[0], alpha=0.3, height=0.65)
    places = means.index.get_indexer(table["name"])
    axes.scatter(table["small dev"], places, s=28, color=COLORS[0], zorder=3)
    axes.axvline(baseline, color=COLORS[1], linestyle="--", linewidth=1.5)
    beside = {"xytext": (4, 0), "textcoords": "offset points", "fontsize": 9, "color": COLORS[1]}
    axes.annotate("untrained", (baseline, len(means) - 0.45), **beside)
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
        solid = model == table["model"].iloc[0]
        style = look(i) | {"marker": MARKERS[i % 3], "linestyle": "-" if solid else ":", "linewidth": 2}
        axes.plot(rows["bytes"], rows["ndcg@10"], **style, label=f"{model}, {precision}")
        for _, row in rows.iterrows() if solid else ():
            write_above(axes, row["bytes"], row["ndcg@10"], f"{row['width']:.0f}")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set(xlabel="bytes a passage (log scale); the small numbers are dimensions", ylabel="nDCG@10")
    axes.set_ylim(0, 1.18 * table["ndcg@10"].max())
    legend_beside(axes)
    bold_title(axes, title)
    return figure


def trade_off(table: pd.DataFrame, title: str) -> Figure:
    """Draw nDCG@10 against milliseconds per query, one line per pair of first stage and reranker.

    The numbers at the points say how many passages are reranked; the grey band is the frontier, where no system is both
    better and faster. ``table`` has the columns first, reranker, k, ms and ndcg@10.
    """
    figure, axes = blank(9, 5)
    frontier = efficient(table)
    band = {"color": "#c3cad4", "linewidth": 9, "solid_capstyle": "round", "zorder": 1}
    axes.plot(frontier["ms"], frontier["ndcg@10"], **band, label="nothing is better and faster")
    firsts, rerankers = list(table["first"].unique()), list(table["reranker"].unique())
    for (first, reranker), rows in table.groupby(["first", "reranker"], sort=False):
        rows = rows.sort_values("k")
        style = look(rerankers.index(reranker)) | {"linestyle": ("-", ":")[firsts.index(first) % 2]}
        axes.plot(rows["ms"], rows["ndcg@10"], **style, label=f"{first} → {reranker}", zorder=3)
        for _, row in rows[rows["k"] > 0].iterrows():
            write_above(axes, row["ms"], row["ndcg@10"], f"{row['k']:.0f}")
    log_milliseconds(axes)
    axes.set(ylabel="nDCG@10 on dev (does not start at 0)")
    legend_beside(axes)
    bold_title(axes, title)
    return figure

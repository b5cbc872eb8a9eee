"""Figures of what a model takes to be similar: heat maps, maps coloured by label, wardrobes, the path of a triplet.

Each function takes the title as an argument.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch, Polygon

from helpers.course.shop import Product
from helpers.evaluation.plots import COLORS, MARKERS, blank, bold_title

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


def heat_map(
    table: pd.DataFrame, title: str, label: str = "cosine similarity", low: float = 0.0, high: float = 1.0
) -> Figure:
    """Draw a table of numbers as colours, with each number written in its cell; ``label`` says what they are."""
    figure, axes = blank(3.4 + 0.8 * len(table.columns), 1.9 + 0.42 * len(table))
    axes.imshow(table.to_numpy(), vmin=low, vmax=high, cmap="Blues", aspect="auto")
    for (row, column), value in np.ndenumerate(table.to_numpy()):
        dark = value > low + 0.6 * (high - low)
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=9, color="white" if dark else "black")
    axes.set(yticks=range(len(table)), yticklabels=table.index, xlabel=label)
    axes.set_xticks(range(len(table.columns)), table.columns, rotation=30, ha="right")
    axes.grid(visible=False)
    axes.set_title(title, loc="left", fontweight="bold", fontsize=12, x=-0.25 if len(table.columns) < 4 else 0)
    return figure


def pull_and_push(
    paths: np.ndarray, losses: Sequence[float], margin: float, moments: Sequence[int], title: str
) -> Figure:
    """Draw anchor, positive and negative at a few moments of a training, and the loss at each step.

    ``paths`` has the shape (steps, 3, 2): the positions of anchor, positive and negative after each step; ``moments``
    are the steps to draw.
    """
    figure, panels = blank(11.5, 3.1, columns=len(moments) + 1)
    names, colors = ("anchor", "positive", "negative"), (COLORS[6], COLORS[2], COLORS[1])
    for axes, moment in zip(panels, moments, strict=False):
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
    last = panels[-1]
    last.remove()
    last = figure.add_subplot(1, len(moments) + 1, len(moments) + 1)
    last.plot(losses, color=COLORS[0], linewidth=2)
    last.set(xlabel="step", ylabel=f"loss (margin {margin:g})", ylim=(0, None))
    last.grid(alpha=0.3)
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=12)
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
    figure, axes = blank(4.4 * len(panels) + 1.4, 4.6, columns=len(panels))
    kinds, shapes = sorted(set(labels)), sorted(set(marks or [""]))
    marks, values = np.asarray(marks or [""] * len(labels)), np.asarray(labels)
    everything = np.vstack(list(panels.values()))
    for ax, (name, points) in zip(np.atleast_1d(axes), panels.items(), strict=True):
        low, high = (everything if one_scale else points).min(axis=0), (everything if one_scale else points).max(axis=0)
        points = (points - low) / np.maximum(high - low, 1e-9)
        for i, kind in enumerate(kinds):
            for j, shape in enumerate(shapes):
                chosen = (values == kind) & (marks == shape)
                if not chosen.any():
                    continue
                said = ", ".join(filter(None, (kind, shape)))
                ax.scatter(
                    *points[chosen].T,
                    s=42,
                    color=COLORS[i % 8],
                    marker=MARKERS[(j + i // 8) % 8],
                    alpha=0.8,
                    linewidths=0,
                    label=said,
                )
        ax.set(xticks=[], xlim=(-0.07, 1.07), ylim=(-0.07, 1.07))
        ax.tick_params(axis="y", left=False, labelleft=False)
        ax.spines[:].set_visible(True)
        ax.set_title(name, fontsize=11)
        ax.grid(visible=False)
    np.atleast_1d(axes)[-1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=12)
    return figure


def roc_curves(curves: Mapping[str, tuple[np.ndarray, np.ndarray]], title: str) -> Figure:
    """Draw the true against the false positive rate, one line per model; the dashed diagonal is guessing."""
    figure, axes = blank(5.6, 4.8)
    for i, (name, (false, true)) in enumerate(curves.items()):
        axes.plot(false, true, color=COLORS[i % 8], linewidth=2, label=name)
    axes.plot([0, 1], [0, 1], color=COLORS[6], linestyle="--", linewidth=1)
    axes.set(
        xlabel="pairs without a like that rank above the line",
        ylabel="likes that rank above it",
        xlim=(0, 1),
        ylim=(0, 1),
    )
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    bold_title(axes, title)
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


def spread_lines(frames: Mapping[str, pd.DataFrame], x: str, y: str, xlabel: str, ylabel: str, title: str) -> Figure:
    """Draw the mean of ``y`` at each ``x``, one line per model; a band shows the range over the draws."""
    figure, axes = blank(7.5, 4.2)
    for i, (name, frame) in enumerate(frames.items()):
        by = frame.groupby(x)[y]
        axes.fill_between(by.mean().index, by.min(), by.max(), color=COLORS[i % 8], alpha=0.15, linewidth=0)
        axes.plot(by.mean().index, by.mean(), color=COLORS[i % 8], marker=MARKERS[i % 8], linewidth=2, label=name)
    ticks = sorted({v for frame in frames.values() for v in frame[x]})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.set(xlabel=xlabel, ylabel=ylabel, ylim=(0, 1))
    axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    bold_title(axes, title)
    return figure

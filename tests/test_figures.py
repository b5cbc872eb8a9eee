"""The figures carry what they are given: titles, labels, panels, one mark for each thing."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import FancyBboxPatch, Polygon

from helpers.course.figures import (
    PAINT,
    SHAPES,
    confusion,
    heat_map,
    labelled_maps,
    pull_and_push,
    roc_curves,
    spread_lines,
    token_scores,
    wardrobe,
)
from helpers.course.shop import Product
from helpers.evaluation.plots import COLORS, efficient, scores_by_slice


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def ticks(axis) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


def legend(axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def headline(axes) -> str:
    return axes.get_title(loc="left")


def product(role: str = "top", colour: str = "red", cut: str = "slim") -> Product:
    return Product(
        id="s1",
        title="title",
        text="text",
        price=1.0,
        type="thing",
        cut=cut,
        role=role,
        occasion="everyday",
        colour=colour,
    )


# Heat maps


TABLE = pd.DataFrame({"one": [0.0, 0.257], "two": [0.5, 1.0], "three": [0.1, 0.9]}, index=["up", "down"])


def test_heat_map_writes_each_number_in_its_cell_and_names_rows_and_columns():
    (axes,) = heat_map(TABLE, "The title", "closeness").axes
    at = {text.get_position(): text.get_text() for text in axes.texts}
    assert at == {(0, 0): "0.00", (1, 0): "0.50", (2, 0): "0.10", (0, 1): "0.26", (1, 1): "1.00", (2, 1): "0.90"}
    assert (ticks(axes.xaxis), ticks(axes.yaxis)) == (["one", "two", "three"], ["up", "down"])
    assert (headline(axes), axes.get_xlabel()) == ("The title", "closeness")


def test_heat_map_has_a_scale_from_0_to_1_and_white_letters_on_dark():
    axes = heat_map(TABLE, "t").axes[0]
    assert axes.images[0].get_clim() == (0.0, 1.0)
    # Dark is what is above 0.6.
    assert [text.get_color() for text in axes.texts] == ["black", "black", "black", "black", "white", "white"]


def test_confusion_has_a_panel_a_judge_with_counts_in_the_cells_and_shares_of_the_row_as_colours():
    counts = pd.DataFrame([[3, 1], [0, 0]], index=["wrong", "right"], columns=["0", "1"])
    figure = confusion({"strict": counts, "kind": counts}, "Who is right")
    assert [panel.get_title() for panel in figure.axes] == ["strict", "kind"]
    for panel in figure.axes:
        assert texts(panel) == ["3", "1", "0", "0"]
        assert [text.get_color() for text in panel.texts] == ["white", "black", "black", "black"]
        assert panel.images[0].get_array().tolist() == [[0.75, 0.25], [0.0, 0.0]]
    assert ticks(figure.axes[0].yaxis) == ["wrong", "right"]


def test_token_scores_frame_the_best_passage_token_of_each_query_token():
    scores = np.array([[0.1, 0.7, 0.2], [0.4, 0.3, 0.0]])
    (axes,) = token_scores(scores, ["cut", "bread"], ["a", "knife", "loaf"], "t").axes
    assert axes.collections[0].get_offsets().tolist() == [[1, 0], [0, 1]]
    assert axes.images[0].get_clim() == (0.0, 0.7)
    assert (ticks(axes.xaxis), ticks(axes.yaxis)) == (["a", "knife", "loaf"], ["cut", "bread"])
    assert texts(axes) == []


# Pull and push


PATHS = np.arange(5 * 3 * 2).reshape(5, 3, 2) / 30


@pytest.mark.parametrize("moments", [[0], [0, 2, 4]])
def test_path_of_a_triplet_has_a_panel_a_moment_and_one_for_the_loss(moments):
    figure = pull_and_push(PATHS, [0.5, 0.4, 0.3, 0.2, 0.1], 0.3, moments, "They part")
    *panels, last = figure.axes
    assert [panel.get_title() for panel in panels] == [f"step {moment}" for moment in moments]
    assert legend(panels[0]) == ["anchor", "positive", "negative"]
    assert (last.get_xlabel(), last.get_ylabel()) == ("step", "loss (margin 0.3)")
    assert last.lines[0].get_ydata().tolist() == [0.5, 0.4, 0.3, 0.2, 0.1]
    assert figure.get_suptitle() == "They part"


def test_path_ends_where_the_three_are_at_that_moment():
    panel = pull_and_push(PATHS, [0.1] * 5, 0.3, [2, 4], "t").axes[0]
    marks = {line.get_label(): line.get_xydata() for line in panel.lines if not line.get_label().startswith("_")}
    assert list(marks) == ["anchor", "positive", "negative"]
    for i, at in enumerate(marks.values()):
        np.testing.assert_array_equal(at, PATHS[2, i][None])
        assert any(np.array_equal(line.get_xydata(), PATHS[:3, i]) for line in panel.lines)


# Maps


LABELS, MARKS = ["tea", "gin", "tea", "cola"], ["like", "like", "not", "not"]
POINTS = {"before": np.arange(8.0).reshape(4, 2), "after": np.arange(8.0).reshape(4, 2) * -2}


def test_maps_have_a_panel_a_model_with_every_point_in_it():
    figure = labelled_maps(POINTS, LABELS, "They move")
    assert [panel.get_title() for panel in figure.axes] == ["before", "after"]
    assert figure.get_suptitle() == "They move"
    for panel, points in zip(figure.axes, POINTS.values(), strict=True):
        drawn = np.concatenate([dots.get_offsets() for dots in panel.collections])
        low, high = np.min(points, axis=0), np.max(points, axis=0)  # each panel is filled from 0 to 1
        np.testing.assert_allclose(np.sort(drawn, axis=0), np.sort((np.array(points) - low) / (high - low), axis=0))
        (left, right), (bottom, top) = panel.get_xlim(), panel.get_ylim()
        assert left < drawn[:, 0].min() <= drawn[:, 0].max() < right
        assert bottom < drawn[:, 1].min() <= drawn[:, 1].max() < top


def test_points_of_one_label_have_one_colour_in_all_panels_and_other_labels_others():
    colors = [
        {dots.get_label(): to_hex(dots.get_facecolor()[0]) for dots in panel.collections}
        for panel in labelled_maps(POINTS, LABELS, "t").axes
    ]
    assert colors[0] == colors[1] == {"cola": COLORS[0], "gin": COLORS[1], "tea": COLORS[2]}


def test_legend_names_the_labels():
    assert legend(labelled_maps(POINTS, LABELS, "t").axes[-1]) == ["cola", "gin", "tea"]


def test_panels_of_one_scale_show_the_same_part_of_the_plane():
    panels = {"narrow": np.array([[0.0, 0.0], [1.0, 1.0]]), "wide": np.array([[0.0, 0.0], [2.0, 4.0]])}
    drawn = [
        np.concatenate([dots.get_offsets() for dots in panel.collections]).max(axis=0).tolist()
        for panel in labelled_maps(panels, ["a", "b"], "t", one_scale=True).axes
    ]
    assert drawn == [[0.5, 0.25], [1.0, 1.0]]


def test_marks_choose_the_points_shape_and_not_its_colour():
    (panel,) = labelled_maps({"one": POINTS["before"]}, LABELS, "t", MARKS).axes
    by = {dots.get_label(): dots for dots in panel.collections if len(dots.get_offsets())}
    assert set(by) == {"tea, like", "gin, like", "tea, not", "cola, not"}
    points = np.array(POINTS["before"])
    where = (np.array([[4, 5]]) - points.min(axis=0)) / (points.max(axis=0) - points.min(axis=0))
    np.testing.assert_allclose(by["tea, not"].get_offsets(), where)
    shapes = {name: dots.get_paths()[0].vertices.tolist() for name, dots in by.items()}
    assert shapes["tea, like"] == shapes["gin, like"] != shapes["tea, not"] == shapes["cola, not"]
    assert to_hex(by["tea, like"].get_facecolor()[0]) == to_hex(by["tea, not"].get_facecolor()[0])


# Curves


def test_roc_curves_have_a_line_a_model_and_the_diagonal():
    curves = {"base": ([0, 0.5, 1], [0, 0.6, 1]), "tuned": ([0, 0.1, 1], [0, 0.9, 1])}
    (axes,) = roc_curves({name: tuple(map(np.array, curve)) for name, curve in curves.items()}, "Better").axes
    assert legend(axes) == ["base", "tuned"]
    drawn = [(line.get_xdata(), line.get_ydata()) for line in axes.lines]
    expected = [*curves.values(), ([0, 1], [0, 1])]
    assert [(list(x), list(y)) for x, y in drawn] == [(list(x), list(y)) for x, y in expected]
    assert axes.lines[-1].get_linestyle() == "--"
    assert headline(axes) == "Better"
    assert "without a like" in axes.get_xlabel()
    assert axes.get_ylabel() == "likes that rank above it"


def test_spread_lines_are_the_means_with_the_range_as_a_band():
    few = pd.DataFrame({"rows": [8, 8, 32, 32], "score": [0.2, 0.4, 0.5, 0.9]})
    more = pd.DataFrame({"rows": [32, 128], "score": [0.6, 0.8]})
    (axes,) = spread_lines({"few": few, "more": more}, "rows", "score", "how many", "how good", "It grows").axes
    assert legend(axes) == ["few", "more"]
    # Means of 0.2 and 0.4, of 0.5 and 0.9.
    assert axes.lines[0].get_xdata().tolist() == [8, 32]
    assert axes.lines[0].get_ydata().tolist() == pytest.approx([0.3, 0.7])
    band = axes.collections[0].get_paths()[0].vertices
    assert {tuple(corner) for corner in band} == {(8, 0.2), (8, 0.4), (32, 0.5), (32, 0.9)}
    assert (axes.get_xlabel(), axes.get_ylabel(), headline(axes)) == ("how many", "how good", "It grows")
    assert ticks(axes.xaxis)[:3] == ["8", "32", "128"]


def test_the_frontier_keeps_what_nothing_beats_in_both():
    table = pd.DataFrame({"ms": [1, 5, 5, 9, 20], "ndcg@10": [0.2, 0.4, 0.3, 0.4, 0.5]}, index=list("abcde"))
    assert list(efficient(table).index) == ["a", "b", "e"]  # d is slower than b and no better


def test_each_system_has_a_point_for_each_slice_the_best_by_the_first_on_top():
    table = pd.DataFrame({"described": [0.1, 0.3], "typed": [0.5, 0.4]}, index=["words", "meaning"])
    (axes,) = scores_by_slice(table, "It turns").axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["words", "meaning"]
    points = {c.get_label(): c.get_offsets().tolist() for c in axes.collections if c.get_label() in table}
    assert points == {"described": [[0.1, 0], [0.3, 1]], "typed": [[0.5, 0], [0.4, 1]]}
    assert (headline(axes), legend(axes)) == ("It turns", ["described", "typed"])


def test_two_times_whose_spreads_overlap_are_equally_fast():
    table = pd.DataFrame({"ms": [5.0, 6.0, 20.0], "ndcg@10": [0.3, 0.4, 0.4]}, index=list("abc"))
    spread = table.assign(ms_low=[4.0, 4.5, 19.0], ms_high=[5.5, 7.0, 21.0])
    assert list(efficient(table).index) == ["a", "b"]
    assert list(efficient(spread).index) == ["b"]  # a is not surely faster, and worse


# Wardrobes


ROWS = {
    "base: as it is": [product(), product("bottom", "navy"), product("shoes", "black", "split")],
    "tuned": [product(), product("bag", "green")],
}
RIGHT = {"base: as it is": [False, True], "tuned": [False]}


def test_wardrobe_has_a_row_a_model_and_a_drawing_a_product_with_its_name():
    (axes,) = wardrobe(ROWS, RIGHT, "Which fit").axes
    assert headline(axes) == "Which fit"
    first = ["base:\nas it is", "red thing\nslim", "navy thing\nslim", "black thing\nsplit"]
    assert texts(axes) == [*first, "tuned", "red thing\nslim", "green thing\nslim"]
    assert len(axes.child_axes) == 5


def test_green_frame_marks_the_right_neighbours_alone_and_not_the_product_asked_about():
    (axes,) = wardrobe(ROWS, RIGHT, "t").axes
    frames = [to_hex(patch.get_edgecolor()) for patch in axes.patches if isinstance(patch, FancyBboxPatch)]
    # Asked, wrong, right; asked, wrong.
    assert frames == [COLORS[6], "#d5d9df", COLORS[2], COLORS[6], "#d5d9df"]


@pytest.mark.parametrize("role", SHAPES)
def test_product_is_drawn_in_the_shape_of_its_role_and_its_colour(role):
    (axes,) = wardrobe({"m": [product(role, "teal")]}, {"m": []}, "t").axes
    (shape,) = [patch for patch in axes.child_axes[0].patches if isinstance(patch, Polygon)]
    np.testing.assert_array_equal(shape.get_xy()[:-1], SHAPES[role][0])
    assert to_hex(shape.get_facecolor()) == PAINT["teal"]
    assert axes.child_axes[0].get_xlim()[0] < shape.get_xy().min()  # nothing of it is cut off
    assert axes.child_axes[0].get_xlim()[1] > shape.get_xy().max()


def test_every_role_has_another_shape_and_every_colour_another_paint():
    assert len({str(outlines) for outlines in SHAPES.values()}) == len(SHAPES)
    assert len(set(PAINT.values())) == len(PAINT)

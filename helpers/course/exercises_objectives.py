"""Checks of the exercises of notebooks 01 and 09."""

from typing import Any

from helpers.course.exercises import by_hand


def check_01_triplet_loss(function: Any) -> None:
    """``triplet_loss(anchor, positive, negative, margin)``: how far the negative is from being far enough away.

    Far enough is further from the anchor than the positive by at least the margin: then the loss is 0.
    """
    cases = [
        (([1.0, 0.0], [1.0, 0.0], [0.0, 1.0], 0.5), 0.0),  # 0 − 1 + 0.5: no loss
        (([1.0, 0.0], [0.0, 1.0], [1.0, 0.0], 0.5), 1.5),
        (([1.0, 0.0], [0.6, 0.8], [0.8, 0.6], 0.1), 0.3),
    ]
    by_hand(function, cases, "0 when the order is right with the margin to spare: then nothing moves.")


def check_01_cart_triplets(function: Any) -> None:
    """``cart_triplets(carts, catalogue)``: (anchor, positive, negative) for the pairs of each cart, in order."""
    shop = ["shirt", "jeans", "shoes", "tent"]
    cases = [
        (([["shirt", "jeans"]], shop), [("shirt", "jeans", "shoes")]),
        (
            ([["shirt", "jeans"], ["shoes", "shirt", "tent"]], shop),
            [("shoes", "shirt", "jeans"), ("shoes", "tent", "jeans")],
        ),
        (([["tent"]], shop), []),
    ]
    by_hand(function, cases, "what was never bought together is a negative only as far as the log goes.")


def check_01_auc(function: Any) -> None:
    """``auc(scores, liked)``: the share of pairs (liked, not liked) in the right order, ties one half."""
    cases = [
        (([0.9, 0.1], [1, 0]), 1.0),
        (([0.5, 0.5, 0.1], [1, 0, 0]), 0.75),
        (([0.2, 0.4, 0.3], [1, 0, 0]), 0.0),
        (([0.9, 0.2, 0.5, 0.1], [1, 1, 0, 0]), 0.75),
    ]
    by_hand(function, cases, "half is what guessing gets.")


def check_09_leaks(function: Any) -> None:
    """``leaking(train, test)``: merchants on both sides, in alphabetical order; rows are (merchant, label)."""
    train, test = [("Kumo", "a"), ("Vedel", "b")], [("Vedel", "a"), ("Orca", "b"), ("Kumo", "b"), ("Vedel", "b")]
    by_hand(
        function,
        [((train, test), ["Kumo", "Vedel"]), ((train, []), [])],
        "a merchant on both sides is a hint that nobody has in production.",
    )


def check_09_vote(function: Any) -> None:
    """``vote(neighbours)``: (label, similarity) pairs → the label with the largest sum, ties by label."""
    cases = [
        (([("a", 0.9), ("b", 0.5), ("b", 0.5)],), "b"),
        (([("a", 0.9), ("b", 0.5)],), "a"),
        (([("b", 0.4), ("a", 0.4)],), "a"),
    ]
    by_hand(function, cases, "near neighbours count for more, and two of them for more than one.")


def check_09_majority(function: Any) -> None:
    """``purity(labels, clusters)``: the share of rows whose label is the most frequent one of their cluster."""
    cases = [
        ((["a", "a", "b"], [0, 0, 0]), 2 / 3),
        ((["a", "a", "b", "b"], [0, 0, 1, 1]), 1.0),
        ((["a", "a", "b", "a"], [0, 0, 0, 1]), 0.75),  # large clusters count for more
        ((["a", "b"], [0, 1]), 1.0),
    ]
    by_hand(function, cases, "and it is 1 when every row is its own cluster: that is why NMI and ARI exist.")

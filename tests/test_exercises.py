"""The checks of the exercises, tried on answers to those of notebooks 01 and 09.

Right answers pass with one line, wrong ones fail with one sentence.
"""

from collections import Counter, defaultdict
from itertools import combinations, permutations

import pytest

from helpers.course import exercises as checks


def dot(one, other):
    return sum(a * b for a, b in zip(one, other, strict=True))


def triplet_loss(anchor, positive, negative, margin):
    return max(0.0, dot(anchor, negative) - dot(anchor, positive) + margin)


def together_with(carts):
    return {(a, b) for cart in carts for a in cart for b in cart}


def cart_triplets(carts, catalogue, pairs=combinations, known=together_with):
    found = []
    for cart in carts:
        for anchor, positive in pairs(cart, 2):
            strangers = [item for item in catalogue if (anchor, item) not in known(carts)]
            found += [(anchor, positive, strangers[0])] if strangers else []
    return found


def auc(scores, liked, tie=0.5):
    good, bad = ([s for s, mark in zip(scores, liked, strict=True) if mark == side] for side in (1, 0))
    return sum(1.0 if g > b else tie if g == b else 0.0 for g in good for b in bad) / (len(good) * len(bad))


def leaking(train, test):
    return sorted({merchant for merchant, _ in train} & {merchant for merchant, _ in test})


def vote(neighbours):
    sums = defaultdict(float)
    for label, similarity in neighbours:
        sums[label] += similarity
    return min(sums, key=lambda label: (-sums[label], label))


def mean_vote(neighbours):
    of = defaultdict(list)
    for label, similarity in neighbours:
        of[label].append(similarity)
    return min(of, key=lambda label: (-sum(of[label]) / len(of[label]), label))


def purity(labels, clusters):
    of = defaultdict(list)
    for label, cluster in zip(labels, clusters, strict=True):
        of[cluster].append(label)
    return sum(Counter(found).most_common(1)[0][1] for found in of.values()) / len(labels)


RIGHT = {
    "01_triplet_loss": triplet_loss,
    "01_cart_triplets": cart_triplets,
    "01_auc": auc,
    "09_leaks": leaking,
    "09_vote": vote,
    "09_majority": purity,
}
# What each answer does wrong is named.
WRONG = [
    ("01_triplet_loss", "no floor at 0", lambda a, p, n, m: dot(a, n) - dot(a, p) + m),
    ("01_triplet_loss", "no margin", lambda a, p, n, m: max(0.0, dot(a, n) - dot(a, p))),
    ("01_triplet_loss", "sides swapped", lambda a, p, n, m: triplet_loss(a, n, p, m)),
    ("01_triplet_loss", "margin subtracted", lambda a, p, n, m: triplet_loss(a, p, n, -m)),
    ("01_triplet_loss", "negative to positive", lambda a, p, n, m: triplet_loss(p, a, n, m)),
    ("01_cart_triplets", "each pair twice", lambda carts, shop: cart_triplets(carts, shop, permutations)),
    ("01_cart_triplets", "own cart alone", lambda carts, shop: [t for c in carts for t in cart_triplets([c], shop)]),
    ("01_cart_triplets", "any negative", lambda carts, shop: cart_triplets(carts, shop, known=lambda carts: set())),
    ("01_cart_triplets", "other order", lambda carts, shop: cart_triplets(carts[::-1], shop)[::-1]),
    ("01_auc", "tie is lost", lambda scores, liked: auc(scores, liked, tie=0.0)),
    ("01_auc", "tie is won", lambda scores, liked: auc(scores, liked, tie=1.0)),
    ("01_auc", "the other way round", lambda scores, liked: auc(scores, [1 - mark for mark in liked])),
    ("01_auc", "a guess", lambda scores, liked: 0.5),
    ("09_leaks", "each time", lambda train, test: sorted(m for m, _ in test if m in dict(train))),
    ("09_leaks", "in the order of test", lambda train, test: [m for m in dict(test) if m in dict(train)]),
    ("09_leaks", "rows, not merchants", lambda train, test: sorted(set(train) & set(test))),
    ("09_leaks", "all of test", lambda train, test: sorted(dict(test))),
    ("09_leaks", "train as well", lambda train, test: sorted(dict(train))),
    ("09_vote", "nearest alone", lambda neighbours: max(neighbours, key=lambda n: n[1])[0]),
    ("09_vote", "by number", lambda neighbours: Counter(label for label, _ in neighbours).most_common(1)[0][0]),
    ("09_vote", "by mean", mean_vote),
    ("09_vote", "ties by the last label", lambda neighbours: max(sorted(neighbours)[::-1], key=lambda n: n[1])[0]),
    ("09_majority", "per label", lambda labels, clusters: purity(clusters, labels)),
    ("09_majority", "a number, not a share", lambda labels, clusters: purity(labels, clusters) * len(labels)),
    ("09_majority", "largest label", lambda labels, clusters: Counter(labels).most_common(1)[0][1] / len(labels)),
    ("09_majority", "always perfect", lambda labels, clusters: 1.0),
]
EACH = pytest.mark.parametrize("number", RIGHT)


def said(number: str, answer, capsys) -> str:
    getattr(checks, f"check_{number}")(answer)
    return capsys.readouterr().out


def test_every_check_is_tried():
    of_both = {name for name in dir(checks) if name.startswith(("check_01_", "check_09_"))}
    assert {f"check_{number}" for number in RIGHT} == of_both
    assert {number for number, _, _ in WRONG} == set(RIGHT)


@EACH
def test_a_right_answer_passes_with_one_line(number, capsys):
    shown = said(number, RIGHT[number], capsys)
    assert shown.startswith("✓ ")
    assert shown.count("\n") == 1


@pytest.mark.parametrize(
    ("number", "wrong"), [(n, w) for n, _, w in WRONG], ids=[f"{n} {what}" for n, what, _ in WRONG]
)
def test_a_wrong_answer_fails_with_what_it_gives_and_what_it_is_by_hand(number, wrong, capsys):
    shown = said(number, wrong, capsys)
    assert shown.startswith("Not yet: for ")
    assert ", by hand it is " in shown
    assert shown.count("\n") == 1


@EACH
@pytest.mark.parametrize("answer", [lambda *arguments: None, lambda *arguments: ..., lambda *arguments: True])
def test_nothing_the_dots_and_yes_are_no_answers(number, answer, capsys):
    assert said(number, answer, capsys).startswith("Not yet: for ")


@EACH
def test_an_answer_that_raises_is_told_what_it_raised(number, capsys):
    def broken(*arguments):
        raise KeyError("kumo")

    assert said(number, broken, capsys) == "Not yet: it raised KeyError: 'kumo'\n"


@EACH
def test_an_answer_that_was_not_started_is_said_to_be_so(number, capsys):
    assert said(number, ..., capsys).startswith("Not started: ")


def test_what_only_is_near_in_floating_point_is_right(capsys):
    assert said("01_triplet_loss", lambda *a: triplet_loss(*a) + 1e-12, capsys).startswith("✓ ")
    assert said("01_triplet_loss", lambda *a: triplet_loss(*a) + 1e-6, capsys).startswith("Not yet: ")

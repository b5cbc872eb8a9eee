"""A small catalogue, and shoppers who mean three different things by "similar".

They look for a substitute, for the same in another colour, or for what goes with it.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from itertools import permutations
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from helpers.store.files import DATA, WorkbookError
from helpers.store.rows import Text, read_rows

NEUTRAL = {"white", "black", "grey", "navy", "cream", "sand", "brown", "charcoal", "blue"}
# Occasions that mix in one outfit; every occasion mixes with itself.
MIXES = {
    frozenset(pair)
    for pair in (("everyday", "street"), ("everyday", "summer"), ("smart", "formal"), ("everyday", "outdoor"))
}
STRAY = 0.1  # share of the items in a cart that have nothing to do with the rest
OBJECTIVES = ("substitute", "other colour", "goes with it")


class Product(BaseModel, frozen=True):
    """A product as the shop shows it (title, text, price in euro), and its attributes.

    Encoders see title and text alone.
    """

    id: Text
    title: Text
    text: Text
    price: float
    type: Text
    cut: Text
    role: Text
    occasion: Text
    colour: Text

    @property
    def shown(self) -> str:
        return f"{self.title}. {self.text}"

    @property
    def design(self) -> str:
        """Cut and type: what a product has in common with its other colours."""
        return f"{self.cut} {self.type}"


def read_products(path: Path = DATA / "shop" / "products.jsonl") -> dict[str, Product]:
    """{id: product}.

    Raises WorkbookError for a line in which something is missing, and for an id that was there before.
    """
    return {product.id: product for product in read_rows(path, Product, unique="id").values()}


def split_products(products: Mapping[str, Product], seed: int = 10) -> dict[str, list[str]]:
    """{"train", "dev", "test": ids}: 60 %, 12 % and the rest of the designs, drawn by ``seed``.

    All colours of a design stay together. The default seed, 10, holds the red V-neck out.
    """
    designs = sorted({p.design for p in products.values()})
    order = np.random.default_rng(seed).permutation(designs).tolist()
    a, b = round(0.60 * len(order)), round(0.72 * len(order))
    part = {d: "train" if i < a else "dev" if i < b else "test" for i, d in enumerate(order)}
    return {
        name: [i for i in sorted(products) if part[products[i].design] == name] for name in ("train", "dev", "test")
    }


def substitutes(one: Product, other: Product) -> bool:
    """Whether both are of the same type and colour: one is bought when the other is sold out."""
    return (one.type, one.colour) == (other.type, other.colour)


def other_colours(one: Product, other: Product) -> bool:
    """Whether both are of the same design, in different colours."""
    return one.design == other.design and one.colour != other.colour


def goes_with(one: Product, other: Product) -> bool:
    """Whether both can be worn together.

    They are different parts of an outfit, their occasions fit, and at most one of them has a strong colour.
    """
    occasions = one.occasion == other.occasion or frozenset((one.occasion, other.occasion)) in MIXES
    return one.role != other.role and occasions and bool({one.colour, other.colour} & NEUTRAL)


def simulate_carts(products: Mapping[str, Product], n: int, seed: int = 0) -> list[list[str]]:
    """``n`` carts of two to four products.

    The first product is drawn at random, each other one from those that go with all so far; one in ten is a stray,
    which may be anything. Raises WorkbookError for fewer than four products.
    """
    if len(products) < 4:
        raise WorkbookError(f"A cart holds up to four products, and there are {len(products)}: give at least four.")
    rng = np.random.default_rng(seed)
    ids, carts = sorted(products), []
    for _ in range(n):
        cart = [ids[rng.integers(len(ids))]]
        for _ in range(rng.integers(1, 4)):
            fitting = [i for i in ids if i not in cart and all(goes_with(products[c], products[i]) for c in cart)]
            pool = fitting if fitting and rng.random() >= STRAY else [i for i in ids if i not in cart]
            cart.append(pool[rng.integers(len(pool))])
        carts.append(cart)
    return carts


def bought_together(carts: list[list[str]], at_least: int = 2) -> dict[str, dict[str, int]]:
    """{product: {other: 1}} for products that were together in at least ``at_least`` carts."""
    counts = Counter(pair for cart in carts for pair in permutations(cart, 2))
    related: dict[str, dict[str, int]] = {}
    for (a, b), times in sorted(counts.items()):
        if times >= at_least:
            related.setdefault(a, {})[b] = 1
    return related


def related(
    products: Mapping[str, Product], means: Callable[[Product, Product], bool], ids: list[str] | None = None
) -> dict[str, dict[str, int]]:
    """{product: {other: 1}} for the pairs that ``means`` accepts; the products on the left are ``ids``, or all."""
    return {
        a: {b: 1 for b in products if b != a and means(products[a], products[b])}
        for a in (products if ids is None else ids)
    }

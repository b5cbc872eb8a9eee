"""The shop's three meanings of similar, the carts simulated from one of them, and the rules of the shipped products."""

import json
from collections import Counter
from itertools import combinations

import pytest

from helpers.course import shop
from helpers.course.figures import PAINT, SHAPES
from helpers.course.shop import (
    NEUTRAL,
    Product,
    bought_together,
    goes_with,
    other_colours,
    read_products,
    related,
    simulate_carts,
    split_products,
    substitutes,
)
from helpers.store.files import DATA, WorkbookError


def replace(product: Product, **change) -> Product:
    return product.model_copy(update=change)


TEE = Product(
    id="s1",
    title="Tee",
    text="Soft.",
    price=10.0,
    type="t-shirt",
    cut="V-neck",
    role="top",
    occasion="everyday",
    colour="red",
)
JEANS = Product(
    id="s2",
    title="Jeans",
    text="Blue.",
    price=50.0,
    type="jeans",
    cut="slim",
    role="bottom",
    occasion="everyday",
    colour="blue",
)
SMALL = {
    "tee": TEE,
    "tee2": replace(TEE, title="Another"),
    "tee navy": replace(TEE, colour="navy"),
    "crew": replace(TEE, cut="crew neck"),
    "jeans": JEANS,
    "tie": replace(TEE, type="tie", cut="silk", role="accessory", occasion="formal", colour="black"),
}


@pytest.fixture(scope="module")
def products() -> dict[str, Product]:
    return read_products()


def designs(n: int) -> dict[str, Product]:
    """n designs of two colours each."""
    return {f"{i:02}{c}": replace(TEE, cut=f"cut {i}", colour=c) for i in range(n) for c in ("red", "navy")}


# What is similar


def test_encoders_see_title_and_text_and_the_design_leaves_out_the_colour():
    assert TEE.shown == "Tee. Soft."
    assert TEE.design == "V-neck t-shirt" == SMALL["tee navy"].design


@pytest.mark.parametrize(
    ("change", "substitute", "recoloured"),
    [
        ({}, True, False),
        ({"cut": "crew neck"}, True, False),
        ({"colour": "navy"}, False, True),
        ({"cut": "crew neck", "colour": "navy"}, False, False),
        ({"type": "polo shirt"}, False, False),
        ({"type": "polo shirt", "colour": "navy"}, False, False),
        ({"occasion": "sport", "price": 99.0}, True, False),
    ],
)
def test_substitute_is_of_type_and_colour_and_other_colour_is_of_the_design(change, substitute, recoloured):
    other = replace(TEE, **change)
    assert substitutes(TEE, other) is substitutes(other, TEE) is substitute
    assert other_colours(TEE, other) is other_colours(other, TEE) is recoloured


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"role": "top"}, False),  # two tops
        ({"colour": "green"}, False),  # red and green are both strong
        ({"occasion": "street"}, True),  # mixes with everyday
        ({"occasion": "summer"}, True),
        ({"occasion": "outdoor"}, True),
        ({"occasion": "formal"}, False),
        ({"occasion": "sport"}, False),
        ({"occasion": "formal", "colour": "green"}, False),
    ],
)
def test_what_goes_together_is_of_two_roles_of_occasions_that_mix_and_has_a_neutral_colour(change, expected):
    other = replace(JEANS, **change)
    assert goes_with(TEE, other) is goes_with(other, TEE) is expected


def test_two_neutral_colours_go_together_and_smart_mixes_with_formal_alone():
    grey, smart = replace(TEE, colour="grey"), replace(TEE, occasion="smart")
    assert goes_with(grey, JEANS)
    mixing = [
        o
        for o in ("everyday", "formal", "outdoor", "smart", "street", "summer", "sport")
        if goes_with(smart, replace(JEANS, occasion=o))
    ]
    assert mixing == ["formal", "smart"]


def test_related_names_the_pairs_that_a_meaning_accepts_and_no_product_itself():
    assert related(SMALL, substitutes) == {
        "tee": {"tee2": 1, "crew": 1},
        "tee2": {"tee": 1, "crew": 1},
        "tee navy": {},
        "crew": {"tee": 1, "tee2": 1},
        "jeans": {},
        "tie": {},
    }
    assert related(SMALL, other_colours, ["tee navy", "crew"]) == {"tee navy": {"tee": 1, "tee2": 1}, "crew": {}}


# Carts


def test_carts_have_two_to_four_different_products(products):
    carts = simulate_carts(products, 200)
    assert len(carts) == 200
    assert {len(cart) for cart in carts} == {2, 3, 4}
    assert all(len(set(cart)) == len(cart) for cart in carts)
    assert {item for cart in carts for item in cart} <= set(products)
    assert len({cart[0] for cart in carts}) > 90  # 200 draws of 204 have about 127 different ones


def strays(carts, products) -> tuple[int, int]:
    """(items that do not go with all before them though others would, items after the first)."""
    found, total = 0, 0
    for cart in carts:
        for place in range(1, len(cart)):
            before, item = cart[:place], cart[place]
            fit = [i for i in products if i not in before and all(goes_with(products[c], products[i]) for c in before)]
            found += bool(fit) and item not in fit
            total += 1
    return found, total


def test_without_strays_each_product_goes_with_all_before_it(products, monkeypatch):
    monkeypatch.setattr(shop, "STRAY", 0.0)
    assert strays(simulate_carts(products, 150), products)[0] == 0


def test_about_one_in_ten_is_a_stray(products):
    # A stray is any product; with about a fifth of all fitting, 0.1 x 4 / 5 of the items are seen not to fit.
    found, total = strays(simulate_carts(products, 300), products)
    assert total > 500
    assert 0.04 < found / total < 0.13


def test_cart_in_which_nothing_fits_is_filled_all_the_same():
    tees = {f"t{i}": TEE for i in range(5)}
    assert all(2 <= len(set(cart)) == len(cart) <= 4 for cart in simulate_carts(tees, 20))


def test_carts_depend_on_the_seed_and_not_on_the_order_of_the_products(products):
    assert simulate_carts(products, 20, seed=1) == simulate_carts(dict(reversed(products.items())), 20, seed=1)
    assert simulate_carts(products, 20, seed=1) != simulate_carts(products, 20, seed=2)


def test_fewer_products_than_a_cart_can_hold_are_refused_in_one_sentence(products):
    three = dict(list(products.items())[:3])
    with pytest.raises(WorkbookError, match=r"^A cart holds up to four products, and there are 3: [^.\n]*\.$"):
        simulate_carts(three, 1)


def test_bought_together_is_what_shared_enough_carts_both_ways():
    carts = [["a", "b", "c"], ["b", "a"], ["c", "d"], ["a", "c", "d"]]
    # ab, ac and cd share two carts; bc and ad one.
    twice = {"a": {"b": 1, "c": 1}, "b": {"a": 1}, "c": {"a": 1, "d": 1}, "d": {"c": 1}}
    assert bought_together(carts) == twice
    assert bought_together(carts, at_least=3) == {}
    assert bought_together(carts, at_least=1)["b"] == {"a": 1, "c": 1}


# Splits


def test_of_25_designs_15_are_to_train_on_3_for_dev_and_7_for_test():
    many = designs(25)
    parts = split_products(many)
    # Two products a design: 25 x 0.6 = 15, 25 x 0.12 = 3, and the rest.
    assert {name: len(ids) for name, ids in parts.items()} == {"train": 30, "dev": 6, "test": 14}
    assert sorted(i for ids in parts.values() for i in ids) == sorted(many)


def test_split_of_products_depends_on_the_seed_and_not_on_the_order():
    many = designs(25)
    assert split_products(many, 1) == split_products(dict(reversed(many.items())), 1)
    assert split_products(many, 1) != split_products(many, 2)


@pytest.mark.parametrize("seed", [0, 10])
def test_no_design_and_no_product_is_in_two_splits(products, seed):
    parts = split_products(products, seed)
    assert sorted(i for ids in parts.values() for i in ids) == sorted(products)
    for one, other in combinations(parts.values(), 2):
        assert not {products[i].design for i in one} & {products[i].design for i in other}
        assert not {products[i].shown for i in one} & {products[i].shown for i in other}


def test_red_v_neck_is_held_out(products):
    parts = split_products(products)
    red = [i for i, p in products.items() if (p.design, p.colour) == ("V-neck t-shirt", "red")]
    assert red
    assert set(red) <= set(parts["test"])


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_each_split_has_all_three_kinds_of_relatives_within_it(products, split):
    inside = {i: products[i] for i in split_products(products)[split]}
    for means in (substitutes, other_colours, goes_with):
        assert sum(bool(others) for others in related(inside, means).values()) >= 5, means.__name__


# Reading


ROW = {
    "id": "s1",
    "title": "Tee",
    "text": "Soft.",
    "price": 10.0,
    "type": "t-shirt",
    "cut": "V-neck",
    "role": "top",
    "occasion": "everyday",
    "colour": "red",
}


def test_products_are_read_with_all_their_fields_and_others_are_ignored(tmp_path):
    path = tmp_path / "products.jsonl"
    path.write_text(json.dumps(ROW | {"maker": "Halden"}) + "\n")
    assert read_products(path) == {"s1": TEE}


@pytest.mark.parametrize("key", ROW)
def test_line_in_which_something_is_missing_is_named_in_one_sentence(tmp_path, key):
    path = tmp_path / "products.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in (ROW, {k: v for k, v in ROW.items() if k != key})))
    with pytest.raises(
        WorkbookError, match=rf", line 2: '{key}' is missing \(expected id, [^.\n]*\): mend or [^.\n]*\.$"
    ):
        read_products(path)


def test_id_that_is_there_twice_is_named_in_one_sentence(tmp_path):
    path = tmp_path / "products.jsonl"
    path.write_text("\n".join(json.dumps(ROW | {"colour": colour}) for colour in ("red", "blue")))
    with pytest.raises(WorkbookError, match=r", line 2: the id 's1' stands there twice: [^.\n]*\.$"):
        read_products(path)


# What is shipped


def test_there_are_at_least_150_products_with_their_own_ids_titles_and_texts(products):
    lines = (DATA / "shop" / "products.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(products) == len(lines) >= 150  # of two lines with one id, one would be lost
    for said in ("title", "text"):
        assert len({getattr(p, said).strip().lower() for p in products.values()}) == len(products)


def test_every_product_can_be_drawn_in_its_colour_and_role(products):
    assert {p.colour for p in products.values()} <= set(PAINT)
    assert {p.role for p in products.values()} | {"skirt", "shorts", "tie", "hat"} == set(SHAPES)


def test_every_product_has_a_price_and_all_attributes(products):
    for i, product in products.items():
        assert product.price > 0, i
        assert all(str(value).strip() for _, value in product), i


def test_all_colours_of_a_design_have_one_role_and_occasion(products):
    kinds = Counter(d for d, *_ in {(p.design, p.role, p.occasion) for p in products.values()})
    assert not [design for design, n in kinds.items() if n > 1]


def test_neutral_colours_are_sold_and_strong_ones_too(products):
    sold = {p.colour for p in products.values()}
    assert sold >= NEUTRAL
    assert len(sold - NEUTRAL) >= 5


def test_occasions_that_mix_are_occasions_of_products(products):
    assert {o for pair in shop.MIXES for o in pair} <= {p.occasion for p in products.values()}

"""Statements and profiles that are alike in more than one way, the likes simulated from them,
and the rules of the shipped ones.
"""

import json
import re
from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from helpers.course.tastes import (
    CLASHES,
    DISLIKES,
    DRINKS,
    LIKES,
    WEIGHTS,
    Profile,
    among,
    compatibility,
    read_profiles,
    simulate_likes,
    split_people,
    statements,
)
from helpers.store.files import DATA, WorkbookError
from helpers.store.rows import read_jsonl

SPLITS = ("train", "dev", "test")
TOPICS = {
    "alcohol",
    "camping",
    "cats",
    "coffee",
    "cooking",
    "dancing",
    "dogs",
    "early mornings",
    "gaming",
    "hiking",
    "horror films",
    "live music",
    "long-distance travel",
    "nightlife",
    "smoking",
    "spicy food",
    "team sports",
    "wants children",
}


def person(likes: str = "", dislikes: str = "") -> Profile:
    """A profile with the topics, which are separated by commas."""
    said = [(topic.strip(), sign) for topics, sign in ((likes, 1), (dislikes, -1)) for topic in topics.split(",")]
    return Profile("", {topic: sign for topic, sign in said if topic})


def crowd(n: int, profile: Profile) -> dict[str, Profile]:
    return {f"p{i:03}": profile for i in range(n)}


def share(likes) -> float:
    return float(np.mean([like for row in likes.values() for like in row.values()]))


@pytest.fixture(scope="module")
def profiles() -> dict[str, Profile]:
    return read_profiles()


# Statements


@pytest.mark.parametrize(("split", "rows"), [("train", 120), ("dev", 36), ("test", 36)])
def test_every_drink_stands_in_every_phrase_once(split, rows):
    # 10 drinks x (6 + 6) phrases to train on; 6 drinks x (3 + 3) phrases for dev and for test.
    table = statements(split)
    assert len(table) == rows
    assert table.index.is_unique
    assert table["text"].is_unique
    assert table["likes"].sum() == rows / 2
    assert set(table["drink"].value_counts()) == {rows // len(DRINKS[split])}
    assert all(row.drink.lower() in row.text.lower() for row in table.itertuples())


def test_statement_is_its_phrase_with_the_drink_and_begins_with_a_capital():
    table = statements("train")
    assert table.loc["train-sparkling water-{} makes my day"].to_dict() == {
        "text": "Sparkling water makes my day",
        "drink": "sparkling water",
        "likes": 1,
    }
    assert table.loc["train-beer-keep {} away from me"].tolist() == ["Keep beer away from me", "beer", 0]
    assert all(text[0].isupper() for split in SPLITS for text in statements(split)["text"])


def test_no_drink_no_phrase_and_no_statement_stands_in_two_splits():
    drinks, texts = ({s: set(statements(s)[column].str.lower()) for s in SPLITS} for column in ("drink", "text"))
    phrases = {s: {p.lower() for p in (*LIKES[s], *DISLIKES[s])} for s in SPLITS}
    for one, other in combinations(SPLITS, 2):
        for parts in (drinks, texts, phrases):
            assert parts[one]
            assert not parts[one] & parts[other], (one, other)


def test_no_phrase_is_both_of_liking_and_of_disliking_and_each_has_one_place_for_a_drink():
    liking, disliking = ([p for s in SPLITS for p in phrases[s]] for phrases in (LIKES, DISLIKES))
    assert len({*liking, *disliking}) == len(liking) + len(disliking) == 24
    assert all(phrase.count("{}") == 1 for phrase in (*liking, *disliking))


# Compatibility


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (person("hiking"), person("hiking"), 1.0),
        (person("hiking"), person("", "hiking"), -1.0),
        (person("", "hiking"), person("", "hiking"), 1.0),
        (person("hiking"), person("coffee"), 0.0),
        (person(), person("hiking"), 0.0),
        (person("wants children, hiking"), person("wants children", "hiking"), 2.0),  # 3 - 1
        (person("", "smoking"), person("smoking"), -2.5),
        (person("dogs"), person("cats"), -1.0),  # a clash, though they share no topic
        (person("dogs, cats"), person("dogs, cats"), 1.0),  # 1.5 + 1.5, less a clash each way
        (person("nightlife"), person("early mornings", "nightlife"), -2.5),  # -1.5, and a clash
        (person("nightlife"), person("", "early mornings"), 0.0),  # only liking both clashes
        (person("nightlife, dogs"), person("early mornings, cats"), -2.0),  # two clashes
    ],
)
def test_compatibility_is_the_sum_worked_out_by_hand_and_the_same_both_ways(one, other, expected):
    assert compatibility(one, other) == expected
    assert compatibility(other, one) == expected


def test_topics_with_a_weight_or_a_clash_are_known_ones():
    assert set(WEIGHTS) <= TOPICS
    assert {topic for pair in CLASHES for topic in pair} <= TOPICS


# Likes


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        (person(), 0.354),  # nothing shared: 1 / (1 + exp(0.6))
        (person("coffee"), 0.646),  # 1: 1 / (1 + exp(-1.2 + 0.6))
        (person("wants children"), 0.953),  # 3: 1 / (1 + exp(-3.6 + 0.6))
        (person("dogs, cats"), 0.646),  # 1.5 + 1.5 - 2 = 1
    ],
)
def test_likes_come_as_often_as_the_formula_says(profile, expected):
    # 60 x 59 pairs: the share is within 0.03 of its chance in more than 999 of 1,000 draws.
    assert share(simulate_likes(crowd(60, profile))) == pytest.approx(expected, abs=0.03)


def test_people_who_want_the_opposite_hardly_ever_like_each_other():
    people = {"a": person("wants children")} | {f"b{i}": person("", "wants children") for i in range(400)}
    likes = simulate_likes(people)
    assert sum(likes["a"].values()) <= 20  # 400 / (1 + exp(3.6 + 0.6)) is 5.9
    assert share({b: {"a": row["a"]} for b, row in likes.items() if b != "a"}) < 0.05


def test_everyone_decides_on_everyone_else_and_a_like_need_not_be_returned():
    likes = simulate_likes(crowd(12, person("coffee")))
    assert {a: set(row) for a, row in likes.items()} == {a: set(likes) - {a} for a in likes}
    assert {like for row in likes.values() for like in row.values()} == {0, 1}
    assert any(likes[a][b] != likes[b][a] for a, b in combinations(likes, 2))


def test_likes_depend_on_the_seed_and_not_on_the_order_of_the_profiles():
    people = crowd(12, person("coffee")) | {"a": person("", "coffee")}
    turned = dict(reversed(people.items()))
    assert simulate_likes(people, seed=3) == simulate_likes(turned, seed=3)
    assert simulate_likes(people, seed=3) != simulate_likes(people, seed=4)


def test_among_names_who_is_liked_or_not_within_the_group():
    likes = {
        "a": {"b": 1, "c": 0, "d": 1},
        "b": {"a": 0, "c": 0, "d": 1},
        "c": {"a": 1, "b": 1, "d": 1},
        "d": {"a": 1, "b": 1, "c": 1},
    }
    assert among(likes, ["a", "b", "c"]) == {"a": {"b": 1}, "b": {}, "c": {"a": 1, "b": 1}}
    assert among(likes, ["a", "b", "c"], liked=0) == {"a": {"c": 1}, "b": {"a": 1, "c": 1}, "c": {}}


# Splits of people


def test_of_100_people_62_are_to_train_on_14_for_dev_and_24_for_test():
    people = crowd(100, person())
    parts = split_people(people)
    assert {name: len(ids) for name, ids in parts.items()} == {"train": 62, "dev": 14, "test": 24}
    assert sorted(p for ids in parts.values() for p in ids) == sorted(people)


def test_split_of_people_depends_on_the_seed_and_not_on_the_order():
    people = crowd(30, person())
    assert split_people(people, 1) == split_people(dict(reversed(people.items())), 1)
    assert split_people(people, 1) != split_people(people, 2)


def test_nobody_and_no_text_of_the_shipped_profiles_is_in_two_splits(profiles):
    parts = split_people(profiles)
    assert sorted(p for ids in parts.values() for p in ids) == sorted(profiles)
    texts = {name: {profiles[p].text for p in ids} for name, ids in parts.items()}
    for one, other in combinations(SPLITS, 2):
        assert not set(parts[one]) & set(parts[other])
        assert not texts[one] & texts[other]


def test_everyone_in_each_split_likes_someone_there_and_someone_not(profiles):
    likes = simulate_likes(profiles)
    for ids in split_people(profiles).values():
        assert all(among(likes, ids).values())
        assert all(among(likes, ids, liked=0).values())


# Reading


def test_profiles_are_read_with_their_attitudes(tmp_path):
    path = tmp_path / "profiles.jsonl"
    path.write_text(
        '{"id": "p1", "text": "Tea.", "likes": ["tea", "cats"], "dislikes": ["gin"]}\n\n'
        '{"id": "p2", "text": "No.", "likes": [], "dislikes": []}\n'
    )
    assert read_profiles(path) == {
        "p1": Profile("Tea.", {"tea": 1, "cats": 1, "gin": -1}),
        "p2": Profile("No.", {}),
    }


@pytest.mark.parametrize("key", ["id", "text", "likes", "dislikes"])
def test_line_in_which_something_is_missing_is_named_in_one_sentence(tmp_path, key):
    row = {"id": "p2", "text": "Tea.", "likes": [], "dislikes": []}
    path = tmp_path / "profiles.jsonl"
    path.write_text("\n".join(json.dumps(r) for r in (row, {k: v for k, v in row.items() if k != key})))
    with pytest.raises(
        WorkbookError, match=rf", line 2: '{key}' is missing \(expected id, [^.\n]*\): mend or [^.\n]*\.$"
    ):
        read_profiles(path)


def test_id_that_is_there_twice_is_named_in_one_sentence(tmp_path):
    path = tmp_path / "profiles.jsonl"
    path.write_text('{"id": "p1", "text": "Tea.", "likes": [], "dislikes": []}\n' * 2)
    with pytest.raises(WorkbookError, match=r", line 2: the id 'p1' stands there twice: [^.\n]*\.$"):
        read_profiles(path)


# What is shipped


def test_there_are_at_least_120_profiles_with_their_own_ids_and_texts(profiles):
    lines = (DATA / "dating" / "profiles.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(profiles) == len(lines) >= 120  # of two lines with one id, one would be lost
    assert len({" ".join(re.findall(r"\w+", p.text.lower())) for p in profiles.values()}) == len(profiles)


def test_every_profile_has_15_to_70_words(profiles):
    lengths = {p: len(profile.text.split()) for p, profile in profiles.items()}
    assert not {p: n for p, n in lengths.items() if not 15 <= n <= 70}


def test_no_two_profiles_begin_with_the_same_three_words(profiles):
    openings = Counter(tuple(p.text.lower().split()[:3]) for p in profiles.values())
    assert not [opening for opening, times in openings.items() if times > 1]


def test_every_stated_topic_is_known_and_every_known_one_is_liked_and_disliked_by_someone(profiles):
    for sign in (1, -1):
        assert {t for p in profiles.values() for t, attitude in p.attitudes.items() if attitude == sign} == TOPICS


def test_nobody_likes_and_dislikes_the_same_and_nobody_says_nothing(profiles):
    for _, row in read_jsonl(DATA / "dating" / "profiles.jsonl"):
        stated = [*row["likes"], *row["dislikes"]]
        assert stated, row["id"]
        assert len(set(stated)) == len(stated), row["id"]

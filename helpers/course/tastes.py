"""Two small data sets in which "similar" has more than one meaning.

They are statements about drinks, and dating profiles with simulated likes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import BaseModel

from helpers.store.files import DATA
from helpers.store.rows import Text, read_rows

# train is learned from, dev chooses a checkpoint, test is measured on: no drink and no phrasing stands in two of them.
DRINKS = {
    "train": [
        "espresso",
        "beer",
        "cocoa",
        "lemonade",
        "cider",
        "whisky",
        "orange juice",
        "sparkling water",
        "milkshakes",
        "kombucha",
    ],
    "dev": ["rum", "ginger ale", "apple juice", "hot chocolate", "red wine", "iced tea"],
    "test": ["coffee", "tea", "wine", "matcha", "cola", "milk"],
}
LIKES = {
    "train": [
        "I like {}",
        "I'm a big fan of {}",
        "{} makes my day",
        "I could live on {}",
        "nothing beats {}",
        "{} is always a treat",
    ],
    "dev": ["I really enjoy {}", "{} puts me in a good mood", "count me in for {}"],
    "test": ["I love {}", "I adore {}", "give me {} any time"],
}
DISLIKES = {
    "train": [
        "I dislike {}",
        "I never touch {}",
        "{} tastes awful",
        "keep {} away from me",
        "nothing is worse than {}",
        "{} spoils any party",
    ],
    "dev": ["I really don't enjoy {}", "{} puts me in a bad mood", "count me out for {}"],
    "test": ["I hate {}", "I can't stand {}", "you will not get me to drink {}"],
}
# How much one shared topic counts: same attitude adds it, opposite attitudes take it away; other topics count 1.
WEIGHTS = {"wants children": 3.0, "smoking": 2.5, "dogs": 1.5, "cats": 1.5, "nightlife": 1.5, "early mornings": 1.5}
CLASHES = [("nightlife", "early mornings"), ("dogs", "cats")]  # liking one and the other takes 1 away
STEEPNESS, THRESHOLD = 1.2, 0.6


def statements(split: str) -> pd.DataFrame:
    """One row per statement, with the index ``id`` and the columns text, drink and likes (1 or 0)."""
    rows = [
        {"id": f"{split}-{drink}-{phrase}", "text": _sentence(phrase.format(drink)), "drink": drink, "likes": likes}
        for drink in DRINKS[split]
        for likes, phrases in ((1, LIKES[split]), (0, DISLIKES[split]))
        for phrase in phrases
    ]
    return pd.DataFrame(rows).set_index("id")


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


@dataclass(frozen=True)
class Profile:
    """A dating profile: what the person wrote, and the attitudes stated in it, {topic: 1 likes, -1 dislikes}."""

    text: str
    attitudes: Mapping[str, int]


class _Line(BaseModel):
    """A profile as it stands in a file."""

    id: Text
    text: Text
    likes: list[Text]
    dislikes: list[Text]


def read_profiles(path: Path = DATA / "dating" / "profiles.jsonl") -> dict[str, Profile]:
    """{id: profile}.

    Raises WorkbookError for a line without id, text or attitudes, and for an id that was there before.
    """
    rows = read_rows(path, _Line, unique="id").values()
    return {p.id: Profile(p.text, dict.fromkeys(p.likes, 1) | dict.fromkeys(p.dislikes, -1)) for p in rows}


def compatibility(one: Profile, other: Profile) -> float:
    """How well the stated attitudes of two people fit; 0 is neutral, and the order of the two makes no difference.

    Each topic that both mention adds its weight if they agree and takes it away if not; each clash takes 1 away.
    """
    shared = set(one.attitudes) & set(other.attitudes)
    total = sum(WEIGHTS.get(t, 1.0) * one.attitudes[t] * other.attitudes[t] for t in shared)
    for a, b in CLASHES:
        for x, y in ((one, other), (other, one)):
            total -= x.attitudes.get(a, 0) == 1 and y.attitudes.get(b, 0) == 1
    return total


def simulate_likes(profiles: Mapping[str, Profile], seed: int = 0) -> dict[str, dict[str, int]]:
    """{person: {other: 1 like, 0 not}} for all ordered pairs: P(like) = 1 / (1 + exp(−1.2 · compatibility + 0.6)).

    Each person decides on their own, so a like need not be returned. The likes are simulated from what the profiles
    state; they are nobody's real behaviour.
    """
    rng = np.random.default_rng(seed)
    likes: dict[str, dict[str, int]] = {}
    for a in sorted(profiles):
        others = [b for b in sorted(profiles) if b != a]
        fit = np.array([compatibility(profiles[a], profiles[b]) for b in others])
        chosen = rng.random(len(others)) < 1 / (1 + np.exp(-STEEPNESS * fit + THRESHOLD))
        likes[a] = {b: int(c) for b, c in zip(others, chosen, strict=True)}
    return likes


def split_people(profiles: Mapping[str, Profile], seed: int = 0) -> dict[str, list[str]]:
    """{"train", "dev", "test": ids}: 62 %, 14 % and the rest of the people, drawn by ``seed``.

    A pair of people counts only if both are in the same part.
    """
    order = np.random.default_rng(seed).permutation(sorted(profiles)).tolist()
    a, b = round(0.62 * len(order)), round(0.76 * len(order))
    return {"train": sorted(order[:a]), "dev": sorted(order[a:b]), "test": sorted(order[b:])}


def among(likes: Mapping[str, Mapping[str, int]], people: list[str], liked: int = 1) -> dict[str, dict[str, int]]:
    """{person: {other: 1}} within a group: whom each person likes, or, with ``liked`` 0, does not like."""
    return {a: {b: 1 for b in people if b != a and likes[a][b] == liked} for a in people}

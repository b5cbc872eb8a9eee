"""The guard against leaks of queries: is a text that is to be trained on a held-out query in other clothes?"""

from collections import Counter
from collections.abc import Iterable

from helpers.examples import same
from helpers.retrievers import tokenize

TOO_ALIKE = 0.9  # a train query that shares as many of its words with a held-out one is the same question


class Repeats:
    """Whether a text repeats one of ``held``, whatever its capitals, punctuation and order of words.

    It does where it shares at least 0.9 of all words of both (stemmed, without stop words), or is the same text in other capitals.
    """

    def __init__(self, held: Iterable[str]):
        texts = list(held)
        self.bags = [frozenset(tokenize(text)) for text in texts]
        self.exact = {_plain(text) for text in texts}
        self.holders: dict[str, list[int]] = {}
        for i, bag in enumerate(self.bags):
            for word in bag:
                self.holders.setdefault(word, []).append(i)

    def __call__(self, text: str) -> bool:
        bag = frozenset(tokenize(text))
        shared = Counter(i for word in bag for i in self.holders.get(word, ()))
        near = any(n >= TOO_ALIKE * (len(bag) + len(self.bags[i]) - n) for i, n in shared.items())
        return near or _plain(text) in self.exact


def _plain(text: str) -> str:
    return same(text).lower()

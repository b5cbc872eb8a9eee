"""The guard against leaks of queries: is a text that is to be trained on a held-out query in other clothes?"""

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np

from helpers.collection.text import same, tokenize

DUPLICATE_COSINE, DUPLICATE_WORDS = 0.95, 0.80  # near-duplicates are above both
_BLOCK = 500  # passages compared with all others at a time: 40 MB of cosines at 20,000 passages
_NEIGHBOURS = 50  # of one passage that are compared word by word: what a template makes alike is many

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


def near_duplicates(corpus: Mapping[str, str], vectors: np.ndarray) -> dict[str, str]:
    """{doc_id: the first id of its group} of all passages that nearly repeat another one; {} where none does.

    Two passages are near-duplicates when their cosine is at least 0.95 and they share at least 0.8 of their words (stemmed);
    through any chain of them they are one group. ``vectors`` are the passages' unit vectors, in the order of ``corpus``.
    """
    ids = list(corpus)
    first = list(range(len(ids)))

    def root(i: int) -> int:
        while first[i] != i:
            first[i] = first[first[i]]
            i = first[i]
        return i

    words = [frozenset(tokenize(text)) for text in corpus.values()]
    for start in range(0, len(ids), _BLOCK):
        for row, cosines in enumerate(vectors[start : start + _BLOCK] @ vectors[start:].T):
            i, later = start + row, cosines[row + 1 :]
            near = np.flatnonzero(later >= DUPLICATE_COSINE)
            if len(near) > _NEIGHBOURS:
                near = near[np.argsort(-later[near], kind="stable")[:_NEIGHBOURS]]
            for j in (near + i + 1).tolist():
                alike = len(words[i] & words[j]) >= DUPLICATE_WORDS * max(1, len(words[i] | words[j]))
                if root(i) != root(j) and (alike or corpus[ids[i]] == corpus[ids[j]]):
                    low, high = sorted((root(i), root(j)))
                    first[high] = low
    groups = Counter(root(i) for i in range(len(ids)))
    return {doc: ids[root(i)] for i, doc in enumerate(ids) if groups[root(i)] > 1}

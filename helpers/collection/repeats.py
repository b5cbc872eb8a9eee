"""Guards against leaks between splits: texts that repeat a held-out query, passages that nearly repeat each other."""

from collections.abc import Iterable, Mapping

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from helpers.collection.text import normalise, tokenize

DUPLICATE_COSINE, DUPLICATE_WORDS = 0.95, 0.80  # near-duplicates reach both
_BLOCK = 500  # passages compared with all others at a time: 40 MB of cosines at 20,000 passages
_NEIGHBOURS = 50  # of a passage are compared word by word; a template can give it very many near ones
TOO_ALIKE = 0.9  # common share of all words from which on a train query is the same question as a held-out one


class SharedWords:
    """Tells how many words a text shares with each of ``texts``: the Jaccard similarity of their sets of words.

    That is the share of the words of either that both have, stemmed and without stop words.
    """

    def __init__(self, texts: Iterable[str]):
        bags = [frozenset(tokenize(text)) for text in texts]
        self.sizes = np.array([len(bag) for bag in bags])
        self.holders: dict[str, list[int]] = {}
        for i, bag in enumerate(bags):
            for word in bag:
                self.holders.setdefault(word, []).append(i)

    def __call__(self, text: str) -> np.ndarray:
        """float of shape (texts,), in [0, 1]; 0 where neither has a word."""
        bag = frozenset(tokenize(text))
        held = [i for word in bag for i in self.holders.get(word, ())]
        common = np.bincount(np.array(held, dtype=int), minlength=len(self.sizes))
        return common / np.maximum(1, len(bag) + self.sizes - common)


class Repeats:
    """Tells whether a text repeats one of the texts in ``held``, whatever its capitals, punctuation and word order.

    A text repeats another if at least 0.9 of all words of the two (stemmed, without stop words) are in both, or if it
    is the same text in other capitals.
    """

    def __init__(self, held: Iterable[str]):
        texts = list(held)
        self.shared = SharedWords(texts)
        self.exact = {normalise(text).lower() for text in texts}

    def __call__(self, text: str) -> bool:
        return normalise(text).lower() in self.exact or bool((self.shared(text) >= TOO_ALIKE).any())


def near_duplicates(corpus: Mapping[str, str], vectors: np.ndarray) -> dict[str, str]:
    """{doc_id: first id of its group} of all passages that nearly repeat another one; {} where none does.

    Two passages are near-duplicates when their cosine is at least 0.95 and they share at least 0.8 of their words
    (stemmed). Passages linked by a chain of near-duplicates form one group. ``vectors`` are the passages' unit vectors,
    in the order of ``corpus``.
    """
    ids = list(corpus)
    words = [frozenset(tokenize(text)) for text in corpus.values()]
    pairs: list[tuple[int, int]] = []
    for start in range(0, len(ids), _BLOCK):
        for row, cosines in enumerate(vectors[start : start + _BLOCK] @ vectors[start:].T):
            i, later = start + row, cosines[row + 1 :]
            near = np.flatnonzero(later >= DUPLICATE_COSINE)
            if len(near) > _NEIGHBOURS:
                near = near[np.argsort(-later[near], kind="stable")[:_NEIGHBOURS]]
            for j in (near + i + 1).tolist():
                alike = len(words[i] & words[j]) >= DUPLICATE_WORDS * max(1, len(words[i] | words[j]))
                if alike or corpus[ids[i]] == corpus[ids[j]]:
                    pairs.append((i, j))
    one, other = np.array(pairs, dtype=int).reshape(-1, 2).T
    links = coo_matrix((np.ones(len(pairs)), (one, other)), shape=(len(ids), len(ids)))
    group = connected_components(links, directed=False)[1]
    _, first, size = np.unique(group, return_index=True, return_counts=True)
    return {doc: ids[first[g]] for doc, g in zip(ids, group, strict=True) if size[g] > 1}

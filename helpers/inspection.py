"""What a collection needs before it is searched: long passages cut, another language noticed, near-duplicates found."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from sentence_transformers import SentenceTransformer

from helpers import chunking
from helpers.retrievers import Retriever, Run, tokenize, top_k
from helpers.store import fingerprint

MULTILINGUAL = "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2"
DUPLICATE_COSINE, DUPLICATE_WORDS = 0.95, 0.80  # near-duplicates are above both
_BLOCK = 500  # passages compared with all others at a time: 40 MB of cosines at 20,000 passages
_NEIGHBOURS = 50  # of one passage that are compared word by word: what a template makes alike is many
_ROOM = 0.9  # of the encoder's limit: another tokenizer than the chunker's may count more tokens
# Frequent little words that the other languages in the list do not have.
_LITTLE = {
    "English": "the and of to is that for with are this you not from have which",
    "German": "der die und das nicht ist mit ein eine auf für von werden sich dem",
    "French": "le les des est une dans pour que qui sur pas vous avec sont cette",
    "Spanish": "el los las una para con por está como más pero este ser y del",
    "Italian": "il di che per non una sono gli della nel anche più questo essere come",
    "Portuguese": "os uma não para com mais como dos foi são ao pelo você este ser",
    "Dutch": "de het een van en niet zijn op voor met dat aan ook worden deze",
    "Polish": "i w na z do nie jest się to że jak dla od po przez",
    "Swedish": "och att det som en på är av för med till den inte om ett",
}


def guess_language(texts: Iterable[str], sample: int = 300) -> str | None:
    """The language of most of the texts, or their script where it is not the Latin one; None for English or where nothing tells.

    By counting frequent little words; code and labels of two words have none, and get None.
    """
    chosen = [text[:1000] for text in texts]
    joined = " ".join(chosen[:: max(1, len(chosen) // sample)]).lower()
    scripts = Counter(unicodedata.name(c, "?").split()[0] for c in joined[:20_000] if c.isalpha())
    if not scripts:
        return None
    script, count = scripts.most_common(1)[0]
    if script != "LATIN":
        return f"the {script.title()} script" if count > 0.5 * scripts.total() else None
    words = Counter(re.findall(r"[^\W\d_]+", joined))
    hits = {name: sum(words[w] for w in little.split()) for name, little in _LITTLE.items()}
    best = max(hits, key=lambda name: (hits[name], name == "English"))
    different = sum(words[w] > 0 for w in _LITTLE[best].split())
    clear = different >= 3 and hits[best] > 0.04 * words.total() and hits[best] > 1.5 * hits["English"]
    return best if clear and best != "English" else None


def token_counts(texts: Sequence[str], encoder: SentenceTransformer) -> list[int]:
    """Tokens of each text for this encoder, [CLS] and [SEP] included, nothing cut off."""
    counts: list[int] = []
    for start in range(0, len(texts), 1000):
        found = encoder.tokenizer(list(texts[start : start + 1000]), truncation=False, verbose=False)["input_ids"]
        counts += [len(ids) for ids in found]
    return counts


def cut_long(corpus: Mapping[str, str], encoder: SentenceTransformer) -> tuple[dict[str, str], dict[str, str]]:
    """Passages of at most the encoder's limit, and {chunk_id: doc_id} of those that were cut; ({…}, {}) where none is longer.

    What is longer would be read by its beginning alone. A chunk's id is the passage's, ``#`` and a number.
    """
    limit = encoder.max_seq_length or 512
    counts = dict(zip(corpus, token_counts(list(corpus.values()), encoder), strict=True))
    size = max(16, int(_ROOM * limit) - 2)
    pieces: dict[str, str] = {}
    owner: dict[str, str] = {}
    for doc, text in corpus.items():
        chunks = [text]
        if counts[doc] > limit:
            chunks = list(chunking.chunk_documents({doc: text}, "recursive", size).values()) or [text]
        for n, chunk in enumerate(chunks, 1):
            piece = doc if len(chunks) == 1 else f"{doc}#{n}"
            while piece in pieces or (piece != doc and piece in corpus):
                piece += "#"
            pieces[piece] = chunk
            if piece != doc:
                owner[piece] = doc
    return pieces, owner


def fold(run: Run, owner: Mapping[str, str], k: int) -> Run:
    """A run over chunks as a run over documents: each by the best of its chunks, at most k a query, ties by id."""
    folded: Run = {}
    for query, found in run.items():
        best: dict[str, float] = {}
        for piece, score in found.items():
            doc = owner.get(piece, piece)
            best[doc] = max(score, best.get(doc, score))
        folded[query] = top_k(list(best), list(best.values()), k)
    return folded


class ByDocument(Retriever):
    """A retriever over chunks that answers with their documents; three times as many chunks are asked for as documents."""

    def __init__(self, inner: Retriever, owner: Mapping[str, str]):
        self.inner, self.owner, self.name = inner, owner, inner.name
        self.usd_per_1000_queries = inner.usd_per_1000_queries

    @property
    def key(self) -> str:
        return fingerprint("by document", self.inner.key, self.owner)

    def index(self, corpus: Mapping[str, str]) -> "ByDocument":
        self.inner.index(corpus)
        return self

    def search(self, text: str, k: int) -> dict[str, float]:
        return fold({"q": self.inner.search(text, 3 * k)}, self.owner, k)["q"]

    def retrieve(self, queries: Mapping[str, str], k: int = 100) -> Run:
        return fold(self.inner.retrieve(queries, 3 * k), self.owner, k)


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

"""Cut documents into chunks with chonkie's chunkers; the id of a chunk is its document's id, ``#`` and a number."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache

import numpy as np
from chonkie import RecursiveChunker, SemanticChunker, SentenceChunker, TokenChunker
from chonkie.embeddings import BaseEmbeddings
from chonkie.tokenizer import Tokenizer as ChonkieTokenizer
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer

from helpers.collection import chunking
from helpers.models.embed import Embedder
from helpers.models.packaged import MINILM, package_folder
from helpers.store.files import WorkbookError
from helpers.store.progress import tracked

_ROOM = 0.9  # share of the encoder's limit that a chunk may fill: its tokenizer may count more than the chunker's

METHODS = ("fixed size", "sentence", "recursive", "structure-aware", "semantic")
CHUNK_TOKENS = 128
# A Markdown heading, or a short line underlined with ---- or ==== as in reStructuredText and numpydoc.
_HEADING = re.compile(r"^(?:#{1,6}[ \t]+(?P<md>.+?)|(?P<rst>\S.{0,99})\n[ \t]*[-=~^]{3,})[ \t]*$", re.M)


@cache
def _wordpieces() -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(package_folder(MINILM) / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def count_tokens(text: str) -> int:
    """Tokens of a text for the packaged encoder, without [CLS] and [SEP]."""
    return len(_wordpieces().encode(text, add_special_tokens=False).ids)


class WordPieces(ChonkieTokenizer):
    """The packaged encoder's tokens as slices of the text, so that joining them gives the text back unchanged."""

    def __repr__(self) -> str:
        return "WordPieces()"

    def tokenize(self, text: str) -> Sequence[str]:
        """Slices that cover the text: each token with the white space before it."""
        ends = [end for _, end in _wordpieces().encode(text, add_special_tokens=False).offsets]
        if not ends:
            return [text] if text else []
        ends[-1] = len(text)
        return [text[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)]

    def encode(self, text: str) -> Sequence[int]:
        """Ids of the slices in this tokenizer's own vocabulary, which grows with the texts it sees."""
        ids = []
        for part in self.tokenize(text):
            if part not in self.token2id:
                self.token2id[part] = len(self.vocab)
                self.vocab.append(part)
            ids.append(self.token2id[part])
        return ids

    def decode(self, tokens: Sequence[int]) -> str:
        """The slices joined: the original text."""
        return "".join(self.vocab[i] for i in tokens)

    def count_tokens(self, text: str) -> int:
        """Number of tokens."""
        return count_tokens(text)


class _EmbedderForChonkie(BaseEmbeddings):
    """Our embedder where chonkie expects one of its own."""

    def __init__(self, embedder: Embedder):
        super().__init__()
        self.embedder = embedder

    def embed(self, text: str) -> np.ndarray:
        return self.embed_batch([text])[0]

    def embed_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        return list(self.embedder.embed(texts, "document"))

    @property
    def dimension(self) -> int:
        return self.embedder.width

    def get_tokenizer(self):
        return WordPieces()


def _sections(text: str) -> list[tuple[str, str]]:
    """(heading, body) pairs; what stands before the first heading has the heading ''."""
    found = list(_HEADING.finditer(text))
    starts = [0, *(m.end() for m in found)]
    ends = [*(m.start() for m in found), len(text)]
    headings = ["", *((m["md"] or m["rst"]).strip() for m in found)]
    return [(h, text[a:b].strip()) for h, a, b in zip(headings, starts, ends, strict=True)]


def _structure_aware(title: str, text: str, size: int) -> list[str]:
    """Chunks that stay within one section and begin with the document's title and the section's heading."""
    chunks = []
    for heading, body in _sections(text):
        context = " › ".join(part for part in (title, heading) if part)
        room = max(16, size - count_tokens(context) - 1)
        inner = RecursiveChunker(tokenizer=WordPieces(), chunk_size=room)
        chunks += [f"{context}: {c.text.strip()}" for c in inner.chunk(body) if c.text.strip()]
    if not chunks and text.strip():  # headings alone
        return [f"{title}: {text.strip()}"]
    return chunks


def chunker(method: str, size: int = CHUNK_TOKENS, embedder: Embedder | None = None) -> Callable[[str, str], list[str]]:
    """A function (title, text) → chunk texts of at most about ``size`` tokens. ``method`` is one of METHODS.

    Semantic chunking needs an ``embedder``: it cuts where neighbouring sentences are least alike.
    """
    if method == "structure-aware":
        return lambda title, text: _structure_aware(title, text, size)
    if method == "fixed size":
        inner = TokenChunker(tokenizer=WordPieces(), chunk_size=size)
    elif method == "sentence":
        inner = SentenceChunker(tokenizer=WordPieces(), chunk_size=size)
    elif method == "recursive":
        inner = RecursiveChunker(tokenizer=WordPieces(), chunk_size=size)
    elif method == "semantic":
        if embedder is None:
            raise WorkbookError("Semantic chunking compares sentences: pass an embedder.")
        inner = SemanticChunker(
            embedding_model=_EmbedderForChonkie(embedder),
            chunk_size=size,
            threshold=0.5,
            similarity_window=1,
            min_characters_per_sentence=60,
        )
    else:
        raise WorkbookError(f"There is no chunker {method!r}: choose one of {', '.join(METHODS)}.")
    return lambda _title, text: [c.text.strip() for c in inner.chunk(text) if c.text.strip()]


def chunk_documents(
    documents: Mapping[str, str],
    method: str = "structure-aware",
    size: int = CHUNK_TOKENS,
    embedder: Embedder | None = None,
) -> dict[str, str]:
    """``{document_id: text}`` → ``{document_id#n: chunk text}``, in order; empty documents give no chunk."""
    cut = chunker(method, size, embedder)
    items = documents.items()
    if len(documents) >= 100:
        items = tracked(items, f"Chunking ({method})", "document")
    return {f"{doc}#{n}": chunk for doc, text in items for n, chunk in enumerate(cut(doc, text), 1)}


def document_of(chunk_id: str) -> str:
    """The document a chunk comes from: ``guide.md#3`` → ``guide.md``; another id is its own document."""
    return re.sub(r"#\d+$", "", chunk_id)


def within_budget(
    run: Mapping[str, Mapping[str, float]], chunks: Mapping[str, str], tokens: int
) -> dict[str, list[str]]:
    """The documents whose chunks fit into a context of ``tokens`` tokens, best first: ``{query_id: [document_id]}``.

    Chunks are taken in the order of their scores until the next one would not fit.
    """
    size = {chunk: count_tokens(chunks[chunk]) for chunk in {c for found in run.values() for c in found}}
    context: dict[str, list[str]] = {}
    for query, found in run.items():
        left, documents = tokens, []
        for chunk in sorted(found, key=lambda c: (-found[c], c)):
            left -= size[chunk]
            if left < 0:
                break
            documents.append(document_of(chunk))
        context[query] = list(dict.fromkeys(documents))
    return context


def token_counts(texts: Sequence[str], encoder: SentenceTransformer) -> list[int]:
    """Tokens of each text for this encoder, [CLS] and [SEP] included, nothing cut off."""
    counts: list[int] = []
    for start in range(0, len(texts), 1000):
        found = encoder.tokenizer(list(texts[start : start + 1000]), truncation=False, verbose=False)["input_ids"]
        counts += [len(ids) for ids in found]
    return counts


def cut_long(corpus: Mapping[str, str], encoder: SentenceTransformer) -> tuple[dict[str, str], dict[str, str]]:
    """Cut the passages that are longer than the encoder's limit, of which it would read only the beginning.

    Returns all passages, cut where necessary, and {chunk_id: doc_id} of those that were cut, {} where none was. The id
    of a chunk is the passage's id, ``#`` and a number.
    """
    limit = encoder.max_seq_length or 512
    counts = dict(zip(corpus, token_counts(list(corpus.values()), encoder), strict=True))
    size = max(16, int(_ROOM * limit) - 2)
    texts: dict[str, str] = {}
    parents: dict[str, str] = {}
    for doc, text in corpus.items():
        chunks = [text]
        if counts[doc] > limit:
            chunks = list(chunking.chunk_documents({doc: text}, "recursive", size).values()) or [text]
        for n, chunk in enumerate(chunks, 1):
            name = doc if len(chunks) == 1 else f"{doc}#{n}"
            while name in texts or (name != doc and name in corpus):
                name += "#"
            texts[name] = chunk
            if name != doc:
                parents[name] = doc
    return texts, parents

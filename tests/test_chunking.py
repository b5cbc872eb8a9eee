"""Chunkers: ids, sizes, and that nothing is lost on the way."""

import itertools
import random

import pytest

from helpers.collection.chunking import METHODS, WordPieces, chunk_documents, chunker, count_tokens, document_of
from helpers.models import load as models
from helpers.models.embed import LocalEmbedder
from helpers.store.files import WorkbookError

LOSSLESS = ("fixed size", "sentence", "recursive")
PROSE = " ".join(f"Sentence {n} tells of rivers, bridges and the {n}th boat that went by." for n in range(24))
DOCUMENTS = {
    "prose.txt": PROSE,
    "paragraphs.txt": PROSE.replace(" Sentence 2", "\n\nSentence 2"),
    "unicode/größe.md": "Größe und naïveté: 日本語のテキスト。 Ελληνικά! עִבְרִית؟ 🎉 emoji\tand tabs.\n\n" * 4,
    "lines.txt": "\n".join(f"- item {n}\t{n * n}" for n in range(60)),
    "code.md": "def f(x):\n    return x + 1\n\n\n" * 15,
    "short.txt": "One line.",
}
MARKDOWN = "before any\n\n# Alpha\napple apple\n\n## Beta\n{beta}\n\n### Gamma\ngrape\n"
RST = "before any\n\nAlpha\n=====\napple apple\n\nBeta\n----\n{beta}\n\nGamma\n~~~~~\ngrape\n"
BANANAS = " ".join(f"Banana number {n} is yellow." for n in range(80))


@pytest.fixture(scope="module")
def embedder():
    return LocalEmbedder(models.load_encoder(models.PACKAGED))


def black(text: str) -> str:
    """The text without white space."""
    return "".join(text.split())


@pytest.mark.parametrize("method", METHODS)
def test_chunk_ids_count_from_one_within_their_document(method, embedder):
    ids = list(chunk_documents(DOCUMENTS, method, size=64, embedder=embedder))
    counts = {doc: sum(document_of(i) == doc for i in ids) for doc in DOCUMENTS}
    assert ids == [f"{doc}#{n}" for doc in DOCUMENTS for n in range(1, counts[doc] + 1)]
    assert min(counts.values()) >= 1
    assert counts["prose.txt"] > 3


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("text", ["", "  \n\t\n "])
def test_a_document_without_text_gives_no_chunk(method, text, embedder):
    assert chunk_documents({"a": text, "b": "some words"}, method, embedder=embedder).keys() == {"b#1"}


@pytest.mark.parametrize("method", METHODS)
def test_a_short_document_is_one_chunk(method, embedder):
    (chunk,) = chunk_documents({"a": "Some words."}, method, embedder=embedder).values()
    assert chunk == ("a: Some words." if method == "structure-aware" else "Some words.")


@pytest.mark.parametrize("method", METHODS)
def test_chunking_twice_gives_the_same(method, embedder):
    first, second = (chunker(method, 32, embedder)("t", PROSE) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("method", LOSSLESS)
@pytest.mark.parametrize("size", [16, 128])
def test_nothing_but_white_space_is_lost(method, size, pydocs_collection):
    documents = DOCUMENTS | {i: pydocs_collection.pages[i] for i in ("pandas.DataFrame.resample", "numpy.linalg.svd")}
    cut = chunker(method, size)
    for title, text in documents.items():
        assert black("".join(cut(title, text))) == black(text), title


@pytest.mark.parametrize("body", DOCUMENTS.values(), ids=DOCUMENTS)
def test_structure_aware_keeps_all_below_a_heading(body):
    chunks = chunker("structure-aware", 48)("title", f"# Top\n{body}")
    assert black("".join(chunk.removeprefix("title › Top: ") for chunk in chunks)) == black(body)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [32, 128])
def test_chunks_keep_to_the_size(method, size, embedder):
    # Fixed size cuts within words, and the pieces of a cut word are more than they were together.
    tolerance = 4 if method == "fixed size" else 0
    cut = chunker(method, size, embedder)
    longest = max(count_tokens(chunk) for chunk in cut("p", PROSE))
    assert size / 2 < longest <= size + tolerance


@pytest.mark.parametrize("method", ["fixed size", "recursive", "structure-aware"])
@pytest.mark.parametrize(
    "text", ["a b " * 500, "日本語" * 200, "no stop and no line break " * 80], ids=["letters", "日本語", "words"]
)
def test_a_text_without_sentences_is_cut_all_the_same(method, text):
    assert max(map(count_tokens, chunker(method, 64)("t", text))) <= 64


def test_sentences_are_not_cut():
    chunks = chunker("sentence", 48)("p", PROSE)
    assert all(chunk.startswith("Sentence") and chunk.endswith("by.") for chunk in chunks)


def test_semantic_cuts_where_the_subject_changes(embedder):
    cats = (
        "My old cat sleeps on the warm sofa for most of the day and half the night. "
        "A cat purrs when somebody it trusts strokes the fur behind its ears. "
        "Young kittens drink milk from their mother and play with balls of wool. "
        "At night the cat hunts mice in the garden and brings them to the door. "
        "The vet weighed my cat today and found that it should eat a little less. "
        "Most cats like boxes, window sills and laps better than any basket. "
    )
    stocks = (
        "Share prices on the stock exchange fell on Monday by more than two percent. "
        "Investors sold their shares and bonds after the central bank raised rates. "
        "The stock market had its worst week since traders began to fear inflation. "
        "Shareholders of large banks lost the most when the market closed on Friday. "
        "Analysts expect that company profits and dividends will shrink this quarter. "
        "Traders bought options to protect their stocks against another fall in prices."
    )
    chunks = chunker("semantic", 256, embedder)("p", cats + stocks)
    starts = list(itertools.accumulate((len(black(chunk)) for chunk in chunks), initial=0))
    assert len(black(cats)) in starts
    assert len(chunks) <= 6


@pytest.mark.parametrize("text", [MARKDOWN, RST, MARKDOWN.replace("\n\n", "\n")], ids=["markdown", "rst", "dense"])
def test_structure_aware_stays_in_a_section_and_carries_its_heading(text):
    chunks = chunker("structure-aware", 48)("guide.md", text.format(beta=BANANAS))
    words = {"before": "", "apple": " › Alpha", "banana": " › Beta", "grape": " › Gamma"}
    for chunk in chunks:
        (word,) = [w for w in words if w in chunk.lower()]
        assert chunk.startswith(f"guide.md{words[word]}: ")
    assert len(chunks) > 8


def test_headings_alone_are_not_lost():
    (chunk,) = chunk_documents({"todo.md": "# Write the guide\n## Draw the map\n"}).values()
    assert "Write the guide" in chunk
    assert "Draw the map" in chunk


def test_a_ruled_off_paragraph_is_no_heading():
    text = f"{PROSE}\n-----\n{BANANAS}"
    assert max(map(count_tokens, chunker("structure-aware", 64)("t", text))) <= 64


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\t\n",
        "a\tb  c\r\nd",
        "  lead and trail  \n",
        "Ünïcödé naïve İstanbul ﬁ ½ ǅ",
        "e\u0301 combining \u0301",
        "日本語テキスト",
        "👩‍👩‍👧 family\u200bzero\ufeffwidth",
        "nul\x00and\x85control",
        "x" * 5000,
        "antidisestablishmentarianism",
    ],
    ids=lambda text: repr(text[:12]),
)
def test_wordpieces_join_back_to_the_text(text):
    pieces = WordPieces()
    assert "".join(pieces.tokenize(text)) == text
    assert pieces.decode(pieces.encode(text)) == text


def test_wordpieces_join_back_to_random_texts():
    rng = random.Random(0)
    alphabet = [chr(rng.randrange(1, 0x3000)) for _ in range(400)] + list(" \t\nabc\u0301")
    pieces = WordPieces()
    for text in ("".join(rng.choices(alphabet, k=30)) for _ in range(300)):
        assert "".join(pieces.tokenize(text)) == text
        assert pieces.decode(pieces.encode(text)) == text


def test_wordpieces_counts_what_it_tokenizes():
    pieces = WordPieces()
    for text in DOCUMENTS.values():
        assert pieces.count_tokens(text) == len(pieces.tokenize(text)) == count_tokens(text)


def test_count_tokens_counts_pieces_of_words():
    assert count_tokens("the cat") == 2
    assert count_tokens("tokenization") == 2  # token, ##ization
    assert count_tokens("") == 0


@pytest.mark.parametrize(
    ("chunk_id", "document"),
    [("guide.md#3", "guide.md"), ("a/b#2.md#14", "a/b#2.md"), ("guide.md", "guide.md"), ("c#", "c#"), ("c#x", "c#x")],
)
def test_document_of_takes_the_number_off(chunk_id, document):
    assert document_of(chunk_id) == document


def test_an_unknown_method_is_named_with_those_there_are():
    with pytest.raises(WorkbookError, match=r"no chunker 'magic'.*fixed size.*semantic") as error:
        chunk_documents({"a": "b"}, "magic")
    assert "\n" not in str(error.value)


def test_semantic_without_an_embedder_says_what_is_missing():
    with pytest.raises(WorkbookError, match="pass an embedder"):
        chunk_documents({"a": "b"}, "semantic")


def test_methods_differ(embedder):
    text = "\n\n".join(DOCUMENTS[name] for name in ("code.md", "prose.txt", "lines.txt"))
    cuts = {method: chunker(method, 48, embedder)("t", text) for method in METHODS}
    assert all(cuts[a] != cuts[b] for a, b in itertools.combinations(METHODS, 2))

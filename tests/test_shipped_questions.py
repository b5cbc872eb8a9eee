"""The rules that the shipped questions keep; each rule is also shown a question that breaks it.

A rule is a function that takes a list of questions and gives the offenders: an empty result is a rule kept.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import pytest
from bm25s.stopwords import STOPWORDS_EN_PLUS
from scipy.sparse import csr_array

from helpers.collection.collection import open_collection
from helpers.collection.text import tokenize
from helpers.labels import gates
from helpers.labels.questions import KINDS, Question, overlap, shipped_questions
from helpers.models.embed import CachedEmbedder, LocalEmbedder
from helpers.models.load import PACKAGED, load_encoder
from helpers.retrieval.first_stages import BM25, Dense
from helpers.store.files import DATA, ROOT

pytestmark = pytest.mark.audit
FILE = DATA / "pydocs" / "questions.jsonl"
BANNED = ("how do i", "how to", "what is", "is there a way", "i have", "i need", "i want")
SAME_OPENING = 10  # questions that may begin with the same three words
SAME_RUN, RUN = 8, 4  # so many questions may hold the same run of four words
SAME_BUT_ONE = 1  # questions that may be the same but for one word
FRAME = 3  # function words from which on a sentence frame is nobody else's
FUNCTION_WORDS = frozenset(STOPWORDS_EN_PLUS)
MEAN_OVERLAP = 0.2
Ids = set[str]


def words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


def shared_by_more_than(most: int, keys: Mapping[str, Iterable]) -> Ids:
    """The ids of {id: keys} with a key that more than ``most`` ids have."""
    holders = defaultdict(set)
    for question, found in keys.items():
        for key in found:
            holders[key].add(question)
    return set().union(*(ids for ids in holders.values() if len(ids) > most))


def repeated_ids(questions: Sequence[Question]) -> Ids:
    return {i for i, count in Counter(q.id for q in questions).items() if count > 1}


def repeated_texts(questions: Sequence[Question]) -> Ids:
    """Case, spaces and punctuation do not make another question."""
    return shared_by_more_than(1, {q.id: [" ".join(words(q.text))] for q in questions})


def rare_or_strange_kinds(questions: Sequence[Question]) -> set[str]:
    """Kinds that are less than a quarter, and kinds that do not exist."""
    counts = Counter(q.kind for q in questions)
    return {kind for kind in {*KINDS, *counts} if kind not in KINDS or counts[kind] < len(questions) / 4}


def without_passage(questions: Sequence[Question], corpus: Mapping[str, str]) -> Ids:
    return {q.id for q in questions if q.doc not in corpus}


def crowding(questions: Sequence[Question]) -> set[str]:
    """Passages with more than two questions, or with two of one kind."""
    pairs = Counter((q.doc, q.kind) for q in questions)
    return {doc for (doc, _), count in pairs.items() if count > 1} | {
        doc for doc, count in Counter(q.doc for q in questions).items() if count > 2
    }


def naming_their_passage(questions: Sequence[Question]) -> Ids:
    """Questions that hold, as a word, the last part of their passage's name."""
    return {
        q.id for q in questions if re.search(rf"(?<!\w){re.escape(q.doc.split('.')[-1])}(?!\w)", q.text, re.IGNORECASE)
    }


def banned_openings(questions: Sequence[Question]) -> Ids:
    return {q.id for q in questions if f"{' '.join(words(q.text))} ".startswith(tuple(f"{b} " for b in BANNED))}


def common_openings(questions: Sequence[Question]) -> Ids:
    return shared_by_more_than(SAME_OPENING, {q.id: [gates.opening(q.text)] for q in questions})


def common_runs(questions: Sequence[Question]) -> Ids:
    """A phrase of four words that turns up again and again, wherever it stands."""

    def runs(text: str) -> list[tuple[str, ...]]:
        found = words(text)
        return [tuple(found[i : i + RUN]) for i in range(len(found) - RUN + 1)]

    return shared_by_more_than(SAME_RUN, {q.id: runs(q.text) for q in questions})


def same_but_one_word(questions: Sequence[Question]) -> Ids:
    """Templates with one slot, which is how terse queries are templated: from three words on."""

    def slots(text: str) -> list[tuple[str, ...]]:
        found = words(text)
        return [(*found[:i], "_", *found[i + 1 :]) for i in range(len(found))] if len(found) >= 3 else []

    return shared_by_more_than(SAME_BUT_ONE, {q.id: slots(q.text) for q in questions})


def frame(text: str) -> tuple[str, ...]:
    """The sentence frame: function words stay, every run of other words becomes one slot.

    ``Which of my parcels are late?`` and ``which of my pupils are left-handed`` are both ``which of my _ are _``.
    """
    found: list[str] = []
    for word in words(text):
        slot = word if word in FUNCTION_WORDS else "_"
        if slot != "_" or found[-1:] != ["_"]:
            found.append(slot)
    return tuple(found)


def function_words(text: str) -> int:
    return sum(word != "_" for word in frame(text))


def repeated_frames(questions: Sequence[Question]) -> Ids:
    """Two questions with the same frame of three or more function words come from one template."""
    framed = {q.id: [frame(q.text)] for q in questions if function_words(q.text) >= FRAME}
    return shared_by_more_than(1, framed)


def alike_by_words(first: Sequence[str], second: Sequence[str], least: float) -> list[tuple[int, int]]:
    """Positions (in first, in second) of texts whose words have a Jaccard similarity of at least ``least``."""
    bags = [[set(tokenize(text)) for text in texts] for texts in (first, second)]
    columns = {word: j for j, word in enumerate(sorted(set().union(*bags[0], *bags[1])))}

    def matrix(side: list[set[str]]) -> csr_array:
        cells = [(i, columns[word]) for i, bag in enumerate(side) for word in bag]
        rows, cols = zip(*cells, strict=True)
        return csr_array((np.ones(len(cells)), (rows, cols)), shape=(len(side), len(columns)))

    common = (matrix(bags[0]) @ matrix(bags[1]).T).tocoo()
    sizes = [np.array([len(bag) for bag in side]) for side in bags]
    i, j = common.coords
    close = common.data / (sizes[0][i] + sizes[1][j] - common.data) >= least
    return list(zip(i[close].tolist(), j[close].tolist(), strict=True))


def near_duplicates_by_words(questions: Sequence[Question]) -> Ids:
    """The later one of each pair."""
    texts = [q.text for q in questions]
    return {questions[j].id for i, j in alike_by_words(texts, texts, gates.SAME_WORDS) if i < j}


def leaks_by_words(questions: Sequence[Question], protected: Mapping[str, str]) -> dict[str, str]:
    """{question id: id of the query that it repeats}."""
    found = alike_by_words([q.text for q in questions], list(protected.values()), gates.LEAK_WORDS)
    return {questions[i].id: list(protected)[j] for i, j in found}


def near_duplicates_by_embedding(questions: Sequence[Question], embed: Callable) -> Ids:
    """The later one of each pair."""
    vectors = embed([q.text for q in questions], "query")
    close = np.triu(vectors @ vectors.T >= gates.SAME_COSINE, k=1)
    return {questions[j].id for j in np.flatnonzero(close.any(axis=0))}


def leaks_by_embedding(questions: Sequence[Question], protected: Mapping[str, str], embed: Callable) -> dict[str, str]:
    """{question id: id of the query that it repeats}."""
    cosines = embed([q.text for q in questions], "query") @ embed(list(protected.values()), "query").T
    return {
        questions[i].id: list(protected)[cosines[i].argmax()]
        for i in np.flatnonzero(cosines.max(1) >= gates.LEAK_COSINE)
    }


def copies(questions: Sequence[Question], corpus: Mapping[str, str]) -> Ids:
    return {q.id for q in questions if overlap(q.text, corpus[q.doc]) > gates.MOST_OVERLAP}


def mean_overlap(questions: Sequence[Question], corpus: Mapping[str, str]) -> float:
    return float(np.mean([overlap(q.text, corpus[q.doc]) for q in questions]))


def failures(table: pd.DataFrame) -> dict[str, list[str]]:
    """{question id: the gates that it does not pass}."""
    failed = {question: [gate for gate in gates.GATES if not row[gate]] for question, row in table.iterrows()}
    return {question: found for question, found in failed.items() if found}


@pytest.fixture(scope="module")
def questions() -> list[Question]:
    rows = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
    assert {tuple(row) for row in rows} == {("_id", "text", "kind", "doc")}
    return [Question(*row.values()) for row in rows]


def planted(*texts: str, like: Question | None = None) -> list[Question]:
    """Questions x1, x2, … to add; about ``like``'s passage, or about some passage."""
    kind, doc = (like.kind, like.doc) if like else ("question", "numpy.flipud")
    return [Question(f"x{i}", text, kind, doc) for i, text in enumerate(texts, 1)]


def changed(text: str, swaps: Mapping[str, str]) -> str:
    """The text with some of its words swapped for others; each of them must stand in it once."""
    for old, new in swaps.items():
        text, count = re.subn(rf"\b{re.escape(old)}\b", new, text)
        assert count == 1
    return text


# Two words of a query changed: far enough in words that only the embedding notices, in meaning that only the words do,
# or neither.
BY_EMBEDDING = {"q004": {"joining": "merging", "similar": "related"}, "q037": {"seperate": "split", "last": "family"}}
BY_WORDS = {"q026": {"wiggly": "wavy", "zero": "nil"}}
BY_BOTH = {
    "q001": {"thermometers": "barometers", "hourly": "daily"},
    "q012": {"angles": "bearings", "turns": "converts"},
    "q017": {"thousands": "hundreds", "gene": "genome"},
}
TEMPLATED = (
    "Our bakery keeps every sale in a table. How should the loaves be counted per weekday?",
    "Our library keeps every loan in a table. How should the books be summed per reader?",
)


def test_there_are_1500_questions_on_900_passages(questions):
    assert len(questions) >= 1500
    assert len({q.doc for q in questions}) >= 900


def test_the_course_reads_them(questions, pydocs_collection):
    assert shipped_questions(pydocs_collection) == questions


def test_ids_and_texts_are_unique(questions):
    assert repeated_ids(questions) == set()
    assert repeated_texts(questions) == set()


def test_a_repeated_question_is_noticed(questions):
    first = questions[0]
    assert repeated_ids([*questions, Question(first.id, "another text", first.kind, first.doc)]) == {first.id}
    again = planted(f"  {first.text.upper()} !", like=first)
    assert repeated_texts(questions + again) == {first.id, "x1"}


def test_each_kind_is_at_least_a_quarter(questions):
    assert rare_or_strange_kinds(questions) == set()


def test_a_rare_or_strange_kind_is_noticed(questions):
    keywords = [q for q in questions if q.kind == "keyword"]
    assert rare_or_strange_kinds(questions + 3 * keywords) == {"question", "problem"}
    assert rare_or_strange_kinds([*questions, questions[0]._replace(kind="riddle")]) == {"riddle"}


def test_every_passage_is_in_the_collection(questions, pydocs_collection):
    assert without_passage(questions, pydocs_collection.corpus) == set()


def test_a_passage_that_is_not_in_the_collection_is_noticed(questions, pydocs_collection):
    lost = Question("x1", "any text", "question", "numpy.no_such_function")
    assert without_passage([*questions, lost], pydocs_collection.corpus) == {"x1"}


def test_a_passage_has_at_most_two_questions_of_different_kinds(questions):
    assert crowding(questions) == set()


def test_a_third_question_on_a_passage_or_a_second_of_its_kind_is_noticed(questions):
    first = questions[0]
    assert crowding([*questions, first._replace(id="x1")]) == {first.doc}
    per_passage = Counter(q.doc for q in questions)
    full = next(doc for doc, count in per_passage.items() if count == 2)
    third = next(kind for kind in KINDS if kind not in {q.kind for q in questions if q.doc == full})
    assert crowding([*questions, Question("x1", "any text", third, full)]) == {full}


def test_no_question_names_its_passage(questions):
    assert naming_their_passage(questions) == set()


def test_a_question_that_names_its_passage_is_noticed(questions):
    assert naming_their_passage(questions + planted("what does Flipud do?", "flipping upside down")) == {"x1"}


def test_no_question_has_a_worn_opening(questions):
    assert banned_openings(questions) == set()
    assert common_openings(questions) == set()


@pytest.mark.parametrize("start", BANNED)
def test_a_worn_opening_is_noticed(questions, start):
    assert banned_openings(questions + planted(f"{start.title()} sort?", f"{start}nk")) == {"x1"}


def test_an_opening_used_too_often_is_noticed(questions):
    many = planted(*(f"{'Quite' if n % 2 else 'quite'} unusual, these {n} things" for n in range(SAME_OPENING + 1)))
    assert common_openings(questions + many[1:]) == set()
    assert common_openings(questions + many) == {q.id for q in many}


def test_no_phrase_turns_up_again_and_again(questions):
    assert common_runs(questions) == set()


def test_a_phrase_used_too_often_is_noticed(questions):
    many = planted(*(f"{n} apples or pears - over the whole Harvest, {n} times" for n in range(SAME_RUN + 1)))
    assert common_runs(questions + many[1:]) == set()
    assert common_runs(questions + many) == {q.id for q in many}


def test_no_two_questions_come_from_one_template(questions):
    assert repeated_frames(questions) == set()
    assert same_but_one_word(questions) == set()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Which of my parcels are late?", ("which", "of", "my", "_", "are", "_")),
        ("which of MY blue-eyed pupils are left-handed", ("which", "of", "my", "_", "are", "_")),
        ("half spectrum back to real volume", ("_", "to", "_")),
        ("?!", ()),
    ],
)
def test_a_frame_keeps_function_words_and_makes_other_words_slots(text, expected):
    assert frame(text) == expected


def test_two_questions_from_a_template_are_noticed(questions):
    assert repeated_frames(questions + planted(*TEMPLATED)) == {"x1", "x2"}


@pytest.mark.parametrize("kind", ["question", "problem"])
def test_a_shipped_question_with_other_things_put_in_is_noticed(questions, kind):
    of_kind = [q for q in questions if q.kind == kind]
    framed = [q for q in of_kind if function_words(q.text) >= FRAME]
    assert len(framed) > 0.95 * len(of_kind)
    for question in framed[::200]:
        text = " ".join(word if word in FUNCTION_WORDS else "gooseberries" for word in words(question.text))
        assert repeated_frames(questions + planted(text)) == {question.id, "x1"}


def test_terse_queries_from_a_template_are_noticed(questions):
    things = ["eggs", "lambs", "fleeces", "cheeses"]
    many = planted(*(f"weekly {thing} per pasture" for thing in things))
    assert same_but_one_word(questions + many[:SAME_BUT_ONE]) == set()
    assert same_but_one_word(questions + many) == {q.id for q in many}


def test_no_two_questions_are_alike_by_words(questions):
    assert near_duplicates_by_words(questions) == set()


def test_the_jaccard_similarity_by_hand():
    # Stems without stop words: {mean, price, shop} and {mean, price, week}: 2 in common of 4; {mean, price}: 2 of 3.
    first, second = ["mean of prices in a shop", "dogs"], ["the Mean price, this week", "mean prices", "of the"]
    assert sorted(alike_by_words(first, second, 0.5)) == [(0, 0), (0, 1)]
    assert alike_by_words(first, second, 0.6) == [(0, 1)]


def test_a_question_in_another_order_of_words_is_noticed(questions):
    original = next(q for q in questions if q.kind == "problem")
    reordered = " ".join(reversed(original.text.upper().split()))
    assert near_duplicates_by_words(questions + planted(reordered)) == {"x1"}


def test_no_question_repeats_a_dev_or_test_query_by_words(questions, pydocs_collection):
    assert leaks_by_words(questions, pydocs_collection.queries) == {}


@pytest.mark.parametrize("write", [str.upper, str.title, lambda text: f" {text}?!"], ids=["upper", "title", "marks"])
def test_a_query_written_otherwise_is_noticed_by_words(questions, pydocs_collection, write):
    queries = pydocs_collection.queries
    found = leaks_by_words(questions + planted(*(write(text) for text in queries.values())), queries)
    assert list(found.values()) == list(queries)


@pytest.mark.parametrize(("query", "swaps"), (BY_WORDS | BY_BOTH).items())
def test_a_query_with_two_words_changed_is_noticed_by_words(questions, pydocs_collection, query, swaps):
    queries = pydocs_collection.queries
    assert leaks_by_words(questions + planted(changed(queries[query], swaps)), queries) == {"x1": query}


def test_no_question_copies_its_passage(questions, pydocs_collection):
    assert copies(questions, pydocs_collection.corpus) == set()
    assert mean_overlap(questions, pydocs_collection.corpus) < MEAN_OVERLAP


def test_copied_passages_are_noticed(questions, pydocs_collection):
    corpus = pydocs_collection.corpus
    copied = [Question(f"x{i}", corpus[q.doc].split(". ")[0], q.kind, q.doc) for i, q in enumerate(questions[::8], 1)]
    assert copies(questions + copied, corpus) == {q.id for q in copied}
    assert mean_overlap(questions + copied, corpus) > MEAN_OVERLAP


@pytest.fixture(scope="module")
def encoded(questions):
    """The collection, an embedder, and the gates' table of the questions and of four that must not pass.

    Vectors are shared with the notebooks under build/.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBOOK_BUILD", str(ROOT / "build"))
        collection = open_collection("pydocs")
        folder = collection.build / "lancedb"
        encoder = LocalEmbedder(load_encoder(PACKAGED), "encoder")
        retrievers = [BM25().index(collection.corpus), Dense(encoder, folder).index(collection.corpus)]
        first = questions[0]
        bad = {
            "answerable": first._replace(id="x1", text="Sourdough left to rise overnight collapses in the oven, why?"),
            "no copy": first._replace(id="x2", text=collection.corpus[first.doc][:200]),
            "no near-duplicate": first._replace(id="x3", text=first.text.upper()),
            "no leak": first._replace(id="x4", text=changed(collection.queries["q012"], BY_BOTH["q012"])),
        }
        embedder = CachedEmbedder(encoder, folder)
        table = gates.check_questions([*questions, *bad.values()], collection, retrievers, embedder)
    return collection, embedder, table, {question.id: gate for gate, question in bad.items()}


@pytest.mark.slow
def test_every_question_passes_every_gate(encoded, questions):
    _, _, table, _ = encoded
    assert failures(table.loc[[q.id for q in questions]]) == {}


@pytest.mark.slow
def test_a_question_that_fails_a_gate_is_noticed(encoded):
    _, _, table, bad = encoded
    failed = failures(table)
    assert failed.keys() == bad.keys()
    assert all(gate in failed[question] for question, gate in bad.items())


@pytest.mark.slow
def test_no_question_is_near_another_or_a_query_by_embedding(encoded, questions):
    collection, embedder, _, _ = encoded
    assert near_duplicates_by_embedding(questions, embedder.embed) == set()
    assert leaks_by_embedding(questions, collection.queries, embedder.embed) == {}


@pytest.mark.slow
def test_a_question_in_other_case_or_with_a_word_more_is_noticed_by_embedding(encoded, questions):
    _, embedder, _, _ = encoded
    first = next(q for q in questions if q.kind == "problem")
    again = planted(first.text.swapcase(), f"Hello! {first.text}")
    assert near_duplicates_by_embedding(questions + again, embedder.embed) == {"x1", "x2"}


@pytest.mark.slow
def test_queries_with_two_words_changed_or_in_other_case_are_noticed_by_embedding(encoded, questions):
    collection, embedder, _, _ = encoded
    queries = collection.queries
    leaks = {q: changed(queries[q], swaps) for q, swaps in (BY_EMBEDDING | BY_BOTH).items()}
    leaks |= {q: queries[q].upper() for q in list(queries)[::10] if q not in leaks}
    found = leaks_by_embedding(questions + planted(*leaks.values()), queries, embedder.embed)
    assert list(found.values()) == list(leaks)


@pytest.mark.slow
def test_words_and_embedding_each_notice_leaks_that_the_other_misses(encoded):
    collection, embedder, _, _ = encoded
    queries = collection.queries
    by_words, by_embedding = (
        planted(*(changed(queries[q], swaps) for q, swaps in leaks.items())) for leaks in (BY_WORDS, BY_EMBEDDING)
    )
    assert leaks_by_words(by_embedding, queries) == {}
    assert leaks_by_embedding(by_words, queries, embedder.embed) == {}

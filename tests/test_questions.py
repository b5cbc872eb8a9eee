"""Questions written from passages: which passages, what the model is asked, what becomes of its answers,
and the file.
"""

import json
import re
from collections import Counter

import pytest

from helpers.collection.collection import Collection, open_collection
from helpers.labels import questions as questions_module
from helpers.labels.questions import (
    KINDS,
    PASSAGE_CHARACTERS,
    Question,
    as_queries,
    generate_questions,
    made_questions_file,
    overlap,
    questions_of,
    read_questions,
    sample_passages,
    shipped_questions,
    shown,
    small_prompt,
    style_examples,
    write_questions,
)
from helpers.models.llm import LLM, Reply
from helpers.store.files import WorkbookError


class Writer:
    """A model that writes what ``write(conversation)`` says; ``asked`` holds every conversation."""

    name = key = "writer"
    batch = 4

    def __init__(self, write, small: bool = False):
        self.write, self.small, self.asked = write, small, []

    def answer(self, conversations, schema, keep):
        self.asked += conversations
        for i, conversation in enumerate(conversations):
            keep(i, self.write(conversation))


def request(conversation) -> tuple[list[str], str, str]:
    """The kinds, the doc id and the passage in a conversation with a capable model."""
    kinds, doc, passage = re.fullmatch(
        r"Kinds wanted: (.*?)\n\n\[(.*?)] (.*)", conversation[-1]["content"], re.S
    ).groups()
    return kinds.split(", "), doc, passage


def json_of(*queries: tuple[str, str]) -> Reply:
    return Reply(json.dumps({"queries": [{"kind": kind, "text": text} for kind, text in queries]}))


def obedient(conversation) -> Reply:
    """One query of each kind that was wanted."""
    kinds, doc, _ = request(conversation)
    return json_of(*((kind, f"a {kind}\nabout {doc}  ") for kind in kinds))


def one_line(conversation) -> Reply:
    """A small model's answer: it names the example that it saw and the passage."""
    example, passage = conversation[1]["content"], conversation[-1]["content"]
    return Reply(json.dumps({"question": f"like {example[:30]!r} on {passage}"}))


def refuse(conversation):
    raise AssertionError("nothing should be asked")


def collection_of(size: int, name: str = "tiny") -> Collection:
    return Collection(name, {f"d{i:02}": f"passage {i}" for i in range(size)})


@pytest.fixture
def tree(tmp_path) -> Collection:
    """Six documents of one passage each: three in a, two in b, one beside them."""
    for name in ("a/1.md", "a/2.md", "a/3.md", "b/1.md", "b/2.md", "top.md"):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"What {name} says.", encoding="utf-8")
    return open_collection(tmp_path / "tree")


class TestGroups:
    def test_of_an_api_are_its_modules_and_classes(self):
        passages = {
            "numpy.flipud": "numpy",
            "numpy.linalg.norm": "numpy.linalg",
            "pandas.Series.str.count": "pandas.Series",
            "scipy.spatial.distance.cdist": "scipy.spatial",
        }
        assert Collection("pydocs", dict.fromkeys(passages, "text")).groups() == passages

    def test_of_documents_in_folders_are_the_folders(self, tree):
        assert Counter(tree.groups().values()) == {"a": 3, "b": 2, "(top folder)": 1}

    def test_of_documents_side_by_side_are_the_documents(self):
        collection = Collection(
            "notes", dict.fromkeys(["x.md#1", "x.md#2", "y.md#1"], "text"), pages={"x.md": "", "y.md": ""}
        )
        assert collection.groups() == {"x.md#1": "x.md", "x.md#2": "x.md", "y.md#1": "y.md"}

    def test_of_rows_and_beir_folders_are_one(self):
        assert Collection("rows", {"1": "text", "a.b": "text"}).groups() == {"1": "all", "a.b": "all"}

    def test_cover_every_passage(self, pydocs_collection):
        groups = pydocs_collection.groups()
        assert groups.keys() == pydocs_collection.corpus.keys()
        assert {"numpy", "numpy.linalg", "pandas.DataFrame", "scipy.stats"} <= set(groups.values())


def api(**sizes: int) -> Collection:
    """An API with so many functions in each module."""
    return Collection("pydocs", {f"{m}.f{i:02}": f"{m} {i}" for m, size in sizes.items() for i in range(size)})


def counts(collection: Collection, n: int, seed: int = 0) -> dict[str, int]:
    return dict(Counter(doc.split(".")[0] for doc in sample_passages(collection, n, seed)))


class TestSamplePassages:
    def test_gives_each_group_its_share_by_largest_remainder(self):
        # 5, 3 and 2 of 10: shares of 4 are 2.0, 1.2, 0.8 → 2, 1, 0 and the last one to the remainder 0.8
        assert counts(api(a=5, b=3, c=2), 4) == {"a": 2, "b": 1, "c": 1}
        # shares of 7 are 3.5, 2.1, 1.4 → 3, 2, 1 and the last one to the remainder 0.5
        assert counts(api(a=5, b=3, c=2), 7) == {"a": 4, "b": 2, "c": 1}

    def test_draws_lots_between_equal_remainders(self):
        # shares of 5 are 2.5, 1.5, 1.0: the last one goes to a or to b
        drawn = {tuple(sorted(counts(api(a=5, b=3, c=2), 5, seed).items())) for seed in range(20)}
        assert drawn == {(("a", 3), ("b", 1), ("c", 1)), (("a", 2), ("b", 2), ("c", 1))}

    @pytest.mark.parametrize("n", [0, 1, 9, 10, 11, 1000])
    def test_draws_n_different_passages_or_all(self, n):
        collection = api(a=5, b=3, c=2)
        sample = sample_passages(collection, n)
        assert len(sample) == len(set(sample)) == min(n, 10)
        assert set(sample) <= set(collection.corpus)

    def test_is_the_same_for_a_seed_and_another_for_another(self):
        collection = collection_of(50)
        first, again, other = (sample_passages(collection, 10, seed) for seed in (1, 1, 2))
        assert first == again
        assert set(first) != set(other)

    def test_does_not_depend_on_the_order_of_the_passages(self):
        collection = api(a=20, b=13, c=7)
        turned = Collection("pydocs", dict(reversed(collection.corpus.items())))
        assert sample_passages(collection, 9) == sample_passages(turned, 9)

    def test_mixes_the_groups(self):
        modules = [doc.split(".")[0] for doc in sample_passages(api(a=30, b=30), 40)]
        assert modules != sorted(modules)

    def test_reaches_folders_of_documents_alike(self, tree):
        assert Counter(tree.groups()[doc] for doc in sample_passages(tree, 3)) in (
            {"a": 1, "b": 1, "(top folder)": 1},
            {"a": 2, "b": 1},
        )


class TestShown:
    def test_is_one_line(self):
        assert shown(" sort(x)\n\n  Sorts\tthings. ", small=True) == "sort(x) Sorts things."

    @pytest.mark.parametrize("small", [True, False])
    def test_is_cut_to_what_the_model_can_read(self, small):
        assert len(shown("word " * 5000, small)) == PASSAGE_CHARACTERS[small]


class TestACapableModel:
    def test_is_asked_for_two_kinds_a_passage_by_turns(self, tmp_path):
        writer = Writer(obedient)
        found = generate_questions(collection_of(12), LLM(writer, tmp_path), 18)
        assert len(writer.asked) == 9
        assert Counter(kind for c in writer.asked for kind in request(c)[0]) == dict.fromkeys(KINDS, 6)
        assert all(len(set(request(c)[0])) == 2 for c in writer.asked)
        assert Counter(q.kind for q in found) == dict.fromkeys(KINDS, 6)

    def test_sees_the_passage_with_its_id_after_the_instructions(self, tmp_path):
        writer = Writer(obedient)
        collection = Collection("tiny", {"m.sort": "sort(x):\n costs $5 & {x}"})
        generate_questions(collection, LLM(writer, tmp_path), 2)
        [conversation] = writer.asked
        assert request(conversation)[1:] == ("m.sort", "sort(x): costs $5 & {x}")
        assert [message["role"] for message in conversation] == ["system", "user"]
        assert "No templates" in conversation[0]["content"]

    def test_its_questions_carry_their_passage_and_are_one_line(self, tmp_path):
        collection = collection_of(5)
        found = generate_questions(collection, LLM(Writer(obedient), tmp_path), 10)
        assert {q.doc for q in found} == set(collection.corpus)
        assert {q.text for q in found} == {f"a {q.kind} about {q.doc}" for q in found}

    def test_its_questions_have_ids_of_their_own_that_stay(self, tmp_path):
        first, second = (
            generate_questions(collection_of(9), LLM(Writer(obedient), tmp_path / run), 18) for run in "ab"
        )
        assert first == second
        assert len({q.id for q in first}) == 18
        assert all(q.id.startswith("g-") for q in first)

    def test_two_queries_of_a_kind_on_a_passage_have_two_ids(self, tmp_path):
        writer = Writer(lambda c: json_of(("keyword", "some words"), ("keyword", "other words")))
        assert len({q.id for q in generate_questions(collection_of(1), LLM(writer, tmp_path), 2)}) == 2

    def test_n_is_the_most(self, tmp_path):
        three = Writer(lambda c: json_of(*((kind, f"{kind} {request(c)[1]}") for kind in KINDS)))
        assert len(generate_questions(collection_of(12), LLM(three, tmp_path), 7)) == 7

    def test_a_query_written_twice_is_taken_once(self, tmp_path):
        twice = Writer(
            lambda c: json_of(("keyword", "same words"), ("keyword", "same  words"), ("question", "same words"))
        )
        found = generate_questions(collection_of(1), LLM(twice, tmp_path), 2)
        assert [(q.kind, q.text) for q in found] == [("keyword", "same words"), ("question", "same words")]

    def test_may_find_a_passage_nobodys_need(self, tmp_path):
        llm = LLM(Writer(lambda c: json_of()), tmp_path)
        assert generate_questions(collection_of(3), llm, 6) == []
        assert llm.counts == {"answered": 3}

    def test_what_it_refuses_leaves_empty_or_spoils_is_counted_and_left_out(self, tmp_path):
        replies = {
            "d00": Reply("No.", "refused"),
            "d01": Reply("", "empty"),
            "d02": Reply("Here are two fine queries!"),
            "d03": json_of(("riddle", "a kind that there is not")),
            "d04": json_of(("keyword", "  "), ("question", "is this one fine?")),
        }
        llm = LLM(Writer(lambda c: replies[request(c)[1]]), tmp_path)
        found = generate_questions(collection_of(5), llm, 10)
        assert [(q.doc, q.text) for q in found] == [("d04", "is this one fine?")]
        assert llm.counts == {"refused": 1, "empty": 1, "malformed": 2, "answered": 1}

    def test_what_it_wrote_before_is_not_asked_again(self, tmp_path):
        first = generate_questions(collection_of(9), LLM(Writer(obedient), tmp_path), 18)
        assert generate_questions(collection_of(9), LLM(Writer(refuse), tmp_path), 18) == first

    def test_a_run_that_broke_off_loses_at_most_one_batch(self, tmp_path):
        def break_off(conversation):
            if len(writer.asked) > 8:
                raise KeyboardInterrupt
            return obedient(conversation)

        writer = Writer(break_off)
        with pytest.raises(KeyboardInterrupt):
            generate_questions(collection_of(12), LLM(writer, tmp_path), 24)
        rest = Writer(obedient)
        found = generate_questions(collection_of(12), LLM(rest, tmp_path), 24)
        assert len(rest.asked) == 12 - 8
        assert found == generate_questions(collection_of(12), LLM(Writer(obedient), tmp_path / "whole"), 24)

    def test_over_the_budget_the_rest_is_missing(self, tmp_path, capsys):
        llm = LLM(Writer(obedient), tmp_path, max_calls=4)
        assert len(generate_questions(collection_of(9), llm, 18)) == 8
        assert llm.counts == {"answered": 4, "over budget": 5}
        assert "Stopped at the budget" in capsys.readouterr().out


class TestTheSmallModel:
    def test_writes_one_line_a_passage_and_kind_after_an_example_of_the_kind(self, tmp_path):
        writer = Writer(one_line, small=True)
        found = generate_questions(collection_of(6), LLM(writer, tmp_path), 12)
        assert len(writer.asked) == len(found) == 12
        assert Counter(q.kind for q in found) == dict.fromkeys(KINDS, 4)
        examples = {q.kind: {r.split(" on ")[0] for r in (x.text for x in found if x.kind == q.kind)} for q in found}
        assert all(len(seen) == 1 for seen in examples.values())
        assert len(set.union(*examples.values())) == 3

    @pytest.mark.parametrize("kind", KINDS)
    def test_is_given_the_collections_own_example_where_there_is_one_and_two_of_other_kinds_else(self, kind):
        own = small_prompt(collection_of(1, "pydocs"), kind).fill(passage="a passage")
        other = small_prompt(collection_of(1, "news"), kind).fill(passage="a passage")
        assert [len(own), len(other)] == [3, 5]
        assert "numpy" in own[0]["content"]
        assert not any("numpy" in message["content"] for message in other)
        assert "a passage" in own[-1]["content"]
        assert "a passage" in other[-1]["content"]

    def test_its_questions_belong_to_the_passage_that_it_saw(self, tmp_path):
        collection = collection_of(6)
        found = generate_questions(collection, LLM(Writer(one_line, small=True), tmp_path), 12)
        assert all(q.text.endswith(f" {collection.corpus[q.doc]}") for q in found)
        docs = [q.doc for q in found]
        assert docs[::2] == docs[1::2]
        assert set(docs) == set(collection.corpus)

    def test_sees_the_beginning_of_a_long_passage(self, tmp_path):
        writer = Writer(one_line, small=True)
        generate_questions(Collection("tiny", {"d": "x" * 5000}), LLM(writer, tmp_path), 1)
        assert {c[-1]["content"].count("x") for c in writer.asked} == {PASSAGE_CHARACTERS[True]}

    def test_a_line_without_words_is_left_out(self, tmp_path):
        def write(conversation):
            return Reply(
                json.dumps({"question": " \n " if conversation[-1]["content"].endswith("1") else " so\n fine "})
            )

        found = generate_questions(collection_of(3), LLM(Writer(write, small=True), tmp_path), 3, kinds=["keyword"])
        assert sorted((q.doc, q.text) for q in found) == [("d00", "so fine"), ("d02", "so fine")]


class TestWhatIsAsked:
    def test_kinds_can_be_chosen(self, tmp_path):
        found = generate_questions(collection_of(9), LLM(Writer(obedient), tmp_path), 6, kinds=["problem"])
        assert [q.kind for q in found] == ["problem"] * 6
        assert len({q.doc for q in found}) == 6

    def test_a_kind_named_twice_counts_once(self, tmp_path):
        found = generate_questions(collection_of(9), LLM(Writer(obedient), tmp_path), 4, kinds=["problem", "problem"])
        assert len({q.doc for q in found}) == 4

    def test_one_question_a_passage(self, tmp_path):
        found = generate_questions(collection_of(9), LLM(Writer(obedient), tmp_path), 9, per_passage=1)
        assert len({q.doc for q in found}) == 9
        assert Counter(q.kind for q in found) == dict.fromkeys(KINDS, 3)

    def test_another_seed_takes_other_passages(self, tmp_path):
        llm = LLM(Writer(obedient), tmp_path)
        first, other = ({q.doc for q in generate_questions(collection_of(40), llm, 10, seed=seed)} for seed in (0, 1))
        assert first != other

    @pytest.mark.parametrize(
        ("wrong", "sentence"),
        [
            ({"kinds": ["keyword", "riddle"]}, "no kind of question 'riddle': use keyword, question, problem"),
            ({"kinds": []}, "use keyword, question, problem"),
            ({"n": 0}, "0 questions, 2 a passage"),
            ({"per_passage": 0}, "6 questions, 0 a passage"),
            ({"collection": Collection("empty", {})}, "empty has no passages"),
        ],
    )
    def test_what_cannot_be_made_is_said_before_anything_is_asked(self, tmp_path, wrong, sentence):
        request = {"collection": collection_of(3), "llm": LLM(Writer(refuse), tmp_path), "n": 6} | wrong
        with pytest.raises(WorkbookError, match=sentence):
            generate_questions(**request)


@pytest.mark.parametrize(
    ("question", "passage", "share"),
    [
        ("Sorting the prices", "sort(x): price list", 1.0),  # {sort, price}, both in the passage
        ("sort prices, sort shops", "sort(x)", 1 / 3),  # {sort, price, shop}: each word once
        ("cheapest first", "sort(x)", 0.0),
        ("of the", "of the", 0.0),  # nothing but stop words
        ("", "text", 0.0),
        ("text", "", 0.0),
    ],
)
def test_overlap_by_hand(question, passage, share):
    assert overlap(question, passage) == pytest.approx(share)


WRITTEN = [
    Question("s1", "prices, lowest first — “naïve”?", "question", "d00"),
    Question("s2", "später 日本 🙂 \u2028 line", "keyword", "d01"),
    Question("s3", "the same passage", "problem", "d00"),
]


def test_as_queries_gives_each_question_its_own_passage():
    queries, qrels = as_queries(iter(WRITTEN[::2]))
    assert queries == {"s1": WRITTEN[0].text, "s3": "the same passage"}
    assert qrels == {"s1": {"d00": 1}, "s3": {"d00": 1}}


def test_a_file_gives_back_what_was_written(tmp_path):
    write_questions(WRITTEN, tmp_path / "questions.jsonl")
    assert read_questions(tmp_path / "questions.jsonl", collection_of(2).corpus) == WRITTEN
    rows = (tmp_path / "questions.jsonl").read_text(encoding="utf-8").rstrip("\n").split("\n")
    assert json.loads(rows[2]) == {"_id": "s3", "text": "the same passage", "kind": "problem", "doc": "d00"}


def test_generated_questions_can_be_kept(tmp_path):
    collection = collection_of(5)
    found = generate_questions(collection, LLM(Writer(obedient), tmp_path), 10)
    write_questions(found, tmp_path / "questions.jsonl")
    assert read_questions(tmp_path / "questions.jsonl", collection.corpus) == found


GOOD = {"_id": "s1", "text": "lowest first", "kind": "keyword", "doc": "d00"}


@pytest.mark.parametrize(
    ("second", "sentence"),
    [
        ({**GOOD, "_id": "s2", "text": " "}, "line 2: text is empty: mend or remove it"),
        (
            {k: v for k, v in GOOD.items() if k != "doc"},
            "line 2: 'doc' is missing (expected _id, text, kind, doc): mend or remove this row",
        ),
        ({**GOOD, "_id": None}, "line 2: _id should be a text, not None: mend or remove this row"),
        (
            {**GOOD, "_id": "s2", "kind": "riddle"},
            "line 2: kind should be 'keyword', 'question', 'problem' or 'typed', not 'riddle'",
        ),
        ({**GOOD, "text": "another"}, "line 2: the id 's1' stands there twice"),
        ({**GOOD, "_id": "s2", "doc": "elsewhere"}, "line 2: the passage 'elsewhere' is not in the corpus"),
        (["s2", "text"], "line 2: expected an object"),
        ("{broken", "line 2: broken JSON"),
    ],
)
def test_a_broken_line_is_named_in_one_sentence(tmp_path, second, sentence):
    path = tmp_path / "questions.jsonl"
    line = second if isinstance(second, str) else json.dumps(second)
    path.write_text(json.dumps(GOOD) + "\n" + line + "\n", encoding="utf-8")
    with pytest.raises(WorkbookError, match=re.escape(sentence)) as caught:
        read_questions(path, collection_of(1).corpus)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(WorkbookError, match=r"none\.jsonl"):
        read_questions(tmp_path / "none.jsonl", {})


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A data folder that ships questions for the collection ``shop``."""
    monkeypatch.setattr(questions_module, "DATA", tmp_path / "data")
    (tmp_path / "data" / "shop").mkdir(parents=True)
    write_questions(WRITTEN, tmp_path / "data" / "shop" / "questions.jsonl")


@pytest.mark.usefixtures("shipped")
class TestWhereQuestionsComeFrom:
    def test_shipped_ones_are_those_of_the_collection(self):
        assert shipped_questions(collection_of(2, "shop")) == WRITTEN
        assert shipped_questions(collection_of(2, "other")) == []

    def test_shipped_ones_go_before_made_ones(self):
        shop = collection_of(2, "shop")
        write_questions(WRITTEN[:1], made_questions_file(shop))
        assert questions_of(shop) == WRITTEN

    def test_without_shipped_ones_made_ones_are_taken(self):
        other = collection_of(2, "other")
        assert questions_of(other) == []
        write_questions(WRITTEN[:1], made_questions_file(other))
        assert questions_of(other) == WRITTEN[:1]


STYLED = Collection(
    "styled",
    {f"d{i}": f"Passage {i} about a thing." for i in range(6)},
    {f"q{i}": f"pd thing {i} fix" for i in range(12)},
    {"train": {"q0": {"d0": 1}}, "dev": {"q1": {"d1": 1}}, "test": {"q2": {"d2": 1}}},
)


def test_style_is_shown_by_queries_that_nothing_is_measured_on():
    found = style_examples(STYLED)
    assert len(found) == len(set(found)) == 8
    assert set(found) <= set(STYLED.queries.values()) - {STYLED.queries["q1"], STYLED.queries["q2"]}
    assert found == style_examples(STYLED)
    assert style_examples(Collection("none", STYLED.corpus)) == []


def test_a_capable_model_is_shown_the_style_before_the_passage(tmp_path):
    writer = Writer(lambda conversation: json_of(("keyword", "a new need")))
    generate_questions(STYLED, LLM(writer, tmp_path / "styled"), 2, examples=["pd  thing\n3 fix"])
    roles = [[message["role"] for message in conversation] for conversation in writer.asked]
    assert roles == [["system", "user", "user"]] * len(roles)
    assert all("\n- pd thing 3 fix" in conversation[1]["content"] for conversation in writer.asked)
    plain = Writer(lambda conversation: json_of(("keyword", "a new need")))
    generate_questions(STYLED, LLM(plain, tmp_path / "plain"), 2)
    assert [[m["role"] for m in conversation] for conversation in plain.asked] == [["system", "user"]] * len(
        plain.asked
    )


def test_a_small_model_is_not_shown_the_style(tmp_path):
    writer = Writer(lambda conversation: Reply('{"question": "a need"}'), small=True)
    generate_questions(STYLED, LLM(writer, tmp_path), 2, examples=["pd thing 3 fix"])
    assert "thing 3 fix" not in str(writer.asked)

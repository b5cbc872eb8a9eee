"""The four schemas of training data: what is refused, and what a conversion keeps."""

import copy

import pytest

from helpers.store.files import WorkbookError
from helpers.training.examples import CITATIONS, EXAMPLES, JUDGMENTS, PAIRS, SCHEMAS, convert, group_by_query, validate

ROWS = {
    PAIRS: [
        {"question": "tea?", "answer": "steep it"},
        {"question": "coffee?", "answer": "grind it"},
        {"question": "tea?", "answer": "boil water"},
    ],
    EXAMPLES: [
        {"question": "tea?", "positive_examples": ["steep it", "boil water"], "negative_examples": ["grind it"]},
        {"question": "coffee?", "positive_examples": ["grind it"], "negative_examples": []},
    ],
    JUDGMENTS: [
        {"query": "tea?", "passage": "steep it", "is_relevant": True},
        {"query": "tea?", "passage": "grind it", "is_relevant": False},
        {"query": "coffee?", "passage": "grind it", "is_relevant": True},
    ],
    CITATIONS: [
        {"query": "tea?", "passage": "steep it", "is_cited": True},
        {"query": "tea?", "passage": "boil water", "is_cited": False},
    ],
}
EVERY_SCHEMA = pytest.mark.parametrize("schema", SCHEMAS)


def pairs(*texts: tuple[str, str]) -> list[dict]:
    return [{"question": question, "answer": answer} for question, answer in texts]


def judged(*rows: tuple[str, str, bool]) -> list[dict]:
    return [{"query": q, "passage": p, "is_relevant": label} for q, p, label in rows]


@EVERY_SCHEMA
def test_rows_are_recognised(schema):
    assert validate(ROWS[schema]) == schema


@EVERY_SCHEMA
def test_a_key_missing_or_unknown_is_named_with_its_row(schema):
    for key in SCHEMAS[schema].model_fields:
        rows = copy.deepcopy(ROWS[schema])
        rows[1]["anwser"] = rows[1].pop(key)
        with pytest.raises(WorkbookError, match=rf"Row 2: '{key}' is missing and 'anwser' is unknown"):
            validate(rows)


@EVERY_SCHEMA
def test_wrong_types_and_empty_texts_are_named_with_their_row(schema):
    for key, value in ROWS[schema][0].items():
        kinds = {str: [None, 7, " \n"], bool: [None, 1, "True"], list: [None, "steep it", ["a", 7], ["a", " "]]}
        wrong = kinds[type(value)]
        for value in wrong:
            rows = copy.deepcopy(ROWS[schema])
            rows[1][key] = value
            said = "should be (a text|a list of texts|True or False), not|is empty: mend"
            with pytest.raises(WorkbookError, match=rf"Row 2: {key}(, item 2,)? ({said})"):
                validate(rows)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([], "no rows"),
        ({"question": "a", "answer": "b"}, "not a dict"),
        ("text", "not a str"),
        ([{"question": "a", "answer": "b"}, "text"], "Row 2: expected a dict .* found str"),
        ([["question", "answer"]], "Row 1: expected a dict .* found list"),
        ([{"question": "a", "answer": "b", 0: "c"}], r"Row 1: 0 is unknown \(expected question, answer\)"),
        (ROWS[PAIRS][:1] + ROWS[JUDGMENTS][:1], "Row 2: .*'question' is missing"),
        (pairs(("a", "b"), ("c", "d"), ("a", " b")), "Row 3 repeats row 1"),
        (judged(("a", "b", True), ("c", "d", True), ("a", "b", True)), "Row 3 repeats row 1"),
        (judged(("a", "b", True), ("c", "d", True), ("a", "b\n", False)), "Row 3 contradicts row 1"),
        ([{**row, "question": "tea?"} for row in ROWS[EXAMPLES]], "Row 2 repeats row 1: merge"),
    ],
)
def test_what_is_no_training_set_ends_in_a_sentence(rows, sentence):
    with pytest.raises(WorkbookError, match=sentence):
        validate(rows)


@pytest.mark.parametrize(
    ("positives", "negatives", "sentence"),
    [
        ([], ["a"], "Row 1: positive_examples is empty"),
        (["a", "b"], ["c", " b "], "Row 1: 'b' is in both positive_examples and negative_examples"),
        (["a", "a "], [], "Row 1: 'a' is in positive_examples twice"),
        (["a"], ["b", "c", "b"], "Row 1: 'b' is in negative_examples twice"),
    ],
)
def test_lists_of_an_example_are_checked(positives, negatives, sentence):
    with pytest.raises(WorkbookError, match=sentence):
        validate([{"question": "q", "positive_examples": positives, "negative_examples": negatives}])


@EVERY_SCHEMA
def test_to_its_own_schema_rows_are_copied(schema):
    before = copy.deepcopy(ROWS[schema])
    rows = convert(ROWS[schema], schema)
    assert rows == before
    for row in rows:
        for value in row.values():
            if isinstance(value, list):
                value.append("more")
    assert ROWS[schema] == before


def test_pairs_become_examples_and_judgments():
    assert convert(ROWS[PAIRS], EXAMPLES) == [
        {"question": "tea?", "positive_examples": ["steep it", "boil water"], "negative_examples": []},
        {"question": "coffee?", "positive_examples": ["grind it"], "negative_examples": []},
    ]
    assert convert(ROWS[PAIRS], JUDGMENTS) == judged(
        ("tea?", "steep it", True), ("coffee?", "grind it", True), ("tea?", "boil water", True)
    )


def test_examples_become_judgments_in_order():
    assert convert(ROWS[EXAMPLES], JUDGMENTS) == judged(
        ("tea?", "steep it", True),
        ("tea?", "boil water", True),
        ("tea?", "grind it", False),
        ("coffee?", "grind it", True),
    )


@pytest.mark.parametrize(
    ("start", "by"),
    [(EXAMPLES, JUDGMENTS), (JUDGMENTS, EXAMPLES), (PAIRS, JUDGMENTS)],
)
def test_there_and_back_gives_the_same_rows(start, by):
    assert convert(convert(ROWS[start], by), start) == ROWS[start]


def test_pairs_through_examples_come_back_grouped_by_question():
    first, second, third = ROWS[PAIRS]
    assert convert(convert(ROWS[PAIRS], EXAMPLES), PAIRS) == [first, third, second]


@pytest.mark.parametrize(
    ("start", "to", "sentence"),
    [
        (EXAMPLES, PAIRS, "1 irrelevant passages would be lost"),
        (JUDGMENTS, PAIRS, "1 irrelevant passages would be lost"),
        (PAIRS, CITATIONS, "do not say what an answer cited"),
        (EXAMPLES, CITATIONS, "do not say what an answer cited"),
        (JUDGMENTS, CITATIONS, "do not say what an answer cited"),
        (PAIRS, "triples", "no schema 'triples'"),
    ],
)
def test_nothing_is_lost_or_made_up_silently(start, to, sentence):
    with pytest.raises(WorkbookError, match=sentence):
        convert(ROWS[start], to)


def test_a_query_with_irrelevant_passages_alone_makes_no_example():
    rows = [*ROWS[JUDGMENTS], *judged(("milk?", "grind it", False))]
    with pytest.raises(WorkbookError, match=r"1 queries .* would be lost \(the first: 'milk\?'\)"):
        convert(rows, EXAMPLES)


@pytest.mark.parametrize("to", [PAIRS, EXAMPLES, JUDGMENTS])
def test_what_uncited_means_has_to_be_said(to):
    with pytest.raises(WorkbookError, match="1 of 2 passages are not cited, which does not make them irrelevant"):
        convert(ROWS[CITATIONS], to)


def test_uncited_passages_are_left_out_or_taken_as_irrelevant():
    assert convert(ROWS[CITATIONS], JUDGMENTS, uncited_is_negative=False) == judged(("tea?", "steep it", True))
    assert convert(ROWS[CITATIONS], PAIRS, uncited_is_negative=False) == pairs(("tea?", "steep it"))
    assert convert(ROWS[CITATIONS], EXAMPLES, uncited_is_negative=True) == [
        {"question": "tea?", "positive_examples": ["steep it"], "negative_examples": ["boil water"]}
    ]
    with pytest.raises(WorkbookError, match="irrelevant passages would be lost"):
        convert(ROWS[CITATIONS], PAIRS, uncited_is_negative=True)


def test_citations_that_are_all_cited_need_no_choice_and_none_leaves_nothing():
    assert convert(ROWS[CITATIONS][:1], JUDGMENTS) == judged(("tea?", "steep it", True))
    with pytest.raises(WorkbookError, match="nothing is left"):
        convert(ROWS[CITATIONS][1:], PAIRS, uncited_is_negative=False)


def test_a_passage_called_both_is_refused_when_rows_are_merged():
    with pytest.raises(WorkbookError, match="'p' is both relevant and irrelevant to 'q '"):
        group_by_query([("q", "p", True), ("q ", "p", False)])


def test_wrong_rows_are_refused_before_they_are_converted():
    with pytest.raises(WorkbookError, match="Row 2 repeats row 1"):
        convert(ROWS[PAIRS][:1] * 2, EXAMPLES)

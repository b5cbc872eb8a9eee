"""The sentences that authors wrote over their examples: what is taken, what is left out, how they are split."""

import pytest

from helpers.collection.sentences import author_sentences, is_task, sentence_splits

PAGE = """Write object to an Excel sheet.

Parameters
----------
path : str
    Where the examples go.

Examples
--------
Create, write to and save a workbook:

>>> df1.to_excel("output.xlsx")

To write to **separate sheets** in a `single file`:

>>> with pd.ExcelWriter(...) as writer:
...     df1.to_excel(writer)

The result is a workbook with two sheets. Freeze the first row and column of the sheet.
See :func:`read_excel` for the way back.

>>> 1 + 1
2

Use to_excel with another engine:

Notes
-----
Append to a file that is there already:
"""


def test_sentences_of_the_examples_are_taken_without_markup_and_remarks():
    assert author_sentences({"pandas.DataFrame.to_excel": PAGE}) == {
        "pandas.DataFrame.to_excel": [
            "To write to separate sheets in a single file:",
            "Freeze the first row and column of the sheet.",
        ]
    }


@pytest.mark.parametrize(
    "sentence",
    [
        "Sort by two columns, the second one descending:",
        "To drop columns with missing values:",
        "We can find the distance of each point to the nearest one:",
        "Suppose we wish to test whether two samples have one mean.",
        "Uniform random numbers in a 2-D array:",
    ],
)
def test_what_is_to_be_done_is_a_task(sentence):
    assert is_task(sentence)


@pytest.mark.parametrize(
    "sentence",
    [
        "The values are sorted by the second column.",
        "Note that the index is kept:",
        "We see a clear peak at 50 Hz.",
        "See the user guide for more about sorting.",
        "Generate some data:",
        "Apply the test to x1 and x3:",
        "This returns a copy with the columns in another order.",
        "Compare that to the mean of the first sample.",
    ],
)
def test_a_remark_a_pointer_and_what_fits_any_example_are_none(sentence):
    assert not is_task(sentence)


def page(*sentences: str) -> str:
    return "Summary.\n\nExamples\n--------\n" + "\n\n>>> 1\n1\n\n".join(sentences)


def test_a_sentence_that_names_its_function_or_stands_on_two_pages_is_left_out():
    pages = {
        "lib.set_index": page("Set the index to the month column:", "Set index by two columns at once:"),
        "lib.merge": page("Join two tables on a shared key:", "Drop rows that have no partner:"),
        "lib.join": page("drop rows that have no partner.", "Join two tables on their row labels:"),
    }
    assert author_sentences(pages) == {
        "lib.set_index": ["Set the index to the month column:"],
        "lib.merge": ["Join two tables on a shared key:"],
    }


def test_of_a_page_at_most_four_sentences_are_taken():
    verbs = ("Sort", "Filter", "Group", "Count", "Join", "Rank")
    said = author_sentences({"lib.f": page(*(f"{verb} the rows of this table:" for verb in verbs))})["lib.f"]
    assert said == [f"{verb} the rows of this table:" for verb in verbs[:4]]


def test_functions_of_one_name_are_in_one_split_and_test_has_one_sentence_a_page():
    words = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta")
    pages = {
        f"{lib}.{word}": page(f"Sort the {lib} rows of kind {i}:", f"Count the {lib} rows of kind {i}:")
        for lib in ("numpy", "pandas")
        for i, word in enumerate(words)
    }
    splits = sentence_splits(pages)
    where = {doc: name for name, (_, qrels) in splits.items() for docs in qrels.values() for doc in docs}
    assert set(where) == set(pages)
    assert all(where[f"numpy.{word}"] == where[f"pandas.{word}"] for word in words)
    queries, qrels = splits["test"]
    assert len(queries) == list(where.values()).count("test") > 0
    assert all(text.startswith("Sort the") and not text.endswith(":") for text in queries.values())
    assert all(qrels[q] == {q.rsplit("/", 1)[0]: 1} for q in queries)
    assert len(splits["train"][0]) == 2 * list(where.values()).count("train") > 0


@pytest.mark.audit
def test_the_default_collections_sentences_are_people_s_and_name_nothing(pydocs_collection):
    train, test = (pydocs_collection.sentences[name] for name in ("train", "test"))
    assert len(test[0]) >= 200
    assert len(train[0]) >= 250
    assert not {doc for docs in train[1].values() for doc in docs} & {doc for docs in test[1].values() for doc in docs}
    for queries, qrels in (train, test):
        for q, text in queries.items():
            (doc,) = qrels[q]
            assert doc.rsplit(".", 1)[-1].lower() not in text.lower().split()

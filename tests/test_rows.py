"""Rows of files as models: what is read, and the sentence that names file, line and field of one that does not fit."""

from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from helpers.store.files import WorkbookError
from helpers.store.rows import Text, read_csv, read_rows


class Tea(BaseModel):
    id: Text = Field(alias="_id")
    grams: float = 2.0
    kind: Literal["green", "black"] = "black"
    notes: list[Text] = []


class Strict(Tea):
    model_config = ConfigDict(extra="forbid")


def test_rows_of_jsonl_and_csv_come_with_their_lines_and_without_what_the_model_does_not_have(tmp_path):
    jsonl, table = tmp_path / "teas.jsonl", tmp_path / "teas.csv"
    jsonl.write_text('{"_id": "a", "grams": 3}\n\n{"_id": "b", "kind": "green", "price": 7}\n')
    table.write_text('_id,grams,kind,price\na,3,,\n"b\nb",,green,7\nc,,,\n')
    assert read_rows(jsonl, Tea) == {1: Tea(_id="a", grams=3), 3: Tea(_id="b", kind="green")}
    assert read_rows(table, Tea) == {2: Tea(_id="a", grams=3), 3: Tea(_id="b\nb", kind="green"), 5: Tea(_id="c")}


@pytest.mark.parametrize(
    ("line", "model", "sentence"),
    [
        ('{"grams": 2}', Tea, "'_id' is missing (expected _id, grams, kind, notes): mend or remove this row."),
        ('{"id": "b"}', Strict, "'_id' is missing and 'id' is unknown (expected _id, grams, kind, notes): "),
        ('{"_id": " "}', Tea, "_id is empty: mend or remove it."),
        ('{"_id": 7}', Tea, "_id should be a text, not 7: mend or remove this row."),
        ('{"_id": "b", "grams": "two"}', Tea, "grams should be a valid number, not 'two': mend or remove this row."),
        ('{"_id": "b", "kind": "red"}', Tea, "kind should be 'green' or 'black', not 'red': mend or remove this row."),
        ('{"_id": "b", "notes": "mild"}', Tea, "notes should be a list of texts, not 'mild': mend or"),
        ('{"_id": "b", "notes": ["mild", 7]}', Tea, "notes, item 2, should be a text, not 7: mend or"),
        ('{"_id": "a"}', Tea, "the id 'a' stands there twice: give every row its own id."),
        ("[]", Tea, "expected an object"),
        ("{", Tea, "broken JSON"),
    ],
)
def test_a_line_that_does_not_fit_is_named_in_one_sentence(tmp_path, line, model, sentence):
    path = tmp_path / "teas.jsonl"
    path.write_text(f'{{"_id": "a"}}\n\n{line}\n')
    with pytest.raises(WorkbookError) as caught:
        read_rows(path, model, unique="id")
    assert str(caught.value).startswith(f"{path}, line 3: {sentence}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (",2", "'_id' is missing"),
        ("b,two", "grams should be a valid number, not 'two'"),
        ("b,2,3", "more cells than the header has columns"),
        ("b", "fewer cells than the header has columns"),
        ('"b', "broken csv"),
    ],
)
def test_a_row_of_a_csv_file_that_does_not_fit_is_named_by_its_first_line(tmp_path, row, sentence):
    path = tmp_path / "teas.csv"
    path.write_text(f'_id,grams\n"a\na",3\n{row}\n')
    with pytest.raises(WorkbookError, match=rf"teas\.csv, line 4: {sentence}"):
        read_rows(path, Tea)


def test_ids_may_come_twice_where_nothing_else_is_asked(tmp_path):
    path = tmp_path / "teas.jsonl"
    path.write_text('{"_id": "a"}\n{"_id": "a"}\n')
    assert len(read_rows(path, Tea)) == 2


def test_cells_are_read_as_they_stand(tmp_path):
    path = tmp_path / "teas.csv"
    path.write_text("\ufeff_id,grams\r\n 01 ,\r\n", encoding="utf-8")
    assert list(read_csv(path)) == [(2, {"_id": " 01 ", "grams": ""})]

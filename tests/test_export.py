"""Datasets that the losses take, parquet and Cohere's format: what is written, what is read back, what is refused."""

import json
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset
from sentence_transformers.cross_encoder.data_collator import CrossEncoderDataCollator
from sentence_transformers.cross_encoder.losses import LambdaLoss
from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator
from sentence_transformers.sentence_transformer.losses import CoSENTLoss, MultipleNegativesRankingLoss

from helpers.store import files as store
from helpers.store.files import WorkbookError
from helpers.training import export
from helpers.training.examples import EXAMPLES, validate
from helpers.training.export import (
    FORMS,
    read_cohere,
    read_parquet,
    to_dataset,
    to_examples,
    write_cohere,
    write_parquet,
)
from helpers.training.triplets import Triplet

CORPUS = {d: f"text of {d}" for d in "abcdef"} | {"zoë": "Ein „Text“\nin zwei Zeilen\u2028oder drei"}
TRIPLETS = [
    Triplet("q1", "one", "a", ("b", "c")),
    Triplet("q1", "one", "d", ("c", "e")),
    Triplet("q2", "zwei „ö“", "zoë", ("a",)),
    Triplet("q3", "three", "f"),
]


def text(*docs: str) -> list[str]:
    return [CORPUS[d] for d in docs]


def many(n: int, negatives: int = 5) -> tuple[list[Triplet], dict[str, str]]:
    """n triplets of n queries, each with its own positive and the next passages as negatives."""
    corpus = {f"d{i}": f"passage {i}" for i in range(n)}
    return [
        Triplet(f"q{i}", f"query {i}", f"d{i}", tuple(f"d{(i + j) % n}" for j in range(1, negatives + 1)))
        for i in range(n)
    ], corpus


def test_examples_merge_the_triplets_of_a_query():
    rows = to_examples(TRIPLETS, CORPUS)
    assert rows == [
        {"question": "one", "positive_examples": text("a", "d"), "negative_examples": text("b", "c", "e")},
        {"question": "zwei „ö“", "positive_examples": text("zoë"), "negative_examples": text("a")},
        {"question": "three", "positive_examples": text("f"), "negative_examples": []},
    ]
    assert validate(rows) == EXAMPLES


@pytest.mark.parametrize(
    ("form", "columns"),
    [
        ("pairs", {"anchor": ["one", "one", "zwei „ö“", "three"], "positive": text("a", "d", "zoë", "f")}),
        (
            "triplets",
            {
                "anchor": ["one"] * 4 + ["zwei „ö“"],
                "positive": text("a", "a", "d", "d", "zoë"),
                "negative": text("b", "c", "c", "e", "a"),
            },
        ),
        (
            "tuples",
            {
                "anchor": ["one"] * 2,
                "positive": text("a", "d"),
                "negative_1": text("b", "c"),
                "negative_2": text("c", "e"),
            },
        ),
        (
            "labelled pairs",
            {
                "sentence1": ["one"] * 5 + ["zwei „ö“"] * 2 + ["three"],
                "sentence2": text("a", "d", "b", "c", "e", "zoë", "a", "f"),
                "label": [1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0],
            },
        ),
        (
            "labelled lists",
            {
                "query": ["one", "zwei „ö“"],
                "docs": [text("a", "d", "b", "c", "e"), text("zoë", "a")],
                "labels": [[1.0, 1.0, 0.0, 0.0, 0.0], [1.0, 0.0]],
            },
        ),
    ],
)
def test_each_form_by_hand(form, columns):
    dataset = to_dataset(TRIPLETS, CORPUS, form)
    assert isinstance(dataset, Dataset)
    assert dataset.column_names == list(columns)
    assert dataset.to_dict() == columns


class Encoder(torch.nn.Module):
    """Two numbers a text, without a model: enough for the losses' sums."""

    def preprocess(self, texts, prompt=None, task=None):
        return {"lengths": torch.tensor([[float(len(t)), 1.0 + t.count("o")] for t in texts])}

    def forward(self, features):
        return {"sentence_embedding": features["lengths"]}


def batch(form: str) -> tuple[list[dict], torch.Tensor | None]:
    """What the trainer hands to a loss: the columns in their order, and the labels."""
    dataset = to_dataset(TRIPLETS, CORPUS, form)
    collated = SentenceTransformerDataCollator(Encoder().preprocess)(list(dataset))
    columns = [name for name in dataset.column_names if name != "label"]
    assert set(collated) == {f"{name}_lengths" for name in columns} | ({"label"} & set(dataset.column_names))
    return [{"lengths": collated[f"{name}_lengths"]} for name in columns], collated.get("label")


@pytest.mark.parametrize("form", ["pairs", "triplets", "tuples"])
def test_ranking_loss_takes_the_columns_in_their_order(form):
    features, labels = batch(form)
    assert labels is None
    loss = MultipleNegativesRankingLoss(Encoder(), scale=1.0)(features, labels)
    vectors = [torch.nn.functional.normalize(f["lengths"]) for f in features]
    scores = vectors[0] @ torch.cat(vectors[1:]).T  # the positive of row i is candidate i, all others are negatives
    assert loss.item() == pytest.approx(torch.nn.functional.cross_entropy(scores, torch.arange(len(scores))).item())


def test_pair_losses_take_labelled_pairs():
    features, labels = batch("labelled pairs")
    assert len(features) == 2
    assert labels.dtype == torch.float32
    assert math.isfinite(CoSENTLoss(Encoder())(features, labels).item())


def test_list_losses_take_labelled_lists():
    class Scorer(torch.nn.Module):
        num_labels, device = 1, torch.device("cpu")

        def preprocess(self, pairs, prompt=None, task=None):
            return {"overlap": torch.tensor([float(len(set(q) & set(d))) for q, d in pairs])}

        def forward(self, features):
            return {"scores": features["overlap"]}

    collated = CrossEncoderDataCollator(None)(list(to_dataset(TRIPLETS, CORPUS, "labelled lists")))
    assert list(collated) == ["label", "query", "docs"]
    assert math.isfinite(LambdaLoss(Scorer())([collated["query"], collated["docs"]], collated["label"]).item())


@pytest.mark.parametrize("form", FORMS)
def test_no_triplets_and_unknown_passages_are_refused(form):
    with pytest.raises(WorkbookError, match="No triplet was given"):
        to_dataset([], CORPUS, form)
    for lost in ("a", "c") if form != "pairs" else ("a",):
        with pytest.raises(WorkbookError, match=f"no passage '{lost}'"):
            to_dataset(TRIPLETS[:2], {d: t for d, t in CORPUS.items() if d != lost}, form)


@pytest.mark.parametrize("form", ["triplets", "tuples", "labelled lists"])
def test_forms_with_negatives_refuse_triplets_without(form):
    with pytest.raises(WorkbookError, match="No triplet has a negative"):
        to_dataset(TRIPLETS[3:], CORPUS, form)


@pytest.mark.parametrize("form", ["labelled pairs", "labelled lists"])
def test_a_passage_that_is_both_is_refused(form):
    with pytest.raises(WorkbookError, match="'text of b' is both relevant and irrelevant to 'one'"):
        to_dataset([*TRIPLETS, Triplet("q9", "one", "b")], CORPUS, form)


def test_parquet_round_trip(tmp_path):
    path = tmp_path / "new" / "triplets.parquet"
    write_parquet(TRIPLETS, CORPUS, path)
    assert read_parquet(path) == (TRIPLETS, CORPUS)
    assert pq.read_table(path).column_names == "query_id query positive_id positive negative_ids negatives".split()
    write_parquet([], CORPUS, path)
    assert read_parquet(path) == ([], {})
    assert list(path.parent.iterdir()) == [path]


def test_what_is_no_file_of_triplets_is_refused(tmp_path):
    path = tmp_path / "file.parquet"
    with pytest.raises(WorkbookError, match="not a parquet file"):
        read_parquet(path)
    path.write_text("not parquet")
    with pytest.raises(WorkbookError, match="not a parquet file"):
        read_parquet(path)
    pq.write_table(pa.table({"query": ["x"], "passage": ["y"]}), path)
    with pytest.raises(WorkbookError, match=r"missing columns query_id, .* \(found query, passage\)"):
        read_parquet(path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"positive": None}, "row 2: a value is missing"),
        ({"negatives": ["text of c"]}, "row 2: a value is missing"),
        ({"negatives": ["text of c", None]}, "row 2: a value is missing"),
        ({"negatives": ["another text", "text of e"]}, "row 2: the passage 'c' has another text"),
        ({"negatives": 7}, "not a parquet file of triplets"),
    ],
)
def test_a_damaged_row_of_parquet_is_named(tmp_path, change, sentence):
    path = tmp_path / "file.parquet"
    write_parquet(TRIPLETS, CORPUS, path)
    rows = pq.read_table(path).to_pylist()
    if isinstance(change.get("negatives"), int):
        rows = [{**row, **change} for row in rows]
    rows[1] |= change
    pq.write_table(pa.Table.from_pylist(rows), path)
    with pytest.raises(WorkbookError, match=sentence):
        read_parquet(path)


def test_a_write_that_fails_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "triplets.parquet"
    write_parquet(TRIPLETS, CORPUS, path)

    def full(table, where):
        where.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(export.pq, "write_table", full)
    with pytest.raises(WorkbookError, match="no space left"):
        write_parquet(TRIPLETS[:1], CORPUS, path)
    assert read_parquet(path)[0] == TRIPLETS
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("write", [write_parquet, write_cohere])
def test_a_folder_that_cannot_be_made_ends_in_a_sentence(tmp_path, write):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkbookError, match="Cannot create the folder"):
        write(*many(256), tmp_path / "file" / "below")


def test_cohere_file_of_256_queries(tmp_path):
    path = tmp_path / "new" / "rerank.jsonl"
    triplets, corpus = many(256)
    corpus["d0"] = "Zeile eins\nZeile zwei „ö“"
    assert write_cohere(triplets, corpus, path) == []
    lines = path.read_text(encoding="utf-8").split("\n")
    assert len(lines) == 257
    assert lines[-1] == ""
    assert "ö" in lines[0]
    assert json.loads(lines[0]) == {
        "query": "query 0",
        "relevant_passages": ["Zeile eins\nZeile zwei „ö“"],
        "hard_negatives": [f"passage {i}" for i in range(1, 6)],
    }
    assert read_cohere(path) == to_examples(triplets, corpus)


def test_cohere_merges_the_rows_of_a_query_and_counts_queries_not_rows(tmp_path):
    triplets, corpus = many(256)
    again = Triplet("other id", "query  255", "d100", ("d0", "d101"))  # d0 is a negative of this query already
    write_cohere([*triplets, again], corpus, tmp_path / "rerank.jsonl")
    assert read_cohere(tmp_path / "rerank.jsonl")[255] == {
        "question": "query 255",
        "positive_examples": ["passage 255", "passage 100"],
        "negative_examples": [f"passage {i}" for i in (0, 1, 2, 3, 4, 101)],
    }
    with pytest.raises(WorkbookError, match="at least 256 unique queries, and there are 255"):
        write_cohere([*triplets[:255], Triplet("q0", "query 0", "d9")], corpus, tmp_path / "few.jsonl")
    assert not (tmp_path / "few.jsonl").exists()


def test_cohere_advises_more_negatives(tmp_path):
    triplets, corpus = many(300)
    few = [Triplet(t.query_id, t.query, t.positive_id, t.negative_ids[:4]) for t in triplets[:10]]
    [notice] = write_cohere([*few, *triplets[10:]], corpus, tmp_path / "rerank.jsonl")
    assert notice.startswith("10 of 300 queries have fewer than the 5 hard negatives")


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (Triplet("q0", "query 0", "d1"), "'passage 1' is both relevant and irrelevant to 'query 0'"),
        (Triplet("new", "new query", "d1", ("twin",)), "'passage  1' is both"),
        (Triplet("new", " ", "d1"), "Query 257: question is empty"),
        (Triplet("new", "new query", "empty"), "Query 257: positive_examples, item 1, is empty"),
        (Triplet("new", "new query", "lost"), "no passage 'lost'"),
    ],
)
def test_cohere_rules_are_enforced_when_writing(tmp_path, wrong, sentence):
    triplets, corpus = many(256)
    with pytest.raises(WorkbookError, match=sentence):
        write_cohere([*triplets, wrong], {**corpus, "twin": "passage  1", "empty": " "}, tmp_path / "rerank.jsonl")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ({"query": "q", "relevant_passages": [], "hard_negatives": ["a"]}, "line 3: relevant_passages is empty"),
        ({"query": "q", "relevant_passages": ["a"], "hard_negatives": ["a"]}, "line 3: 'a' is in both"),
        ({"query": "q", "relevant_passages": ["a", "a"], "hard_negatives": []}, "'a' is in relevant_passages twice"),
        ({"query": "q", "relevant_passages": ["a"], "hard_negatives": ["b", "b"]}, "'b' is in hard_negatives twice"),
        ({"query": "q", "relevant_passages": "a", "hard_negatives": []}, "relevant_passages should be a list of texts"),
        ({"query": "q", "relevant_passages": ["a"]}, "line 3: 'hard_negatives' is missing"),
        ({"query": "first", "relevant_passages": ["b"], "hard_negatives": []}, "line 3: the query of line 1 again"),
    ],
)
def test_a_wrong_line_of_a_cohere_file_is_named(tmp_path, line, sentence):
    path = tmp_path / "rerank.jsonl"
    first = {"query": "first", "relevant_passages": ["a"], "hard_negatives": []}
    store.write_text(path, f"{json.dumps(first)}\n\n{json.dumps(line)}\n")
    with pytest.raises(WorkbookError, match=sentence):
        read_cohere(path)


def test_an_empty_cohere_file_is_refused_and_a_short_one_read(tmp_path):
    path = tmp_path / "rerank.jsonl"
    store.write_text(path, "\n")
    with pytest.raises(WorkbookError, match="is empty"):
        read_cohere(path)
    store.write_text(path, '{"query": "q", "relevant_passages": ["a"], "hard_negatives": []}')
    assert read_cohere(path) == [{"question": "q", "positive_examples": ["a"], "negative_examples": []}]

"""A collection of the hub: the layout of the BEIR datasets there, by a folder of the same layout."""

import json

import huggingface_hub
import pytest

from helpers.collection import hub
from helpers.collection.collection import open_collection
from helpers.homework.data import open_own
from helpers.store.files import WorkbookError

CONFIGS = """---
configs:
- config_name: corpus
  data_files:
  - split: corpus
    path: corpus.jsonl
- config_name: queries
  data_files:
  - split: queries
    path: queries.jsonl
---
"""
SPLITS = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: train.tsv
  - split: validation
    path: validation.tsv
  - split: test
    path: test.tsv
---
"""
ABSTRACTS = [(i, f"Title {i}", f"Abstract number {i} of nine.") for i in range(9)]


@pytest.fixture
def layout(tmp_path):
    """Two folders as the hub has them: little, with passages and queries, and little-qrels beside it."""
    place, judged = tmp_path / "little", tmp_path / "little-qrels"
    place.mkdir()
    judged.mkdir()
    (place / "README.md").write_text(CONFIGS)
    (judged / "README.md").write_text(SPLITS)
    passages = [{"_id": str(i), "title": title, "text": text} for i, title, text in ABSTRACTS]
    queries = [{"_id": str(i), "title": "", "text": f"claim {i}"} for i in range(6)]
    for file, rows in (("corpus", passages), ("queries", queries)):
        (place / f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for split, among in (("train", (0, 1, 2)), ("validation", (3,)), ("test", (4, 5))):
        lines = ["query-id\tcorpus-id\tscore", *(f"{i}\t{i}\t1" for i in among)]
        (judged / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    return place


def test_a_dataset_of_the_hub_opens_like_a_beir_folder(layout):
    collection = open_collection(f"hub:{layout}")
    assert collection.corpus == {str(i): f"{title} {text}" for i, title, text in ABSTRACTS}
    assert collection.split("test") == ({"4": "claim 4", "5": "claim 5"}, {"4": {"4": 1}, "5": {"5": 1}})
    assert {split: list(qrels) for split, qrels in collection.qrels.items()} == {
        "train": ["0", "1", "2"],
        "dev": ["3"],
        "test": ["4", "5"],
    }


def test_it_is_fetched_once(layout, monkeypatch):
    first = open_collection(f"hub:{layout}")
    monkeypatch.setattr(hub.datasets, "load_dataset", lambda *_, **__: pytest.fail("fetched again"))
    again = open_collection(f"hub:{layout}")
    assert (again.name, again.key) == (first.name, first.key)


def test_a_fetch_that_is_cut_off_leaves_nothing_that_looks_whole(layout, monkeypatch):
    load = hub.datasets.load_dataset

    def cut_off(name, *rest, **settings):
        if str(name).endswith("-qrels"):
            raise KeyboardInterrupt
        return load(name, *rest, **settings)

    monkeypatch.setattr(hub.datasets, "load_dataset", cut_off)
    with pytest.raises(KeyboardInterrupt):
        hub.fetch(str(layout))
    monkeypatch.setattr(hub.datasets, "load_dataset", load)
    assert set(open_collection(f"hub:{layout}").qrels) == {"train", "dev", "test"}


def test_offline_it_ends_in_a_sentence_before_the_library_tries_again_and_again(monkeypatch):
    def unreachable(self, name, timeout):
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", unreachable)
    monkeypatch.setattr(hub.datasets, "load_dataset", lambda *_, **__: pytest.fail("the library was asked"))
    with pytest.raises(WorkbookError, match=r"^Cannot get the collection 'BeIR/scifact' from the hub") as error:
        open_collection("hub:BeIR/scifact")
    assert "\n" not in str(error.value)


def test_another_layout_is_named(layout):
    (layout / "README.md").write_text(CONFIGS.replace("config_name: queries", "config_name: questions"))
    with pytest.raises(WorkbookError, match="needs the configurations corpus and queries") as error:
        open_collection(f"hub:{layout}")
    assert "\n" not in str(error.value)


def test_the_homework_takes_it_too(layout):
    collection, log = open_own(f"hub:{layout}")
    assert set(collection.qrels) == {"train", "dev", "test"}
    assert log is None

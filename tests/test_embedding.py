"""Encoding in batches of like length, and the cache of vectors on disk."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeEmbedder, random_texts

from helpers.models import embed as embedding
from helpers.models import load as models
from helpers.models.embed import CachedEmbedder, LocalEmbedder, VectorCache, batches_by_length, encode
from helpers.store.files import WorkbookError


@pytest.fixture(scope="module")
def encoder():
    return models.load_encoder(models.PACKAGED)


def two_numbers(texts, task):
    """A vector that tells the text and the task."""
    return [np.array([len(text), task == "query"], dtype=np.float32) for text in texts]


def mixed_texts() -> list[str]:
    """Short and long texts in no order, with an empty one and one beyond the encoder's 256 tokens."""
    texts = [" ".join(random_texts(size, seed=size)) for size in (1, 9, 2, 30, 3, 1, 17, 60)]
    return [*texts, "", "one", texts[3], "ünïcödé — 漢字 🙂"]


@pytest.mark.parametrize("task", ["query", "document"])
def test_encode_gives_what_sentence_transformers_gives_in_the_order_of_the_texts(encoder, task):
    texts = mixed_texts()
    np.testing.assert_allclose(np.array(encode(encoder, texts, task)), encoder.encode(texts), atol=1e-5)


def test_encode_uses_the_prompt_of_the_task(encoder, monkeypatch):
    monkeypatch.setattr(encoder, "prompts", {"query": "question: ", "document": "answer: "})
    texts = ["short", "a rather longer text about the weather"]
    for task, prompt in (("query", "question: "), ("document", "answer: ")):
        expected = encoder.encode([prompt + text for text in texts], prompt="")
        np.testing.assert_allclose(np.array(encode(encoder, texts, task)), expected, atol=1e-5)


def test_encode_of_nothing_is_nothing(encoder):
    assert encode(encoder, []) == []


def test_local_embedder_gives_float32_unit_vectors(encoder):
    embedder = LocalEmbedder(encoder)
    vectors = embedder.embed(mixed_texts(), "document")
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(mixed_texts()), embedder.width)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert embedder.embed([], "query").shape == (0, 384)


@pytest.mark.parametrize("seed", range(5))
def test_batches_cover_each_position_once_within_the_budget(seed):
    lengths = np.random.default_rng(seed).integers(0, 300, size=200).tolist()
    batches = batches_by_length(lengths, 1024)
    assert sorted(i for batch in batches for i in batch) == list(range(200))
    assert all(len(batch) * max(lengths[i] for i in batch) <= 1024 for batch in batches)


def test_batches_of_like_length_have_little_padding():
    lengths = np.random.default_rng(0).integers(1, 257, size=2000).tolist()
    padded = sum(len(batch) * max(lengths[i] for i in batch) for batch in batches_by_length(lengths, 1024))
    assert padded < 1.05 * sum(lengths)


def test_text_longer_than_the_budget_is_alone():
    assert batches_by_length([5, 5000, 5, 1025], 1024) == [[1], [3], [0, 2]]


def test_batches_of_nothing():
    assert batches_by_length([]) == []


def test_cache_computes_nothing_twice(tmp_path):
    texts = random_texts(300)
    first, second = FakeEmbedder(), FakeEmbedder()
    made = CachedEmbedder(first, tmp_path).embed(texts, "document")
    again = CachedEmbedder(second, tmp_path).embed([*texts[::-1], "something new"], "document")
    assert second.embedded == ["something new"]
    np.testing.assert_array_equal(again[:-1], made[::-1])
    np.testing.assert_allclose(made, FakeEmbedder().embed(texts, "document"), atol=1e-7)


def test_cache_computes_a_repeated_text_once(tmp_path):
    embedder = FakeEmbedder()
    vectors = CachedEmbedder(embedder, tmp_path).embed(["b", "a", "b", "b"], "document")
    assert sorted(embedder.embedded) == ["a", "b"]
    np.testing.assert_array_equal(vectors[[0, 2, 3]], vectors[[0, 0, 0]])


def test_cache_tells_how_many_texts_it_computed(tmp_path):
    cache = VectorCache(tmp_path, "key", 2)
    assert [cache.add(texts, "query", two_numbers) for texts in (["a", "bb", "a"], ["bb", "ccc"], [])] == [2, 1, 0]


def test_cache_keeps_queries_and_documents_apart(tmp_path):
    cache = VectorCache(tmp_path, "key", 2)
    for task in ("query", "document"):
        assert cache.add(["same"], task, two_numbers) == 1
    assert cache.get(["same"], "query")[0].tolist() == [4, 1]
    assert cache.get(["same"], "document")[0].tolist() == [4, 0]


def test_cache_of_another_key_is_another_table(tmp_path):
    VectorCache(tmp_path, "one", 2).add(["text"], "query", two_numbers)
    other = VectorCache(tmp_path, "two", 2)
    assert other.add(["text"], "query", lambda texts, task: [np.array([7, 7])]) == 1
    assert other.get(["text"], "query")[0].tolist() == [7, 7]
    assert VectorCache(tmp_path, "one", 2).get(["text"], "query")[0].tolist() == [4, 1]


def test_get_follows_the_order_of_the_texts_and_repeats_them(tmp_path):
    cache = VectorCache(tmp_path, "key", 2)
    cache.add(["a", "bb", "ccc"], "document", two_numbers)
    wanted = ["ccc", "a", "ccc", "bb", "a"]
    assert [vector[0] for vector in cache.get(wanted, "document")] == [3, 1, 3, 2, 1]
    assert cache.get([], "document") == []


@pytest.mark.parametrize("reopened", [False, True])
def test_cache_keeps_token_vectors_of_any_number_in_half_precision(tmp_path, reopened):
    texts = ["x" * n for n in (5, 1, 3)]
    cache = VectorCache(tmp_path, "key", 4, np.float16)
    cache.add(texts, "document", lambda texts, task: [np.full((len(t), 4), len(t) / 8) for t in texts])
    if reopened:
        cache = VectorCache(tmp_path, "key", 4, np.float16)
    for text, flat in zip(texts, cache.get(texts, "document"), strict=True):
        assert flat.dtype == np.float16
        np.testing.assert_array_equal(flat.reshape(-1, 4), np.full((len(text), 4), len(text) / 8))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_vectors_that_are_no_numbers_are_refused_and_not_stored(tmp_path, bad):
    def broken(texts, task):
        return [np.array([bad if text == "bad" else 1.0, 0.0]) for text in texts]

    with pytest.raises(WorkbookError, match="not numbers"):
        VectorCache(tmp_path, "key", 2).add(["fine", "bad"], "document", broken)
    assert VectorCache(tmp_path, "key", 2).add(["fine", "bad"], "document", two_numbers) == 2


def test_blocks_before_a_failure_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(embedding, "BLOCK", 2)
    asked = []

    def third_block_fails(texts, task):
        asked.append(list(texts))
        if len(asked) == 3:
            raise WorkbookError("no more")
        return two_numbers(texts, task)

    texts = ["x" * n for n in range(1, 8)]
    cache = VectorCache(tmp_path, "key", 2)
    with pytest.raises(WorkbookError, match="no more"):
        cache.add(texts, "query", third_block_fails)
    assert cache.add(texts, "query", two_numbers) == 3
    assert [vector[0] for vector in cache.get(texts, "query")] == [1, 2, 3, 4, 5, 6, 7]


KILLED_IN_THE_FOURTH_BLOCK = """
import os, signal, sys
from pathlib import Path
from fakes import FakeEmbedder
from helpers.models.embed import BLOCK, CachedEmbedder

class Killed(FakeEmbedder):
    def embed(self, texts, task):
        if len(self.embedded) == 3 * BLOCK:
            super().embed(texts[: BLOCK // 2], task)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().embed(texts, task)

CachedEmbedder(Killed(), Path(sys.argv[1])).embed([f"text number {i}" for i in range(1500)], "document")
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A folder, and the process that was killed while it filled it with vectors."""
    folder = tmp_path_factory.mktemp("killed")
    settings = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "TQDM_DISABLE": "1"}
    command = [sys.executable, "-c", KILLED_IN_THE_FOURTH_BLOCK, str(folder)]
    return folder, subprocess.run(command, env=settings, capture_output=True, text=True)


@pytest.mark.slow
def test_run_that_was_killed_resumes_where_it_stopped(killed):
    folder, process = killed
    assert process.returncode == -signal.SIGKILL, process.stderr
    texts = [f"text number {i}" for i in range(1500)]
    embedder = FakeEmbedder()
    vectors = CachedEmbedder(embedder, folder).embed(texts, "document")
    assert len(embedder.embedded) == 1500 - 3 * embedding.BLOCK
    np.testing.assert_allclose(vectors, FakeEmbedder().embed(texts, "document"), atol=1e-7)


@pytest.mark.slow
def test_no_progress_bar_is_drawn_when_tqdm_is_disabled(killed):
    assert "Encoding" not in killed[1].stderr

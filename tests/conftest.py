"""Every test has its own build folder and none of a person's settings."""

from pathlib import Path

import pytest
from fakes import tiny_encoder

from helpers.collection.collection import Collection, open_collection
from helpers.store.files import SETTINGS


@pytest.fixture(scope="session")
def converted(tmp_path_factory) -> Path:
    """Where the packaged models are kept once their weights are float32; each is converted once for all tests."""
    return tmp_path_factory.mktemp("packaged")


@pytest.fixture(autouse=True)
def _own_settings(tmp_path, monkeypatch, converted):
    monkeypatch.setenv("WORKBOOK_BUILD", str(tmp_path / "build"))
    monkeypatch.setattr("helpers.models.packaged.build_dir", lambda name: converted)
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def pydocs_collection(tmp_path_factory) -> Collection:
    """The default collection, read once; tests must not change it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBOOK_BUILD", str(tmp_path_factory.mktemp("pydocs")))
        return open_collection("pydocs")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """Where an encoder of two layers with random weights is stored, which costs a second once."""
    place = tmp_path_factory.mktemp("encoder")
    tiny_encoder(place)
    return place / "tiny"


@pytest.fixture(scope="session")
def tiny(tiny_folder):
    """That encoder; tests must not change it but a copy."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(tiny_folder), device="cpu")


@pytest.fixture
def naps(monkeypatch):
    """The seconds that would have been slept."""
    slept = []
    monkeypatch.setattr("time.sleep", slept.append)
    return slept

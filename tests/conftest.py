"""Every test has its own build folder and none of a person's settings."""

import pytest

from helpers.collection import Collection, open_collection

SETTINGS = (
    "COLLECTION",
    "LOG",
    "TEXT_COLUMN",
    "TRANSACTIONS",
    "ENCODER_MODEL",
    "RERANKER_MODEL",
    "LLM_MODEL",
    "LLM_MAX_CALLS",
    "LLM_MAX_USD",
    "OPENAI_API_KEY",
    "OPENAI_BASE_URL",
    "CO_API_KEY",
    "CO_API_URL",
    "CO_REQUESTS_PER_MINUTE",
)


@pytest.fixture(autouse=True)
def _own_settings(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBOOK_BUILD", str(tmp_path / "build"))
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def pydocs_collection(tmp_path_factory) -> Collection:
    """The default collection, read once; tests must not change it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBOOK_BUILD", str(tmp_path_factory.mktemp("pydocs")))
        return open_collection("pydocs")


@pytest.fixture
def naps(monkeypatch):
    """The seconds that would have been slept."""
    slept = []
    monkeypatch.setattr("time.sleep", slept.append)
    return slept

"""The default collection: the reference pages of the installed packages."""

import hashlib
import inspect
import json
import os
import pkgutil
import re
import statistics
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from helpers.collection.chunking import count_tokens
from helpers.collection.pydocs import read_pydocs

LIBRARIES = {"numpy", "pandas", "scipy", "sklearn", "matplotlib"}


@pytest.fixture(scope="module")
def passages(pydocs_collection) -> dict[str, str]:
    return pydocs_collection.corpus


@pytest.fixture(scope="module")
def pages(pydocs_collection) -> dict[str, str]:
    return pydocs_collection.pages


@pytest.fixture(scope="module")
def objects(passages) -> dict:
    """The object behind each id, found by import."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {name: pkgutil.resolve_name(name) for name in passages}


def digest(texts) -> str:
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()


def test_there_are_about_three_thousand_passages(passages):
    assert 2500 <= len(passages) <= 3200


def test_each_library_has_its_share(passages):
    counts = {library: sum(name.startswith(f"{library}.") for name in passages) for library in LIBRARIES}
    assert sum(counts.values()) == len(passages)
    assert min(counts.values()) >= 300


def test_two_reads_are_equal(passages, pages):
    assert read_pydocs() == (passages, pages) == read_pydocs()


def test_another_process_reads_the_same(passages, pages):
    code = (
        "import hashlib, json; from helpers.collection.pydocs import read_pydocs;"
        "print(hashlib.sha256(json.dumps(read_pydocs()).encode()).hexdigest())"
    )
    env = os.environ | {"PYTHONHASHSEED": "4711"}
    found = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == digest([passages, pages])


def test_passages_are_sorted_by_name(passages, pages):
    assert list(passages) == sorted(passages)
    assert list(pages) == sorted(pages)


def test_no_two_passages_have_one_text(passages):
    assert len(set(passages.values())) == len(passages)


def test_pages_have_the_ids_of_the_passages(passages, pages):
    assert pages.keys() == passages.keys()


def test_ids_lead_to_the_object_that_the_page_describes(objects, pages):
    wrong = [name for name, member in objects.items() if inspect.getdoc(member)[:200] != pages[name][:200]]
    assert wrong == []


def test_passages_begin_with_their_name(passages):
    assert [name for name, text in passages.items() if not re.match(rf"{re.escape(name)}(\(.*\))?: \w?", text)] == []


def test_passages_are_of_about_eighty_tokens_and_nearly_all_fit_the_encoder(passages):
    tokens = [count_tokens(text) for text in passages.values()]
    assert 60 <= statistics.median(tokens) <= 100
    assert sum(n > 254 for n in tokens) <= 3  # 256 with [CLS] and [SEP]


def test_nothing_private_is_in(passages):
    assert [name for name in passages if any(part.startswith("_") for part in name.split("."))] == []


def test_nothing_deprecated_is_in(passages, objects):
    def first_sentence(name: str) -> str:
        return passages[name].split(": ", 1)[1].split(". ")[0]

    assert [name for name in passages if "deprecated" in first_sentence(name).lower()] == []
    assert [name for name, member in objects.items() if hasattr(member, "__deprecated__")] == []


def test_nothing_for_testing_is_in(passages):
    assert [name for name in passages if {"testing", "tests", "conftest"} & set(name.split("."))] == []


def test_no_errors_and_warnings_are_in(objects):
    assert [n for n, member in objects.items() if inspect.isclass(member) and issubclass(member, BaseException)] == []


def test_no_text_holds_a_memory_address(passages):
    assert [name for name, text in passages.items() if re.search(r"0x[0-9a-fA-F]{6,}| at 0x", text)] == []


def test_no_text_holds_a_path_of_this_machine(passages, pages):
    places = [f"{place}/" for place in (sys.prefix, sys.base_prefix, Path.home(), Path.cwd()) if str(place) != "/"]
    found = [n for n in passages for place in places if place in passages[n] or place in pages[n]]
    assert found == []

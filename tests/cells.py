"""Notebooks in this process: their cells in one namespace.

So a collection of one's own takes seconds beside the libraries' start.
"""

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import get_args, get_origin

import matplotlib.pyplot as plt
import nbformat
import pandas as pd

from helpers.store.files import ROOT, fingerprint


class Notebook:
    """The cells of a notebook and the names that they have made so far."""

    def __init__(self, path: Path | str):
        self.cells = nbformat.read(ROOT / "notebooks" / path, as_version=4).cells
        self.names: dict = {"display": lambda *_, **__: None}

    def run(self, i: int, source: str | None = None) -> str:
        """What a cell prints, or other code in its place."""
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown):
            exec(source or self.cells[i].source, self.names)
        return shown.getvalue()

    def exercises(self) -> list[int]:
        """The places of the cells with something to fill in."""
        return [i for i, cell in enumerate(self.cells) if "exercise" in cell.metadata.get("tags", [])]

    def run_all(self) -> dict[int, str]:
        """{place: what it prints} of all code cells, top to bottom."""
        with pd.option_context("display.max_colwidth", 50, "display.precision", 6):  # the notebooks set these
            printed = {i: self.run(i) for i, cell in enumerate(self.cells) if cell.cell_type == "code"}
        plt.close("all")
        return printed


def course() -> list[Path]:
    """The notebooks that run on any collection, in order."""
    found = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    return [
        p for p in found if any("open_collection()" in c.source or "open_own()" in c.source for c in Notebook(p).cells)
    ]


class StandIn:
    """In the place of SmolLM2: answers in words of what it is asked about, at once and always the same."""

    name = "a stand-in for SmolLM2"

    def answer(self, conversations: Sequence, schema: type) -> list[dict]:
        """A schema field by field: the first of its values, or six words, three of them of the last message."""
        return [{f: _value(field.annotation, c) for f, field in schema.model_fields.items()} for c in conversations]

    def log_likelihoods(self, conversations: Sequence, texts: Sequence[str]) -> list[float]:
        """The share of the text's words that the conversation has, minus 3."""
        told = [set(c[-1]["content"].lower().split()) for c in conversations]
        asked = [text.lower().split() for text in texts]
        return [sum(w in words for w in text) / max(1, len(text)) - 3 for words, text in zip(told, asked, strict=True)]


def _value(kind: type, conversation: Sequence[dict[str, str]]) -> object:
    if get_origin(kind) is not None:
        return get_args(kind)[0]
    told = conversation[-1]["content"]
    words, key = told.split(), fingerprint(told)
    return " ".join([*words[len(words) // 2 :: 2][:3], *(f"word{key[i : i + 4]}" for i in (0, 4, 8))])

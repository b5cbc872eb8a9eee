"""Answers of models and services, kept on disk one by one, so that nothing is asked twice."""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any

from helpers.store.files import WorkbookError


class Answers(dict[str, Any]):
    """{key: answer} of a file with one JSON line ``[key, answer]`` each; of two with one key the later one counts.

    An answer is added with ``keep``, and is on disk when ``keep`` returns. A line that a crash cut short is ignored,
    and what comes after it is on a line of its own. Threads may keep answers at the same time.
    """

    def __init__(self, file: Path):
        super().__init__()
        self.file, self._lock = file, Lock()
        for line in file.read_bytes().splitlines() if file.is_file() else []:
            with contextlib.suppress(ValueError):  # a line that a crash cut short
                self.update([json.loads(line)])

    def keep(self, answers: Mapping[str, Any]) -> None:
        """Append the answers to the file; raises WorkbookError if it cannot be written."""
        lines = "".join("\n" + json.dumps(answer) for answer in answers.items())
        try:
            with self._lock:
                self.file.parent.mkdir(parents=True, exist_ok=True)
                with self.file.open("a", encoding="utf-8") as file:
                    file.write(lines)
                self.update(answers)
        except OSError as why:
            raise WorkbookError(f"Cannot write {self.file} ({why.strerror}): free some space and run again.") from why

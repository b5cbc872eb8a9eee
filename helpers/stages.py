"""Long work in stages: what a stage made is kept under the key of its inputs, so that a run that was cut off goes on."""

import json
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from helpers.store import WorkbookError, fingerprint, write_text


class Stages:
    """Finished stages as JSON files in ``folder``, one a name; each says what it did and how many seconds it took.

    ``made`` and ``kept`` name the stages that were worked on now and those that were there already, in order.
    """

    def __init__(self, folder: Path, say: Callable[[str], None] = print):
        self.folder, self.say = Path(folder), say
        self.made: list[str] = []
        self.kept: list[str] = []
        self._began = time.perf_counter()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WorkbookError(f"Cannot create {self.folder} ({error.strerror}): free some space.") from error

    def file(self, name: str) -> Path:
        """Where a stage is kept."""
        words = re.findall(r"[a-z0-9]+", name.lower())
        return self.folder / f"{'-'.join([*words, fingerprint(name)[:6]])}.json"  # two names may have the same words

    def run(
        self,
        name: str,
        inputs: Sequence[Any],
        make: Callable[[], Any],
        tell: Callable[[Any], str] = lambda value: "",
    ) -> Any:
        """What ``make()`` gives, anything JSON can hold; read from disk where the same inputs were worked on before.

        ``inputs`` are all that the value depends on, JSON or bytes. ``tell(value)`` is the rest of the progress line.
        """
        key, file = fingerprint(name, *inputs), self.file(name)
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = {}
        if isinstance(found, dict) and found.get("key") == key:
            if (
                name not in self.made and name not in self.kept
            ):  # a stage is told once a run, however often it is asked for
                self.kept.append(name)
                self._line(name, "kept", tell(found["value"]))
            return found["value"]
        start = time.perf_counter()
        text = json.dumps(make(), ensure_ascii=False)  # through JSON now, so that a first run sees what a second would
        took = time.perf_counter() - start
        write_text(file, f'{{"key": "{key}", "seconds": {took:.3f}, "value": {text}}}')
        self.made.append(name)
        value = json.loads(text)
        self._line(name, f"{took:.1f} s", tell(value))
        return value

    def seconds(self, name: str) -> float:
        """What a stage took when it was worked on; nan for one that never was."""
        try:
            return float(json.loads(self.file(name).read_text(encoding="utf-8"))["seconds"])
        except (OSError, ValueError, KeyError):
            return float("nan")

    def _line(self, name: str, took: str, told: str) -> None:
        elapsed = time.perf_counter() - self._began
        self.say(f"{elapsed:6.0f} s  {name:<34} {took:>8}  {told}".rstrip())

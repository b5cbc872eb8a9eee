"""Progress of long work: a bar where somebody watches, a few plain lines in a log, nothing where it is switched off.

A bar is redrawn in its place, in a terminal or under the cell of an open notebook. In a file or a pipe it would become
thousands of pieces of one endless line. There, work of more than ten seconds writes whole lines to stderr, at most one
every ten seconds, and shorter work writes nothing. With ``TQDM_DISABLE=1`` nothing is shown anywhere. ``make test``
sets it, and so do ``make run`` and ``make notebooks`` for the notebooks they execute, which are read only when they are
done.
"""

import os
import sys
import time
from collections.abc import Callable, Collection, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
SECONDS_BETWEEN = 10.0  # at least, between two plain lines


def watched() -> bool:
    """Whether stderr goes to a terminal or under a notebook's cell."""
    return sys.stderr.isatty() or type(sys.stderr).__module__.startswith("ipykernel")


class Lines:
    """Progress as plain lines, where no bar can be drawn; it has the methods of tqdm's bar that the course uses."""

    def __init__(self, total: int, what: str, unit: str, done: int, clock: Callable[[], float]):
        self.total, self.n, self.what, self.unit, self.clock = total, done, what, unit, clock
        self.done, self.note, self.closed = done, "", False
        self.began = self.told = clock()

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def update(self, n: int = 1) -> None:
        """Count ``n`` more items as done; write a line if the last one was written at least ten seconds ago."""
        self.n += n
        now = self.clock()
        if self.n < self.total and now - self.told >= SECONDS_BETWEEN:
            self.told = now
            left = (self.total - self.n) * (now - self.began) / max(1, self.n - self.done)
            share = min(99, round(100 * self.n / self.total))
            self._say(f"{self._so_far()}, {share} %, about {_span(left)} left")

    def set_postfix_str(self, note: str) -> None:
        """Set the note that all following lines end with."""
        self.note = f", {note}"

    def close(self) -> None:
        """Write a last line with the time taken, if it was ten seconds or more."""
        took = self.clock() - self.began
        if took >= SECONDS_BETWEEN and not self.closed:
            self._say(f"{self._so_far()} in {_span(took)}")
        self.closed = True

    def _so_far(self) -> str:
        units = self.unit if self.total == 1 else _plural(self.unit)
        return f"{self.total:,} {units}" if self.n == self.total else f"{self.n:,} of {self.total:,} {units}"

    def _say(self, words: str) -> None:
        print(f"{self.what}: {words}{self.note}", file=sys.stderr, flush=True)


def _plural(unit: str) -> str:
    return f"{unit[:-1]}ies" if unit.endswith("y") else f"{unit}s"


def _span(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def progress_bar(
    total: int, what: str, unit: str, done: int = 0, clock: Callable[[], float] = time.monotonic
) -> tqdm | Lines:
    """A bar or plain lines, for use as ``with progress_bar(total, "Encoding", "text") as bar``.

    ``bar.update(n)`` counts n more items as done, ``bar.set_postfix_str("dev nDCG@10 0.512")`` adds a note. ``done`` is
    the number of items that an earlier run finished before it was cut off.
    """
    disabled = bool(os.environ.get("TQDM_DISABLE"))
    if disabled or watched():
        return tqdm(total=total, initial=done, desc=what, unit=unit, leave=False, disable=disabled)
    return Lines(total, what, unit, done, clock)


def tracked(
    items: Collection[Item], what: str, unit: str, clock: Callable[[], float] = time.monotonic
) -> Iterator[Item]:
    """Yield the items one by one and show the progress."""
    with progress_bar(len(items), what, unit, clock=clock) as bar:
        for item in items:
            yield item
            bar.update(1)

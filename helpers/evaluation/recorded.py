"""Dated runs of services, committed so that readers without a key see their row too: what it was on that day."""

import datetime
import re
from pathlib import Path

from helpers.collection.collection import Collection
from helpers.retrieval.first_stages import Run
from helpers.store.evidence import RUNS, read_run, write_run
from helpers.store.files import WorkbookError, fingerprint

_NAME = re.compile(r"(?P<system>.+)\.(?P<day>\d{4}-\d\d-\d\d)")


def _key(collection: Collection, split: str) -> str:
    """A fingerprint of what the service was asked; judgments are not in it, for they may grow."""
    return fingerprint(collection.corpus, collection.asked(split))


def keep_run(collection: Collection, split: str, system: str, run: Run, day: str | None = None) -> Path:
    """Write a service's run into ``data/runs/`` with the day (YYYY-MM-DD, today by default); returns the file.

    The run should have the answers to all of ``collection.asked(split)``. Raises WorkbookError for a name that cannot
    be part of a file's.
    """
    if not re.fullmatch(r"[\w .+-]+", system):
        raise WorkbookError(f"{system!r} cannot be part of a file's name: use letters, digits, blanks, and . + -.")
    day = day or datetime.date.today().isoformat()
    file = RUNS / collection.name / split / f"{system}.{day}.tsv.gz"
    write_run(file, run, _key(collection, split))
    return file


def recorded_runs(collection: Collection, split: str) -> dict[str, Run]:
    """{"system (recorded on YYYY-MM-DD)": run} of the runs of services that were kept for a split, in order of names.

    A run that was edited, or of other passages or queries, is left out with a printed sentence.
    """
    runs: dict[str, Run] = {}
    for file in sorted((RUNS / collection.name / split).glob("*.tsv.gz")):
        named = _NAME.fullmatch(file.name.removesuffix(".tsv.gz"))
        try:
            if not named:
                raise WorkbookError(f"{file.name} is not named as system.YYYY-MM-DD.tsv.gz: rename it.")
            run = read_run(file, _key(collection, split), "keep_run, with the service's key")
            runs[f"{named['system']} (recorded on {named['day']})"] = run
        except WorkbookError as error:
            print(f"Left out: {error}")
    return runs

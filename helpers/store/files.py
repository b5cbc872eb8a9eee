"""The build folder, fingerprints, and files that are written whole or not at all."""

import hashlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "data"
# The environment variables by which a person chooses data, models, services and budgets: what results depend on.
# The tests and the committed notebooks are executed without them.
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
    "OPENAI_EMBEDDING_MODEL",
    "OPENAI_EMBEDDING_WIDTH",
    "CO_API_KEY",
    "CO_API_URL",
    "CO_REQUESTS_PER_MINUTE",
)


class WorkbookError(Exception):
    """An error that the user can put right; the message is one sentence that names the problem and the repair."""


def build_path(collection: str) -> Path:
    """Where everything made from one collection goes: ``build/<collection>``.

    ``WORKBOOK_BUILD`` names another place than ``build/`` in the workbook's folder.
    """
    return Path(os.environ.get("WORKBOOK_BUILD") or ROOT / "build") / collection


def build_dir(collection: str) -> Path:
    """The folder that ``build_path`` names, created on demand."""
    path = build_path(collection)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkbookError(
            f"Cannot create {path} ({error.strerror}): free some space or set WORKBOOK_BUILD to a folder "
            "you can write to."
        ) from error
    return path


def fingerprint(*parts: Any) -> str:
    """16 hex digits that change when any part does; parts are anything JSON can hold, or bytes."""
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else json.dumps(part, ensure_ascii=False).encode()
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()[:16]


def write_text(path: Path, text: str) -> None:
    """Write a file so that a crash leaves either the old one or the new one, never half of it."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise WorkbookError(f"Cannot write {path} ({error.strerror}): free some space and run again.") from error


def exit_code(command: Callable[[], None]) -> int:
    """Run a command and return its exit code: 0 if all went well, 1 after a WorkbookError, 130 after an interrupt.

    In the last two cases one sentence goes to stderr.
    """
    try:
        command()
    except WorkbookError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped; what was made is kept, run again to go on.", file=sys.stderr)
        return 130
    return 0

"""Storage for all rooms: files written whole or not at all, stages and evidence with keys, progress, the error type."""

from helpers.store.files import DATA, WorkbookError, build_dir, write_text

__all__ = ["DATA", "WorkbookError", "build_dir", "write_text"]

"""Storage for all rooms: whole-or-nothing files, rows, kept answers, stages, evidence, progress, the error type."""

from helpers.store.files import DATA, WorkbookError, build_dir, write_text

__all__ = ["DATA", "WorkbookError", "build_dir", "write_text"]

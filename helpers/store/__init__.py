"""Where things are kept: files that are whole or not there, stages and evidence with their keys, progress, the error type."""

from helpers.store.files import DATA, WorkbookError, build_dir, write_text

__all__ = ["DATA", "WorkbookError", "build_dir", "write_text"]

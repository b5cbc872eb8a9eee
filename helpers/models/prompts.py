"""Prompts are files that a person can read and change: data/prompts/*.md."""

import re
from pathlib import Path
from string import Template

from helpers.store.files import DATA, WorkbookError, fingerprint


class Prompt:
    """A prompt from ``data/prompts/<name>.md``: messages with ``$fields``, headed system, user or assistant.

    Raises WorkbookError when the file is missing or has another form.
    """

    def __init__(self, name: str, folder: Path = DATA / "prompts"):
        self.path = folder / f"{name}.md"
        if not self.path.is_file():
            raise WorkbookError(
                f"There is no prompt {self.path.name} in {folder.name}/: restore it or correct the name."
            )
        try:
            text = self.path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            raise WorkbookError(f"{self.path.name} is not UTF-8 text: save it in that encoding.") from None
        before, *parts = re.split(r"(?m)^# (system|user|assistant)\s*$", text)
        if before.strip():
            raise WorkbookError(
                f"{self.path.name} begins with text that no message holds: "
                "put a heading '# system' or '# user' above it."
            )
        self.messages = [(role, Template(text.strip())) for role, text in zip(parts[::2], parts[1::2], strict=True)]
        if not self.messages or self.messages[-1][0] != "user":
            raise WorkbookError(f"{self.path.name} must end with a message under the heading '# user'.")

    @property
    def key(self) -> str:
        """Changes whenever the prompt's text does."""
        return fingerprint([(role, template.template) for role, template in self.messages])

    def fill(self, **fields: str) -> list[dict[str, str]]:
        """The messages with the fields put in; raises WorkbookError when one is missing."""
        try:
            return [{"role": role, "content": template.substitute(fields)} for role, template in self.messages]
        except KeyError as error:
            raise WorkbookError(f"{self.path.name} asks for ${error.args[0]}, which was not given.") from None
        except ValueError:
            raise WorkbookError(
                f"{self.path.name} has a lone dollar sign: write $$ for one that is no field."
            ) from None

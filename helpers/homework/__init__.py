"""``make homework``: from a person's data to a decision, in steps that go on where they stopped."""

from helpers.homework.data import open_own

__all__ = ["open_own"]

"""``make homework``: from a person's own data to a decision, in steps that continue where they stopped."""

from helpers.homework.data import open_own

__all__ = ["open_own"]

"""What a check may find."""

from __future__ import annotations


class Finding(Exception):
    """Something is not as it must be.

    Args:
        reason: what was seen.
        remedy: what to do.
    """

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


class Failed(Finding):
    """The worker breaks a promise on which others stand."""


class Warned(Finding):
    """It runs all the same, but a user will miss something."""


class NotRun(Finding):
    """It could not be checked."""

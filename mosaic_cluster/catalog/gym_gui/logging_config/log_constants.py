"""Any ``LOG_*`` name is a constant here: what it stands for elsewhere is not known, its name says enough."""

import logging
from dataclasses import dataclass


@dataclass(frozen=True)
class LogConstant:
    """A log message's identity.

    Attributes:
        code: its name.
        level: of :mod:`logging`.
        message: default text.
    """

    code: str
    level: int = logging.INFO
    message: str = ""


def __getattr__(name: str) -> LogConstant:
    if not name.startswith("LOG_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    level = logging.INFO
    for word, value in (("ERROR", logging.ERROR), ("FAIL", logging.ERROR), ("WARN", logging.WARNING)):
        if word in name:
            level = value
            break
    return LogConstant(code=name, level=level, message=name[4:].replace("_", " ").lower())

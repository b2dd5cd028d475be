"""Logging by constants, as far as workers use it."""

import logging
from typing import Any, Mapping, Optional


def log_constant(
    logger: logging.Logger,
    constant: Any,
    *,
    message: Optional[str] = None,
    extra: Optional[Mapping[str, Any]] = None,
    exc_info: Any = None,
) -> None:
    """Log a constant's message at its level, with its code and what belongs to it.

    Args:
        logger: where to.
        constant: an object with ``code``, ``level`` and ``message``, or text.
        message: instead of the constant's own.
        extra: shown after the message.
        exc_info: as in :mod:`logging`.
    """
    level = getattr(constant, "level", logging.INFO)
    if isinstance(level, str):
        level = getattr(logging, level.upper(), logging.INFO)
    code = getattr(constant, "code", constant)
    text = message or getattr(constant, "message", "")
    shown = " ".join(f"{key}={value}" for key, value in (extra or {}).items())
    logger.log(level, "%s", " | ".join(part for part in (str(code), str(text), shown) if part), exc_info=exc_info)

"""From what a model said to an action of the game."""

from __future__ import annotations

import re
from collections.abc import Sequence

LONGEST_COMMAND = 120
"""Characters of a free-text action; more is no command but an explanation."""

_HIDDEN = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL | re.IGNORECASE)
_TAGGED = re.compile(r"<action>\s*(.*?)\s*(?:</action>|<|\Z)", re.DOTALL | re.IGNORECASE)
_THOUGHT = re.compile(r"<thought>\s*(.*?)\s*(?:</thought>|<action>|\Z)", re.DOTALL | re.IGNORECASE)
_LABELLED = re.compile(r"^[\s>#*_`-]*(?:final\s+)?action[*_`]*\s*[:=]\s*(.+?)\s*$", re.MULTILINE | re.IGNORECASE)
_DECORATION = " \t\r\n\"'`*_.,;:!()[]{}<>#-"


def visible(reply: str) -> str:
    """A reply without what a reasoning model wrote between ``<think>`` and ``</think>``."""
    return _HIDDEN.sub("", reply).strip()


def tagged(reply: str) -> str | None:
    """What stands in the last ``<action>`` of a reply; an unclosed one counts, for answers that were cut off."""
    found = _TAGGED.findall(visible(reply))
    return found[-1] if found else None


def thought(reply: str) -> str:
    """What stands in ``<thought>``, or before ``<action>`` where that was forgotten."""
    text = visible(reply)
    found = _THOUGHT.findall(text)
    return found[0] if found else re.split(r"<action>", text, maxsplit=1, flags=re.IGNORECASE)[0].strip()


def labelled(reply: str) -> str | None:
    """What follows the last ``Action:`` at the beginning of a line."""
    found = _LABELLED.findall(visible(reply))
    return found[-1] if found else None


def before_label(reply: str) -> str:
    """What stands before the last ``Action:``."""
    text = visible(reply)
    found = list(_LABELLED.finditer(text))
    return (text[: found[-1].start()] if found else text).strip()


def bare(reply: str) -> str | None:
    """A reply that is just an action: its only line, or else its last one."""
    lines = [line for line in visible(reply).splitlines() if line.strip()]
    return lines[-1].strip() if lines else None


def match(words: str | None, actions: Sequence[str]) -> str | None:
    """The action that words name.

    Case, quotes, markdown, underscores for spaces and a leading ``Action:`` do not matter; anything else does: an
    answer that merely mentions an action does not name it.

    Args:
        words: ``None`` or empty names nothing.
        actions: all there are; empty: any single line of at most 120 characters is one.
    """
    if words is None or not words.strip():
        return None
    if words in actions:  # names of punctuation, such as NetHack's "."
        return words
    if words.strip() in actions:
        return words.strip()
    label = _LABELLED.match(words)
    if label:
        words = label.group(1)
    if not actions:
        line = words.strip().strip("\"'`*").strip()
        return line if line and "\n" not in line and len(line) <= LONGEST_COMMAND else None
    wanted = _plain(words)
    for action in actions:
        if _plain(action) == wanted and wanted:
            return action
    letters = words.strip().strip("\"'`* ")
    return letters if letters in actions else None


def _plain(text: str) -> str:
    return " ".join(text.strip(_DECORATION).lower().replace("_", " ").split())


__all__ = ["LONGEST_COMMAND", "bare", "before_label", "labelled", "match", "tagged", "thought", "visible"]

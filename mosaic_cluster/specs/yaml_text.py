"""YAML as a person means it: the rules of YAML 1.2, safe, and no key twice.

YAML 1.1, which PyYAML speaks by itself, reads ``1e-3`` as text, ``no`` as false, ``010`` as 8, ``1:30`` as
90, and the last of two equal keys silently. Kept from 1.1: ``_`` between digits (``150_000``), and merge keys
(``<<``).
"""

from __future__ import annotations

import math
import re
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode
from yaml.reader import ReaderError

from mosaic_cluster.specs.problems import shown

_TAG = "tag:yaml.org,2002:"
_DIGITS = r"[0-9]+(?:_[0-9]+)*"
_INTEGER = re.compile(rf"^(?:[-+]?{_DIGITS}|0o[0-7_]+|0x[0-9a-fA-F_]+|0b[01_]+)$")
_FLOAT = re.compile(
    rf"^[-+]?(?:(?:\.{_DIGITS}|{_DIGITS}(?:\.(?:{_DIGITS})?)?)(?:[eE][-+]?[0-9]+)?|\.(?:inf|Inf|INF))$"
    r"|^\.(?:nan|NaN|NAN)$"
)


class SpecLoader(yaml.SafeLoader):
    """Safe loader with the scalars of YAML 1.2.

    Attributes:
        repeated: one message for each key that stands twice in a mapping.
    """

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own way to say it

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.repeated: list[str] = []
        self._seen: dict[int, MappingNode] = {}

    def flatten_mapping(self, node: MappingNode) -> None:
        """Note keys that stand twice, then expand merge keys, which adds theirs to the mapping's own."""
        if id(node) not in self._seen:
            self._seen[id(node)] = node  # kept, so that its id is not given to another
            self._note_repeated(node)
        super().flatten_mapping(node)

    def _note_repeated(self, node: MappingNode) -> None:
        first: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, ScalarNode):
                continue
            line = key.start_mark.line + 1
            name = (key.tag, key.value)
            if name in first and not key.tag.endswith(":merge"):
                twice = f"the key {key.value!r} is there twice, first in line {first[name]}; keep one"
                self.repeated.append(f"{place(key.start_mark)}: {twice}")
            first.setdefault(name, line)


def place(mark: Any) -> str:
    """Where a mark is, counted from 1."""
    return f"line {mark.line + 1}, column {mark.column + 1}"


def _integer(loader: SpecLoader, node: ScalarNode) -> int:
    text = str(loader.construct_scalar(node)).replace("_", "")
    try:
        return int(text, 0 if text[:2] in ("0o", "0x", "0b") else 10)
    except ValueError:
        raise _no_number(node) from None


def _float(loader: SpecLoader, node: ScalarNode) -> float:
    text = str(loader.construct_scalar(node)).replace("_", "").lower()
    if text.endswith(".inf"):
        return -math.inf if text.startswith("-") else math.inf
    try:
        return math.nan if text == ".nan" else float(text)
    except ValueError:
        raise _no_number(node) from None


def _no_number(node: ScalarNode) -> yaml.constructor.ConstructorError:
    message = f"{shown(node.value)} is not a number"
    return yaml.constructor.ConstructorError(None, None, message, node.start_mark)


def _other(loader: SpecLoader, node: Node) -> Any:
    raise yaml.constructor.ConstructorError(None, None, f"the tag {node.tag!r} is not allowed", node.start_mark)


for _name, _pattern, _first in (
    ("bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF"),
    ("int", _INTEGER, "-+0123456789"),
    ("float", _FLOAT, "-+0123456789."),
    ("null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    ("merge", re.compile(r"^(?:<<)$"), "<"),
):
    SpecLoader.add_implicit_resolver(_TAG + _name, _pattern, list(_first))
SpecLoader.add_constructor(_TAG + "int", _integer)
SpecLoader.add_constructor(_TAG + "float", _float)
SpecLoader.add_constructor(None, _other)


def load_yaml(text: str) -> tuple[Any, list[str]]:
    """Read YAML.

    Returns:
        The value, and one message for each key that stands twice.

    Raises:
        ValueError: it is not YAML; the message says where and why.
    """
    try:
        loader = SpecLoader(text)
        try:
            return loader.get_single_data(), loader.repeated
        finally:
            loader.dispose()
    except ReaderError as error:
        character = f"0x{ord(error.character):02x}" if isinstance(error.character, str) else error.character
        raise ValueError(
            f"is not text (character {character} at {error.position}); a spec is YAML or JSON text"
        ) from None
    except yaml.MarkedYAMLError as error:
        where = f"{place(error.problem_mark)}: " if error.problem_mark else ""
        raise ValueError(where + _in_plain_words(error)) from None
    except yaml.YAMLError as error:
        raise ValueError(f"is not YAML: {error}") from None


def _in_plain_words(error: yaml.MarkedYAMLError) -> str:
    problem = (error.problem or "this is not YAML").strip()
    if "'\\t'" in problem:
        return "a tab; YAML indents with spaces only"
    if "mapping values are not allowed" in problem:
        return "a colon that cannot be here; put text that holds ': ' in quotes, or check the indentation"
    if "unhashable key" in problem:
        return "a key must be text, not a list or a mapping; put text that holds { or [ in quotes"
    if "another document" in problem:
        return "a second document begins (---); a file holds one spec"
    start = re.search("found character (.+) that cannot start any token", problem)
    if start is not None:
        return f"text cannot start with {start[1]}; put it in quotes"
    if not error.context:
        return problem
    begun = f", begun in line {error.context_mark.line + 1}" if error.context_mark else ""
    return f"{problem} ({error.context}{begun})"

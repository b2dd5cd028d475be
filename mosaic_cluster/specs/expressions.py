"""Small expressions over a configuration, as in ``when`` and ``constraints``: ``batch_size <= num_steps * num_envs``.

Arithmetic, comparisons, ``and``, ``or``, ``not``, ``in`` and a few functions; :mod:`simpleeval` evaluates them,
so that a spec can run no code.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from simpleeval import EvalWithCompoundTypes, InvalidExpression

FUNCTIONS = {
    "abs": abs,
    "ceil": math.ceil,
    "floor": math.floor,
    "len": len,
    "log": math.log,
    "log2": math.log2,
    "log10": math.log10,
    "max": max,
    "min": min,
    "round": round,
    "sqrt": math.sqrt,
}
_NAMES = {"true": True, "false": False, "null": None}


class ExpressionError(ValueError):
    """An expression cannot be read, or has no value for these names."""


@dataclass(frozen=True)
class Expression:
    """An expression as written.

    Attributes:
        text: as a person wrote it.
        names: dotted names of the settings it looks at, in order.
    """

    text: str
    names: tuple[str, ...]

    @classmethod
    def read(cls, text: str) -> Expression:
        """Check the syntax.

        Raises:
            ExpressionError: it is no expression, or calls something that is not offered.
        """
        names: dict[str, None] = {}
        for node in _top_names(_tree(text)):
            name = _dotted(node)
            if name is not None and name not in _NAMES:
                names[name] = None
        return cls(text, tuple(names))

    def evaluate(self, values: Mapping[str, Any]) -> Any:
        """Its value.

        Args:
            values: by dotted name.

        Raises:
            ExpressionError: a name has no value, or the operation does not go with the values.
        """
        missing = [name for name in self.names if name not in values]
        if missing:
            raise ExpressionError(f"{self.text!r} needs {', '.join(missing)}, which has no value here")
        nested: dict[str, Any] = dict(_NAMES)
        for name in self.names:
            put(nested, name, values[name])
        try:
            return EvalWithCompoundTypes(names=nested, functions=dict(FUNCTIONS)).eval(
                self.text, previously_parsed=_tree(self.text).body
            )
        except (InvalidExpression, ArithmeticError, TypeError, ValueError, KeyError, AttributeError) as error:
            raise ExpressionError(f"{self.text!r} cannot be worked out: {error}") from error

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether it is true of ``values``; see :meth:`evaluate`."""
        return bool(self.evaluate(values))


def put(nested: dict[str, Any], path: str, value: Any) -> None:
    """Set the value at a dotted path, making the mappings on the way."""
    *folders, last = path.split(".")
    for folder in folders:
        inner = nested.get(folder)
        nested[folder] = inner = dict(inner) if isinstance(inner, Mapping) else {}
        nested = inner
    nested[last] = value


@lru_cache(maxsize=1024)
def _tree(text: str) -> ast.Expression:
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        what = error.msg if isinstance(error, SyntaxError) else str(error)
        raise ExpressionError(
            f"{text!r} is not an expression ({what}); write for example num_steps * num_envs >= 512"
        ) from None
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and not (isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS):
            raise ExpressionError(f"{text!r} calls something; possible are {', '.join(FUNCTIONS)}")
        if isinstance(node, ast.Lambda | ast.ListComp | ast.DictComp | ast.SetComp | ast.GeneratorExp | ast.NamedExpr):
            raise ExpressionError(f"{text!r} is more than arithmetic and comparisons")
    return tree


def _top_names(node: ast.AST) -> Iterator[ast.AST]:
    """Names, and whole chains of attributes, but not what is called."""
    if isinstance(node, ast.Attribute | ast.Name):
        yield node
        return
    for child in ast.iter_child_nodes(node):
        if not (isinstance(node, ast.Call) and child is node.func):
            yield from _top_names(child)


def _dotted(node: ast.AST) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        inner = _dotted(node.value)
        return None if inner is None else f"{inner}.{node.attr}"
    return None

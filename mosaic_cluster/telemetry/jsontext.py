"""JSON as it comes on a worker's stdout: read leniently, written strictly.

What goes into a column of JSON text is always valid JSON and plain ASCII where we wrote it: NaN and the
infinities become the strings ``"NaN"``, ``"Infinity"``, ``"-Infinity"``, as the contract's emitter writes them.
"""

from __future__ import annotations

import codecs
import json
import math
import secrets
from typing import Any

import orjson

NUMBER_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
WHITESPACE = " \t\r\n"

_BYTES_AS_JSON = "mosaic.bytes_as_json"
_strict = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


def _escape_bytes(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    bad = error.object[error.start : error.end]
    return "".join(f"\\\\x{byte:02x}" for byte in bad), error.end


codecs.register_error(_BYTES_AS_JSON, _escape_bytes)


def to_text(raw: bytes) -> str:
    r"""UTF-8 text of a line that should be JSON; a byte that is not UTF-8 becomes ``\xff`` inside its string."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("utf-8", _BYTES_AS_JSON)


def to_raw_text(raw: bytes) -> str:
    r"""Text of any line at all; a byte that is not UTF-8 becomes ``\xff``."""
    return raw.decode("utf-8", "backslashreplace")


class ObjectReader:
    """Parses JSON objects, many at a time: one call of the C scanner for a whole chunk of lines."""

    def __init__(self) -> None:
        self.saw_literal = False
        self._scan = json.JSONDecoder(parse_constant=self._constant).scan_once  # type: ignore[attr-defined]
        # Stands between two texts, so that no text can pose as two, nor two as one.
        self._mark = secrets.randbits(62)
        self._glue = f",{self._mark},\n"

    def read(self, text: str) -> dict[str, Any]:
        """Parse one object, with no white space round it; ``saw_literal`` then says if NaN stood in it.

        Raises:
            ValueError, RecursionError: it is not one JSON object.
        """
        self.saw_literal = False
        try:
            value, end = self._scan(text, 0)
        except StopIteration as error:
            raise ValueError(f"no JSON value at character {error.value}") from None
        if end != len(text) or type(value) is not dict:
            raise ValueError(f"not one JSON object: it ends at character {end} of {len(text)}")
        return value

    def read_many(self, texts: list[str]) -> list[dict[str, Any]] | None:
        """Parse one object from each text; ``None`` if any needs :meth:`read` and its care."""
        self.saw_literal = False
        joined = f"[{self._glue.join(texts)}]"
        try:
            values, end = self._scan(joined, 0)
        except (ValueError, RecursionError, StopIteration):
            return None
        if self.saw_literal or end != len(joined):
            return None
        return self._apart(values, len(texts))

    def read_quickly(self, texts: list[str]) -> list[dict[str, Any]] | None:
        """As :meth:`read_many`, twice as fast or more; but integers that 64 bits do not hold come as floats.

        These are at least 2**63 in size: whoever uses it looks for such.
        """
        try:
            values = orjson.loads(f"[{self._glue.join(texts)}]")
        except ValueError:
            return None
        return self._apart(values, len(texts))

    def _apart(self, values: list[Any], count: int) -> list[dict[str, Any]] | None:
        """Objects between marks; ``None`` if there is anything else."""
        objects: list[dict[str, Any]] = values[::2]
        if (
            len(objects) != count
            or values[1::2].count(self._mark) != count - 1
            or not all(type(item) is dict for item in objects)
        ):
            return None
        return objects

    def _constant(self, word: str) -> float:
        self.saw_literal = True
        return NUMBER_WORDS[word]


def dumps(value: Any) -> str:
    """Compact strict JSON text.

    Raises:
        RecursionError: nested too deeply.
    """
    kind = type(value)
    if kind is int:
        return str(value)
    try:
        return _strict.encode(value)
    except ValueError:
        return _strict.encode(_named_numbers(value))


def _named_numbers(value: Any) -> Any:
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, dict):
        return {key: _named_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_named_numbers(item) for item in value]
    return value

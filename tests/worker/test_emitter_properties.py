"""Any nested junk becomes a line of strict JSON."""

from __future__ import annotations

import enum
import io
import pathlib
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mosaic_cluster.worker import TelemetryEmitter
from mosaic_cluster.worker._plain import to_plain


class Shade(enum.Enum):
    DARK = object()
    LIGHT = "light"


class Nasty:
    """Everything it can do raises."""

    def __repr__(self) -> str:
        raise ValueError("no")

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("no")


class Liar:
    """Says that it is what it is not."""

    def tolist(self) -> Any:
        return Liar()

    def to_dict(self) -> Any:
        return [self, {"self": self}]


def _object_array(items: list[Any]) -> Any:
    array = np.empty(len(items) + 1, dtype=object)  # np.array() would look into the items
    for index, item in enumerate(items):
        array[index] = item
    return array


def _circular(items: list[Any]) -> list[Any]:
    items.append({"again": items})
    return items


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(alphabet=st.characters(), max_size=8),
    st.binary(max_size=8),
    st.complex_numbers(),
    st.decimals(),
    st.fractions(),
    st.datetimes(),
    st.timedeltas(),
    st.uuids(),
    st.sampled_from(list(Shade)),
    st.builds(Nasty),
    st.builds(Liar),
    st.builds(object),
    st.sampled_from([int, np.ndarray, print, ..., Nasty, np.float32, slice(1), range(3), pathlib.Path("a")]),
    st.floats(width=32).map(np.float32),
    st.floats().map(np.float64),
    st.integers(-128, 127).map(np.int8),
    st.lists(st.floats(width=32), max_size=3).map(lambda items: np.array(items, dtype=np.float32)),
    st.sampled_from([5000]).map(lambda digits: 10**digits),
    st.just("\ud800"),
)
keys = st.one_of(
    st.text(max_size=3),
    st.integers(-3, 3),
    st.booleans(),
    st.none(),
    st.floats(),
    st.binary(max_size=2),
    st.tuples(st.integers(0, 2), st.text(max_size=1)),
    st.sampled_from([*Shade, Decimal("1.5"), Fraction(1, 3), np.int64(7), Nasty]),  # equal ones compare badly,
)
hashable = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.binary(max_size=3))
junk = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(keys, inner, max_size=4),
        st.sets(hashable, max_size=4),
        st.lists(inner, max_size=2).map(_object_array),
        st.lists(inner, max_size=3).map(_circular),
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(payload=st.one_of(st.dictionaries(keys, junk, max_size=5), junk), constant=st.one_of(st.none(), junk))
def test_any_payload_is_a_line_of_strict_json(payload: Any, constant: Any, strict: Any) -> None:
    sink = io.StringIO()
    TelemetryEmitter("run", sink=sink).heartbeat(payload, constant=constant)
    text = sink.getvalue()
    assert text.endswith("}\n")
    assert text.count("\n") == 1
    line = strict(text)
    assert line["event"] == "heartbeat"
    assert line["run_id"] == "run"
    assert isinstance(line["payload"], dict)


@settings(max_examples=100, deadline=None)
@given(fields=st.dictionaries(st.text(alphabet="abcdef", min_size=1, max_size=3).map(str), junk, max_size=4))
def test_any_episode_is_a_line_of_strict_json(fields: Any, strict: Any) -> None:
    sink = io.StringIO()
    TelemetryEmitter("run", sink=sink).episode(**fields)
    line = strict(sink.getvalue())
    assert line["type"] == "episode"
    assert set(line) == {*fields, "type", "run_id", "timestamp"}


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(), inner, max_size=4)),
    max_leaves=15,
)


@settings(max_examples=150, deadline=None)
@given(payload=st.dictionaries(st.text(), json_values, max_size=5))
def test_plain_values_come_back_as_they_were(payload: Any, strict: Any) -> None:
    sink = io.StringIO()
    TelemetryEmitter("run", sink=sink).heartbeat(payload)
    assert strict(sink.getvalue())["payload"] == payload
    assert to_plain(payload) == payload

"""Sizes, durations and counts: what is read, what is refused, and the way back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mosaic_cluster.units import (
    format_bytes,
    format_count,
    format_duration,
    format_number,
    parse_bytes,
    parse_duration,
)

GIB = 1024**3
SIZES_VALID = "give bytes, or a number with a unit (KiB, MiB, GiB, TiB; kB, MB, GB, TB), e.g. 10GiB or 8000MB"
DURATIONS_VALID = "give seconds, or numbers with the units w, d, h, m, s, ms, e.g. 30m, 1h30m or 2d"


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("10GiB", 10 * GIB),
        ("10 gib", 10 * GIB),
        ("10Gi", 10 * GIB),
        ("8000MB", 8_000_000_000),
        ("8_000 MB", 8_000_000_000),
        ("1.5GiB", 3 * GIB // 2),
        (".5KiB", 512),
        ("1.0001KiB", 1025),
        ("4096", 4096),
        ("0", 0),
        (4096, 4096),
        (1e9, 1_000_000_000),
        ("7EiB", 7 * 1024**6),
    ],
)
def test_sizes_are_read(text: str | float, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize(
    ("given_value", "message"),
    [
        ("ten", f"'ten' is not a size: {SIZES_VALID}"),
        ("", f"'' is not a size: {SIZES_VALID}"),
        ("-1GiB", f"'-1GiB' is negative: {SIZES_VALID}"),
        (-1, f"-1 is negative: {SIZES_VALID}"),
        ("10 parsecs", f"'10 parsecs' has the unknown unit 'parsecs': {SIZES_VALID}"),
        ("1.2.3GB", f"'1.2.3GB' is not a size: {SIZES_VALID}"),
        ("10GiB extra", f"'10GiB extra' is not a size: {SIZES_VALID}"),
        (1.5, f"1.5 is not a whole number of bytes: {SIZES_VALID}"),
        (float("nan"), f"nan is not a whole number of bytes: {SIZES_VALID}"),
        (float("inf"), f"inf is not a whole number of bytes: {SIZES_VALID}"),
        (True, f"True is not a size: {SIZES_VALID}"),
        ("9EiB", f"'9EiB' is larger than any machine: {SIZES_VALID}, at most 8EiB less one byte"),
        ("x" * 500, f"'{'x' * 57}...' is not a size: {SIZES_VALID}"),
    ],
)
def test_what_is_no_size_is_refused(given_value: str | float, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_bytes(given_value)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30m", 1800.0),
        ("1h30m", 5400.0),
        ("1h 30m", 5400.0),
        ("2d", 172800.0),
        ("1w", 604800.0),
        ("2 days 3 hours", 183600.0),
        ("1.5h", 5400.0),
        ("250ms", 0.25),
        ("1m0.5s", 60.5),
        ("90", 90.0),
        (90, 90.0),
        (0.5, 0.5),
        (0, 0.0),
    ],
)
def test_durations_are_read(text: str | float, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("given_value", "message"),
    [
        ("soon", f"'soon' is not a duration: {DURATIONS_VALID}"),
        ("", f"'' is not a duration: {DURATIONS_VALID}"),
        ("  ", f"'  ' is not a duration: {DURATIONS_VALID}"),
        ("1:30", f"'1:30' is not a duration: {DURATIONS_VALID}"),
        ("-5m", f"'-5m' is negative: {DURATIONS_VALID}"),
        (-5, f"-5 is negative: {DURATIONS_VALID}"),
        ("5 fortnights", f"'5 fortnights' has the unknown unit 'fortnights': {DURATIONS_VALID}"),
        ("30m1h", f"'30m1h' does not name its units largest first, each once: {DURATIONS_VALID}"),
        ("1h1h", f"'1h1h' does not name its units largest first, each once: {DURATIONS_VALID}"),
        (float("nan"), f"nan is longer than anything lasts: {DURATIONS_VALID}"),
        (10**400, f"1{'0' * 59} is longer than anything lasts: {DURATIONS_VALID}"),
        (False, f"False is not a duration: {DURATIONS_VALID}"),
    ],
)
def test_what_is_no_duration_is_refused(given_value: str | float, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_duration(given_value)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0B"),
        (1023, "1023B"),
        (1024, "1KiB"),
        (10 * GIB, "10GiB"),
        (3 * GIB // 2, "1.5GiB"),
        (GIB - 1, "1GiB"),
        (512 * 1024**2, "512MiB"),
    ],
)
def test_sizes_are_printed(count: int, text: str) -> None:
    assert format_bytes(count) == text


def test_a_size_rounded_down_never_promises_more() -> None:
    assert format_bytes(16 * GIB - 1, down=True) == "15.99GiB"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.0004, "0.4ms"),
        (0.25, "250ms"),
        (1.0, "1s"),
        (1.5, "1.5s"),
        (59.9996, "1m"),
        (60.5, "1m0.5s"),
        (5400, "1h30m"),
        (183600, "2d3h"),
        (90061, "1d1h1m1s"),
    ],
)
def test_durations_are_printed(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1k"),
        (12_340, "12.3k"),
        (150_000, "150k"),
        (999_600, "1M"),
        (1_500_000, "1.5M"),
        (-2500, "-2.5k"),
    ],
)
def test_counts_are_printed(count: int, text: str) -> None:
    assert format_count(count) == text


def test_numbers_are_printed_without_needless_zeros() -> None:
    assert [format_number(value) for value in (2.0, 0.5, 10, 0.4167, 0)] == ["2", "0.5", "10", "0.4167", "0"]


@given(st.integers(0, 2**62))
def test_a_printed_size_reads_back_within_half_a_percent(count: int) -> None:
    assert abs(parse_bytes(format_bytes(count)) - count) <= count * 0.005
    assert parse_bytes(format_bytes(count, down=True)) <= count


@given(st.integers(1, 1023), st.sampled_from(["B", "KiB", "MiB", "GiB", "TiB", "PiB"]))
def test_a_round_size_reads_back_exactly(number: int, unit: str) -> None:
    text = f"{number}{unit}"
    assert format_bytes(parse_bytes(text)) == text


@given(st.integers(0, 10**10))
def test_whole_seconds_read_back_exactly(seconds: int) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.floats(0, 1e8))
def test_a_printed_duration_reads_back_to_the_millisecond(seconds: float) -> None:
    assert abs(parse_duration(format_duration(seconds)) - seconds) <= 0.00051


@given(st.floats(0, 1e18))
def test_a_printed_count_is_within_half_a_percent(count: float) -> None:
    text = format_count(count)
    factor = 1000 ** " kMGTPE".index(text[-1]) if text[-1].isalpha() else 1
    assert abs(float(text.rstrip("kMGTPE")) * factor - count) <= max(0.5, count * 0.005)


@given(st.text("0123456789._- smhdwMGiBk", max_size=70))
def test_any_text_is_read_or_refused_with_an_example(text: str) -> None:
    assert refusal_of(parse_bytes, text) is None or "e.g. 10GiB" in str(refusal_of(parse_bytes, text))
    assert refusal_of(parse_duration, text) is None or "e.g. 30m" in str(refusal_of(parse_duration, text))


def refusal_of(parse: Callable[[str], float], text: str) -> ValueError | None:
    try:
        assert parse(text) >= 0
    except ValueError as error:
        return error
    return None

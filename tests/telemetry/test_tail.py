"""Following a growing file."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from mosaic_cluster.telemetry import LogTail

texts = st.lists(st.binary(max_size=6), max_size=12).map(b"".join)


@given(text=texts, cuts=st.lists(st.integers(0, 80), max_size=6), size=st.integers(1, 9))
def test_any_growth_gives_the_same_lines(text: bytes, cuts: list[int], size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "log")
        tail, found = LogTail(path), []
        for cut in sorted(cuts):
            path.write_bytes(text[:cut])
            found += tail.read(size)
        path.write_bytes(text)
        while more := tail.read(size, final=True):
            found += more
        assert tail.offset == len(text)
    expected, offset = [], 0
    for line in text.split(b"\n"):
        expected.append((offset, line))
        offset += len(line) + 1
    if expected[-1][1] == b"":
        expected.pop()
    assert found == expected


def test_no_file_yet(tmp_path: Path) -> None:
    tail = LogTail(tmp_path / "none")
    assert tail.read() == []
    assert tail.size() == 0


def test_seek(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"one\ntwo\nthree")
    tail = LogTail(path)
    assert tail.read() == [(0, b"one"), (4, b"two")]
    tail.seek(4)
    assert tail.read(final=True) == [(4, b"two")]
    assert tail.read(final=True) == [(8, b"three")]
    assert tail.read(final=True) == []

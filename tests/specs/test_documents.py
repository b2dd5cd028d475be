"""Reading files: what YAML means here, and everything else a path can be."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from mosaic_cluster.specs import read_document
from mosaic_cluster.worker.errors import SpecError


def refusal(source: Any) -> str:
    with pytest.raises(SpecError) as caught:
        read_document(source)
    assert caught.value.heading == str(source)
    (problem,) = caught.value.problems
    assert problem.path == ""
    return problem.message


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("2.5e-4", 0.00025),
        ("1E6", 1e6),
        (".5", 0.5),
        ("3.", 3.0),
        ("150_000", 150000),
        ("1_000.5", 1000.5),
        ("-7", -7),
        ("+7", 7),
        ("010", 10),
        ("0x1F", 31),
        ("0o17", 15),
        ("true", True),
        ("False", False),
        ("no", "no"),
        ("on", "on"),
        ("Yes", "Yes"),
        ("1:30", "1:30"),
        ("2020-01-01", "2020-01-01"),
        ("~", None),
        ("", None),
        ("null", None),
        ("=", "="),
        ("1_", "1_"),
        ("1.2.3", "1.2.3"),
        ("'5'", "5"),
        ("30m", "30m"),
    ],
)
def test_scalars_mean_what_they_look_like(text: str, value: Any) -> None:
    read = read_document(f"key: {text}\n")["key"]
    assert read == value
    assert type(read) is type(value)


def test_merge_keys_work_and_are_no_repetition() -> None:
    text = "base: &base {a: 1, b: 2}\nx: &x {<<: *base, b: 3}\ny: {<<: *x, c: 4}\nz: *x\n"
    read = read_document(text)
    assert read["y"] == {"a": 1, "b": 3, "c": 4}
    assert read["z"] == {"a": 1, "b": 3}


def test_json_is_read_with_tabs_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    path.write_bytes(b'\xef\xbb\xbf{\n\t"kind": "run",\n\t"seed": 1e3\n}\n')
    assert read_document(path) == {"kind": "run", "seed": 1000.0}
    assert read_document('{"kind": "run"}') == {"kind": "run"}


def test_bad_json_says_where(tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    path.write_text('{"kind": "run",\n "seed": }')
    assert refusal(path) == "line 2, column 10: expecting value; a .json file is strict JSON"
    path.write_text('{\n\t"seed": 1,\n\t"seed": 2\n}')
    assert refusal(path) == "line 3, column 2: the key 'seed' is there twice, first in line 2; keep one"
    path.write_text("[" * 100_000)
    assert refusal(path) == "is nested too deeply; write it flatter"


def test_a_missing_file_gets_the_nearest_name(tmp_path: Path) -> None:
    for name in ("cartpole.yaml", "pong.json", "notes.txt"):
        (tmp_path / name).touch()
    assert refusal(tmp_path / "cartpol.yaml") == "no such file; did you mean cartpole.yaml?"
    assert refusal(tmp_path / "zzz") == f"no such file; in {tmp_path} there is: cartpole.yaml, pong.json"
    assert refusal(tmp_path / "no" / "x.yaml") == f"no such file; there is no folder {tmp_path / 'no'}"
    assert refusal(tmp_path) == "is a folder; give a file in it, such as cartpole.yaml or pong.json"


def test_an_empty_folder_says_so(tmp_path: Path) -> None:
    assert refusal(tmp_path) == "is a folder; give a file in it; it holds no YAML or JSON file"
    assert refusal(tmp_path / "x.yaml") == f"no such file; there is no YAML or JSON file in {tmp_path}"


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    assert refusal(path) == "is not text in UTF-8 (byte 0x89 at 0); a spec is YAML or JSON text"
    path.write_bytes(b"kind: \x01\n")
    assert refusal(path) == "is not text (character 1 at 6); a spec is YAML or JSON text"
    path.write_bytes(b"")
    assert refusal(path) == "is empty; begin with kind: run"
    path.write_bytes(b"#" * (10 * 1024**2 + 1))
    assert refusal(path) == "has 10MiB; a spec has at most 10MiB: keep data elsewhere"


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.yaml"
    os.mkfifo(pipe)
    assert refusal(pipe) == "is not a file; give a YAML or JSON file"
    looped = tmp_path / "loop.yaml"
    looped.symlink_to(looped)
    assert refusal(looped).startswith(("no such file", "cannot be read"))
    assert refusal("x" * 5000) == "cannot be read: file name too long"
    assert refusal("a\0b").startswith(("no such file", "cannot be read"))


def test_a_path_may_be_given_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "spec.yaml").write_text("kind: run\n")
    monkeypatch.chdir(tmp_path)
    assert read_document("spec.yaml") == {"kind": "run"}
    assert refusal("spek.yaml") == "no such file; did you mean spec.yaml?"
    assert refusal("zzz") == "no such file; in this folder there is: spec.yaml"

"""What a supervisor sees in a log does not depend on when it looks."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from mosaic_cluster.supervision.watching import LogWatch

NAMES = ("run_started", "run_completed", "run_failed", "run_cancelled")
step = st.integers(0, 10**12)
beat = step.map(lambda value: json.dumps({"event": "heartbeat", "payload": {"step": value}}))
named = st.sampled_from(NAMES).map(lambda name: json.dumps({"event": name, "payload": {"why": name}}))
noise = st.one_of(st.text(max_size=20), st.just('{"event":"heartbeat"'), st.just('"run_failed" "heartbeat"'))
texts = st.lists(st.one_of(beat, named, noise), max_size=20).map(lambda lines: "\n".join([*lines, ""]).encode())


def seen(watch: LogWatch) -> tuple[object, ...]:
    return watch.started, watch.ending, watch.said, watch.last_sign is not None


@settings(max_examples=100, deadline=None)
@given(text=texts, cuts=st.lists(st.integers(0, 2000), max_size=6))
def test_any_split_gives_the_same(text: bytes, cuts: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        whole, split = Path(folder, "whole"), Path(folder, "split")
        whole.write_bytes(text)
        once = LogWatch(whole)
        once.look(1.0)
        often = LogWatch(split)
        for cut in [*sorted(cuts), len(text)]:
            split.write_bytes(text[:cut])
            often.look(1.0)
        assert seen(once) == seen(often)
        assert once.size == len(text)


def test_the_last_heartbeat_counts(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f'{{"event":"heartbeat","payload":{{"global_step":{n}}}}}\n' for n in range(1000)))
    watch = LogWatch(log)
    watch.look(5.0)
    assert (watch.last_step, watch.last_sign) == (999, 5.0)


def test_a_plan_is_no_progress(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text('{"event":"run_started","payload":{"total_steps":1000}}\nnot telemetry\n')
    watch = LogWatch(log)
    watch.look(5.0)
    assert (watch.last_step, watch.started) == (None, True)

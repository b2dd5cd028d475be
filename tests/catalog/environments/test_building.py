"""Building environments: by real builders in real processes, some of which are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from support import wait_for

from mosaic_cluster.catalog.environments import (
    Environment,
    Place,
    Step,
    build,
    building,
    find_interpreter,
    remove,
    stored,
)
from mosaic_cluster.catalog.environments.building import BuildProgress
from mosaic_cluster.catalog.environments.commands import Ended
from mosaic_cluster.catalog.environments.store import is_used
from mosaic_cluster.worker.errors import EnvironmentFailed

APPEND = "import sys; open(sys.argv[1], 'a').write(sys.argv[2])"


def python(*words: str, **more: Any) -> Step:
    return Step(run=("python", *words), **more)


def place(folder: Path, *steps: Step, **more: Any) -> Place:
    return Place("tiny", Environment(steps=steps, **more), find_interpreter([]), folder / "environments")


BUILDER = textwrap.dedent(
    """
    import json, sys
    from pathlib import Path
    from mosaic_cluster.catalog.environments import Environment, Place, Step, build, find_interpreter
    steps = tuple(Step(run=tuple(words)) for words in json.loads(sys.argv[2]))
    place = Place("tiny", Environment(steps=steps), find_interpreter([]), Path(sys.argv[1], "environments"))
    built = build(place, report=lambda progress: print(progress.sentence(), flush=True))
    print("built", built.folder, flush=True)
    """
)


def builder(folder: Path, *steps: Step) -> subprocess.Popen[str]:
    """A builder in a process of its own."""
    words = json.dumps([step.run for step in steps])
    return subprocess.Popen(
        [sys.executable, "-c", BUILDER, str(folder), words], stdout=subprocess.PIPE, text=True, start_new_session=True
    )


def test_steps_in_order_then_the_smoke_command(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    told: list[BuildProgress] = []
    where = place(
        tmp_path,
        python("-c", APPEND, str(marks), "1", name="first"),
        python("-c", "raise SystemExit(1)", may_fail=True),
        python("-c", APPEND, str(marks), "2"),
        smoke=("python", "-c", f"import os; {APPEND}", str(marks), "s"),
        variables={"A": "b"},
    )
    built = build(where, report=told.append)
    assert marks.read_text() == "12s"
    assert built.folder.parent.name == ".made"
    assert where.link.resolve() == built.folder
    asked = [str(built.python), "-c", "import sys; print(sys.prefix)"]
    assert subprocess.check_output(asked, text=True).strip() == str(built.folder)
    assert [(each.step, each.of) for each in told] == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]
    assert told[1].sentence() == "builds the environment of tiny: step 2 of 5, first (0s)"
    assert build(where, report=told.append) == built
    assert len(told) == 5
    assert marks.read_text() == "12s"
    (entry,) = stored(tmp_path)
    assert (entry.state, entry.record["environment"]["variables"]) == ("built", {"A": "b"})
    assert entry.size > 100
    assert "step 4 of 5" in (built.folder / "build.log").read_text()


def test_content_follows_the_recipe(tmp_path: Path) -> None:
    base = place(tmp_path, python("-c", "1"))
    assert place(tmp_path, python("-c", "1", name="shown"), variables={"A": "1"}).name == base.name
    assert place(tmp_path, python("-c", "2")).name != base.name
    assert place(tmp_path, python("-c", "1", may_fail=True)).name != base.name


def test_a_broken_step(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    where = place(
        tmp_path,
        python("-c", APPEND, str(marks), "1"),
        python("-c", f"import os; print('about to'); open({str(tmp_path / 'mended')!r})", name="the broken one"),
        system=("no-such-program",),
    )
    with pytest.raises(EnvironmentFailed) as caught:
        build(where)
    text = str(caught.value)
    assert "the environment of tiny cannot be built: step 3 of 3, the broken one, failed with exit code 1" in text
    assert "command: " in text
    assert "about to" in text
    assert "| FileNotFoundError: [Errno 2] No such file" in text
    assert "not on PATH here: no-such-program" in text
    assert "FileNotFoundError" in caught.value.summary
    assert "\n" not in caught.value.summary
    log = Path(text.splitlines()[-1].partition(": ")[2])
    assert "about to" in log.read_text()
    assert where.built() is None
    # What was done is not done again.
    (tmp_path / "mended").touch()
    assert build(where).python.exists()
    assert marks.read_text() == "1"


def test_the_network_may_come_back(tmp_path: Path) -> None:
    words = "WARNING: Retrying after connection broken by 'NewConnectionError: Network is unreachable'"
    with pytest.raises(EnvironmentFailed) as caught:
        build(place(tmp_path, python("-c", f"import sys; sys.exit({words!r})")))
    assert caught.value.network


def test_killed_in_mid_build_and_taken_up(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    hold = f"import os, time; {APPEND}\nwhile not os.path.exists(sys.argv[3]): time.sleep(0.02)"
    steps = (
        python("-c", APPEND, str(marks), "1"),
        python("-c", hold, str(marks), "2", str(tmp_path / "go")),
        python("-c", APPEND, str(marks), "3"),
    )
    first = builder(tmp_path, *steps)
    wait_for(lambda: marks.exists() and marks.read_text() == "12", 30)
    children = psutil.Process(first.pid).children(recursive=True)
    assert children
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert first.stdout is not None
    first.stdout.close()
    # What it had started goes with it.
    wait_for(lambda: not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in children), 10)
    where = place(tmp_path, *steps)
    assert where.built() is None
    assert [entry.state for entry in stored(tmp_path)] == ["unfinished"]
    (tmp_path / "go").touch()
    begun = time.monotonic()
    assert build(where).folder == where.made(1)
    assert time.monotonic() - begun < 20  # a dead holder is not waited for
    assert marks.read_text() == "1223"


def test_two_builders_build_once(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    steps = (python("-c", f"import time; {APPEND}; time.sleep(3)", str(marks), "x"),)
    both = [builder(tmp_path, *steps) for _ in range(2)]
    told = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert marks.read_text() == "x"
    waited = next(text for text in told if "waits until" in text)
    assert "has built the environment of tiny: step 2 of 2" in waited
    assert str(next(each.pid for each, text in zip(both, told, strict=True) if text is not waited)) in waited
    assert len({text.splitlines()[-1] for text in told}) == 1


def test_who_waited_takes_the_others_failure(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    steps = (python("-c", f"import time; {APPEND}; time.sleep(2); raise SystemExit('broken')", str(marks), "x"),)
    failures: list[EnvironmentFailed] = []

    def one() -> None:
        try:
            build(place(tmp_path, *steps))
        except EnvironmentFailed as error:
            failures.append(error)

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert marks.read_text() == "x"
    assert len(failures) == 2
    assert str(failures[0]) == str(failures[1])
    with pytest.raises(EnvironmentFailed):  # but who comes later tries again
        build(place(tmp_path, *steps))
    assert marks.read_text() == "xx"


def test_who_was_taken_over_from_takes_it_for_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its command was killed by the successor, which fails then, and whose words hold."""
    where = place(tmp_path)
    failed = {"failures": 1, "failed": "the successor's words", "summary": "", "network": False}

    def taken_over(*_: Any, **__: Any) -> Ended:
        (where.building / "holder.7").write_text('{"released": true}')
        (where.building / "state.json").write_text(json.dumps(failed))
        return Ended(-9, ())

    monkeypatch.setattr(building, "run_command", taken_over)
    monkeypatch.setattr("mosaic_cluster.catalog.environments.holding.BEAT_SECONDS", 0.0)
    with pytest.raises(EnvironmentFailed, match="the successor's words"):
        build(where)
    assert json.loads((where.building / "state.json").read_text()) == failed


def test_used_through_a_link_is_used(tmp_path: Path) -> None:
    (tmp_path / "real" / "made").mkdir(parents=True)
    (tmp_path / "linked").symlink_to("real")
    used = {**os.environ, "VIRTUAL_ENV": str(tmp_path / "real" / "made")}
    process = subprocess.Popen(["sleep", "60"], env=used)
    try:
        assert is_used(tmp_path / "linked" / "made")
        assert not is_used(tmp_path / "linked" / "other")
    finally:
        process.kill()
        process.wait()


def test_cancelled(tmp_path: Path) -> None:
    where = place(tmp_path, python("-c", "import time; time.sleep(100)"))
    stop = threading.Event()
    threading.Timer(1.0, stop.set).start()
    begun = time.monotonic()
    with pytest.raises(EnvironmentFailed) as caught:
        build(where, cancelled=stop.is_set)
    assert caught.value.cancelled
    assert time.monotonic() - begun < 10
    assert not any("time.sleep(100)" in " ".join(each.cmdline()) for each in psutil.Process().children(recursive=True))


def test_built_anew_while_the_old_one_is_used(tmp_path: Path) -> None:
    where = place(tmp_path, python("-c", "1"))
    old = build(where)
    new = build(where, rebuild=True)
    assert new.folder != old.folder
    assert where.built() == new
    assert old.python.exists()
    states = {entry.state: entry for entry in stored(tmp_path)}
    assert set(states) == {"built", "superseded"}
    remove(states["superseded"], tmp_path)
    assert not old.folder.exists()
    assert where.built() == new
    remove(states["built"], tmp_path)
    assert where.built() is None
    assert list(stored(tmp_path)) == []


def test_nothing_of_ours_leaks_into_the_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTHONPATH", "RAY_ADDRESS", "VIRTUAL_ENV", "PIP_TARGET", "PYTHONHOME_X"):
        monkeypatch.setenv(name, "/elsewhere")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    dump = tmp_path / "variables"
    build(
        place(
            tmp_path,
            python("-c", "import json, os, sys; json.dump(dict(os.environ), open(sys.argv[1], 'w'))", str(dump)),
        )
    )
    found = json.loads(dump.read_text())
    assert not {"PYTHONPATH", "RAY_ADDRESS", "PIP_TARGET", "PYTHONHOME_X"} & found.keys()
    assert found["PIP_INDEX_URL"] == "http://127.0.0.1:1/simple"
    assert Path(found["VIRTUAL_ENV"]).parent.name == ".made"
    assert found["PATH"].startswith(found["VIRTUAL_ENV"])

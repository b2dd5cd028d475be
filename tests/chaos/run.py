"""The chaos test: a sweep of workers that print numbered events, under random kill -9, and the checker's verdict.

``make chaos SEED=7`` runs the long one; ``tests/chaos/test_chaos.py`` the short one.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos import checker
from chaos.killer import Killer, Targets, deck
from support import FIXTURES, Cluster, install, kill_tree, mosaic_process, ray_cluster, wait_for

START_SECONDS = 300.0
END_SECONDS = 420.0


@dataclass(frozen=True)
class Plan:
    """How much of it.

    Attributes:
        seeds: runs of each of the four kinds of workers.
        rate: events a second that each run prints.
        seconds: over which the kills are spread.
        events: at least so many are printed.
        kills: by kind, beside the pairs.
        pairs: of hubs that die one after the other.
        freezes: hubs that stand still for some seconds.
        driver: whether the driver is killed once, and the experiment resumed.
    """

    seeds: int
    rate: int
    seconds: float
    events: int
    kills: dict[str, int]
    pairs: int
    freezes: int
    driver: bool

    @property
    def runs(self) -> int:
        """All together."""
        return 4 * self.seeds

    @property
    def total(self) -> Counter[str]:
        """Kills by kind, the last hub's and the driver's included."""
        return Counter(self.kills) + Counter(hub=2 * self.pairs + 1, driver=int(self.driver))


LONG = Plan(
    seeds=6, rate=200, seconds=300.0, events=1_000_000,
    kills={"hub": 5, "actor": 9, "supervisor": 9, "worker": 9}, pairs=2, freezes=2, driver=True,
)  # fmt: skip
SHORT = Plan(
    seeds=2, rate=400, seconds=35.0, events=100_000,
    kills={"hub": 1, "actor": 2, "supervisor": 2, "worker": 2}, pairs=1, freezes=0, driver=False,
)  # fmt: skip


@dataclass
class Result:
    """What became of it.

    Attributes:
        findings: the checker's.
        kills: that landed, by kind.
        problems: what else was not as it should be, one sentence each.
    """

    findings: checker.Findings
    kills: Counter[str]
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether all is well."""
        return not self.findings.wrong and not self.problems


def spec_of(plan: Plan, folder: Path) -> dict[str, Any]:
    """A grid of four kinds of workers: one or two threads, with checkpoints or without."""
    return {
        "kind": "sweep",
        "name": "chaos",
        "worker": "chaos",
        "config": {"truth": str(folder / "truth"), "rate": plan.rate},
        "space": {"threads": {"choice": [1, 2]}, "checkpoint_every": {"choice": [0.0, 3.0]}},
        "search": "grid",
        "seeds": plan.seeds,
        "metric": {"name": "score"},
        "resources": {"cpus": 0.05},
        "limits": {"max_failures": 1000, "grace": "10s"},
    }


def run(plan: Plan, seed: int, folder: Path, say: Callable[[str], None] = print) -> Result:
    """Run it all in an empty folder; nothing that was started is left when this returns or raises."""
    (folder / "truth").mkdir()
    packages, storage = folder / "packages", folder / "results"
    packages.mkdir()
    install(packages, FIXTURES / "workers" / "chaos_worker", "chaos", "chaos_worker:get_worker_metadata")
    (folder / "spec.json").write_text(json.dumps(spec_of(plan, folder), indent=2))
    with ray_cluster(packages, MOSAIC_CACHE=str(folder / "cache")) as cluster:
        targets = Targets(cluster.pid, storage)
        driver = Driver(folder, cluster)
        try:
            killer = Killer(targets, random.Random(seed), folder / "kills.jsonl", say)
            _wreak(plan, folder, driver, killer, say)
        finally:
            driver.end()
            kill_tree(cluster.pid)  # their owners gone, supervisors end what is left
            leftover = _end_of(targets)
    return _judge(plan, folder, leftover, driver.code)


class Driver:
    """`mosaic run`, and `mosaic resume` after a kill; what they say goes to ``driver.log``."""

    def __init__(self, folder: Path, cluster: Cluster) -> None:
        self._folder = folder
        self._where = ["--address", cluster.address, "--storage", str(folder / "results")]
        self._env = cluster.env
        self.process = self._start("run", "spec.json")

    def _start(self, *args: str) -> subprocess.Popen[str]:
        with (self._folder / "driver.log").open("a") as log:
            return mosaic_process(*args, *self._where, env=self._env, cwd=self._folder, output=log)

    @property
    def code(self) -> int | None:
        """Its exit code."""
        return self.process.poll()

    def kill_and_resume(self, killer: Killer) -> None:
        """kill -9, then another one takes the experiment up."""
        killer.kill_driver(self.process.pid)
        self.process.wait()
        time.sleep(killer.draw.uniform(0.0, 3.0))
        (home,) = (self._folder / "results").glob("*/experiment.json")
        self.process = self._start("resume", home.parent.name)

    def end(self) -> None:
        """Kill it if it still runs."""
        kill_tree(self.process.pid)
        self.process.wait()


def _wreak(plan: Plan, folder: Path, driver: Driver, killer: Killer, say: Callable[[str], None]) -> None:
    """From the first event to the last."""
    truth = folder / "truth"
    alive = _Alive(driver)
    alive.wait(lambda: _running(truth) >= plan.runs, START_SECONDS, "all runs to print")
    say(f"{plan.runs} runs print")
    draw = killer.draw
    acts: list[Callable[[], None]] = [lambda group=group: killer.kill(*group) for group in deck(draw, plan.kills)]
    acts += [killer.kill_hub_twice] * plan.pairs
    acts += [lambda: killer.freeze_hub(draw.uniform(1.0, 8.0))] * plan.freezes
    draw.shuffle(acts)
    if plan.driver:
        acts.insert(draw.randrange(len(acts) // 3, 2 * len(acts) // 3), lambda: driver.kill_and_resume(killer))
    begun = time.monotonic()
    for moment, act in zip(sorted(draw.uniform(0, plan.seconds) for _ in acts), acts, strict=True):
        while (left := begun + moment - time.monotonic()) > 0:
            alive.check()
            time.sleep(min(left, 0.5))
        act()
    alive.wait(lambda: printed(truth) >= plan.events, 3 * plan.seconds + 60, f"{plan.events:,} events")
    (truth / "stop").touch()
    say(f"{printed(truth):,} events printed; the workers are told to end")
    time.sleep(draw.uniform(0.0, 1.0))
    killer.kill("hub")
    wait_for(lambda: driver.code is not None, END_SECONDS, "the experiment to end")


class _Alive:
    """Waits, but not for a driver that is gone."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def check(self) -> None:
        code = self._driver.code
        assert code is None, f"the driver ended with exit code {code}: see driver.log"

    def wait(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        def either() -> bool:
            self.check()
            return condition()

        wait_for(either, seconds, what, every=0.5)


def printed(truth: Path) -> int:
    """Events that have been recorded as printed."""
    return sum(struct.unpack("=q", path.read_bytes()[:8].ljust(8, b"\0"))[0] for path in truth.glob("*.t*"))


def _running(truth: Path) -> int:
    """Runs that have begun to print."""
    return len({path.name.partition(".")[0] for path in truth.glob("*.t*")})


def _end_of(targets: Targets) -> int:
    """How many processes of runs had to be ended by us, though all whom they belonged to were gone."""
    end = time.monotonic() + 15
    while (left := targets.of_runs()) and time.monotonic() < end:
        time.sleep(0.2)
    for process in left:
        kill_tree(process.pid)
    return len(left)


def _judge(plan: Plan, folder: Path, leftover: int, code: int | None) -> Result:
    (telemetry,) = (folder / "results").glob("*/telemetry")
    findings = checker.check(folder / "truth", telemetry)
    result = Result(findings, checker.kills_in(folder / "kills.jsonl"))
    if code != 0:
        result.problems.append(f"the driver ended with exit code {code}: see driver.log")
    if leftover:
        result.problems.append(f"{leftover} processes of runs outlived driver and cluster")
    if findings.workers < plan.runs:
        result.problems.append(f"{findings.workers} of {plan.runs} workers printed")
    if findings.recorded < plan.events:
        result.problems.append(f"{findings.recorded:,} events were printed, not {plan.events:,}")
    missing = plan.total - result.kills
    if missing:
        result.problems.append(f"kills that did not take place: {dict(missing)}")
    return result


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP unwind as Ctrl-C does."""

    def unwind(number: int, _frame: Any) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, unwind) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=None, help="of the killer's choices; default: drawn")
    parser.add_argument("--short", action="store_true", help="the version that the test suite runs")
    parser.add_argument("--keep", action="store_true", help="leave the folder also if all is well")
    parser.add_argument("--seconds", type=float, default=None, help="over which the kills are spread")
    args = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if args.seed is None else args.seed
    plan = SHORT if args.short else LONG
    if args.seconds:
        plan = Plan(**{**vars(plan), "seconds": args.seconds})
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    print(f"chaos with SEED={seed}, in {folder}: {plan.runs} runs, {sum(plan.total.values())} kills", flush=True)
    begun = time.monotonic()
    try:
        with ended_by_signals():
            result = run(plan, seed, folder, lambda text: print(text, flush=True))
    except BaseException as error:
        print(f"interrupted or failed; what there is stays in {folder} (SEED={seed})", flush=True)
        if isinstance(error, KeyboardInterrupt):
            return 130
        raise
    print(f"\nSEED={seed}, {time.monotonic() - begun:.0f} s\n{checker.table(result.findings, result.kills)}")
    print("\n".join(result.problems), end="\n" if result.problems else "")
    if not result.ok:
        print(f"kept for inspection: {folder}")
        return 1
    if args.keep:
        print(f"kept: {folder}")
    else:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())

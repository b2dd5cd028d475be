"""Building an environment: one builder at a time, step by step, taken up again where a dead one left off."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mosaic_cluster.catalog.environments.commands import Ended, kill_leftovers, run_command
from mosaic_cluster.catalog.environments.declared import Environment, Step
from mosaic_cluster.catalog.environments.holding import Hold, Lost, Waiting
from mosaic_cluster.catalog.environments.interpreters import find_interpreter
from mosaic_cluster.catalog.environments.pip_alone import clear_half_installed, pip_wheel
from mosaic_cluster.catalog.environments.store import (
    LOG,
    RECORD,
    Built,
    Place,
    environments_folder,
    folder_size,
)
from mosaic_cluster.catalog.environments.surroundings import building_variables, plain_variables, with_python
from mosaic_cluster.worker.errors import EnvironmentFailed

WAIT_SECONDS = 0.25
TELL_SECONDS = 1.0


@dataclass(frozen=True)
class BuildProgress:
    """How far a build is.

    Attributes:
        label: what is built.
        step: its number, from 1 on; of: how many there are; name: what it does.
        seconds: since the step began.
        line: the last line that it wrote.
        builder: who builds it, if that is not the one who tells.
    """

    label: str
    step: int = 0
    of: int = 0
    name: str = ""
    seconds: float = 0.0
    line: str = ""
    builder: str | None = None

    def sentence(self) -> str:
        """For people, and the reason why a run has not begun."""
        if self.builder is not None and not self.of:
            return f"waits until {self.builder} has built the environment of {self.label}"
        how = f"step {self.step} of {self.of}, {self.name} ({self.seconds:.0f}s)"
        if self.builder is not None:
            return f"waits until {self.builder} has built the environment of {self.label}: {how}"
        return f"builds the environment of {self.label}: {how}"


Report = Callable[[BuildProgress], None]


def locate(worker: str, environment: Environment, cache_dir: Path | None = None) -> Place:
    """Where an environment is or would be on this machine.

    Raises:
        EnvironmentFailed: there is no interpreter for it.
    """
    return Place(worker, environment, find_interpreter(environment.python), environments_folder(cache_dir))


def build(
    place: Place,
    *,
    report: Report | None = None,
    cancelled: Callable[[], bool] | None = None,
    rebuild: bool = False,
) -> Built:
    """The finished environment; built, if nobody has, once over all processes and nodes that share the cache.

    Args:
        report: told how far it is, about once a second and at each step.
        cancelled: whether to give up.
        rebuild: build it from nothing even if it is there.

    Raises:
        EnvironmentFailed: a step failed, or it was cancelled.
    """
    before = place.built()
    if before is not None and not rebuild:
        return before
    teller = _Teller(place, report, cancelled)
    failures = _state(place).get("failures", 0)
    try:
        waiting = Waiting(place.building)
        while True:
            teller.stop_if_cancelled()
            got = waiting.attempt()
            found = place.built()
            if found is not None and (not rebuild or before is None or found.folder != before.folder):
                if isinstance(got, Hold):
                    got.release()
                return found
            if isinstance(got, Hold):
                state = _state(place)
                if state.get("failures", 0) > failures:  # while we waited, another one tried the same
                    got.release()
                    raise EnvironmentFailed(state["failed"], summary=state["summary"], network=bool(state["network"]))
                try:
                    return _Building(place, got, teller, fresh=rebuild).run()
                except Lost:
                    waiting = Waiting(place.building)
                    continue
            teller.other(got)
            time.sleep(WAIT_SECONDS)
    except OSError as error:
        raise EnvironmentFailed(f"the environment of {place.label} cannot be built in {place.root}: {error}") from error


class _Teller:
    """Tells how far a build is: to whoever asked for it, and to others in a file."""

    def __init__(self, place: Place, report: Report | None, cancelled: Callable[[], bool] | None) -> None:
        self._place = place
        self._report = report
        self._cancelled = cancelled
        self._told = 0.0

    def stop_if_cancelled(self) -> None:
        if self._cancelled is not None and self._cancelled():
            raise EnvironmentFailed(f"the building of {self._place.label}'s environment was cancelled", cancelled=True)

    def ours(self, progress: BuildProgress, *, now: bool = False) -> None:
        self.stop_if_cancelled()
        if not now and time.monotonic() - self._told < TELL_SECONDS:
            return
        self._told = time.monotonic()
        _write(self._place.building / "progress.json", asdict(progress))
        if self._report is not None:
            self._report(progress)

    def other(self, builder: str) -> None:
        if self._report is None or time.monotonic() - self._told < TELL_SECONDS:
            return
        self._told = time.monotonic()
        try:
            known = json.loads((self._place.building / "progress.json").read_text(encoding="utf-8"))
            progress = BuildProgress(**{**known, "builder": builder})
        except (OSError, ValueError, TypeError):
            progress = BuildProgress(self._place.label, builder=builder)
        self._report(progress)


class _Building:
    """One builder's work, from the first step that is not done yet to the published environment."""

    def __init__(self, place: Place, hold: Hold, teller: _Teller, *, fresh: bool) -> None:
        self.place, self.hold, self.teller = place, hold, teller
        self.log = place.building / LOG
        state = {} if fresh else _state(place)
        self.done: list[int] = state.get("done", [])
        self.generation: int = state.get("generation") or max(place.generations(), default=0) + 1
        self.failures: int = _state(place).get("failures", 0)
        self.folder = place.made(self.generation)
        if not self.done or not (self.folder / "bin" / "python").exists():
            self.done = []
        if fresh:
            # What is whole may still be in use, on whatever node.
            for number in place.generations():
                if not (place.made(number) / RECORD).exists():
                    shutil.rmtree(place.made(number), ignore_errors=True)
        self.steps: list[Step | str] = ["create", *place.environment.steps]
        if place.environment.smoke:
            self.steps.append("smoke")

    def run(self) -> Built:
        try:
            built = self._run()
        except EnvironmentFailed as error:
            if not error.cancelled:
                self.hold.check()  # the file is the successor's to write, if there is one
                failed = {
                    "failures": self.failures + 1,
                    "failed": str(error),
                    "summary": error.summary,
                    "network": error.network,
                }
                self._keep(**failed)
            raise
        finally:
            # Who has lost it holds an old number: nobody looks at that any more.
            self.hold.release()
        return built

    def _run(self) -> Built:
        kill_leftovers(str(self.place.building))
        self._say(
            f"\n=== {time.strftime('%Y-%m-%d %H:%M:%S')} {self.place.interpreter.path} on {os.uname().nodename}\n"
        )
        for number, step in enumerate(self.steps):
            if number not in self.done:
                self.hold.check()
                self._step(number, step)
                self.done.append(number)
                self._keep()
        return self._finish()

    def _step(self, number: int, step: Step | str) -> None:
        begun = time.monotonic()
        name = self._title(step)

        def watch(line: str) -> None:
            self.hold.check()
            spent = time.monotonic() - begun
            self.teller.ours(BuildProgress(self.place.label, number + 1, len(self.steps), name, spent, line))

        first = BuildProgress(self.place.label, number + 1, len(self.steps), name)
        self.teller.ours(first, now=True)
        self._say(f"\n--- step {number + 1} of {len(self.steps)}: {name}\n")
        clear_half_installed(self.folder)
        if step == "create":
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.parent.mkdir(parents=True, exist_ok=True)
        for command in self._commands(step):
            ended = self._run_one(command, step, watch)
            if ended.code != 0 and not (isinstance(step, Step) and step.may_fail):
                raise self._failed(number, name, command, ended, time.monotonic() - begun)
        if step == "create" and self._needs_pip():
            self._install_pip(number, name, watch)

    def _run_one(self, command: Sequence[str], step: Step | str, watch: Callable[[str], None]) -> Ended:
        place, python = self.place, self.folder / "bin" / "python"
        if step == "smoke":
            variables = with_python(plain_variables(os.environ), python, place.interpreter.variables)
            variables.update(place.environment.variables)
        else:
            variables = building_variables(os.environ, python, place.interpreter.variables)
            variables["VIRTUAL_ENV"] = str(self.folder)
        self._say(f"$ {shlex.join(command)}\n")
        cwd = self.folder if self.folder.is_dir() else self.folder.parent
        ended = run_command(
            command, cwd=cwd, variables=variables, log=self.log, building=str(place.building), watch=watch
        )
        self.hold.check()  # whoever has taken over has killed it: that is no failure of the step
        return ended

    def _commands(self, step: Step | str) -> list[list[str]]:
        python = str(self.folder / "bin" / "python")
        if step == "create":
            return [[self.place.interpreter.path, "-m", "venv", "--without-pip", str(self.folder)]]
        if step == "smoke":
            return [_with(python, self.place.environment.smoke)]
        assert isinstance(step, Step)
        if step.run:
            return [_with(python, step.run)]
        no_deps = ["--no-deps"] if step.no_deps else []
        return [[python, "-m", "pip", "install", *no_deps, *step.options, *step.pip]]

    def _needs_pip(self) -> bool:
        """Installing pip takes seconds; a recipe that never uses it does without."""
        steps = self.place.environment.steps
        return any(step.pip or any("pip" in word for word in step.run) for step in steps)

    def _install_pip(self, number: int, name: str, watch: Callable[[str], None]) -> None:
        """With the interpreter's own means, else with a wheel from here."""
        python = str(self.folder / "bin" / "python")
        command = [python, "-m", "ensurepip", "--default-pip"]
        ended = self._run_one(command, "create", watch)
        if ended.code == 0:
            return
        self._say("ensurepip does not work here (Debian leaves it out): pip comes from a wheel\n")
        wheel = pip_wheel(self.place.interpreter, self.place.building / "pip", self.log, watch)
        command = [python, f"{wheel}/pip", "install", "--no-index", "--no-deps", str(wheel)]
        ended = self._run_one(command, "create", watch)
        if ended.code != 0:
            raise self._failed(number, name, command, ended, 0.0)

    def _finish(self) -> Built:
        place = self.place
        record = {
            "format": 1,
            "worker": place.worker,
            "environment": place.environment.to_dict(),
            "interpreter": asdict(place.interpreter),
            "built_at": time.time(),
            "host": os.uname().nodename,
            "size": folder_size(self.folder, self.hold.check),
        }
        shutil.copyfile(self.log, self.folder / LOG)
        self.hold.check()
        _write(self.folder / RECORD, record)
        place.publish(self.generation)
        for name in ("state.json", "progress.json", LOG):
            (place.building / name).unlink(missing_ok=True)
        shutil.rmtree(place.building / "pip", ignore_errors=True)
        built = place.built()
        if built is None:
            raise EnvironmentFailed(f"{self.folder} was built, but its python is not there")
        return built

    def _failed(
        self, number: int, name: str, command: Sequence[str], ended: Ended, seconds: float
    ) -> EnvironmentFailed:
        how = f"was killed by signal {-ended.code}" if ended.code < 0 else f"failed with exit code {ended.code}"
        absent = [program for program in self.place.environment.system if shutil.which(program) is None]
        what = (
            f"the environment of {self.place.label} cannot be built: step {number + 1} of {len(self.steps)}, {name}, "
            f"{how} after {seconds:.0f}s on {os.uname().nodename}"
        )
        lines = [
            what,
            *([f"  it expects programs that are not on PATH here: {', '.join(absent)}"] if absent else []),
            f"  command: {shlex.join(command)}",
            *(f"  | {line}" for line in ended.tail),
            f"  all of its output: {self.log}",
        ]
        said = f"; it said: {_telling(ended.tail)}" if ended.tail else ""
        summary = f"{what}{said}; all of its output: {self.log}"
        return EnvironmentFailed("\n".join(lines), summary=summary, network=ended.network)

    def _title(self, step: Step | str) -> str:
        if isinstance(step, Step):
            return step.title
        if step == "create":
            return f"Python {self.place.interpreter.version}"
        return "smoke command"

    def _keep(self, **more: Any) -> None:
        state = {"generation": self.generation, "done": self.done, "failures": self.failures, **more}
        _write(self.place.building / "state.json", state)

    def _say(self, text: str) -> None:
        with self.log.open("a", encoding="utf-8") as stream:
            stream.write(text)


def _with(python: str, command: Sequence[str]) -> list[str]:
    """``python`` as the first word is the environment's."""
    return [python if command[0] in ("python", "python3") else command[0], *command[1:]]


def _telling(tail: Sequence[str]) -> str:
    """The line that says most: pip's last words are often hints."""
    errors = [line for line in tail if "error" in line.lower()]
    return (errors or list(tail))[-1].strip()[:300]


def _state(place: Place) -> dict[str, Any]:
    """How far an earlier builder came."""
    try:
        found: dict[str, Any] = json.loads((place.building / "state.json").read_text(encoding="utf-8"))
        return found
    except (OSError, ValueError):
        return {}


def _write(path: Path, value: Any) -> None:
    staged = path.with_name(f".{path.name}-{os.getpid()}")
    staged.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    os.replace(staged, path)

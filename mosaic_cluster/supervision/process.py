"""The supervisor: a process of its own between the actor and the worker. Standard library only.

It reads one :class:`Order` as a JSON line on stdin, then commands (``stop``, ``pause``, ``unpause``, ``committed``),
one JSON object a line. Stdin is also the lifeline: its end means that the owner is gone, however it went, and
everything the worker started is killed. Stdout carries one JSON line of status about four times a second.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mosaic_cluster.supervision import tree
from mosaic_cluster.supervision.gpus import GpuWatch
from mosaic_cluster.supervision.holding import BACKLOG, DISK, PAUSE, Holds, Want
from mosaic_cluster.supervision.limiting import Seen, excesses, over_limit, with_figures
from mosaic_cluster.supervision.order import Order
from mosaic_cluster.supervision.outcome import Outcome, last_lines, write_json
from mosaic_cluster.supervision.releasing import Releaser
from mosaic_cluster.supervision.sealing import seal
from mosaic_cluster.supervision.usage import Usage
from mosaic_cluster.supervision.verdict import Verdict, judge, oom_kills, signal_name
from mosaic_cluster.supervision.watching import LogWatch

TICK = 0.25
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36

_libc = ctypes.CDLL(None, use_errno=True)


class RunClock:
    """Seconds of running: stands still while the worker does."""

    def __init__(self) -> None:
        self._since: float | None = time.monotonic()
        self._before = 0.0

    def now(self) -> float:
        """Seconds so far."""
        return self._before + (time.monotonic() - self._since if self._since is not None else 0.0)

    def hold(self) -> None:
        """Stand still."""
        self._before, self._since = self.now(), None

    def go(self) -> None:
        """Run on."""
        if self._since is None:
            self._since = time.monotonic()


class Supervisor:
    """Runs one order to its sealed outcome.

    Args:
        order: what to run.
        control: descriptor of the commands; its end is the owner's end.
        report: descriptor for status lines.
    """

    def __init__(self, order: Order, control: int, report: int) -> None:
        self.order = order
        self.folder = Path(order.attempt_dir)
        self.watch = LogWatch(self.folder / "stdout.log")
        self.clock = RunClock()
        self.started_at = time.time()
        self.worker: subprocess.Popen[bytes] | None = None
        self.exit: tuple[int | None, int | None] | None = None  # exit code, signal
        self.cause: Verdict | None = None
        self.kill_at: float | None = None
        self.holds = Holds()
        self.want = Want(self.folder, order.room)
        self.releasers: list[Releaser] = []
        self.alive_at = 0.0  # on the run clock: the last sign of life
        self.usage = Usage(order.limits, GpuWatch() if order.gpu else None)
        self._signs: float | None = None
        self._control = control
        self._unread = b""
        self._report = report
        self._oom_before = oom_kills()
        os.set_blocking(control, False)
        os.set_blocking(report, False)
        self._wake, wake = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(self._wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._told_to_go)

    def run(self) -> Outcome:
        """Start the worker, watch it, clean up, seal."""
        self._publish("STARTING")
        refused = self._start()
        if refused is not None:
            return self._seal(refused)
        while self.exit is None:
            self._sleep()
            self._commands()
            self._reap()
            self._look()
            self._enforce()
            self._keep_room()
            self._publish(self._state())
        left = tree.kill_descendants(os.getpid(), self._reap)
        self.watch.look(time.monotonic(), budget=1 << 62)
        return self._seal(self.cause or self._judge(), left)

    def _start(self) -> Verdict | None:
        order = self.order
        _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        own = os.getpid()

        def before_exec() -> None:
            # Dies with us even if we are killed -9; orphans of its own come to us while we live.
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != own:
                os._exit(127)

        append = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        out = os.open(self.folder / "stdout.log", append, 0o644)
        err = os.open(self.folder / "stderr.log", append, 0o644)
        try:
            self.worker = subprocess.Popen(
                order.command,
                cwd=order.cwd,
                env=dict(order.environment),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                preexec_fn=before_exec,
            )
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            return Verdict("FAILED", "start_failed", f"cannot start {order.command[0]!r} in {order.cwd}: {error}")
        finally:
            os.close(out)
            os.close(err)
        self._record()
        return None

    def _record(self) -> None:
        """What was started. Values of environment variables stay out: they may be secrets."""
        assert self.worker is not None
        record = {
            "command": list(self.order.command),
            "cwd": self.order.cwd,
            "environment": sorted(self.order.environment),
            "host": socket.gethostname(),
            "limits": vars(self.order.limits),
            "room": vars(self.order.room),
            "started_at": self.started_at,
            "supervisor_pid": os.getpid(),
            "worker_pid": self.worker.pid,
        }
        write_json(self.folder / "launch.json", record)

    def _sleep(self) -> None:
        ready, _, _ = select.select([self._control, self._wake], [], [], TICK)
        if self._wake in ready:
            os.read(self._wake, 4096)

    def _commands(self) -> None:
        while True:
            try:
                data = os.read(self._control, 65536)
            except BlockingIOError:
                break
            if not data:
                self._owner_gone()
                break
            self._unread += data
        *lines, self._unread = self._unread.split(b"\n")
        for line in lines:
            command = json.loads(line)
            self._COMMANDS[command.pop("do")](self, **command)

    def _owner_gone(self) -> None:
        verdict = Verdict("FAILED", "actor_lost", "its owner went away (killed, or its node or driver died)", True)
        if self.cause is None:
            self.cause = verdict
        # At once, with no grace: the next attempt may begin any moment, and two must not share a checkpoint.
        tree.kill_descendants(os.getpid(), self._reap)

    def _told_to_go(self, number: int, _frame: Any) -> None:
        text = f"its supervisor was told to end by {signal_name(number)}: is the machine going down?"
        self._end(Verdict("FAILED", "node_lost", text, True))

    def _stop(self, code: str, message: str) -> None:
        self._end(Verdict("PAUSED" if code == "paused" else "CANCELLED", code, message))

    def _end(self, verdict: Verdict) -> None:
        """Ask the worker to end; the first reason stands."""
        if self.cause is not None:
            return
        self.cause = verdict
        self.kill_at = time.monotonic() + self.order.grace
        # It may need to print to save its work: no limit of room holds it from here on.
        for what in list(self.holds.reasons):
            self._go_on(what)
        if self.worker is not None and self.exit is None:
            tree.send([self.worker.pid], signal.SIGTERM)

    def _pause(self) -> None:
        self._stand_still(PAUSE, "paused")

    def _unpause(self) -> None:
        self._go_on(PAUSE)

    def _stand_still(self, what: str, why: str) -> None:
        if self.cause is None and self.holds.add(what, why):
            self.clock.hold()
            tree.freeze_descendants(os.getpid())
            if self.cause is not None:
                # A signal told us to end meanwhile: it let go what was then frozen again.
                self.holds.remove(what)
                tree.send(tree.descendants(os.getpid()), signal.SIGCONT)
                self.clock.go()

    def _go_on(self, what: str) -> None:
        if self.holds.remove(what):
            tree.send(tree.descendants(os.getpid()), signal.SIGCONT)
            self.clock.go()
            self.alive_at = self.clock.now()

    def _committed(self, offset: int) -> None:
        self.want.committed = max(self.want.committed, offset)

    _COMMANDS: dict[str, Callable[..., None]] = {  # noqa: RUF012
        "stop": _stop,
        "pause": _pause,
        "unpause": _unpause,
        "committed": _committed,
    }

    def _keep_room(self) -> None:
        """Hold the worker while what it printed finds no room, and let go of what needs none any more."""
        if self.exit is not None:
            return
        self._release()
        if self.cause is not None:
            return
        wants = {
            BACKLOG: self.want.backlog(self.log_size(), BACKLOG in self.holds),
            DISK: self.want.disk(DISK in self.holds),
        }
        for what, why in wants.items():
            if why is None:
                self._go_on(what)
            elif what not in self.holds:  # the sentence stays as it was when it began
                self._stand_still(what, why)

    def _release(self) -> None:
        keep = self.order.room.keep_log
        if keep is None:
            return
        if not self.releasers:
            self.releasers = [Releaser(self.folder / name, keep) for name in ("stdout.log", "stderr.log")]
        out, err = self.releasers
        try:
            seen = min(self.want.committed, self.watch.offset)
            out.step(self.watch.size, seen, started=self.watch.started, last_step=self.watch.last_step)
            printed = (self.folder / "stderr.log").stat().st_size
            err.step(printed, printed)
        except OSError:
            pass  # a full disk, say: the log only stays longer than it need be, and it is tried again

    def _reap(self) -> None:
        """Wait for all that are dead; as their reaper we also get the orphans."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self.worker is not None and pid == self.worker.pid:
                code = os.waitstatus_to_exitcode(status)
                self.worker.returncode = code
                self.exit = (code, None) if code >= 0 else (None, -code)

    def _look(self) -> None:
        self.watch.look(time.monotonic())
        if self.watch.last_sign != self._signs:
            self._signs = self.watch.last_sign
            self.alive_at = self.clock.now()
        if self.exit is None and self.usage.look(os.getpid(), time.monotonic()):
            self.usage.notice(excesses(self.order.limits, self._seen()))

    def _enforce(self) -> None:
        if self.exit is not None:
            return
        if self.kill_at is not None:
            if time.monotonic() >= self.kill_at:
                tree.kill_descendants(os.getpid(), self._reap)
            return
        if PAUSE not in self.holds and self.cause is None:
            verdict = over_limit(self.order.limits, self._seen())
            if verdict is not None:
                self._end(verdict)

    def _seen(self) -> Seen:
        running = self.clock.now()
        return Seen(
            ran=running + self.order.elapsed_before,
            silent=running - self.alive_at,
            step=self.watch.last_step,
            log=self.log_bytes(),
            memory=self.usage.memory,
            gpu_memory=self.usage.gpu_memory,
        )

    def log_size(self) -> int:
        """Bytes on stdout now."""
        try:
            return self.watch.path.stat().st_size
        except OSError:
            return self.watch.size

    def log_bytes(self) -> int:
        """Bytes printed on both streams."""
        try:
            return self.watch.size + (self.folder / "stderr.log").stat().st_size
        except OSError:
            return self.watch.size

    def _state(self) -> str:
        if self.cause is not None:
            return "STOPPING"
        return "PAUSED" if PAUSE in self.holds else "RUNNING"

    def _publish(self, state: str) -> None:
        status = {
            "state": state,
            "pid": os.getpid(),
            "worker_pid": self.worker.pid if self.worker else None,
            "last_step": self.watch.last_step,
            "last_heartbeat_at": None,
            "rss": self.usage.memory,
            "peak_rss": self.usage.peak,
            "gpu_memory": self.usage.gpu_memory,
            "peak_gpu_memory": self.usage.peak_gpu_memory,
            "warnings": self.usage.warnings,
            "cpu_seconds": 0.0,
            "log_bytes": self.watch.size,
            "stands_still": self.holds.sentence,
            "held": round(self.holds.seconds, 3),
            "released": self._released(),
        }
        if self.watch.last_sign is not None:
            status["last_heartbeat_at"] = time.time() - (time.monotonic() - self.watch.last_sign)
        try:
            os.write(self._report, json.dumps(status).encode() + b"\n")
        except OSError:
            pass  # nobody reads just now, or any more: the next one tells the same

    def _released(self) -> int:
        found = self.releasers[0].released if self.releasers else None
        return found.size if found is not None else 0

    def _judge(self) -> Verdict:
        assert self.exit is not None
        code, number = self.exit
        after = oom_kills()
        killed = self._oom_before is not None and after is not None and after > self._oom_before
        stderr = last_lines(self.folder / "stderr.log")
        verdict = judge(code, number, stderr, self.watch.ending, self.watch.said, killed)
        return with_figures(verdict, self.order.limits, self.usage.peaks)

    def _seal(self, verdict: Verdict, left: list[int] | None = None) -> Outcome:
        code, number = self.exit or (None, None)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        message = verdict.message
        if left:
            message += f" (the kernel does not let go of processes {', '.join(map(str, left))})"
        outcome = Outcome(
            state=verdict.state,
            code=verdict.code,
            message=message,
            exit_code=code,
            signal=signal_name(number) if number is not None else None,
            started_at=self.started_at,
            ended_at=time.time(),
            duration=round(self.clock.now(), 3),
            peak_rss=max(self.usage.peak, used.ru_maxrss * 1024 if self.worker else 0),
            cpu_seconds=round(used.ru_utime + used.ru_stime, 3),
            last_step=self.watch.last_step,
            stderr_tail=last_lines(self.folder / "stderr.log"),
            retryable=verdict.retryable,
            held=round(self.holds.seconds, 3),
            peak_gpu_memory=self.usage.peak_gpu_memory,
            exhausted=verdict.exhausted,
            warnings=self.usage.warnings,
        )
        return seal(self.folder, self.order.run_id, outcome, self.watch)


def _read_line(descriptor: int) -> bytes:
    """One line, and not a byte more: what follows is read elsewhere."""
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = os.read(descriptor, 1)
        if not byte:
            break
        line += byte
    return bytes(line)


def main() -> int:
    """Run the order on stdin."""
    # Twice removed from the owner: Ray kills the direct children of an actor that it kills, before they can
    # clean up. The lifeline tells us instead.
    if os.fork():
        os._exit(0)
    size = int(_read_line(0) or b"0")
    data = b""
    while len(data) < size:
        piece = os.read(0, size - len(data))
        if not piece:
            return 1
        data += piece
    if not data:
        return 1
    Supervisor(Order.from_dict(json.loads(data)), 0, 1).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())

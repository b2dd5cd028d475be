"""Any program that speaks the interactive protocol, as a policy.

One JSON object a line, on its stdin and stdout; ``mosaic_cluster.worker.interactive`` has the protocol.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import signal
import subprocess
import tempfile
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import IO, Any

from mosaic_cluster.worker._plain import json_text
from mosaic_cluster.worker.errors import PolicyError

START_SECONDS = 300.0
ANSWER_SECONDS = 60.0
CLOSE_SECONDS = 5.0
_TAIL_LINES = 12


class InteractivePolicy:
    """A program that speaks the interactive protocol, behind the interface of a policy.

    Observations are sent as nested lists. Lines of its stdout that are no JSON objects are passed over.

    Args:
        command: the program and its arguments.
        game: name of the game it is asked to play.
        agent: as which of its agents.
        environ: its variables; default: this process's.
        timeout: seconds for each command, from its first byte sent to its answer.
        start_timeout: seconds until it must be ready.

    Attributes:
        games: what it says it plays, else the one it was asked to play.

    Raises:
        PolicyError: it cannot be started, or refuses.
    """

    def __init__(
        self,
        command: Sequence[str],
        game: str,
        *,
        agent: str = "player_0",
        environ: Mapping[str, str] | None = None,
        timeout: float = ANSWER_SECONDS,
        start_timeout: float = START_SECONDS,
    ) -> None:
        self.agent = agent
        self._timeout = timeout
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the policy
        try:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=None if environ is None else dict(environ),
                start_new_session=True,
            )
        except OSError as error:
            self._errors.close()
            raise PolicyError(f"cannot start {command[0]}: {error}") from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin = self._process.stdin
        os.set_blocking(self._stdin.fileno(), False)  # a program that does not read must not hold us
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        threading.Thread(
            target=_read, args=(self._process.stdout, self._lines), name="policy-output", daemon=True
        ).start()
        self._end = weakref.finalize(self, _stop, self._process, self._stdin, self._errors)
        try:
            ready = self._ask(
                {"cmd": "init_agent", "game_name": game, "player_id": agent}, "agent_ready", start_timeout
            )
        except BaseException:
            self.close()
            raise
        games = ready.get("games")
        self.games = tuple(map(str, games)) if isinstance(games, list) and games else (game,)

    def reset(self, seed: int | None = None) -> None:
        """See :class:`~mosaic_cluster.worker.Policy`."""
        self._ask({"cmd": "reset", "seed": seed}, "ready", self._timeout)

    def act(self, observation: Any, action_mask: Any = None) -> Any:
        """See :class:`~mosaic_cluster.worker.Policy`."""
        asked: dict[str, Any] = {"cmd": "select_action", "observation": observation, "player_id": self.agent}
        if action_mask is not None:
            asked["action_mask"] = action_mask
        found = self._ask(asked, "action_selected", self._timeout)
        if "action" not in found:
            raise PolicyError(f"the policy's program selected no action: {found}")
        action = found["action"]
        return _as_array(action) if isinstance(action, list) else action

    def act_batch(self, observations: Any, action_masks: Any = None) -> Any:
        """See :class:`~mosaic_cluster.worker.Policy`. The protocol knows single observations: one after another."""
        masks = [None] * len(observations) if action_masks is None else action_masks
        return _as_array([self.act(seen, mask) for seen, mask in zip(observations, masks, strict=True)])

    def ping(self) -> None:
        """Whether it answers.

        Raises:
            PolicyError: it does not.
        """
        self._ask({"cmd": "ping"}, "pong", self._timeout)

    def close(self) -> None:
        """Tell it to stop; it has some seconds."""
        with contextlib.suppress(OSError, ValueError):
            os.write(self._stdin.fileno(), b'{"cmd":"stop"}\n')
        self._end()

    def __enter__(self) -> InteractivePolicy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, asked: dict[str, Any], wanted: str, seconds: float) -> dict[str, Any]:
        if not self._end.alive:
            raise PolicyError("the policy is closed")
        line = json_text(asked).encode() + b"\n"
        end = time.monotonic() + seconds
        sent = False
        found = None
        try:
            sent = self._send(line, end)
            found = self._answer(wanted, end) if sent else None
        finally:
            if found is None:
                # Its answer may still come, and would be taken for that to the next command.
                self._give_up(sent)
        if found is None:
            raise PolicyError(f"no answer to {asked['cmd']!r} within {seconds:g} s; the policy is closed now")
        if found.get("type") == "error":
            raise PolicyError(f"{asked['cmd']}: {found.get('message', found)}")
        return found

    def _send(self, line: bytes, end: float) -> bool:
        """Send a line; false if it was not taken in time."""
        rest = memoryview(line)
        room = select.poll()
        room.register(self._stdin, select.POLLOUT)
        while rest:
            try:
                rest = rest[os.write(self._stdin.fileno(), rest) :]
            except BlockingIOError:
                if not room.poll(max(0.0, end - time.monotonic()) * 1000):
                    return False
            except OSError:
                raise PolicyError(self._gone()) from None
        return True

    def _answer(self, wanted: str, end: float) -> dict[str, Any] | None:
        """The answer of the wanted type, or an error; ``None`` if it does not come in time."""
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                return None
            if line is None:
                raise PolicyError(self._gone())
            found = _object(line)
            if found is not None and found.get("type") in ("error", wanted):
                return found

    def _give_up(self, sent: bool) -> None:
        if not sent and self._process.poll() is None:  # it does not read, or has half a line
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._end()

    def _gone(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(CLOSE_SECONDS)
        self._errors.seek(0)
        said = [line for line in self._errors.read().decode("utf-8", "replace").splitlines() if line.strip()]
        code = self._process.poll()
        how = "has closed its output" if code is None else f"ended with exit code {code}"
        self._end()
        return "\n".join([f"the policy's program {how}", *said[-_TAIL_LINES:]])


def _read(stream: IO[bytes], lines: queue.SimpleQueue[bytes | None]) -> None:
    with contextlib.suppress(OSError, ValueError), stream:
        for line in stream:
            lines.put(line)
    lines.put(None)


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _as_array(value: Any) -> Any:
    import numpy as np

    return np.asarray(value)


def _stop(process: subprocess.Popen[bytes], stdin: IO[bytes], errors: IO[bytes]) -> None:
    with contextlib.suppress(OSError, ValueError):
        stdin.close()
    try:
        process.wait(CLOSE_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    finally:  # also where the wait was interrupted
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        errors.close()

"""Runs one script of CleanRL's release, as it is, in a process of its own; ``release`` starts it.

::

    python -m cleanrl_worker.script ANSWER ALGO [--dry-run] [--need-gpu] -- FLAGS

First it is seen whether the script takes the flags, whether its environment can be made, and whether the two go
together. What is wrong, or what was found, is written to the file ANSWER, as JSON. Then the script runs as
``python -m cleanrl.<script> FLAGS`` would run it, but that its event files are flushed once a second, not every two
minutes: they tell how it gets on.

Exit codes: 0; 2 where the flags or the environment cannot be used; otherwise the script's own.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import inspect
import io
import json
import os
import runpy
import signal
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from cleanrl_worker.algorithms import ALGORITHMS, SCRIPTS, Script

FLUSH_SECONDS = 1
_PR_SET_PDEATHSIG = 1
_SPACES = {"discrete": "Discrete", "continuous": "Box"}


class Refused(Exception):
    """Args: the setting that is wrong, and what is wrong with it."""


def main(argv: Sequence[str]) -> int:
    """Check and run; see the module."""
    _end_with_parent()
    answer, algo, *more = argv
    at = more.index("--")
    options, flags = more[:at], list(more[at + 1 :])
    script = SCRIPTS[algo]
    name = f"cleanrl.{script.module}"
    import torch
    from torch.utils import tensorboard

    _flush_often(tensorboard)
    sys.argv = [name, *flags]
    try:
        if "--need-gpu" in options and not torch.cuda.is_available():
            told = f"'cuda' was asked for, but torch {torch.__version__} sees no GPU here"
            raise Refused("device", f"{told}; use 'auto' or 'cpu', or ask for a GPU in the run's resources")
        found = check(import_module(name), algo, script)
    except Refused as refused:
        path, message = refused.args
        _answer(answer, {"problems": [[path, message]]})
        return 2
    _answer(answer, {"found": found})
    if "--dry-run" in options:
        return 0
    del sys.modules[name]
    runpy.run_module(name, run_name="__main__", alter_sys=True)
    return 0


def check(module: Any, algo: str, script: Script) -> dict[str, Any]:
    """See whether the script could run with the flags in ``sys.argv``. Returns what was found."""
    args = _parsed(module.parse_args)
    import torch

    make = module.make_env
    wanted = {**vars(args), "idx": 0, "capture_video": False, "run_name": "check"}
    known = {key: wanted[key] for key in inspect.signature(make).parameters}
    library = import_module(script.library)
    try:
        env = make(**known)()
    except Exception as error:  # whatever an environment raises that cannot be made
        told = f"{type(error).__name__}: {error}"
        raise Refused(
            "env_id", f"{script.library} {library.__version__} cannot make {args.env_id!r} for {algo}: {told}"
        ) from error
    try:
        return {"device": "cuda" if args.cuda and torch.cuda.is_available() else "cpu", **_spaces(env, algo, script)}
    finally:
        env.close()


def _parsed(parse: Callable[[], Any]) -> Any:
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return parse()
    except SystemExit as error:
        last = said.getvalue().strip().splitlines()[-1:] or ["it gave no reason"]
        raise Refused("script_arguments", f"the script refuses its flags: {last[0]}") from error
    except AssertionError as error:
        raise Refused("script_arguments", f"the script refuses its flags: {error}") from error


def _spaces(env: Any, algo: str, script: Script) -> dict[str, Any]:
    """The environment's sizes.

    Raises:
        Refused: the script cannot use them.
    """
    actions, observations = env.action_space, env.observation_space
    if type(actions).__name__ != _SPACES[script.actions]:
        kinds = ("discrete",) if type(actions).__name__ == "Discrete" else ("continuous", "bounded")
        fitting = [name for name, other in {**ALGORITHMS, **SCRIPTS}.items() if other.actions in kinds]
        raise Refused(
            "env_id",
            f"{env.spec.id!r} has the action space {actions}, and {algo} takes only {_SPACES[script.actions]} action "
            f"spaces; for others there are {', '.join(fitting)}",
        )
    if type(observations).__name__ != "Box":
        raise Refused("env_id", f"{env.spec.id!r} has the observation space {observations}, and {algo} takes only Box")
    return {"observation_shape": list(observations.shape), "action_space": str(actions)}


def _flush_often(tensorboard: Any) -> None:
    tensorboard.SummaryWriter.__init__ = functools.partialmethod(
        tensorboard.SummaryWriter.__init__, flush_secs=FLUSH_SECONDS
    )


def _answer(path: str, content: dict[str, Any]) -> None:
    Path(path).write_text(json.dumps(content), encoding="utf-8")


def _end_with_parent() -> None:
    """A worker that is killed takes its script along. Linux has this; elsewhere, whoever killed it must do that."""
    with contextlib.suppress(AttributeError, OSError):
        parent = os.getppid()
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

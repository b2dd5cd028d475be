"""From settings to a script's command line, and what is wrong with the flags that somebody gave by hand.

Needs the standard library alone. Where CleanRL's release is installed, a script's flags are read from its source,
without running it.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cleanrl_worker.algorithms import RESERVED, SCRIPTS, flag_of
from mosaic_cluster.worker import Problem

if TYPE_CHECKING:
    from cleanrl_worker.config import CleanRLConfig

PATH = "script_arguments"


def plain_flag(name: str) -> str:
    """``save_model``, ``save-model`` and ``--save-model`` are the same flag: ``save-model``."""
    return name.lstrip("-").replace("_", "-")


def script_file(algo: str) -> Path | None:
    """The script's source, where CleanRL's release is installed for this interpreter."""
    try:
        found = find_spec(f"cleanrl.{SCRIPTS[algo].module}")
    except ModuleNotFoundError:
        return None
    return Path(found.origin) if found is not None and found.origin else None


def script_flags(algo: str) -> list[str] | None:
    """All flags of a script, without dashes; ``None`` where it is not installed."""
    file = script_file(algo)
    if file is None:
        return None
    calls = [node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    added = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "add_argument"]
    names = [argument.value for call in added for argument in call.args if isinstance(argument, ast.Constant)]
    return [name.lstrip("-") for name in names if isinstance(name, str)]


def argument_problems(algo: str, arguments: Mapping[str, Any] | None) -> list[Problem]:
    """What is wrong with the names in ``script_arguments``."""
    settings = {flag_of(name): name for name in (*SCRIPTS[algo].defaults, "gamma")}
    known = script_flags(algo)
    problems = []
    for name in arguments or {}:
        flag = plain_flag(name)
        if flag in RESERVED:
            problems.append(Problem(f"{PATH}.{name}", f"cannot be given here: {RESERVED[flag]}"))
        elif flag in settings:
            problems.append(Problem(f"{PATH}.{name}", f"is the setting {settings[flag]}: give it as that"))
        elif known is not None and flag not in known:
            problems.append(Problem(f"{PATH}.{name}", _unknown(algo, flag, known, settings)))
    return problems


def _unknown(algo: str, flag: str, known: list[str], settings: Mapping[str, str]) -> str:
    near = get_close_matches(flag, known, n=1, cutoff=0.6)
    if near and near[0] in settings:
        return f"{algo} has no such flag; did you mean the setting {settings[near[0]]}?"
    if near:
        return f"{algo} has no such flag; did you mean {near[0]!r}?"
    free = [name for name in known if name not in settings and name not in RESERVED]
    return f"{algo} has no such flag; those that are no settings are {', '.join(free) or 'none'}"


def command_line(config: CleanRLConfig) -> list[str]:
    """The script's flags for a config, which has a seed."""
    script = SCRIPTS[config.algo]
    values = {
        "seed": config.seed,
        "cuda": config.device != "cpu",
        "torch-deterministic": config.torch_deterministic,
        "gamma": config.gamma,
    }
    values.update((flag_of(name), getattr(config, name)) for name in script.defaults)
    values.update((plain_flag(name), value) for name, value in config.script_arguments.items())
    found: list[str] = []
    for flag, value in values.items():
        if value is not None:
            found += [f"--{flag}={value}"]
    return found


def steps_taken(config: CleanRLConfig) -> int:
    """Environment steps that a script takes to its end: those with rollouts leave out a last one that is not whole."""
    if "num_steps" not in SCRIPTS[config.algo].defaults:
        return config.total_steps
    rollout = config.num_envs * config.num_steps
    return config.total_steps // rollout * rollout


__all__ = ["argument_problems", "command_line", "plain_flag", "script_file", "script_flags", "steps_taken"]

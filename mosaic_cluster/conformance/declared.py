"""What a worker declares: asked in throwaway processes, without its library."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from mosaic_cluster.catalog import worker_environment
from mosaic_cluster.catalog.probing import ProbeFailed, probe
from mosaic_cluster.conformance.findings import Failed, NotRun, Warned
from mosaic_cluster.conformance.laboratory import SEED, Laboratory
from mosaic_cluster.worker.errors import WorkerError

_HEAVY = ("torch", "tensorflow", "jax", "ray", "gymnasium", "gym", "pettingzoo", "xuance", "marllib", "mctx", "numpy")
_ASK = """
import importlib, json, sys
module, _, name = sys.argv[1].partition(":")
getattr(importlib.import_module(module), name)()
for part in ("config",):
    try:
        importlib.import_module(module.partition(".")[0] + "." + part)
    except ModuleNotFoundError:
        pass
print(json.dumps([each for each in sys.argv[2:] if each in sys.modules]), file=sys.stderr)
"""


def discovery(lab: Laboratory) -> None:
    """It is registered under mosaic.workers, once, and its entry point can be loaded."""
    try:
        _ = lab.entry
    except WorkerError as error:
        raise Failed(str(error), "install its package, and look at the entry point in its pyproject.toml") from None


def metadata(lab: Laboratory) -> None:
    """Its metadata say who it is: name, version and description."""
    entry = lab.usable
    assert entry.metadata is not None
    missing = [name for name in ("name", "version", "description") if not getattr(entry.metadata, name)]
    if missing:
        raise Failed(f"its metadata have no {', '.join(missing)}", "fill them in, in get_worker_metadata")
    if entry.metadata.version != entry.version:
        raise Warned(
            f"get_worker_metadata says version {entry.metadata.version}, its distribution {entry.version}",
            'take the version from one place: [tool.setuptools.dynamic] version = {attr = "<package>.__version__"}',
        )
    empty = [name for name in ("author", "license") if not getattr(entry.metadata, name)]
    if empty:
        raise Warned(f"its metadata have no {', '.join(empty)}", "fill them in, in get_worker_metadata")


def capabilities(lab: Laboratory) -> None:
    """Its capabilities can be planned with: what it plays, how many agents, CPUs and memory."""
    needs = lab.usable.capabilities
    assert needs is not None
    wrong = [f"{name} is empty" for name in ("worker_type",) if not getattr(needs, name)]
    for name in ("supported_paradigms", "env_families", "action_spaces", "observation_spaces"):
        value = getattr(needs, name)
        if not value or isinstance(value, str):
            wrong.append(f"{name} is {value!r}")
    for name in ("max_agents", "cpu_cores", "estimated_memory_mb"):
        value = getattr(needs, name)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or value <= 0:
            wrong.append(f"{name} is {value!r}")
    if needs.requires_gpu and not needs.gpu_memory_mb:
        raise Warned("it requires a GPU and does not say how much of its memory", "set gpu_memory_mb: GPUs are shared")
    if wrong:
        raise Failed("; ".join(wrong), "placement plans with what get_worker_metadata declares")


def light_discovery(lab: Laboratory) -> None:
    """It is discovered, and its config checked, without loading its library."""
    entry = lab.usable
    names = [*_HEAVY, *filter(None, [(entry.metadata.upstream_library if entry.metadata else None)])]
    names = [name for name in names if name and name.isidentifier() and name != entry.package]
    lab.folder.mkdir(parents=True, exist_ok=True)  # not here, where a folder may be named as the package is
    done = subprocess.run(
        [sys.executable, "-c", _ASK, entry.value, *names],
        env=worker_environment(os.environ),
        cwd=lab.folder, capture_output=True, text=True, timeout=lab.case.seconds, check=False,
    )  # fmt: skip
    try:
        loaded = json.loads(done.stderr.splitlines()[-1])
    except (ValueError, IndexError):
        raise NotRun(
            f"the process that loaded it ended with exit code {done.returncode}: {done.stderr[-300:]}"
        ) from None
    if loaded:
        raise Warned(
            f"{entry.value} or {entry.package}.config imports {', '.join(loaded)}",
            "import the library in the functions that need it: listing workers and checking specs load no library",
        )


def config_fields(lab: Laboratory) -> None:
    """The fields of its config are known, with run_id and seed among them, and what each means."""
    entry = lab.usable
    fields = entry.config_fields
    if fields is None:
        raise Warned(
            "no dataclass was found that its config is built from",
            f"put one with from_dict and to_dict in {entry.package}.config: specs are checked against it",
        )
    names = [each.name for each in fields]
    missing = [name for name in ("run_id", "seed") if name not in names]
    if missing:
        raise Failed(f"its config has no {' and no '.join(missing)}", "every run has both")
    silent = [each.name for each in fields if not each.help]
    untyped = [each.name for each in fields if not each.type]
    if silent or untyped:
        words = [f"{', '.join(silent)}: no help"] if silent else []
        words += [f"{', '.join(untyped)}: no type"] if untyped else []
        raise Warned("; ".join(words), "declare them with config_field(default, help=..., unit=..., min=...)")


def config_round_trip(lab: Laboratory) -> None:
    """from_dict(to_dict()) of its config is the same config."""
    first = _checked(lab, {**lab.case.config, "run_id": "round-trip", "seed": SEED})
    second = _checked(lab, first)
    changed = sorted(name for name in {*first, *second} if first.get(name) != second.get(name))
    if changed:
        words = "; ".join(f"{name}: {first.get(name)!r} became {second.get(name)!r}" for name in changed)
        raise Failed(words, "to_dict must give what from_dict takes")
    wrong = [name for name, value in (("run_id", "round-trip"), ("seed", SEED)) if first.get(name) != value]
    if wrong:
        raise Failed(f"to_dict() does not have the {' and the '.join(wrong)} that was given", "keep both")


def _checked(lab: Laboratory, config: Mapping[str, Any]) -> dict[str, Any]:
    (answer,) = ask_all(lab, [config])
    if answer["error"]:
        raise NotRun(f"its config cannot be built from outside: {answer['error']}")
    if answer["problems"]:
        words = "; ".join(f"{each['path']}: {each['message']}" for each in answer["problems"])
        raise Failed(f"it refuses its own config {dict(config)}: {words}", "give a config that it takes: --config FILE")
    if answer["normalised"] is None:
        raise Failed("its config has no to_dict()", "give it one: what a run was made with is kept")
    return dict(answer["normalised"])


def ask_all(lab: Laboratory, configs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the worker's config class says to configs, asked in one process."""
    try:
        answers: list[dict[str, Any]] = probe(
            lab.usable.python, ["check", "--package", lab.usable.package], config=list(configs)
        )["answers"]
        return answers
    except ProbeFailed as error:
        raise Failed(f"its config could not be checked: {error}") from None


CHECKS = (discovery, metadata, capabilities, light_discovery, config_fields, config_round_trip)

"""Policies from checkpoints, through the loaders that workers register under ``mosaic.policies``."""

from __future__ import annotations

import difflib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mosaic_cluster.catalog import Catalog, Ready, make_ready
from mosaic_cluster.catalog.code_folder import code_folder
from mosaic_cluster.worker.analytics import MANIFEST, WorkerAnalyticsManifest
from mosaic_cluster.worker.discovery import Registration, duplicate, registrations
from mosaic_cluster.worker.errors import BrokenWorker, ConfigError, PolicyError, Problem, WorkerNotFound
from mosaic_cluster.worker.policy import POLICY_ENTRY_POINT_GROUP, Policy
from mosaic_cluster.worker.policy_client import serve_policy
from mosaic_cluster.worker.policy_server import load_from_entry


@dataclass(frozen=True)
class PolicyEntry:
    """A registered loader of policies.

    Attributes:
        name: of its entry point, the worker's; value: what that names, ``"my_worker.policy:load_policy"``.
        distribution: the installed distribution that registers it; version: of that.
        error: why it cannot be used: two distributions claim the name, or its module is not there.
    """

    name: str
    value: str
    distribution: str
    version: str
    error: str | None = None

    @property
    def package(self) -> str:
        """Top package of the loader."""
        return self.value.partition(":")[0].strip().partition(".")[0]


def policy_entries() -> tuple[PolicyEntry, ...]:
    """All registered loaders, sorted by name, those that cannot be used with their error. Imports none of them."""
    return tuple(_entry(name, claims) for name, claims in sorted(_registered().items()))


def load_policy(
    worker: str,
    checkpoint: str | os.PathLike[str],
    *,
    game: str | None = None,
    agent: str | None = None,
    device: str = "cpu",
    options: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    own_process: bool = False,
) -> Policy:
    """A policy from a worker's checkpoint.

    It runs in this process where its worker has no environment of its own, else in a process of that environment
    (which is built if it is not there yet), behind the same interface; then it has ``close()``, and ends with this
    process at the latest.

    Args:
        worker: name of the worker, as ``mosaic workers`` lists it.
        checkpoint: a file or folder that a run of it announced; or the run's folder, whose best one is taken.
        game: what it is to play; default: what it was trained for.
        agent: as which of the game's agents.
        device: ``"cpu"``, ``"cuda"``, ...
        options: more keywords for the worker's loader.
        config: of the run that left the checkpoint: where a worker has several environments, it says which. Default:
            the ``config.json`` of the run's folder, if the checkpoint lies in one.
        own_process: never in this process.

    Raises:
        WorkerNotFound: no worker registers policies under that name.
        DuplicateWorker: two distributions claim it.
        BrokenWorker: its loader cannot be imported.
        ConfigError: the policy refuses the game, the checkpoint or the options.
        EnvironmentFailed: the worker's environment cannot be built or used.
        PolicyError: it cannot be loaded.
    """
    entry = _only(worker)
    path = str(Path(checkpoint).absolute()) if str(checkpoint) else ""
    if path and not Path(path).exists():
        raise ConfigError([Problem("checkpoint", f"there is no {path}")])
    path = _best_in(path)
    more = dict(options or {})
    ready = _place(entry, config if config is not None else _config_of(path))
    if own_process or ready.declared is not None:
        if ready.engine is not None:
            raise PolicyError(f"the policies of {worker!r} run in a container image, from which none is served")
        return serve_policy(
            entry.value,
            path,
            python=ready.python,
            game=game,
            agent=agent,
            device=device,
            options=more,
            environ={**ready.variables(os.environ), **ready.declared_variables},
        )
    return _here(entry, path, {"game": game, "agent": agent, "device": device, **more})


def _place(policies: PolicyEntry, config: Mapping[str, Any]) -> Ready:
    """What a worker's policies run in."""
    catalog = Catalog()
    if policies.name not in catalog.names():  # whoever has policies need not train any
        return Ready(sys.executable)
    entry = catalog.get(policies.name)
    ready = make_ready(entry.name, entry.distribution, entry.package, entry.environment_for(config))
    if ready.declared is None or (policies.distribution, policies.package) == (entry.distribution, entry.package):
        return ready
    # The loader may come from another distribution than the worker, of which its environment would know nothing.
    return replace(ready, path=(*ready.path, code_folder(policies.distribution, policies.package)))


def _best_in(path: str) -> str:
    """The checkpoint that a run's manifest calls the best, if this is a run's folder; else the path itself."""
    manifest = Path(path, MANIFEST)
    if not path or not manifest.is_file():
        return path
    artifacts = WorkerAnalyticsManifest.load(manifest).artifacts
    named = artifacts.checkpoints.best_checkpoint if artifacts.checkpoints is not None else None
    if named is None:
        raise ConfigError([Problem("checkpoint", f"the run in {path} has no checkpoint (its {MANIFEST} names none)")])
    found = Path(path, named)
    if not found.exists():
        raise ConfigError([Problem("checkpoint", f"there is no {found}, which {manifest} calls the best")])
    return str(found)


def _config_of(path: str) -> Mapping[str, Any]:
    """The config of the run in whose folder a checkpoint lies; empty if that is not known."""
    for folder in list(Path(path).parents)[:4] if path else ():
        try:
            found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        return found if isinstance(found, dict) else {}
    return {}


def _here(entry: PolicyEntry, path: str, keywords: dict[str, Any]) -> Policy:
    try:
        loaded: Policy = load_from_entry(entry.value, path, **keywords)
    except (ConfigError, PolicyError):
        raise
    except ImportError as error:
        words = f"the policies of {entry.name!r} ({entry.value}) cannot be loaded here: {type(error).__name__}: {error}"
        raise BrokenWorker(words) from error
    except Exception as error:
        words = f"{entry.value} failed with {path or 'no checkpoint'}: {type(error).__name__}: {error}"
        raise PolicyError(words) from error
    return loaded


def _registered() -> dict[str, list[Registration]]:
    found: dict[str, list[Registration]] = {}
    for claim in registrations(POLICY_ENTRY_POINT_GROUP):
        found.setdefault(claim.name, []).append(claim)
    return found


def _entry(name: str, claims: list[Registration]) -> PolicyEntry:
    claim = claims[0]
    error = str(duplicate(name, claims, "policy loader")) if len(claims) > 1 else _missing(claim)
    return PolicyEntry(name, claim.value, claim.distribution, claim.version, error)


def _missing(claim: Registration) -> str | None:
    """Whether there is such a package at all; whether its library is there is known when a policy is loaded."""
    import importlib.util

    module, _, function = claim.value.partition(":")
    package = module.strip().partition(".")[0]
    if not function.strip() or not package:
        return f"{claim.value!r} names no function: write it as package.module:function"
    try:
        there = importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        there = False
    return None if there else f"there is no package {package!r}, which {claim.distribution} names"


def _only(worker: str) -> PolicyEntry:
    registered = _registered()
    claims = registered.get(worker)
    if not claims:
        near = difflib.get_close_matches(worker, registered, n=1)
        known = ", ".join(sorted(registered)) or "none does"
        hint = f"did you mean {near[0]!r}?" if near else f"these do: {known}"
        raise WorkerNotFound(f"no installed worker registers policies as {worker!r}; {hint}")
    if len(claims) > 1:
        raise duplicate(worker, claims, "policy loader")
    entry = _entry(worker, claims)
    if entry.error is not None:
        raise BrokenWorker(f"the policies of {worker!r}: {entry.error}")
    return entry

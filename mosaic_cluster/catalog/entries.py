"""The installed workers, by their entry points."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from mosaic_cluster.catalog.contract_folder import contract_digest
from mosaic_cluster.catalog.environments import FILE, Environment, choose, read_environments
from mosaic_cluster.catalog.probing import ProbeFailed, probe
from mosaic_cluster.catalog.sources import distribution_of, package_file, package_places
from mosaic_cluster.storage import cache_folder
from mosaic_cluster.worker.capabilities import WorkerCapabilities, WorkerMetadata
from mosaic_cluster.worker.discovery import Registration, duplicate, registrations
from mosaic_cluster.worker.errors import BrokenWorker, DuplicateWorker, InvalidInput, Problem, WorkerNotFound


@dataclass(frozen=True)
class ConfigField:
    """One setting of a worker's config.

    Attributes:
        type: as text; required: whether it must be given; default: JSON-ready, if it need not be.
        help: what it means; unit: of its value.
        min, max: smallest and largest possible value; exclusive_min: the value must be greater than this.
        choices: all possible values.
    """

    name: str
    type: str
    required: bool = False
    default: Any = None
    help: str | None = None
    unit: str | None = None
    min: float | None = None
    max: float | None = None
    exclusive_min: float | None = None
    choices: tuple[Any, ...] | None = None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ConfigField:
        """From what the probe says."""
        known = {each.name: data[each.name] for each in fields(cls) if each.name in data}
        if known.get("choices") is not None:
            known["choices"] = tuple(known["choices"])
        return cls(**known)


@dataclass(frozen=True)
class WorkerEntry:
    """A registered worker.

    Attributes:
        name: of its entry point; value: what that names, ``"my_worker:get_worker_metadata"``.
        distribution: the installed distribution that registers it; version: of that.
        package: top package; python: interpreter it runs with.
        metadata, capabilities: what it declares; ``None`` where it is broken.
        config_fields: its settings; ``None`` where they are not known.
        has_cli: whether it is started by ``python -m <package>.cli``.
        environments: what its processes run in; none: the interpreter that mosaic_cluster is installed in.
        error: why it cannot be used.
    """

    name: str
    value: str
    distribution: str
    version: str
    package: str
    python: str
    metadata: WorkerMetadata | None = None
    capabilities: WorkerCapabilities | None = None
    config_fields: tuple[ConfigField, ...] | None = None
    has_cli: bool = False
    supports_dry_run: bool | None = None
    environments: tuple[Environment, ...] = ()
    error: str | None = None

    def environment_for(self, config: Mapping[str, Any]) -> Environment | None:
        """What a run with this config runs in; ``None``: the interpreter that mosaic_cluster is installed in."""
        defaults = {each.name: each.default for each in self.config_fields or () if not each.required}
        return choose(self.environments, config, defaults)

    @property
    def usable(self) -> bool:
        """Whether a run of it can be started."""
        return self.error is None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        data = asdict(self)
        data["metadata"] = self.metadata.to_dict() if self.metadata else None
        data["capabilities"] = self.capabilities.to_dict() if self.capabilities else None
        data["environments"] = [each.to_dict() for each in self.environments]
        return data


@dataclass
class Catalog:
    """The workers installed beside a Python interpreter.

    Args:
        python: the interpreter; this one by default.
        cache_dir: where answers are kept; the user's cache by default.
    """

    python: str = sys.executable
    cache_dir: Path | None = None
    _entries: dict[str, WorkerEntry] = field(default_factory=dict, repr=False)

    def names(self) -> list[str]:
        """Names of all registered workers, sorted. Loads none of them."""
        return sorted(self._registered())

    def entries(self) -> tuple[WorkerEntry, ...]:
        """All registered workers, sorted by name, the broken ones with their error."""
        return tuple(self._entry(name, claims) for name, claims in sorted(self._registered().items()))

    def get(self, name: str) -> WorkerEntry:
        """One worker that can be used.

        Raises:
            WorkerNotFound: none of that name is installed.
            DuplicateWorker: two distributions claim the name.
            BrokenWorker: it cannot be loaded.
        """
        registered = self._registered()
        if name not in registered:
            raise WorkerNotFound(_not_found(name, list(registered)))
        if len(registered[name]) > 1:
            raise duplicate(name, registered[name])
        entry = self._entry(name, registered[name])
        if entry.error is not None:
            owner = f"{entry.distribution} {entry.version}"
            raise BrokenWorker(f"the worker {name!r} of {owner} ({entry.value}) cannot be loaded: {entry.error}")
        return entry

    def find_by_module(self, module: str) -> WorkerEntry | None:
        """The worker whose package holds ``module``, if exactly one does."""
        package = module.partition(".")[0]
        found = [
            name
            for name, claims in self._registered().items()
            if any(claim.value.partition(":")[0].strip().partition(".")[0] == package for claim in claims)
        ]
        return self.get(found[0]) if len(found) == 1 else None

    def check_config(self, entry: WorkerEntry, config: Mapping[str, Any]) -> list[Problem]:
        """What the worker itself says is wrong with a config; see :meth:`check_configs`."""
        return self.check_configs(entry, [config])[0]

    def check_configs(self, entry: WorkerEntry, configs: Sequence[Mapping[str, Any]]) -> list[list[Problem]]:
        """What the worker itself says is wrong with configs; its class is asked, in one throwaway process for all.

        Args:
            configs: complete, with ``run_id`` and ``seed``.

        Returns:
            For each config its problems, with paths below ``config``; none if it is fine, or the worker cannot tell.
        """
        try:
            answers = probe(entry.python, ["check", "--package", entry.package], config=list(configs))["answers"]
        except ProbeFailed as error:
            problem = Problem("config", f"the worker {entry.name!r} could not check it: {error}")
            return [[problem] for _ in configs]
        return [self._problems(entry, answer) for answer in answers]

    def _problems(self, entry: WorkerEntry, answer: Mapping[str, Any]) -> list[Problem]:
        if answer["error"] is not None:
            # A package with a CLI need not have a config class that we can find: it will say so itself.
            if entry.has_cli and entry.config_fields is None:
                return []
            return [Problem("config", f"the worker {entry.name!r} could not check it: {answer['error']}")]
        found = [Problem(_below(item["path"]), item["message"]) for item in answer["problems"]]
        found += [Problem(f"config.{name}", self._ignored(entry, name)) for name in answer["ignored"]]
        return found

    def _ignored(self, entry: WorkerEntry, name: str) -> str:
        """A setting dropped without a word would train for a day with the default."""
        known = [each.name for each in entry.config_fields or ()]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"`mosaic workers show {entry.name}` lists its settings"
        return f"the worker {entry.name!r} has no such setting and would ignore it; {hint}"

    def _registered(self) -> dict[str, list[Registration]]:
        found: dict[str, list[Registration]] = {}
        for claim in registrations():
            found.setdefault(claim.name, []).append(claim)
        return found

    def _entry(self, name: str, claims: list[Registration]) -> WorkerEntry:
        if name not in self._entries:
            self._entries[name] = self._load(name, claims)
        return self._entries[name]

    def _load(self, name: str, claims: list[Registration]) -> WorkerEntry:
        claim = claims[0]
        plain = WorkerEntry(name, claim.value, claim.distribution, claim.version, _package_of(claim), self.python)
        if len(claims) > 1:
            return _with(plain, {"error": str(duplicate(name, claims))})
        return _with_environments(self._described(plain, claim), claim)

    def _described(self, plain: WorkerEntry, claim: Registration) -> WorkerEntry:
        """With what the package says of itself, now or when it was asked before."""
        cached = self._cache_file(claim)
        try:
            return _with(plain, json.loads(cached.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, KeyError):
            pass
        try:
            answer = probe(self.python, ["describe", "--entry", claim.value, "--name", plain.name])
        except ProbeFailed as error:
            return _with(plain, {"error": str(error)})
        entry = _with(plain, answer)
        if entry.error is None:  # what is broken may be mended without a new version
            _keep(cached, answer)
        return entry

    def _cache_file(self, claim: Registration) -> Path:
        """Named by all that the answer depends on."""
        stamp = [
            claim.name,
            claim.value,
            claim.distribution,
            claim.version,
            self.python,
            sys.version,
            contract_digest(),
            *_sources_of(claim),
        ]
        key = hashlib.sha256("\0".join(stamp).encode()).hexdigest()[:24]
        return (self.cache_dir or cache_folder()) / "catalog" / f"{key}.json"


def _with(plain: WorkerEntry, answer: Mapping[str, Any]) -> WorkerEntry:
    error = answer.get("error")
    described = answer.get("config_fields")
    about, needs = answer.get("metadata"), answer.get("capabilities")
    return WorkerEntry(
        name=plain.name,
        value=plain.value,
        distribution=plain.distribution,
        version=plain.version,
        package=answer.get("package") or plain.package,
        python=plain.python,
        metadata=WorkerMetadata(**about) if about else None,
        capabilities=WorkerCapabilities.from_dict(needs) if needs else None,
        config_fields=None if described is None else tuple(ConfigField.from_dict(each) for each in described),
        has_cli=bool(answer.get("has_cli")),
        supports_dry_run=answer.get("supports_dry_run"),
        error=error,
    )


def _package_of(claim: Registration) -> str:
    """Top package of a worker."""
    return claim.value.partition(":")[0].strip().partition(".")[0]


def _with_environments(entry: WorkerEntry, claim: Registration) -> WorkerEntry:
    """With what it declares beside its code; read anew each time, and without importing anything."""
    distribution = distribution_of(claim.distribution)
    path = None if distribution is None else package_file(distribution, entry.package, FILE)
    if path is None:
        return entry
    try:
        found = read_environments(path)
    except InvalidInput as error:
        return replace(entry, error=entry.error or str(error))
    problems = list(_unknown_fields(entry, found))
    if problems:
        return replace(entry, error=entry.error or str(InvalidInput(problems, str(path))))
    return replace(entry, environments=found)


def _unknown_fields(entry: WorkerEntry, environments: Sequence[Environment]) -> Iterator[Problem]:
    """Conditions on fields that the worker's config does not have can never hold."""
    known = [each.name for each in entry.config_fields or ()]
    for index, each in enumerate(environments):
        for path in each.when:
            field_name = path.partition(".")[0]
            if known and field_name not in known:
                near = difflib.get_close_matches(field_name, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}"
                yield Problem(f"environment[{index}].when.{path}", f"the worker's config has no {field_name!r}; {hint}")


def _sources_of(claim: Registration) -> Iterator[str]:
    """Where the package lies, and when its files changed: an editable install changes under one version."""
    distribution = distribution_of(claim.distribution)
    if distribution is None:
        return
    yield str(distribution.locate_file(""))
    for place in dict.fromkeys(package_places(distribution, _package_of(claim))):
        for path in [place.with_suffix(".py"), *sorted(place.rglob("*.py"))]:
            try:
                yield f"{path} {path.stat().st_mtime_ns}"
            except OSError:
                continue


def _keep(path: Path, answer: Mapping[str, Any]) -> None:
    """Write the cache; that it cannot be written costs time, nothing else."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = path.with_name(f"{path.name}.{os.getpid()}")
        staged.write_text(json.dumps(answer), encoding="utf-8")
        os.replace(staged, path)
    except OSError:
        return


def _not_found(name: str, known: list[str]) -> str:
    if not known:
        return f"there is no worker {name!r}: none is installed (pip install a package that registers one)"
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"there is no worker {name!r}; {hint}installed: {', '.join(sorted(known))}"


def _below(path: str) -> str:
    return f"config.{path}" if path else "config"


__all__ = ["BrokenWorker", "Catalog", "ConfigField", "DuplicateWorker", "WorkerEntry", "WorkerNotFound"]

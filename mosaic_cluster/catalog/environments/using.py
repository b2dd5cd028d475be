"""Starting a process of a worker in the environment that its run needs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mosaic_cluster.catalog.code_folder import code_folder
from mosaic_cluster.catalog.contract_folder import contract_folder
from mosaic_cluster.catalog.environments.building import Report, build, locate
from mosaic_cluster.catalog.environments.containers import container_command, find_engine
from mosaic_cluster.catalog.environments.declared import Environment
from mosaic_cluster.catalog.environments.interpreters import Interpreter, probe_interpreter
from mosaic_cluster.catalog.environments.surroundings import plain_variables, with_python
from mosaic_cluster.catalog.launching import is_ours, worker_environment
from mosaic_cluster.worker.errors import EnvironmentFailed

_KEPT = ("PYTHONHASHSEED", "PYTHONFAULTHANDLER")
"""Of the variables that steer Python, those that mean the same to any."""


@dataclass(frozen=True)
class Ready:
    """An environment in which processes of a worker can be started now.

    Attributes:
        python: its interpreter; of a container, by its name in the image.
        declared: what the worker declares; ``None``: the interpreter of mosaic_cluster itself.
        path: folders on ``PYTHONPATH``.
        needs: variables without which the interpreter does not start.
        engine: the program that runs containers, where it is an image.
    """

    python: str
    declared: Environment | None = None
    path: tuple[Path, ...] = ()
    needs: Mapping[str, str] = field(default_factory=dict)
    engine: str | None = None

    def variables(self, base: Mapping[str, str]) -> dict[str, str]:
        """Environment variables of a process, from those of the process that starts it.

        Without the worker's declared ones: see :attr:`declared_variables`.

        Args:
            base: usually ``os.environ``.
        """
        if self.declared is None:
            return worker_environment(base)
        found = plain_variables(base)
        ours = {name: value for name, value in base.items() if name.startswith("MOSAIC_") and not is_ours(name)}
        found.update(ours, **{name: base[name] for name in _KEPT if name in base})
        if self.engine is None:
            found = with_python(found, Path(self.python), self.needs)
        found["PYTHONPATH"] = os.pathsep.join(map(str, self.path))
        return found

    @property
    def declared_variables(self) -> Mapping[str, str]:
        """What the worker declares for its processes."""
        return {} if self.declared is None else self.declared.variables

    def command(
        self,
        command: Sequence[str],
        *,
        name: str,
        cwd: str,
        variables: Mapping[str, str],
        write: Sequence[Path] = (),
        gpu: bool = False,
    ) -> list[str]:
        """The command as it is started: as it is, but where it runs in a container.

        Args:
            name: of the container.
            variables: of the process.
            write: folders that it writes to.
            gpu: whether it has one.
        """
        if self.engine is None or self.declared is None or self.declared.image_uri is None:
            return list(command)
        image = self.declared.image_uri.removeprefix("docker://")
        return container_command(
            self.engine, image, command, name=name, cwd=cwd, variables=variables, read=self.path, write=write, gpu=gpu
        )


def make_ready(
    worker: str,
    distribution: str,
    package: str,
    environment: Environment | None,
    *,
    report: Report | None = None,
    cancelled: Callable[[], bool] | None = None,
    cache_dir: Path | None = None,
) -> Ready:
    """What it takes to start a worker's process on this machine; what is missing is built.

    Args:
        worker: its registered name.
        distribution: the installed distribution that registers it; package: its top package.
        environment: the one that was chosen for the run; ``None``: the interpreter of this process.
        report: told how far building is.
        cancelled: whether to give up.

    Raises:
        EnvironmentFailed: it cannot be had.
    """
    if environment is None:
        return Ready(sys.executable)
    path = (contract_folder(cache_dir), code_folder(distribution, package, cache_dir))
    if environment.image_uri is not None:
        python = f"python{environment.python[0]}" if environment.python else "python3"
        return Ready(python, environment, path, engine=find_engine())
    if environment.interpreter is not None:
        return Ready(named_interpreter(environment), environment, path)
    built = build(locate(worker, environment, cache_dir), report=report, cancelled=cancelled)
    return Ready(str(built.python), environment, path, dict(built.variables))


def named_interpreter(environment: Environment) -> str:
    """The executable that an environment names, once it has been seen to start.

    Raises:
        EnvironmentFailed: it does not, or is too old for the contract.
    """
    assert environment.interpreter is not None
    path = Path(os.path.expandvars(environment.interpreter)).expanduser()
    found = probe_interpreter(path, "interpreter")
    if not isinstance(found, Interpreter):
        raise EnvironmentFailed(f"the interpreter {path} that the worker's environment names {found}")
    if tuple(map(int, found.minor.split("."))) < (3, 8):
        raise EnvironmentFailed(
            f"the interpreter {path} is Python {found.version}; the worker contract needs 3.8 or later"
        )
    return str(path)

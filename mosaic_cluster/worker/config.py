"""Reading a worker's config file.

The file is JSON: either the worker's own settings, or a trainer's payload that holds them at
``metadata.worker.config``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Type, TypeVar, Union, overload

from mosaic_cluster.worker.config_fields import build_config, config_field, config_problems, describe_config
from mosaic_cluster.worker.errors import ConfigError, Problem

_T = TypeVar("_T")
_Path = Union[str, "os.PathLike[str]"]

_KINDS = {type(None): "null", bool: "true or false", str: "text", list: "a list", int: "a number", float: "a number"}


@overload
def load_worker_config_from_file(path: _Path) -> Dict[str, Any]: ...


@overload
def load_worker_config_from_file(path: _Path, config_class: Type[_T]) -> _T: ...


def load_worker_config_from_file(path: _Path, config_class: Optional[Type[Any]] = None) -> Any:
    """Read a worker's settings from a JSON file.

    Args:
        path: the file.
        config_class: a class with ``from_dict``, to get an instance of it instead of a dict.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be read.
        ConfigError: it is not JSON (with line and column), or not an object, or the settings are not there.
        TypeError: ``config_class`` has no ``from_dict``. Whatever ``from_dict`` raises is let through.
    """
    if config_class is not None and not callable(getattr(config_class, "from_dict", None)):
        raise TypeError(f"{config_class.__name__} needs a class method from_dict(data)")
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no config file {path}") from None
    except UnicodeDecodeError as error:
        problem = Problem("", f"not UTF-8 text: {error}")
        raise ConfigError([problem], heading=f"the config file {path}") from error
    try:
        config = extract_worker_config(_parse(text))
    except ConfigError as error:
        raise ConfigError(error.problems, heading=f"the config file {path}") from None
    return config if config_class is None else config_class.from_dict(config)


def extract_worker_config(payload: Any) -> Dict[str, Any]:
    """A worker's settings out of a trainer's payload; settings that stand alone are given back as they are.

    Raises:
        ConfigError: the payload is not an object, or has a ``metadata.worker`` without a ``config`` object.
    """
    if not isinstance(payload, Mapping):
        raise _refused("", f"must be a JSON object, not {_kind(payload)}")
    metadata = payload.get("metadata")
    worker = metadata.get("worker") if isinstance(metadata, Mapping) else None
    if worker is None:
        return dict(payload)
    if not isinstance(worker, Mapping):
        raise _refused("metadata.worker", f"must be an object with a 'config', not {_kind(worker)}")
    if "config" not in worker:
        there = ", ".join(sorted(map(str, worker))) or "nothing"
        raise _refused("metadata.worker.config", f"is missing: the settings belong there (there is {there})")
    config = worker["config"]
    if not isinstance(config, Mapping):
        raise _refused("metadata.worker.config", f"must be an object, not {_kind(config)}")
    return dict(config)


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise _refused("", f"not JSON: {error.msg} at {place}") from error
    except (ValueError, RecursionError) as error:
        raise _refused("", f"not JSON that can be read: {error}") from error


def _refused(path: str, message: str) -> ConfigError:
    return ConfigError([Problem(path, message)])


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), type(value).__name__)


__all__ = [
    "build_config",
    "config_field",
    "config_problems",
    "describe_config",
    "extract_worker_config",
    "load_worker_config_from_file",
]

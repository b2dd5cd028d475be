"""Finding the parts of a worker package: its config class, its loader, its runtime."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import inspect
import logging
import re
import sys
import traceback
from types import ModuleType
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Tuple, Type, TypeVar

from mosaic_cluster.worker._plain import to_plain
from mosaic_cluster.worker.capabilities import WorkerCapabilities, WorkerMetadata
from mosaic_cluster.worker.errors import BrokenWorker, InvalidInput, Problem

_T = TypeVar("_T")
_LOGGER = logging.getLogger(__name__)

CONFIG_MISTAKES = (ValueError, TypeError, KeyError, AssertionError)
"""What building a config raises when the values are to blame."""

_RETURNED = "(WorkerMetadata, WorkerCapabilities)"


def call_entry(entry: str) -> Tuple[WorkerMetadata, WorkerCapabilities]:
    """Load ``"package.module:attribute"``, call it, and check what it returns.

    The two may be of other classes that have the same fields.

    Raises:
        BrokenWorker: there is no such attribute, or it returns something else.
        Exception: whatever the worker's own code raises.
    """
    module_name, _, attribute = entry.split("[")[0].strip().partition(":")
    found: Any = importlib.import_module(module_name.strip())
    for name in filter(None, attribute.strip().split(".")):
        if not hasattr(found, name):
            raise BrokenWorker(f"{module_name} has no {attribute!r}; an entry point names a function")
        found = getattr(found, name)
    if not callable(found):
        raise BrokenWorker(f"{entry} is {found!r}; it must be a function that returns {_RETURNED}")
    result = found()
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        raise BrokenWorker(f"{entry} returned {result!r}; it must return {_RETURNED}")
    first, second = result
    if hasattr(first, "worker_type") and not hasattr(second, "worker_type"):
        raise BrokenWorker(f"{entry} returned the capabilities first; it must return {_RETURNED}")
    return (
        _taken_over(first, WorkerMetadata, "name", entry),
        _taken_over(second, WorkerCapabilities, "worker_type", entry),
    )


def _taken_over(value: Any, kind: Type[_T], mark: str, entry: str) -> _T:
    if isinstance(value, kind):
        return value
    if not hasattr(value, mark):
        raise BrokenWorker(f"{entry} returned {value!r} for {kind.__name__}; it has no {mark!r}")
    names = [spec.name for spec in dataclasses.fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: getattr(value, name) for name in names if hasattr(value, name)})


def part(package: str, name: str) -> Optional[ModuleType]:
    """The module ``package.name``, imported; ``None`` if there is none."""
    if not has_part(package, name):
        return None
    try:
        return importlib.import_module(f"{package}.{name}")
    except NameError as error:
        if name == "config" or not has_part(package, "config"):
            raise
        return _import_with_config(package, name, error)


def _import_with_config(package: str, name: str, error: NameError) -> ModuleType:
    """Import a module that uses its package's config class without importing it.

    The guide's quick start, copied into files as it is printed, does that in its annotations.
    """
    config = importlib.import_module(f"{package}.config")
    found = re.match(r"name '(\w+)' is not defined", str(error))  # Python 3.8 has no NameError.name
    missing = found.group(1) if found else ""
    spec = find_part(package, name)
    if not hasattr(config, missing) or spec.loader is None:
        raise error
    _LOGGER.warning("%s.%s uses %s without importing it; taken from %s.config", package, name, missing, package)
    module = importlib.util.module_from_spec(spec)
    setattr(module, missing, getattr(config, missing))
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    return module


def has_part(package: str, name: str) -> bool:
    """Whether there is a module ``package.name``. Imports the package, not the module."""
    return find_part(package, name) is not None


def find_part(package: str, name: str) -> Any:
    """The import spec of ``package.name``, or ``None``."""
    module = importlib.import_module(package)
    if not hasattr(module, "__path__"):
        return None
    return importlib.util.find_spec(f"{package}.{name}")


def config_loader(package: str) -> Optional[Callable[[Any], Any]]:
    """``load_worker_config`` of the package or of its ``config`` module."""
    for module in _places(package, "config"):
        loader = getattr(module, "load_worker_config", None)
        if callable(loader):
            return loader  # type: ignore[no-any-return]
    return None


def config_class(package: str) -> type:
    """The one class that configures a run of this worker.

    It is what ``load_worker_config`` says it returns; else the one class with ``from_dict`` and ``to_dict``
    in the package's ``config`` module, else in the package itself. Of several, those with a ``run_id`` count.

    Raises:
        BrokenWorker: there is none, or no telling which.
    """
    loader = config_loader(package)
    returned = _returned_class(loader) if loader else None
    if returned is not None:
        return returned
    for module in _places(package, "config"):
        both = ("from_dict", "to_dict")
        classes = [cls for cls in _classes(module, package) if all(_has(cls, name) for name in both)]
        if len(classes) > 1:
            classes = [cls for cls in classes if "run_id" in _field_names(cls)] or classes
        if classes:
            return _only(classes, package, "config class (from_dict and to_dict)", "load_worker_config(path)")
    raise BrokenWorker(
        f"{package} has no config class: define one with from_dict and to_dict in {package}.config, "
        f"or load_worker_config(path) there"
    )


def runtime_class(package: str) -> type:
    """The one class that executes a run: it has ``run()`` and is made with a config.

    Looked for in the package's ``runtime`` module, then in the package. Of several, those that the package
    itself exports count.

    Raises:
        BrokenWorker: there is none, or no telling which.
    """
    for module in _places(package, "runtime"):
        classes = [cls for cls in _classes(module, package) if _has(cls, "run") and _config_parameter(cls)]
        if len(classes) > 1:
            exported = vars(importlib.import_module(package))
            classes = [cls for cls in classes if exported.get(cls.__name__) is cls] or classes
        if classes:
            return _only(classes, package, "runtime class (run())", f"a module {package}.cli with a main()")
    raise BrokenWorker(
        f"{package} has no runtime class: define one with run() and __init__(self, config) "
        f"in {package}.runtime, or a module {package}.cli"
    )


def make_runtime(cls: type, config: Any, *, dry_run: bool) -> Any:
    """``cls(config)``, with ``dry_run`` where it takes that."""
    parameter = _config_parameter(cls)
    extra: Dict[str, Any] = {"dry_run": dry_run} if accepts_dry_run(cls) else {}
    if parameter is not None and parameter.kind is inspect.Parameter.KEYWORD_ONLY:
        return cls(**{parameter.name: config}, **extra)
    return cls(config, **extra)


def accepts_dry_run(cls: type) -> bool:
    """Whether the class's constructor takes ``dry_run``."""
    return any(parameter.name == "dry_run" for parameter in _parameters(cls))


def mistakes(error: BaseException, fields: Iterable[str]) -> List[Problem]:
    """What an exception from building a config says is wrong, with the field it names as path.

    Args:
        error: the exception.
        fields: names of the config's fields.
    """
    if isinstance(error, InvalidInput):
        return error.problems
    text = str(error)
    if isinstance(error, KeyError) and len(error.args) == 1:
        return [Problem(str(error.args[0]), "is required")]
    if isinstance(error, AssertionError) and not text:
        frame = traceback.extract_tb(error.__traceback__)[-1:]
        text = f"does not hold: {frame[0].line}" if frame else "an assertion failed"
    if isinstance(error, TypeError):
        missing = re.search(r"missing \d+ required .*arguments?: (.+)$", text)
        if missing:
            return [Problem(name, "is required") for name in re.findall(r"'(\w+)'", missing.group(1))]
        unexpected = re.search(r"unexpected keyword argument '([^']+)'", text)
        if unexpected:
            return [Problem(unexpected.group(1), "there is no such setting")]
    named = [name for name in fields if re.search(rf"\b{re.escape(name)}\b", text)]
    path = named[0] if len(named) == 1 else ""
    known = isinstance(error, CONFIG_MISTAKES)
    return [Problem(path, (text or type(error).__name__) if known else f"{type(error).__name__}: {text}")]


def field_names(cls: type) -> List[str]:
    """Names of a config class's fields, as far as it declares them."""
    return sorted(_field_names(cls))


def as_dict(config: Any) -> Optional[Mapping[str, Any]]:
    """A config's ``to_dict()`` as plain JSON values; ``None`` if it has none."""
    to_dict = getattr(config, "to_dict", None)
    if callable(to_dict):
        plain = to_plain(to_dict())
        return plain if isinstance(plain, dict) else None
    return None


def _places(package: str, name: str) -> List[ModuleType]:
    """Where to look, the likelier place first."""
    module = part(package, name)
    root = importlib.import_module(package)
    return [root] if module is None else [module, root]


def _classes(module: ModuleType, package: str) -> List[type]:
    """Concrete classes of this package in a module, the imported ones of the package included, each once."""
    found: List[type] = []
    for value in vars(module).values():
        if not isinstance(value, type) or value in found:
            continue
        if value.__module__ != package and not value.__module__.startswith(package + "."):
            continue
        if inspect.isabstract(value) or getattr(value, "_is_protocol", False):
            continue
        found.append(value)
    own = [cls for cls in found if cls.__module__ == module.__name__]
    return own or found


def _has(cls: type, method: str) -> bool:
    return callable(getattr(cls, method, None))


def _field_names(cls: type) -> List[str]:
    names = list(getattr(cls, "__dataclass_fields__", {}))
    if not names:
        names = [name for base in cls.__mro__ for name in getattr(base, "__annotations__", {})]
        names += [parameter.name for parameter in _parameters(cls)]
    return sorted(set(names))


def _parameters(cls: type) -> List[inspect.Parameter]:
    try:
        return list(inspect.signature(cls).parameters.values())
    except (TypeError, ValueError):
        return []


def _config_parameter(cls: type) -> Optional[inspect.Parameter]:
    """The constructor's parameter that takes the config, if no other (but ``dry_run``) must be given."""
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = [item for item in _parameters(cls) if item.kind not in variadic]
    named = [item for item in parameters if item.name in ("config", "cfg", "worker_config")]
    positional = [item for item in parameters if item.kind is not inspect.Parameter.KEYWORD_ONLY]
    chosen = (named or positional or [None])[0]  # type: ignore[list-item]
    others = [item for item in parameters if item is not chosen and item.name != "dry_run"]
    return None if any(item.default is inspect.Parameter.empty for item in others) else chosen


def _returned_class(loader: Callable[..., Any]) -> Optional[type]:
    annotation = getattr(loader, "__annotations__", {}).get("return")
    if isinstance(annotation, str):
        module = sys.modules.get(getattr(loader, "__module__", ""))
        annotation = getattr(module, annotation.strip("'\""), None)
    return annotation if isinstance(annotation, type) and _has(annotation, "from_dict") else None


def _only(classes: List[type], package: str, what: str, remedy: str) -> type:
    if len(classes) == 1:
        return classes[0]
    names = ", ".join(sorted(f"{cls.__module__}.{cls.__name__}" for cls in classes))
    raise BrokenWorker(f"{package} has more than one {what}: {names}; say which by providing {remedy}")


__all__ = [
    "CONFIG_MISTAKES",
    "accepts_dry_run",
    "as_dict",
    "call_entry",
    "config_class",
    "config_loader",
    "field_names",
    "find_part",
    "has_part",
    "make_runtime",
    "mistakes",
    "part",
    "runtime_class",
]

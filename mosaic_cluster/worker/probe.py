"""Answers questions about a worker package by loading it: always in a process that is thrown away afterwards.

The answer is one JSON document in the file ``--out``, since libraries print what they like on stdout::

    python -m mosaic_cluster.worker.probe describe --entry my_worker:get_worker_metadata --name my --out FILE
    python -m mosaic_cluster.worker.probe check --package my_worker --out FILE < config.json

``describe`` writes ``metadata``, ``capabilities``, ``package``, ``has_cli``, ``supports_dry_run``,
``config_class`` (``"module:Class"``), ``config_fields`` (what ``describe_config`` gives), ``config_error``
(why there is no config class) and ``error``.

``check`` is given one config, or a list of them, and answers likewise. For each it writes ``problems`` (each a
``path`` and a ``message``), ``normalised`` (the config as the worker understood it), ``ignored`` (settings that
the worker dropped without a word) and ``error``.

Everything is ``null`` where it is not known; ``error`` is text where the package itself is broken. The exit
code is 0 whenever the document was written.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence

from mosaic_cluster.worker import _locate
from mosaic_cluster.worker._plain import to_plain
from mosaic_cluster.worker.config_fields import describe_config
from mosaic_cluster.worker.errors import MosaicError
from mosaic_cluster.worker.runner import Unusable, build_config, load_config

_TAIL_LINES = 12
_DRY_RUN_WORDS = ("--dry-run", "dry_run", "create_base_parser")


def describe(entry: str, name: str) -> Dict[str, Any]:
    """What a worker says about itself and its config.

    Args:
        entry: ``"package.module:attribute"`` of its entry point.
        name: of its entry point.
    """
    package = entry.partition(":")[0].strip().partition(".")[0]
    answer: Dict[str, Any] = {
        "name": name,
        "package": package,
        "metadata": None,
        "capabilities": None,
        "has_cli": None,
        "config_class": None,
        "config_fields": None,
        "config_error": None,
        "supports_dry_run": None,
        "error": None,
    }
    try:
        metadata, capabilities = _locate.call_entry(entry)
        answer["metadata"] = metadata.to_dict()
        answer["capabilities"] = capabilities.to_dict()
        cli = _locate.find_part(package, "cli")
        answer["has_cli"] = cli is not None
    except (Exception, SystemExit) as error:  # noqa: BLE001 - that it is broken is the answer
        answer["error"] = _error_text(error)
        return answer
    try:
        cls = _locate.config_class(package)
        answer["config_class"] = f"{cls.__module__}:{cls.__qualname__}"
        answer["config_fields"] = describe_config(cls) if hasattr(cls, "__dataclass_fields__") else None
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a worker can run without our knowing its config
        answer["config_error"] = _error_text(error)
    answer["supports_dry_run"] = _supports_dry_run(package, cli)
    return answer


def check(package: str, data: Any) -> Dict[str, Any]:
    """Whether a worker accepts a config.

    Args:
        package: the worker's.
        data: the config, with ``run_id`` and ``seed``.
    """
    answer: Dict[str, Any] = {"problems": [], "normalised": None, "ignored": [], "error": None}
    if not isinstance(data, Mapping):
        answer["problems"] = [{"path": "", "message": f"must be an object, not {type(data).__name__}"}]
        return answer
    try:
        config = _build(package, data)
        normalised = _locate.as_dict(config)
    except Unusable as error:
        answer["problems"] = [item.to_dict() for item in error.problems]
        return answer
    except (Exception, SystemExit) as error:  # noqa: BLE001 - that it is broken is the answer
        answer["error"] = _error_text(error)
        return answer
    answer["normalised"] = normalised
    if normalised is not None:
        known = set(normalised) | set(_locate.field_names(type(config)))
        answer["ignored"] = sorted(str(key) for key in data if key not in known)
    return answer


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Answer one question; see the module."""
    args = _arguments(argv)
    if args.question == "describe":
        answer = describe(args.entry, args.name)
    else:
        try:
            data = json.load(sys.stdin)
        except (ValueError, RecursionError) as error:
            sys.stderr.write(f"stdin must hold the config as JSON: {error}\n")
            return 2
        if isinstance(data, list):
            answer = {"answers": [check(args.package, each) for each in data]}
        else:
            answer = check(args.package, data)
    _write(args.out, answer)
    return 0


def _arguments(argv: Optional[Sequence[str]]) -> Any:
    import argparse

    parser = argparse.ArgumentParser(
        prog="python -m mosaic_cluster.worker.probe", description="Answers questions about a worker package."
    )
    questions = parser.add_subparsers(dest="question", required=True)
    describing = questions.add_parser("describe", help="what it says about itself")
    describing.add_argument("--entry", required=True, metavar="MODULE:ATTRIBUTE", help="its entry point")
    describing.add_argument("--name", required=True, help="the entry point's name")
    checking = questions.add_parser("check", help="whether it accepts the config on stdin")
    checking.add_argument("--package", required=True, help="its package")
    for question in (describing, checking):
        question.add_argument("--out", required=True, type=Path, metavar="FILE", help="where the answer goes")
    return parser.parse_args(argv)


def _build(package: str, data: Mapping[str, Any]) -> Any:
    """As the runner would; a worker that can only read files gets one."""
    try:
        _locate.config_class(package)
    except MosaicError:
        if _locate.config_loader(package) is None:
            raise
        with tempfile.TemporaryDirectory(prefix="mosaic-check-") as folder:
            path = Path(folder, "config.json")
            path.write_text(json.dumps(data), encoding="utf-8")
            return load_config(package, path)
    return build_config(package, data)


def _supports_dry_run(package: str, cli: Any) -> Optional[bool]:
    """Told from the source of ``cli`` (importing it may load a whole library), else from the runtime."""
    try:
        if cli is None:
            return _locate.accepts_dry_run(_locate.runtime_class(package))
        source = Path(cli.origin).read_text(encoding="utf-8", errors="replace")
        return any(word in source for word in _DRY_RUN_WORDS)
    except (Exception, SystemExit):  # noqa: BLE001 - then it is not known
        return None


def _error_text(error: BaseException) -> str:
    if isinstance(error, MosaicError) and error.__cause__ is None:
        return str(error)
    told = traceback.format_exception(type(error), error, error.__traceback__)
    lines: List[str] = "".join(told).splitlines()
    return "\n".join([f"{type(error).__name__}: {error}", *lines[-_TAIL_LINES:]])


def _write(path: Path, answer: Mapping[str, Any]) -> None:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    unfinished.write_text(json.dumps(to_plain(answer), allow_nan=False), encoding="utf-8")
    os.replace(unfinished, path)


if __name__ == "__main__":
    sys.exit(main())

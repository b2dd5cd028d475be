"""The BALROG benchmark itself, where it is installed: ``backend: balrog``.

What is used of it is what its own ``eval.py`` uses: the configuration ``balrog/config/config.yaml``,
``balrog.agents.AgentFactory(config)`` and ``balrog.evaluator.EvaluatorManager(config, original_cwd=, output_dir=)``
with ``run(agent_factory)``. It runs as a process of its own (:mod:`barlog_worker.balrog_program`) and writes a JSON
file per finished episode, ``<env>/<task>/<task>_run_<n>.json``, which is followed here; where such a file is there,
BALROG does not play the episode again.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from barlog_worker.config import BarlogConfig
from barlog_worker.endpoint import blot
from barlog_worker.records import Record
from mosaic_cluster.worker import ConfigError, Problem, WorkerSession

if TYPE_CHECKING:
    from barlog_worker.runtime import BarlogRuntime

LOGGER = logging.getLogger(__name__)

NAMES = {"babyai": "babyai", "crafter": "crafter", "textworld": "textworld", "nethack": "nle"}
"""What BALROG calls our worlds."""
LOOK_SECONDS = 0.5
LEAVE_SECONDS = 10.0
"""How long BALROG may take to end once it is told to."""

_FILE = re.compile(r"_run_(\d+)\.json\Z")


def check_installed() -> None:
    """Refuse where there is no BALROG.

    Raises:
        ConfigError: it cannot be imported; or what is installed under its name is another package.
    """
    problem = _missing()
    if problem:
        raise ConfigError([Problem("backend", problem)])


def _missing() -> str:
    there = (
        f"install BALROG from a copy of its repository (github.com/balrog-ai/BALROG) into {sys.executable}'s "
        "environment, or use backend: builtin"
    )
    if importlib.util.find_spec("balrog") is None:
        return f"'balrog' was asked for, but BALROG is not installed here; {there}"
    try:
        parts = [importlib.util.find_spec(f"balrog.{name}") for name in ("evaluator", "agents")]
    except (ImportError, AttributeError, ValueError):
        parts = [None]
    if not all(parts):
        return (
            "'balrog' was asked for, but the package balrog that is installed here has no balrog.evaluator: PyPI's "
            f"package of that name is another one; {there}"
        )
    return ""


def overrides(config: BarlogConfig, environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """What our settings are in BALROG's configuration. No key is among them."""
    names = [NAMES[world] for world in config.worlds]
    return {
        "agent": {
            "type": config.agent,
            "max_history": config.history,
            "max_text_history": config.history,
            "max_cot_history": config.thoughts,
            "max_image_history": config.image_history if config.vision else 0,
        },
        "eval": {
            "num_workers": config.concurrency,
            "num_episodes": dict.fromkeys(names, config.episodes),
            "max_steps_per_episode": config.max_steps,
            "icl_episodes": config.demonstration_episodes,
            **({"icl_dataset": str(Path(config.demonstrations).absolute())} if config.demonstrations else {}),
        },
        "client": {
            "client_name": _client_name(config, environ),
            "model_id": config.model,
            "base_url": config.base_url,
            "timeout": config.timeout,
            "max_retries": config.max_retries + 1,  # it counts the first try, too
            "delay": config.retry_delay,
            "generate_kwargs": {"temperature": config.temperature, "max_tokens": config.max_tokens},
        },
        "envs": {"names": "-".join(names)},
    }


def _client_name(config: BarlogConfig, environ: Mapping[str, str]) -> str:
    """Which of BALROG's clients speaks to an OpenAI-compatible endpoint.

    ``openai`` knows only OpenAI's own address; of those that take ``base_url``, ``vllm`` sends no key, and ``nvidia``
    sends the one in ``OPENAI_API_KEY``.
    """
    if not environ.get(config.api_key_env):
        return "vllm"
    return "openai" if urlsplit(config.base_url).hostname == "api.openai.com" else "nvidia"


def evaluate(runtime: BarlogRuntime, session: WorkerSession) -> None:
    """Run BALROG, and keep its episodes as they are finished.

    Raises:
        RuntimeError: it failed, or ended with episodes missing.
    """
    config = runtime.config
    folder = session.run_dir / "balrog"
    folder.mkdir(parents=True, exist_ok=True)
    known = set(runtime.finished_names())
    request = folder / "request.json"
    request.write_text(json.dumps({"output_dir": str(folder / "results"), "overrides": overrides(config)}, indent=2))
    said = folder / "balrog.log"
    with said.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "barlog_worker.balrog_program", str(request)],
            cwd=folder, env=_environment(config), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,  # it forks: all of it is ended together
        )  # fmt: skip
        try:
            while process.poll() is None and not session.stopping:
                _collect(runtime, session, folder / "results", known)
                runtime.beat(session)
                time.sleep(LOOK_SECONDS)
        finally:
            _end(process)
    _collect(runtime, session, folder / "results", known)
    if not session.stopping:
        _judge(process.returncode, folder, known, said, os.environ.get(config.api_key_env, "").strip())


def _environment(config: BarlogConfig) -> dict[str, str]:
    """The key goes on in the environment, under the name that the OpenAI library looks for."""
    environ = dict(os.environ)
    key = environ.get(config.api_key_env, "")
    if key:
        environ["OPENAI_API_KEY"] = key
    return environ


def _end(process: subprocess.Popen[bytes]) -> None:
    """All of its group: gently, then not."""
    for number, patience in ((signal.SIGTERM, LEAVE_SECONDS), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue


def _collect(runtime: BarlogRuntime, session: WorkerSession, results: Path, known: set[str]) -> None:
    for path, world, task, number in _files(results, runtime.config):
        name = f"{world}/{_safe(task)}/{number:03d}"
        if name in known:
            continue
        try:
            log = json.loads(path.read_text())
        except ValueError:
            continue  # it is being written
        known.add(name)
        record = _record(runtime.config, log, name=name, world=world, task=task, number=number, index=len(known) - 1)
        session.step += record["steps"]
        runtime.finish(session, record)


def _files(results: Path, config: BarlogConfig) -> Iterator[tuple[Path, str, str, int]]:
    """Episode files, their worlds, tasks and numbers. Tasks may hold slashes, and are folders then."""
    for world in config.worlds:
        root = results / NAMES[world]
        for path in sorted(root.rglob("*.json")):
            number = _FILE.search(path.name)
            if number:
                yield path, world, _task(root, path), int(number.group(1))


def _task(root: Path, path: Path) -> str:
    """``<root>/<task>/<task>_run_00.json``, where a task ``a/b`` makes it ``<root>/a/b/a/b_run_00.json``."""
    parts = path.parent.relative_to(root).parts
    last = _FILE.sub("", path.name)
    whole: list[str] = [*parts, last]
    half = len(whole) // 2
    return "/".join(whole[:half] if whole[:half] == whole[half:] else parts)


def _safe(task: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", task)


def _record(config: BarlogConfig, log: Mapping[str, Any], **who: Any) -> Record:
    """In our form; progression is a share there, and in percent here."""
    usage = {
        "prompt_tokens": int(log.get("input_tokens") or 0),
        "completion_tokens": int(log.get("output_tokens") or 0),
    }
    cost = (usage["prompt_tokens"] * config.price_prompt + usage["completion_tokens"] * config.price_completion) / 1e6
    done = bool(log.get("done"))
    return {
        **who,
        "seed": log.get("seed"),
        "run_seed": None,
        "agent": config.agent,
        "model": config.model,
        "progression": round(100.0 * float(log.get("progression") or 0.0), 4),
        "return": float(log.get("episode_return") or 0.0),
        "steps": int(log.get("num_steps") or 0),
        "terminated": done,
        "truncated": not done,
        "invalid_actions": len(log.get("failed_candidates") or []),
        "usage": usage,
        "cost": cost,
        "details": {"backend": "balrog"},
        "seconds": None,
    }


def _judge(status: int, folder: Path, known: set[str], log: Path, key: str) -> None:
    """Whether it did all it was to do: it goes on past episodes that fail, and only logs them."""
    if status != 0:
        raise RuntimeError(
            f"BALROG ended with status {status}; its last words: {_last_words(log, key)} (all of them: {log})"
        )
    expected = json.loads((folder / "expected.json").read_text())
    missing = sorted({f"{NAMES_BACK[name]}/{_safe(task)}/{n:03d}" for name, task, n in expected} - known)
    if missing:
        raise RuntimeError(
            f"BALROG finished without {len(missing)} of {len(expected)} episodes, such as {missing[0]}; its last "
            f"words: {_last_words(log, key)} (all of them: {log})"
        )


NAMES_BACK = {name: world for world, name in NAMES.items()}


def _last_words(log: Path, key: str) -> str:
    text = blot(log.read_text(errors="replace"), key)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-3:]) or "none"


__all__ = ["check_installed", "evaluate", "overrides"]

"""Asking a worker package, in a process that is thrown away afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mosaic_cluster.catalog.launching import worker_environment

PROBE_SECONDS = 180.0
_TAIL = 12


class ProbeFailed(Exception):
    """The process gave no answer; the message says what it did instead."""


def probe(
    python: str,
    arguments: Sequence[str],
    *,
    config: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    timeout: float = PROBE_SECONDS,
) -> dict[str, Any]:
    """The answer of ``python -m mosaic_cluster.worker.probe``.

    Args:
        python: interpreter of the worker's environment.
        arguments: the question, without ``--out``.
        config: one, or several; goes to stdin, as JSON.
        timeout: seconds to wait; importing some libraries takes a minute on a network file system.

    Raises:
        ProbeFailed: there was no answer.
    """
    with tempfile.TemporaryDirectory(prefix="mosaic-probe-") as folder:
        out = Path(folder, "answer.json")
        environment = worker_environment(os.environ)
        # No GPU is to be touched for a question.
        environment["CUDA_VISIBLE_DEVICES"] = ""
        command = [python, "-m", "mosaic_cluster.worker.probe", *arguments, "--out", str(out)]
        try:
            done = subprocess.run(
                command,
                input=json.dumps(config) if config is not None else "",
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
                cwd=folder,
                env=environment,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ProbeFailed(f"importing it takes longer than {timeout:g} s") from None
        except OSError as error:
            raise ProbeFailed(f"cannot start {python}: {error}") from error
        try:
            answer: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise ProbeFailed(_what_happened(done)) from None
    return answer


def _what_happened(done: subprocess.CompletedProcess[str]) -> str:
    ended = f"killed by signal {-done.returncode}" if done.returncode < 0 else f"exited with code {done.returncode}"
    lines = [line for line in done.stderr.splitlines() if line.strip()][-_TAIL:]
    return "\n".join([f"the process that imported it {ended} without an answer", *lines])

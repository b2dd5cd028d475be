"""What the tests of this worker share: its environment, its command line, PettingZoo's games."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from mosaic_cluster.catalog.environments import FILE, Ready, choose, make_ready, read_environments

PACKAGE = Path(__file__).parent.parent / "mctx_worker"

# Small enough that compiling takes most of the time.
SMALL: dict[str, Any] = json.loads((PACKAGE / "conformance.json").read_text())["config"]


def environment(config: Mapping[str, Any] = SMALL) -> Ready:
    """The worker's own environment, built if it is not there yet."""
    chosen = choose(read_environments(PACKAGE / FILE), config)
    return make_ready("mctx", "mosaic-mctx-worker", "mctx_worker", chosen)


def variables(ready: Ready, **more: str) -> dict[str, str]:
    """Environment variables of a process in it, on this machine's CPUs."""
    return {**ready.variables(os.environ), "CUDA_VISIBLE_DEVICES": "", **more}


def quick(folder: Path) -> dict[str, str]:
    """Variables for runs so small that compiling takes longest: not optimised, and once for all processes.

    Args:
        folder: where what was compiled is kept.
    """
    return {
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
        "JAX_COMPILATION_CACHE_DIR": str(folder),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def command(ready: Ready, folder: Path, config: Mapping[str, Any], *args: str) -> list[str]:
    """The command line of a run, as a supervisor starts it; its config is written to the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.json"
    path.write_text(json.dumps({"run_id": "r1", **config}))
    return [ready.python, "-m", "mctx_worker.cli", "--config", str(path), *args]


def train(
    ready: Ready, folder: Path, config: Mapping[str, Any], *args: str, timeout: float = 170, **environ: str
) -> subprocess.CompletedProcess[str]:
    """A run, to its end."""
    line = command(ready, folder, config, *args)
    env = variables(ready, MOSAIC_RUN_DIR=str(folder), **environ)
    return subprocess.run(line, cwd=folder, env=env, capture_output=True, text=True, timeout=timeout, check=False)


def events(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """Lines of stdout, all of which must be telemetry."""
    return [json.loads(line) for line in done.stdout.splitlines()]


def named(done: subprocess.CompletedProcess[str], name: str) -> list[dict[str, Any]]:
    """Payloads of the events of that name."""
    return [line["payload"] for line in events(done) if line.get("event") == name]


def pettingzoo_game(name: str, **options: Any) -> Any:
    """A fresh PettingZoo environment."""
    return import_module(f"pettingzoo.classic.{name}").env(**options)


def record(name: str, count: int, seed: int, **options: Any) -> dict[str, np.ndarray]:
    """Random games of PettingZoo, one row per move.

    Returns:
        ``observations``, ``masks``, ``actions``, ``players`` (0 began), ``starts``, ``ends``, and ``rewards`` of
        both players for the move.
    """
    random = np.random.default_rng(seed)
    env = pettingzoo_game(name, **options)
    rows: list[tuple[Any, ...]] = []
    for _ in range(count):
        env.reset(seed=0)
        start = True
        while not (env.terminations[env.agent_selection] or env.truncations[env.agent_selection]):
            agent = env.agent_selection
            seen = env.observe(agent)
            action = int(random.choice(np.flatnonzero(seen["action_mask"])))
            env.step(action)
            end = any(env.terminations.values())
            rewards = [float(env.rewards[each]) for each in env.possible_agents]
            player = env.possible_agents.index(agent)
            rows.append((seen["observation"], seen["action_mask"], action, player, start, end, rewards))
            start = False
    names = ("observations", "masks", "actions", "players", "starts", "ends", "rewards")
    return {each: np.array(column) for each, column in zip(names, zip(*rows, strict=True), strict=True)}


def play_many(name: str, policy: Any, count: int, seed: int, seat: int) -> np.ndarray:
    """Games of a policy against a random player, side by side, over PettingZoo's own environments.

    Args:
        seat: 0: the policy begins.

    Returns:
        its results, shape ``(count,)``.
    """
    random = np.random.default_rng(seed)
    envs = [pettingzoo_game(name) for _ in range(count)]
    for env in envs:
        env.reset(seed=0)
    results = np.zeros(count)
    running = dict(enumerate(envs))
    while running:
        running = {number: env for number, env in running.items() if not any(env.terminations.values())}
        mine = [number for number, env in running.items() if env.agent_selection == env.possible_agents[seat]]
        seen = {number: env.observe(env.agent_selection) for number, env in running.items()}
        moves = {number: int(random.choice(np.flatnonzero(each["action_mask"]))) for number, each in seen.items()}
        if mine:
            boards = np.stack([seen[number]["observation"] for number in mine])
            masks = np.stack([seen[number]["action_mask"] for number in mine])
            chosen = np.asarray(policy.act_batch(boards, masks))
            moves.update(zip(mine, map(int, chosen), strict=True))
        for number, env in running.items():
            env.step(moves[number])
            results[number] += env.rewards[env.possible_agents[seat]]
    return results

"""``mosaic-random --config run.json``, or ``python -m random_worker.cli --config run.json``.

With ``--interactive`` it speaks the interactive protocol on stdin and stdout instead; ``--config`` may then be left
out, and each ``init_agent`` names its game.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mosaic_cluster.worker import WorkerCLI, run_program
from mosaic_cluster.worker.interactive import InteractiveAgent, run_interactive
from random_worker.config import RandomConfig


def main(argv: Sequence[str] | None = None) -> int:
    """Run one config; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if "--interactive" in words:
        return _interactive(words)
    return run_program("mosaic-random", "Plays at random, or by a script.", RandomConfig, _make_runtime, words)


def _make_runtime(config: RandomConfig, **options: Any) -> Any:
    from random_worker.runtime import RandomRuntime

    return RandomRuntime(config, **options)


def _interactive(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="mosaic-random --interactive")
    parser.add_argument("--interactive", action="store_true", help="speak the interactive protocol")
    parser.add_argument("--config", type=Path, metavar="FILE", help="which policy, and the environment of `step`")
    parser.add_argument("-v", "--verbose", action="store_true", help="log debug messages too")
    args = parser.parse_args(words)
    WorkerCLI.setup_logging(args.verbose)
    config = RandomConfig(run_id="interactive")
    if args.config is not None:
        try:
            config = WorkerCLI.load_and_validate_config(args.config, RandomConfig)
        except (ValueError, OSError) as error:
            sys.stderr.write(f"{error}\n")
            return 2

    def load(game: str | None, player: str) -> Any:
        from random_worker.policy import load_policy

        agent = None if player == "player_0" else player
        return load_policy("", game=game or config.env_id, agent=agent, policy=config.policy, script=config.script)

    return run_interactive(InteractiveAgent(load, lambda seed: _steps(config, seed)))


def _steps(config: RandomConfig, seed: int | None) -> Iterator[dict[str, Any]]:
    """One episode in the config's environment, a dict a step."""
    from random_worker import envs
    from random_worker.policy import BaselinePolicy

    environment = envs.make(config.env_id, config.api, config.env_kwargs)
    script = config.script if config.policy == "scripted" else None
    try:
        policies = {
            agent: BaselinePolicy(config.env_id, environment.action_space(agent), script)
            for agent in environment.agents
        }
        for number, policy in enumerate(policies.values()):
            policy.reset(None if seed is None else seed + number)
        totals = dict.fromkeys(policies, 0.0)
        first = 0 if seed is None else seed
        played = environment.episode(lambda agent, seen, mask: policies[agent].act(seen, mask), first)
        for length, step in enumerate(played, start=1):
            for agent, reward in step.rewards.items():
                totals[agent] += reward
            found = {"step_index": length - 1, "rewards": step.rewards, "terminated": step.terminated}
            found |= {"truncated": step.truncated}
            if step.ended:
                found |= {"type": "episode_end", "steps": length, "returns": totals}
            yield found
    finally:
        environment.close()


if __name__ == "__main__":
    sys.exit(main())

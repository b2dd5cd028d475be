"""Playing one episode: observe, ask, act, and write down each step."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from barlog_worker.agents import AGENTS, Agent, Decision
from barlog_worker.config import BarlogConfig
from barlog_worker.endpoint import Closed, Message, Reply, Usage
from barlog_worker.records import Episode, Record
from barlog_worker.worlds.base import Demonstration, Game, Observation, World


class Stopped(Exception):
    """The episode was left before its end."""


class Asks(Protocol):
    """What an agent asks: a :class:`barlog_worker.endpoint.ChatClient`."""

    def ask(self, messages: Sequence[Message], *, seed: int | None = None) -> Reply:
        """The answer to a conversation."""
        ...


@dataclass
class StepLine:
    """What one step was, for telemetry.

    Attributes:
        usage: of this step alone.
        named: whether the reply named an action; true for the dummy.
    """

    episode: Episode
    step: int
    action: str
    reward: float
    terminated: bool
    truncated: bool
    named: bool
    usage: Usage = field(default_factory=Usage)


@dataclass
class Player:
    """Plays episodes of a world, one at a time per call; several threads may call at once.

    Attributes:
        client: asked by all agents but the dummy.
        folder: where the lines of steps go, below the episode's name.
        stop: set when episodes are to be left.
        report: called after each step.
    """

    config: BarlogConfig
    client: Asks | None
    folder: Path
    run_seed: int
    stop: threading.Event
    report: Callable[[StepLine], None]

    def play(self, world: World, episode: Episode, demonstrations: Sequence[Demonstration] = ()) -> Record:
        """Play to the end.

        Returns:
            the episode's record: plain JSON values.

        Raises:
            Stopped: it was left.
            EndpointError: nobody answers.
        """
        vision = self.config.vision and world.has_images
        game = world.make(episode.task, episode.seed, vision=vision)
        path = self.folder / f"{episode.name}.steps.jsonl"
        part = path.with_name(f".{path.name}.part")
        part.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("w") as lines:
                record = self._play(game, episode, demonstrations, vision, lines)
            os.replace(part, path)
        finally:
            game.close()
            part.unlink(missing_ok=True)
        return record

    def _play(
        self, game: Game, episode: Episode, demonstrations: Sequence[Demonstration], vision: bool, lines: Any
    ) -> Record:
        config = self.config
        began = time.monotonic()
        agent = None if config.agent == "dummy" else self._agent(game, demonstrations, vision)
        rng = random.Random(episode.seed)
        total, invalid, usage = 0.0, 0, Usage()
        observation = game.reset()
        limit = config.max_steps or game.max_steps
        terminated = truncated = False
        step = 0
        while not (terminated or truncated):
            if self.stop.is_set():
                raise Stopped
            action, decision, reply = self._decide(game, agent, observation, rng)
            result = game.step(action)
            total += result.reward
            invalid += decision.action is None
            terminated, truncated = result.terminated, result.truncated or (step + 1 >= limit and not result.terminated)
            line = StepLine(
                episode, step, action, result.reward, terminated, truncated, decision.action is not None, reply.usage
            )
            lines.write(json.dumps(_written(line, observation, decision, reply)) + "\n")
            if agent is not None:
                usage.add(reply.usage)
                agent.remember(observation, decision, action, reply.text)
            self.report(line)
            observation = result.observation
            step += 1
        return {
            "name": episode.name,
            "index": episode.index,
            "world": episode.world,
            "task": episode.task,
            "number": episode.number,
            "seed": episode.seed,
            "run_seed": self.run_seed,
            "agent": config.agent,
            "model": config.model,
            "progression": round(game.progression(), 4),
            "return": round(total, 6),
            "steps": step,
            "terminated": terminated,
            "truncated": truncated,
            "invalid_actions": invalid,
            "usage": usage.to_dict(),
            "cost": usage.cost(config.price_prompt, config.price_completion),
            "details": dict(game.details()),
            "seconds": round(time.monotonic() - began, 3),
        }

    def _agent(self, game: Game, demonstrations: Sequence[Demonstration], vision: bool) -> Agent:
        config = self.config
        return AGENTS[config.agent](
            game,
            history=config.history,
            thoughts=config.thoughts,
            image_history=config.image_history if vision else 0,
            demonstrations=demonstrations,
        )

    def _decide(
        self, game: Game, agent: Agent | None, observation: Observation, rng: random.Random
    ) -> tuple[str, Decision, Reply]:
        """What is done, what the agent meant, and what was said."""
        if agent is None or self.client is None:
            action = game.draw(rng, observation)
            return action, Decision(action), Reply("", Usage())
        seed = rng.getrandbits(31) if self.config.send_seed else None
        try:
            reply = self.client.ask(agent.messages(observation), seed=seed)
        except Closed:
            raise Stopped from None
        decision = agent.understand(reply.text)
        return (decision.action or game.fallback), decision, reply


def read_demonstrations(path: Path, task: str, number: int) -> tuple[Demonstration, ...]:
    """Good episodes from files that this worker has written.

    Args:
        path: a file ``*.steps.jsonl``, or a folder with some below.
        task: episodes of it are taken; where the files lie in folders of other tasks only, any.
        number: at most so many, in the order of their names.

    Raises:
        ValueError: there is none, or one is not such a file.
    """
    files = [path] if path.is_file() else sorted(path.rglob("*.steps.jsonl"))
    same = [file for file in files if file.parent.name == task]
    found = []
    for file in (same or files)[:number]:
        turns = []
        for line in file.read_text().splitlines():
            try:
                data = json.loads(line)
                turns.append((str(data["observation"]), str(data["action"])))
            except (ValueError, LookupError, TypeError):
                raise ValueError(
                    f"{file} is no file of steps: each line must be JSON with observation and action"
                ) from None
        found.append(Demonstration(task, tuple(turns)))
    if not found:
        raise ValueError(f"there are no files *.steps.jsonl at {path}")
    return tuple(found)


def _written(line: StepLine, observation: Observation, decision: Decision, reply: Reply) -> dict[str, Any]:
    written: dict[str, Any] = {
        "step": line.step,
        "observation": observation.text,
        "action": line.action,
        "reward": line.reward,
        "terminated": line.terminated,
        "truncated": line.truncated,
        "named": line.named,
    }
    if line.usage.answers:
        written["reply"] = reply.text
        written["finish_reason"] = reply.finish_reason
        written["prompt_tokens"] = line.usage.prompt_tokens
        written["completion_tokens"] = line.usage.completion_tokens
    if decision.thought:
        written["thought"] = decision.thought
    return written


__all__ = ["Asks", "Player", "StepLine", "Stopped", "read_demonstrations"]

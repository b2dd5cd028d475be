"""What can be set. Importing this needs the standard library only: a config is checked in no time."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mosaic_cluster.worker import (
    ConfigError,
    Problem,
    build_config,
    config_field,
    config_problems,
    load_worker_config_from_file,
)

AGENTS = ("naive", "cot", "robust_naive", "robust_cot", "few_shot", "dummy")
WORLDS = ("babyai", "crafter", "textworld", "nethack")
WITH_IMAGES = ("babyai", "crafter")
WITH_DEMONSTRATIONS = ("babyai", "textworld")
"""Worlds whose library can play a good episode by itself, to be shown to ``few_shot``."""
TEXTWORLD_TASKS = ("treasure_hunter", "cooking", "coin_collector")
BABYAI_TASKS = (
    "BabyAI-GoToLocal-v0",
    "BabyAI-PickupLoc-v0",
    "BabyAI-OpenDoor-v0",
    "BabyAI-PutNextLocal-v0",
    "BabyAI-GoToSeqS5R2-v0",
)

_LARGEST_SEED = 2**31 - 1
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_BABYAI = re.compile(r"BabyAI-\w+-v\d+\Z")
_NETHACK = re.compile(r"NetHack\w+-v\d+\Z")


@dataclass
class _Settings:
    """The fields alone: every value possible by itself."""

    run_id: str = config_field(help="identifies the run on every line of telemetry")
    seed: int | None = config_field(
        None, help="decides the episodes; null draws one and keeps it in the run folder", min=0, max=_LARGEST_SEED
    )
    backend: str = config_field(
        "builtin",
        help="builtin: this worker's own worlds and agents; balrog: the BALROG benchmark, where it is installed in "
        "the worker's environment",
        choices=("builtin", "balrog"),
    )
    worlds: list[str] = config_field(  # noqa: RUF009
        ["babyai"], help="what is played, one after the other", choices=WORLDS
    )
    babyai_tasks: list[str] = config_field(  # noqa: RUF009
        list(BABYAI_TASKS), help="levels of BabyAI, by their names in minigrid; others than the default, too"
    )
    textworld_tasks: list[str] = config_field(  # noqa: RUF009
        list(TEXTWORLD_TASKS), help="kinds of games that are made with tw-make", choices=TEXTWORLD_TASKS
    )
    textworld_level: int = config_field(
        3, help="how hard treasure_hunter and coin_collector are; cooking grows with it up to 5", min=1, max=30
    )
    textworld_commands: bool = config_field(False, help="tell the agent which commands are possible at each step")
    nethack_tasks: list[str] = config_field(["NetHackScore-v0"], help="tasks of NLE that can be seeded")  # noqa: RUF009
    nethack_character: str = config_field("mon-hum-neu-mal", help="role, race, alignment, gender as NLE has them")
    episodes: int = config_field(5, help="of each task", unit="episodes", min=1)
    max_steps: int | None = config_field(
        None,
        help="end an episode after so many steps; null: the level's own limit in babyai, 2000 in crafter, 80 in "
        "textworld, 1000 in nethack",
        unit="steps",
        min=1,
    )
    agent: str = config_field(
        "naive",
        help="naive answers with an action; cot thinks first; robust_naive and robust_cot put the action in tags; "
        "few_shot is shown good episodes; dummy asks nobody and draws among the possible actions",
        choices=AGENTS,
    )
    base_url: str = config_field(
        "http://127.0.0.1:8000/v1", help="of an OpenAI-compatible endpoint; /chat/completions is added"
    )
    model: str = config_field("", help="name of the model there; required, but for the dummy")
    api_key_env: str = config_field(
        "OPENAI_API_KEY", help="environment variable that holds the key; where it is unset, none is sent"
    )
    temperature: float | None = config_field(None, help="of sampling; null: the endpoint's own", min=0, max=2)
    max_tokens: int = config_field(1024, help="longest answer", unit="tokens", min=1)
    max_tokens_name: str = config_field(
        "max_tokens",
        help="how the endpoint calls that limit; OpenAI's reasoning models want the second",
        choices=("max_tokens", "max_completion_tokens"),
    )
    send_seed: bool = config_field(False, help="send a seed with each request, for endpoints that sample by it")
    timeout: float = config_field(60.0, help="of one try of a request", unit="seconds", exclusive_min=0)
    max_retries: int = config_field(5, help="further tries after the first", min=0)
    retry_delay: float = config_field(
        1.0, help="before the first retry; doubled each time, with jitter", unit="seconds", min=0
    )
    retry_delay_max: float = config_field(
        60.0, help="longest delay, of Retry-After too: who asks for more ends the run", unit="seconds", min=0
    )
    concurrency: int = config_field(4, help="episodes played at the same time", unit="episodes", min=1, max=256)
    price_prompt: float = config_field(0.0, help="of a million prompt tokens, in any currency", min=0)
    price_completion: float = config_field(0.0, help="of a million answered tokens", min=0)
    history: int = config_field(16, help="past turns that the model is shown", unit="turns", min=0)
    thoughts: int = config_field(
        1, help="of how many past turns a thinking agent is shown what it thought", unit="turns", min=0
    )
    vision: bool = config_field(False, help="send pictures too, in worlds that have them: babyai and crafter")
    image_history: int = config_field(
        1, help="with vision: of how many turns, the present one included, the picture is sent", unit="turns", min=1
    )
    demonstrations: str | None = config_field(
        None,
        help="few_shot: absolute path of a file *.steps.jsonl that this worker has written, or of a folder of them; "
        "null: babyai's bot "
        "and textworld's walkthrough play",
    )
    demonstration_episodes: int = config_field(1, help="few_shot: how many are shown", unit="episodes", min=1)
    log_steps: bool = config_field(True, help="a line of telemetry for each step, without observations")


@dataclass
class BarlogConfig(_Settings):
    """The config of one run.

    Raises:
        ConfigError: when made with impossible values, with every problem found. It is also a ``ValueError``.
    """

    def __post_init__(self) -> None:
        problems = _all_problems(asdict(self))
        if problems:
            raise ConfigError(problems)

    def to_dict(self) -> dict[str, Any]:
        """All settings as plain JSON values; ``from_dict`` takes them back. No key is among them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> BarlogConfig:
        """Build a config from what a person wrote.

        Raises:
            ConfigError: unknown settings (with the nearest known name), impossible values and impossible
                combinations of them, all at once.
        """
        problems = _all_problems(data)
        if problems:
            raise ConfigError(problems)
        return build_config(cls, data)

    def tasks(self, world: str) -> list[str]:
        """What is played in a world."""
        return {
            "babyai": self.babyai_tasks,
            "crafter": ["default"],
            "textworld": self.textworld_tasks,
            "nethack": self.nethack_tasks,
        }[world]


def load_worker_config(path: str | Path) -> BarlogConfig:
    """Read a config file: the settings themselves, or a trainer's payload with ``metadata.worker.config``.

    Raises:
        FileNotFoundError: there is no such file.
        ConfigError: it is not JSON, or not a possible config.
    """
    return load_worker_config_from_file(path, BarlogConfig)


def _all_problems(data: Any) -> list[Problem]:
    problems = config_problems(_Settings, data)
    if not isinstance(data, Mapping):
        return problems
    # Settings that are wrong by themselves take no part in combinations; the others are still looked at.
    wrong = {re.split(r"[.\[]", problem.path)[0] for problem in problems}
    names = {name for name in _Settings.__dataclass_fields__ if name not in wrong}
    settings = build_config(_Settings, {"run_id": "-", **{key: value for key, value in data.items() if key in names}})
    found = _list_problems(settings) + _endpoint_problems(settings) + _agent_problems(settings)
    return problems + [problem for takes_part, problem in found if not takes_part & wrong]


_Found = list[tuple[set[str], Problem]]


def _list_problems(settings: _Settings) -> _Found:
    found: _Found = []
    if not settings.run_id.strip():
        found.append(({"run_id"}, Problem("run_id", "must not be empty")))
    for name in ("worlds", "babyai_tasks", "textworld_tasks", "nethack_tasks"):
        values = getattr(settings, name)
        if not values:
            found.append(({name}, Problem(name, "is empty; name at least one, or leave it out")))
        for value in sorted({value for value in values if values.count(value) > 1}):
            found.append(({name}, Problem(name, f"has {value!r} more than once")))
    for name, pattern, like in (
        ("babyai_tasks", _BABYAI, "BabyAI-GoToLocal-v0"),
        ("nethack_tasks", _NETHACK, "NetHackScore-v0"),
    ):
        for number, value in enumerate(getattr(settings, name)):
            if not pattern.match(value):
                found.append(({name}, Problem(f"{name}[{number}]", f"must be a name like {like}, not {value!r}")))
    for number, value in enumerate(settings.nethack_tasks):
        if value.startswith("NetHackChallenge"):
            words = f"{value} cannot be seeded, so that no run could be repeated; take NetHackScore-v0"
            found.append(({"nethack_tasks"}, Problem(f"nethack_tasks[{number}]", words)))
    return found


def _endpoint_problems(settings: _Settings) -> _Found:
    found: _Found = []
    try:
        parts = urlsplit(settings.base_url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        parts, usable = None, False
    if not usable:
        words = f"must be a URL like http://127.0.0.1:8000/v1 or https://api.openai.com/v1, not {settings.base_url!r}"
        found.append(({"base_url"}, Problem("base_url", words)))
    elif parts is not None and (parts.username or parts.password or parts.query or parts.fragment):
        words = (
            "must hold no user, password, query or fragment: it is written to logs; put a key into the environment "
            "variable that api_key_env names"
        )
        found.append(({"base_url"}, Problem("base_url", words)))
    if not _VARIABLE.match(settings.api_key_env):
        words = (
            "must be the name of an environment variable, such as OPENAI_API_KEY; a key itself does not belong into a "
            "config, which is written to logs"  # and is not repeated here, in case it is one
        )
        found.append(({"api_key_env"}, Problem("api_key_env", words)))
    if settings.agent != "dummy" and not settings.model.strip():
        words = f"is required by the agent {settings.agent}: the name of the model at base_url"
        found.append(({"model", "agent"}, Problem("model", words)))
    if settings.retry_delay > settings.retry_delay_max:
        words = f"must not exceed retry_delay_max ({settings.retry_delay_max:g})"
        found.append(({"retry_delay", "retry_delay_max"}, Problem("retry_delay", words)))
    return found


def _agent_problems(settings: _Settings) -> _Found:
    found: _Found = []
    if settings.vision and not set(settings.worlds) & set(WITH_IMAGES):
        words = f"there are no pictures in {', '.join(settings.worlds)}, but in {', '.join(WITH_IMAGES)}"
        found.append(({"vision", "worlds"}, Problem("vision", words)))
    if settings.vision and settings.agent == "dummy":
        found.append(({"vision", "agent"}, Problem("vision", "the dummy looks at nothing; leave it out")))
    if settings.demonstrations is not None:
        if settings.agent != "few_shot":
            words = f"are for the agent few_shot, not for {settings.agent}"
            found.append(({"demonstrations", "agent"}, Problem("demonstrations", words)))
        if not os.path.isabs(settings.demonstrations):
            words = (
                f"{settings.demonstrations!r} is relative: it would be looked for in the run's own folder, which is "
                "new; give an absolute path, the same on all nodes"
            )
            found.append(({"demonstrations"}, Problem("demonstrations", words)))
    elif settings.agent == "few_shot" and settings.backend == "builtin":
        without = [world for world in settings.worlds if world not in WITH_DEMONSTRATIONS]
        if without:
            words = (
                f"nothing plays {' and '.join(without)} well by itself: name a file *.steps.jsonl of a good episode, "
                "or take another agent"
            )
            found.append(({"demonstrations", "agent", "worlds"}, Problem("demonstrations", words)))
    return found


__all__ = ["AGENTS", "BABYAI_TASKS", "TEXTWORLD_TASKS", "WORLDS", "BarlogConfig", "load_worker_config"]

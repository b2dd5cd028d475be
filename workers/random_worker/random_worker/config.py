"""What can be set. Importing this needs neither gymnasium nor pettingzoo."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mosaic_cluster.worker import ConfigError, Problem, build_config, config_field

APIS = ("auto", "gymnasium", "aec", "parallel")
POLICIES = ("uniform", "scripted")


@dataclass(frozen=True)
class RandomConfig:
    """One run of the random worker."""

    run_id: str = config_field(help="which run this is")
    seed: int | None = config_field(None, help="decides everything random; without one, one is drawn", min=0)
    env_id: str = config_field(
        "CartPole-v1",
        help="environment, as Gymnasium (CartPole-v1) or PettingZoo (connect_four_v3, simple_spread_v3) name it",
    )
    env_kwargs: dict[str, Any] = config_field(  # noqa: RUF009 - it makes a field
        {}, help="keywords for the environment, as {max_cycles: 25}"
    )
    api: str = config_field(
        "auto",
        help="through which interface it is played: auto is gymnasium for Gymnasium's, aec for PettingZoo's classic "
        "games, parallel for its others",
        choices=APIS,
    )
    policy: str = config_field(
        "uniform", help="uniform: each legal action is as likely; scripted: see script", choices=POLICIES
    )
    script: list[Any] = config_field(  # noqa: RUF009
        [],
        help="actions of a scripted policy, one a turn, over and over, from its first in each episode; where one is "
        "illegal, and if there are none, the first legal action is taken",
    )
    total_steps: int = config_field(
        10_000, help="moves of single agents with aec, else steps of the environment", unit="steps", min=1
    )
    checkpoint_every: int = config_field(5_000, help="between checkpoints; 0: only at the end", unit="steps", min=0)
    keep_checkpoints: int = config_field(2, help="newest checkpoints that stay, besides the best", min=1)
    max_steps_per_second: float = config_field(
        0.0, help="it is slowed down to this; 0: as fast as it can", unit="steps/s", min=0
    )

    def __post_init__(self) -> None:
        problems = []
        if not self.env_id:
            problems.append(Problem("env_id", "must not be empty"))
        if self.script and self.policy != "scripted":
            problems.append(Problem("script", f"is followed by policy: scripted only, and this is {self.policy!r}"))
        if problems:
            raise ConfigError(problems)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RandomConfig:
        """From what a person wrote.

        Raises:
            ConfigError: with all that is wrong with it.
        """
        return build_config(cls, data)

    def to_dict(self) -> dict[str, Any]:
        """What :meth:`from_dict` takes."""
        return asdict(self)


__all__ = ["RandomConfig"]

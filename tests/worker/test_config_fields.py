"""From what a person wrote to a config dataclass."""

from __future__ import annotations

import enum
import math
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Literal, Optional, Tuple, Union

import pytest

from mosaic_cluster.worker import ConfigError, build_config, config_field, config_problems, describe_config

if TYPE_CHECKING:
    from nowhere import Unheard


class Optimiser(enum.Enum):
    ADAM = "adam"
    SGD = "sgd"


@dataclass
class Net:
    """A network.

    Args:
        hidden: sizes of
            the layers.
        activation (str): between them
    """

    hidden: Tuple[int, ...] = (64, 64)
    activation: Literal["tanh", "relu"] = "tanh"
    dropout: float = config_field(0.0, help="share of units", min=0, max=0.9)

    def __post_init__(self) -> None:
        if self.hidden and self.hidden[0] == 13:
            raise ValueError("unlucky")


@dataclass
class Config:
    run_id: str
    seed: Optional[int] = None
    learning_rate: float = config_field(3e-4, help="step size", exclusive_min=0, max=1)
    total_steps: int = config_field(100_000, help="how long", unit="steps", min=1)
    anneal: bool = True
    algo: str = config_field("ppo", help="algorithm", choices=["ppo", "dqn"])
    net: Net = field(default_factory=Net)
    other: Optional[Net] = None
    tags: List[str] = config_field([], help="words")
    rates: List[float] = config_field([0.5], help="rates", min=0)
    table: Dict[str, int] = field(default_factory=dict)
    pair: Tuple[int, str] = (1, "a")
    optimiser: Optimiser = Optimiser.ADAM
    folder: Optional[Path] = None
    either: Union[int, str] = 1
    new_style: int | None = None
    new_list: list[int] | None = None
    unknown: Unheard = None  # type: ignore[assignment]
    anything: Any = None
    sloppy: int = None  # type: ignore[assignment]
    derived: int = field(default=0, init=False)
    extra: InitVar[int] = 0

    def __post_init__(self, extra: int) -> None:
        if self.run_id == "bad":
            raise ValueError("run_id is bad")


def test_defaults() -> None:
    config = build_config(Config, {"run_id": "r"})
    assert config == Config("r")
    assert config.tags == []
    assert config.tags is not build_config(Config, {"run_id": "r"}).tags


@pytest.mark.parametrize(
    ("name", "given", "stored"),
    [
        ("learning_rate", 1, 1.0),
        ("total_steps", 150_000.0, 150_000),
        ("seed", None, None),
        ("net", {"hidden": [32], "activation": "relu"}, Net((32,), "relu")),
        ("net", Net((1,)), Net((1,))),
        ("other", None, None),
        ("other", {"dropout": 0.5}, Net(dropout=0.5)),
        ("tags", ("a",), ["a"]),
        ("table", {"a": 1.0}, {"a": 1}),
        ("pair", [2, "b"], (2, "b")),
        ("optimiser", "sgd", Optimiser.SGD),
        ("optimiser", "SGD", Optimiser.SGD),
        ("optimiser", Optimiser.SGD, Optimiser.SGD),
        ("folder", "a/b", Path("a/b")),
        ("either", "x", "x"),
        ("either", 2, 2),
        ("new_style", 3, 3),
        ("new_list", [1.0, 2], [1, 2]),
        ("unknown", object, object),
        ("anything", {1}, {1}),
        ("sloppy", None, None),
    ],
)
def test_values_that_fit(name: str, given: Any, stored: Any) -> None:
    value = getattr(build_config(Config, {"run_id": "r", name: given}), name)
    assert value == stored
    assert type(value) is type(stored)


@pytest.mark.parametrize(
    ("name", "given", "path", "words"),
    [
        ("learning_rate", 0, "learning_rate", "must be greater than 0 and at most 1, but is 0"),
        ("learning_rate", 1.5, "learning_rate", "at most 1"),
        ("learning_rate", math.nan, "learning_rate", "not a number"),
        ("learning_rate", "fast", "learning_rate", "must be a number, not 'fast'"),
        ("learning_rate", "1e-4", "learning_rate", "1.0e-4"),
        ("learning_rate", True, "learning_rate", "must be a number, not true"),
        ("learning_rate", None, "learning_rate", "must be a number, not null"),
        ("total_steps", 1.5, "total_steps", "must be a whole number"),
        ("total_steps", True, "total_steps", "must be a whole number"),
        ("total_steps", 0, "total_steps", "at least 1 steps"),
        ("anneal", 1, "anneal", "must be true or false, not 1"),
        ("algo", "ppp", "algo", "one of 'ppo', 'dqn'"),
        ("run_id", 5, "run_id", "must be text"),
        ("net", 5, "net", "must be an object"),
        ("net", None, "net", "must be an object, not null"),
        ("net", {"hiden": []}, "net.hiden", "did you mean 'hidden'"),
        ("net", {"hidden": [1, "x"]}, "net.hidden[1]", "must be a whole number"),
        ("net", {"activation": "gelu"}, "net.activation", "one of 'tanh', 'relu'"),
        ("net", {"dropout": 2}, "net.dropout", "at least 0 and at most 0.9"),
        ("net", {"hidden": [13]}, "net", "unlucky"),
        ("tags", "abc", "tags", "must be a list, not 'abc'"),
        ("rates", [1, -1], "rates[1]", "at least 0"),
        ("table", {"a": "x"}, "table.a", "must be a whole number"),
        ("table", [1], "table", "must be an object"),
        ("pair", [1], "pair", "must have 2 items"),
        ("optimiser", "lion", "optimiser", "one of 'adam', 'sgd'"),
        ("folder", 5, "folder", "must be a path"),
        ("either", 1.5, "either", "must be a whole number or text, not 1.5"),
        ("new_style", "x", "new_style", "must be a whole number"),
        ("new_list", ["x"], "new_list[0]", "must be a whole number"),
        ("learning_rat", 1, "learning_rat", "did you mean 'learning_rate'"),
        ("derived", 1, "derived", "there is no such setting"),
        ("zzz", 1, "zzz", "there are"),
    ],
)
def test_values_that_do_not(name: str, given: Any, path: str, words: str) -> None:
    (problem,) = config_problems(Config, {"run_id": "r", name: given})
    assert problem.path == path
    assert words in problem.message


def test_all_problems_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        build_config(Config, {"seed": "x", "lr": 1, "net": {"a": 1, "b": 2}})
    assert sorted(problem.path for problem in caught.value.problems) == ["lr", "net.a", "net.b", "run_id", "seed"]
    assert "is required" in str(caught.value)


def test_post_init_speaks_last() -> None:
    (problem,) = config_problems(Config, {"run_id": "bad"})
    assert problem.message == "run_id is bad"
    assert config_problems(Config, {"run_id": "r", "extra": 5}) == []


@pytest.mark.parametrize("data", [None, [], "x"])
def test_not_an_object(data: Any) -> None:
    (problem,) = config_problems(Config, data)
    assert "must be an object" in problem.message


def test_describe() -> None:
    described = {entry["name"]: entry for entry in describe_config(Config)}
    assert "derived" not in described
    assert described["total_steps"] == {
        "name": "total_steps",
        "type": "int",
        "required": False,
        "default": 100_000,
        "help": "how long",
        "unit": "steps",
        "min": 1,
        "max": None,
        "exclusive_min": None,
        "choices": None,
    }
    assert described["run_id"]["required"]
    assert described["learning_rate"]["exclusive_min"] == 0
    assert described["algo"]["choices"] == ["ppo", "dqn"]
    assert described["optimiser"]["choices"] == ["adam", "sgd"]
    assert described["optimiser"]["default"] == "adam"
    assert described["seed"]["type"] == "Optional[int]"
    assert described["tags"]["default"] == []
    assert described["net"]["default"]["hidden"] == [64, 64]


def test_describe_takes_help_from_the_docstring() -> None:
    hidden, activation, dropout = describe_config(Net)
    assert hidden["help"] == "sizes of the layers."
    assert activation["help"] == "between them"
    assert activation["choices"] == ["tanh", "relu"]
    assert dropout["help"] == "share of units"


def test_describe_survives_a_default_that_raises() -> None:
    def refuse() -> int:
        raise RuntimeError("no")

    @dataclass
    class Odd:
        x: int = field(default_factory=refuse)
        y: int = field(default=1, metadata={"min": object(), "help": 5})

    odd = describe_config(Odd)
    assert odd[0]["default"] is None
    assert odd[1]["help"] == "5"
    assert config_problems(Odd, {"x": 1, "y": 2}) == []


def test_describe_refuses_other_classes() -> None:
    with pytest.raises(TypeError):
        describe_config(dict)

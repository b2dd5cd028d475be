"""Kind ``sweep``: many configurations, each with every seed, fairly compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from mosaic_cluster.specs.expressions import Expression, ExpressionError
from mosaic_cluster.specs.fields import (
    LARGEST_SEED,
    JsonMapping,
    check_json,
    nothing_is_empty,
    number,
    one_of,
    optional,
    text,
    whole_number,
)
from mosaic_cluster.specs.problems import several, shown, suggestion
from mosaic_cluster.specs.resources import OnOom, Priority, Resources, ResourcesSection, Weight
from mosaic_cluster.specs.run import (
    DEFAULT_STORAGE,
    Environment,
    Limits,
    Name,
    Notes,
    StorageFolder,
    TelemetrySection,
)
from mosaic_cluster.specs.sections import Section, document_of
from mosaic_cluster.specs.space import flat, read_space
from mosaic_cluster.specs.telemetry import Telemetry

SEARCHES = ("random", "grid", "optuna")
SCHEDULERS = ("none", "asha", "hyperband", "pbt")
STATISTICS = ("mean", "median", "min", "max")
MOST_RUNGS = 1000
SCHEDULER_OPTIONS = {
    "none": (),
    "asha": ("reduction_factor",),
    "hyperband": ("reduction_factor",),
    "pbt": ("quantile_fraction", "resample_probability"),
}


def kind_alone(value: Any) -> Any:
    """``asha`` is short for ``{kind: asha}``."""
    if value is None:
        return {"kind": "none"}
    return {"kind": value} if isinstance(value, str) else value


def check_rungs(value: Any) -> Any:
    """Accepts rising steps, or ``{every: STEPS, until: STEPS}``; returns the list."""
    if value is None:
        return None
    valid = "give rising numbers of steps, e.g. [30_000, 75_000, 150_000], or {every: 10_000, until: 150_000}"
    if isinstance(value, Mapping):
        if set(value) != {"every", "until"} or not all(_steps(each) for each in value.values()):
            raise ValueError(f"is a mapping; {valid}")
        every, until = int(value["every"]), int(value["until"])
        if until < every or until // every > MOST_RUNGS:
            raise ValueError(f"until {until} is not between every ({every}) and {MOST_RUNGS} times that; {valid}")
        return sorted({*range(every, until + 1, every), until})
    if not isinstance(value, list) or not value or not all(_steps(each) for each in value):
        raise ValueError(f"{shown(value)} is no list of steps; {valid}")
    steps = [int(each) for each in value]
    if steps != sorted(set(steps)):
        raise ValueError(f"the steps do not rise; {valid}")
    if len(steps) > MOST_RUNGS:
        raise ValueError(f"there are {len(steps):,} rungs; give at most {MOST_RUNGS:,}, e.g. every 10_000 steps")
    return steps


def _steps(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float) and 1 <= value <= 1e15 and value == int(value)


def check_seeds(value: Any) -> Any:
    """Accepts seeds, or their number: 3 means 1, 2, 3."""
    valid = "give a list such as [1, 2, 3], or how many: 3 is short for [1, 2, 3]"
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1000:
        return list(range(1, value + 1))
    if not isinstance(value, list) or not value:
        raise ValueError(f"{shown(value)} is no list of seeds; {valid}")
    for seed in value:
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= LARGEST_SEED:
            raise ValueError(f"{shown(seed)} is no seed; a seed is a whole number from 0 to {LARGEST_SEED}")
    if len(set(value)) < len(value):
        raise ValueError(f"a seed is there twice; {valid}")
    return value


def check_constraints(value: Any) -> Any:
    """Accepts expressions."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError(f"{shown(value)} is no list of expressions; give e.g. [num_steps * num_envs <= 4096]")
    found = []
    for index, each in enumerate(value):
        try:
            Expression.read(each)
        except ExpressionError as error:
            found.append((str(index), str(error)))
    if found:
        raise several(found)
    return value


def check_worker(value: Any) -> Any:
    """Accepts a worker's name, or a choice of workers, each with settings of its own."""
    valid = "give a name, e.g. cleanrl, or {choice: [cleanrl, {name: other, config: {...}, space: {...}}]}"
    if isinstance(value, str) and value.strip():
        return value
    if not isinstance(value, Mapping) or set(value) != {"choice"} or not isinstance(value["choice"], list):
        raise ValueError(f"{shown(value)} is no worker; {valid}")
    entries, problems = [], []
    for index, entry in enumerate(value["choice"]):
        made = {"name": entry} if isinstance(entry, str) else entry
        if not isinstance(made, Mapping) or not isinstance(made.get("name"), str) or not made["name"].strip():
            problems.append((f"choice.{index}", f"{shown(entry)} is no worker; {valid}"))
            continue
        unknown = [key for key in made if key not in ("name", "config", "space")]
        for key in unknown:
            hint = suggestion(key, ("name", "config", "space"))
            problems.append((f"choice.{index}.{key}", f"unknown key; {hint}"))
        for key in ("config", "space"):
            if not isinstance(made.get(key, {}), Mapping):
                problems.append((f"choice.{index}.{key}", f"{shown(made[key])} is not a mapping"))
        entries.append({"name": made["name"], "config": made.get("config") or {}, "space": made.get("space") or {}})
    names = [entry["name"] for entry in entries]
    if not problems and (len(names) < 2 or len(set(names)) < len(names)):
        problems.append(("choice", "give two or more workers, each once"))
    if problems:
        raise several(problems)
    return {"choice": entries}


_ANY_OBJECT: dict[str, Any] = {"type": "object", "additionalProperties": True}


class Metric(Section):
    """What configurations are judged by."""

    name: Annotated[str, text(1, 200, example="episodic_return")] = Field(
        description="A metric that the worker reports", examples=["episodic_return"]
    )
    mode: Annotated[Literal["max", "min"], one_of(("max", "min"))] = Field(
        default="max", description="Whether more or less of it is better"
    )
    at: Annotated[
        list[int] | None,
        BeforeValidator(check_rungs),
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1},
                    {
                        "type": "object",
                        "required": ["every", "until"],
                        "additionalProperties": False,
                        "properties": {"every": {"type": "integer"}, "until": {"type": "integer"}},
                    },
                    {"type": "null"},
                ]
            }
        ),
    ] = Field(
        default=None,
        description="Rungs: environment steps at which it is looked at; the first value reported at or after "
        "each counts. Default: only the last value of each run",
        examples=[[30_000, 75_000, 150_000]],
    )
    statistic: Annotated[Literal["mean", "median", "min", "max"], one_of(STATISTICS)] = Field(
        default="mean", description="What is made of the values of a configuration's seeds"
    )


class Search(Section):
    """Where configurations come from."""

    kind: Annotated[Literal["random", "grid", "optuna"], one_of(SEARCHES)] = Field(
        default="random", description="random draws, every combination, or Optuna's TPE"
    )
    seed: Annotated[int, whole_number(0, LARGEST_SEED, example=0)] = Field(
        default=0, ge=0, le=LARGEST_SEED, description="Seed of the search (not of the runs)"
    )


class Scheduler(Section):
    """What is stopped early, paused or changed while it runs. All are Ray Tune's."""

    kind: Annotated[Literal["none", "asha", "hyperband", "pbt"], one_of(SCHEDULERS)] = Field(
        default="none", description="none, asha, hyperband, or pbt"
    )
    reduction_factor: Annotated[int | None, optional(whole_number(2, 100, example=3))] = Field(
        default=None, ge=2, le=100, description="asha, hyperband: one of this many goes on at a rung (default 3)"
    )
    quantile_fraction: Annotated[float | None, optional(number(0, exclusive=True, example="0.25"))] = Field(
        default=None,
        gt=0,
        description="pbt: this part of the population is replaced, by copies of the best such part (default 0.25)",
    )
    resample_probability: Annotated[float | None, optional(number(0, example="0.25"))] = Field(
        default=None,
        ge=0,
        description="pbt: how often a setting is drawn anew rather than changed a little (default 0.25)",
    )

    @model_validator(mode="after")
    def _fits(self) -> Scheduler:
        problems = []
        options = [name for names in SCHEDULER_OPTIONS.values() for name in names]
        for name in dict.fromkeys(options):
            if getattr(self, name) is not None and name not in SCHEDULER_OPTIONS[self.kind]:
                whose = " and ".join(kind for kind, names in SCHEDULER_OPTIONS.items() if name in names)
                problems.append((name, f"is a setting of {whose}, not of {self.kind}; remove it"))
        if self.quantile_fraction is not None and self.quantile_fraction > 0.5:
            problems.append(("quantile_fraction", f"{self.quantile_fraction:g} is more than half; give at most 0.5"))
        if self.resample_probability is not None and self.resample_probability > 1:
            problems.append(("resample_probability", f"{self.resample_probability:g} is no probability; give 0 to 1"))
        if problems:
            raise several(problems)
        return self


class SweepLimits(Limits):
    """What ends a run of the sweep that does not end by itself, and how much goes on at once."""

    max_concurrent_trials: Annotated[int | None, optional(whole_number(1, example=8))] = Field(
        default=None,
        ge=1,
        description="Configurations that may be under way at once. Default: as many as there is room for",
        examples=[8],
    )


class SweepSpec(Section):
    """Compare configurations of one worker, or of several, each by all its seeds."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "kind": "sweep",
                    "name": "cartpole-lr",
                    "worker": "cleanrl",
                    "config": {"env_id": "CartPole-v1", "algo": "ppo", "total_steps": 150000},
                    "space": {
                        "learning_rate": {"loguniform": [0.0001, 0.01]},
                        "num_steps": {"choice": [64, 128]},
                    },
                    "samples": 4,
                    "seeds": [1, 2],
                    "metric": {"name": "episodic_return", "mode": "max", "at": [30000, 75000, 150000]},
                    "search": {"kind": "random", "seed": 0},
                    "scheduler": "asha",
                    "limits": {"max_duration": "30m", "max_failures": 2, "max_concurrent_trials": 8},
                    "storage": "./mosaic-results",
                }
            ]
        }
    )

    kind: Literal["sweep"] = Field(default="sweep", description="What kind of spec this is")
    name: Name
    worker: Annotated[
        Any,
        BeforeValidator(check_worker),
        WithJsonSchema({"anyOf": [{"type": "string", "minLength": 1}, _ANY_OBJECT]}),
    ] = Field(
        description="A worker's registered name, or {choice: [...]} to compare several, each a name or "
        "{name, config, space} with what is its own",
        examples=["cleanrl"],
    )
    config: JsonMapping = Field(
        default_factory=dict,
        description="The settings that all configurations share, without run_id and seed",
        examples=[{"env_id": "CartPole-v1"}],
    )
    space: Annotated[
        dict[str, Any], BeforeValidator(check_json), BeforeValidator(nothing_is_empty), WithJsonSchema(_ANY_OBJECT)
    ] = Field(
        default_factory=dict,
        description="The settings that are varied, and how: uniform, loguniform, int, logint or choice",
        examples=[{"learning_rate": {"loguniform": [0.0001, 0.01]}}],
    )
    constraints: Annotated[list[str], BeforeValidator(check_constraints), BeforeValidator(lambda v: v or [])] = Field(
        default_factory=list,
        description="What must hold for every configuration, as expressions over settings",
        examples=[["num_steps * num_envs <= 4096"]],
    )
    samples: Annotated[int | None, optional(whole_number(1, 1_000_000, example=16))] = Field(
        default=None, ge=1, description="How many configurations (with search: grid, all there are)", examples=[16]
    )
    seeds: Annotated[
        list[int],
        BeforeValidator(check_seeds),
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1},
                    {"type": "integer", "minimum": 1, "maximum": 1000},
                ]
            }
        ),
    ] = Field(
        default_factory=lambda: [1],
        description="Seeds of each configuration, a run each; 3 is short for [1, 2, 3]",
        examples=[[1, 2]],
    )
    metric: Metric = Field(
        description="What configurations are judged by",
        examples=[{"name": "episodic_return", "mode": "max"}],
    )
    search: Annotated[
        Search,
        BeforeValidator(kind_alone, json_schema_input_type=Search | Literal["random", "grid", "optuna"]),
    ] = Field(default_factory=Search, description="Where configurations come from: random, grid or optuna")
    scheduler: Annotated[
        Scheduler,
        BeforeValidator(
            kind_alone, json_schema_input_type=Scheduler | Literal["none", "asha", "hyperband", "pbt"] | None
        ),
    ] = Field(default_factory=Scheduler, description="What ends early: none, asha, hyperband or pbt")
    resources: ResourcesSection = Field(
        default_factory=Resources,
        description="What each run needs of a node. Default: what the worker declares",
    )
    priority: Priority = 0
    weight: Weight = 1.0
    on_oom: OnOom = None
    limits: Annotated[SweepLimits, BeforeValidator(nothing_is_empty)] = Field(
        default_factory=SweepLimits, description="What ends each run if it does not end by itself"
    )
    storage: StorageFolder = DEFAULT_STORAGE
    telemetry: TelemetrySection = Field(default_factory=Telemetry)
    environment: Environment = Field(default_factory=dict)
    notes: Notes = Field(default_factory=dict)

    @model_validator(mode="after")
    def _as_a_whole(self) -> SweepSpec:
        problems: list[tuple[str, str]] = []
        for place, config, space in self.parts():
            read, found = read_space(space, self.constraints, config)
            # What one worker has of its own is named where it stands.
            problems += [(_placed(problem.path, place, space, self.space), problem.message) for problem in found]
            fixed = flat(config)
            for path in [param.path for param in read.params if param.path in fixed]:
                where = _placed(f"space.{path}", place, space, self.space)
                problems.append((where, "is in config, too: keep the fixed value or the distribution"))
            if self.search.kind == "grid":
                endless = [param.path for param in read.params if param.values() is None]
                problems += [
                    (_placed(f"space.{path}", place, space, self.space),
                     "has no end of values, which a grid cannot try all; give choice, or a step")
                    for path in endless
                ]  # fmt: skip
            if self.scheduler.kind == "pbt":
                problems += [
                    (_placed(f"space.{param.path}.when", place, space, self.space),
                     "pbt changes every setting of the space as it goes, so none can come and go; remove `when`")
                    for param in read.params if param.when is not None
                ]  # fmt: skip
        problems += self._combinations()
        if problems:
            raise several(list(dict.fromkeys(problems)))
        return self

    def _combinations(self) -> list[tuple[str, str]]:
        found = []
        search, scheduler = self.search.kind, self.scheduler.kind
        if search == "grid" and self.samples is not None:
            found.append(("samples", "a grid tries every combination once; remove this, or take search: random"))
        if search != "grid" and self.samples is None:
            found.append(("samples", f"missing; give how many configurations {search} is to try, e.g. samples: 16"))
        if not self.space and isinstance(self.worker, str):
            example = "{learning_rate: {loguniform: [0.0001, 0.01]}}"
            found.append(("space", f"is empty: nothing is varied; give e.g. {example}"))
        rungs = self.metric.at or []
        if scheduler != "none" and len(rungs) < 2:
            message = f"{scheduler} decides between rungs; give two or more steps, e.g. [30_000, 75_000, 150_000]"
            found.append(("metric.at", message))
        if scheduler in ("hyperband", "pbt") and search == "optuna":
            why = "it starts all configurations before the first result, so optuna could not learn"
            found.append(("search", f"optuna does not go with {scheduler}: {why}; take random, or scheduler: asha"))
        if scheduler == "pbt" and not isinstance(self.worker, str):
            found.append(("worker", "pbt copies checkpoints between configurations, so all must be of one worker"))
        return found

    def parts(self) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
        """For each worker: where its own part stands (``""``: it has none), its whole config, its whole space."""
        if isinstance(self.worker, str):
            return [("", dict(self.config), dict(self.space))]
        return [
            (f"worker.choice.{index}", {**self.config, **entry["config"]}, {**self.space, **entry["space"]})
            for index, entry in enumerate(self.worker["choice"])
        ]

    def workers(self) -> list[str]:
        """Names of the workers, in order."""
        return [self.worker] if isinstance(self.worker, str) else [each["name"] for each in self.worker["choice"]]

    def to_document(self) -> dict[str, Any]:
        """The canonical form: JSON-ready, units as plain numbers, what is not set left out."""
        return document_of(self)


def _placed(path: str, place: str, space: Mapping[str, Any], shared: Mapping[str, Any]) -> str:
    head, _, rest = path.partition(".")
    own = head == "space" and place and rest.partition(".")[0] not in shared
    return f"{place}.{path}" if own else path


__all__ = ["Metric", "Scheduler", "Search", "SweepLimits", "SweepSpec"]

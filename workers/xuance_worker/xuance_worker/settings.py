"""From our config to XuanCe's: its own YAML files, with what was set here on top."""

from __future__ import annotations

import difflib
from argparse import Namespace
from pathlib import Path
from typing import Any

import xuance
from xuance.common import load_yaml

from mosaic_cluster.worker import ConfigError, Problem
from xuance_worker.algorithms import MULTI, Form
from xuance_worker.config import FIXED, OURS, XuanCeConfig

CONFIGS = Path(xuance.__file__).parent / "configs"

_FIELDS = {
    "gamma": ("gamma",),
    "batch_size": ("batch_size",),
    "buffer_size": ("buffer_size",),
    "horizon": ("horizon_size",),
    "n_epochs": ("n_epochs",),
    "n_minibatch": ("n_minibatch",),
    "share_parameters": ("use_parameter_sharing",),
}
"""Our fields and the one setting of XuanCe's that each stands for; it must be in the algorithm's file."""

_RATES = ("learning_rate", "learning_rate_actor", "learning_rate_critic")
_HIDDEN = ("representation_hidden_size", "actor_hidden_size", "critic_hidden_size", "q_hidden_size")
_SUITES = ("classic_control", "box2d", "mujoco", "mpe")


def settings_file(config: XuanCeConfig, form: Form) -> Path:
    """XuanCe's file for this environment, or the form's template where it has none.

    A file for the environment is taken only if it is for the same kind of actions as the template.
    """
    folder = CONFIGS / config.algorithm.folder
    template = folder / f"{form.template}.yaml"
    if not config.own_environment:
        for suite in _SUITES:
            found = folder / suite / f"{config.environment}.yaml"
            if found.exists() and _alike(found, template):
                return found
    return template


def known_settings(config: XuanCeConfig, form: Form) -> dict[str, Any]:
    """Names and values that XuanCe's own files give the algorithm, before anything is changed."""
    return {**load_yaml(CONFIGS / "basic.yaml"), **load_yaml(settings_file(config, form)), **form.changes}


def make_settings(config: XuanCeConfig, kind: str, *, seed: int, device: str, log_dir: str) -> Settings:
    """Everything XuanCe's agents read.

    Args:
        config: ours.
        kind: of actions, ``discrete`` or ``continuous``.
        seed: of networks and of everything random in XuanCe.
        device: ``cpu`` or ``cuda:0``.
        log_dir: absolute folder of XuanCe's event files.

    Raises:
        ConfigError: a setting that the algorithm does not have, or a value of another type.
    """
    form = config.algorithm.forms[kind]
    # All agents look at n_epochs, also where the file has none.
    own = {"n_epochs": 1, **load_yaml(settings_file(config, form))}
    found = {**load_yaml(CONFIGS / "basic.yaml"), **own, **form.changes}
    problems = _apply_fields(config, own, found) + _apply_parameters(config, found)
    if problems:
        raise ConfigError(problems)
    _complete(found)
    found.update(
        agent=str(found["agent"]) if config.algo != "RANDOM" else "RANDOM",
        env_id=config.environment,
        seed=seed,
        env_seed=seed,
        running_steps=config.total_steps,
        parallels=config.num_envs or int(found["parallels"]),
        device=device,
        dl_toolbox="torch",
        distributed_training=False,
        logger="tensorboard",
        log_dir=log_dir,
        model_dir=log_dir,
        render=False,
        render_mode=None,
        test_mode=False,
        vectorize="DummyVecMultiAgentEnv" if config.algorithm.agents == MULTI else "DummyVecEnv",
    )
    _fit_buffer(config, found)
    return Settings(**found)


class Settings(Namespace):
    """What XuanCe's agents read, and sometimes write."""

    def __setattr__(self, name: str, value: Any) -> None:
        # COMA takes away the width of a loss that it does not use, which newer releases of torch refuse.
        if name == "huber_delta" and value is None:
            value = 10.0
        super().__setattr__(name, value)


def _alike(found: Path, template: Path) -> bool:
    """Whether both files build the same kind of policy."""
    one, other = load_yaml(found), load_yaml(template)
    return all(one.get(name) == other.get(name) for name in ("policy", "learner"))


def _apply_fields(config: XuanCeConfig, own: dict[str, Any], found: dict[str, Any]) -> list[Problem]:
    problems = []
    for field, names in _FIELDS.items():
        value = getattr(config, field)
        if value is None:
            continue
        (name,) = names
        if name not in own:
            problems.append(Problem(field, f"{config.algo} has no such setting (XuanCe's {name}): leave it out"))
        found[name] = value
    if config.learning_rate is not None:
        rates = [name for name in _RATES if name in own]
        if not rates:
            problems.append(
                Problem("learning_rate", f"{config.algo} has no one learning rate: see its own in parameters")
            )
        found.update(dict.fromkeys(rates, config.learning_rate))
    if config.hidden_sizes is not None:
        sizes = [name for name in _HIDDEN if name in own]
        if not sizes:
            problems.append(Problem("hidden_sizes", f"{config.algo} has no such setting: see its own in parameters"))
        found.update({name: list(config.hidden_sizes) for name in sizes})
    return problems


def _apply_parameters(config: XuanCeConfig, found: dict[str, Any]) -> list[Problem]:
    problems = []
    known = [name for name in found if name not in OURS and name not in FIXED]
    for name, value in config.parameters.items():
        if name not in found:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(known))}"
            problems.append(Problem(f"parameters.{name}", f"XuanCe's {config.algo} has no such setting; {hint}"))
        elif not _fits(value, found[name]):
            problems.append(Problem(f"parameters.{name}", f"must be like {found[name]!r}, not {value!r}"))
        elif isinstance(value, dict):
            found[name] = {**found[name], **value}
        else:
            found[name] = value
    return problems


def _fits(value: Any, default: Any) -> bool:
    """Whether a value is of the kind of XuanCe's own."""
    if default is None or value is None:
        return True
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    if isinstance(default, (int, float)):
        return isinstance(value, (int, float))
    return isinstance(value, type(default))


def _complete(found: dict[str, Any]) -> None:
    """Settings that XuanCe reads although some of its files do not have them."""
    for name, value in {
        "activation_action": "sigmoid",
        "use_parameter_sharing": True,
        "use_actions_mask": False,
        "use_global_state": False,
        "use_rnn": False,
        "grad_clip_norm": 0.5,
        "use_grad_clip": False,
    }.items():
        found.setdefault(name, value)


def _fit_buffer(config: XuanCeConfig, found: dict[str, Any]) -> None:
    """XuanCe wants a buffer that all environments share evenly; the recurrent ones count episodes in it."""
    size, number = found.get("buffer_size"), found["parallels"]
    if isinstance(size, int) and size % number:
        found["buffer_size"] = max(number, size - size % number)


__all__ = ["CONFIGS", "known_settings", "make_settings", "settings_file"]

"""A checkpoint is a folder: XuanCe's own model file, all that XuanCe leaves out, and a JSON file that says what it is.

``final_train_model.pth`` (with ``obs_rms.npy``, where observations are normalised) is what XuanCe's ``load_model``
reads, so that a training can be taken to XuanCe itself. ``state.pt`` holds the rest; ``checkpoint.json`` the step that
XuanCe forgets, the config, and the spaces. We read the first, the second and the third, but not the .npy file, which is
a pickle: tensors and plain values alone are loaded, nothing in a checkpoint is executed.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from mosaic_cluster.worker import ConfigError, Problem
from xuance_worker.config import XuanCeConfig

FORMAT = 1
MODEL, STATE, ABOUT = "final_train_model.pth", "state.pt", "checkpoint.json"

_FACTORS = ("e_greedy", "egreedy", "noise_scale", "gradient_step")
"""Numbers of XuanCe's agents that move while they train, besides the step."""

_COUNTS = ("iterations",)
"""Numbers of XuanCe's learners that count."""

REPLAY = ("DummyOffPolicyBuffer", "SequentialReplayBuffer", "MARL_OffPolicyBuffer", "MeanField_OffPolicyBuffer")
"""XuanCe's replay buffers that are nothing but arrays with a fill level."""


class CheckpointError(ConfigError):
    """A checkpoint cannot be used."""

    def __init__(self, message: str) -> None:
        super().__init__([Problem("MOSAIC_RESUME_FROM", message)])


def save_checkpoint(folder: Path, agent: Any, about: Mapping[str, Any], *, replay: bool) -> Path:
    """Write it whole or not at all.

    Args:
        folder: where it shall lie.
        agent: XuanCe's, or ``None`` if there is nothing learned.
        about: plain values for ``checkpoint.json``.
        replay: whether the replay buffer goes with it.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        if agent is not None:
            _save_model(unfinished, agent)
            torch.save(_state(agent, replay), unfinished / STATE)
        (unfinished / ABOUT).write_text(json.dumps({"format": FORMAT, **about}, indent=2, sort_keys=True))
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.replace(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return folder


def remove_unfinished(folder: Path) -> None:
    """Remove what a killed process left half written."""
    for leftover in folder.glob(".checkpoint_*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)


def read_about(folder: Path) -> dict[str, Any]:
    """What ``checkpoint.json`` says.

    Raises:
        CheckpointError: there is no checkpoint, or one of another format.
    """
    try:
        about: dict[str, Any] = json.loads((folder / ABOUT).read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{folder} is no checkpoint of this worker ({type(error).__name__}: {error}); "
            "unset MOSAIC_RESUME_FROM to start anew"
        ) from error
    if about.get("format") != FORMAT:
        raise CheckpointError(
            f"the checkpoint {folder} has format {about.get('format')!r}; this version reads {FORMAT}"
        )
    return about


def check_fits(about: Mapping[str, Any], config: XuanCeConfig) -> None:
    """Another learning rate may go on from a checkpoint; another algorithm or environment may not.

    Raises:
        CheckpointError: it is of another algorithm or environment.
    """
    was = about["config"]
    for name, now in (("algo", config.algo), ("env_id", config.environment), ("env_kwargs", config.env_kwargs)):
        if was.get(name) != now:
            raise CheckpointError(f"the checkpoint was trained with {name} {was.get(name)!r}, this run has {now!r}")


def restore(folder: Path, agent: Any, *, training: bool = True) -> None:
    """Put networks and, for training, everything else back into a freshly built agent.

    Raises:
        CheckpointError: a file is missing or damaged, or its networks have other sizes.
    """
    device = agent.device
    try:
        model = torch.load(folder / MODEL, map_location=device, weights_only=True)
        state = torch.load(folder / STATE, map_location=device, weights_only=True)
        agent.policy.load_state_dict(model["policy"])
        _restore_statistics(agent, state["statistics"])
        if training:
            _restore_learner(agent.learner, state["learner"])
            for name, value in state["factors"].items():
                setattr(agent, name, value)
            agent.current_episode[:] = state["episodes"].cpu().numpy()[: len(agent.current_episode)] \
                if len(state["episodes"]) == len(agent.current_episode) else 0  # fmt: skip
            if state["replay"] is not None:
                _restore_replay(agent.memory, state["replay"])
            _restore_random(state["random"])
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"the checkpoint {folder} cannot be used ({type(error).__name__}: {error}); it must be whole, and "
            "networks must have the sizes that they had; or unset MOSAIC_RESUME_FROM to start anew"
        ) from error


def _save_model(folder: Path, agent: Any) -> None:
    """In XuanCe's layout. Its own save_model fails for learners with no ``optimizer``, or with nested ones."""
    content: dict[str, Any] = {"policy": agent.policy.state_dict(), "rng_state": torch.get_rng_state()}
    content["cuda_rng_state"] = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    optimizer = getattr(agent.learner, "optimizer", None)
    if optimizer is not None:
        content["optimizer"] = _kept(optimizer)
    torch.save(content, folder / MODEL)
    if getattr(agent, "use_obsnorm", False):
        kept = agent.obs_rms
        np.save(folder / "obs_rms.npy", {"count": kept.count, "mean": kept.mean, "var": kept.var})


def _state(agent: Any, replay: bool) -> dict[str, Any]:
    return {
        "learner": _learner_state(agent.learner),
        "statistics": {name: _moments(getattr(agent, name)) for name in ("obs_rms", "ret_rms") if hasattr(agent, name)},
        "factors": {name: float(getattr(agent, name)) for name in _FACTORS if _is_number(getattr(agent, name, None))},
        "episodes": torch.as_tensor(agent.current_episode),
        "replay": _replay_state(agent.memory) if replay else None,
        "random": _random_state(),
    }


def _learner_state(learner: Any) -> dict[str, Any]:
    """Whatever a learner keeps: optimizers, schedules, networks of its own, learned numbers, counts."""
    found = {}
    for name, value in vars(learner).items():
        if name in _COUNTS:
            found[name] = int(value)
        elif name not in ("policy", "config", "callback") and (kept := _kept(value)) is not None:
            found[name] = kept
    return found


def _kept(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, torch.optim.lr_scheduler.LRScheduler):
        # What else it holds follows from the settings, which may have changed.
        return {"last_epoch": value.last_epoch, "_step_count": value._step_count}
    if hasattr(value, "state_dict") and hasattr(value, "load_state_dict"):
        return value.state_dict()
    if isinstance(value, dict):
        found = {key: kept for key, each in value.items() if (kept := _kept(each)) is not None}
        return found or None
    if isinstance(value, (list, tuple)) and value and not _is_number(value[0]):
        kept = [_kept(each) for each in value]
        return kept if all(each is not None for each in kept) else None
    return None


def _restore_learner(learner: Any, state: Mapping[str, Any]) -> None:
    for name, kept in state.items():
        if name in _COUNTS:
            setattr(learner, name, kept)
        elif hasattr(learner, name):
            _put_back(getattr(learner, name), kept)


def _put_back(value: Any, kept: Any) -> None:
    if isinstance(value, torch.Tensor):
        with torch.no_grad():
            value.data.copy_(kept)
    elif isinstance(value, torch.optim.Optimizer):
        rates = [(group["lr"], group.get("initial_lr")) for group in value.param_groups]
        value.load_state_dict(kept)
        for group, (rate, initial) in zip(value.param_groups, rates, strict=True):
            group["lr"] = rate  # a resumed run may have been given another one
            if initial is not None:
                group["initial_lr"] = initial
    elif isinstance(value, torch.optim.lr_scheduler.LRScheduler):
        _wind(value, int(kept["last_epoch"]))
    elif hasattr(value, "load_state_dict"):
        value.load_state_dict(kept)
    elif isinstance(value, dict):
        for key, each in kept.items():
            if key in value:
                _put_back(value[key], each)
    elif isinstance(value, (list, tuple)):
        for each, one in zip(value, kept, strict=True):
            _put_back(each, one)


def _wind(scheduler: Any, updates: int) -> None:
    """Bring a linear schedule to where it stood after so many updates, by this run's own length and rates."""
    scheduler.last_epoch = updates
    scheduler._step_count = updates + 1
    rates = scheduler._get_closed_form_lr()
    for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    scheduler._last_lr = list(rates)


def _moments(kept: Any) -> dict[str, Any]:
    return {
        "count": torch.as_tensor(float(kept.count), dtype=torch.float64),
        "mean": torch.as_tensor(np.asarray(kept.mean)),
        "var": torch.as_tensor(np.asarray(kept.var)),
    }


def _restore_statistics(agent: Any, state: Mapping[str, Any]) -> None:
    for name, kept in state.items():
        moments = getattr(agent, name)
        moments.count = float(kept["count"])
        moments.mean, moments.var = kept["mean"].cpu().numpy(), kept["var"].cpu().numpy()


def _replay_state(memory: Any) -> dict[str, Any] | None:
    """The filled part of a replay buffer: arrays of shape (environments, places, ...), or dicts of such."""
    if type(memory).__name__ not in REPLAY:
        return None
    size = int(memory.size)
    found = {}
    for name, value in vars(memory).items():
        kept = _filled(value, memory, size)
        if kept is not None:
            found[name] = kept
    return {"size": size, "ptr": int(memory.ptr), "arrays": found}


def _filled(value: Any, memory: Any, size: int) -> Any:
    if isinstance(value, np.ndarray) and value.ndim >= 2 and value.shape[:2] == (memory.n_envs, memory.n_size):
        return torch.from_numpy(np.ascontiguousarray(value[:, :size])) if value.dtype.kind in "fiub" else None
    if isinstance(value, dict):
        found = {key: kept for key, each in value.items() if (kept := _filled(each, memory, size)) is not None}
        return found or None
    return None


def _restore_replay(memory: Any, state: Mapping[str, Any]) -> None:
    size = state["size"]
    if size > memory.n_size:
        raise CheckpointError(f"its replay buffer holds {size} steps of each environment, this run's {memory.n_size}")
    for name, kept in state["arrays"].items():
        _refill(getattr(memory, name), kept, size)
    memory.size = size
    # A buffer that has grown since goes on behind what it holds.
    memory.ptr = state["ptr"] if size == memory.n_size else size


def _refill(value: Any, kept: Any, size: int) -> None:
    if isinstance(value, dict):
        for key, each in kept.items():
            _refill(value[key], each, size)
    else:
        value[:, :size] = kept.cpu().numpy()


def _random_state() -> dict[str, Any]:
    version, words, gauss = random.getstate()
    numpy_state = np.random.get_state(legacy=False)
    inner = numpy_state["state"]
    return {
        "python": [version, torch.tensor(words, dtype=torch.int64), gauss],
        "numpy": {
            "key": torch.from_numpy(inner["key"].astype(np.int64)),
            "pos": int(inner["pos"]),
            "has_gauss": int(numpy_state["has_gauss"]),
            "gauss": float(numpy_state["gauss"]),
        },
        "torch": torch.get_rng_state(),
    }


def _restore_random(state: Mapping[str, Any]) -> None:
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    kept = state["numpy"]
    key = kept["key"].cpu().numpy().astype(np.uint32)
    np.random.set_state(("MT19937", key, kept["pos"], kept["has_gauss"], kept["gauss"]))
    torch.set_rng_state(state["torch"].cpu())


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def describe_space(space: Any) -> dict[str, Any]:
    """A Box or Discrete space as plain values."""
    if isinstance(space, spaces.Discrete):
        return {"n": int(space.n)}
    return {
        "low": _finite(space.low),
        "high": _finite(space.high),
        "shape": list(space.shape),
        "dtype": str(space.dtype),
    }


def build_space(text: Mapping[str, Any]) -> Any:
    """The inverse of :func:`describe_space`."""
    if "n" in text:
        return spaces.Discrete(text["n"])
    shape = tuple(text["shape"])
    dtype = np.dtype(text["dtype"])
    low, high = (np.array([float(each) for each in text[side]], dtype).reshape(shape) for side in ("low", "high"))
    return spaces.Box(low, high, shape, dtype.type)


def _finite(values: np.ndarray) -> list[Any]:
    """Plain numbers; infinities as text, which JSON has no numbers for."""
    return [float(each) if np.isfinite(each) else str(float(each)) for each in values.reshape(-1)]


__all__ = [
    "ABOUT",
    "FORMAT",
    "MODEL",
    "REPLAY",
    "STATE",
    "CheckpointError",
    "build_space",
    "check_fits",
    "describe_space",
    "read_about",
    "remove_unfinished",
    "restore",
    "save_checkpoint",
]

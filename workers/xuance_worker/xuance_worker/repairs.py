"""Faults of XuanCe 1.4.4 that keep algorithms of it from running at all, mended where they are met.

Each is looked for first: another release of XuanCe, which may have mended them itself, is left as it is.
"""

from __future__ import annotations

import functools
import inspect
import sys
import textwrap
import types
from typing import Any


def stand_in_for_scatter() -> None:
    """DCG sums with torch_scatter, which only compiles from source; torch has had the same sum for long."""
    try:
        import torch_scatter  # noqa: F401
    except ImportError:
        try:
            import torch
        except ImportError:
            return
        module = types.ModuleType("torch_scatter")

        def scatter_add(src: Any, index: Any, dim: int = -1, dim_size: int | None = None) -> Any:
            """Sums of ``src`` along ``dim``, by ``index``; as torch_scatter has it."""
            dim = dim % src.dim()
            if index.dim() == 1 and src.dim() > 1:
                index = index.view([-1 if axis == dim else 1 for axis in range(src.dim())])
            index = index.expand_as(src)
            shape = list(src.shape)
            shape[dim] = dim_size if dim_size is not None else int(index.max()) + 1
            return torch.zeros(shape, dtype=src.dtype, device=src.device).scatter_add_(dim, index, src)

        module.scatter_add = scatter_add  # type: ignore[attr-defined]
        sys.modules["torch_scatter"] = module


def mend_dreamers() -> None:
    """Their replay buffer does not tell its base class how large it is."""
    from xuance.common.memory_tools import Buffer, SequentialReplayBuffer

    if "action_space, auxiliary_shape)" not in inspect.getsource(SequentialReplayBuffer.__init__):
        return

    def __init__(
        self: Any,
        observation_space: Any,
        action_space: Any,
        auxiliary_shape: Any,
        n_envs: int,
        buffer_size: int,
        batch_size: int,
    ) -> None:
        Buffer.__init__(self, observation_space, action_space, auxiliary_shape, n_envs, buffer_size)
        self.batch_size = batch_size
        self.clear()

    SequentialReplayBuffer.__init__ = __init__


def mend_coordination_graph(state_size: int) -> None:
    """DCG_S does not tell its policy how large the state is, and cannot build the network that looks at it."""
    from xuance.torch.agents.multi_agent_rl import dcg_agents
    from xuance.torch.policies import REGISTRY_Policy

    if " state_dim=" in inspect.getsource(dcg_agents.DCG_Agents._build_policy):
        return
    policy = REGISTRY_Policy["DCG_Policy"]
    policy = policy.func if isinstance(policy, functools.partial) else policy
    REGISTRY_Policy["DCG_Policy"] = functools.partial(policy, state_dim=state_size)
    module = sys.modules[policy.__module__]
    head = module.BasicQhead
    # It also gives the network of the state one argument too many, an id's size of 0 in the third place.
    module.BasicQhead = lambda *given: head(*(given[:2] + given[3:] if len(given) == 8 else given))


def mend_weighted_mixing() -> None:
    """CWQMIX compares a dict of actions with a tensor, where it asks whether all agents did what they thought best."""
    from xuance.torch.learners.multi_agent_rl import wqmix_learner

    learner = wqmix_learner.WQMIX_Learner
    wrong = "((action_max == actions.reshape([-1, self.n_agents, 1])) * agent_mask).all(dim=1)"
    source = textwrap.dedent(inspect.getsource(learner.update))
    if wrong not in source:
        return
    found: dict[str, Any] = {}
    scope = {**vars(wqmix_learner), "all_as_thought_best": _all_as_thought_best}
    exec(source.replace(wrong, "all_as_thought_best(self, action_max, actions, batch_size)"), scope, found)
    learner.update = found["update"]


def _all_as_thought_best(learner: Any, best: dict[str, Any], taken: dict[str, Any], batch_size: int) -> Any:
    """Shape (batch, 1): whether every agent took the action that it values most."""
    import torch

    same = [best[key].reshape(-1) == taken[key].long().reshape(-1) for key in learner.model_keys]
    if learner.use_parameter_sharing:
        return same[0].reshape(batch_size, learner.n_agents).all(dim=1, keepdim=True)
    return torch.stack(same, dim=1).all(dim=1, keepdim=True)


__all__ = ["mend_coordination_graph", "mend_dreamers", "mend_weighted_mixing", "stand_in_for_scatter"]

"""RLModules of ours: with action masks, and with one value function for several policies."""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.algorithms.appo.torch.default_appo_torch_rl_module import DefaultAPPOTorchRLModule
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
from torch import nn

ILLEGAL = -1e9
"""Added to the logits of illegal actions: their probability is 0 in float32, and nothing becomes NaN."""
MASKED = "mosaic_masked"
"""Entry of a module's ``model_config``: number of actions whose mask is in front of its observations; 0: no mask."""


class _Masked:
    """Adds the mask in front of the observations to the logits."""

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return self._legal_only(batch, super()._forward(batch, **kwargs))

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return self._legal_only(batch, super()._forward_train(batch, **kwargs))

    def _legal_only(self, batch: dict[str, Any], output: dict[str, Any]) -> dict[str, Any]:
        count = int(self.model_config.get(MASKED, 0))
        if count:
            mask = batch[Columns.OBS][..., :count]
            output[Columns.ACTION_DIST_INPUTS] = output[Columns.ACTION_DIST_INPUTS] + (1.0 - mask) * ILLEGAL
        return output


class MaskedPPOModule(_Masked, DefaultPPOTorchRLModule):
    """For PPO and IMPALA."""


class MaskedAPPOModule(_Masked, DefaultAPPOTorchRLModule):
    """For APPO."""


class SharedValueModule(MaskedPPOModule):
    """A policy of its own, judged by a value function that it shares with the others.

    The value function is put in by :class:`SharedValues`, and is part of every such module: so each can be saved and
    loaded alone.
    """

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> Any:
        """See RLlib's ``ValueFunctionAPI``; embeddings are of the policy's own encoder, and no use here."""
        if self.vf is None:
            raise RuntimeError("this copy of the policy is for acting only: it has no value function")
        return self.vf(batch[Columns.OBS].flatten(1)).squeeze(-1)

    def setup(self) -> None:
        """Without the networks of a value function of its own."""
        super().setup()
        if not self.inference_only:
            self.vf = value_network(self.observation_space.shape, self.model_config)


def value_network(shape: tuple[int, ...], model_config: dict[str, Any]) -> nn.Sequential:
    """Observations of ``shape`` to one value."""
    activations = {"tanh": nn.Tanh, "relu": nn.ReLU, "silu": nn.SiLU, "elu": nn.ELU}
    activation = activations[model_config["fcnet_activation"]]
    width = int(torch.Size(shape).numel())
    layers: list[nn.Module] = []
    for size in model_config["fcnet_hiddens"]:
        layers += [nn.Linear(width, size), activation()]
        width = size
    return nn.Sequential(*layers, nn.Linear(width, 1))


class SharedValues(MultiRLModule):
    """Policies with one value function: that of the first is everyone's."""

    def setup(self) -> None:
        """Build them, and let them share."""
        super().setup()
        learning = [module for module in self._rl_modules.values() if not module.inference_only]
        for module in learning[1:]:
            module.vf = learning[0].vf


class SharedValuesLearner(PPOTorchLearner):
    """Counts the shared parameters once: with the first policy's optimizer.

    The loss is the sum over all policies, so their gradient is that of all of them together.
    """

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """Adam on the module's own parameters; the first has the shared ones, too."""
        module = self._module[module_id]
        first = next(iter(self._module.keys()))
        shared = set() if module_id == first else {id(each) for each in self._module[first].unwrapped().vf.parameters()}
        params = [each for each in self.get_parameters(module) if id(each) not in shared]
        self.register_optimizer(
            module_id=module_id, optimizer=torch.optim.Adam(params), params=params, lr_or_lr_schedule=config.lr
        )


__all__ = ["MASKED", "MaskedAPPOModule", "MaskedPPOModule", "SharedValueModule", "SharedValues", "SharedValuesLearner"]

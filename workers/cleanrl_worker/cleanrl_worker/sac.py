"""SAC for bounded continuous actions and vector observations: the whole algorithm, in this one file.

Haarnoja et al. 2018, "Soft Actor-Critic: Off-Policy Maximum Entropy Deep Reinforcement Learning with a
Stochastic Actor" (arXiv:1801.01290), in the form of "Soft Actor-Critic Algorithms and Applications"
(arXiv:1812.05905): two critics of which the lower counts, no separate state value, and a weight of the entropy,
alpha, that is adjusted so that the policy's entropy stays near a target.

Where this differs from CleanRL's ``sac_continuous_action.py``, it does so on purpose:

- An episode that is *truncated* (time limit) is not over: its last state's value is bootstrapped. The buffer
  holds the true successor of every state, also where an episode ends.
- The policy is updated as often as the critics.
- The noise that the policy acts with may be correlated over time (``noise_correlation``), as in Eberhard et al.
  2023, "Pink Noise Is All You Need: Colored Noise Exploration in Deep Reinforcement Learning" (ICLR), but as a
  first-order process: the Ornstein-Uhlenbeck noise of Lillicrap et al. 2015, "Continuous control with deep
  reinforcement learning" (arXiv:1509.02971), of unit variance. Each single action is still one of the
  policy's distribution.
- All randomness of the algorithm comes from one NumPy generator, on any device.

Actions are scaled: everything but the environment sees them in [-1, 1].

Shapes: N environments, D observation entries, A action entries, M = ``batch_size``.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv
from torch import nn
from torch.nn.functional import mse_loss, softplus

from cleanrl_worker.config import CleanRLConfig
from cleanrl_worker.envs import (
    box_actions,
    env_seeds,
    make_envs,
    observation_size,
    replay_tapes,
    save_tapes,
)
from cleanrl_worker.replay import ReplayBuffer
from cleanrl_worker.session import Session

LOG_STD_RANGE = (-20.0, 2.0)
"""Bounds of the logarithms of the policy's deviations, before the tanh."""

Array = np.ndarray[Any, Any]


def network(inputs: int, hidden_size: int, outputs: int) -> nn.Sequential:
    """Two hidden layers of ReLU units."""
    return nn.Sequential(
        nn.Linear(inputs, hidden_size),
        nn.ReLU(),
        nn.Linear(hidden_size, hidden_size),
        nn.ReLU(),
        nn.Linear(hidden_size, outputs),
    )


class Actor(nn.Module):
    """A normal distribution per action entry, squeezed into (-1, 1) by tanh."""

    def __init__(self, observation_size: int, actions: int, hidden_size: int) -> None:
        super().__init__()
        self.body = network(observation_size, hidden_size, 2 * actions)

    def forward(self, obs: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(M, D) observations and (M, A) standard normal noise to actions and their log-densities.

        Returns:
            (M, A) actions, differentiable in the parameters (the reparametrisation trick), and (M,) the
            logarithms of their densities.
        """
        mean, log_std = self.body(obs).chunk(2, dim=-1)
        log_std = log_std.clamp(*LOG_STD_RANGE)
        raw = mean + log_std.exp() * noise
        # log N(raw; mean, std), less log |d tanh(raw) / d raw| = log(1 - tanh(raw)^2), which is written so that
        # it does not lose all digits where tanh is near 1 (appendix C of arXiv:1801.01290 gives the formula).
        log_normal = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
        log_slope = 2 * (math.log(2) - raw - softplus(-2 * raw))
        return raw.tanh(), (log_normal - log_slope).sum(-1)


class Critics(nn.Module):
    """Two critics that share nothing."""

    def __init__(self, observation_size: int, actions: int, hidden_size: int) -> None:
        super().__init__()
        self.first = network(observation_size + actions, hidden_size, 1)
        self.second = network(observation_size + actions, hidden_size, 1)

    def forward(self, obs: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """(M, D) observations and (M, A) actions to (2, M) values."""
        both = torch.cat((obs, actions), dim=-1)
        return torch.stack((self.first(both).squeeze(-1), self.second(both).squeeze(-1)))


def in_bounds(actions: Array, space: spaces.Box) -> Array:
    """(N, A) actions in [-1, 1] to actions of the environments, (N, *shape) in their bounds and dtype."""
    scaled = actions.reshape(-1, *space.shape)
    wanted = space.low + (scaled + 1) / 2 * (space.high - space.low)
    return wanted.clip(space.low, space.high).astype(space.dtype)


def check(config: CleanRLConfig, device: torch.device) -> dict[str, Any]:
    """Build everything and take one step, to see that it can be done. Returns what was found."""
    envs = make_envs(config)
    try:
        entries, space = observation_size(envs), box_actions(envs)
        action_size = math.prod(space.shape)
        actor = Actor(entries, action_size, config.hidden_size).to(device)
        critics = Critics(entries, action_size, config.hidden_size).to(device)
        obs, _ = envs.reset(seed=env_seeds(0, config.num_envs))
        seen = torch.as_tensor(obs, dtype=torch.float32, device=device)
        with torch.inference_mode():
            actions, _ = actor(seen, torch.zeros(config.num_envs, action_size, device=device))
            critics(seen, actions)
        envs.step(in_bounds(actions.cpu().numpy(), space))
        parts = (*actor.parameters(), *critics.parameters())
        return {
            "observation_size": entries,
            "action_size": action_size,
            "parameters": sum(parameter.numel() for parameter in parts),
        }
    finally:
        envs.close()


def train(config: CleanRLConfig, session: Session) -> None:
    """Train until ``total_steps``, or until the session asks to stop. It takes reports and checkpoints.

    Raises:
        ConfigError: the environment cannot be made or its spaces are not supported.
        TrainingError: the losses are no longer finite, or the checkpoint's buffer is of another environment.
    """
    envs = make_envs(config)
    try:
        _train(config, session, envs)
    finally:
        envs.close()


def _train(config: CleanRLConfig, session: Session, envs: SyncVectorEnv) -> None:
    device = session.device
    rng = np.random.default_rng(session.seed)
    entries, space = observation_size(envs), box_actions(envs)
    action_size = math.prod(space.shape)
    actor = Actor(entries, action_size, config.hidden_size).to(device)
    critics = Critics(entries, action_size, config.hidden_size).to(device)
    target_critics = copy.deepcopy(critics).requires_grad_(False)
    actor_parameters, critic_parameters = list(actor.parameters()), list(critics.parameters())
    target_parameters = list(target_critics.parameters())
    log_alpha = torch.tensor(math.log(config.alpha), device=device, requires_grad=config.autotune)
    target_entropy = -float(action_size) if config.target_entropy is None else config.target_entropy
    rates = {
        "actor": config.policy_lr or config.learning_rate,
        "critics": config.q_lr or config.learning_rate,
        "alpha": config.learning_rate,
    }
    optimizers = {
        "actor": torch.optim.Adam(actor_parameters, lr=rates["actor"], fused=True),
        "critics": torch.optim.Adam(critic_parameters, lr=rates["critics"], fused=True),
        "alpha": torch.optim.Adam([log_alpha], lr=rates["alpha"], fused=True),
    }
    buffer = ReplayBuffer(config.buffer_size, entries, (action_size,), np.float32)
    obs, _ = envs.reset(seed=env_seeds(session.seed, config.num_envs))
    obs = np.array(obs, dtype=np.float32)  # a copy: the vector environment overwrites its array
    noise = rng.standard_normal((config.num_envs, action_size), dtype=np.float32)
    kept, fresh = config.noise_correlation, math.sqrt(1 - config.noise_correlation**2)

    if session.resumed is not None:
        saved = session.resumed
        actor.load_state_dict(saved["actor"])
        critics.load_state_dict(saved["critics"])
        target_critics.load_state_dict(saved["target_critics"])
        for name, optimizer in optimizers.items():
            optimizer.load_state_dict(saved["optimizers"][name])
        if config.autotune:
            with torch.no_grad():
                log_alpha.copy_(saved["log_alpha"])
        buffer.load_state_dict(saved["buffer"])
        where_it_was = None
        if session.same_seed:
            rng.bit_generator.state = saved["rng"]
            session.restore_random_states()
            if saved["obs"].shape == obs.shape:
                where_it_was = replay_tapes(envs, saved["tapes"], saved["obs"].numpy())
        if where_it_was is not None:
            obs, noise = where_it_was, saved["noise"].numpy()
        else:
            session.say("the environments start new episodes: theirs could not be continued")
            obs, _ = envs.reset(seed=[int(word) for word in rng.integers(2**31, size=config.num_envs)])
            obs = np.array(obs, dtype=np.float32)

    def state() -> dict[str, Any]:
        return {
            "actor": actor.state_dict(),
            "critics": critics.state_dict(),
            "target_critics": target_critics.state_dict(),
            "log_alpha": log_alpha.detach(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in optimizers.items()},
            "buffer": buffer.state_dict(),
            "rng": rng.bit_generator.state,
            "noise": torch.from_numpy(noise.copy()),
            "obs": torch.from_numpy(obs.copy()),
            "tapes": save_tapes(envs),
        }

    def draw_noise() -> torch.Tensor:
        return torch.from_numpy(rng.standard_normal((config.batch_size, action_size), dtype=np.float32)).to(device)

    while session.step < config.total_steps and not session.stopping:
        # ---- act -------------------------------------------------------------------------------------
        seen_noise = torch.from_numpy(noise)
        if session.step < config.learning_starts:
            # The normal distribution function of standard normal noise is uniform, and as correlated.
            actions = 2 * torch.special.ndtr(seen_noise).numpy() - 1
        else:
            with torch.inference_mode():
                actions = actor(torch.from_numpy(obs).to(device), seen_noise.to(device))[0].cpu().numpy()
        next_obs, rewards, terminated, truncated, infos = envs.step(in_bounds(actions, space))
        next_obs = np.array(next_obs, dtype=np.float32)
        progress = session.step / config.total_steps
        steps_before = session.step
        session.step += config.num_envs
        noise = kept * noise + fresh * rng.standard_normal(noise.shape, dtype=np.float32)

        # ---- remember --------------------------------------------------------------------------------
        successors = next_obs
        done = terminated | truncated
        if done.any():
            successors = next_obs.copy()  # where an episode ended, next_obs is the first of the next one
            noise[done] = rng.standard_normal(noise[done].shape, dtype=np.float32)
            episodes = infos["final_info"]["episode"]
            for i in np.flatnonzero(done):
                successors[i] = infos["final_obs"][i]
                session.episode(float(episodes["r"][i]), int(episodes["l"][i]), bool(terminated[i]), bool(truncated[i]))
        buffer.add(obs=obs, next_obs=successors, actions=actions, rewards=rewards, terminated=terminated)
        obs = next_obs

        # ---- learn -----------------------------------------------------------------------------------
        rounds = session.step // config.train_frequency - steps_before // config.train_frequency
        if session.step > config.learning_starts and rounds:
            for name, optimizer in optimizers.items():
                optimizer.param_groups[0]["lr"] = rates[name] * (1 - progress if config.anneal_lr else 1)
            for _ in range(rounds * config.gradient_steps):
                drawn = rng.integers(len(buffer), size=config.batch_size)
                obs_m, next_obs_m, action_m, reward, ended = buffer.rows(drawn, device)
                alpha = log_alpha.detach().exp()

                # Critics: y = r + gamma (min Q'(s', a') - alpha log pi(a' | s')) with a' of today's policy
                with torch.no_grad():
                    next_action, next_logprob = actor(next_obs_m, draw_noise())
                    next_value = target_critics(next_obs_m, next_action).amin(0) - alpha * next_logprob  # (M,)
                    target = reward + config.gamma * ~ended * next_value  # (M,)
                values = critics(obs_m, action_m)  # (2, M)
                q_loss = 2 * mse_loss(values, target.expand_as(values))  # the sum of both critics' losses
                optimizers["critics"].zero_grad()
                q_loss.backward()
                optimizers["critics"].step()

                # Policy: up the lower critic, and up the entropy
                action, logprob = actor(obs_m, draw_noise())
                policy_loss = (alpha * logprob - critics(obs_m, action).amin(0)).mean()
                optimizers["actor"].zero_grad()
                policy_loss.backward(inputs=actor_parameters)
                optimizers["actor"].step()

                # alpha: up where the entropy, -log pi, is below its target, else down
                entropy = -logprob.detach().mean()
                if config.autotune:
                    alpha_loss = log_alpha.exp() * (entropy - target_entropy)
                    optimizers["alpha"].zero_grad()
                    alpha_loss.backward()
                    optimizers["alpha"].step()

                with torch.no_grad():
                    for old, new in zip(target_parameters, critic_parameters, strict=True):
                        old.lerp_(new, config.tau)
                session.updates += 1
            names = ("q_loss", "q_value", "policy_loss", "entropy", "alpha")
            newest = torch.stack((q_loss, values.mean(), policy_loss, entropy, alpha)).tolist()
            session.learned(dict(zip(names, newest, strict=True)))
            session.metrics["learning_rate"] = optimizers["actor"].param_groups[0]["lr"]
        session.heartbeat()
        session.checkpoint_if_due(state)

    session.checkpoint(state)


__all__ = ["Actor", "Critics", "check", "in_bounds", "train"]

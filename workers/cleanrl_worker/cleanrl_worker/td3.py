"""TD3 for bounded continuous actions and vector observations: the whole algorithm, in this one file.

Fujimoto et al. 2018, "Addressing Function Approximation Error in Actor-Critic Methods" (arXiv:1802.09477):
deterministic policy gradients (Lillicrap et al. 2015, arXiv:1509.02971) with its three remedies against values
that are too high: two critics of which the lower counts, a policy that is updated less often than they are, and
noise on the target's actions.

Where this differs from CleanRL's ``td3_continuous_action.py``, it does so on purpose:

- An episode that is *truncated* (time limit) is not over: its last state's value is bootstrapped. The buffer
  holds the true successor of every state, also where an episode ends.
- The exploration noise may be correlated over time (``noise_correlation``): a first-order process of constant
  variance, which is the Ornstein-Uhlenbeck noise of arXiv:1509.02971. The random actions before
  ``learning_starts`` are correlated alike.
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
from torch.nn.functional import mse_loss

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
    """(M, D) observations to (M, A) actions in (-1, 1)."""

    def __init__(self, observation_size: int, actions: int, hidden_size: int) -> None:
        super().__init__()
        self.body = network(observation_size, hidden_size, actions)

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        return self.body(obs).tanh()


class Critic(nn.Module):
    """(M, D) observations and (M, A) actions to (M,) values."""

    def __init__(self, observation_size: int, actions: int, hidden_size: int) -> None:
        super().__init__()
        self.body = network(observation_size + actions, hidden_size, 1)

    def forward(self, obs: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        return self.body(torch.cat((obs, actions), dim=-1)).squeeze(-1)


class Networks(nn.Module):
    """The policy and two critics that share nothing; the targets are another one of these."""

    def __init__(self, observation_size: int, actions: int, hidden_size: int) -> None:
        super().__init__()
        self.actor = Actor(observation_size, actions, hidden_size)
        self.critics = nn.ModuleList(Critic(observation_size, actions, hidden_size) for _ in range(2))


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
        networks = Networks(entries, action_size, config.hidden_size).to(device)
        obs, _ = envs.reset(seed=env_seeds(0, config.num_envs))
        seen = torch.as_tensor(obs, dtype=torch.float32, device=device)
        with torch.inference_mode():
            actions = networks.actor(seen)
            networks.critics[0](seen, actions)
        envs.step(in_bounds(actions.cpu().numpy(), space))
        return {
            "observation_size": entries,
            "action_size": action_size,
            "parameters": sum(parameter.numel() for parameter in networks.parameters()),
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
    networks = Networks(entries, action_size, config.hidden_size).to(device)
    targets = copy.deepcopy(networks).requires_grad_(False)
    actor, (first, second) = networks.actor, networks.critics
    target_actor, (target_first, target_second) = targets.actor, targets.critics
    actor_parameters, critic_parameters = list(actor.parameters()), list(networks.critics.parameters())
    parameters, target_parameters = list(networks.parameters()), list(targets.parameters())
    rates = {
        "actor": config.policy_lr or config.learning_rate,
        "critics": config.q_lr or config.learning_rate,
    }
    optimizers = {
        "actor": torch.optim.Adam(actor_parameters, lr=rates["actor"], fused=True),
        "critics": torch.optim.Adam(critic_parameters, lr=rates["critics"], fused=True),
    }
    buffer = ReplayBuffer(config.buffer_size, entries, (action_size,), np.float32)
    obs, _ = envs.reset(seed=env_seeds(session.seed, config.num_envs))
    obs = np.array(obs, dtype=np.float32)  # a copy: the vector environment overwrites its array
    noise = rng.standard_normal((config.num_envs, action_size), dtype=np.float32)
    kept, fresh = config.noise_correlation, math.sqrt(1 - config.noise_correlation**2)

    if session.resumed is not None:
        saved = session.resumed
        networks.load_state_dict(saved["networks"])
        targets.load_state_dict(saved["targets"])
        for name, optimizer in optimizers.items():
            optimizer.load_state_dict(saved["optimizers"][name])
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
            "networks": networks.state_dict(),
            "targets": targets.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in optimizers.items()},
            "buffer": buffer.state_dict(),
            "rng": rng.bit_generator.state,
            "noise": torch.from_numpy(noise.copy()),
            "obs": torch.from_numpy(obs.copy()),
            "tapes": save_tapes(envs),
        }

    while session.step < config.total_steps and not session.stopping:
        # ---- act -------------------------------------------------------------------------------------
        if session.step < config.learning_starts:
            # The normal distribution function of standard normal noise is uniform, and as correlated.
            actions = 2 * torch.special.ndtr(torch.from_numpy(noise)).numpy() - 1
        else:
            with torch.inference_mode():
                intended = actor(torch.from_numpy(obs).to(device)).cpu().numpy()
            actions = (intended + config.exploration_noise * noise).clip(-1, 1)
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
            losses: dict[str, torch.Tensor] = {}
            for name, optimizer in optimizers.items():
                optimizer.param_groups[0]["lr"] = rates[name] * (1 - progress if config.anneal_lr else 1)
            for _ in range(rounds * config.gradient_steps):
                drawn = rng.integers(len(buffer), size=config.batch_size)
                obs_m, next_obs_m, action_m, reward, ended = buffer.rows(drawn, device)

                # Critics: y = r + gamma min Q'(s', pi'(s') + noise), so that similar actions get similar values
                jitter = config.policy_noise * rng.standard_normal(action_m.shape, dtype=np.float32)
                jitter = torch.from_numpy(jitter.clip(-config.noise_clip, config.noise_clip)).to(device)
                with torch.no_grad():
                    next_action = (target_actor(next_obs_m) + jitter).clamp(-1, 1)  # (M, A)
                    next_value = torch.min(
                        target_first(next_obs_m, next_action), target_second(next_obs_m, next_action)
                    )  # (M,)
                    target = reward + config.gamma * ~ended * next_value  # (M,)
                value = first(obs_m, action_m)  # (M,)
                q_loss = mse_loss(value, target) + mse_loss(second(obs_m, action_m), target)
                optimizers["critics"].zero_grad()
                q_loss.backward()
                optimizers["critics"].step()
                losses.update(q_loss=q_loss.detach(), q_value=value.detach().mean())
                session.updates += 1

                # Policy: up the first critic; only then do the targets follow, by a share of tau
                if session.updates % config.policy_frequency == 0:
                    policy_loss = -first(obs_m, actor(obs_m)).mean()
                    optimizers["actor"].zero_grad()
                    policy_loss.backward(inputs=actor_parameters)
                    optimizers["actor"].step()
                    with torch.no_grad():
                        for old, new in zip(target_parameters, parameters, strict=True):
                            old.lerp_(new, config.tau)
                    losses["policy_loss"] = policy_loss.detach()
            session.learned(dict(zip(losses, torch.stack(list(losses.values())).tolist(), strict=True)))
            session.metrics["learning_rate"] = optimizers["actor"].param_groups[0]["lr"]
        session.heartbeat()
        session.checkpoint_if_due(state)

    session.checkpoint(state)


__all__ = ["Actor", "Critic", "Networks", "check", "in_bounds", "train"]

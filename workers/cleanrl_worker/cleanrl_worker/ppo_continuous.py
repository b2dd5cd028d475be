"""PPO for continuous actions and vector observations: the whole algorithm, in this one file.

Schulman et al. 2017, "Proximal Policy Optimization Algorithms" (arXiv:1707.06347), with the implementation
details for continuous actions of "The 37 Implementation Details of PPO" (Huang et al., ICLR Blog Track 2022),
beside those that ``ppo.py`` names: a normal distribution per action entry, whose deviation does not depend on
the state; entries taken as independent; actions clipped only on their way into the environment; observations
normalised by their running mean and deviation, and clipped; rewards divided by the running deviation of the
discounted return, and clipped.

Where this differs from CleanRL's ``ppo_continuous_action.py``, it does so on purpose, as ``ppo.py`` does:

- An episode that is *truncated* (time limit) is not over: its last state's value is bootstrapped. For this
  the rollout stores the true successor of every state, also where an episode ends.
- Only the action is computed at each step. Values and log-probabilities come from one pass over the finished
  rollout, with the same parameters: the same numbers at a fraction of the time.
- The running statistics are one, over all environments, and part of the checkpoint. Episodes are reported in
  the environment's own rewards.
- All randomness of the algorithm comes from one NumPy generator, on any device.
- The last rollout is shorter where ``total_steps`` asks for it.

Shapes: T steps of a rollout, N environments, D observation entries, A action entries, B = T * N, M of a
minibatch.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from gymnasium.vector import SyncVectorEnv
from torch import nn

from cleanrl_worker.config import CleanRLConfig
from cleanrl_worker.envs import (
    box_actions,
    env_seeds,
    make_envs,
    observation_size,
    replay_tapes,
    save_tapes,
)
from cleanrl_worker.session import Session

CLIP = 10.0
"""Normalised observations and rewards beyond this are cut off."""

Array = np.ndarray[Any, Any]


def linear(inputs: int, outputs: int, std: float = math.sqrt(2)) -> nn.Linear:
    """A layer with orthogonal weights of gain ``std`` and no bias at first."""
    layer = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(layer.weight, std)
    nn.init.zeros_(layer.bias)
    return layer


class Agent(nn.Module):
    """Actor and critic, two separate networks of two hidden layers of 64 tanh units.

    The actor gives the means of the action entries; the logarithms of their deviations are parameters.
    """

    def __init__(self, observation_size: int, actions: int) -> None:
        super().__init__()
        # The actor's small last layer makes the first means nearly 0.
        self.actor = nn.Sequential(
            linear(observation_size, 64), nn.Tanh(), linear(64, 64), nn.Tanh(), linear(64, actions, std=0.01)
        )
        self.log_std = nn.Parameter(torch.zeros(actions))
        self.critic = nn.Sequential(
            linear(observation_size, 64), nn.Tanh(), linear(64, 64), nn.Tanh(), linear(64, 1, std=1.0)
        )

    def log_prob(self, obs: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """(M, D) observations and (M, A) actions to the (M,) logarithms of the actions' densities."""
        scaled = (actions - self.actor(obs)) / self.log_std.exp()
        # log N(a; mean, std) = -((a - mean) / std)^2 / 2 - log std - log(2 pi) / 2, summed over the entries
        return (-0.5 * scaled.square() - self.log_std - 0.5 * math.log(2 * math.pi)).sum(-1)

    def entropy(self) -> torch.Tensor:
        """Of the actions' distribution, the same in every state."""
        return (self.log_std + 0.5 * math.log(2 * math.pi * math.e)).sum()


class RunningMoments:
    """Mean and variance, per entry, of all rows seen so far, in double precision.

    Chan et al. 1979, "Updating formulae and a pairwise algorithm for computing sample variances".
    """

    def __init__(self, entries: int) -> None:
        self.count = 0
        self.mean = np.zeros(entries)
        self.var = np.ones(entries)

    def update(self, rows: Array) -> None:
        """Take (K, entries) more rows."""
        rows = np.asarray(rows, dtype=np.float64)
        total = self.count + len(rows)
        delta = rows.mean(0) - self.mean
        squares = self.var * self.count + rows.var(0) * len(rows) + delta**2 * self.count * len(rows) / total
        self.mean = self.mean + delta * len(rows) / total
        self.var = squares / total
        self.count = total

    @property
    def std(self) -> Array:
        """(entries,) deviations, never 0."""
        return np.sqrt(self.var + 1e-8)

    def state_dict(self) -> dict[str, Any]:
        """All of it, as tensors."""
        return {"count": self.count, "mean": torch.from_numpy(self.mean), "var": torch.from_numpy(self.var)}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take what ``state_dict`` gave."""
        self.count, self.mean, self.var = saved["count"], saved["mean"].numpy(), saved["var"].numpy()


class Scaling:
    """Normalised observations and scaled rewards, by statistics of all that was seen while training.

    Args:
        envs: N.
        entries: D.
        config: ``norm_obs``, ``norm_reward``, ``gamma``.
    """

    def __init__(self, envs: int, entries: int, config: CleanRLConfig) -> None:
        self._config = config
        self.obs = RunningMoments(entries)
        self.returns = RunningMoments(1)
        self.running_return = np.zeros(envs)  # discounted, of the rewards of the running episodes so far

    def observe(self, obs: Array) -> Array:
        """Count (K, D) observations in."""
        self.obs.update(obs)
        return self.normalised(obs)

    def normalised(self, obs: Array) -> Array:
        """(K, D) observations with mean 0 and deviation 1, as far as is known by now; float32."""
        if not self._config.norm_obs:
            return obs.astype(np.float32)
        return ((obs - self.obs.mean) / self.obs.std).clip(-CLIP, CLIP).astype(np.float32)

    def scaled(self, rewards: Array, done: Array) -> Array:
        """Count (N,) rewards in, and divide them by the deviation of the discounted return.

        Not by their own deviation, and nothing is subtracted: what is learned is the value, which should be
        about 1 in size, and a shift of all rewards would make long episodes better or worse.
        """
        if not self._config.norm_reward:
            return rewards
        self.running_return = self.running_return * self._config.gamma + rewards
        self.returns.update(self.running_return[:, None])
        self.running_return[done] = 0.0
        return (rewards / self.returns.std).clip(-CLIP, CLIP)

    def state_dict(self) -> dict[str, Any]:
        """All statistics, as tensors."""
        return {
            "obs": self.obs.state_dict(),
            "returns": self.returns.state_dict(),
            "running_return": torch.from_numpy(self.running_return.copy()),
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take what ``state_dict`` gave. Running returns are dropped where there are other environments now."""
        self.obs.load_state_dict(saved["obs"])
        self.returns.load_state_dict(saved["returns"])
        if saved["running_return"].shape == self.running_return.shape:
            self.running_return = saved["running_return"].numpy()


class Rollout:
    """What T steps of N environments gave. Filled from the top; ``length`` rows are valid."""

    FIELDS = ("obs", "next_obs", "actions", "rewards", "terminated", "done")

    def __init__(self, steps: int, envs: int, observation_size: int, actions: int) -> None:
        self.obs = np.zeros((steps, envs, observation_size), dtype=np.float32)  # normalised, as the actor saw it
        self.next_obs = np.zeros_like(self.obs)  # the true successor, never the first state of a new episode
        self.actions = np.zeros((steps, envs, actions), dtype=np.float32)  # as drawn, before any clipping
        self.rewards = np.zeros((steps, envs), dtype=np.float32)  # scaled
        # Nothing comes after next_obs, its value is 0; terminated or cut short, the next row is another episode.
        self.terminated = np.zeros((steps, envs), dtype=np.bool_)
        self.done = np.zeros((steps, envs), dtype=np.bool_)
        self.length = 0

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The valid rows, as tensors."""
        return {name: torch.from_numpy(getattr(self, name)[: self.length].copy()) for name in self.FIELDS}

    def load_state_dict(self, saved: dict[str, torch.Tensor]) -> None:
        """Fill the first rows."""
        for name, rows in saved.items():
            self.length = len(rows)
            getattr(self, name)[: self.length] = rows.numpy()


def check(config: CleanRLConfig, device: torch.device) -> dict[str, Any]:
    """Build everything and take one step, to see that it can be done. Returns what was found."""
    envs = make_envs(config)
    try:
        entries, space = observation_size(envs), box_actions(envs)
        agent = Agent(entries, math.prod(space.shape)).to(device)
        obs, _ = envs.reset(seed=env_seeds(0, config.num_envs))
        with torch.inference_mode():
            means = agent.actor(torch.as_tensor(obs, dtype=torch.float32, device=device)).cpu().numpy()
        envs.step(means.reshape(-1, *space.shape).clip(space.low, space.high).astype(space.dtype))
        return {
            "observation_size": entries,
            "action_size": math.prod(space.shape),
            "parameters": sum(parameter.numel() for parameter in agent.parameters()),
        }
    finally:
        envs.close()


def train(config: CleanRLConfig, session: Session) -> None:
    """Train until ``total_steps``, or until the session asks to stop. It takes reports and checkpoints.

    Raises:
        ConfigError: the environment cannot be made or its spaces are not supported.
        TrainingError: the losses are no longer finite.
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
    agent = Agent(entries, action_size).to(device)
    parameters = list(agent.parameters())
    optimizer = torch.optim.Adam(parameters, lr=config.learning_rate, eps=1e-5, fused=True)
    scaling = Scaling(config.num_envs, entries, config)
    rollout = Rollout(config.num_steps, config.num_envs, entries, action_size)
    obs, _ = envs.reset(seed=env_seeds(session.seed, config.num_envs))
    obs = np.array(obs, dtype=np.float32)  # (N, D), the environments' own; a copy, since theirs is overwritten

    if session.resumed is not None:
        saved = session.resumed
        agent.load_state_dict(saved["agent"])
        optimizer.load_state_dict(saved["optimizer"])
        scaling.load_state_dict(saved["scaling"])
        fits = saved["obs"].shape == obs.shape
        if fits and len(saved["rollout"]["obs"]) < config.num_steps:
            rollout.load_state_dict(saved["rollout"])
        where_it_was = None
        if session.same_seed:
            rng.bit_generator.state = saved["rng"]
            session.restore_random_states()
            if fits:
                where_it_was = replay_tapes(envs, saved["tapes"], saved["obs"].numpy())
        if where_it_was is not None:
            obs = where_it_was
            normal_obs = saved["normal_obs"].numpy()
        else:
            session.say("the environments start new episodes: theirs could not be continued")
            obs, _ = envs.reset(seed=[int(word) for word in rng.integers(2**31, size=config.num_envs)])
            obs = np.array(obs, dtype=np.float32)
            normal_obs = scaling.observe(obs)
            scaling.running_return[:] = 0.0
            if rollout.length:
                rollout.done[rollout.length - 1] = True
    else:
        normal_obs = scaling.observe(obs)

    def state() -> dict[str, Any]:
        return {
            "agent": agent.state_dict(),
            "optimizer": optimizer.state_dict(),
            "scaling": scaling.state_dict(),
            "rng": rng.bit_generator.state,
            "obs": torch.from_numpy(obs.copy()),
            "normal_obs": torch.from_numpy(normal_obs.copy()),
            "rollout": rollout.state_dict(),
            "tapes": save_tapes(envs),
        }

    while session.step < config.total_steps:
        # By steps rather than updates, from where this rollout began: right after any resume, too.
        progress = (session.step - rollout.length * config.num_envs) / config.total_steps
        learning_rate = config.learning_rate * (1 - progress) if config.anneal_lr else config.learning_rate
        optimizer.param_groups[0]["lr"] = learning_rate
        session.metrics["learning_rate"] = learning_rate

        # ---- collect a rollout -----------------------------------------------------------------------
        missing = math.ceil((config.total_steps - session.step) / config.num_envs)
        steps = min(config.num_steps, rollout.length + missing)
        std = agent.log_std.detach().exp().cpu().numpy()  # (A,)
        while rollout.length < steps and not session.stopping:
            t = rollout.length
            with torch.inference_mode():
                means = agent.actor(torch.from_numpy(normal_obs).to(device)).cpu().numpy()  # (N, A)
            actions = means + std * rng.standard_normal(means.shape, dtype=np.float32)
            rollout.obs[t] = normal_obs
            rollout.actions[t] = actions
            possible = actions.reshape(-1, *space.shape).clip(space.low, space.high).astype(space.dtype)
            next_obs, rewards, terminated, truncated, infos = envs.step(possible)
            obs = np.array(next_obs, dtype=np.float32)
            done = terminated | truncated
            session.step += config.num_envs
            successors = obs
            if done.any():
                successors = obs.copy()  # where an episode ended, obs is the first of the next one
                episodes = infos["final_info"]["episode"]
                for i in np.flatnonzero(done):
                    successors[i] = infos["final_obs"][i]
                    session.episode(
                        float(episodes["r"][i]),
                        int(episodes["l"][i]),
                        bool(terminated[i]),
                        bool(truncated[i]),
                    )
            normal_obs = scaling.observe(successors)
            rollout.next_obs[t] = normal_obs
            if done.any():
                normal_obs[done] = scaling.observe(obs[done])
            rollout.rewards[t] = scaling.scaled(rewards, done)
            rollout.terminated[t] = terminated
            rollout.done[t] = done
            rollout.length += 1
            session.heartbeat()
        if rollout.length < steps:  # asked to stop: what was collected goes into the checkpoint
            break

        # ---- advantages ------------------------------------------------------------------------------
        observations = torch.from_numpy(rollout.obs[:steps]).to(device).flatten(0, 1)  # (B, D)
        actions_taken = torch.from_numpy(rollout.actions[:steps]).to(device).flatten(0, 1)  # (B, A)
        successor_obs = torch.from_numpy(rollout.next_obs[:steps]).to(device)  # (T, N, D)
        with torch.no_grad():
            old_values = agent.critic(observations).squeeze(-1)  # (B,)
            old_logprobs = agent.log_prob(observations, actions_taken)  # (B,)
            next_values = agent.critic(successor_obs).squeeze(-1).cpu().numpy()  # (T, N)
        values = old_values.view(steps, config.num_envs).cpu().numpy()  # (T, N)
        goes_on = 1.0 - rollout.terminated[:steps]
        same_episode = 1.0 - rollout.done[:steps]
        # delta_t = r_t + gamma V(s_t+1) - V(s_t);  A_t = delta_t + gamma lambda A_t+1, within one episode
        deltas = rollout.rewards[:steps] + config.gamma * goes_on * next_values - values
        advantages = np.zeros_like(values)
        following = np.zeros(config.num_envs)
        for t in reversed(range(steps)):
            following = deltas[t] + config.gamma * config.gae_lambda * same_episode[t] * following
            advantages[t] = following
        returns = advantages + values
        spread = returns.var()
        data = (
            observations,
            actions_taken,
            old_logprobs,
            old_values,
            torch.from_numpy(advantages).to(device).flatten(),
            torch.from_numpy(returns).to(device).flatten(),
        )

        # ---- update ----------------------------------------------------------------------------------
        batch = steps * config.num_envs
        full = config.num_envs * config.num_steps // config.num_minibatches
        stats: list[torch.Tensor] = []
        for _ in range(config.update_epochs):
            order = torch.from_numpy(rng.permutation(batch)).to(device)
            shuffled = (column[order].tensor_split(math.ceil(batch / full)) for column in data)
            epoch_start = len(stats)
            for obs_m, action, old_logprob, old_value, advantage, target in zip(*shuffled, strict=True):
                new_value = agent.critic(obs_m).squeeze(-1)  # (M,)
                logratio = agent.log_prob(obs_m, action) - old_logprob  # (M,)
                ratio = logratio.exp()

                if config.norm_adv:
                    advantage = (advantage - advantage.mean()) / (advantage.std(correction=0) + 1e-8)
                clipped_ratio = ratio.clamp(1 - config.clip_coef, 1 + config.clip_coef)
                policy_loss = -torch.min(advantage * ratio, advantage * clipped_ratio).mean()

                value_error = (new_value - target).square()
                if config.clip_vloss:
                    change = (new_value - old_value).clamp(-config.clip_coef, config.clip_coef)
                    value_error = torch.max(value_error, (old_value + change - target).square())
                value_loss = 0.5 * value_error.mean()

                entropy = agent.entropy()
                loss = policy_loss - config.ent_coef * entropy + config.vf_coef * value_loss
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
                optimizer.step()

                with torch.no_grad():
                    approx_kl = (ratio - 1 - logratio).mean()  # http://joschu.net/blog/kl-approx.html, k3
                    clipped = ((ratio - 1).abs() > config.clip_coef).float().mean()
                    stats.append(torch.stack((policy_loss, value_loss, entropy, approx_kl, clipped)).detach())
            if config.target_kl is not None:
                epoch_kl = torch.stack(stats[epoch_start:])[:, 3].mean()
                if epoch_kl > config.target_kl:
                    break
        rollout.length = 0

        names = ("policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction")
        session.learned(dict(zip(names, torch.stack(stats).mean(0).tolist(), strict=True)))
        session.metrics["explained_variance"] = float(1 - (returns - values).var() / spread) if spread > 0 else 0.0
        session.updates += 1
        session.checkpoint_if_due(state)

    session.checkpoint(state)


__all__ = ["Agent", "Rollout", "RunningMoments", "Scaling", "check", "train"]

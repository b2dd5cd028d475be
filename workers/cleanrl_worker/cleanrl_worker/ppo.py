"""PPO for discrete actions and vector observations: the whole algorithm, in this one file.

Schulman et al. 2017, "Proximal Policy Optimization Algorithms" (arXiv:1707.06347), with the implementation
details that "The 37 Implementation Details of PPO" (Huang et al., ICLR Blog Track 2022) found to matter:
orthogonal initialisation, Adam's eps of 1e-5, learning rate annealing, GAE, minibatches, advantage
normalisation, clipped policy and value losses, an entropy bonus, a global gradient norm, tanh networks that
share nothing.

Where this differs from CleanRL's ``ppo.py``, it does so on purpose:

- An episode that is *truncated* (time limit) is not over: its last state's value is bootstrapped. For this
  the rollout stores the true successor of every state, also where an episode ends.
- Only the action is computed at each step. Values and log-probabilities come from one pass over the finished
  rollout, with the same parameters: the same numbers at a fraction of the time.
- All randomness of the algorithm comes from one NumPy generator, on any device.
- The last rollout is shorter where ``total_steps`` asks for it.

Shapes: T steps of a rollout, N environments, D observation entries, A actions, B = T * N.
"""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import SyncVectorEnv
from torch import nn

from cleanrl_worker.config import CleanRLConfig
from cleanrl_worker.envs import env_seeds, make_envs, replay_tapes, save_tapes
from cleanrl_worker.session import Session


def linear(inputs: int, outputs: int, std: float = math.sqrt(2)) -> nn.Linear:
    """A layer with orthogonal weights of gain ``std`` and no bias at first."""
    layer = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(layer.weight, std)
    nn.init.zeros_(layer.bias)
    return layer


class Agent(nn.Module):
    """Actor and critic, two separate networks of two hidden layers of 64 tanh units."""

    def __init__(self, observation_size: int, actions: int) -> None:
        super().__init__()
        # The actor's small last layer makes the first policy nearly uniform.
        self.actor = nn.Sequential(
            linear(observation_size, 64), nn.Tanh(), linear(64, 64), nn.Tanh(), linear(64, actions, std=0.01)
        )
        self.critic = nn.Sequential(
            linear(observation_size, 64), nn.Tanh(), linear(64, 64), nn.Tanh(), linear(64, 1, std=1.0)
        )


class Rollout:
    """What T steps of N environments gave. Filled from the top; ``length`` rows are valid."""

    FIELDS = ("obs", "next_obs", "actions", "rewards", "terminated", "done")

    def __init__(self, steps: int, envs: int, observation_size: int) -> None:
        self.obs = np.zeros((steps, envs, observation_size), dtype=np.float32)
        self.next_obs = np.zeros_like(self.obs)  # the true successor, never the first state of a new episode
        self.actions = np.zeros((steps, envs), dtype=np.int64)
        self.rewards = np.zeros((steps, envs), dtype=np.float32)
        self.terminated = np.zeros((steps, envs), dtype=np.bool_)  # nothing comes after next_obs: its value is 0
        self.done = np.zeros((steps, envs), dtype=np.bool_)  # terminated or cut short: the next row is another episode
        self.length = 0

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The valid rows, as tensors."""
        return {name: torch.from_numpy(getattr(self, name)[: self.length].copy()) for name in self.FIELDS}

    def load_state_dict(self, saved: dict[str, torch.Tensor]) -> None:
        """Fill the first rows."""
        for name, rows in saved.items():
            self.length = len(rows)
            getattr(self, name)[: self.length] = rows.numpy()


def sizes(envs: SyncVectorEnv) -> tuple[int, int, int]:
    """Observation entries D, number of actions A, and the first action's number (which is 0 for most)."""
    observations, actions = envs.single_observation_space, envs.single_action_space
    assert isinstance(observations, gym.spaces.Box)
    assert isinstance(actions, gym.spaces.Discrete)
    return observations.shape[0], int(actions.n), int(actions.start)


def check(config: CleanRLConfig, device: torch.device) -> dict[str, Any]:
    """Build everything and take one step, to see that it can be done. Returns what was found."""
    envs = make_envs(config)
    try:
        observation_size, actions, first_action = sizes(envs)
        agent = Agent(observation_size, actions).to(device)
        obs, _ = envs.reset(seed=env_seeds(0, config.num_envs))
        with torch.inference_mode():
            logits = agent.actor(torch.as_tensor(obs, dtype=torch.float32, device=device))
        envs.step(logits.argmax(-1).cpu().numpy() + first_action)
        return {
            "observation_size": observation_size,
            "actions": actions,
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
    observation_size, action_count, first_action = sizes(envs)
    agent = Agent(observation_size, action_count).to(device)
    parameters = list(agent.parameters())
    optimizer = torch.optim.Adam(parameters, lr=config.learning_rate, eps=1e-5, fused=True)
    rollout = Rollout(config.num_steps, config.num_envs, observation_size)
    obs, _ = envs.reset(seed=env_seeds(session.seed, config.num_envs))
    obs = np.asarray(obs, dtype=np.float32)

    if session.resumed is not None:
        saved = session.resumed
        agent.load_state_dict(saved["agent"])
        optimizer.load_state_dict(saved["optimizer"])
        if session.same_seed:
            rng.bit_generator.state = saved["rng"]
            session.restore_random_states()
        fits = saved["obs"].shape == obs.shape
        if fits and len(saved["rollout"]["obs"]) < config.num_steps:
            rollout.load_state_dict(saved["rollout"])
        where_it_was = None
        if fits and session.same_seed:
            where_it_was = replay_tapes(envs, saved["tapes"], saved["obs"].numpy())
        if where_it_was is not None:
            obs = where_it_was
        else:
            session.say("the environments start new episodes: theirs could not be continued")
            obs, _ = envs.reset(seed=[int(word) for word in rng.integers(2**31, size=config.num_envs)])
            obs = np.asarray(obs, dtype=np.float32)
            if rollout.length:
                rollout.done[rollout.length - 1] = True

    def state() -> dict[str, Any]:
        return {
            "agent": agent.state_dict(),
            "optimizer": optimizer.state_dict(),
            "rng": rng.bit_generator.state,
            "obs": torch.from_numpy(obs.copy()),
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
        while rollout.length < steps and not session.stopping:
            t = rollout.length
            with torch.inference_mode():
                logits = agent.actor(torch.from_numpy(obs).to(device)).cpu().numpy()
            # argmax of logits plus Gumbel noise is a sample of their softmax.
            actions = (logits + rng.gumbel(size=logits.shape)).argmax(-1)
            rollout.obs[t] = obs
            rollout.actions[t] = actions
            next_obs, rewards, terminated, truncated, infos = envs.step(actions + first_action)
            obs = np.asarray(next_obs, dtype=np.float32)
            done = terminated | truncated
            rollout.next_obs[t] = obs
            rollout.rewards[t] = rewards
            rollout.terminated[t] = terminated
            rollout.done[t] = done
            rollout.length += 1
            session.step += config.num_envs
            if done.any():
                episodes = infos["final_info"]["episode"]
                for i in np.flatnonzero(done):
                    rollout.next_obs[t, i] = infos["final_obs"][i]
                    session.episode(
                        float(episodes["r"][i]),
                        int(episodes["l"][i]),
                        bool(terminated[i]),
                        bool(truncated[i]),
                    )
            session.heartbeat()
        if rollout.length < steps:  # asked to stop: what was collected goes into the checkpoint
            break

        # ---- advantages ------------------------------------------------------------------------------
        observations = torch.from_numpy(rollout.obs[:steps]).to(device).flatten(0, 1)  # (B, D)
        actions_taken = torch.from_numpy(rollout.actions[:steps]).to(device).view(-1, 1)  # (B, 1)
        successors = torch.from_numpy(rollout.next_obs[:steps]).to(device)  # (T, N, D)
        with torch.no_grad():
            old_values = agent.critic(observations).squeeze(-1)  # (B,)
            logprobs = agent.actor(observations).log_softmax(-1)  # (B, A)
            old_logprobs = logprobs.gather(-1, actions_taken).squeeze(-1)  # (B,)
            next_values = agent.critic(successors).squeeze(-1).cpu().numpy()  # (T, N)
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
                logprobs = agent.actor(obs_m).log_softmax(-1)  # (M, A)
                new_value = agent.critic(obs_m).squeeze(-1)  # (M,)
                logratio = logprobs.gather(-1, action).squeeze(-1) - old_logprob
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

                entropy = -(logprobs.exp() * logprobs).sum(-1).mean()
                loss = policy_loss - config.ent_coef * entropy + config.vf_coef * value_loss
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
                optimizer.step()

                with torch.no_grad():
                    approx_kl = (ratio - 1 - logratio).mean()  # http://joschu.net/blog/kl-approx.html, k3
                    clipped = ((ratio - 1).abs() > config.clip_coef).float().mean()
                    stats.append(torch.stack((policy_loss, value_loss, entropy, approx_kl, clipped)))
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


__all__ = ["Agent", "Rollout", "check", "sizes", "train"]

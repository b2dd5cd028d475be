"""The real XuanCe, in its own environment: a worker's life from outside, resuming, policies, all algorithms, levels."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from xuance_worker.algorithms import ALGORITHMS

import mosaic_cluster
from mosaic_cluster.testing import ContractCase, WorkerContract, case_of
from mosaic_cluster.worker import WorkerAnalyticsManifest

pytestmark = [pytest.mark.workers, pytest.mark.timeout(900)]

ROOT = Path(mosaic_cluster.__file__).parent.parent
HERE = Path(__file__).parent
QUICK = {
    "algo": "PPO",
    "env_id": "CartPole-v1",
    "total_steps": 2000,
    "num_envs": 4,
    "horizon": 64,
    "checkpoint_every": 500,
}
SPREAD = {
    "algo": "QMIX",
    "env_id": "simple_spread_v3",
    "total_steps": 800,
    "num_envs": 4,
    "buffer_size": 2000,
    "batch_size": 32,
    "parameters": {"start_training": 200},
}
SOFT = {
    "algo": "SAC",
    "env_id": "Pendulum-v1",
    "total_steps": 600,
    "num_envs": 2,
    "parameters": {"start_training": 200},
}
RUNNABLE = [(name, kind) for name, each in ALGORITHMS.items() for kind in each.forms]


@pytest.fixture(scope="session")
def interpreter() -> str:
    """Python of XuanCe's environment: the one that MOSAIC_XUANCE_PYTHON names, or the one that was built."""
    named = os.environ.get("MOSAIC_XUANCE_PYTHON")
    if named:
        return named
    from mosaic_cluster.catalog.environments import build, locate, read_environments

    (declared,) = read_environments(HERE.parent / "xuance_worker" / "environment.toml")
    return str(build(locate("xuance", declared)).python)


@pytest.mark.xdist_group("contract of xuance")
class TestContract(WorkerContract):
    """All checks of the contract, in the environment that the worker declares."""

    @pytest.fixture
    def contract_case(self) -> ContractCase:
        """Its own case."""
        return case_of("xuance", "xuance_worker", seconds=600.0)


class Machine:
    """Runs the worker as a supervisor does.

    Args:
        python: of XuanCe's environment.
    """

    def __init__(self, python: str) -> None:
        self.python = python

    def environ(self, folder: Path, more: Mapping[str, str]) -> dict[str, str]:
        """Variables of a worker's process."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MOSAIC_", "PYTEST"))}
        path = os.pathsep.join(map(str, (ROOT, HERE.parent, HERE)))
        return {**kept, "PYTHONPATH": path, "MOSAIC_RUN_DIR": str(folder), "OMP_NUM_THREADS": "1", **more}

    def start(self, folder: Path, config: Mapping[str, Any], *args: str, **more: str) -> subprocess.Popen[str]:
        """Begin a run; stdout goes to ``folder/stdout.log``."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps({"run_id": "r1", "seed": 3, **config}))
        command = [self.python, "-m", "xuance_worker.cli", "--config", str(folder / "config.json"), *args]
        with (folder / "stdout.log").open("w") as out, (folder / "stderr.log").open("w") as err:
            return subprocess.Popen(
                command, cwd=folder, env=self.environ(folder, more), stdout=out, stderr=err, text=True
            )

    def run(self, folder: Path, config: Mapping[str, Any], *args: str, code: int = 0, **more: str) -> Path:
        """A run to its end, which must have this exit code."""
        found = self.start(folder, config, *args, **more).wait(600)
        assert found == code, (folder / "stderr.log").read_text()[-3000:]
        return folder

    def python_prints(self, code: str, folder: Path) -> Any:
        """What a piece of Python in XuanCe's environment prints last, as JSON."""
        done = subprocess.run(
            [self.python, "-c", code],
            cwd=folder,
            env=self.environ(folder, {}),
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])


def lines(folder: Path) -> list[dict[str, Any]]:
    """Lines of stdout, all of which must be telemetry."""
    return [json.loads(line) for line in (folder / "stdout.log").read_text().splitlines()]


def named(folder: Path, event: str) -> list[dict[str, Any]]:
    return [line["payload"] for line in lines(folder) if line.get("event") == event]


def episodes(folder: Path) -> list[tuple[int, float, int]]:
    found = [line for line in lines(folder) if line.get("type") == "episode"]
    return [(line["metadata"]["global_step"], line["total_reward"], line["steps"]) for line in found]


def last_checkpoint(folder: Path) -> Path:
    return Path(named(folder, "checkpoint_saved")[-1]["path"])


@pytest.fixture(scope="session")
def machine(interpreter: str) -> Machine:
    return Machine(interpreter)


@pytest.fixture(scope="session")
def ppo(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whole run of PPO."""
    return machine.run(tmp_path_factory.mktemp("ppo"), QUICK, "--emit-summary")


@pytest.fixture(scope="session")
def qmix(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whole run of QMIX."""
    return machine.run(tmp_path_factory.mktemp("qmix"), {**SPREAD, "eval_episodes": 4, "save_replay": True})


class TestLife:
    def test_lifecycle(self, ppo: Path) -> None:
        events = [line["event"] for line in lines(ppo) if "event" in line]
        assert (events[0], events[-1]) == ("run_started", "run_completed")
        assert lines(ppo)[-1]["type"] == "summary"
        assert named(ppo, "heartbeat")[-1]["step"] == 2000
        assert named(ppo, "heartbeat")[-1]["actor_loss"] != 0
        assert [each["step"] for each in named(ppo, "checkpoint_saved")] == [500, 1000, 1500, 2000]
        returns = [each for _, each, _ in episodes(ppo)]
        assert len(returns) > 20
        assert all(total == steps for _, total, steps in episodes(ppo))  # CartPole pays 1 a step
        manifest = WorkerAnalyticsManifest.load(ppo / "analytics.json")
        saved = manifest.artifacts.checkpoints
        assert saved is not None
        assert saved.final_checkpoint == "checkpoints/checkpoint_2000"
        assert (ppo / saved.best_checkpoint / "final_train_model.pth").exists()
        there = {path.name for path in ppo.iterdir()}
        assert there == {"analytics.json", "checkpoints", "config.json", "stderr.log", "stdout.log"}

    def test_heartbeats_are_about_a_second_apart(self, machine: Machine, tmp_path: Path) -> None:
        machine.run(tmp_path, {**QUICK, "total_steps": 12_000, "checkpoint_every": 0}, MOSAIC_REPORT_STEPS="400,800")
        stamps = [line for line in lines(tmp_path) if line.get("event") == "heartbeat"]
        steps = [line["payload"]["step"] for line in stamps]
        assert {400, 800} <= set(steps)
        between = [b["timestamp"] - a["timestamp"] for a, b in pairwise(stamps)]
        assert sum(each < 0.95 for each in between) <= 3  # the two looks and the end
        assert {400, 800} <= {each["step"] for each in named(tmp_path, "checkpoint_saved")}

    def test_several_agents(self, qmix: Path) -> None:
        (summary,) = named(qmix, "run_completed")
        assert summary["agents"] == ["agent_0", "agent_1", "agent_2"]
        assert summary["evaluation_return"] < 0
        assert all(steps == 25 for _, _, steps in episodes(qmix))
        episode = next(line for line in lines(qmix) if line.get("type") == "episode")
        assert sum(episode["metadata"]["returns"].values()) == pytest.approx(episode["total_reward"])

    def test_dry_run(self, machine: Machine, tmp_path: Path) -> None:
        machine.run(tmp_path, {"algo": "MAPPO", "tensorboard": True}, "--dry-run")
        assert [line["event"] for line in lines(tmp_path)] == ["run_started", "run_completed"]
        assert named(tmp_path, "run_completed")[0]["status"] == "dry-run"
        assert {path.name for path in tmp_path.iterdir()} == {"config.json", "stderr.log", "stdout.log"}

    @pytest.mark.parametrize(
        ("config", "words"),
        [
            ({"env_id": "CartPole-v9"}, "CartPole-v9 cannot be made"),
            ({"env_id": "Pendulum-v1", "algo": "DQN"}, "continuous actions, which DQN does not take"),
            ({"parameters": {"ent_coeff": 0.1}}, "did you mean 'ent_coef'?"),
            ({"parameters": {"ent_coef": "much"}}, "must be like 0.01, not 'much'"),
            ({"batch_size": 32}, "PPO has no such setting"),
            ({"algo": "QMIX", "env_id": "simple_adversary_v3", "share_parameters": True}, "set it to false"),
            ({"algo": "IQL", "env_id": "nowhere:make"}, "PYTHONPATH"),
            ({"algo": "CommNet", "env_id": "xuance_games:turns", "env_kwargs": {"endless": True}}, "max_episode_steps"),
            ({"algo": "PerDQN", "save_replay": True}, "no replay buffer that can be saved"),
            ({"device": "cuda"}, "sees no GPU here"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_what_cannot_be_used(self, machine: Machine, tmp_path: Path, config: dict[str, Any], words: str) -> None:
        machine.run(tmp_path, config, "--dry-run", code=2, CUDA_VISIBLE_DEVICES="")
        assert words in (tmp_path / "stderr.log").read_text()

    def test_event_files_stay_in_the_runs_folder(self, machine: Machine, tmp_path: Path) -> None:
        machine.run(tmp_path, {**QUICK, "total_steps": 600, "tensorboard": True, "checkpoint_every": 0})
        assert list((tmp_path / "tensorboard").rglob("events.out.tfevents.*"))

    @pytest.mark.parametrize("algo", ["PPO", "QMIX", "CommNet"])
    def test_sigterm_saves_and_ends(self, machine: Machine, tmp_path: Path, algo: str) -> None:
        process = machine.start(tmp_path, {"algo": algo, "total_steps": 50_000_000, "checkpoint_every": 0})
        while "heartbeat" not in (tmp_path / "stdout.log").read_text():
            assert process.poll() is None, (tmp_path / "stderr.log").read_text()[-3000:]
            time.sleep(0.05)
        asked = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
        assert time.monotonic() - asked < 30
        assert [line["event"] for line in lines(tmp_path) if "event" in line][-2:] == [
            "checkpoint_saved",
            "run_cancelled",
        ]
        assert (last_checkpoint(tmp_path) / "checkpoint.json").exists()
        assert named(tmp_path, "run_cancelled")[0]["step"] == named(tmp_path, "checkpoint_saved")[-1]["step"] > 0


class TestSameSeed:
    @pytest.mark.parametrize("config", [QUICK, SPREAD, SOFT], ids=["PPO", "QMIX", "SAC"])
    def test_same_run(self, machine: Machine, tmp_path: Path, config: dict[str, Any]) -> None:
        one = machine.run(tmp_path / "one", config)
        other = machine.run(tmp_path / "other", config)
        third = machine.run(tmp_path / "third", {**config, "seed": 4})
        assert episodes(one) == episodes(other) != episodes(third)
        name = last_checkpoint(one).name
        compare = f"""
import json, torch
one, other = (
    torch.load(f"{{run}}/checkpoints/{name}/final_train_model.pth")["policy"] for run in ("one", "other")
)
print(json.dumps(all(torch.equal(one[key], other[key]) for key in one)))
"""
        assert machine.python_prints(compare, tmp_path) is True


class TestResume:
    def test_the_step_goes_on(self, machine: Machine, ppo: Path, tmp_path: Path) -> None:
        saved = last_checkpoint(ppo)
        machine.run(tmp_path, {**QUICK, "total_steps": 3000}, MOSAIC_RESUME_FROM=str(saved))
        assert named(tmp_path, "checkpoint_loaded") == [{"path": str(saved), "step": 2000}]
        assert [each["step"] for each in named(tmp_path, "checkpoint_saved")] == [2500, 3000]
        assert all(2000 < step <= 3000 for step, _, _ in episodes(tmp_path))
        assert named(tmp_path, "run_completed")[0]["step"] == 3000

    def test_what_comes_back(self, machine: Machine, qmix: Path) -> None:
        """Networks, optimizer, schedule, exploration and replay buffer, looked at in XuanCe's own objects."""
        code = f"""
import json, torch
from pathlib import Path
from xuance_worker.runtime import prepare_library
prepare_library()
from xuance_worker import checkpoints
from xuance_worker.config import XuanCeConfig
from xuance_worker.training import Training, Watcher
folder = Path({str(last_checkpoint(qmix))!r})
about = checkpoints.read_about(folder)
config = XuanCeConfig.from_dict(about["config"])
training = Training(config, seed=3, device="cpu", step=800)
agent = training.build()
fresh = agent.learner.optimizer.state_dict()["state"], agent.e_greedy, agent.memory.size
checkpoints.restore(folder, agent)
optimizer = agent.learner.optimizer.state_dict()["state"]
print(json.dumps({{
    "fresh": [len(fresh[0]), fresh[1], int(fresh[2])],
    "moments": len(optimizer), "updates": agent.learner.iterations, "schedule": agent.learner.scheduler.last_epoch,
    "epsilon": agent.e_greedy, "replay": int(agent.memory.size), "step": about["step"],
    "paid": float(abs(agent.memory.data["rewards"]["agent_0"][:, :200]).sum()),
    "beyond": float(abs(agent.memory.data["rewards"]["agent_0"][:, 200:]).sum()),
}}))
"""
        found = machine.python_prints(code, qmix)
        assert found["fresh"] == [0, 1.0, 0]
        assert found["moments"] > 0
        assert found["schedule"] == found["updates"]
        assert found["epsilon"] < 1.0
        assert (found["replay"], found["step"]) == (200, 800)
        assert found["paid"] > 0 == found["beyond"]

    def test_a_finished_run_ends_at_once(self, machine: Machine, ppo: Path, tmp_path: Path) -> None:
        machine.run(tmp_path, QUICK, MOSAIC_RESUME_FROM=str(last_checkpoint(ppo)))
        assert named(tmp_path, "run_completed")[0]["step"] == 2000
        assert episodes(tmp_path) == []

    @pytest.mark.parametrize(
        ("change", "words"),
        [({"algo": "A2C"}, "was trained with algo 'PPO'"), ({"hidden_sizes": [32]}, "networks must have the sizes")],
        ids=["algorithm", "networks"],
    )
    def test_a_checkpoint_of_something_else(
        self, machine: Machine, ppo: Path, tmp_path: Path, change: dict[str, Any], words: str
    ) -> None:
        given = {"env_id": "CartPole-v1", "total_steps": 3000, "num_envs": 4, **change}
        machine.run(tmp_path, given, code=2, MOSAIC_RESUME_FROM=str(last_checkpoint(ppo)))
        assert words in (tmp_path / "stderr.log").read_text()

    def test_no_checkpoint_at_all(self, machine: Machine, tmp_path: Path) -> None:
        machine.run(tmp_path, QUICK, code=2, MOSAIC_RESUME_FROM=str(tmp_path / "nothing"))
        assert "unset MOSAIC_RESUME_FROM" in (tmp_path / "stderr.log").read_text()

    def test_xuance_itself_loads_the_model(self, machine: Machine, ppo: Path) -> None:
        code = f"""
import json, os, torch
from argparse import Namespace
import xuance
saved = {str(last_checkpoint(ppo))!r}
runner = xuance.get_runner(algo="ppo", env="classic_control", env_id="CartPole-v1",
                           parser_args=Namespace(device="cpu", parallels=4, log_dir="/tmp/xl", model_dir="/tmp/xl"))
before = [each.clone() for each in runner.agent.policy.parameters()]
runner.agent.load_model(saved, model="final_train_model.pth")
print(json.dumps(any(not torch.equal(a, b) for a, b in zip(before, runner.agent.policy.parameters()))))
"""
        try:
            assert machine.python_prints(code, ppo) is True
        finally:
            shutil.rmtree("/tmp/xl", ignore_errors=True)


class TestPolicies:
    def test_one_agent(self, machine: Machine, ppo: Path) -> None:
        code = f"""
import gymnasium, json
import numpy as np
from mosaic_cluster.worker import Policy
from xuance_worker import load_policy
checkpoint = {str(last_checkpoint(ppo))!r}
policy = load_policy(checkpoint, game="CartPole-v1")
env = gymnasium.make("CartPole-v1")
observation, _ = env.reset(seed=1)
total, over = 0.0, False
while not over:
    action = policy.act(observation)
    observation, reward, terminated, truncated, _ = env.step(action)
    total += reward; over = terminated or truncated
many = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
drawn = load_policy(checkpoint, deterministic=False)
first = drawn.act_batch(many)
drawn.reset(7)
second = drawn.act_batch(many)
drawn.reset(7)
third = drawn.act_batch(many)
print(json.dumps({{
    "is_policy": isinstance(policy, Policy), "games": policy.games, "total": total,
    "in": bool(env.action_space.contains(action)),
    "alike": [int(policy.act(row)) for row in many] == policy.act_batch(many).tolist(),
    "drawn": [second.tolist() == third.tolist(), first.tolist() == second.tolist()],
}}))
"""
        found = machine.python_prints(code, ppo)
        assert (found["is_policy"], found["games"], found["in"], found["alike"]) == (True, ["CartPole-v1"], True, True)
        assert found["total"] >= 8
        assert found["drawn"] == [True, False]

    def test_one_of_several_does_what_it_does_among_all(self, machine: Machine, qmix: Path) -> None:
        code = f"""
import json
from pettingzoo.mpe import simple_spread_v3
from xuance_worker import load_policy
checkpoint = {str(last_checkpoint(qmix))!r}
together = load_policy(checkpoint, game="simple_spread_v3")
apart = {{agent: load_policy(checkpoint, agent=agent) for agent in ("agent_0", "agent_1", "agent_2")}}
env = simple_spread_v3.parallel_env()
seen, _ = env.reset(seed=5)
same, legal = [], []
while env.agents:
    one = together.act(seen)
    other = {{agent: int(apart[agent].act(seen[agent])) for agent in env.agents}}
    same.append(one == other); legal += [env.action_space(agent).contains(one[agent]) for agent in env.agents]
    seen, *_ = env.step(one)
print(json.dumps([len(same), all(same), all(legal)]))
"""
        assert machine.python_prints(code, qmix) == [25, True, True]

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"game": "simple_tag_v3"}, "does not play 'simple_tag_v3'"),
            ({"agent": "agent_9"}, "there are agent_0, agent_1, agent_2"),
        ],
        ids=["game", "agent"],
    )
    def test_what_it_does_not_play(self, machine: Machine, qmix: Path, options: dict[str, str], words: str) -> None:
        code = f"""
import json
from mosaic_cluster.worker import ConfigError
from xuance_worker import load_policy
try:
    load_policy({str(last_checkpoint(qmix))!r}, **{options!r})
except ConfigError as error:
    print(json.dumps(str(error)))
"""
        assert words in machine.python_prints(code, qmix)


class TestEvaluation:
    def test_a_stop_is_heeded(self, machine: Machine, tmp_path: Path) -> None:
        config = {"algo": "PPO", "total_steps": 200, "checkpoint_every": 0, "eval_episodes": 1_000_000}
        process = machine.start(tmp_path, config)
        while "checkpoint_saved" not in (tmp_path / "stdout.log").read_text():
            assert process.poll() is None, (tmp_path / "stderr.log").read_text()[-3000:]
            time.sleep(0.05)
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0  # it is trained to its end
        assert "evaluation_return" not in named(tmp_path, "run_completed")[0]

    def test_what_is_refused_leaves_nothing(self, machine: Machine, tmp_path: Path) -> None:
        config = {"algo": "PPO", "env_id": "xuance_games:turns"}
        machine.run(tmp_path, config, code=2, TMPDIR=str(tmp_path))
        assert not list(tmp_path.glob("xuance-*"))


class TestOwnGames:
    @pytest.mark.parametrize("algo", ["IPPO", "QMIX", "COMA"])
    def test_masks_are_kept_and_agents_may_leave(self, machine: Machine, tmp_path: Path, algo: str) -> None:
        """The game raises an error at an illegal action."""
        config = {
            "algo": algo,
            "env_id": "xuance_games:turns",
            "env_kwargs": {"leave": 4},
            "total_steps": 1200,
            "num_envs": 4,
        }
        machine.run(tmp_path, {**config, "eval_episodes": 3})
        assert all(steps == 10 for _, _, steps in episodes(tmp_path))
        assert len(episodes(tmp_path)) == 120
        assert named(tmp_path, "run_completed")[0]["evaluation_episodes"] == 3
        code = f"""
import json
from xuance_games import turns
from xuance_worker import load_policy
policy = load_policy({str(last_checkpoint(tmp_path))!r})
game = turns(leave=4)
seen, _ = game.reset(seed=1)
rounds = 0
while game.agents:
    masks = {{agent: each["action_mask"] for agent, each in seen.items()}}
    chosen = policy.act({{agent: each["observation"] for agent, each in seen.items()}}, masks)
    seen, *_ = game.step({{agent: chosen[agent] for agent in game.agents}})
    rounds += 1
print(json.dumps(rounds))
"""
        assert machine.python_prints(code, tmp_path) == 10

    def test_one_agent(self, machine: Machine, tmp_path: Path) -> None:
        config = {"algo": "DQN", "env_id": "xuance_games:corridor", "max_episode_steps": 30, "total_steps": 8000,
                  "num_envs": 2, "parameters": {"start_training": 200, "decay_step_greedy": 6000}}  # fmt: skip
        machine.run(tmp_path, config)
        assert named(tmp_path, "run_completed")[0]["episodic_return"] > 0.8
        assert max(steps for _, _, steps in episodes(tmp_path)) <= 30


def lot_of(algo: str) -> str:
    """Which algorithms are tried in one process, one after another: importing XuanCe takes seconds."""
    return "world models" if algo.startswith("Dreamer") else f"{ALGORITHMS[algo].agents} agents"


@pytest.fixture(scope="session")
def smoke(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], dict[str, Any]]:
    """What an algorithm did in some hundred steps; the first that is asked for runs its whole lot."""
    found: dict[tuple[str, str], dict[str, Any]] = {}

    def ask(algo: str, kind: str) -> dict[str, Any]:
        if (algo, kind) not in found:
            folder = tmp_path_factory.mktemp("smoke")
            names = [name for name in dict(RUNNABLE) if lot_of(name) == lot_of(algo)]
            done = subprocess.run(
                [machine.python, str(HERE / "xuance_smoke.py"), str(folder), *names],
                cwd=folder, env=machine.environ(folder, {}), capture_output=True, text=True, check=False, timeout=1700,
            )  # fmt: skip
            for line in map(json.loads, filter(lambda line: line.startswith('{"smoke"'), done.stdout.splitlines())):
                found[line["smoke"]["algo"], line["smoke"]["actions"]] = line["smoke"]
            assert (algo, kind) in found, done.stderr[-3000:]
        return found[algo, kind]

    return ask


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("algo", "kind"),
    [pytest.param(*each, marks=pytest.mark.xdist_group(f"xuance's {lot_of(each[0])}")) for each in RUNNABLE],
    ids=lambda value: value,
)
def test_every_algorithm_trains_saves_and_plays(
    smoke: Callable[[str, str], dict[str, Any]], algo: str, kind: str
) -> None:
    found = smoke(algo, kind)
    assert found["status"] == "completed", found.get("error")
    assert found["step"] >= 200
    assert found["acts"] == "legal"
    if algo not in ("RANDOM", "DRQN"):  # the one learns nothing, the other does not tell
        assert found["metrics"]


LEARN = {
    "env_id": "simple_spread_v3",
    "total_steps": 24_000,
    "num_envs": 16,
    "eval_episodes": 100,
    "gamma": 0.9,
    "seed": 1,
}
ROUNDS = {"buffer_size": 400, "n_minibatch": 2, "n_epochs": 10, "learning_rate": 0.002}
MIXING = {
    "share_parameters": True,
    "learning_rate": 0.001,
    "n_epochs": 2,
    "parameters": {
        "training_frequency": 16,
        "decay_step_greedy": 160_000,
        "hidden_dim_mixing_net": 32,
        "hidden_dim_hyper_net": 64,
    },
}


class TestLevels:
    """What docs/workers/xuance.md says is reached; minutes each, on a machine that does nothing else."""

    def test_cartpole(self, machine: Machine, tmp_path: Path) -> None:
        machine.run(tmp_path, {"algo": "PPO", "total_steps": 100_000, "eval_episodes": 20, "seed": 1})
        assert named(tmp_path, "run_completed")[0]["evaluation_return"] >= 475

    @pytest.mark.parametrize(
        ("algo", "own"), [("IPPO", ROUNDS), ("MAPPO", ROUNDS), ("QMIX", MIXING)], ids=["IPPO", "MAPPO", "QMIX"]
    )
    def test_better_than_random(self, machine: Machine, tmp_path: Path, algo: str, own: dict[str, Any]) -> None:
        """Acting at random gets -80.0, with a standard error of 0.7 over 1,000 episodes."""
        machine.run(tmp_path, {"algo": algo, **LEARN, **own})
        assert named(tmp_path, "run_completed")[0]["evaluation_return"] > -75

"""Plays what is not played yet, and writes a file per episode, as BALROG does."""

import json
import os
import sys
from pathlib import Path

from omegaconf import OmegaConf


class EvaluatorManager:
    def __init__(self, config, original_cwd="", output_dir="."):
        self.config, self.output_dir, self.tasks = config, output_dir, []
        for name in config.envs.names.split("-"):
            for task in config.tasks[f"{name}_tasks"]:
                for number in range(config.eval.num_episodes[name]):
                    path = os.path.join(output_dir, name, task, f"{task}_run_{number:02d}.json")
                    if not os.path.exists(path):
                        self.tasks.append((task, number, path))

    def run(self, agent_factory):
        agent = agent_factory.create_agent()
        for task, number, path in self.tasks:
            try:
                self.play(agent, task, number, path)
            except Exception as error:  # noqa: BLE001 - BALROG, too, goes on, and says so in its log
                sys.stderr.write(f"Error in task {task}: {error}\n")

    def play(self, agent, task, number, path):
        tokens, right = [0, 0], 0
        for step in range(4):
            reply = agent.act(f"{task} {number} {step}: heads or tails?")
            tokens[0] += reply["usage"]["prompt_tokens"]
            tokens[1] += reply["usage"]["completion_tokens"]
            right += reply["choices"][0]["message"]["content"] == "heads"
        log = {
            "task": task,
            "action_frequency": {},
            "input_tokens": tokens[0],
            "output_tokens": tokens[1],
            "done": True,
            "episode_return": float(right),
            "num_steps": 4,
            "failed_candidates": [],
            "progression": right / 4,
            "process_num": None,
            "seed": number,
            "agent": OmegaConf.to_container(self.config.agent, resolve=True),
            "client": OmegaConf.to_container(self.config.client, resolve=True),
        }
        Path(path).parent.mkdir(exist_ok=True, parents=True)
        with open(path, "w") as file:
            json.dump(log, file, indent=4)

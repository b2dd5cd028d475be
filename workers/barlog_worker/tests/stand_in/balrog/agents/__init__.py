"""Agents that ask an endpoint; which one, and with what key, depends on the client's name."""

import json
import os
import urllib.request


class AgentFactory:
    def __init__(self, config):
        self.config = config

    def create_agent(self):
        return Agent(self.config)


class Agent:
    def __init__(self, config):
        self.client = config.client
        names = {"vllm": "EMPTY", "nvidia": os.environ.get("OPENAI_API_KEY")}
        self.key = names[self.client.client_name]

    def act(self, text):
        body = {
            "model": self.client.model_id,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": self.client.generate_kwargs.max_tokens,
        }
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        url = self.client.base_url + "/chat/completions"
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=self.client.timeout) as reply:
            return json.loads(reply.read())

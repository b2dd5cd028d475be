"""The numbers of a run: progression, tokens, cost; for heartbeats, the summary and the manifest."""

from __future__ import annotations

from typing import Any

from barlog_worker.config import BarlogConfig
from barlog_worker.endpoint import Usage
from barlog_worker.playing import StepLine
from barlog_worker.records import Record, Records, overall, progressions


class Metrics:
    """Sums up what was played.

    Attributes:
        usage: of all attempts, as far as is known; of interrupted episodes, too.
    """

    def __init__(self, config: BarlogConfig) -> None:
        self._config = config
        self.usage = Usage()
        self._steps = 0
        self._invalid = 0
        self._seen: set[str] = set()
        self._worlds: dict[str, dict[str, Any]] = {}
        self._counted = -1

    def resume(self, records: Records) -> None:
        """What earlier attempts did counts."""
        self.usage = records.usage
        for record in records.finished.values():
            self._seen.add(record["name"])
            self._steps += int(record["steps"])
            self._invalid += int(record["invalid_actions"])

    def step(self, line: StepLine) -> None:
        """A step was made in this attempt; its episode will not be counted again."""
        self._seen.add(line.episode.name)
        self._steps += 1
        self._invalid += not line.named
        self.usage.add(line.usage)

    def finished(self, record: Record) -> None:
        """An episode is finished; one whose steps were not told adds what its record says."""
        if record["name"] not in self._seen:
            self._seen.add(record["name"])
            self._steps += int(record["steps"])
            self._invalid += int(record["invalid_actions"])
            self.usage.add(Usage.from_dict(record["usage"]))

    def progression(self, records: Records) -> float | None:
        """Mean over the worlds, in percent."""
        return overall(self.worlds(records))

    def worlds(self, records: Records) -> dict[str, dict[str, Any]]:
        """Progressions; worked out again when there are more episodes: this is asked at every step."""
        if self._counted != len(records.finished):
            self._counted = len(records.finished)
            self._worlds = progressions(records.finished.values())
        return self._worlds

    def heartbeat(self, records: Records) -> dict[str, Any]:
        """Flat numbers: one progression for each world, and the mean over them as ``episodic_return``."""
        found: dict[str, Any] = {"finished_episodes": len(records.finished)}
        worlds = self.worlds(records)
        mean = overall(worlds)
        if mean is not None:
            found["episodic_return"] = found["progression"] = round(mean, 4)
        for world, values in worlds.items():
            found[f"progression_{world}"] = values["progression"]
            if values["standard_error"] is not None:
                found[f"standard_error_{world}"] = values["standard_error"]
        found.update(self._costs())
        return found

    def results(self, records: Records) -> dict[str, Any]:
        """For the summary and the manifest."""
        worlds = self.worlds(records)
        mean = overall(worlds)
        found: dict[str, Any] = {"seed": records.seed, "agent": self._config.agent, "model": self._config.model}
        if mean is not None:
            found["episodic_return"] = found["progression"] = round(mean, 4)
        found["finished_episodes"] = len(records.finished)
        found["worlds"] = worlds
        found.update(self._costs())
        if self.usage.errors:
            found["endpoint_errors"] = dict(self.usage.errors)
        return found

    def _costs(self) -> dict[str, Any]:
        config, usage = self._config, self.usage
        found: dict[str, Any] = {"invalid_actions": round(self._invalid / max(1, self._steps), 4)}
        if config.agent == "dummy" and not usage.requests and not usage.prompt_tokens:
            return found
        found["prompt_tokens"] = usage.prompt_tokens
        found["completion_tokens"] = usage.completion_tokens
        found["requests"] = usage.requests
        found["retries"] = usage.retries
        found["seconds_per_answer"] = round(usage.seconds / max(1, usage.answers), 4)
        if usage.uncounted:
            found["uncounted_answers"] = usage.uncounted
        if config.price_prompt or config.price_completion:
            found["cost"] = round(usage.cost(config.price_prompt, config.price_completion), 6)
        return found


__all__ = ["Metrics"]

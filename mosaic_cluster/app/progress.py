"""The progress model: one row a run, drawn alike by the terminal, a notebook and a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mosaic_cluster.app.sweep_progress import SweepProgress
from mosaic_cluster.experiments.states import TERMINAL
from mosaic_cluster.units import format_bytes, format_duration

RATE = "steps_per_second"
RETURN = "episodic_return"


@dataclass(frozen=True)
class RunRow:
    """What a person wants to see of one run.

    Attributes:
        run_id: ULID.
        state: see the architecture's states.
        reason: one sentence saying why.
        step: environment steps trained.
        rate: environment steps per second.
        episodic_return: latest reported mean return.
        running: seconds in the present state; once it has ended, of all its attempts.
        attempt: present attempt; 0 before the first.
        trial: the trial it belongs to.
        stood_still: seconds for which it had to wait until its telemetry found room.
        peak_gpu_memory: bytes; ``None``: not measured.
        warnings: what was noticed and changes nothing, a sentence each.
    """

    run_id: str
    worker: str
    seed: int | None
    state: str
    reason: str
    step: int | None
    rate: float | None
    episodic_return: float | None
    running: float
    attempt: int
    node: str | None
    peak_rss: int
    trial: str | None = None
    stood_still: float = 0.0
    peak_gpu_memory: int | None = None
    warnings: tuple[str, ...] = ()

    @property
    def short_id(self) -> str:
        """The last six characters: the random part of a ULID, enough to tell runs apart."""
        return self.run_id[-6:].lower()

    def line(self) -> str:
        """The row as one plain line."""
        trial = f"{self.trial} " if self.trial else ""
        parts = [f"run {trial}{self.short_id}", self.state]
        if self.step is not None:
            parts.append(f"step {self.step:,}")
        if self.rate:
            parts.append(f"{self.rate:,.0f} steps/s")
        if self.episodic_return is not None:
            parts.append(f"episodic_return {self.episodic_return:.1f}")
        if self.peak_rss:
            parts.append(self.peak_memory)
        if self.words:
            parts.append(self.words)
        return "  ".join(parts)

    @property
    def peak_memory(self) -> str:
        """Memory it used at most: of its host, and of its GPU where that is known."""
        host = format_bytes(self.peak_rss) if self.peak_rss else ""
        return f"{host} + {format_bytes(self.peak_gpu_memory)} GPU" if self.peak_gpu_memory else host

    @property
    def words(self) -> str:
        """Why it is as it is, for how long it has waited, whether its storage slowed it, and what else was noticed."""
        more = list(self.warnings)
        if self.stood_still >= 1:
            time = format_duration(round(self.stood_still))
            more.insert(0, f"stood still {time} in all until its telemetry found room")
        if self.state == "PENDING" and self.reason and self.running >= 1:
            more.insert(0, f"waits {format_duration(round(self.running))}")
        if not more:
            return self.reason
        return f"{self.reason} ({'; '.join(more)})" if self.reason else "; ".join(more)


@dataclass(frozen=True)
class Progress:
    """One experiment at one moment.

    Attributes:
        age: seconds since it was created; of one that is over, until it was.
        sweep: what else there is of a sweep.
        notices: what is said once for all: warnings that several runs share, nodes that it keeps off.
    """

    experiment_id: str
    kind: str
    state: str
    reason: str
    rows: tuple[RunRow, ...]
    age: float
    sweep: SweepProgress | None = None
    notices: tuple[str, ...] = ()

    @classmethod
    def from_status(cls, status: Mapping[str, Any], now: float) -> Progress:
        """Read a status document.

        Args:
            now: unix time in seconds.
        """
        runs: Sequence[Mapping[str, Any]] = status.get("runs", ())
        said = Counter(warning for run in runs for warning in run.get("warnings") or ())
        shared = {warning: count for warning, count in said.items() if count > 1}
        return cls(
            experiment_id=str(status["experiment_id"]),
            kind=str(status.get("kind") or "run"),
            state=str(status["state"]),
            reason=str(status.get("reason") or ""),
            rows=tuple(_row(run, now, shared) for run in runs),
            age=_age(status, now),
            sweep=SweepProgress.from_status(status),
            notices=(
                *(f"{count} runs: {warning}" for warning, count in shared.items()),
                *(f"node {each['node']} is kept off: {each['reason']}" for each in status.get("quarantine", ())),
            ),
        )

    def heading(self) -> str:
        """Experiment, state and age in one line."""
        text = f"{self.experiment_id}  {self.state}  {format_duration(round(self.age))}"
        return f"{text}  {self.reason}" if self.reason else text


def _age(status: Mapping[str, Any], now: float) -> float:
    """Seconds since it was created; of one that is over, until it was."""
    until = float(status.get("updated_at") or now) if status["state"] in TERMINAL else now
    return max(0.0, until - float(status.get("created_at") or until))


def _row(run: Mapping[str, Any], now: float, shared: Mapping[str, int]) -> RunRow:
    metrics: Mapping[str, float] = run.get("metrics") or {}
    ended = run.get("state") in TERMINAL
    running = float(run.get("elapsed") or 0.0) if ended else max(0.0, now - float(run.get("since") or now))
    return RunRow(
        run_id=str(run["run_id"]),
        worker=str(run.get("worker", "")),
        seed=run.get("seed"),
        state=str(run["state"]),
        reason=str(run.get("reason") or ""),
        step=run.get("step"),
        rate=metrics.get(RATE),
        episodic_return=metrics.get(RETURN),
        running=running,
        attempt=int(run.get("attempt") or 0),
        node=run.get("node"),
        peak_rss=int(run.get("peak_rss") or 0),
        trial=run.get("trial"),
        stood_still=float(run.get("stood_still") or 0.0),
        peak_gpu_memory=((run.get("memory") or {}).get("peak") or {}).get("gpu_memory"),
        warnings=tuple(warning for warning in run.get("warnings") or () if warning not in shared),
    )


def memory_lines(status: Mapping[str, Any]) -> list[str]:
    """Of the runs that are over, by worker: memory used at most, beside what is declared, and what to declare."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for run in status.get("runs", ()):
        memory = run.get("memory") or {}
        for what in memory.get("suggested", ()):
            found.setdefault((str(run.get("worker", "")), what), []).append(memory)
    lines = []
    for (worker, what), runs in found.items():
        peak = max(run["peak"][what] for run in runs)
        declared = max((run["declared"][what] or 0 for run in runs), default=0)
        said = f"{format_bytes(declared)} declared" if declared else "none declared"
        advice = format_bytes(max(run["suggested"][what] for run in runs))
        name = "GPU memory" if what == "gpu_memory" else "memory"
        lines.append(f"{worker}: {name}: {format_bytes(peak)} used at most, {said}; suggested: {what}: {advice}")
    return lines

"""From a config to progressions: several episodes at a time, each kept as soon as it is finished."""

from __future__ import annotations

import contextlib
import logging
import queue
import random
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from barlog_worker.analytics import Metrics
from barlog_worker.config import BarlogConfig
from barlog_worker.endpoint import ChatClient
from barlog_worker.playing import Player, StepLine, Stopped, read_demonstrations
from barlog_worker.records import Episode, Record, Records, episode_seed, plan
from barlog_worker.worlds import Demonstration, World, open_world
from mosaic_cluster.worker import ConfigError, Problem, WorkerSession

LOGGER = logging.getLogger(__name__)

JOIN_SECONDS = 10.0
"""How long episodes may take to leave once they are told to; less than the grace time of a run."""
SAVE_SECONDS = 1.0
"""The list of finished episodes is written at most this often; each has its own file at once."""
EVENTS = 2000
"""Steps that may wait for the main thread to report them."""

OpenWorld = Callable[[str, BarlogConfig, Path], World]


class BarlogRuntime:
    """One attempt at a run.

    Args:
        config: what to play.
        dry_run: open all worlds, begin an episode of each task, ask nobody, write nothing.
        stop_requested: asked several times a second; once it says yes, episodes are left and finished ones kept.
        worker_id: name of this worker process, for the log.
        open_world: opens a world by its name.
    """

    def __init__(
        self,
        config: BarlogConfig,
        *,
        dry_run: bool = False,
        stop_requested: Callable[[], bool] = lambda: False,
        worker_id: str | None = None,
        open_world: OpenWorld = open_world,
    ) -> None:
        self.config = config
        self.session = WorkerSession(
            "barlog", config, stop_requested=stop_requested, worker_id=worker_id, checkpoint_format="json"
        )
        self._dry_run = dry_run
        self._open_world = open_world
        self._records = Records(config, self.session.run_dir, self.session.checkpoint_dir)
        self._metrics = Metrics(config)
        self._saved_at = float("-inf")
        self._unsaved = False

    def run(self) -> dict[str, Any]:
        """Play to the end, or until told to stop.

        Returns:
            the summary, plain JSON values: ``status`` is ``completed``, ``cancelled`` or ``dry-run``.

        Raises:
            ConfigError: a world, a demonstration or the checkpoint does not go with the config.
            EndpointError: the endpoint refuses, or gives no answer after all tries.
            Exception: whatever else ends it. ``run_failed`` has been emitted.
        """
        return self.session.run(self._evaluate, dry_run=self._dry_run)

    def _evaluate(self, session: WorkerSession) -> Mapping[str, Any]:
        if self.config.backend == "balrog":
            from barlog_worker.balrog import check_installed

            check_installed()
        if session.dry_run:
            return self._dry()
        self._go_on(session)
        ahead = [each for each in plan(self.config, self._records.seed) if each.name not in self._records.finished]
        if self.config.backend == "balrog":
            from barlog_worker.balrog import evaluate

            try:
                evaluate(self, session)
            except Exception:
                self._save(session)  # what was finished need not be played again
                raise
        elif ahead:
            with _scratch(session.run_dir), contextlib.suppress(Stopped):
                self._play(session, ahead)
        self._save(session)
        found = self._metrics.results(self._records)
        if all(each.name in self._records.finished for each in plan(self.config, self._records.seed)):
            found["status"] = "completed"  # a stop that came in the last moment cut nothing off
        return found

    def finished_names(self) -> list[str]:
        """Of the episodes that are kept."""
        return list(self._records.finished)

    def finish(self, session: WorkerSession, record: Record) -> None:
        """Keep a finished episode, and tell of it."""
        self._records.add(record)
        self._metrics.finished(record)
        details = {name: record[name] for name in ("world", "task", "number", "return", "invalid_actions", "cost")}
        details.update(prompt_tokens=record["usage"]["prompt_tokens"], details=record["details"])
        details.update(completion_tokens=record["usage"]["completion_tokens"], seconds=record["seconds"])
        session.episode(
            record["progression"],
            record["steps"],
            episode=record["index"],
            terminated=record["terminated"],
            truncated=record["truncated"],
            metadata=details,
        )
        self._unsaved = True
        LOGGER.info("%s: %.1f %% in %d steps", record["name"], record["progression"], record["steps"])

    def beat(self, session: WorkerSession) -> None:
        """A heartbeat and a checkpoint, where they are due."""
        session.heartbeat(self._metrics.heartbeat(self._records))
        due = time.monotonic() - self._saved_at >= SAVE_SECONDS
        if (self._unsaved and due) or session.checkpoint_due(0):
            self._save(session)

    def _dry(self) -> dict[str, Any]:
        """Everything that can go wrong before the first request."""
        config = self.config
        found: dict[str, Any] = {"episodes_planned": len(plan(config, self._records.seed)), "agent": config.agent}
        if config.backend == "balrog":
            return found
        with tempfile.TemporaryDirectory(prefix="barlog-") as name:
            folder = Path(name)
            for world_name in config.worlds:
                world = self._open_world(world_name, config, folder)
                for task in config.tasks(world_name):
                    game = world.make(task, 0, vision=config.vision and world.has_images)
                    game.reset()
                    game.close()
                    self._demonstrations(world, world_name, task, lambda: False)
                found[f"{world_name}_version"] = world.version
        if config.agent != "dummy":
            found["endpoint"] = _client(config).url
        return found

    def _go_on(self, session: WorkerSession) -> None:
        """What earlier attempts have finished is not played again."""
        used = self._records.load(session.resume_from)
        if used is not None:
            self._metrics.resume(self._records)
            session.resume_from = used
            session.resumed(self._records.step)
            LOGGER.info("%d finished episodes of earlier attempts are kept", len(self._records.finished))

    def _play(self, session: WorkerSession, ahead: Sequence[Episode]) -> None:
        config = self.config
        stop = threading.Event()
        client = None if config.agent == "dummy" else _client(config)
        events: queue.Queue[tuple[str, Any]] = queue.Queue(EVENTS)
        player = Player(
            config,
            client,
            self._records.folder,
            self._records.seed,
            stop,
            lambda line: _put(events, stop, ("step", line)),
        )
        prepared = self._prepare(ahead, session)
        waiting: deque[Episode] = deque(ahead)
        threads = [
            threading.Thread(
                target=_work, args=(player, prepared, waiting, events, stop), daemon=True, name=f"episodes-{n}"
            )
            for n in range(min(config.concurrency, len(ahead)))
        ]
        for thread in threads:
            thread.start()
        failure: Exception | None = None
        try:
            failure = self._follow(session, events, len(ahead))
        finally:
            stop.set()
            if client is not None:
                client.close()
            self._leave(session, threads, events)
        if failure is not None:
            self._save(session)
            raise failure

    def _prepare(self, ahead: Sequence[Episode], session: WorkerSession) -> dict[tuple[str, str], _Prepared]:
        """Worlds and demonstrations, by world and task.

        Raises:
            Stopped: a stop was asked for meanwhile.
        """
        found: dict[tuple[str, str], _Prepared] = {}
        worlds: dict[str, World] = {}
        for episode in ahead:
            if episode.world not in worlds:
                worlds[episode.world] = self._open_world(episode.world, self.config, session.run_dir / "worlds")
            if (episode.world, episode.task) not in found:
                world = worlds[episode.world]
                shown = self._demonstrations(world, episode.world, episode.task, lambda: session.stopping)
                found[episode.world, episode.task] = (world, shown)
        return found

    def _demonstrations(
        self, world: World, name: str, task: str, stopping: Callable[[], bool]
    ) -> tuple[Demonstration, ...]:
        config = self.config
        if config.agent != "few_shot":
            return ()
        if config.demonstrations is not None:
            try:
                return read_demonstrations(Path(config.demonstrations), task, config.demonstration_episodes)
            except (ValueError, OSError) as error:
                raise ConfigError([Problem("demonstrations", str(error))]) from error
        # Seeds of their own: the model must not be shown the very episodes that it is to play.
        seeds = [
            episode_seed(self._records.seed, f"{name} shown", task, n) for n in range(config.demonstration_episodes)
        ]
        found = []
        for seed in seeds:
            if stopping():  # each may take seconds: TextWorld compiles a game for it
                raise Stopped
            shown = world.demonstration(task, seed)
            if shown is None:
                words = f"{task} cannot be played well by what {name} has for that; name a file *.steps.jsonl"
                raise ConfigError([Problem("demonstrations", words)])
            found.append(shown)
        return tuple(found)

    def _follow(self, session: WorkerSession, events: queue.Queue[tuple[str, Any]], left: int) -> Exception | None:
        """Tell what happens until all is played, a stop is asked for, or something fails; returns what failed."""
        while left and not session.stopping:
            try:
                kind, what = events.get(timeout=0.2)
            except queue.Empty:
                self.beat(session)
                continue
            if kind == "failed":
                failed: Exception = what
                return failed
            left -= self._tell(session, kind, what)
            self.beat(session)
        return None

    def _tell(self, session: WorkerSession, kind: str, what: Any) -> bool:
        """Report a step or a finished episode; whether it was the latter."""
        if kind == "finished":
            self.finish(session, what)
            return True
        line: StepLine = what
        session.step += 1
        self._metrics.step(line)
        if self.config.log_steps:
            session.emitter.step(
                episode=line.episode.index,
                step_index=line.step,
                action=line.action,
                reward=line.reward,
                terminated=line.terminated,
                truncated=line.truncated,
                episode_seed=line.episode.seed,
                policy_label=self.config.agent,
                named=line.named,
            )
        return False

    def _leave(
        self, session: WorkerSession, threads: list[threading.Thread], events: queue.Queue[tuple[str, Any]]
    ) -> None:
        """Wait for the threads; an episode that is finished meanwhile counts."""
        until = time.monotonic() + JOIN_SECONDS
        while any(thread.is_alive() for thread in threads) and time.monotonic() < until:
            self._drain(session, events)
            time.sleep(0.02)
        self._drain(session, events)
        stuck = [thread.name for thread in threads if thread.is_alive()]
        if stuck:
            LOGGER.warning("%s did not leave within %g s", ", ".join(stuck), JOIN_SECONDS)

    def _drain(self, session: WorkerSession, events: queue.Queue[tuple[str, Any]]) -> None:
        while True:
            try:
                kind, what = events.get_nowait()
            except queue.Empty:
                return
            if kind != "failed":
                self._tell(session, kind, what)

    def _save(self, session: WorkerSession) -> None:
        path = self._records.save(session.step, self._metrics.usage)
        session.saved(path, score=self._metrics.progression(self._records), episodes=len(self._records.finished))
        self._saved_at = time.monotonic()
        self._unsaved = False


_Prepared = tuple[World, tuple[Demonstration, ...]]


def _work(
    player: Player,
    prepared: Mapping[tuple[str, str], _Prepared],
    waiting: deque[Episode],
    events: queue.Queue[tuple[str, Any]],
    stop: threading.Event,
) -> None:
    """One thread: plays episodes until none waits."""
    while not stop.is_set():
        try:
            episode = waiting.popleft()
        except IndexError:
            return
        try:
            world, shown = prepared[episode.world, episode.task]
            events.put(("finished", player.play(world, episode, shown)))
        except Stopped:
            return
        except Exception as error:  # noqa: BLE001 - the main thread raises it
            events.put(("failed", error))
            return


def _put(events: queue.Queue[tuple[str, Any]], stop: threading.Event, event: tuple[str, Any]) -> None:
    """Wait for room, but not for a main thread that has gone on."""
    while True:
        try:
            events.put(event, timeout=0.5)
            return
        except queue.Full:
            if stop.is_set():
                raise Stopped from None


def _client(config: BarlogConfig) -> ChatClient:
    return ChatClient(
        config.base_url,
        config.model,
        api_key_env=config.api_key_env,
        temperature=config.temperature,
        max_tokens=config.max_tokens,
        max_tokens_name=config.max_tokens_name,
        timeout=config.timeout,
        max_retries=config.max_retries,
        retry_delay=config.retry_delay,
        retry_delay_max=config.retry_delay_max,
        rng=random.Random(),
    )


class _scratch:
    """Temporary files of the worlds' libraries lie in the run's folder, and go with the run."""

    def __init__(self, run_dir: Path) -> None:
        self._folder = run_dir / "worlds" / "tmp"

    def __enter__(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._before, tempfile.tempdir = tempfile.tempdir, str(self._folder)

    def __exit__(self, *_: Any) -> None:
        tempfile.tempdir = self._before
        shutil.rmtree(self._folder, ignore_errors=True)


__all__ = ["BarlogRuntime"]

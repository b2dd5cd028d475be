"""From a growing log to the hub."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from mosaic_cluster.telemetry.hub import Ack, Batch
from mosaic_cluster.telemetry.parse import parse
from mosaic_cluster.telemetry.tail import LONGEST_LINE, LogTail
from mosaic_cluster.telemetry.watch import Watch
from mosaic_cluster.worker.errors import MosaicError

BATCH_BYTES = 1 << 20
EAGER_BYTES = 1 << 17
SEND_SECONDS = 0.4
POLL_SECONDS = 0.05
ASK_SECONDS = 1.0


class HubUnavailable(MosaicError):
    """The hub does not answer. The log keeps everything meanwhile: try again later."""


class HubClient(Protocol):
    """The hub, wherever it is. Every method may raise :class:`HubUnavailable`."""

    def append(self, batch: Batch) -> Ack:
        """Take a batch."""

    def flush(self, run_id: str, attempt: int, upto: int) -> None:
        """Ask for a commit soon."""

    def watermark(self, run_id: str, attempt: int) -> Ack:
        """What the hub has of one attempt's log."""


@dataclass
class PumpProgress:
    """What a pump has seen.

    Attributes:
        unread: bytes of the log that the hub has not taken yet.
        committed: byte of the log up to which rows are in Parquet, as far as is known.
        last_step: largest step reported.
        metrics: latest step and value of each metric.
        events: telemetry lines taken.
        log_lines: other lines.
    """

    unread: int = 0
    committed: int = 0
    last_step: int | None = None
    metrics: dict[str, tuple[int | None, float]] = field(default_factory=dict)
    events: int = 0
    log_lines: int = 0


class Pump:
    """Sends one attempt's log to the hub, from where the hub left off. Used by one thread.

    Args:
        log_path: the attempt's ``stdout.log``.
        hub: where rows go.
        clock: monotonic seconds.
        watch: is shown every row that the hub has taken; taken: likewise, table by table.
        backlog: bytes that may wait for a commit; the hub is asked for one in time.
    """

    def __init__(
        self,
        log_path: str | Path,
        run_id: str,
        attempt: int,
        hub: HubClient,
        clock: Callable[[], float] = time.monotonic,
        watch: Watch | None = None,
        backlog: int | None = None,
        taken: Callable[[Mapping[str, pa.RecordBatch]], None] | None = None,
    ) -> None:
        self.progress = PumpProgress()
        self.watch = watch
        self._run_id = run_id
        self._attempt = attempt
        self._hub = hub
        self._clock = clock
        # A worker that is held goes on at half of what may wait: a line whose end has not come must be less than that.
        longest = LONGEST_LINE if backlog is None else min(LONGEST_LINE, backlog // 4)
        self._tail = LogTail(log_path, longest=longest)
        self._backlog = backlog
        self._taken = taken
        self._known: Ack | None = None
        self._sent_at: float | None = None
        self._asked_at = self._clock()
        self._shown = 0

    def step(self, final: bool = False) -> PumpProgress:
        """Send what is new, at most one batch; a little of it waits until it is worth a message.

        Args:
            final: the log is final: nothing waits, and an unterminated last line counts.

        Raises:
            HubUnavailable: nothing was lost; call again later.
        """
        try:
            known = self._known or self._begin()
            waiting = self._tail.size() - known.accepted
            now = self._clock()
            recent = self._sent_at is not None and now - self._sent_at < SEND_SECONDS
            if waiting > 0 and (final or waiting >= EAGER_BYTES or not recent):
                self._send(known, final)
                self._sent_at = now
            self._ask(now)
        except HubUnavailable:
            self._known = None
            raise
        self.progress.unread = self._tail.size() - (self._known.accepted if self._known else 0)
        return self.progress

    def drain(self, seconds: float) -> int:
        """Send a final log to its end, and wait until it is committed.

        Args:
            seconds: how long to wait, an unavailable hub included.

        Returns:
            The committed offset: the size of the log, if all went well.

        Raises:
            HubUnavailable: it was so until the end.
        """
        end = self._clock() + seconds
        while True:
            try:
                committed = self._drain_step()
                if committed >= self._tail.size() or self._clock() >= end:
                    return committed
            except HubUnavailable:
                if self._clock() >= end:
                    raise
                time.sleep(1.0)

    def _drain_step(self) -> int:
        before = self._known
        self.step(final=True)
        if self.progress.unread > 0:
            if before is not None and self._known == before:
                time.sleep(POLL_SECONDS)  # it has more than enough waiting to be written
            return 0
        size = self._tail.size()
        ack = self._hub.watermark(self._run_id, self._attempt)
        if ack.accepted < size:
            self._known = None  # it was restarted: begin again where it is now
            return 0
        if ack.committed < size:
            self._hub.flush(self._run_id, self._attempt, size)
            time.sleep(POLL_SECONDS)
        return ack.committed

    def _ask(self, now: float) -> None:
        """Learn what is committed while nothing is sent, and ask for a commit before too much waits for one."""
        if self._backlog is None or now - self._asked_at < ASK_SECONDS:
            return
        size = self._tail.size()
        if size - self.progress.committed <= self._backlog // 4:
            return
        self._asked_at = now
        ack = self._hub.watermark(self._run_id, self._attempt)
        self._learn(ack)
        if size - ack.committed > self._backlog // 4:
            self._hub.flush(self._run_id, self._attempt, ack.accepted)

    def _learn(self, ack: Ack) -> None:
        self.progress.committed = max(self.progress.committed, ack.committed)

    def _begin(self) -> Ack:
        self._known = known = self._hub.watermark(self._run_id, self._attempt)
        self._learn(known)
        self._show_until(known)
        self._tail.seek(known.accepted)
        if known.last_step is not None:
            self.progress.last_step = max(known.last_step, self.progress.last_step or 0)
        return known

    def _show(self, tables: Mapping[str, pa.RecordBatch], upto: int) -> None:
        if self.watch is not None:
            self.watch.feed(tables)
        if self._taken is not None:
            self._taken(tables)
        self._shown = upto

    def _show_until(self, known: Ack) -> None:
        """Show what the hub took in a call whose answer never came."""
        if self.watch is None and self._taken is None:
            return
        tail = LogTail(self._tail.path, self._shown)
        last_step = self.progress.last_step
        while self._shown < known.accepted:
            lines = [line for line in tail.read(BATCH_BYTES, final=True) if line[0] < known.accepted]
            if not lines:
                return
            parsed = parse(lines, self._run_id, self._attempt, last_step=last_step)
            last_step = parsed.last_step
            self._show(parsed.tables, min(tail.offset, known.accepted))

    def _send(self, known: Ack, final: bool) -> None:
        lines = self._tail.read(BATCH_BYTES, final=final)
        if not lines:
            return
        parsed = parse(lines, self._run_id, self._attempt, last_step=known.last_step, last_ts=known.last_ts)
        batch = Batch(
            run_id=self._run_id,
            attempt=self._attempt,
            first=known.accepted,
            last=self._tail.offset,
            tables=parsed.tables,
            last_step=parsed.last_step,
            last_ts=parsed.last_ts,
            metrics=parsed.metrics,
            events=parsed.events,
            unread=max(0, self._tail.size() - self._tail.offset),
        )
        ack = self._hub.append(batch)
        self._known = ack
        self._learn(ack)
        if ack.accepted != batch.last:
            self._tail.seek(ack.accepted)  # not taken: what it wants comes next
            return
        self._show(parsed.tables, batch.last)
        self.progress.last_step = parsed.last_step
        self.progress.metrics.update(parsed.metrics)
        self.progress.events += parsed.events
        self.progress.log_lines += parsed.log_lines

"""What a policy in a process of its own costs, beside the same policy here and beside a named peer.

The peer is ``multiprocessing.connection`` over a Unix socket, which pickles the same observations and masks: what one
would write without our protocol, and what must not be done across interpreters or with programs one does not trust.
The policy does nothing but give a row of zeros back, so that only the way there and back is measured.

``python tests/benchmarks/bench_policies.py [--json] [--seconds N] [--repeats N]``
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing.connection
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from reporting import arguments, report, spread

from mosaic_cluster.worker import serve_policy
from mosaic_cluster.worker.policy_server import load_from_entry

# name, environments in a batch (0: one `act`), shape and dtype of an observation, actions.
CASES: list[tuple[str, int, tuple[int, ...], str, int]] = [
    ("CartPole, one", 0, (4,), "float32", 0),
    ("connect four, one", 0, (6, 7, 2), "int8", 7),
    ("connect four, 64", 64, (6, 7, 2), "int8", 7),
    ("Atari frames, 16", 16, (4, 84, 84), "uint8", 0),
    ("Atari frames, 256", 256, (4, 84, 84), "uint8", 0),
]


class ZeroPolicy:
    """Gives zeros."""

    games = ("*",)

    def reset(self, seed: int | None = None) -> None:
        """Nothing to forget."""

    def act(self, observation: Any, action_mask: Any = None) -> Any:
        """Zero."""
        return 0

    def act_batch(self, observations: Any, action_masks: Any = None) -> Any:
        """Zeros."""
        return np.zeros(len(observations), np.int64)


def load_policy(checkpoint: str, **options: Any) -> ZeroPolicy:
    """See ``mosaic.policies``."""
    return ZeroPolicy()


class PickledPolicy:
    """The peer's client."""

    def __init__(self, path: str) -> None:
        self._connection = multiprocessing.connection.Client(path, "AF_UNIX")

    def act(self, observation: Any, action_mask: Any = None) -> Any:
        """See ``Policy``."""
        self._connection.send(("act", observation, action_mask))
        return self._connection.recv()

    def act_batch(self, observations: Any, action_masks: Any = None) -> Any:
        """See ``Policy``."""
        self._connection.send(("act_batch", observations, action_masks))
        return self._connection.recv()

    def close(self) -> None:
        """Ends the peer's server."""
        self._connection.close()


def serve_pickled(path: str) -> None:
    """The peer's server."""
    policy = ZeroPolicy()
    with (
        multiprocessing.connection.Listener(path, "AF_UNIX") as listener,
        listener.accept() as connection,
        contextlib.suppress(EOFError),
    ):
        while True:
            call, observation, mask = connection.recv()
            connection.send(getattr(policy, call)(observation, mask))


@contextlib.contextmanager
def policies() -> Iterator[dict[str, Any]]:
    """The same policy three ways."""
    here = str(Path(__file__).parent)
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])}
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/peer"
        peer = subprocess.Popen([sys.executable, __file__, "--serve-pickled", path], env=environ)
        while not os.path.exists(path):
            time.sleep(0.01)
        pickled = PickledPolicy(path)
        try:
            with serve_policy("bench_policies:load_policy", "", environ=environ) as served:
                local = load_from_entry("bench_policies:load_policy", "")
                yield {"here": local, "served": served, "peer": pickled}
        finally:
            pickled.close()
            peer.wait(10)


def calls_per_second(call: Callable[[], object], seconds: float) -> float:
    """For about that long."""
    count, start = 0, time.perf_counter()
    while True:
        for _ in range(20):
            call()
        count += 20
        passed = time.perf_counter() - start
        if passed > seconds:
            return count / passed


def measure(seconds: float, repeats: int) -> dict[str, Any]:
    """All cases, the three ways in turn."""
    random = np.random.default_rng(0)
    cases = []
    with policies() as ways:
        for name, batch, shape, dtype, actions in CASES:
            whole = (batch, *shape) if batch else shape
            seen = random.integers(0, 100, whole).astype(dtype)
            mask = np.ones((batch, actions) if batch else actions, np.int8) if actions else None
            calls: dict[str, Callable[[], object]] = {
                way: partial(policy.act_batch if batch else policy.act, seen, mask) for way, policy in ways.items()
            }
            found: dict[str, list[float]] = {way: [] for way in calls}
            for repeat in range(repeats):
                for way in list(calls) if repeat % 2 == 0 else reversed(list(calls)):
                    found[way].append(calls_per_second(calls[way], seconds))
            size = seen.nbytes + (0 if mask is None else mask.nbytes)
            served = spread(found["served"])
            cases.append(
                {
                    "case": name,
                    "bytes": size,
                    "calls_per_second": {way: spread(values) for way, values in found.items()},
                    "served_mb_per_second": served["median"] * size / 1e6,
                    "served_by_peer": spread([a / b for a, b in zip(found["served"], found["peer"], strict=True)]),
                }
            )
    return {"benchmark": "policies", "peer": "multiprocessing.connection, pickle, AF_UNIX", "cases": cases}


def show(found: dict[str, Any]) -> None:
    """As a table."""
    print(f"{'calls/s':20}{'bytes':>10}{'here':>12}{'served':>10}{'peer':>10}{'MB/s':>8}  served / peer (min to max)")
    for case in found["cases"]:
        calls = {way: values["median"] for way, values in case["calls_per_second"].items()}
        ratio = case["served_by_peer"]
        print(
            f"{case['case']:20}{case['bytes']:>10,}{calls['here']:>12,.0f}{calls['served']:>10,.0f}{calls['peer']:>10,.0f}"
            f"{case['served_mb_per_second']:>8,.0f}  {ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})"
        )


def main() -> None:
    parser = arguments("What a policy in a process of its own costs.")
    parser.add_argument("--seconds", type=float, default=0.4, help="for each measurement (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=7, help="of each (default: %(default)s)")
    parser.add_argument("--serve-pickled", metavar="PATH", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve_pickled:
        serve_pickled(args.serve_pickled)
        return
    report(args, measure(args.seconds, args.repeats), show)


if __name__ == "__main__":
    main()

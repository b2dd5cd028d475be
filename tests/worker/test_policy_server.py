"""A policy in a process of its own, behind the same interface: real processes, real sockets."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import ROOT, Interrupted, interrupting, wait_for

from mosaic_cluster.worker import ConfigError, Policy, PolicyClient, PolicyError, serve_policy
from mosaic_cluster.worker.policy_wire import MAX_HEADER, Channel, pack

POLICY = """
import os, sys, time
from mosaic_cluster.worker import refuse_game

def load_policy(checkpoint, *, game=None, agent=None, device="cpu", **options):
    refuse_game(game, ("toy_v1",), "toy")
    print("a library that prints on stdout")
    if options.get("broken"):
        raise RuntimeError("the checkpoint is damaged")
    return Toy(checkpoint, agent, device, options)

class Toy:
    games = ("toy_v1",)

    def __init__(self, checkpoint, agent, device, options):
        self.about = [checkpoint, agent, device, options]
        self.calls = 0
        self.seed = None

    def reset(self, seed=None):
        self.seed = seed
        self.calls = 0

    def act(self, observation, action_mask=None):
        self.calls += 1
        if isinstance(observation, str):
            return getattr(self, observation)()
        return observation if action_mask is None else action_mask

    def act_batch(self, observations, action_masks=None):
        return observations

    def who(self):
        return self.about

    def count(self):
        return {"calls": self.calls, "seed": self.seed}

    def fail(self):
        raise ZeroDivisionError("nothing to divide by")

    def leave(self):
        raise SystemExit(3)

    def crash(self):
        sys.stderr.write("the last words\\n")
        sys.stderr.flush()
        os._exit(7)

    def unsendable(self):
        return object()

    def attached(self):
        return Attached()

    def endless(self):
        nested = []
        nested.append(nested)
        return nested

    def hang(self):
        time.sleep(1000)

class Attached:
    def __array__(self, *args, **more):
        raise RuntimeError("it requires grad: detach it first")
"""


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables with which a process finds the contract and the toy, and nothing else of ours."""
    folder = tmp_path_factory.mktemp("toy")
    (folder / "toy_policy.py").write_text(POLICY)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)])}


def toy(environ: dict[str, str], **more: Any) -> PolicyClient:
    return serve_policy("toy_policy:load_policy", "a-checkpoint", environ=environ, **{"game": "toy_v1", **more})


@pytest.fixture(scope="module")
def policy(environ: dict[str, str]) -> Iterator[PolicyClient]:
    with toy(environ, agent="player_1", options={"temperature": 0.5}) as made:
        yield made


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same kind, dtype and shape."""
    if isinstance(one, np.ndarray):
        return type(other) is np.ndarray and one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and bool(one == other)


@pytest.mark.parametrize(
    "value",
    [
        5, 2**70, 0.1, True, None, "text ü", b"\x00bytes", [1, [2.5, "x"]], (1, (2,)), {},
        {"observation": np.eye(3, dtype=np.int8), "$a": ["float32", [2]], "$t": [1]},
        np.float32(0.1), np.int64(-3), np.bool_(True), np.float16(2), np.complex64(1 + 2j),
        np.zeros((0, 3), np.float32), np.array(7), np.arange(24, dtype=np.uint16).reshape(2, 3, 4)[:, ::2, 1:],
        np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.arange(4, dtype=">i4").astype("<i4"),
        [np.uint8(1), np.ones(3, bool), {"deep": (np.arange(5), [np.zeros(2)])}],
        np.arange(300_000, dtype=np.float64),
    ],
    ids=repr,
)  # fmt: skip
def test_what_comes_back_is_what_was_sent(policy: PolicyClient, value: Any) -> None:
    if isinstance(value, str):
        value = [value]
    assert same(policy.act(value), value)
    assert same(policy.act(None, value), policy.act(None) if value is None else value)


def test_big_endian_numbers_arrive_as_numbers(policy: PolicyClient) -> None:
    got = policy.act_batch(np.array([[1, 2], [3, 70_000]], ">i4"))
    assert got.dtype == np.int32
    assert got.tolist() == [[1, 2], [3, 70_000]]


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
arrays = st.builds(
    lambda dtype, shape: np.arange(int(np.prod(shape))).reshape(shape).astype(dtype),
    st.sampled_from(["bool", "int8", "uint64", "float16", "float32", "complex128"]),
    st.lists(st.integers(0, 4), max_size=3),
)
values = st.recursive(
    scalars | arrays | st.binary(),
    lambda deep: st.lists(deep) | st.lists(deep).map(tuple) | st.dictionaries(st.text(), deep),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(values)
def test_any_value_survives(value: Any) -> None:
    import socket

    one, other = socket.socketpair()
    with one, other:
        sender = threading.Thread(target=Channel(one).send, args=({"call": "x", "args": [value]},))
        sender.start()
        got = Channel(other).receive()
        sender.join()
    assert got is not None
    assert same(got["args"], [value])


def test_it_is_a_policy_and_knows_what_it_was_given(policy: PolicyClient) -> None:
    assert isinstance(policy, Policy)
    assert policy.games == ("toy_v1",)
    assert policy.describe()["policy"] == "toy_policy.Toy"
    assert policy.act("who") == ["a-checkpoint", "player_1", "cpu", {"temperature": 0.5}]
    policy.reset(7)
    assert policy.act("count") == {"calls": 1, "seed": 7}
    policy.reset()
    assert policy.act("count") == {"calls": 1, "seed": None}


def test_received_arrays_can_be_written_to(policy: PolicyClient) -> None:
    got = policy.act(np.zeros(4, np.float32))
    got += 1
    assert got.tolist() == [1, 1, 1, 1]


def test_an_error_leaves_it_alive(policy: PolicyClient) -> None:
    policy.reset(1)
    with pytest.raises(PolicyError, match=r"act failed in the policy's process: ZeroDivisionError: nothing to divide"):
        policy.act("fail")
    with pytest.raises(PolicyError, match="SystemExit"):
        policy.act("leave")
    with pytest.raises(PolicyError, match="answer to 'act' cannot be sent: a object cannot be sent"):
        policy.act("unsendable")
    with pytest.raises(PolicyError, match="answer to 'act' cannot be sent: it requires grad"):
        policy.act("attached")
    with pytest.raises(PolicyError, match="answer to 'act' cannot be sent: maximum recursion depth"):
        policy.act("endless")
    assert policy.act("count")["calls"] == 6


class Attached:
    """As an array of a library that keeps it to itself."""

    def __array__(self, *args: Any, **more: Any) -> Any:
        raise RuntimeError("it requires grad: detach it first")


ENDLESS: list[Any] = []
ENDLESS.append(ENDLESS)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (object(), "a object cannot be sent"),
        (np.array([None]), "dtype object"),
        ({1: 2}, "keys must be text"),
        (Attached(), "act: it requires grad"),
        (ENDLESS, "act: maximum recursion depth"),
    ],
    ids=["object", "objects", "keys", "attached", "endless"],
)
def test_what_cannot_be_sent_is_refused_here(policy: PolicyClient, value: Any, words: str) -> None:
    with pytest.raises(PolicyError, match=words):
        policy.act(value)
    assert policy.act(3) == 3


def test_a_game_it_does_not_play_is_refused_with_its_path(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="does not play 'chess_v6'") as caught:
        toy(environ, game="chess_v6")
    assert caught.value.problems[0].path == "game"


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"options": {"broken": True}}, PolicyError, "RuntimeError: the checkpoint is damaged"),
        ({"entry": "toy_policy:nothing"}, ConfigError, "names no function"),
        ({"entry": "no_such_package:load"}, PolicyError, "No module named 'no_such_package'"),
        ({"python": "/no/such/python"}, PolicyError, "cannot start /no/such/python"),
        ({"python": "/bin/false"}, PolicyError, "ended with exit code 1"),
    ],
)
def test_what_cannot_be_loaded(
    environ: dict[str, str], change: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        serve_policy(change.pop("entry", "toy_policy:load_policy"), "x", environ=environ, game="toy_v1", **change)


def test_its_death_is_told_with_its_last_words(environ: dict[str, str]) -> None:
    with toy(environ) as policy:
        with pytest.raises(PolicyError, match="ended with exit code 7\n(.*\n)*the last words"):
            policy.act("crash")
        with pytest.raises(PolicyError, match="closed"):
            policy.act(1)


def test_a_call_that_takes_too_long_closes_it(environ: dict[str, str]) -> None:
    with toy(environ, timeout=0.3) as policy:
        with pytest.raises(PolicyError, match="no answer to 'act' in time"):
            policy.act("hang")
        pid = policy.about["pid"]
    assert not psutil.pid_exists(pid)


def test_an_interrupted_call_closes_it(environ: dict[str, str]) -> None:
    with interrupting() as timer, toy(environ) as policy:
        timer.start()
        with pytest.raises(Interrupted):
            policy.act("hang")
        with pytest.raises(PolicyError, match="the policy is closed"):
            policy.act(1)


def test_the_socket_is_private_and_nothing_is_left(environ: dict[str, str]) -> None:
    with toy(environ, options={"key": "a-secret"}) as policy:
        words = psutil.Process(policy.about["pid"]).cmdline()
        assert "a-secret" not in " ".join(words)
        assert policy.act("who")[3] == {"key": "a-secret"}
        (path,) = [Path(word) for word in words if word.endswith("policy.sock")]
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        pid = policy.about["pid"]
    assert not psutil.pid_exists(pid)
    assert not path.parent.exists()


def test_a_dropped_client_ends_its_process(environ: dict[str, str]) -> None:
    policy = toy(environ)
    pid = policy.about["pid"]
    del policy
    wait_for(lambda: not psutil.pid_exists(pid), 10, "the process to end")


@pytest.mark.parametrize("busy", [False, True])
def test_it_ends_with_the_process_that_started_it(environ: dict[str, str], tmp_path: Path, busy: bool) -> None:
    program = textwrap.dedent(f"""
        import threading, time
        from mosaic_cluster.worker import serve_policy
        policy = serve_policy("toy_policy:load_policy", "x", game="toy_v1")
        if {busy}:
            threading.Thread(target=policy.act, args=("hang",), daemon=True).start()
            time.sleep(0.2)
        print(policy.about["pid"], flush=True)
        time.sleep(1000)
    """)
    env = {**environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", program], env=env, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        pid = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        process.wait()
    wait_for(lambda: not psutil.pid_exists(pid), 10, "the policy's process to end")
    assert list(tmp_path.glob("mosaic-policy-*")) == []


def server(environ: dict[str, str], path: Path, *more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "mosaic_cluster.worker.policy_server", "--entry", "toy_policy:load_policy"]
    command += ["--checkpoint", "x", "--game", "toy_v1", "--socket", str(path), *more]
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_clients_one_after_another_and_then_it_ends(environ: dict[str, str], tmp_path: Path) -> None:
    process = server(environ, tmp_path / "s", "--linger", "1")
    with PolicyClient(tmp_path / "s") as first:
        first.reset(1)
        assert first.act("count") == {"calls": 1, "seed": 1}
    with PolicyClient(tmp_path / "s") as second:  # the same policy, still alive
        assert second.act("count") == {"calls": 2, "seed": 1}
    with pytest.raises(PolicyError, match="no policy is served at"):
        PolicyClient(tmp_path / "nobody", connect_timeout=0.2)
    out, _ = process.communicate(timeout=10)
    assert process.returncode == 0
    assert out == b""
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("more", [(), ("--remove-folder",)])
def test_what_is_at_its_path_already_stays(environ: dict[str, str], tmp_path: Path, more: tuple[str, ...]) -> None:
    (tmp_path / "s").write_text("somebody else's")
    process = server(environ, tmp_path / "s", *more)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 1
    assert b"cannot serve at" in said
    assert (tmp_path / "s").read_text() == "somebody else's"


def test_rubbish_ends_the_connection_and_not_the_server(environ: dict[str, str], tmp_path: Path) -> None:
    import socket
    import struct

    process = server(environ, tmp_path / "s", "--linger", "2")
    wait_for(lambda: (tmp_path / "s").exists(), 20)
    shortened = pack({"call": "act", "args": [np.zeros(8)]})
    rubbish = [
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack("<4sIQ", b"MPW1", MAX_HEADER + 1, 0),
        struct.pack("<4sIQ", b"MPW1", 4, 0) + b"{no}",
        struct.pack("<4sIQ", b"MPW1", 30, 0) + b'{"args":[{"$a":["int8",[99]]}]',
        struct.pack("<4sIQ", b"MPW1", 31, 0) + b'{"args":[{"$a":["int8",[99]]}]}',
        shortened[0][:10],
    ]
    for data in rubbish:
        with socket.socket(socket.AF_UNIX) as raw:
            raw.connect(str(tmp_path / "s"))
            raw.sendall(data)
            raw.shutdown(socket.SHUT_WR)
            assert b"error" in raw.recv(4096) or len(data) < 16
    with PolicyClient(tmp_path / "s") as policy:
        assert policy.act(5) == 5
        with pytest.raises(PolicyError, match="there is no call 'explode'; there are act, act_batch"):
            policy._call("explode")
        with pytest.raises(PolicyError, match="there is no call"):
            policy._call(["act"])  # type: ignore[arg-type]
    process.communicate(timeout=10)
    assert process.returncode == 0


def test_without_numpy_arrays_come_as_lists(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("raise ImportError('there is no NumPy here')\n")
    env = {**environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), environ["PYTHONPATH"]])}
    with toy(env) as policy:
        grid = np.arange(6, dtype=np.float32).reshape(2, 3)
        assert policy.act({"grid": grid, "n": np.int8(-4), "none": np.zeros((2, 0))}) == {
            "grid": [[0, 1, 2], [3, 4, 5]], "n": -4, "none": [[], []],
        }  # fmt: skip


def test_threads_wait_for_each_other(policy: PolicyClient) -> None:
    wrong: list[int] = []

    def ask(number: int) -> None:
        for _ in range(50):
            if policy.act_batch(np.full(1000, number)).tolist() != [number] * 1000:
                wrong.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []

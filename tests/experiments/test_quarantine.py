"""Failures that follow a node, and failures that follow a config."""

from __future__ import annotations

import pytest

from mosaic_cluster.experiments.quarantine import EARLY_SECONDS, Failure, Quarantine, Verdict


def failure(
    run: str,
    node: str,
    words: str = "ValueError: bad",
    *,
    lived: float = 5.0,
    worker: str = "w",
    code: str = "exit_code",
) -> Failure:
    return Failure(run, worker, node, f"node-{node}", code, words, lived, 100.0)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("OSError: [Errno 28] No space left on device: 'x'", "its disk is full"),
        ("ModuleNotFoundError: No module named 'nle'", "something is missing there"),
        ("OSError: libGL.so.1: cannot open shared object file: No such file", "something is missing there"),
        ("RuntimeError: No CUDA GPUs are available", "its GPU does not work"),
        ("RuntimeError: CUDA error: uncorrectable ECC error encountered", "its GPU does not work"),
        ("RuntimeError: CUDA error: unknown error", "its GPU does not work"),
    ],
)
def test_a_sign_is_enough(words: str, why: str) -> None:
    verdict = Quarantine().failed(failure("r", "a", f"Traceback\n{words}\n"), elsewhere=True)
    assert verdict.blamed
    assert verdict.kept is not None
    assert verdict.kept.reason == f"{why}: {words}"
    assert verdict.kept.forgiven == {"r": 1}
    assert verdict.released == ()


@pytest.mark.parametrize(
    "words",
    [
        "there is no Python 3.9 on this machine. Looked at: PATH",
        "the environment of xuance cannot be built: step 2 of 3\nModuleNotFoundError: No module named 'setuptools'",
        "the distribution xuance-worker of this worker is not installed here: install it on each node",
        "image_uri needs podman, docker or apptainer on PATH",
        "$MOSAIC_PYTHON_3_9: /opt/python is CPython 3.8.1, and not a CPython 3.9",
        "the interpreter /opt/python is Python 3.7.1; the worker contract needs 3.8 or later",
    ],
)
def test_an_environment_that_cannot_be_had_is_known_by_its_code(words: str) -> None:
    kept = Quarantine().failed(failure("r", "a", words, code="environment_failed"), elsewhere=True).kept
    assert kept is not None
    assert kept.reason == f"an environment cannot be had there: {words.splitlines()[0]}"


@pytest.mark.parametrize(
    "words",
    [
        "RuntimeError: CUDA error: device-side assert triggered",
        "RuntimeError: CUDA error: an illegal memory access was encountered",
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
        "ValueError: learning_rate must be positive",
    ],
)
def test_what_a_config_brings_about_is_no_sign(words: str) -> None:
    assert Quarantine().failed(failure("r", "a", words), elsewhere=True) == Verdict()


def test_the_last_node_is_never_kept_off() -> None:
    quarantine = Quarantine()
    assert quarantine.failed(failure("r", "a", "ImportError: x"), elsewhere=False) == Verdict()
    assert quarantine.reasons == {}


def test_the_same_failure_on_two_nodes_is_the_workers() -> None:
    quarantine = Quarantine()
    first = quarantine.failed(failure("r", "a", "ImportError: x"), elsewhere=True).kept
    again = quarantine.failed(failure("r", "b", "ImportError: x"), elsewhere=True)
    assert again == Verdict(released=(first,) if first else ())
    assert again.released
    assert quarantine.reasons == {}
    # From now on it counts as the run's own, wherever it comes.
    assert quarantine.failed(failure("s", "c", "ImportError: x"), elsewhere=True) == Verdict()


def test_another_workers_failure_says_nothing_of_this_one() -> None:
    quarantine = Quarantine()
    quarantine.failed(failure("r", "a", "ImportError: x", worker="one"), elsewhere=True)
    verdict = quarantine.failed(failure("s", "b", "ImportError: y", worker="two"), elsewhere=True)
    assert verdict.kept is not None
    assert verdict.released == ()
    assert set(quarantine.reasons) == {"a", "b"}


def test_three_different_runs_in_their_first_minute() -> None:
    quarantine = Quarantine()
    for run in ("1", "1", "2"):
        assert quarantine.failed(failure(run, "a"), elsewhere=True) == Verdict()
    kept = quarantine.failed(failure("3", "a"), elsewhere=True).kept
    assert kept is not None
    assert kept.reason == "3 different runs died on it in their first minute, and none lived"
    assert kept.forgiven == {"1": 2, "2": 1, "3": 1}


def test_late_failures_and_nodes_where_others_live_are_not_blamed() -> None:
    quarantine = Quarantine()
    for run in "1234":
        assert quarantine.failed(failure(run, "a", lived=EARLY_SECONDS), elsewhere=True) == Verdict()
    for run in "12":
        quarantine.failed(failure(run, "b"), elsewhere=True)
    quarantine.went_well("b")
    assert quarantine.failed(failure("3", "b"), elsewhere=True) == Verdict()


def test_runs_that_die_early_everywhere_are_not_the_nodes() -> None:
    quarantine = Quarantine()
    for run, node in zip("123456", "ababab", strict=True):
        assert quarantine.failed(failure(run, node), elsewhere=True) == Verdict()


def test_what_was_on_it_already_is_forgiven() -> None:
    quarantine = Quarantine()
    assert quarantine.failed(failure("r", "a", "ImportError: x"), elsewhere=True).kept is not None
    assert quarantine.failed(failure("s", "a", "ImportError: x"), elsewhere=True) == Verdict(blamed=True)
    assert quarantine.failed(failure("t", "a", lived=EARLY_SECONDS), elsewhere=True) == Verdict()

"""What goes on around RLlib when a run is stopped, gone on with, or misplaced: with a Ray that is none."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray_worker import RayConfig, RayRuntime, cluster, runtime
from ray_worker.cluster import Home
from ray_worker.config import Share
from ray_worker.runtime import Training

from mosaic_cluster.worker import ConfigError


class FakeRay:
    """Answers at once what it is asked, or never."""

    def __init__(self, *, busy: bool = False) -> None:
        self.busy = busy
        self.asked: list[str] = []
        self.exceptions = SimpleNamespace(RayError=OSError, RayTaskError=KeyError)
        self.util = SimpleNamespace(placement_group=lambda *_, **__: SimpleNamespace(ready=lambda: None))

    def wait(self, references: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        return ([], references) if self.busy else (references, [])

    def get(self, reference: Any, timeout: float | None = None) -> Any:
        self.asked.append("get")
        return reference

    def kill(self, actor: Any) -> None:
        self.asked.append("kill")

    def shutdown(self) -> None:
        self.asked.append("shutdown")


class FakeActor:
    def __init__(self, **answers: Any) -> None:
        self._answers = answers

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=lambda *_: self._answers.get(name))


def make(tmp_path: Path, *, stop: Callable[[], bool] = lambda: False, resume: Path | None = None, **config: Any) -> Any:
    environ = {"MOSAIC_RUN_DIR": str(tmp_path), "MOSAIC_CHECKPOINT_DIR": str(tmp_path / "checkpoints")}
    if resume is not None:
        environ["MOSAIC_RESUME_FROM"] = str(resume)
    return RayRuntime(RayConfig(run_id="r1", seed=1, **config), stop_requested=stop, environ=environ)


def training(made: Any, ray: FakeRay, actor: FakeActor, folder: Path) -> Training:
    found = Training.__new__(Training)
    found._ray, found._actor, found._folder = ray, actor, folder / ".rllib"  # type: ignore[assignment]
    found._config, found._session, found._given_up = made.config, made._session, False
    return found


def test_an_iteration_that_goes_on_for_too_long_is_given_up_with_its_actor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "PATIENCE", 0.0)
    ray = FakeRay(busy=True)
    with training(make(tmp_path, stop=lambda: True), ray, FakeActor(), tmp_path) as busy:
        assert busy._get("an answer") is None
        assert ray.asked == ["kill"]
    assert "get" not in ray.asked  # to end by itself it is not asked: it would not hear that


def test_patience_leaves_time_for_the_rest_of_a_runs_grace() -> None:
    assert runtime.PATIENCE <= 15


def test_where_nothing_is_left_to_train_the_checkpoint_is_the_last(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoints" / "checkpoint_500"
    made = make(tmp_path, resume=checkpoint, total_steps=500)
    assert training(made, FakeRay(), FakeActor(restore=500), tmp_path).run({}) == checkpoint
    assert made._session.step == 500


@pytest.mark.parametrize(("record", "status"), [(0, None), (3, "cancelled")])
def test_a_stop_after_the_last_step_still_leaves_the_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: int, status: str | None
) -> None:
    exported = []
    monkeypatch.setattr(runtime, "export_policy", lambda *given: exported.append(given))
    made = make(tmp_path, stop=lambda: True, record_episodes=record)
    found = made._leave(made._session, tmp_path / "checkpoint_500", 1)
    assert exported == [(tmp_path / "checkpoint_500", tmp_path / "policy")]
    assert found.get("status") == status


@pytest.mark.parametrize("text", [None, "{", "[]", "{}", json.dumps({"config": 3})])
def test_what_is_no_checkpoint_is_the_configs_fault(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / runtime.SAVED).write_text(text)
    with pytest.raises(ConfigError, match="is no checkpoint of the ray worker"):
        make(tmp_path)._saved(tmp_path)


@pytest.mark.parametrize(
    ("learners", "gpus", "device", "fits"),
    [(0, 1, "auto", True), (1, 0.5, "auto", True), (2, 2, "cuda", True), (2, 0, "auto", True), (2, 1, "cpu", True),
     (2, 1, "auto", False), (2, 0.5, "auto", False), (3, 2, "cuda", False), (0, 0, "cuda", False)],
)  # fmt: skip
def test_each_learner_has_a_gpu_or_none_has(
    tmp_path: Path, learners: int, gpus: float, device: str, fits: bool
) -> None:
    made = make(tmp_path, num_learners=learners, device=device)
    place = Home(None, gpus, min(1.0, gpus), True)
    if fits:
        made._check_device(place)
    else:
        with pytest.raises(ConfigError, match=r"resources\.gpus"):
            made._check_device(place)


class Stop:
    def __init__(self, asked: bool) -> None:
        self.asked, self.installed = asked, 0

    def install(self) -> None:
        self.installed += 1

    def __call__(self) -> bool:
        return self.asked


class TestSignals:
    @pytest.fixture
    def ray(self, monkeypatch: pytest.MonkeyPatch) -> FakeRay:
        ray = FakeRay(busy=True)
        monkeypatch.setitem(sys.modules, "ray", ray)  # type: ignore[arg-type]
        return ray

    @pytest.fixture
    def put(self, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        """The handlers that Ray's own function has put."""
        put: list[Any] = []
        monkeypatch.setitem(sys.modules, "ray._private.utils", SimpleNamespace(set_sigterm_handler=put.append))  # type: ignore[arg-type]
        return put

    def test_they_stay_ours_while_ray_starts_and_if_it_does_not(self, put: list[Any]) -> None:
        stop, utils = Stop(False), sys.modules["ray._private.utils"]
        with contextlib.suppress(ValueError), cluster._signals_stay(stop):
            utils.set_sigterm_handler("Ray's")
            raise ValueError("it does not start")
        assert put == []
        assert stop.installed == 1
        utils.set_sigterm_handler("Ray's")
        assert put == ["Ray's"]

    def test_they_are_rays_where_nobody_else_wants_them(self, put: list[Any]) -> None:
        with cluster._signals_stay(None):
            sys.modules["ray._private.utils"].set_sigterm_handler("Ray's")
        assert put == ["Ray's"]

    def test_a_stop_ends_the_wait_for_the_group(self, ray: FakeRay) -> None:
        cluster._wait_for(SimpleNamespace(ready=lambda: None), Stop(True))
        assert ray.asked == []

    def test_so_does_a_group_that_is_ready(self, ray: FakeRay) -> None:
        ray.busy = False
        cluster._wait_for(SimpleNamespace(ready=lambda: None), Stop(False))
        assert ray.asked == ["get"]


def test_steps_never_go_back_where_an_iteration_brought_none(tmp_path: Path) -> None:
    from ray_worker.training import LIFETIME_STEPS, Trainer

    trainer = Trainer(RayConfig(run_id="r1", algo="appo").to_dict(), Share(1), 1, str(tmp_path))
    assert [trainer._count({LIFETIME_STEPS: steps}) for steps in (0, 50, 0, 100)] == [0, 50, 50, 100]
    assert trainer._count({}) == 100


@pytest.mark.parametrize(
    ("told", "steps"), [([], []), (float("nan"), []), ('{"steps": 3}', [3]), (['{"steps": 3}'] * 2, [3, 3])]
)
def test_an_episode_that_ended_alone_is_told_too(told: Any, steps: list[int]) -> None:
    from ray_worker.training import EPISODES, _episodes

    assert [each["steps"] for each in _episodes({EPISODES: told})] == steps
    assert _episodes({}) == []

"""The checks of the worker contract as tests."""

from __future__ import annotations

from typing import ClassVar

import pytest

from mosaic_cluster.conformance import CHECKS, Check, ContractCase, Laboratory, run_check
from mosaic_cluster.conformance.checking import FAILED, NOT_RUN


class WorkerContract:
    """Checks a worker from outside, as a process in its own environment. Subclass it and override one fixture::

        class TestContract(WorkerContract):
            @pytest.fixture
            def contract_case(self) -> ContractCase:
                return ContractCase(worker="my_worker", config={"total_steps": 500}, long_config={"total_steps": 10**9})

    Each check is a test. What could not be checked is skipped, with the reason.
    """

    _laboratories: ClassVar[dict[type, Laboratory]] = {}

    @pytest.fixture
    def contract_case(self) -> ContractCase:
        """What the worker is checked with; to be overridden."""
        pytest.fail("override contract_case: it returns a ContractCase(worker=..., config={...})", pytrace=False)

    @pytest.fixture
    def laboratory(self, contract_case: ContractCase, tmp_path_factory: pytest.TempPathFactory) -> Laboratory:
        """Runs its processes; the same one for all tests of a class, so that each kind of run is made once."""
        kind = type(self)
        if kind not in self._laboratories:
            self._laboratories[kind] = Laboratory(contract_case, tmp_path_factory.mktemp(contract_case.worker))
        return self._laboratories[kind]

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
    def test_contract(self, check: Check, laboratory: Laboratory) -> None:
        """One check."""
        verdict = run_check(check, laboratory)
        if verdict.status == NOT_RUN:
            pytest.skip(f"not run: {verdict.reason}")
        if verdict.status == FAILED:
            pytest.fail(f"{verdict.about}: {verdict.reason}\n{verdict.remedy}", pytrace=False)


__all__ = ["WorkerContract"]

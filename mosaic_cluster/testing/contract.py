"""The checks of the worker contract as tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mosaic_cluster.conformance import CHECKS, Check, ContractCase, Laboratory, run_check
from mosaic_cluster.conformance.checking import FAILED, NOT_RUN


class WorkerContract:
    """Checks a worker from outside, as a process in its own environment. Subclass it and override one fixture::

        class TestContract(WorkerContract):
            @pytest.fixture(scope="class")
            def contract_case(self) -> ContractCase:
                return ContractCase(worker="my_worker", config={"total_steps": 500}, long_config={"total_steps": 10**9})

    Each check is a test. What could not be checked is skipped, with the reason.
    """

    @pytest.fixture(scope="class")
    def contract_case(self) -> ContractCase:
        """What the worker is checked with; to be overridden."""
        raise NotImplementedError("override contract_case: it returns a ContractCase(worker=..., config={...})")

    @pytest.fixture(scope="class")
    def laboratory(self, contract_case: ContractCase) -> Iterator[Laboratory]:
        """Runs its processes; each kind of run once for all checks."""
        with Laboratory.temporary(contract_case) as made:
            yield made

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
    def test_contract(self, check: Check, laboratory: Laboratory) -> None:
        """One check."""
        verdict = run_check(check, laboratory)
        if verdict.status == NOT_RUN:
            pytest.skip(f"not run: {verdict.reason}")
        if verdict.status == FAILED:
            pytest.fail(f"{verdict.about}: {verdict.reason}\n{verdict.remedy}", pytrace=False)


__all__ = ["WorkerContract"]

"""The marllib worker keeps the contract."""

from __future__ import annotations

import pytest
from mosaic_cluster.testing import ContractCase, WorkerContract, case_of


@pytest.mark.xdist_group("contract of marllib, without its library")
class TestContractWithoutTheLibrary(WorkerContract):
    """What must hold where MARLlib is not installed; the rest is reported as not run."""

    @pytest.fixture
    def contract_case(self) -> ContractCase:
        return case_of("marllib", "marllib_worker", library=False)


@pytest.mark.workers
@pytest.mark.timeout(1200)
@pytest.mark.xdist_group("marllib")
class TestContract(WorkerContract):
    """With the real library."""

    @pytest.fixture
    def contract_case(self) -> ContractCase:
        return case_of("marllib", "marllib_worker")

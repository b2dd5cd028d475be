"""The ray worker keeps the contract."""

from __future__ import annotations

import pytest

from mosaic_cluster.testing import ContractCase, WorkerContract, case_of


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.xdist_group("contract of ray")
class TestContract(WorkerContract):
    """With the real library."""

    @pytest.fixture
    def contract_case(self) -> ContractCase:
        return case_of("ray", "ray_worker")

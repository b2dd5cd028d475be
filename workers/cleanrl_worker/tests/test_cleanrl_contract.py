"""The cleanrl worker keeps the contract."""

from __future__ import annotations

import pytest

from mosaic_cluster.testing import ContractCase, WorkerContract, case_of


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.xdist_group("contract of cleanrl")
class TestContract(WorkerContract):
    """With the real library."""

    @pytest.fixture
    def contract_case(self) -> ContractCase:
        return case_of("cleanrl", "cleanrl_worker")

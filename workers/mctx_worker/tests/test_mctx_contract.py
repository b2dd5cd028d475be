"""The mctx worker keeps the contract."""

from __future__ import annotations

import pytest

from mosaic_cluster.testing import ContractCase, WorkerContract, case_of


@pytest.mark.xdist_group("contract of mctx, without its library")
class TestContractWithoutTheLibrary(WorkerContract):
    """What must hold where mctx is not installed; the rest is reported as not run."""

    @pytest.fixture
    def contract_case(self) -> ContractCase:
        return case_of("mctx", "mctx_worker", library=False)

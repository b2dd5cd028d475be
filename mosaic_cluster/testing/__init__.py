"""What tests of worker packages use: the conformance kit. Needs pytest."""

from __future__ import annotations

from mosaic_cluster.conformance import ContractCase, case_of
from mosaic_cluster.testing.contract import WorkerContract

__all__ = ["ContractCase", "WorkerContract", "case_of"]

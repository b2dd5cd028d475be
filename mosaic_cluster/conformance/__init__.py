"""Does a worker keep the contract? Asked from outside, of its real processes.

The checks stand here once; ``mosaic workers check`` and ``mosaic_cluster.testing.WorkerContract`` call them.
"""

from __future__ import annotations

from mosaic_cluster.conformance.case import ContractCase, case_of
from mosaic_cluster.conformance.checking import CHECKS, Check, Verdict, check_worker, run_check
from mosaic_cluster.conformance.laboratory import Laboratory

__all__ = ["CHECKS", "Check", "ContractCase", "Laboratory", "Verdict", "case_of", "check_worker", "run_check"]

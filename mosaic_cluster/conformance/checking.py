"""All checks, in order, and their verdicts."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from mosaic_cluster.catalog.environments import BuildProgress
from mosaic_cluster.conformance import acting, commands, declared, running, stopping
from mosaic_cluster.conformance.case import ContractCase
from mosaic_cluster.conformance.findings import Failed, Finding, NotRun, Warned
from mosaic_cluster.conformance.laboratory import Laboratory
from mosaic_cluster.worker.errors import EnvironmentFailed

PASSED, FAILED, WARNED, NOT_RUN = "passed", "failed", "warned", "not run"


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: short, unique.
        about: what must hold, in a sentence.
        run: raises what it finds.
        library: whether the worker's library must be there for it.
    """

    name: str
    about: str
    run: Callable[[Laboratory], None]
    library: bool


@dataclass(frozen=True)
class Verdict:
    """What came of one check.

    Attributes:
        check: its name; about: what it is about.
        status: ``passed``, ``failed``, ``warned`` (it should, but does not) or ``not run``.
        reason: what was seen; remedy: what to do.
    """

    check: str
    about: str
    status: str
    reason: str = ""
    remedy: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def _all() -> Iterator[Check]:
    for module in (declared, commands, running, stopping, acting):
        for run in module.CHECKS:
            about = (run.__doc__ or "").strip().splitlines()[0]
            library = module not in (declared, commands)
            yield Check(run.__name__.replace("_", "-"), about.rstrip("."), run, library)


CHECKS = tuple(_all())


def run_check(check: Check, laboratory: Laboratory) -> Verdict:
    """Run one check.

    Raises:
        Nothing: what goes wrong in the check itself counts as failed, with its traceback.
    """

    def verdict(status: str, finding: Finding | None = None) -> Verdict:
        return Verdict(
            check.name, check.about, status, finding.reason if finding else "", finding.remedy if finding else ""
        )

    if check.library and not laboratory.case.library:
        return verdict(NOT_RUN, NotRun("the worker's library is not there"))
    try:
        check.run(laboratory)
    except NotRun as finding:
        return verdict(NOT_RUN, finding)
    except Warned as finding:
        return verdict(FAILED if laboratory.case.strict else WARNED, finding)
    except Failed as finding:
        return verdict(FAILED, finding)
    except EnvironmentFailed as error:
        return verdict(FAILED, Failed(str(error), f"mosaic workers doctor {laboratory.case.worker}"))
    except Exception:  # noqa: BLE001 - a worker may do what no check has thought of
        return verdict(FAILED, Failed(f"the check itself broke:\n{traceback.format_exc(limit=-3)}"))
    return verdict(PASSED)


def check_worker(
    case: ContractCase,
    tell: Callable[[Verdict], None] = lambda verdict: None,
    report: Callable[[BuildProgress], None] | None = None,
) -> list[Verdict]:
    """Run all checks, in a temporary folder.

    Args:
        tell: is given each verdict as it comes.
        report: told how far the building of the worker's environment is.
    """
    verdicts = []
    with Laboratory.temporary(case, report) as laboratory:
        for check in CHECKS:
            verdicts.append(run_check(check, laboratory))
            tell(verdicts[-1])
    return verdicts

"""Seeds of environments."""

from __future__ import annotations

import numpy as np


def environment_seed(seed: int, step: int, *place: int) -> int:
    """The seed of one environment: no other run's, however close its seed is, and no other attempt's either.

    Args:
        seed: of the run.
        step: that the attempt goes on from: its environments begin anew, and must not repeat what was seen.
        place: which of the attempt's environments it is.
    """
    return int(np.random.SeedSequence([seed, step, *place]).generate_state(1)[0] >> 1)


__all__ = ["environment_seed"]

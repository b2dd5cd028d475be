"""Names of GPUs: whether a model is one that was asked for, and which known model is large enough."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from mosaic_cluster.units import MIB

# What the driver reports, smallest first: what people call a "24 GB" card rarely has 24 GiB.
KNOWN: tuple[tuple[str, int], ...] = (
    ("T4", 15_360 * MIB),
    ("V100-16GB", 16_384 * MIB),
    ("L4", 23_034 * MIB),
    ("A10G", 23_028 * MIB),
    ("RTX 4090", 24_564 * MIB),
    ("RTX 3090", 24_576 * MIB),
    ("RTX 5090", 32_607 * MIB),
    ("V100-32GB", 32_768 * MIB),
    ("A100-40GB", 40_960 * MIB),
    ("L40S", 46_068 * MIB),
    ("RTX A6000", 49_140 * MIB),
    ("H100-80GB", 81_559 * MIB),
    ("A100-80GB", 81_920 * MIB),
    ("H200", 143_771 * MIB),
    ("B200", 183_359 * MIB),
)
_BRANDS = frozenset({"nvidia", "tesla", "geforce"})


def matches(wanted: str, model: str | None) -> bool:
    """Whether a GPU of this model will do where ``wanted`` was asked for.

    Case, spaces, ``-`` and ``_`` do not matter, and a model may say more than was asked: ``A100`` will do with
    ``A100-40GB`` and ``NVIDIA A100-SXM4-40GB``, and ``A100-40GB`` with the latter. Names end where a part ends:
    ``A10`` is no ``A100``, ``L4`` no ``L40S``. A model that nobody knows never will do.
    """
    return model is not None and _matches(wanted, model)


def any_matches(wanted: Iterable[str], model: str | None) -> bool:
    """Whether the model will do for one of ``wanted``."""
    return any(matches(one, model) for one in wanted)


def large_enough(memory: int) -> str | None:
    """The known model of which a GPU has ``memory`` bytes and least more; ``None``: there is none."""
    enough = [(size, name) for name, size in KNOWN if size >= memory]
    return min(enough)[1] if enough else None


@lru_cache(maxsize=4096)
def _matches(wanted: str, model: str) -> bool:
    asked = _parts(wanted)
    named = [part for part in asked if part not in _BRANDS] or asked
    return bool(named) and _formed("".join(named), _parts(model))


def _parts(name: str) -> list[str]:
    parts = [part for part in re.split(r"[\s_-]+", name.lower()) if part]
    # Ray calls it A100-40G, the driver 40GB.
    return [re.sub(r"^(\d+)g(?:ib|b)?$", r"\1gb", part) for part in parts]


def _formed(text: str, parts: list[str]) -> bool:
    """Whether ``text`` is some of ``parts``, in their order, with nothing between them."""
    if not text:
        return True
    return any(
        text.startswith(part) and _formed(text[len(part) :], parts[place + 1 :]) for place, part in enumerate(parts)
    )

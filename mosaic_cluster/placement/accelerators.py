"""Accelerators that are known by name, and how much memory they have.

Names are compared as people, Ray and NVML write them: ``RTX4090``, ``GeForce-RTX-4090`` and
``NVIDIA GeForce RTX 4090`` are one model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

GIB = 1024**3

# What a card's driver reports, rounded down to whole GiB (an "80GB" H100 has 79.6): a share of it then fits for sure.
_SIZES: dict[str, tuple[int, ...]] = {
    "K80": (11,), "P4": (7,), "P40": (22,), "P100": (12, 16), "V100": (16, 32), "T4": (15,),
    "A2": (15,), "A10": (22,), "A10G": (22,), "A16": (15,), "A30": (24,), "A40": (44,), "A100": (40, 80),
    "A800": (40, 80), "L4": (22,), "L20": (44,), "L40": (44,), "L40S": (44,),
    "H20": (95, 140), "H100": (79, 93), "H100 NVL": (93,), "H200": (140,), "H800": (79,), "GH200": (95, 140),
    "B200": (178,), "B300": (267,), "GB200": (184,), "GB300": (276,), "GB10": (119,),
    "GTX 1060": (3, 6), "GTX 1070": (8,), "GTX 1080": (8,), "GTX 1080 Ti": (11,), "GTX 1660": (6,),
    "RTX 2060": (6, 12), "RTX 2070": (8,), "RTX 2080": (8,), "RTX 2080 Ti": (11,), "TITAN RTX": (24,), "TITAN V": (12,),
    "RTX 3050": (4, 6, 8), "RTX 3060": (8, 12), "RTX 3070": (8,), "RTX 3080": (10, 12), "RTX 3080 Ti": (12,),
    "RTX 3090": (24,), "RTX 3090 Ti": (24,), "RTX 4060": (8,), "RTX 4060 Ti": (8, 16), "RTX 4070": (12,),
    "RTX 4070 Ti": (12,), "RTX 4080": (16,), "RTX 4090": (24,), "RTX 5070": (12,), "RTX 5080": (16,), "RTX 5090": (31,),
    "RTX 4000": (8,), "RTX 5000": (16,), "RTX 6000": (22,), "RTX 8000": (44,),
    "RTX A2000": (6, 12), "RTX A4000": (16,), "RTX A4500": (20,), "RTX A5000": (24,), "RTX A6000": (44,),
    "RTX 4000 Ada": (20,), "RTX 5000 Ada": (32,), "RTX 6000 Ada": (44,), "RTX PRO 6000": (95,),
    "MI100": (31,), "MI210": (63,), "MI250": (63,), "MI250X": (63,), "MI300A": (127,), "MI300X": (191,),
    "MI308X": (191,), "MI325X": (255,), "MI350X": (287,), "MI355X": (287,),
    "GPU MAX 1100": (47,), "GPU MAX 1550": (63,),
}  # fmt: skip
_ALSO = {"A6000": "RTX A6000", "A5000": "RTX A5000", "A4000": "RTX A4000", "GH100": "GH200", "MI250XMI250": "MI250X"}
# Makers, forms of the board, and words about the rest of the machine: they do not tell how much memory there is.
_SAYS_NOTHING = re.compile(
    r"^(NVIDIA|TESLA|GEFORCE|QUADRO|AMD|INSTINCT|INTEL|SXM\d?|PCIE|OAM|HF|HBM\d\w*|BLACKWELL|SERVER|WORKSTATION|EDITION"
    r"|GENERATION)$"
)
# What people can get; suggested where a larger GPU is missing.
SUGGESTED = (
    "T4", "V100-16GB", "L4", "A10G", "RTX 4090", "RTX 5090", "V100-32GB", "A100-40GB", "L40S", "RTX A6000",
    "H100-80GB", "A100-80GB", "H200", "B200", "MI300X", "MI325X",
)  # fmt: skip
_MAKERS = frozenset({"NVIDIA", "TESLA", "GEFORCE", "QUADRO", "AMD", "INSTINCT", "INTEL"})
_SIZE = re.compile(r"^(\d+)(?:G|GB|GIB)$")


@dataclass(frozen=True)
class Accelerator:
    """What is known of a model by its name.

    Attributes:
        model: its name, without the size of its memory.
        sizes: bytes of memory it may have, smallest first; several if the name does not tell which.
    """

    model: str
    sizes: tuple[int, ...]

    @property
    def memory(self) -> int:
        """Bytes it has at least: the smallest, where its name does not tell which it is."""
        return self.sizes[0]

    @property
    def ambiguous(self) -> bool:
        """Whether cards of different size bear this name."""
        return len(self.sizes) > 1


def known_accelerator(name: str) -> Accelerator | None:
    """What is known of the accelerator of that name.

    Args:
        name: as people, Ray (``A100``, ``GeForce-RTX-4090``) or NVML (``NVIDIA A100-SXM4-40GB``) write it. A
            size in it (``A100-80G``) decides between cards of one model.

    Returns:
        ``None`` if nothing is known by that name.
    """
    words, stated = _words(name)
    model = _BY_KEY.get(_key(words)) or _BY_KEY.get(_key(_telling(words)))
    if model is None:
        return None
    sizes = tuple(size * GIB for size in _SIZES[model])
    # An "80GB" card shows a little less; GH200 480GB counts the host's memory, and decides nothing.
    fitting = tuple(size for size in sizes if stated and 0.85 * stated <= size <= stated)
    return Accelerator(model, fitting[-1:] or sizes)


def matches(wanted: str, model: str | None, memory: int | None = None) -> bool:
    """Whether a GPU of this model will do where ``wanted`` was asked for.

    Case, spaces, ``-`` and ``_`` do not matter, and a model may say more than was asked: ``A100`` will do with
    ``A100-40GB`` and ``NVIDIA A100-SXM4-40GB``. A size that was asked for must be the GPU's, by its name or by its
    memory. Names end where a part ends: ``A10`` is no ``A100``, ``L4`` no ``L40S``. A model that nobody knows never
    will do.

    Args:
        memory: bytes of the GPU, where they are known.
    """
    return model is not None and _matches(wanted, model, memory)


def any_matches(wanted: Iterable[str], model: str | None, memory: int | None = None) -> bool:
    """Whether the model will do for one of ``wanted``."""
    return any(matches(one, model, memory) for one in wanted)


@lru_cache(maxsize=64)
def large_enough(memory: int) -> str | None:
    """The model, of those that people can get, of which a GPU has ``memory`` bytes and least more, if there is one."""
    known = {name: known_accelerator(name) for name in SUGGESTED}
    enough = [(found.memory, name) for name, found in known.items() if found is not None and found.memory >= memory]
    return min(enough)[1] if enough else None


@lru_cache(maxsize=4096)
def _matches(wanted: str, model: str, memory: int | None) -> bool:
    asked, size = _words(wanted)
    named, stated = _words(model)
    if size is not None and stated is not None and stated != size:
        return False
    if size is not None and stated is None and (memory is None or not 0.85 * size <= memory <= 1.01 * size):
        return False
    # A maker alone says something; beside a model it does not.
    telling = [word for word in asked if word.upper() not in _MAKERS] or asked
    return bool(telling) and _formed("".join(telling).upper(), [word.upper() for word in named])


def _formed(text: str, parts: list[str]) -> bool:
    """Whether ``text`` is some of ``parts``, in their order, with nothing between them."""
    if not text:
        return True
    return any(
        text.startswith(part) and _formed(text[len(part) :], parts[place + 1 :]) for place, part in enumerate(parts)
    )


def model_name(name: str) -> str:
    """A model's name as a view has it: the known one, else ``name`` without its maker and size."""
    known = known_accelerator(name)
    if known is not None:
        return known.model
    words, _ = _words(name)
    plain = [word for word in words if word.upper() not in ("NVIDIA", "AMD", "INTEL")]
    return " ".join(plain) or name.strip()


def model_key(name: str) -> str:
    """Equal for two names of one model: ``model_key("rtx4090") == model_key("NVIDIA GeForce RTX 4090")``."""
    return _key(model_name(name).split())


def stated_size(name: str) -> int | None:
    """Bytes that a name states (``A100-80GB``), where it does; makers' GB are GiB."""
    return _words(name)[1]


def _words(name: str) -> tuple[list[str], int | None]:
    """The words of a name, and the size in bytes that one of them states."""
    words: list[str] = []
    stated = None
    for word in re.split(r"[\s\-_/()]+", name.strip()):
        size = _SIZE.match(word.upper())
        if size is not None and stated is None and words:
            stated = int(size[1]) * GIB
        elif word:
            words.append(word)
    return words, stated


def _telling(words: list[str]) -> list[str]:
    return [word for word in words if not _SAYS_NOTHING.match(word.upper())]


def _key(words: list[str]) -> str:
    return "".join(words).upper()


_BY_KEY = {_key(model.split()): model for model in _SIZES} | _ALSO

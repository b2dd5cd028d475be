"""Models of GPUs by the names that people, Ray and NVML give them."""

from __future__ import annotations

import pytest

from mosaic_cluster.placement.accelerators import GIB, known_accelerator, model_key, model_name, stated_size


@pytest.mark.parametrize(
    ("name", "model", "sizes"),
    [
        ("NVIDIA A100-SXM4-40GB", "A100", (40,)),
        ("NVIDIA A100 80GB PCIe", "A100", (80,)),
        ("A100", "A100", (40, 80)),
        ("A100-80G", "A100", (80,)),
        ("A100-40G", "A100", (40,)),
        ("RTX 4090", "RTX 4090", (24,)),
        ("rtx4090", "RTX 4090", (24,)),
        ("NVIDIA GeForce RTX 4090", "RTX 4090", (24,)),
        ("GeForce-RTX-4090", "RTX 4090", (24,)),
        ("Tesla V100-SXM2-16GB", "V100", (16,)),
        ("V100", "V100", (16, 32)),
        ("Tesla T4", "T4", (15,)),
        ("NVIDIA H100 80GB HBM3", "H100", (79,)),
        ("NVIDIA H200", "H200", (140,)),
        ("NVIDIA A10G", "A10G", (22,)),
        ("NVIDIA L40S", "L40S", (44,)),
        ("NVIDIA L4", "L4", (22,)),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada", (44,)),
        ("Quadro RTX 6000", "RTX 6000", (22,)),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX PRO 6000", (95,)),
        ("AMD-Instinct-MI300X-OAM", "MI300X", (191,)),
    ],
)
def test_known_models(name: str, model: str, sizes: tuple[int, ...]) -> None:
    known = known_accelerator(name)
    assert known is not None
    assert (known.model, tuple(size // GIB for size in known.sizes)) == (model, sizes)
    assert known.memory == min(known.sizes)
    assert known.ambiguous == (len(sizes) > 1)


@pytest.mark.parametrize(
    "name", ["NVIDIA Zork 3", "Zork-48GB", "NVIDIA GeForce RTX 3080 Laptop GPU", "TPU-V4", "", "40GB"]
)
def test_others_are_not_guessed(name: str) -> None:
    assert known_accelerator(name) is None


def test_the_size_of_a_host_decides_nothing() -> None:
    known = known_accelerator("NVIDIA GH200 480GB")
    assert known is not None
    assert known.memory == 95 * GIB


def test_every_nvidia_name_that_ray_knows_is_known() -> None:
    from ray.util.accelerators import accelerators

    names = [value for name, value in vars(accelerators).items() if name.startswith("NVIDIA_")]
    assert len(names) > 15
    assert [name for name in names if known_accelerator(name) is None] == []


def test_names_of_one_model_are_equal() -> None:
    assert model_key("rtx4090") == model_key("NVIDIA GeForce RTX 4090") != model_key("RTX 3090")
    assert model_key("NVIDIA Zork 3") == model_key("zork-3")
    assert model_name("NVIDIA Zork 3") == "Zork 3"
    assert stated_size("Zork-48GB") == 48 * GIB

"""What leases leave free, and who gets it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mosaic_cluster.placement import ClusterView, Gpu, NodeView, Placement, Request, Waiting
from mosaic_cluster.runtime.allocation.book import QUIET_SECONDS, Lease, LeaseBook

GIB = 1 << 30
NOW = 1000.0


def node(name: str = "a", *, cpus: float = 4.0, free: float | None = None, gpus: tuple[float, ...] = ()) -> NodeView:
    cards = tuple(Gpu(index, "A100", 40 * GIB, share) for index, share in enumerate(gpus))
    return NodeView(name, f"node-{name}", cpus=cpus, cpus_free=cpus if free is None else free,
                    memory=64 * GIB, memory_free=64 * GIB, gpus=cards)  # fmt: skip


def view(*nodes: NodeView) -> ClusterView:
    return ClusterView(nodes or (node(),), NOW)


def lease(run: str = "r", *, cpus: float = 1.0, gpus: float = 0.0, indices: tuple[int, ...] = (), **more: Any) -> Lease:
    placement = Placement(run, "a", "node-a", cpus, GIB, gpus, gpu_indices=indices, agents=3)
    return Lease(placement, **more)


def free_of(book: LeaseBook, raw: ClusterView) -> NodeView:
    return book.view(raw).nodes[0]


def test_what_has_not_started_is_taken_off() -> None:
    book = LeaseBook()
    book.hear("d", [lease()], NOW)
    left = free_of(book, view())
    assert (left.cpus_free, left.memory_free, left.agents) == (3.0, 63 * GIB, 3)


def test_what_ray_accounts_for_is_taken_off_once() -> None:
    book = LeaseBook()
    book.hear("d", [lease(started=True)], NOW)
    assert free_of(book, view(node(free=3.0))).cpus_free == 3.0
    # Ray's figures may lag behind: never is there more than the node has less what is known to be taken.
    assert free_of(book, view()).cpus_free == 3.0


def test_what_lies_spare_is_free() -> None:
    book = LeaseBook()
    book.hear("d", [lease(spare=True)], NOW)
    left = free_of(book, view(node(free=3.0)))
    assert left.cpus_free == 4.0
    assert left.agents == 0
    assert book.view(view()).holdings == ()


def test_gpus_of_others_are_where_ray_puts_them() -> None:
    book = LeaseBook()
    book.hear("d", [lease(gpus=0.25, indices=(1,), started=True)], NOW)
    # In all 1.75 of 3 are taken: ours, one whole GPU of somebody else's, and half a one.
    left = free_of(book, view(node(gpus=(0.0, 0.25, 1.0))))
    assert [gpu.free for gpu in left.gpus] == [0.0, 0.25, 1.0]


def test_gpus_with_other_numbers_count_as_others() -> None:
    book = LeaseBook()
    book.hear("d", [lease(gpus=1.0, indices=(7,), started=True)], NOW)
    left = free_of(book, view(node(gpus=(0.0, 1.0))))
    assert sorted(gpu.free for gpu in left.gpus) == [0.0, 1.0]


def test_a_grant_holds_until_it_is_not_mentioned() -> None:
    book = LeaseBook()
    book.hear("d", [], NOW, requests=[Request("r", cpus=3)])
    (answer,) = book.answer("d", view())
    assert isinstance(answer, Placement)
    book.hear("e", [], NOW, requests=[Request("s", cpus=3)])
    (waits,) = book.answer("e", view())
    assert isinstance(waits, Waiting)
    book.hear("d", [], NOW, requests=[])
    (placed,) = book.answer("e", view())
    assert isinstance(placed, Placement)


def test_what_others_wait_for_takes_its_turn() -> None:
    book = LeaseBook()
    book.hear("low", [], NOW, requests=[Request("l", cpus=3)])
    book.hear("high", [], NOW, requests=[Request("h", cpus=3, priority=5)])
    (waits,) = book.answer("low", view())
    assert isinstance(waits, Waiting)
    (placed,) = book.answer("high", view())
    assert isinstance(placed, Placement)


def test_two_experiments_share_by_weight() -> None:
    book, raw = LeaseBook(), view(node(cpus=12.0))
    held: dict[str, list[Lease]] = {"x": [], "y": []}
    weights = {"x": 1.0, "y": 2.0}
    for turn in range(12):
        for key, weight in weights.items():
            wanted = [Request(f"{key}{turn}-{number}", experiment=key, weight=weight) for number in range(12)]
            book.hear(key, held[key], NOW, requests=wanted)
        for key in weights:
            book.hear(key, held[key], NOW)
            for request, answer in zip(book._drivers[key].requests, book.answer(key, raw), strict=True):
                if isinstance(answer, Placement) and len(held[key]) < 12:
                    held[key].append(Lease.of(answer, request, NOW))
    assert {key: len(leases) for key, leases in held.items()} == {"x": 4, "y": 8}


def test_silent_drivers_are_forgotten() -> None:
    book = LeaseBook()
    book.hear("d", [lease()], NOW)
    assert book.forget_silent(NOW + QUIET_SECONDS) == []
    assert book.forget_silent(NOW + QUIET_SECONDS + 1) == ["d"]
    assert free_of(book, view()).cpus_free == 4.0


def test_leases_travel_as_json() -> None:
    told = lease(started=True, until=5.0, gpus=0.5, indices=(1,))
    assert Lease.from_dict(told.to_dict()) == told


shares = st.lists(st.sampled_from([0.1, 0.25, 0.5, 1.0]), max_size=6)


@given(ours=shares, started=st.lists(st.booleans(), min_size=6, max_size=6), others=st.floats(0, 1))
def test_no_gpu_is_promised_twice(ours: list[float], started: list[bool], others: float) -> None:
    book = LeaseBook()
    left = [1.0, 1.0, 1.0]
    leases = []
    for number, share in enumerate(ours):
        index = next((each for each in range(3) if left[each] >= share), None)
        if index is not None:
            left[index] -= share
            leases.append(lease(f"r{number}", gpus=share, indices=(index,), started=started[number]))
    known = sum(each.placement.gpus for each in leases if each.started)
    whole = 3.0 - known - others * sum(left)
    raw = replace(node(), gpus=tuple(Gpu(index, "A100", 40 * GIB, whole / 3) for index in range(3)))
    book.hear("d", leases, NOW)
    found = free_of(book, view(raw)).gpus
    assert all(gpu.free <= room + 1e-6 for gpu, room in zip(found, left, strict=True))
    # What others hold is taken off, too.
    assert sum(gpu.free for gpu in found) <= sum(left) * (1 - others) + 1e-4

"""Owns the tests of pools against workers and consumers that say what is not so: it is refused, and hurts nobody."""

from __future__ import annotations

import fcntl
import gc
import os
from pathlib import Path
from typing import Any

import pytest
from pools_world import BUDGET, Worker, World

from dfserve.broker.arrival import arrived
from dfserve.broker.block_frames import Frames
from dfserve.errors import WireError
from dfserve.sharing.extents import GRAIN
from dfserve.sharing.machine import machine
from dfserve.sharing.pool_file import HEAD, NAME, SEALS, path_of
from dfserve.wire import messages as m
from dfserve.wire.limits import DEFAULT_LIMITS
from dfserve.wire.placement import Place, pack_freed, pack_place


def hand(world: World, worker: Worker, place: bytes, *inline: bytes) -> Frames:
    return world.memory.pools.frames(worker.connection, [place, *inline])


def test_a_worker_cannot_name_the_pool_of_another(world: World) -> None:
    one, other = world.worker(b"one"), world.worker(b"other")
    (frames,) = [one.build(1)]
    placed = one.memory.place(frames)
    assert placed is not None
    for connection in (other.connection, b"nobody"):
        with pytest.raises(WireError, match="was not offered"):
            world.memory.pools.frames(connection, [bytes(placed[0]), *placed[1:]])


def test_a_worker_cannot_take_over_the_pool_of_another_or_its_own_once_more(world: World) -> None:
    one, other, consumer = world.worker(b"one"), world.worker(b"other"), world.consumer()
    consumer.have(one.send(1))
    pool = one.memory._pool._pool
    assert pool is not None
    offer = m.PoolOffer(pool.path, pool.size, pool.nonce)
    for worker in (other, one):
        answer = world.memory.hear(worker.connection, offer)
        assert answer is not None
        assert isinstance(answer, m.PoolMapped)
        assert not answer.mapped
    assert world.memory.pools._pools[pool.nonce].worker == one.connection
    assert consumer.right


@pytest.mark.parametrize(
    ("spans", "inline", "reason"),
    [
        ([None, (HEAD, BUDGET * 100)], 1, "limits"),
        ([None, (BUDGET * 100, 100_000)], 1, "limits"),
        ([None, (1 << 60, 1 << 60)], 1, "limits"),
        ([None, (GRAIN // 2, 100_000)], 1, "limits"),
        ([None, (HEAD + 64, 100_000)], 1, "limits"),
        ([None, (HEAD, 0)], 1, "limits"),
        ([None, (HEAD, 1000)], 0, "frames"),
        ([None, (HEAD, 1000)], 2, "frames"),
        ([None, None], 1, "frames"),
        ([(HEAD, 1000)], 0, "frames"),
        ([(HEAD, 1000), None], 1, "frames"),
    ],
)
def test_a_place_that_cannot_be_is_refused_and_hurts_nobody(
    world: World, spans: list[Any], inline: int, reason: str
) -> None:
    worker, consumer = world.worker(), world.consumer()
    consumer.have(worker.send(1))
    view = world.memory.pools._pools[worker.nonce].view
    lent = view.lent
    with pytest.raises(WireError) as found:
        hand(world, worker, pack_place(Place(worker.nonce, spans)), *[b"body"] * inline)
    assert found.value.reason == reason
    del found
    gc.collect()
    view.take_freed()
    assert view.lent == lent
    assert consumer.right


@pytest.mark.parametrize("place", [b"", b"\x90", b"\xc0", b"x" * 100, b"\x92\x00\x01", pack_freed({})])
def test_what_is_no_place_at_all_is_refused(world: World, place: bytes) -> None:
    worker = world.worker()
    with pytest.raises(WireError):
        hand(world, worker, place, b"body")
    with pytest.raises(WireError):
        world.memory.pools.frames(worker.connection, [])


def test_a_frame_that_was_refused_half_way_frees_only_itself(world: World) -> None:
    worker, consumer = world.worker(), world.consumer()
    block = worker.send(1)
    consumer.have(block)
    good = block.place.spans[1]
    with pytest.raises(WireError):
        hand(world, worker, pack_place(Place(worker.nonce, [None, good, (HEAD + 64, 9)])), b"body")
    assert consumer.right


def test_a_block_in_a_pool_is_not_cut(world: World) -> None:
    worker = world.worker()
    block = worker.send(1, 2)
    assert arrived(block, [], 2, DEFAULT_LIMITS, lambda _: True).on_wire < 10_000
    with pytest.raises(WireError, match="cut into pieces"):
        arrived(block, [1, 1], 2, DEFAULT_LIMITS, lambda _: True)


def test_what_is_offered_and_is_no_pool_is_refused(world: World, tmp_path: Path) -> None:
    worker, consumer = world.worker(), world.consumer()
    file = os.memfd_create(NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(file, 1 << 60)
    os.pwrite(file, b"n" * 16, 0)
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, sum(getattr(fcntl, seal) for seal in SEALS))
    plain = tmp_path / "plain"
    plain.write_bytes(bytes(1 << 20))
    try:
        for path, size in ((str(plain), 1 << 20), ("/etc/passwd", 1), (path_of(file), 1 << 60), (path_of(file), 1)):
            answer = world.memory.hear(b"hostile", m.PoolOffer(path, size, b"n" * 16))
            assert isinstance(answer, m.PoolMapped)
            assert not answer.mapped
    finally:
        os.close(file)
    consumer.have(worker.send(1))
    assert consumer.ways == ["pool"]


def test_a_consumer_cannot_map_what_it_was_not_told_of(world: World) -> None:
    worker = world.worker()
    world.memory.hear(b"stranger", m.PoolMapped(worker.nonce, mapped=True))
    assert not world.memory.pools.maps(b"stranger", worker.nonce)
    assert world.memory.machine == machine()

"""Owns the tests of the memory that a worker builds in: when there is a pool, what lies in it, and when it ends."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dfserve.producer import block_memory as memory_module
from dfserve.producer.block_memory import BESIDE, BlockMemory
from dfserve.sharing.machine import machine
from dfserve.sharing.pool_file import NAME
from dfserve.sharing.pool_view import PoolView
from dfserve.wire import messages as m
from dfserve.wire.blocks import decode_block
from dfserve.wire.builder import BlockBuilder
from dfserve.wire.pieces import PIECE
from dfserve.wire.placement import Place, pack_freed, unpack_place

BUDGET = 16 << 20
LARGE = 600_000  # bytes of an array that is built in a pool


def welcome(**more: Any) -> m.ProducerWelcome:
    return m.ProducerWelcome(b"b" * 16, 0, 1 << 30, **{"budget": BUDGET, "machine": machine(), **more})


def offered(memory: BlockMemory, **more: Any) -> m.PoolOffer:
    (offer,) = memory.receive(welcome(**more))
    assert isinstance(offer, m.PoolOffer)
    return offer


def shared(memory: BlockMemory) -> PoolView:
    """Offer a pool and have it mapped."""
    offer = offered(memory)
    assert memory.receive(m.PoolMapped(offer.nonce, mapped=True)) == []
    return PoolView(offer.path, offer.size, offer.nonce)


def block(memory: BlockMemory, *numbers: int, nbytes: int = LARGE) -> list[Any]:
    builder = BlockBuilder(8 << 20, rows=len(numbers), supply=memory.take)
    for number in numbers:
        builder.add([np.full(nbytes, number, np.uint8), number, "text"])
    return list(builder.close().frames)


def placed(memory: BlockMemory, frames: list[Any]) -> tuple[Place, list[Any]]:
    found = memory.place(frames)
    assert found is not None
    place = unpack_place(found[0])
    assert isinstance(place, Place)
    return place, found[1:]


def files() -> int:
    gc.collect()
    return sum(NAME in os.path.realpath(each) for each in Path("/proc/self/fd").iterdir())


@pytest.fixture
def memory() -> Iterator[BlockMemory]:
    one = BlockMemory(True)
    yield one
    one.close()


def test_a_broker_on_this_machine_is_offered_a_pool_with_room_for_all_that_it_may_queue(memory: BlockMemory) -> None:
    offer = offered(memory)
    assert offer.size == BUDGET + BESIDE
    assert PoolView(offer.path, offer.size, offer.nonce).size == offer.size


@pytest.mark.parametrize("name", ["", "another machine"])
def test_a_broker_elsewhere_is_offered_nothing(memory: BlockMemory, name: str) -> None:
    assert memory.receive(welcome(machine=name)) == []
    assert memory.take(LARGE) is None


def test_who_does_not_want_to_share_offers_nothing() -> None:
    memory = BlockMemory(False)
    assert memory.receive(welcome()) == []
    assert memory.take(LARGE) is None


@pytest.mark.parametrize("name", ["", None])
def test_a_machine_that_has_no_name_shares_nothing(
    memory: BlockMemory, monkeypatch: pytest.MonkeyPatch, name: str | None
) -> None:
    monkeypatch.setattr(memory_module, "machine", lambda: "")
    assert memory.receive(welcome(machine=name or "")) == []


def test_nothing_is_built_in_a_pool_before_it_is_mapped(memory: BlockMemory) -> None:
    offer = offered(memory)
    assert memory.take(LARGE) is None
    memory.receive(m.PoolMapped(bytes(16), mapped=True))  # of another
    assert memory.take(LARGE) is None
    memory.receive(m.PoolMapped(offer.nonce, mapped=True))
    assert memory.take(LARGE) is not None


def test_a_pool_that_the_broker_cannot_map_is_closed(memory: BlockMemory) -> None:
    before = files()
    offer = offered(memory)
    memory.receive(m.PoolMapped(offer.nonce, mapped=False))
    assert memory.take(LARGE) is None
    assert files() == before


def test_a_block_is_told_by_where_it_lies_and_its_body_travels(memory: BlockMemory) -> None:
    view = shared(memory)
    frames = block(memory, 1, 2, 3)
    place, inline = placed(memory, frames)
    assert place.spans[0] is None
    assert inline == [frames[0]]
    lying = [view.frame(*span) for span in place.spans[1:] if span]
    assert sum(map(len, lying)) == 3 * LARGE
    found = decode_block([*inline, *lying])
    assert [number for _, number, _ in found] == [1, 2, 3]
    assert all((array == number).all() for array, number, _ in found)


def test_a_block_of_small_arrays_is_sent_as_it_is(memory: BlockMemory) -> None:
    shared(memory)
    assert memory.place(block(memory, 1, 2, nbytes=1000)) is None
    assert memory.place([b"body"]) is None


def test_a_block_with_a_large_frame_that_lies_elsewhere_is_sent_as_it_is(memory: BlockMemory) -> None:
    """On the network no frame is larger than a piece."""
    shared(memory)
    frames = block(memory, 1)
    assert memory.place([*frames, memoryview(bytes(PIECE + 1))]) is None
    _, inline = placed(memory, [*frames, memoryview(bytes(PIECE))])
    assert len(inline[1]) == PIECE


def test_a_full_pool_leaves_it_to_other_memory(memory: BlockMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_module, "BESIDE", 0)
    view = shared(memory)
    kept = []
    while (one := memory.take(4 << 20)) is not None:
        kept.append(one)
    assert len(kept) == 3
    frames = block(memory, 7, nbytes=6 << 20)
    assert memory.place(frames) is None
    assert (decode_block(frames)[0][0] == 7).all()
    assert view.lent == 0


def test_a_place_is_used_again_when_the_broker_has_done_with_it(memory: BlockMemory) -> None:
    view = shared(memory)
    frames = block(memory, 1)
    place, _ = placed(memory, frames)
    del frames
    span = place.spans[1]
    assert span is not None
    assert placed(memory, block(memory, 2))[0].spans[1] != span
    memory.freed(pack_freed({view.nonce: [span[0]]}))
    assert placed(memory, block(memory, 3))[0].spans[1] == span


@pytest.mark.parametrize("news", [b"", b"x", b"\xc0", pack_freed({bytes(16): [65536]}), pack_freed({b"": [65536]})])
def test_news_of_no_place_of_ours_are_ignored(memory: BlockMemory, news: bytes) -> None:
    memory.freed(news)
    shared(memory)
    frames = block(memory, 1)
    place, _ = placed(memory, frames)
    del frames
    memory.freed(news)
    assert placed(memory, block(memory, 2))[0].spans[1] != place.spans[1]


def test_each_connection_has_a_pool_of_its_own_and_the_blocks_of_the_one_before_are_sent_as_they_are(
    memory: BlockMemory,
) -> None:
    before = shared(memory)
    frames = block(memory, 5)
    place, _ = placed(memory, frames)
    after = shared(memory)
    assert after.nonce != before.nonce
    assert memory.place(frames) is None
    memory.freed(pack_freed({before.nonce: [span[0] for span in place.spans if span]}))  # late news
    new, _ = placed(memory, block(memory, 6))
    assert new.pool == after.nonce
    assert (decode_block(frames)[0][0] == 5).all()


def test_a_block_that_is_being_built_while_the_pool_is_changed_is_right(memory: BlockMemory) -> None:
    shared(memory)
    builder = BlockBuilder(64 << 20, supply=memory.take)
    for number in range(40):
        builder.add([np.full(LARGE + 1000 * number, number, np.uint8), number])  # in memory that grows
        if number == 10:
            shared(memory)
        if number == 30:
            memory.close()
    found = decode_block(builder.close().frames)
    assert [(len(array), bool((array == number).all())) for array, number in found] == [
        (LARGE + 1000 * number, True) for number in range(40)
    ]


def test_a_pool_that_is_in_doubt_is_followed_by_another(memory: BlockMemory) -> None:
    view = shared(memory)
    (offer,) = memory.receive(m.PoolGone(view.nonce))
    assert isinstance(offer, m.PoolOffer)
    assert offer.nonce != view.nonce
    assert memory.take(LARGE) is None
    assert memory.receive(m.PoolGone(view.nonce)) == []  # which we know
    memory.receive(m.PoolMapped(view.nonce, mapped=True))  # late
    assert memory.take(LARGE) is None
    memory.receive(m.PoolMapped(offer.nonce, mapped=True))
    assert memory.take(LARGE) is not None


def test_pools_that_are_over_leave_nothing_open_when_their_blocks_are_gone(memory: BlockMemory) -> None:
    before = files()
    frames = []
    for number in range(10):
        shared(memory)
        frames.append(block(memory, number))
    memory.close()
    memory.close()
    assert files() > before
    assert all((decode_block(each)[0][0] == number).all() for number, each in enumerate(frames))
    frames.clear()
    assert files() == before


def test_a_system_that_has_no_such_memory_shares_none(memory: BlockMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    assert memory.receive(welcome()) == []
    assert memory.take(LARGE) is None
    memory.shrink()


@pytest.mark.parametrize("budget", [1 << 50, (1 << 63) - 1])
def test_a_budget_beyond_all_addresses_is_no_reason_to_end(memory: BlockMemory, budget: int) -> None:
    before = files()
    assert memory.receive(welcome(budget=budget)) == []
    assert memory.take(LARGE) is None
    assert files() == before


def test_memory_of_a_long_queue_is_returned(memory: BlockMemory) -> None:
    view = shared(memory)
    waiting = [block(memory, number, nbytes=4 << 20) for number in range(10)]
    addresses = [span[0] for frames in waiting for span in placed(memory, frames)[0].spans if span]
    assert os.fstat(view.file).st_blocks * 512 >= 40 << 20
    memory.shrink()
    assert os.fstat(view.file).st_blocks * 512 >= 40 << 20
    waiting.clear()
    memory.freed(pack_freed({view.nonce: addresses}))
    memory.shrink()
    assert os.fstat(view.file).st_blocks * 512 <= 9 << 20

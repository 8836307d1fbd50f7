"""Owns the tests of the broker's own pool: what comes over the network is copied once, and read by all who are here."""

from __future__ import annotations

import logging

import pytest
from pools_world import LARGE, OWN, Consumer, World

from dfserve.broker import pools as pools_module
from dfserve.sharing import offered_pool
from dfserve.sharing.extents import GRAIN
from dfserve.wire import messages as m
from dfserve.wire import pieces as pieces_module
from dfserve.wire.placement import SMALLEST

PLACE = -(-LARGE // GRAIN) * GRAIN  # bytes that one array takes


def test_a_block_is_read_where_it_was_copied_by_all_groups(world: World) -> None:
    one, other = world.consumer(b"one"), world.consumer(b"other")
    block = world.receive(7)
    as_it_came = list(block)
    one.have(block)
    other.have(block)
    assert not {*map(id, block)} & {*map(id, as_it_came[1:])}, "the broker keeps the copy only"
    assert (one.ways, other.ways) == (["own"], ["own"])
    assert one.right
    assert other.right
    assert world.used == PLACE, "there is one copy"


def test_a_place_is_used_again_when_the_broker_and_both_consumers_have_done_in_any_order(world: World) -> None:
    one, other = world.consumer(b"one"), world.consumer(b"other")
    for order in ("b12", "b21", "1b2", "2b1", "12b", "21b"):
        blocks = [world.receive(1)]
        one.have(blocks[0])
        other.have(blocks[0])
        for who in order:
            world.settle()
            assert world.used == PLACE, f"{order}, before {who}"
            {"1": one.kept, "2": other.kept}.get(who, blocks).clear()
            one.say_what_is_free()
            other.say_what_is_free()
        world.settle()
        assert world.used == 0, order


def test_a_frame_that_was_cut_lies_in_one_piece(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces_module, "PIECE", 100_000)
    consumer = world.consumer()
    consumer.have(world.receive(1, 2))
    assert consumer.ways == ["own"]
    assert consumer.right


def test_what_is_small_stays_in_its_message(world: World) -> None:
    consumer = world.consumer()
    consumer.have(world.receive(1, nbytes=SMALLEST - 1))
    assert consumer.ways == ["socket"]
    assert world.used == 0


def test_nothing_is_copied_for_who_would_not_read_it_here(world: World) -> None:
    far = Consumer(world, b"far")
    world.consumers[far.connection] = far
    far.join("another machine")
    far.have(world.receive(1))
    slow = Consumer(world, b"slow")
    world.consumers[slow.connection] = slow
    slow.join()  # and has not mapped anything yet
    slow.have(world.receive(2))
    assert (far.ways, slow.ways) == (["socket"], ["socket"])
    assert world.used == 0
    world.settle()
    slow.have(world.receive(3))
    assert slow.ways[1:] == ["own"]
    assert slow.right


@pytest.mark.parametrize("first", ["here", "far"])
def test_a_block_for_two_reaches_one_elsewhere_too(world: World, monkeypatch: pytest.MonkeyPatch, first: str) -> None:
    monkeypatch.setattr(pieces_module, "PIECE", 100_000)
    here, far = world.consumer(b"here"), Consumer(world, b"far")
    world.consumers[far.connection] = far
    block = world.receive(5)
    for each in (here, far) if first == "here" else (far, here):
        each.have(block)
    assert (here.ways, far.ways) == (["own"], ["socket"])
    assert here.right
    assert far.right


def test_when_a_consumer_vanishes_other_memory_is_taken_and_what_is_read_stays(world: World) -> None:
    one, other = world.consumer(b"one"), world.consumer(b"other")
    waiting = world.receive(1)
    one.have(world.receive(2))
    other.have(world.receive(3))
    one.die()
    world.settle()
    assert len(world.told_of(m.PoolOffer, other)) == 2
    for number in range(4, 30):
        other.have(world.receive(number))
        del other.kept[1:]
        other.say_what_is_free()
        world.settle()
    other.have(waiting)
    assert set(other.ways) == {"own"}
    assert other.right


def test_a_block_whose_consumer_vanished_reaches_the_next_one_from_memory_that_is_in_doubt(world: World) -> None:
    one, other = world.consumer(b"one"), world.consumer(b"other")
    block = world.receive(1)
    one.have(block)
    one.die()
    world.settle()
    late = world.consumer(b"late")  # who is not told of that memory
    other.have(block)
    late.have(block)
    assert (other.ways, late.ways) == (["own"], ["socket"])
    assert other.right
    assert late.right


def test_memory_that_is_full_leaves_blocks_in_their_messages_and_has_room_again(world: World) -> None:
    consumer = world.consumer()
    for number in range(OWN // PLACE + 3):
        consumer.have(world.receive(number))
    assert consumer.ways[-3:] == ["socket"] * 3
    assert consumer.right
    consumer.kept.clear()
    consumer.say_what_is_free()
    world.settle()
    consumer.have(world.receive(1))
    assert consumer.ways[-1] == "own"


def test_it_is_there_however_many_workers_have_pools(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools_module, "MOST", 1)
    world.worker()
    consumer = world.consumer()
    consumer.have(world.receive(1))
    assert consumer.ways == ["own"]


def test_without_shared_memory_it_is_said_once(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def none(_size: int) -> None:
        raise OSError("this system has none")

    monkeypatch.setattr(offered_pool, "Pool", none)
    with caplog.at_level(logging.WARNING):
        for name in (b"one", b"other"):
            consumer = world.consumer(name)
            consumer.have(world.receive(1))
            assert consumer.ways == ["socket"]
    assert len(caplog.records) == 1
    assert "slower: this system has none" in caplog.text

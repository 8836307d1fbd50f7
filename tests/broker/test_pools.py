"""Owns the tests of workers' pools at a broker: what is lent to whom, what is free again, and what is in doubt."""

from __future__ import annotations

import pytest
from pools_world import LARGE, Chaos, Consumer, Worker, World

from dfserve.broker import pools as pools_module
from dfserve.broker.core import BrokerConfig, Core
from dfserve.broker.pools import OURS
from dfserve.sharing.extents import GRAIN
from dfserve.sharing.pool_file import HEAD
from dfserve.wire import messages as m
from dfserve.wire import pieces as pieces_module
from dfserve.wire.placement import pack_freed

PLACE = -(-LARGE // GRAIN) * GRAIN  # bytes that one array takes


def pools_left(world: World) -> int:
    world.settle()
    return sum(pool.worker != OURS for pool in world.memory.pools._pools.values())


# ---------------------------------------------------------------------- who reads what


def test_a_block_is_read_where_its_worker_built_it(world: World) -> None:
    worker, consumer = world.worker(), world.consumer()
    block = worker.send(1, 2)
    (first, one), (second, two) = consumer.have(block)
    assert consumer.ways == ["pool"]
    assert (one, two) == (1, 2)
    assert (first == 1).all()
    assert (second == 2).all()


def test_a_place_is_used_again_when_worker_broker_and_consumer_have_let_go_in_any_order(world: World) -> None:
    worker, consumer = world.worker(), world.consumer()
    for order in ("wbc", "wcb", "bwc", "bcw", "cwb", "cbw"):
        blocks = [worker.send(1)]
        consumer.have(blocks[0])
        for who in order:
            world.settle()
            assert worker.used == PLACE, f"{order}, before {who}"
            {"w": worker.sent, "b": blocks}.get(who, consumer.kept).clear()
            consumer.say_what_is_free()
        world.settle()
        assert worker.used == 0, order


def test_a_block_of_two_groups_is_lent_to_both_and_free_when_both_have_done(world: World) -> None:
    worker, one, other = world.worker(), world.consumer(b"one"), world.consumer(b"other")
    block = worker.send(7)
    one.have(block)
    other.have(block)
    assert (one.ways, other.ways) == (["pool"], ["pool"])
    del block
    worker.sent.clear()
    other.drop()
    other.say_what_is_free()
    world.settle()
    assert worker.used == PLACE
    later = worker.send(8)
    assert one.right
    one.drop()
    del later
    worker.sent.clear()
    world.settle()
    assert worker.used == 0


def test_a_block_that_comes_twice_to_one_consumer_is_free_when_both_are(world: World) -> None:
    worker, consumer = world.worker(), world.consumer()
    block = worker.send(7)
    consumer.have(block)
    consumer.have(block)
    del block
    worker.sent.clear()
    consumer.drop()
    world.settle()
    assert worker.used == PLACE
    consumer.drop()
    world.settle()
    assert worker.used == 0


def test_a_block_that_a_worker_sends_twice_stays_where_it_is_when_the_second_is_dropped(world: World) -> None:
    """As it does when its lease is said again, while what was made of it is on its way."""
    worker, consumer = world.worker(), world.consumer()
    frames = worker.build(1)
    once, twice = [worker.memory.place(frames) for _ in range(2)]
    assert once is not None
    assert twice is not None
    del frames
    consumer.have(world.memory.pools.frames(worker.connection, once))
    world.memory.pools.frames(worker.connection, twice)  # is here already, and dropped
    world.settle()
    assert worker.used == PLACE
    worker.send(2)
    assert consumer.right
    consumer.drop()
    worker.sent.clear()
    world.settle()
    assert worker.used == 0


def test_a_place_is_told_free_to_its_own_worker_only(world: World) -> None:
    one, other, consumer = world.worker(b"one"), world.worker(b"other"), world.consumer()
    consumer.have(one.send(1))
    consumer.have(other.send(2))  # at the same address in the other's pool
    one.sent.clear()
    other.sent.clear()
    consumer.drop(1)
    world.settle()
    assert (one.used, other.used) == (PLACE, 0)
    consumer.drop()
    world.settle()
    assert (one.used, other.used) == (0, 0)


def test_a_consumer_cannot_free_what_was_lent_to_another(world: World) -> None:
    worker, one, other = world.worker(), world.consumer(b"one"), world.consumer(b"other")
    block = worker.send(1)
    address = block.place.spans[1]
    assert address is not None
    one.have(block)
    del block
    worker.sent.clear()
    for connection in (other.connection, worker.connection, b"stranger"):
        for pool in (worker.nonce, bytes(16)):
            world.memory.freed(connection, pack_freed({pool: [address[0], 0, HEAD, 1 << 60]}))
    world.settle()
    assert worker.used == PLACE
    for _ in range(2):  # nor more than it has
        world.memory.freed(one.connection, pack_freed({worker.nonce: [address[0] + GRAIN, 0, 1 << 60]}))
    world.settle()
    assert worker.used == PLACE


def test_what_one_consumer_says_twice_frees_nothing_that_another_reads(world: World) -> None:
    worker, one, other = world.worker(), world.consumer(b"one"), world.consumer(b"other")
    block = worker.send(1)
    span = block.place.spans[1]
    assert span is not None
    one.have(block)
    other.have(block)
    del block
    worker.sent.clear()
    for _ in range(3):
        world.memory.freed(one.connection, pack_freed({worker.nonce: [span[0]]}))
    world.settle()
    assert worker.used == PLACE
    assert other.right


# ---------------------------------------------------------------------- who vanishes


def test_a_consumer_that_vanishes_with_something_lent_makes_the_pool_doubtful(world: World) -> None:
    worker, one, other = world.worker(), world.consumer(b"one"), world.consumer(b"other")
    before = worker.nonce
    block = worker.send(1)
    one.have(block)
    other.have(block)
    del block
    worker.sent.clear()
    one.die()
    world.settle()
    assert [each.nonce for each in world.told_of(m.PoolGone, worker) if isinstance(each, m.PoolGone)] == [before]
    assert worker.nonce != before
    other.have(worker.send(2))
    assert other.ways == ["pool", "pool"]
    assert other.right
    assert pools_left(world) == 2  # the first is read still
    other.drop()
    assert pools_left(world) == 1
    assert before not in other.shared._views  # it was told to let go of it


def test_a_consumer_that_vanishes_with_nothing_lent_leaves_the_pool_as_it_was(world: World) -> None:
    worker, one, other = world.worker(), world.consumer(b"one"), world.consumer(b"other")
    before = worker.nonce
    one.have(worker.send(1))
    one.drop()
    other.have(worker.send(2))
    one.die()
    world.settle()
    assert worker.nonce == before
    assert not world.told_of(m.PoolGone, worker)


def test_only_the_pools_of_which_something_was_lent_are_in_doubt(world: World) -> None:
    one, other, consumer = world.worker(b"one"), world.worker(b"other"), world.consumer()
    before = one.nonce, other.nonce
    consumer.have(one.send(1))
    consumer.die()
    world.settle()
    assert one.nonce != before[0]
    assert other.nonce == before[1]


def test_no_place_of_a_doubtful_pool_is_told_free(world: World) -> None:
    worker, one, other = world.worker(), world.consumer(b"one"), world.consumer(b"other")
    one.have(worker.send(1))
    other.have(worker.send(2))
    one.die()  # and the worker has not heard of it yet
    other.drop()
    assert world.memory.pools.take_freed() == []


def test_blocks_that_were_under_way_in_a_doubtful_pool_are_taken_and_delivered(world: World) -> None:
    worker, one, other = world.worker(), world.consumer(b"one"), world.consumer(b"other")
    one.have(worker.send(1))
    one.die()
    late = worker.send(2)  # before it heard of it
    world.settle()
    other.have(worker.send(3))
    other.have(late)
    assert other.right
    assert [number for block in other.kept for _, number in block] == [3, 2]


def test_a_consumer_that_comes_back_reads_in_pools_again(world: World) -> None:
    worker, consumer = world.worker(), world.consumer()
    consumer.have(worker.send(1))
    kept = consumer.kept.copy()
    consumer.join()
    world.settle()
    for number in range(2, 30):
        consumer.have(worker.send(number))
        consumer.drop()
        world.settle()
    consumer.have(worker.send(2))
    assert set(consumer.ways) == {"pool"}
    assert (kept[0][0][0] == 1).all()


def test_a_worker_that_leaves_leaves_what_waits_until_the_last_of_it_is_read(world: World) -> None:
    worker, consumer = world.worker(), world.consumer()
    blocks = [worker.send(number) for number in range(3)]
    worker.leave()
    assert pools_left(world) == 1
    while blocks:
        consumer.have(blocks.pop(0))
        assert pools_left(world) == 1
    assert consumer.ways == ["pool"] * 3
    assert consumer.right
    consumer.drop()
    consumer.drop()
    assert pools_left(world) == 1
    consumer.drop()
    assert pools_left(world) == 0
    assert len(consumer.shared._views) == 1, "the broker's own"


def test_a_consumer_that_comes_after_the_worker_left_gets_its_blocks_through_its_socket(world: World) -> None:
    worker = world.worker()
    block = worker.send(5)
    worker.leave()
    late = world.consumer()
    late.have(block)
    assert late.ways == ["socket"]
    assert late.right


def test_a_worker_that_connects_again_builds_in_another_pool_and_the_first_ends_with_its_blocks(world: World) -> None:
    worker, consumer = world.worker(), world.consumer()
    before = worker.nonce
    block = worker.send(1)
    worker.join()
    world.settle()
    assert worker.nonce != before
    consumer.have(worker.send(2))
    consumer.have(block)
    assert consumer.right
    del block
    assert pools_left(world) == 2
    consumer.drop(1)
    assert pools_left(world) == 1


def test_a_consumer_that_mapped_a_pool_too_late_is_told_to_let_go_of_it(world: World) -> None:
    consumer, worker = world.consumer(), Worker(world, b"brief")
    world.workers[worker.connection] = worker
    worker.join()
    ((_, offer),) = world.memory.take_said()
    answer = consumer.shared.receive(offer)
    assert isinstance(answer, m.PoolMapped)
    assert answer.mapped
    worker.leave()
    assert pools_left(world) == 0
    world.memory.hear(consumer.connection, answer)
    world.settle()
    assert len(consumer.shared._views) == 1, "the broker's own"


def test_a_pool_that_is_told_of_twice_is_mapped_once(world: World) -> None:
    """So that what was lent of it is still told free."""
    worker, consumer = world.worker(), world.consumer()
    consumer.have(worker.send(1))
    pool = world.memory.pools._pools[worker.nonce]
    consumer.hear(m.PoolOffer(pool.view.path, pool.view.size, pool.view.nonce))
    consumer.drop()
    worker.sent.clear()
    world.settle()
    assert worker.used == 0


def test_a_consumer_that_says_hello_again_is_sent_no_places_until_it_has_mapped_them(world: World) -> None:
    """It has let go of all maps before; what asks for new ones may come a turn of the broker later."""
    worker, consumer = world.worker(), world.consumer()
    core = Core(BrokerConfig(), lambda: 0.0, memory=world.memory)
    assert world.memory.pools.maps(consumer.connection, worker.nonce)
    hello = m.ConsumerHello(b"s" * 16, "c", "host", 1, "default", "g", 50, "wait", 1, b"", received=0, done=0)
    core.receive(consumer.connection, m.encode(hello))
    assert not world.memory.pools.maps(consumer.connection, worker.nonce)
    consumer.join()
    world.settle()
    assert world.memory.pools.maps(consumer.connection, worker.nonce)


# ---------------------------------------------------------------------- who cannot map it


def test_a_consumer_elsewhere_gets_the_block_itself_in_pieces(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces_module, "PIECE", 256 << 10)
    worker, consumer = world.worker(), Consumer(world, b"far")
    world.consumers[consumer.connection] = consumer
    consumer.join("another machine")
    sizes = [len(frame) for frame in world.memory.framed(consumer.connection, delivery(), worker.send(3))]
    assert max(sizes) <= 256 << 10
    consumer.have(worker.send(4))
    assert consumer.ways == ["socket"]
    assert consumer.right


def delivery() -> m.Deliver:
    return m.Deliver(1, 1, 0, "w", again=False)


def test_a_consumer_that_cannot_map_the_pool_gets_the_block_through_its_socket(world: World) -> None:
    worker, consumer = world.worker(), Consumer(world, b"other")
    world.consumers[consumer.connection] = consumer
    consumer.join()
    for _, message in world.memory.take_said():
        assert isinstance(message, m.PoolOffer)
        world.memory.hear(consumer.connection, m.PoolMapped(message.nonce, mapped=False))
    block = worker.send(5)
    consumer.have(block)
    assert consumer.ways == ["socket"]
    assert consumer.right


def test_a_block_for_two_reaches_each_in_its_own_way(world: World) -> None:
    worker, here = world.worker(), world.consumer(b"here")
    far = Consumer(world, b"far")
    world.consumers[far.connection] = far
    far.join("another machine")
    block = worker.send(5, 6)
    for each in (here, far):
        each.have(block)
    assert [each.ways for each in (here, far)] == [["pool"], ["socket"]]
    assert all(each.right and len(each.kept[0]) == 2 for each in (here, far))


def test_one_pool_too_many_is_refused_and_its_worker_uses_the_socket(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools_module, "MOST", 2)
    one, _ = world.worker(b"one"), world.worker(b"two")
    third = world.worker(b"three")
    assert not third.shares
    assert third.memory.take(LARGE) is None
    one.leave()
    world.settle()
    third.join()
    assert third.shares


# ---------------------------------------------------------------------- all at once


@pytest.mark.parametrize("seed", range(8))
def test_whatever_happens_in_whatever_order_nothing_changes_under_a_reader(world: World, seed: int) -> None:
    chaos = Chaos(world, seed)
    for _ in range(500):
        chaos.happen()
        assert chaos.right
    assert all(sum(each.ways.count(way) for each in chaos.consumers) > 20 for way in ("pool", "own"))
    chaos.end()
    assert [worker.used for worker in chaos.workers] == [0, 0]
    assert world.used == 0
    assert pools_left(world) == 2

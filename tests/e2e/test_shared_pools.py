"""Owns the tests of workers' pools from end to end: real producers, brokers and trainers, cut off and killed."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import random
import signal
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from dfserve import RemoteDataZMQ
from dfserve.dataflow import DataFromList
from dfserve.sharing.pool_file import NAME
from dfserve.sharing.pool_view import PoolView
from dfserve.testing import LocalBroker

Start = Callable[..., Any]
LARGE = 150_000  # bytes of an array: several make a block that is built in a pool
QUEUE = "64MiB"
WHOLE = 2000


class Places(list[tuple[bytes, int]]):
    """The pool and the address of each frame that consumers of this process read in a worker's pool.

    Attributes:
        own: the same, in the broker's own pool.
    """

    def __init__(self) -> None:
        super().__init__()
        self.own: list[tuple[bytes, int]] = []

    @property
    def nonces(self) -> set[bytes]:
        return {nonce for nonce, _ in self}


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> Places:
    found = Places()
    frame = PoolView.frame

    def counted(self: PoolView, address: int, nbytes: int) -> Any:
        # A worker's is less than whole MiB: it is told of the budget less what is charged beside a block's bytes.
        (found if self.size % (1 << 20) else found.own).append((self.nonce, address))
        return frame(self, address, nbytes)

    monkeypatch.setattr(PoolView, "frame", counted)
    return found


class Reader:
    """Reads a stream, and keeps some of it until the end, when it must be as it was."""

    def __init__(self, source: RemoteDataZMQ, share: float = 0.02) -> None:
        self.source = iter(source)
        self.numbers: list[int] = []
        self.kept: list[Any] = []
        self._chance = random.Random(5)  # which are kept: no secret
        self._share = share

    def read(self, count: int = -1) -> None:
        """Read so many more, or all."""
        while count:
            try:
                number, array = next(self.source)
            except StopIteration:
                assert count < 0, f"{count} are missing"
                return
            count -= 1
            assert len(array) == LARGE
            assert (array == number % 256).all(), f"{number} arrived damaged"
            self.numbers.append(number)
            if self._chance.random() < self._share:
                self.kept.append((number, array))

    @property
    def right(self) -> bool:
        return bool(self.kept) and all((array == number % 256).all() for number, array in self.kept)


def consumer_of(address: str, **options: Any) -> RemoteDataZMQ:
    source = RemoteDataZMQ(address, bind=False, **{"timeout": 60, **options})
    source.reset_state()
    return source


def test_a_stream_is_read_where_it_was_built_and_what_is_kept_never_changes(
    pools: Places, run_broker: Start, produce: Start
) -> None:
    broker = run_broker("--queue-bytes", QUEUE)
    with consumer_of(broker.address) as source:
        produce(broker.address, "data-1", "--passes", "1", count=2 * WHOLE, nbytes=LARGE)
        reader = Reader(source)
        reader.read()
        on_wire, nbytes = (broker.total(f"dfserve_received_{what}bytes_total") for what in ("wire_", ""))
    assert reader.numbers == list(range(2 * WHOLE))
    assert reader.right
    assert on_wire < nbytes / 5, "only what was built before the pool was mapped"
    assert len(pools) > 50
    assert max(Counter(pools).values()) > 1, "places are used again"
    assert broker.bad() == {}


def test_a_trainer_that_hosts_its_broker_reads_in_pools_too(pools: Places, produce: Start) -> None:
    with RemoteDataZMQ("tcp://127.0.0.1:0", bind=True, timeout=60, queue_bytes=64 << 20) as source:
        source.reset_state()
        produce(source.endpoints[0], "data-1", "--passes", "1", count=WHOLE, nbytes=LARGE)
        reader = Reader(source)
        reader.read()
    assert reader.numbers == list(range(WHOLE))
    assert reader.right
    assert len(pools) > 30


def test_who_does_not_want_to_share_sends_all_through_the_socket(
    pools: Places, run_broker: Start, produce: Start
) -> None:
    broker = run_broker("--queue-bytes", QUEUE)
    with consumer_of(broker.address) as source:
        produce(broker.address, "data-1", "--passes", "1", "--no-shared-memory", count=500, nbytes=LARGE)
        reader = Reader(source)
        reader.read()
        on_wire, nbytes = (broker.total(f"dfserve_received_{what}bytes_total") for what in ("wire_", ""))
    assert reader.numbers == list(range(500))
    assert on_wire >= nbytes >= 500 * LARGE
    assert not pools
    assert len(pools.own) > 3, "the broker copies it for this consumer"


def test_several_workers_of_a_daemon_have_a_pool_each(pools: Places, run_broker: Start, produce: Start) -> None:
    broker = run_broker("--queue-bytes", QUEUE)
    with consumer_of(broker.address, min_producers=2) as source:
        flags = ("--workers", "2", "--passes", "1")
        produce(broker.address, "data-1", *flags, count=WHOLE, nbytes=LARGE)
        reader = Reader(source)
        reader.read()
    assert Counter(reader.numbers) == Counter(dict.fromkeys(range(WHOLE), 2))
    assert reader.right
    assert len(pools.nonces) == 2


@pytest.mark.parametrize("flags", [(), ("--no-shared-memory",)], ids=["built there", "copied there"])
def test_two_groups_read_the_same_memory(
    pools: Places, run_broker: Start, produce: Start, flags: tuple[str, ...]
) -> None:
    broker = run_broker("--queue-bytes", QUEUE)
    with consumer_of(broker.address, group="a") as one, consumer_of(broker.address, group="b") as other:
        produce(broker.address, "data-1", "--passes", "1", *flags, count=WHOLE, nbytes=LARGE)
        readers = Reader(one), Reader(other)
        for _ in range(5):
            for reader in readers:
                reader.read(100)
        read = pools.own if flags else pools
        lying = len(read)  # until both have mapped what they were told of
        for _ in range(WHOLE // 100 - 5):
            for reader in readers:
                reader.read(100)
        on_wire, nbytes = (broker.total(f"dfserve_received_{what}bytes_total") for what in ("wire_", ""))
    assert [reader.numbers for reader in readers] == [list(range(WHOLE))] * 2
    assert all(reader.right for reader in readers)
    assert (on_wire < nbytes / 4) is (not flags)
    assert len(read) - lying > 40
    assert len(set(read[lying:])) <= (len(read) - lying) / 2, "a place is read by both"


# ---------------------------------------------------------------------- who dies


def test_a_consumer_that_is_killed_while_it_reads_changes_nothing_for_the_others(
    pools: Places, run_broker: Start, produce: Start, start: Start
) -> None:
    broker = run_broker("--queue-bytes", QUEUE)
    victim = start("pipes.py", broker.address, "--group", "victim", "--hang-after", "300")
    victim.wait_until_said("ready")
    with consumer_of(broker.address) as source:
        produce(broker.address, "data-1", "--passes", "1", count=2 * WHOLE, nbytes=LARGE)
        reader = Reader(source, 0.1)
        reader.read(100)
        victim.wait_until_said("holding")
        while not pools:  # what comes before the pool is mapped comes through the socket
            reader.read(1)
        before = pools.nonces
        victim.kill()
        reader.read()
    assert reader.numbers == list(range(2 * WHOLE))
    assert reader.right
    assert len(before) == 1
    assert len(pools.nonces) == 2, "nobody knows what it was reading: that memory is not used again"


def test_what_a_killed_consumer_of_the_group_had_not_read_comes_to_the_others(
    pools: Places, run_broker: Start, produce: Start, start: Start
) -> None:
    broker = run_broker("--queue-bytes", QUEUE)
    victim = start("pipes.py", broker.address, "--hang-after", "40")
    victim.wait_until_said("ready")
    with consumer_of(broker.address) as source:
        produce(broker.address, "data-1", "--passes", "1", count=WHOLE, nbytes=LARGE)
        reader = Reader(source, 0.1)
        reader.read(100)
        victim.wait_until_said("holding")
        victim.kill()
        reader.read()
    theirs = {line[0] for line in victim.lines if isinstance(line, list)}
    assert {*reader.numbers, *theirs} == set(range(WHOLE))
    assert len(set(reader.numbers)) == len(reader.numbers)
    assert reader.right
    assert pools


def test_a_consumer_that_forks_frees_nothing_that_its_child_or_itself_reads(
    pools: Places, run_broker: Start, produce: Start
) -> None:
    broker = run_broker("--queue-bytes", QUEUE)
    with consumer_of(broker.address) as source:
        produce(broker.address, "data-1", "--passes", "1", count=WHOLE, nbytes=LARGE)
        reader = Reader(source, 0.2)
        reader.read(300)
        assert pools
        asks, answers = os.pipe()
        child = os.fork()
        if not child:
            os.close(answers)
            os.read(asks, 1)  # until its parent has read all
            os._exit(0 if reader.right else 1)
        other = os.fork()  # whose end comes at once
        if not other:
            right = reader.right
            reader.kept.clear()
            gc.collect()
            os._exit(0 if right else 1)
        os.close(asks)
        assert os.waitpid(other, 0)[1] == 0
        reader.read()
        os.close(answers)
        assert os.waitpid(child, 0)[1] == 0
    assert reader.numbers == list(range(WHOLE))
    assert reader.right


def test_blocks_of_a_worker_that_was_killed_wait_in_its_memory_and_arrive_intact(
    pools: Places, run_broker: Start, produce: Start, until: Start
) -> None:
    broker = run_broker("--queue-bytes", QUEUE)
    before = set(Path("/dev/shm").glob("*dfserve*"))
    with consumer_of(broker.address) as source:
        producer = produce(broker.address, "data-1", count=100_000, nbytes=LARGE)
        reader = Reader(source)
        reader.read(50)
        broker.wait_for("dfserve_queue_bytes", 40 << 20)
        (worker,) = until(producer.children, "a worker")
        producer.signal(signal.SIGSTOP)  # or it would start another
        worker.kill()
        psutil.wait_procs([worker], timeout=0.1)
        waiting = int(broker.total("dfserve_datapoints_received_total")) - 50
        count = len(pools)
        reader.read(waiting)
        producer.kill()
    assert waiting > 200
    assert reader.numbers == list(range(50 + waiting))
    assert len(pools) > count + 5
    left = set(Path("/dev/shm").glob("*dfserve*")) - before  # or another test's, which end by themselves
    until(lambda: not left & set(Path("/dev/shm").glob("*dfserve*")), f"{left} to be gone")


def test_a_broker_that_died_is_followed_by_one_that_maps_new_pools(
    pools: Places, dfserve: Start, tcp_address: str, tmp_path: Path
) -> None:
    arguments = ("broker", "--bind", tcp_address, "--ledger", str(tmp_path / "ledger"))
    broker = dfserve(*arguments)
    broker.wait_until_said("broker ready")
    with RemoteDataZMQ(tcp_address, bind=False, mode="epochs", order="strict", split_size=16, timeout=60) as source:
        source.reset_state()
        producer = dfserve("produce", "pipes:pictures", "--to", tcp_address)
        kept = [next(source) for _ in range(300)]  # 16 MiB of 25 may come before the pool is mapped
        before = pools.nonces
        broker.kill()
        broker = dfserve(*arguments)
        broker.wait_until_said("broker ready")
        kept += list(source)
        kept += list(source)  # another epoch, in the second one's memory
    assert before
    assert pools.nonces - before
    assert Counter(n for _, n in kept) == Counter(dict.fromkeys(range(400), 2))
    assert all((array == n % 256).all() for array, n in kept)
    producer.kill()


def test_a_worker_whose_connection_is_cut_builds_in_other_pools_and_loses_nothing(
    pools: Places, run_broker: Start, produce: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    broker = run_broker("--queue-bytes", QUEUE)
    proxy = importlib.import_module("proxy").Proxy(broker.port)
    produce(f"tcp://127.0.0.1:{proxy.port}", "data-1", "--passes", "1", count=3 * WHOLE, nbytes=LARGE)
    try:
        with consumer_of(broker.address) as source:
            reader = Reader(source)
            for _ in range(3):
                reader.read(WHOLE // 2)
                proxy.cut()
            reader.read()
    finally:
        proxy.close()
    assert reader.numbers == list(range(3 * WHOLE))
    assert reader.right
    assert len(pools.nonces) >= 2
    assert broker.bad() == {}


@pytest.mark.parametrize("memory", ["the worker's", "the broker's", "none"])
def test_a_consumer_whose_connection_is_cut_reads_on_and_keeps_what_it_has(
    pools: Places, run_broker: Start, produce: Start, monkeypatch: pytest.MonkeyPatch, memory: str
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    if memory == "none":
        monkeypatch.setattr("dfserve.client.machine", lambda: "another one")
    broker = run_broker("--queue-bytes", QUEUE)
    proxy = importlib.import_module("proxy").Proxy(broker.port)
    flags = () if memory == "the worker's" else ("--no-shared-memory",)
    try:
        with consumer_of(f"tcp://127.0.0.1:{proxy.port}") as source:
            produce(broker.address, "data-1", "--passes", "1", *flags, count=3 * WHOLE, nbytes=LARGE)
            reader = Reader(source, 0.05)
            for _ in range(4):
                reader.read(WHOLE // 2)
                proxy.cut()
            reader.read()
            errors = source.errors
    finally:
        proxy.close()
    assert reader.numbers == list(range(3 * WHOLE))
    assert reader.right
    read = pools if memory == "the worker's" else pools.own
    assert (len({nonce for nonce, _ in read}) >= 2) is (memory != "none"), "what was under way is in doubt"
    assert errors == 0
    assert broker.bad() == {}


# ---------------------------------------------------------------------- epochs


def test_an_epoch_in_strict_order_has_each_item_once_though_workers_die(
    pools: Places, rig: Any, until: Start, metrics_port: int
) -> None:
    n = 1500
    # A small queue, so that most of the epoch is still to be made when the next worker is there.
    source, address = rig.hosting(queue_bytes=64 << 20, split_size=16, order="strict", metrics_port=metrics_port)
    producer = rig.produce(address, workers=2, n=n, nbytes=LARGE)

    def both_are_connected() -> bool:
        return bool(rig.metric(metrics_port, "dfserve_producers") == 2)

    def kill() -> None:
        until(both_are_connected, "both workers")
        victim = until(producer.children, "a worker")[0]
        with contextlib.suppress(psutil.NoSuchProcess):  # it may be gone by itself
            victim.kill()
        until(lambda: len([each for each in producer.children() if each != victim]) == 2, "another worker")
        until(both_are_connected, "its connection")

    rows = rig.read(source, {300: kill, 900: kill})
    assert rig.multiset(rows) == rig.whole(n)
    assert len(pools.nonces) >= 3
    again = rig.read(source)
    assert [row[0] for row in again] != [row[0] for row in rows] or rig.digest(rows)
    assert rig.multiset(again) == rig.whole(n)


def pool_bytes() -> int:
    """What the system has given for pools that this process has open."""
    found = {}
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if NAME in str(each.readlink()):
                status = each.stat()
                found[status.st_ino] = status.st_blocks * 512
    return sum(found.values())


def items(count: int) -> DataFromList:
    return DataFromList([[number, np.full(LARGE, number % 256, np.uint8)] for number in range(count)], shuffle=False)


def right(datapoints: Iterable[Any]) -> bool:
    return all((array == number % 256).all() for number, array in datapoints)


def test_memory_is_returned_when_what_was_kept_is_not_and_nothing_is_left_in_the_end(
    pools: Places, until: Start
) -> None:
    gc.collect()
    names, before = set(Path("/dev/shm").glob("*dfserve*")), pool_bytes()
    options = {"mode": "epochs", "shuffle": False, "order": "strict", "split_size": 16}
    small = LocalBroker(queue_bytes=32 << 20)
    with small as broker, broker.serving(items(800)), broker.consumer(**options) as source:
        assert right(source)  # of which some may come before the pool is mapped
        kept = list(source)
        assert right(kept)
        assert [number for number, _ in kept] == list(range(800))
        assert pool_bytes() - before > 100 << 20
        kept.clear()
        gc.collect()
        assert right(source)
        until(lambda: pool_bytes() - before < 60 << 20, "the pool to shrink")
        kept = [datapoint for datapoint, _ in zip(source, range(50), strict=False)]
        assert pools
    gc.collect()
    assert right(kept)
    kept.clear()
    del source, broker, small
    until(lambda: gc.collect() is not None and pool_bytes() <= before, "pools to be gone")
    left = set(Path("/dev/shm").glob("*dfserve*")) - names  # or another test's, which end by themselves
    until(lambda: not left & set(Path("/dev/shm").glob("*dfserve*")), f"{left} to be gone")


def test_a_process_that_hosts_a_broker_may_fork_while_blocks_wait(pools: Places) -> None:
    """What the broker has not delivered yet lies in its worker's memory, and must stay there."""
    with (
        LocalBroker() as broker,
        broker.serving(items(400)),
        broker.consumer(mode="epochs", shuffle=False, order="strict", split_size=8) as source,
    ):
        for _ in range(3):
            kept = []
            for count, datapoint in enumerate(source):
                kept.append(datapoint)
                if count % 100 == 50:
                    child = os.fork()
                    if not child:
                        os._exit(0 if right(kept) else 1)
                    assert os.waitpid(child, 0)[1] == 0
            assert [number for number, _ in kept] == list(range(400))
            assert right(kept)
    assert pools

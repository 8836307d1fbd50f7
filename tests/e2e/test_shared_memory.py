"""Owns the tests of the last hop through shared memory: real brokers, trainers that keep, fork and die."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dfserve import RemoteDataZMQ
from dfserve.broker import server
from dfserve.dataflow import DataFromList
from dfserve.sharing.blocks import SharedBlocks
from dfserve.testing import LocalBroker
from dfserve.wire.copies import writable
from dfserve.wire.placement import unpack_place

MANY = 60  # datapoints of 64 KB


def pictures(count: int = MANY) -> DataFromList:
    return DataFromList([[np.full((256, 256), n % 256, np.uint8), n] for n in range(count)], shuffle=False)


def right(datapoints: list[Any], count: int = MANY) -> bool:
    return [n for _, n in datapoints] == list(range(count)) and all((array == n % 256).all() for array, n in datapoints)


def places(datapoints: list[Any]) -> set[int]:
    return {array.ctypes.data for array, _ in datapoints}


@pytest.fixture
def maps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The addresses of all places that consumers of this process were told of."""
    found: list[int] = []
    frames = SharedBlocks.frames

    def counted(self: SharedBlocks, block: Any) -> Any:
        found.extend(span[0] for span in unpack_place(bytes(block[0])).spans if span)
        return frames(self, block)

    monkeypatch.setattr(SharedBlocks, "frames", counted)
    return found


def epochs(broker: LocalBroker, **more: Any) -> RemoteDataZMQ:
    return broker.consumer(**{"mode": "epochs", "shuffle": False, "order": "strict", "split_size": 4, **more})


def test_blocks_come_through_shared_memory_and_what_is_kept_stays_as_it_was(maps: list[int]) -> None:
    with LocalBroker() as broker, broker.serving(pictures()), epochs(broker) as source:
        assert right(list(source))  # of which some may have come before the memory was mapped
        kept = list(source)
        assert right(kept)
        again = list(source)
        assert right(kept)
        assert right(again)
        assert len(maps) >= 2 * MANY // 4
        assert not places(kept) & places(again), "elsewhere: the first are in use"
    gc.collect()
    assert right(kept)


def test_memory_that_is_not_kept_is_used_again(maps: list[int]) -> None:
    with LocalBroker() as broker, broker.serving(pictures(1200)), epochs(broker) as source:
        for array, n in source:
            assert (array == n % 256).all()
    assert len(maps) >= 200  # of 300: what comes before it is mapped, 16 MiB at most, does not lie there
    assert len(set(maps)) < 150  # as many as were under way: 16 MiB of 80


def test_a_consumer_that_keeps_all_gets_the_rest_by_its_socket(
    maps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "BESIDE", 0)
    with LocalBroker(queue_bytes=8 << 20) as broker, broker.serving(pictures(400)), epochs(broker) as source:
        assert right(list(source), 400)
    assert 0 < len(maps) < 100


def test_received_arrays_are_read_only_and_a_writable_copy_is_one_call_away() -> None:
    with LocalBroker() as broker, broker.serving(pictures()), epochs(broker) as source:
        datapoint = next(iter(source))
        with pytest.raises(ValueError, match="read-only"):
            datapoint[0][0, 0] = 1
        copy = writable(datapoint)
        copy[0][0, 0] = 1
        assert datapoint[0][0, 0] == 0


HOST = """
import time
import numpy as np
from dfserve.dataflow import DataFromList
from dfserve.sharing.blocks import SharedBlocks
from dfserve.testing import LocalBroker
pictures = DataFromList([[np.full((256, 256), n, np.uint8), n] for n in range(60)], shuffle=False)
with LocalBroker() as broker, broker.serving(pictures), broker.consumer(mode="epochs", split_size=4) as source:
    kept = [next(source) for _ in range(10)]
    print("ready", flush=True)
    time.sleep(600)
"""


def _names() -> set[Path]:
    return set(Path("/dev/shm").glob("*dfserve*"))


def test_nothing_is_left_behind_by_a_trainer_or_a_broker_that_is_killed() -> None:
    before = _names()
    with subprocess.Popen(
        [sys.executable, "-c", HOST],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as host:
        assert host.stdout is not None
        assert host.stdout.readline().strip() == "ready"
        assert _names() <= before  # it never has a name
        host.send_signal(signal.SIGKILL)
        host.wait()
    assert _names() <= before


def test_a_broker_that_died_is_followed_by_one_with_memory_of_its_own(
    maps: list[int], dfserve: Any, tcp_address: str, tmp_path: Path
) -> None:
    arguments = ("broker", "--bind", tcp_address, "--ledger", str(tmp_path / "ledger"))
    broker = dfserve(*arguments)
    broker.wait_until_said("broker ready")
    with RemoteDataZMQ(tcp_address, bind=False, mode="epochs", order="strict", split_size=16, timeout=60) as source:
        source.reset_state()
        producer = dfserve("produce", "pipes:pictures", "--to", tcp_address, "--no-shared-memory")
        kept = [next(source) for _ in range(300)]  # 16 MiB of 25 may come before the memory is mapped
        before = len(maps)
        assert before
        broker.kill()
        broker = dfserve(*arguments)
        broker.wait_until_said("broker ready")
        kept += list(source)
        kept += list(source)  # another epoch, in the second one's memory
    assert len(maps) > before
    assert Counter(n for _, n in kept) == Counter(dict.fromkeys(range(400), 2))
    assert all((array == n % 256).all() for array, n in kept)
    producer.kill()

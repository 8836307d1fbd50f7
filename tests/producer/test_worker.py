"""Owns the tests of what runs in a worker process: how it begins, and how it ends."""

from __future__ import annotations

import os
import random
import signal
import sys
import types
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dfserve import PipelineError
from dfserve.dataflow import DataFlow, DataFromList, MapData
from dfserve.dataflow.adapt import as_dataflow
from dfserve.producer.board import Board
from dfserve.producer.send import introduce
from dfserve.producer.uplink import Uplink
from dfserve.producer.worker import DONE, NOT_DRAINED, RAISED, Task, work
from dfserve.testing import LocalBroker
from dfserve.wire import epoch_messages as e
from dfserve.wire import messages as m

Until = Callable[..., Any]

# The supervisor has no thread when it forks; this process has the broker's, which the child never touches.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


@pytest.fixture
def broker() -> Iterator[LocalBroker]:
    with LocalBroker(queue_bytes=2 << 20) as broker:
        yield broker


def start(address: str, pipeline: Any, passes: int | None = 1, grace: float = 30.0, slot: int = 0) -> tuple[int, Board]:
    """Fork a worker as the supervisor does; returns its pid and the board it counts on."""
    board, parent = Board(slot + 1), os.getpid()
    build = pipeline if callable(pipeline) else partial(as_dataflow, pipeline)
    task = Task([(introduce(str(slot), "default", passes), build)], Uplink(address), slot, passes, grace)
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            status = work(task, board, parent)
        finally:
            os._exit(status)
    return pid, board


def end_of(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Probe(DataFlow):
    """Yields what the process it runs in looks like."""

    def __init__(self, look: Callable[[], Any]) -> None:
        self.look = look

    def __iter__(self) -> Iterator[Any]:
        yield [self.look()]


def seen_by_worker(broker: LocalBroker, look: Callable[[], Any]) -> Any:
    pid, _ = start(broker.address, Probe(look))
    with broker.consumer() as consumer:
        ((found,),) = list(consumer)
    assert end_of(pid) == DONE
    return found


def test_a_worker_that_sent_its_passes_has_counted_them_and_exits_well(broker: LocalBroker) -> None:
    pid, board = start(broker.address, DataFromList([[1], [2], [3]]), passes=2)
    assert end_of(pid) == DONE
    counters = board.read(0)
    assert (counters.datapoints, counters.passes) == (6, 2)
    assert counters.nbytes == broker.metrics()["dfserve_received_bytes_total"] > 0


def test_a_worker_whose_pipeline_raises_says_so_by_its_status(broker: LocalBroker) -> None:
    pid, board = start(broker.address, (1 // (1 - number) for number in range(3)))
    assert end_of(pid) == RAISED
    assert board.read(0).datapoints == 1


def test_an_item_that_asks_for_the_end_of_the_process_is_answered_as_a_failure_and_the_worker_goes_on(
    fake_broker: Callable[..., Any],
) -> None:
    def leaves(datapoint: Any) -> Any:
        if datapoint == [1]:
            sys.exit("usage: nobody's")
        return datapoint

    broker = fake_broker()
    pid, _ = start(broker.address, MapData(DataFromList([[0], [1], [2], [3]], shuffle=False), leaves), passes=None)
    broker.lease(split=0)
    failed = broker.hear(e.NotMade)
    assert (failed.key, failed.kind, failed.text) == ("1", "SystemExit", "usage: nobody's")
    assert "in leaves" in failed.traceback
    broker.lease(split=1)
    assert broker.hear_block(e.Made)[1] == [[2], [3]]
    os.kill(pid, signal.SIGTERM)
    assert end_of(pid) == DONE


def test_a_stream_that_asks_for_the_end_of_the_process_is_reported(broker: LocalBroker) -> None:
    with broker.consumer() as consumer:
        pid, _ = start(broker.address, Probe(lambda: sys.exit("usage: nobody's")))
        with pytest.raises(PipelineError, match=r"SystemExit at item 0 on .*: usage: nobody's"):
            next(consumer)
    assert end_of(pid) == RAISED


def test_a_worker_that_a_broker_refuses_says_so_by_its_status(broker: LocalBroker) -> None:
    pid, _ = start(broker.address, [[np.zeros(4 << 20, np.uint8)]])
    assert end_of(pid) == RAISED


def test_a_worker_of_an_endless_stream_hands_over_what_it_has_when_told_to_stop(broker: LocalBroker) -> None:
    pid, board = start(broker.address, DataFromList([[1]]), passes=None)
    with broker.consumer() as consumer:
        assert next(consumer) == [1]
        os.kill(pid, signal.SIGTERM)
        assert end_of(pid) == DONE
    assert broker.metrics()["dfserve_datapoints_received_total"] == board.read(0).datapoints


def test_a_signal_that_comes_before_the_worker_listens_is_not_lost(broker: LocalBroker) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # as the supervisor does
    try:
        pid, _ = start(broker.address, DataFromList([[1]]), passes=None)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    os.kill(pid, signal.SIGTERM)
    assert end_of(pid) == DONE


def test_a_worker_that_is_stopped_in_a_pass_and_cannot_hand_over_says_so_by_its_status() -> None:
    endless = DataFromList([[np.zeros(400_000, np.uint8)]] * 1000)
    with LocalBroker(queue_bytes=1 << 20) as broker:
        pid, _ = start(broker.address, endless, passes=1, grace=0.1)
        with broker.consumer() as consumer:
            next(consumer)
            os.kill(pid, signal.SIGTERM)
            assert end_of(pid) == NOT_DRAINED


def test_a_worker_told_to_stop_ends_when_what_it_has_made_is_taken(fake_broker: Callable[..., Any]) -> None:
    broker = fake_broker()
    pid, board = start(broker.address, DataFromList([[number] for number in range(10)], shuffle=False), passes=None)
    numbers = [broker.lease(split) for split in range(3)]
    for number in numbers:
        made, block = broker.hear_block(e.Made)
        assert (made.lease, len(block)) == (number, 2)
    os.kill(pid, signal.SIGTERM)
    broker.say(e.Taken(numbers))
    broker.hear(m.Bye)
    assert end_of(pid) == DONE
    assert board.read(0).datapoints == 6
    assert board.read(0).nbytes > 0
    assert board.place(0) is None


def test_a_worker_told_to_stop_does_not_hand_over_what_it_made_before_anybody_asked_and_nobody_wants(
    fake_broker: Callable[..., Any],
) -> None:
    broker = fake_broker(streams=["default"])
    broker.stingy = True
    pid, _ = start(broker.address, DataFromList([[number] for number in range(10)]), passes=None, grace=1000)
    broker.hear(m.Offer)
    broker.want_stream("default", False)
    broker.say(e.Describe())
    broker.hear(e.Source)
    os.kill(pid, signal.SIGTERM)
    broker.hear(m.Bye)
    assert end_of(pid) == DONE


def test_a_worker_told_to_stop_does_not_wait_for_a_broker_that_is_gone_to_take_what_others_can_make_again(
    fake_broker: Callable[..., Any],
) -> None:
    broker = fake_broker()
    pid, _ = start(broker.address, DataFromList([[number] for number in range(10)]), passes=None, grace=1000)
    broker.lease(0)
    broker.hear(e.Made)
    broker.leave()
    os.kill(pid, signal.SIGTERM)
    assert end_of(pid) == DONE


class Torch:
    """What a worker has to do with torch."""

    def __init__(self) -> None:
        self.threads, self.seeds = 8, list[int]()
        self.default_generator = types.SimpleNamespace(manual_seed=self.seeds.append)

    def set_num_threads(self, count: int) -> None:
        self.threads = count


@pytest.mark.parametrize("loaded", ["before the fork", "by the factory"])
def test_a_worker_has_one_thread_of_torch_and_random_numbers_of_its_own_there(
    broker: LocalBroker, monkeypatch: pytest.MonkeyPatch, loaded: str
) -> None:
    torch = Torch()
    monkeypatch.setitem(sys.modules, "torch", torch if loaded == "before the fork" else None)

    def build() -> Any:
        sys.modules["torch"] = torch
        return Probe(lambda: [torch.threads, *torch.seeds])

    found = []
    for slot in range(2):
        pid, _ = start(broker.address, build, slot=slot)
        with broker.consumer() as consumer:
            ((seen,),) = list(consumer)
        assert end_of(pid) == DONE
        found.append(seen)
    (threads, *seeds), (_, *others) = found
    assert (threads, len(seeds), len(others)) == (1, 1, 1)
    assert seeds != others


def test_a_worker_has_random_numbers_of_its_own(broker: LocalBroker) -> None:
    random.seed(1)
    np.random.seed(1)
    expected = [random.random(), float(np.random.random())]
    random.seed(1)
    np.random.seed(1)
    found = seen_by_worker(broker, lambda: [random.random(), float(np.random.random())])
    assert found[0] != expected[0]
    assert found[1] != expected[1]


def test_ctrl_c_is_the_supervisors_to_handle(broker: LocalBroker) -> None:
    assert seen_by_worker(broker, lambda: signal.getsignal(signal.SIGINT) is signal.SIG_IGN) is True


def test_a_worker_dies_with_its_supervisor(broker: LocalBroker, until: Until) -> None:
    read, write = os.pipe()
    supervisor = os.fork()
    if supervisor == 0:
        pid, _ = start(broker.address, DataFromList([[1]]), passes=None)
        os.write(write, f"{pid}\n".encode())
        signal.pause()
    os.close(write)
    with os.fdopen(read) as line:
        worker = int(line.readline())
    until(lambda: broker.metrics()["dfserve_producers"] == 1, "the worker")
    os.kill(supervisor, signal.SIGKILL)
    os.waitpid(supervisor, 0)
    until(lambda: not alive(worker), "the worker's end")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # the latter where it ends between the opening and the reading
        return False

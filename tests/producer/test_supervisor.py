"""Owns the tests of the producer daemon's processes: what is restarted, when it gives up, and how it ends."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dfserve.testing import LocalBroker
from dfserve.wire import epoch_messages as e
from dfserve.wire import messages as m

Start = Callable[..., Any]
Until = Callable[..., Any]

# A daemon as `dfserve produce` makes it, with pauses that a test can wait for.
DAEMON = """
import sys
from dfserve.dataflow.adapt import as_dataflow
from dfserve.logs import set_up_logging
from dfserve.producer import supervisor
from dfserve.producer.board import Board
from dfserve.producer.uplink import Uplink

supervisor.BACKOFF, supervisor.BACKOFF_MAX, supervisor.GIVE_UP = 0.05, 0.2, {give_up}
supervisor.OBITUARY_MS = 30_000  # for a broker that is late, in a thread of the test
set_up_logging("info")
{pipeline}
pipeline = pipeline if isinstance(pipeline, dict) else as_dataflow(pipeline)
plan = supervisor.Plan(pipeline, Uplink({address!r}), workers={workers}, passes={passes}, grace={grace})
sys.exit(supervisor.Supervisor(plan, Board({workers})).run())
"""
NUMBERS = "pipeline = [[number] for number in range(10)]"
RAISES = "pipeline = [[1], None]"
KILLED = "import os, signal\nclass P:\n  def __iter__(self):\n    os.kill(os.getpid(), signal.SIGKILL)\npipeline = P()"
# Slow to stop: it never looks up from what it does.
BUSY = "import time\nclass P:\n  def __iter__(self):\n    yield [1]\n    time.sleep(1000)\npipeline = P()"
# A factory's files, of which so many are open that select() would not know the number of the next.
MANY_FILES = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (2048, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
files = [open("/dev/null") for _ in range(1100)]
"""
# Two pipelines, of which one kills its worker at the item 7.
POISONED = """
import os, signal
from dfserve.dataflow import DataFromList, MapData

def take(datapoint):
    if datapoint[0] == 7:
        {death}
    return datapoint

numbers = DataFromList([[number] for number in range(10)])
pipeline = {{"harmless": lambda: numbers, "poisoned": lambda: MapData(numbers, take)}}
"""


@pytest.fixture
def broker() -> Iterator[LocalBroker]:
    with LocalBroker() as broker:
        yield broker


@pytest.fixture
def daemon(start: Start, broker: LocalBroker) -> Start:
    def run(pipeline: str, *, address: str = broker.address, **changes: Any) -> Any:
        values = {"workers": 1, "passes": None, "grace": 20, "give_up": 3} | changes
        return start("-c", DAEMON.format(pipeline=pipeline, address=address, **values))

    return run


def logged(program: Any) -> list[str]:
    return [line["message"] for line in program.lines]


def pids(program: Any) -> list[int]:
    """The pids of the workers in the order in which they were started."""
    return [int(text.rpartition("pid ")[2].rstrip(")")) for text in logged(program) if "(pid " in text]


def test_workers_that_send_their_passes_end_the_daemon_well(daemon: Start, broker: LocalBroker) -> None:
    program = daemon(NUMBERS, workers=2, passes=3)
    with broker.consumer(min_producers=2) as consumer:
        assert sorted(number for (number,) in consumer) == sorted(list(range(10)) * 6)
    assert program.wait() == 0


@pytest.mark.parametrize(("signum", "name"), [(9, "SIGKILL"), (40, "signal 40")])
def test_a_killed_worker_of_an_endless_stream_is_named_and_started_again(
    daemon: Start, broker: LocalBroker, until: Until, signum: int, name: str
) -> None:
    program = daemon(NUMBERS)
    with broker.consumer() as consumer:
        next(consumer)
        until(lambda: pids(program), "the first worker")
        os.kill(pids(program)[0], signum)
        program.wait_until_said(f"killed by {name}")
        until(lambda: len(pids(program)) == 2, "the second worker")
        until(lambda: broker.metrics()["dfserve_producer_restarts"] == 1, "news of the restart")
        until(lambda: broker.metrics()["dfserve_errors_total"] == 1, "news of the death, from the daemon itself")
        next(consumer)
        program.signal(signal.SIGTERM)
        assert program.wait() == 0


def test_a_killed_worker_of_a_finite_pass_is_not_started_again_and_the_consumer_is_told(
    daemon: Start, broker: LocalBroker, until: Until
) -> None:
    from dfserve import WorkerLost

    with broker.consumer() as consumer:
        consumer.reset_state()
        program = daemon(BUSY, passes=1)
        assert next(consumer) == [1]
        os.kill(until(lambda: pids(program), "the worker")[0], signal.SIGKILL)
        with pytest.raises(WorkerLost, match="killed by SIGKILL"):
            next(consumer)
    assert program.wait() == 4
    assert len(pids(program)) == 1


def test_one_that_dies_again_and_again_is_started_later_and_later_and_then_given_up(
    daemon: Start, broker: LocalBroker
) -> None:
    with broker.consumer() as consumer:
        consumer.reset_state()
        program = daemon(KILLED, give_up=4)
        assert program.wait() == 4
    assert len(pids(program)) == 4
    assert any("has died 4 times in a row; giving it up" in text for text in logged(program))


def test_one_that_dies_before_any_trainer_came_waits_for_one_and_is_there_for_it(
    daemon: Start, broker: LocalBroker, until: Until
) -> None:
    single = POISONED.format(death="raise ValueError") + "pipeline = pipeline['poisoned']()"
    program = daemon(single, give_up=2)  # a second death would be the end
    until(lambda: len(pids(program)) == 2, "the second worker")
    until(lambda: broker.metrics()["dfserve_producer_restarts"] == 1, "news of the restart")
    with broker.consumer(mode="epochs", on_error="skip") as consumer:
        assert sorted(number for (number,) in consumer) == [0, 1, 2, 3, 4, 5, 6, 8, 9]
    program.signal(signal.SIGTERM)
    assert program.wait() == 0


@pytest.mark.parametrize("death", ["os._exit(0)", "sys.exit(0)"])
def test_an_item_that_ends_its_worker_well_is_found_too(daemon: Start, broker: LocalBroker, death: str) -> None:
    pipelines = POISONED.format(death=f"import sys; {death}")
    program = daemon(pipelines + "del pipeline['harmless']\n", give_up=9)
    with broker.consumer(mode="epochs", pipeline="poisoned", on_error="skip") as consumer:
        assert sorted(number for (number,) in consumer) == [0, 1, 2, 3, 4, 5, 6, 8, 9]
        assert consumer.errors == 1
    program.signal(signal.SIGTERM)
    assert program.wait() == 0


def test_a_worker_of_an_endless_stream_that_ends_well_untold_has_died(daemon: Start, broker: LocalBroker) -> None:
    program = daemon(KILLED.replace("os.kill(os.getpid(), signal.SIGKILL)", "os._exit(0)"), give_up=2)
    with broker.consumer() as consumer:
        consumer.reset_state()
        assert program.wait() == 3, "it was given up"
    assert len(pids(program)) == 2
    assert any(text.endswith("s: exit status 0") for text in logged(program))


def test_a_pipeline_that_raises_in_a_finite_pass_gives_the_status_for_it(daemon: Start) -> None:
    program = daemon(RAISES, passes=1)
    assert program.wait() == 3
    assert "item 1 of the pipeline is None" in program.output


def test_one_that_is_told_to_stop_before_its_passes_were_sent_has_not_done_them(daemon: Start) -> None:
    hasty = "from dfserve.producer import sender\nsender.PATIENCE = 0.1\n"
    program = daemon(hasty + NUMBERS, address="ipc://@nobody-is-here", passes=1)
    program.wait_until_said("no broker answers")
    program.signal(signal.SIGTERM)
    assert program.wait() == 5
    assert program.said("told to stop after 0 of 1 passes")


def test_the_first_signal_drains(daemon: Start, broker: LocalBroker) -> None:
    program = daemon(NUMBERS, workers=2)
    with broker.consumer() as consumer:
        next(consumer)
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
    assert program.said("stopping")


def test_the_second_signal_forces(daemon: Start, broker: LocalBroker, until: Until) -> None:
    program = daemon(BUSY, grace=1000)
    until(lambda: broker.metrics()["dfserve_datapoints_received_total"], "the first datapoint")
    program.signal(signal.SIGTERM)
    program.wait_until_said("stopping")
    program.signal(signal.SIGTERM)
    assert program.wait() == 4
    assert program.said("second signal")


def test_the_end_of_the_grace_forces(daemon: Start, broker: LocalBroker, until: Until) -> None:
    program = daemon("from dfserve.producer import supervisor\nsupervisor.MARGIN = 0.1\n" + BUSY, grace=0.1)
    until(lambda: broker.metrics()["dfserve_datapoints_received_total"], "the first datapoint")
    program.signal(signal.SIGTERM)
    assert program.wait() == 4
    assert program.said("grace is over")


def test_the_pipeline_is_built_once_and_not_once_a_worker(daemon: Start, broker: LocalBroker) -> None:
    program = daemon("print('{\"built\": true}')\n" + NUMBERS, workers=3, passes=1)
    with broker.consumer(min_producers=3) as consumer:
        assert len(list(consumer)) == 30
    assert program.wait() == 0
    assert program.output.count(json.dumps({"built": True})) == 1


def test_a_factory_may_open_more_than_a_thousand_files(daemon: Start, broker: LocalBroker) -> None:
    program = daemon(MANY_FILES + NUMBERS, passes=1)
    with broker.consumer() as consumer:
        assert len(list(consumer)) == 10
    assert program.wait() == 0


@pytest.mark.parametrize(
    ("death", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "killed by SIGKILL"),
        ("os._exit(9)", "exit status 9"),
        ("os._exit(0)", "exit status 0"),
    ],
)
def test_the_obituary_of_a_worker_says_at_which_item_it_died(
    daemon: Start, fake_broker: Callable[..., Any], death: str, reason: str
) -> None:
    broker = fake_broker()
    program = daemon(POISONED.format(death=death), address=broker.address)
    broker.lease(0, "harmless", first=0, count=10)
    broker.hear(e.Made, pipeline="harmless")
    broker.await_welcome("poisoned")
    sessions = {name: broker.hellos[name].session for name in ("harmless", "poisoned")}
    broker.lease(0, "poisoned", epoch=3, first=4, count=5)
    died = {obituary.pipeline: obituary for obituary in (broker.hear(m.Obituary, pipeline="") for _ in range(2))}
    assert died == {
        "harmless": m.Obituary(sessions["harmless"], reason, [], "harmless"),
        "poisoned": m.Obituary(sessions["poisoned"], reason, [3, 7], "poisoned"),
    }
    while broker.hellos["poisoned"].session == sessions["poisoned"]:
        broker.turn()
    os.kill(broker.hellos["poisoned"].pid, signal.SIGKILL)
    died = {obituary.pipeline: obituary.at for obituary in (broker.hear(m.Obituary, pipeline="") for _ in range(2))}
    assert died == {"harmless": [], "poisoned": []}, "the next one was not at that item"
    program.signal(signal.SIGTERM)
    program.wait()

"""Owns the tests of RemoteDataZMQ against the real broker: its arguments, its errors, and that it is a DataFlow."""

from __future__ import annotations

import copy
import gc
import json
import logging
import os
import pickle
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

import dfserve
from dfserve import (
    AddressInUse,
    ConfigError,
    DatapointError,
    EncodeError,
    EndpointError,
    PipelineError,
    RemoteDataZMQ,
    Starved,
    TooManyErrors,
    WorkerLost,
)
from dfserve.dataflow import BatchData, DataFlow, DataFromList, SkipErrors
from dfserve.producer import sender as sender_module
from dfserve.producer.reports import fail_message
from dfserve.producer.send import introduce
from dfserve.producer.sender import Sender
from dfserve.producer.uplink import Uplink
from dfserve.testing import LocalBroker
from dfserve.wire.blocks import Rows

SHORT = 0.3  # seconds: a timeout that a test waits for
ANSWERED = 6.0  # seconds: the same, where a broker must have answered by then


@pytest.fixture
def broker() -> Iterator[LocalBroker]:
    with LocalBroker() as broker:
        yield broker


@contextmanager
def producer(broker: LocalBroker, passes: int | None = 1) -> Iterator[Sender]:
    with Sender(Uplink(broker.address), introduce("0", "default", passes)) as sender:
        yield sender


def numbers(count: int) -> list[list[int]]:
    return [[number] for number in range(count)]


# ---------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"hwm": 0}, "hwm is 0"),
        ({"timeout": 0}, "timeout is 0"),
        ({"min_producers": 0}, "min_producers is 0"),
        ({"lag": "later"}, "lag is 'later'; it is 'wait' or 'skip'"),
        ({"on_error": "ignore"}, "on_error is 'ignore'; it is 'raise', 'skip', or SkipErrors"),
        ({"addr2": "ipc://@one"}, "ipc://@one and ipc://@one: the same address twice"),
        ({"addr2": "ipc://@two", "mode": "epochs"}, "takes one broker: it owns the plan .* send all producers there"),
        ({"addr1": []}, "addr1 is an empty list; give at least one address"),
        ({"addr1": ["ipc://@1", "ipc://@2", "ipc://@3"], "format": "msgpack"}, "takes two addresses at most"),
    ],
)
def test_an_argument_that_cannot_work_is_refused_at_once_with_the_remedy(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        RemoteDataZMQ(**{"addr1": "ipc://@one", "bind": False, **options})


def test_an_address_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(EndpointError, match="has no scheme"):
        RemoteDataZMQ("localhost:8877")


def test_an_address_of_several_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(EndpointError, match="'b:1' has no scheme"):
        RemoteDataZMQ(["tcp://a:1", "b:1"], bind=False)


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ConfigError, match="format"), RemoteDataZMQ("ipc://@x", format="pickle") as remote:  # type: ignore[arg-type]  # the mistake that is tested
        next(remote)


def test_a_budget_that_is_too_small_is_refused_by_the_hosted_broker() -> None:
    with pytest.raises(ConfigError, match="queue_bytes is 5"), RemoteDataZMQ("ipc://@tiny", queue_bytes=5) as remote:
        remote.reset_state()


@pytest.mark.parametrize("mode", ["stream", "epochs"])
@pytest.mark.parametrize("use", [pickle.dumps, copy.copy])
def test_it_is_not_pickled_or_copied_and_says_what_to_do(mode: Any, use: Callable[[Any], Any]) -> None:
    remote = RemoteDataZMQ("ipc://@one", bind=False, mode=mode)
    with pytest.raises(EncodeError, match=r"make one in each process \(with bind=False\)"):
        use(remote)


def test_making_one_binds_and_connects_nothing(free_port: int) -> None:
    RemoteDataZMQ(f"tcp://127.0.0.1:{free_port}")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", free_port))


def test_consumers_that_disagree_are_told_so(broker: LocalBroker) -> None:
    with broker.consumer(min_producers=1) as one, broker.consumer(min_producers=2) as two:
        one.reset_state()
        with pytest.raises(ConfigError, match="refused this consumer: consumers of group 'default' disagree on min"):
            two.reset_state()


# ---------------------------------------------------------------------- hosting the broker


def test_a_second_bind_names_the_process_and_the_way_out(tcp_address: str) -> None:
    with RemoteDataZMQ(tcp_address) as first, RemoteDataZMQ(tcp_address) as second:
        first.reset_state()
        with pytest.raises(AddressInUse, match=r"bound by .*pid \d+ \(.*dfserve\.broker.*\(bind=False\)"):
            second.reset_state()


def test_it_says_which_port_it_was_given(free_port: int) -> None:
    with RemoteDataZMQ("tcp://127.0.0.1:0", f"ipc://@ports-{free_port}") as remote:
        tcp, ipc = remote.endpoints
        assert not tcp.endswith(":0")
        assert ipc == f"ipc://@ports-{free_port}"
        dfserve.send_dataflow_zmq(numbers(3), tcp, passes=1)
        assert list(remote) == numbers(3)


def test_an_address_that_other_hosts_reach_is_logged_once(free_port: int, caplog: pytest.LogCaptureFixture) -> None:
    with RemoteDataZMQ(f"ipc://@warn-{free_port}", f"tcp://*:{free_port}") as remote:
        remote.reset_state()
        remote.reset_state()
    records = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [f"tcp://*:{free_port} can be reached from other hosts" in str(r.getMessage()) for r in records] == [True]


def test_an_address_of_this_machine_is_not_worth_a_warning(tcp_address: str, caplog: pytest.LogCaptureFixture) -> None:
    with RemoteDataZMQ(tcp_address) as remote:
        remote.reset_state()
    assert not caplog.records


# ---------------------------------------------------------------------- a DataFlow, an iterator, a context manager


def test_it_is_a_dataflow(broker: LocalBroker) -> None:
    with broker.consumer() as remote:
        assert isinstance(remote, DataFlow)


def test_its_iterator_ends_with_the_stream_and_stays_ended(broker: LocalBroker) -> None:
    with broker.consumer() as remote:
        broker.send([[1], [2], [3]])
        rows = iter(remote)
        assert [next(rows), next(rows), next(rows)] == [[1], [2], [3]]
        assert next(rows, None) is None
        assert next(rows, None) is None, "a wrapper such as BatchData may ask again"
        broker.send([[4]])
        assert list(remote) == [[4]], "another loop is another pass"


def test_it_has_no_length(broker: LocalBroker) -> None:
    with broker.consumer() as remote, pytest.raises(NotImplementedError, match="does not know its length"):
        len(remote)


def test_next_works_without_anything_before_it(broker: LocalBroker) -> None:
    broker.send(numbers(2))
    with broker.consumer() as remote:
        assert next(remote) == [0]
        assert next(remote) == [1]
        with pytest.raises(StopIteration):
            next(remote)


def test_breaking_out_and_going_on_loses_nothing(broker: LocalBroker) -> None:
    broker.send(numbers(10))
    with broker.consumer() as remote:
        got = []
        for (number,) in remote:
            got.append(number)
            if number == 3:
                break
        got += [number for (number,) in remote]
    assert got == list(range(10))


def test_it_works_under_an_operator(broker: LocalBroker) -> None:
    broker.send([[np.full(3, number, np.float32), number] for number in range(6)])
    with broker.consumer() as remote:
        batches = BatchData(remote, 2)
        batches.reset_state()
        shapes = [(images.shape, list(labels)) for images, labels in batches]
    assert shapes == [((2, 3), [0, 1]), ((2, 3), [2, 3]), ((2, 3), [4, 5])]


def test_arrays_are_read_only_and_writable_copies_are_to_be_had(broker: LocalBroker) -> None:
    broker.send([[np.zeros(10_000, np.uint8), {"mask": np.ones(3, bool)}]])
    with broker.consumer() as remote:
        datapoint = next(remote)
    image, nested = datapoint
    with pytest.raises(ValueError, match="read-only"):
        image[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        nested["mask"][0] = False
    image, nested = dfserve.writable(datapoint)
    image[0], nested["mask"][0] = 1, False
    assert (image[0], nested["mask"][0], datapoint[0][0]) == (1, False, 0)


def test_arrays_outlive_the_consumer_that_handed_them_out(broker: LocalBroker) -> None:
    broker.send([[np.arange(100_000)]])
    with broker.consumer() as remote:
        (array,) = next(remote)
    del remote
    gc.collect()
    assert (array == np.arange(100_000)).all()


def test_what_it_waited_is_counted_here_and_at_the_broker(broker: LocalBroker, until: Callable[..., Any]) -> None:
    with broker.consumer() as remote:
        remote.reset_state()
        timer = threading.Timer(0.2, broker.send, [numbers(2)])
        timer.start()
        assert list(remote) == numbers(2)
        timer.join()
        waited = remote.waited
        assert waited > 0
        until(lambda: broker.metrics()["dfserve_consumer_wait_seconds_total"] >= waited, "the last receipt")


# ---------------------------------------------------------------------- closing


def test_closing_twice_is_harmless(broker: LocalBroker) -> None:
    remote = broker.consumer()
    remote.reset_state()
    remote.close()
    remote.close()


def test_closing_one_that_was_never_used_is_harmless() -> None:
    RemoteDataZMQ("ipc://@never").close()


def test_closing_gives_back_what_was_not_handed_out(broker: LocalBroker, until: Callable[..., Any]) -> None:
    broker.send(numbers(10))
    with broker.consumer() as first:
        assert [next(first) for _ in range(4)] == numbers(4)
    with broker.consumer() as second:
        assert list(second) == numbers(10)[4:]
        assert second.in_doubt == 0
    until(lambda: broker.metrics()["dfserve_datapoints_delivered_total"] == 10, "the last receipt")


def test_it_can_be_used_again_after_it_was_closed(broker: LocalBroker) -> None:
    broker.send(numbers(10))
    remote = broker.consumer()
    assert [next(remote) for _ in range(4)] == numbers(4)
    remote.close()
    with remote:
        assert list(remote) == numbers(10)[4:]


def test_one_that_is_forgotten_closes_by_itself(broker: LocalBroker, until: Callable[..., Any]) -> None:
    remote = broker.consumer()
    remote.reset_state()
    until(lambda: broker.metrics()["dfserve_consumers"] == 1, "the consumer")
    del remote
    gc.collect()
    until(lambda: broker.metrics()["dfserve_consumers"] == 0, "its end")


def outcome(use: Callable[[], Any]) -> str:
    try:
        use()
    except ConfigError as error:
        return str(error)
    return "fine"


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # the child ends without using a thread
def test_a_forked_child_may_not_use_it_and_does_not_disturb_its_parent(
    broker: LocalBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FLUSH", "COMPANY", "HOLD"):  # however busy the machine, there is one block
        monkeypatch.setattr(sender_module, name, 30.0)
    broker.send(numbers(10))
    with broker.consumer() as remote:
        assert next(remote) == [0]
        going_on = iter(remote)
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            for _ in going_on:  # what it inherited is its parent's, too
                break
            uses = (
                remote.reset_state, lambda: iter(remote), lambda: next(remote), lambda: list(going_on), remote.close
            )  # fmt: skip
            os.write(write, "\n".join(map(outcome, uses)).encode())
            os.kill(os.getpid(), signal.SIGKILL)
        os.close(write)
        os.waitpid(pid, 0)
        with os.fdopen(read) as answers:
            first, *others, last = answers.read().splitlines()
        assert f"connected in process {os.getpid()} and is used in {pid}" in first
        assert others == [first] * 3
        assert last == "fine"
        assert list(remote) == numbers(10)[1:]


# ---------------------------------------------------------------------- who is missing


def starved(remote: RemoteDataZMQ) -> str:
    with pytest.raises(Starved) as caught:
        for _ in remote:
            pass
    assert isinstance(caught.value, TimeoutError)
    return str(caught.value)


def test_without_a_broker_it_says_that_nothing_was_heard_and_where() -> None:
    with RemoteDataZMQ("ipc://@nobody-here", bind=False, timeout=SHORT) as remote:
        assert "nothing was heard from a broker at ipc://@nobody-here" in starved(remote)
        assert "nothing was heard" in starved(remote), "and so it does the next time"


def test_without_a_producer_it_says_that_none_has_come_and_how_to_start_one(broker: LocalBroker) -> None:
    with broker.consumer(timeout=ANSWERED) as remote:
        text = starved(remote)
    assert f"no producer is connected to {broker.address} (none has come yet to this broker)" in text
    assert f"dfserve produce MODULE:FACTORY --to {broker.address}" in text


def test_with_a_silent_producer_it_says_that_the_pipelines_have_sent_nothing(
    broker: LocalBroker, until: Callable[..., Any]
) -> None:
    with producer(broker), broker.consumer(timeout=ANSWERED) as remote:
        until(lambda: broker.metrics()["dfserve_producers"] == 1, "the producer")
        assert "although 1 producer is connected" in starved(remote)


def test_after_too_few_ends_it_says_how_many_came_and_how_many_are_needed(broker: LocalBroker) -> None:
    broker.send(numbers(3))
    with broker.consumer(timeout=ANSWERED, min_producers=2) as remote:
        assert [next(remote) for _ in range(3)] == numbers(3)
        assert "1 ended, 2 clean ends are needed" in starved(remote)


def test_starving_is_no_end_and_what_comes_later_is_handed_out(broker: LocalBroker) -> None:
    with broker.consumer(timeout=ANSWERED) as remote:
        starved(remote)
        broker.send(numbers(3))
        assert list(remote) == numbers(3)


# ---------------------------------------------------------------------- what failed remotely


def fail_in_the_middle(broker: LocalBroker) -> None:
    with producer(broker) as sender:
        sender.send([1])
        sender.fail(fail_message(ValueError("bad jpeg"), "a.jpg", "Traceback ...", fatal=True))
        assert sender.drain()


def test_an_error_is_raised_in_its_place_and_then_that_the_pass_is_not_complete(broker: LocalBroker) -> None:
    fail_in_the_middle(broker)
    with broker.consumer() as remote:
        assert next(remote) == [1]
        with pytest.raises(PipelineError, match=r"ValueError at a\.jpg on .*: bad jpeg") as pipeline:
            next(remote)
        with pytest.raises(WorkerLost, match="1 of 1 workers did not end it") as lost:
            next(remote)
        assert remote.errors == 2
    assert pipeline.value.remote_traceback == "Traceback ..."
    assert lost.value.worker == pipeline.value.worker
    assert lost.value.worker == f"{lost.value.host}/0"


def test_errors_can_be_skipped_and_are_logged_and_counted(
    broker: LocalBroker, caplog: pytest.LogCaptureFixture
) -> None:
    fail_in_the_middle(broker)
    with broker.consumer(on_error="skip") as remote:
        assert list(remote) == [[1]]
        assert remote.errors == 2
    skipped = [record.getMessage() for record in caplog.records if "skipped" in record.getMessage()]
    assert len(skipped) == 2
    assert "bad jpeg" in skipped[0]
    assert caplog.text.count("the rest of its pass is left out too") == 1


def test_skipped_errors_have_limits_and_a_quarantine_file(broker: LocalBroker, tmp_path: Path) -> None:
    fail_in_the_middle(broker)
    record = tmp_path / "bad.jsonl"
    with broker.consumer(on_error=SkipErrors(total=1, quarantine=record)) as remote:
        assert next(remote) == [1]
        with pytest.raises(TooManyErrors, match="more than total=1") as caught:
            next(remote)
    assert isinstance(caught.value.__cause__, WorkerLost)
    first, second = map(json.loads, record.read_text().splitlines())
    assert (first["operator"], first["key"], first["traceback"]) == ("RemoteDataZMQ", "a.jpg", "Traceback ...")
    assert "did not end it" in second["error"]


def test_each_group_hears_of_an_error(broker: LocalBroker) -> None:
    with broker.consumer(group="a") as a, broker.consumer(group="b") as b:
        a.reset_state()
        b.reset_state()
        fail_in_the_middle(broker)
        for remote in (a, b):
            with pytest.raises(PipelineError):
                list(remote)


# ---------------------------------------------------------------------- plain formats


def test_a_plain_receiver_can_be_reset_twice_and_asked_for_the_next_at_once(tcp_address: str) -> None:
    flow = DataFromList([[1, 2]], shuffle=False)
    thread = threading.Thread(
        target=dfserve.send_dataflow_zmq,
        args=(flow, tcp_address),
        kwargs={"format": "msgpack", "passes": 1},
        daemon=True,
    )
    with RemoteDataZMQ(tcp_address, format="msgpack", timeout=30) as remote:
        remote.reset_state()
        remote.reset_state()
        thread.start()
        assert next(remote) == [1, 2]
        thread.join(30)
    with RemoteDataZMQ(tcp_address, format="msgpack", timeout=SHORT) as remote, pytest.raises(Starved):
        next(remote)


def test_a_plain_receiver_tells_where_it_listens_how_long_it_waited_and_what_it_could_not_read() -> None:
    with RemoteDataZMQ("tcp://127.0.0.1:0", format="msgpack", timeout=SHORT) as remote, zmq.Context() as context:
        (address,) = remote.endpoints
        with context.socket(zmq.PUSH) as push:
            push.connect(address)
            push.send(b"\xc1")
            deadline = time.monotonic() + 60
            while not remote.errors and time.monotonic() < deadline:
                with pytest.raises(Starved):
                    next(remote)
        assert remote.errors == 1
        assert remote.waited > 0
    assert remote.errors == 1


# ---------------------------------------------------------------------- a trainer of its own


def test_a_trainer_that_just_exits_leaves_no_broker_and_no_complaint(start: Callable[..., Any], free_port: int) -> None:
    code = f"""
import json, dfserve, os
df = dfserve.RemoteDataZMQ("ipc://@exits-{free_port}")
df.reset_state()
print(json.dumps({{"broker": df._sessions[0].broker.pid}}))
"""
    trainer = start("-W", "error", "-c", code)
    assert trainer.wait() == 0
    (line,) = trainer.lines
    assert trainer.output.strip() == json.dumps(line), "nothing else was said"
    with pytest.raises(ProcessLookupError):
        os.kill(line["broker"], 0)


# ---------------------------------------------------------------------- batches


def labelled(count: int) -> list[list[Any]]:
    return [[np.full(3, number, np.float32), number] for number in range(count)]


def labels_of(batches: Any) -> list[list[int]]:
    return [labels.tolist() for _, labels in batches]


def test_batches_are_made_of_blocks_without_a_datapoint_of_each(
    broker: LocalBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.send(labelled(10))
    monkeypatch.setattr(Rows, "listed", None)
    with broker.consumer() as remote:
        batches = list(BatchData(remote, 4, remainder=True))
    assert labels_of(batches) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert all(images.flags.writeable for images, _ in batches)


def test_what_was_handed_out_in_batches_and_one_by_one_is_told_apart_from_the_rest(
    broker: LocalBroker, until: Callable[..., Any]
) -> None:
    broker.send(labelled(20))
    with broker.consumer() as first:
        assert next(first)[1] == 0
        batches = iter(BatchData(first, 4))
        assert next(batches)[1].tolist() == [1, 2, 3, 4]
        assert next(first)[1] == 5
        assert next(batches)[1].tolist() == [6, 7, 8, 9]
        assert next(iter(first))[1] == 10
    with broker.consumer() as second:
        assert labels_of(BatchData(second, 5, remainder=True)) == [[11, 12, 13, 14, 15], [16, 17, 18, 19]]
        assert second.in_doubt == 0
    until(lambda: broker.metrics()["dfserve_datapoints_delivered_total"] == 20, "the last receipt")


def test_a_stream_that_ended_in_a_batch_is_not_waited_for_again(broker: LocalBroker) -> None:
    with broker.consumer() as remote:
        for count, expected in ((4, [[0, 1], [2, 3]]), (3, [[0, 1], [2]])):
            broker.send(labelled(count))
            batches = iter(BatchData(remote, 2, remainder=True))
            assert [next(batches)[1].tolist() for _ in expected] == expected
            assert next(batches, None) is None


def test_an_error_comes_between_batches_and_takes_what_was_to_be_one_with_it(broker: LocalBroker) -> None:
    with producer(broker) as sender:
        for datapoint in labelled(3):
            sender.send(datapoint)
        sender.fail(fail_message(ValueError("bad jpeg"), "a.jpg", "Traceback ...", fatal=False))
        for datapoint in labelled(4):
            sender.send(datapoint)
        sender.finish()
        assert sender.drain()
    with broker.consumer() as remote:
        batches = iter(BatchData(remote, 2))
        assert next(batches)[1].tolist() == [0, 1]
        with pytest.raises(PipelineError, match="bad jpeg"):
            next(batches)
        assert labels_of(BatchData(remote, 2)) == [[0, 1], [2, 3]]
        assert remote.errors == 1


def test_a_block_of_another_structure_in_a_batch_is_refused_as_everywhere(broker: LocalBroker) -> None:
    broker.send([[1, 2], [3, 4], [5]])
    with broker.consumer() as remote, pytest.raises(DatapointError, match="datapoint 2 of the batch is a list of 1"):
        next(iter(BatchData(remote, 3)))


def test_two_batches_are_in_flight_whatever_hwm_says(broker: LocalBroker) -> None:
    with broker.consumer(hwm=3) as remote:
        BatchData(remote, 100).reset_state()
        assert remote._stream._feeds[0]._inbox.hello().hwm == 200
    with broker.consumer(hwm=300) as remote:
        BatchData(remote, 100).reset_state()
        assert remote._stream._feeds[0]._inbox.hello().hwm == 300


def test_a_plain_receivers_datapoints_are_batched_too(tcp_address: str) -> None:
    flow = DataFromList([[1, 2], [3, 4]], shuffle=False)
    thread = threading.Thread(
        target=dfserve.send_dataflow_zmq,
        args=(flow, tcp_address),
        kwargs={"format": "msgpack", "passes": 1},
        daemon=True,
    )
    with RemoteDataZMQ(tcp_address, format="msgpack", timeout=30) as remote:
        remote.reset_state()
        thread.start()
        assert [part.tolist() for part in next(iter(BatchData(remote, 2)))] == [[1, 3], [2, 4]]
        thread.join(30)

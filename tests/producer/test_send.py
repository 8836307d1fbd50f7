"""Owns the tests of send_dataflow_zmq, against the real broker."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from dfserve import (
    BlockTooLarge,
    ConfigError,
    EncodeError,
    EndpointError,
    FactoryError,
    PipelineError,
    RemoteDataZMQ,
    send_dataflow_zmq,
)
from dfserve.broker import core as core_module
from dfserve.dataflow import DataFlow
from dfserve.producer import sender as sender_module
from dfserve.testing import TIMEOUT, LocalBroker

MIB = 1 << 20


@pytest.fixture
def broker() -> Iterator[LocalBroker]:
    with LocalBroker(queue_bytes=2 * MIB) as broker:
        yield broker


@pytest.mark.parametrize("passes", [0, -1])
def test_a_number_of_passes_below_one_is_refused(passes: int) -> None:
    with pytest.raises(ConfigError, match=f"passes is {passes}; give a number of passes from 1, or None"):
        send_dataflow_zmq([[1]], "ipc://@nobody", passes=passes)


@pytest.mark.parametrize("address", ["nonsense", "tcp://*:80", "tcp://127.0.0.1:0", "udp://a:1"])
def test_an_address_that_nobody_can_connect_to_is_refused(address: str) -> None:
    with pytest.raises(EndpointError):
        send_dataflow_zmq([[1]], address, passes=1)


def test_a_high_water_mark_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="hwm is 0"):
        send_dataflow_zmq([[1]], "ipc://@nobody", hwm=0, passes=1)


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ConfigError, match="format"):
        send_dataflow_zmq([[1]], "ipc://@nobody", format="pickle", passes=1)


def test_what_is_no_pipeline_is_refused_before_anything_is_connected() -> None:
    with pytest.raises(FactoryError, match="None"):
        send_dataflow_zmq(None, "ipc://@nobody", passes=1)


def test_an_empty_pipeline_that_should_repeat_for_ever_is_refused(broker: LocalBroker) -> None:
    with pytest.raises(FactoryError, match="yielded no datapoint"):
        send_dataflow_zmq([], broker.address)


def test_what_cannot_travel_is_an_error_here_and_at_the_consumer_and_names_the_component(broker: LocalBroker) -> None:
    with broker.consumer() as consumer:
        consumer.reset_state()
        with pytest.raises(EncodeError, match="component 1 "):
            broker.send([[1, 2], [3, object()]])
        assert next(consumer) == [1, 2]
        with pytest.raises(PipelineError, match="component 1 ") as caught:
            next(consumer)
        assert caught.value.kind == "EncodeError"
        assert caught.value.key == "item 1"


def test_a_datapoint_over_the_budget_is_an_error_here_and_at_the_consumer_and_names_the_flag(
    broker: LocalBroker,
) -> None:
    with broker.consumer() as consumer:
        consumer.reset_state()
        with pytest.raises(BlockTooLarge, match=r"3\.0 MiB exceeds .* --queue-bytes"):
            broker.send([[np.zeros(MIB, np.uint8)] * 3])
        with pytest.raises(PipelineError, match="--queue-bytes") as caught:
            next(consumer)
        assert caught.value.kind == "BlockTooLarge"


def test_an_array_over_the_largest_frame_names_that_flag() -> None:
    with LocalBroker(max_frame=MIB) as broker, pytest.raises(BlockTooLarge, match="--max-frame"):
        broker.send([[np.zeros(MIB + 1, np.uint8)]])


def test_small_datapoints_fit_the_smallest_budget_whatever_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FLUSH", "COMPANY", "HOLD"):  # blocks that a busy machine sends before they are full take more room
        monkeypatch.setattr(sender_module, name, 30.0)
    with LocalBroker(queue_bytes=MIB) as broker, broker.consumer() as consumer:
        consumer.reset_state()
        for size in (100, 1000, 30_000):
            broker.send([[bytes(size)]] * (MIB // size // 2))
            assert len(list(consumer)) == MIB // size // 2
        many = [[np.full(1000, number % 256, np.uint8)] for number in range(1040)]
        broker.send(many)
        assert len(list(consumer)) == 1040


def test_an_array_that_the_pipeline_uses_again_after_the_yield_arrives_as_it_was(broker: LocalBroker) -> None:
    class Reuses(DataFlow):
        """Yields one array again and again, changed."""

        def __iter__(self) -> Iterator[Any]:
            array = np.zeros(50_000, np.uint8)
            for number in range(20):
                array[:] = number
                yield [number, array]
            array[:] = 99

    with broker.consumer() as consumer:
        consumer.reset_state()
        broker.send(Reuses())
        for number, array in consumer:
            assert (array == number).all()


def test_each_pipeline_name_is_a_stream_of_its_own(broker: LocalBroker) -> None:
    broker.send([["train"]], pipeline="train")
    broker.send([["val"]], pipeline="val")
    for name in ("val", "train"):
        with broker.consumer(pipeline=name) as consumer:
            assert list(consumer) == [[name]]


def test_a_sender_that_hosts_the_broker_waits_until_consumers_have_everything(free_port: int) -> None:
    address = f"tcp://127.0.0.1:{free_port}"
    with RemoteDataZMQ(address, bind=False, timeout=60) as consumer:
        import threading

        thread = threading.Thread(
            target=send_dataflow_zmq, args=([[1], [2]], address), kwargs={"bind": True, "passes": 1}, daemon=True
        )
        thread.start()
        assert list(consumer) == [[1], [2]]
        thread.join(60)
        assert not thread.is_alive()


def test_hosting_at_an_address_that_other_hosts_reach_is_logged_once(
    free_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "dfserve"), pytest.raises(ZeroDivisionError):
        send_dataflow_zmq((1 // 0 for _ in range(1)), f"tcp://*:{free_port}", bind=True, passes=1)
    texts = [record.getMessage() for record in caplog.records if "can be reached" in record.getMessage()]
    assert len(texts) == 1
    assert str(free_port) in texts[0]


def test_the_name_of_this_machine_can_be_set(monkeypatch: pytest.MonkeyPatch, broker: LocalBroker) -> None:
    monkeypatch.setenv("DFSERVE_NAME", "data-7")

    def fails() -> Iterator[Any]:
        yield [1]
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        broker.send(fails())
    with broker.consumer() as consumer, pytest.raises(PipelineError) as caught:
        list(consumer)
    assert caught.value.host == "data-7"
    assert caught.value.worker.startswith("data-7/")


SLOW = 30  # datapoints, each made when the one before was received and a while has passed


def test_a_datapoint_that_comes_alone_waits_neither_for_the_next_one_nor_for_a_heartbeat(
    broker: LocalBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (sender_module, core_module):  # the broker's heartbeat wakes the sender, too
        monkeypatch.setattr(module, "BEAT", 2 * TIMEOUT)  # longer than the consumer waits for a datapoint
    wanted: queue.Queue[int] = queue.Queue()

    def slowly() -> Iterator[list[int]]:
        for number in range(SLOW):
            yield [wanted.get(timeout=30) + number]
            time.sleep(0.1)  # longer than the sender has anything else to do; what is tested is no duration

    with broker.consumer() as consumer:
        sender = threading.Thread(target=broker.send, args=(slowly(),), daemon=True)
        sender.start()
        for number in range(SLOW):
            wanted.put(0)
            assert next(consumer) == [number]
        sender.join(30)


def test_large_datapoints_share_larger_blocks_where_the_broker_has_room(
    broker: LocalBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FLUSH", "HOLD"):  # on a busy machine no block would be full before its time
        monkeypatch.setattr(sender_module, name, 30.0)
    datapoint = [np.zeros(150_000, np.uint8)]
    assert largest_block(broker, [datapoint] * 100) == (1 << 20) // 150_064  # the budget of 2 MiB has room for few
    with LocalBroker() as roomy:
        for shared_memory in (False, True):
            largest = largest_block(roomy, [datapoint] * 1000, shared_memory=shared_memory)
            assert largest == (16 << 20) // 150_064


def largest_block(broker: LocalBroker, datapoints: list[Any], **options: Any) -> int:
    """Send datapoints; return how many share the memory of one block, at most."""
    with broker.consumer() as consumer:
        sender = threading.Thread(target=broker.send, args=(datapoints,), kwargs=options, daemon=True)
        sender.start()
        blocks: list[list[Any]] = []
        for (array,) in consumer:
            if blocks and np.shares_memory(np.asarray(array.base), np.asarray(blocks[-1][-1].base)):
                blocks[-1].append(array)
            else:
                blocks.append([array])
        sender.join(30)
    return max(map(len, blocks))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"compression": "gzip"}, "compression is 'gzip'; it is one of lz4, zstd, or None"),
        ({"compression": "lz4", "bind": True}, "bind=True hosts it here; leave it out"),
        ({"compression": "lz4", "format": "msgpack"}, "another program's, which has no compression"),
    ],
)
def test_compression_that_cannot_be_is_refused_before_anything_is_connected(options: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        send_dataflow_zmq([[1]], "ipc://@nobody", passes=1, **options)


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_what_was_compressed_arrives_as_it_was(broker: LocalBroker, codec: str) -> None:
    sent = [[number, np.full(50_000, number, np.uint8), "text" * number] for number in range(30)]
    with broker.consumer() as consumer:
        consumer.reset_state()
        broker.send(sent, compression=codec)
        assert repr(list(consumer)) == repr(sent)
    metrics = broker.metrics()
    assert metrics["dfserve_received_wire_bytes_total"] < metrics["dfserve_received_bytes_total"] / 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "msgpack", "pipeline": "train"}, "pipeline: format='msgpack' is another program's"),
        ({"format": "zmq_ops", "queue_bytes": 1 << 20, "bind": True}, "queue_bytes: format='zmq_ops'"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        send_dataflow_zmq([[1]], "ipc://@nobody", passes=1, **options)

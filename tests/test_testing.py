"""Owns the tests of what users' own tests are given."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from dfserve import AddressInUse, ConfigError, PipelineError
from dfserve.testing import LocalBroker


def test_what_is_sent_arrives_as_the_docstring_says() -> None:
    with LocalBroker() as broker:
        broker.send([[1, "a"], [2, "b"]])
        assert list(broker.consumer()) == [[1, "a"], [2, "b"]]


def test_it_leaves_no_thread_behind() -> None:
    with LocalBroker():
        assert any(thread.name == "dfserve-broker" for thread in threading.enumerate())
    assert not any(thread.name == "dfserve-broker" for thread in threading.enumerate())


def test_brokers_side_by_side_do_not_mix() -> None:
    with LocalBroker() as one, LocalBroker() as two:
        one.send([["one"]])
        two.send([["two"]])
        with one.consumer() as a, two.consumer() as b:
            assert (list(a), list(b)) == ([["one"]], [["two"]])


def test_options_reach_the_sender_and_the_consumer() -> None:
    with LocalBroker() as broker:
        broker.send([[1]], passes=2, pipeline="val")
        with broker.consumer(pipeline="val", group="mine") as consumer:
            assert list(consumer) == [[1], [1]]


def test_further_addresses_are_bound_with_their_ports_resolved(start: Callable[..., Any]) -> None:
    with LocalBroker(["tcp://127.0.0.1:0"]) as broker:
        (endpoint,) = broker.endpoints
        code = f"import dfserve; dfserve.send_dataflow_zmq([['from outside']], {endpoint!r}, passes=1)"
        assert start("-c", code).wait() == 0
        with broker.consumer() as consumer:
            assert list(consumer) == [["from outside"]]


def test_metrics_are_added_up_over_their_labels() -> None:
    with LocalBroker() as broker, broker.consumer(group="a") as a, broker.consumer(group="b") as b:
        a.reset_state()
        b.reset_state()
        broker.send([[1]] * 5)
        assert broker.metrics()["dfserve_datapoints_received_total"] == 5
        assert broker.metrics()["dfserve_consumers"] == 2
        assert broker.metrics()["dfserve_queue_capacity_bytes"] == 1 << 30


def test_a_pipelines_error_is_raised_where_it_was_sent_and_where_it_is_consumed() -> None:
    with LocalBroker() as broker:
        with pytest.raises(ZeroDivisionError):
            broker.send(1 // number for number in (1, 0))
        with broker.consumer() as consumer, pytest.raises(PipelineError, match="ZeroDivisionError"):
            list(consumer)


def test_an_address_that_is_taken_is_an_error_where_the_broker_is_entered(free_port: int) -> None:
    address = f"tcp://127.0.0.1:{free_port}"
    with LocalBroker([address]), pytest.raises(AddressInUse, match="this process"), LocalBroker([address]):
        pass


def test_what_ends_the_broker_is_raised_when_the_test_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dfserve.testing.Broker.run", lambda _: 1 // 0)
    with pytest.raises(ZeroDivisionError), LocalBroker():
        pass


def test_limits_are_those_of_the_broker() -> None:
    with pytest.raises(ConfigError, match="queue_bytes is 1"):
        LocalBroker(queue_bytes=1)

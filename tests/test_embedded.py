"""Owns the tests of the broker that lives as a child process of whoever binds an address."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from dfserve import AddressInUse, BrokerLost, ConfigError, EndpointError, RemoteDataZMQ, send_dataflow_zmq
from dfserve.embedded import EmbeddedBroker, private_address

Start = Callable[..., Any]
Until = Callable[..., Any]

TRAINER = """
import json, os, sys, time
import dfserve
df = dfserve.RemoteDataZMQ({address!r})
df.reset_state()
print(json.dumps({{"broker": df._sessions[0].broker.pid}}), flush=True)
{then}
"""
HANG = "time.sleep(3600)"


def brokers_here() -> list[int]:
    """Return the pids of this process's children that are brokers; one that ends meanwhile is none."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):  # or a zombie, which has no command line any more
            if "dfserve.broker" in child.cmdline():
                found.append(child.pid)
    return found


def broker_of(trainer: Any) -> psutil.Process:
    trainer.wait_until_said("broker")
    return psutil.Process(trainer.lines[0]["broker"])


MANY_FILES = """
import resource
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (2000, hard))
files = [open("/dev/null") for _ in range(1100)]
from dfserve.embedded import EmbeddedBroker
with EmbeddedBroker(["tcp://127.0.0.1:0"], {}) as broker:
    print("ready at", broker.endpoints[0])
"""


def test_a_trainer_may_have_more_files_open_than_select_can_count() -> None:
    run = [sys.executable, "-c", MANY_FILES]
    assert "ready at" in subprocess.run(run, capture_output=True, text=True, timeout=60, check=True).stdout


def test_it_serves_at_its_addresses_and_at_a_private_one(tcp_address: str) -> None:
    with EmbeddedBroker([tcp_address], {}) as broker:
        assert broker.endpoints == [tcp_address]
        send_dataflow_zmq([[1]], tcp_address, passes=1)
        with RemoteDataZMQ(broker.address, bind=False, timeout=60) as consumer:
            assert list(consumer) == [[1]]


def test_what_the_parent_does_meanwhile_is_done_while_the_child_starts(
    monkeypatch: pytest.MonkeyPatch, until: Callable[..., Any]
) -> None:
    done: list[str] = []
    ready = EmbeddedBroker._await_ready
    monkeypatch.setattr(EmbeddedBroker, "_await_ready", lambda self: (done.append("waited"), ready(self))[1])

    before = brokers_here()

    def load() -> None:
        until(lambda: set(brokers_here()) - set(before), "the child")
        done.append("loaded")

    with EmbeddedBroker([], {}, meanwhile=load):
        assert done == ["loaded", "waited"]


def test_when_what_the_parent_does_meanwhile_fails_the_child_is_ended() -> None:
    before = brokers_here()
    with pytest.raises(ZeroDivisionError):
        EmbeddedBroker([], {}, meanwhile=lambda: 1 / 0)
    assert set(brokers_here()) <= set(before)


def test_private_addresses_are_never_the_same() -> None:
    assert len({private_address() for _ in range(100)}) == 100


def test_closing_ends_the_process_and_frees_the_address(address: str) -> None:
    for _ in range(2):
        with EmbeddedBroker([address], {}) as broker:
            process = psutil.Process(broker.pid)
            assert process.is_running()
        assert not process.is_running()


def test_closing_twice_is_harmless() -> None:
    broker = EmbeddedBroker([], {})
    broker.close()
    broker.close()


def test_a_broker_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dfserve.embedded.STOP", 0.2)
    with EmbeddedBroker([], {}) as broker:
        process = psutil.Process(broker.pid)
        process.suspend()
    assert not process.is_running()


def test_an_address_that_is_taken_is_named_with_the_process_that_holds_it(address: str) -> None:
    with EmbeddedBroker([address], {}) as first:
        with pytest.raises(AddressInUse, match=rf"bound by pid {first.pid} .*\(bind=False\)"):
            EmbeddedBroker([address], {})
        first.check()


@pytest.mark.parametrize(
    ("binds", "config", "kind", "text"),
    [
        (["ipc:///no/such/folder/socket"], {}, EndpointError, "there is no folder"),
        ([], {"queue_bytes": 1}, ConfigError, "queue_bytes is 1"),
        ([], {"queue_bytes": "1GiB"}, ConfigError, "queue_bytes is '1GiB'; it is a number, of bytes"),
    ],
)
def test_what_is_wrong_in_the_child_is_raised_here(
    binds: list[str], config: dict[str, Any], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text):
        EmbeddedBroker(binds, config)


def test_a_metrics_port_that_cannot_be_had_is_said_here() -> None:
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AddressInUse, match=rf"metrics port {port} cannot be bound.*\(metrics_port=\)"):
            EmbeddedBroker([], {}, port)
    with pytest.raises(ConfigError, match="metrics port 99999 is not a number from 0"):
        EmbeddedBroker([], {}, 99999)


def test_a_child_that_was_killed_is_noticed_and_what_to_do_is_said(until: Until) -> None:
    def complaint(broker: EmbeddedBroker) -> str:
        try:
            broker.check()
        except BrokerLost as error:
            return str(error)
        return ""

    with EmbeddedBroker([], {}) as broker:
        assert complaint(broker) == ""
        os.kill(broker.pid, signal.SIGKILL)
        text = until(lambda: complaint(broker), "the broker's end")
        assert f"(pid {broker.pid}) ended with status -9; what it held is lost. Make a new RemoteDataZMQ" in text


def test_a_trainer_whose_broker_was_killed_does_not_wait_for_data(tcp_address: str, until: Until) -> None:
    with RemoteDataZMQ(tcp_address, timeout=60) as remote:
        remote.reset_state()
        os.kill(remote._sessions[0].broker.pid, signal.SIGKILL)  # type: ignore[union-attr]
        with pytest.raises(BrokerLost, match="Make a new RemoteDataZMQ"):
            next(remote)


def test_a_trainer_that_is_killed_leaves_no_broker_and_its_address_free(start: Start, address: str) -> None:
    trainer = start("-c", TRAINER.format(address=address, then=HANG))
    process = broker_of(trainer)
    trainer.kill()
    psutil.wait_procs([process], timeout=30)
    assert not process.is_running()
    next_one = start("-c", TRAINER.format(address=address, then=""))
    assert next_one.wait() == 0, next_one.output


@pytest.mark.parametrize("said", [b"", b'{"binds": [', b'{"binds": [], "config": {}, "metrics_port": null}\n'])
def test_a_trainer_that_is_killed_while_its_broker_starts_leaves_no_broker_and_no_traceback(said: bytes) -> None:
    hears, ears = os.pipe()
    os.close(hears)
    command = [sys.executable, "-m", "dfserve.broker"]
    try:
        done = subprocess.run(command, input=said, stdout=ears, stderr=subprocess.PIPE, timeout=60, check=False)
    finally:
        os.close(ears)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_forked_child_that_outlives_a_killed_trainer_does_not_keep_its_broker(start: Start, tcp_address: str) -> None:
    # Only the parent speaks: the child's line could come first, or in the middle of its parent's.
    fork = "child = os.fork()\nif child: print(json.dumps({'child': child}), flush=True)\ntime.sleep(3600)"
    trainer = start("-c", TRAINER.format(address=tcp_address, then=fork))
    trainer.wait_until_said('"child"')
    process, child = broker_of(trainer), next(line["child"] for line in trainer.lines if line.get("child"))
    try:
        trainer.kill()
        gone, _ = psutil.wait_procs([process], timeout=30)
        assert gone
        assert psutil.pid_exists(child)
    finally:
        os.kill(child, signal.SIGKILL)


def test_ctrl_c_is_for_the_trainer_and_the_broker_follows_it(start: Start, tcp_address: str) -> None:
    trainer = start("-c", TRAINER.format(address=tcp_address, then=HANG))
    process = broker_of(trainer)
    process.send_signal(signal.SIGINT)
    trainer.signal(signal.SIGINT)
    assert trainer.wait() != 0
    assert "KeyboardInterrupt" in trainer.output
    gone, _ = psutil.wait_procs([process], timeout=30)
    assert gone

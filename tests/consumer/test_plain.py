"""The plain receiver: one or two addresses, bad messages, and an end to waiting."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest
import zmq

from dfserve.consumer import plain
from dfserve.consumer.plain import PlainReceiver
from dfserve.errors import AddressInUse, ConfigError, DfserveError, Starved
from dfserve.formats.plain_msgpack import dumps, loads

HANG = 60.0


@pytest.fixture
def push():
    """Makes PUSH sockets that are connected to an address."""
    opened: list[zmq.Socket] = []
    with zmq.Context() as context:

        def connected(address: str) -> zmq.Socket:
            socket = context.socket(zmq.PUSH)
            opened.append(socket)
            socket.connect(address)
            return socket

        yield connected
        for socket in opened:
            socket.close(linger=0)


def receiver(*addresses: str, timeout: float | None = HANG, bind: bool = True, hwm: int = 50) -> PlainReceiver:
    return PlainReceiver(*addresses, hwm=hwm, bind=bind, loads=loads, timeout=timeout)


def test_datapoints_of_one_sender_arrive_in_order(push):
    with receiver("tcp://127.0.0.1:*") as pull:
        sender = push(pull.endpoints[0])
        for i in range(100):
            sender.send(dumps([i]))
        assert [pull.receive() for _ in range(100)] == [[i] for i in range(100)]
        assert pull.received == (100,)


def test_two_addresses_take_turns(push, tmp_path):
    with receiver("tcp://127.0.0.1:*", f"ipc://{tmp_path}/s") as pull:
        for name, address in zip("ab", pull.endpoints, strict=True):
            sender = push(address)
            for _ in range(20):
                sender.send(dumps([name]))
        # Until each has arrived once; from then on both have some waiting.
        got = [pull.receive()[0] for _ in range(40)]
        assert sorted(got) == ["a"] * 20 + ["b"] * 20
        assert pull.received == (20, 20)


def test_two_full_sockets_are_read_alternately(push, tmp_path):
    with receiver(f"ipc://{tmp_path}/a", f"ipc://{tmp_path}/b") as pull:
        for address in pull.endpoints:
            sender = push(address)
            for _ in range(10):
                sender.send(dumps([address]))
        got = []
        for _ in range(8):
            for line in pull._lines:  # each time, since what was sent together need not arrive together
                assert line.socket.poll(int(HANG * 1000))
            got.append(pull.receive()[0])
        assert got == list(pull.endpoints) * 4


def test_silence_raises_with_the_addresses_that_are_missing(push, tmp_path):
    with receiver(f"ipc://{tmp_path}/a", f"ipc://{tmp_path}/b", timeout=0.2) as pull:
        push(pull.endpoints[1]).send(dumps([1]))
        first = None
        for _ in range(300):
            try:
                first = pull.receive()
                break
            except Starved:
                continue
        assert first == [1]
        with pytest.raises(Starved) as caught:
            pull.receive()
    assert f"{tmp_path}/a (nothing in " in str(caught.value)
    assert f"{tmp_path}/b (silent for " in str(caught.value)
    assert isinstance(caught.value, TimeoutError)


def test_bad_messages_are_counted_logged_once_and_skipped(push, tmp_path, caplog):
    with receiver(f"ipc://{tmp_path}/s") as pull:
        sender = push(pull.endpoints[0])
        for frame in (b"", b"\xc1", dumps([1]), b"\x80\x04\x95", dumps([2])):
            sender.send(frame)
        sender.send_multipart([dumps([3]), b"more"])
        sender.send(dumps([4]))
        with caplog.at_level(logging.WARNING):
            assert [pull.receive() for _ in range(3)] == [[1], [2], [4]]
        assert pull.bad_messages == {"body": 2, "pickle": 1, "frames": 1}
        assert pull.received == (3,)
    assert caplog.text.count("skips a bad message") == 1


def test_a_flood_of_bad_messages_does_not_hold_the_receiver(push, tmp_path, monkeypatch):
    with receiver(f"ipc://{tmp_path}/s", timeout=0.0) as pull:
        sender = push(pull.endpoints[0])
        sender.send(b"bad")
        sender.send(dumps([1]))
        assert pull._lines[0].socket.poll(int(HANG * 1000))
        with pytest.raises(Starved, match=r"1 bad messages: \{'body': 1\}"):
            pull.receive()
        assert pull._lines[0].socket.poll(int(HANG * 1000))
        assert pull.receive() == [1]


def test_waiting_for_ever_says_so(push, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(plain, "REPORT_SECONDS", 0.05)
    with receiver(f"ipc://{tmp_path}/s", timeout=None) as pull:

        class SendOnLog(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                push(pull.endpoints[0]).send(dumps([1]))

        handler = SendOnLog()
        plain.log.addHandler(handler)
        try:
            assert pull.receive() == [1]
        finally:
            plain.log.removeHandler(handler)
    assert f"missing: ipc://{tmp_path}/s (nothing in" in caplog.text


def test_it_can_connect_to_a_sender_that_binds(tmp_path):
    with zmq.Context() as context, context.socket(zmq.PUSH) as sender:
        sender.bind(f"ipc://{tmp_path}/s")
        with receiver(f"ipc://{tmp_path}/s", bind=False) as pull:
            sender.send(dumps(["hello"]))
            assert pull.receive() == ["hello"]


def test_a_taken_second_address_gives_the_first_one_back(tmp_path):
    with receiver(f"ipc://{tmp_path}/b"), pytest.raises(AddressInUse):
        receiver(f"ipc://{tmp_path}/a", f"ipc://{tmp_path}/b")
    receiver(f"ipc://{tmp_path}/a", f"ipc://{tmp_path}/b").close()


def test_a_closed_receiver_says_so_and_closes_twice(tmp_path):
    pull = receiver(f"ipc://{tmp_path}/s")
    pull.close()
    pull.close()
    with pytest.raises(DfserveError, match="closed"):
        pull.receive()


def test_a_high_water_mark_of_zero_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="at least 1"):
        receiver(f"ipc://{tmp_path}/s", hwm=0)


NOT_CLOSED = """
import gc
from dfserve.consumer.plain import PlainReceiver

class Owner:
    pass

owner = Owner()
owner.itself = owner  # a cycle, as a RemoteDataZMQ is in
owner.receiver = PlainReceiver("tcp://127.0.0.1:*", hwm=1, bind=True, loads=bytes, timeout=1)
del owner
gc.collect()
print("closed")
"""


def test_one_that_nobody_closed_does_not_hold_up_the_garbage_collection():
    run = [sys.executable, "-c", NOT_CLOSED]
    assert subprocess.run(run, capture_output=True, text=True, timeout=HANG, check=True).stdout == "closed\n"


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # the child ends without using a thread
def test_a_forked_child_is_told_that_its_parents_receiver_is_not_its_own(push, tmp_path):
    with receiver(f"ipc://{tmp_path}/f") as pull:
        child = os.fork()
        if child == 0:
            try:
                pull.close()
                pull.receive()
            except ConfigError:
                os._exit(7)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        push(pull.endpoints[0]).send(dumps(["still here"]))
        assert pull.receive() == ["still here"]

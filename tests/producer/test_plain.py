"""The plain sender: passes, draining, and waits that say so."""

from __future__ import annotations

import threading
from itertools import pairwise

import numpy as np
import pytest
import zmq

from dfserve.errors import AddressInUse, ConfigError, EncodeError, EndpointError
from dfserve.formats import plain_msgpack, zmq_ops
from dfserve.producer import plain
from dfserve.producer.plain import send_plain


class Counting:
    """A dataflow of ``size`` datapoints ``[pass, i]`` that counts its resets and passes."""

    def __init__(self, size: int, fail_at: int | None = None) -> None:
        self.size, self.fail_at = size, fail_at
        self.resets = self.passes = 0

    def reset_state(self) -> None:
        self.resets += 1

    def __iter__(self):
        self.passes += 1
        for i in range(self.size):
            if i == self.fail_at:
                raise ArithmeticError("item is broken")
            yield [self.passes, i]


@pytest.fixture
def pull():
    with zmq.Context() as context, context.socket(zmq.PULL) as socket:
        socket.setsockopt(zmq.RCVTIMEO, 60_000)
        yield socket
        socket.close(linger=0)


def send(df, address, *, passes=1, hwm=50, bind=False, dumps=plain_msgpack.dumps):
    return send_plain(df, address, hwm=hwm, dumps=dumps, bind=bind, passes=passes)


def test_finite_passes_arrive_in_order_and_are_counted(pull, tmp_path):
    pull.bind(f"ipc://{tmp_path}/s")
    df = Counting(5)
    assert send(df, f"ipc://{tmp_path}/s", passes=3) == 15
    assert [plain_msgpack.loads(pull.recv()) for _ in range(15)] == [[p, i] for p in (1, 2, 3) for i in range(5)]
    assert df.resets == 1


def test_more_than_the_high_water_mark_arrives_at_a_late_receiver(pull, tmp_path):
    address = f"ipc://{tmp_path}/s"
    sent: list[int] = []
    sender = threading.Thread(target=lambda: sent.append(send(Counting(500), address, hwm=2, bind=True)), daemon=True)
    sender.start()
    pull.connect(address)
    assert [plain_msgpack.loads(pull.recv())[1] for _ in range(500)] == list(range(500))
    sender.join(60)
    assert sent == [500]


def test_it_waits_for_the_last_ones_to_leave_and_says_so(pull, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(plain, "REPORT_SECONDS", 0.05)
    address = f"ipc://{tmp_path}/s"
    sender = threading.Thread(target=send, args=(Counting(5), address), daemon=True)
    sender.start()
    wait_for_log(caplog, "to take the last datapoints")
    assert sender.is_alive()
    pull.bind(address)
    assert [plain_msgpack.loads(pull.recv())[1] for _ in range(5)] == list(range(5))
    sender.join(60)
    assert not sender.is_alive()


def test_it_says_that_it_waits_for_a_receiver(pull, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(plain, "REPORT_SECONDS", 0.05)
    address = f"ipc://{tmp_path}/s"
    sender = threading.Thread(target=lambda: send(Counting(5), address, bind=True), daemon=True)
    sender.start()
    wait_for_log(caplog, f"for a receiver at {address} to take a datapoint")
    pull.connect(address)
    assert [plain_msgpack.loads(pull.recv())[1] for _ in range(5)] == list(range(5))
    sender.join(60)
    assert not sender.is_alive()


def wait_for_log(caplog, text: str) -> None:
    pause = threading.Event()
    for _ in range(1200):
        if text in caplog.text:
            return
        pause.wait(0.05)
    pytest.fail(f"{text!r} was not logged within 60 s")


def test_passes_none_repeats_until_the_dataflow_raises(pull, tmp_path):
    address = f"ipc://{tmp_path}/s"
    pull.bind(address)

    class Ending(Counting):
        def __iter__(self):
            if self.passes == 4:
                raise KeyboardInterrupt
            yield from super().__iter__()

    with pytest.raises(KeyboardInterrupt):
        send(Ending(3), address, passes=None)
    got = [plain_msgpack.loads(pull.recv()) for _ in range(12)]
    assert all(one < other for one, other in pairwise(got))


def test_an_exception_of_the_dataflow_comes_through_after_what_was_before_it(pull, tmp_path):
    address = f"ipc://{tmp_path}/s"
    pull.bind(address)
    with pytest.raises(ArithmeticError, match="item is broken"):
        send(Counting(10, fail_at=4), address)
    assert [plain_msgpack.loads(pull.recv())[1] for _ in range(4)] == list(range(4))


def test_an_endless_repetition_of_nothing_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="no datapoint in a whole pass"):
        send(Counting(0), f"ipc://{tmp_path}/s", passes=None)


def test_a_datapoint_that_cannot_travel_stops_the_sender(tmp_path):
    class Odd(Counting):
        def __iter__(self):
            yield [np.array([{}], dtype=object)]

    with pytest.raises(EncodeError, match="dtype object"):
        send(Odd(1), f"ipc://{tmp_path}/s")


def test_zmq_ops_frames_are_sent_as_they_are(pull, tmp_path):
    pull.bind(f"ipc://{tmp_path}/s")
    send(Counting(1), f"ipc://{tmp_path}/s", dumps=zmq_ops.dumps)
    assert pull.recv() == zmq_ops.dumps([1, 0])


@pytest.mark.parametrize(("hwm", "passes"), [(0, 1), (-1, 1), (1, 0)])
def test_numbers_below_one_are_refused(hwm, passes, tmp_path):
    with pytest.raises(ConfigError, match="at least 1"):
        send(Counting(1), f"ipc://{tmp_path}/s", hwm=hwm, passes=passes)


def test_a_taken_address_is_found_before_the_dataflow_is_touched(pull, tmp_path):
    address = f"ipc://{tmp_path}/s"
    pull.bind(address)
    df = Counting(1)
    with pytest.raises(AddressInUse, match="this process, pid"):
        send(df, address, bind=True)
    with pytest.raises(EndpointError, match="no scheme"):
        send(df, "nowhere")
    assert df.resets == 0

"""Plain msgpack against tensorpack 0.11 itself, in both directions, each side in a process of its own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest

from dfserve.consumer.plain import PlainReceiver
from dfserve.errors import Starved
from dfserve.formats import plain_msgpack
from dfserve.producer.plain import send_plain

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorpack") is None, reason="tensorpack is not installed (pip install 'dfserve[bench]')"
)
COUNT = 30
HANG = 60.0  # seconds; tensorpack's import alone takes several on a loaded machine

FLOW = """
import sys
import numpy as np
from tensorpack.dataflow import DataFromList, RemoteDataZMQ, send_dataflow_zmq
def datapoint(i):
    image = np.full((4, 5, 3), i, np.uint8)
    box = np.arange(6, dtype=np.float32).reshape(2, 3)[:, ::2] + i
    return [image, i, box, "name-%d" % i, {"score": np.float32(i), "empty": np.zeros((0, 2))}, [True, None, b"x"]]
"""
SEND = (
    FLOW
    + """
send_dataflow_zmq(DataFromList([datapoint(i) for i in range(int(sys.argv[3]))], shuffle=False), sys.argv[1],
                  bind=sys.argv[2] == "bind")
"""
)
RECEIVE = (
    FLOW
    + """
remote = RemoteDataZMQ(sys.argv[1], bind=sys.argv[2] == "bind")
remote.reset_state()
for i, got in zip(range(int(sys.argv[3])), remote):
    expected = datapoint(i)
    assert type(got) is list and len(got) == 6, got
    for one, other in ((got[0], expected[0]), (got[2], expected[2]), (got[4]["empty"], expected[4]["empty"])):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    assert got[1] == i and got[3] == expected[3] and got[5] == expected[5], got
    assert got[4]["score"] == np.float32(i) and got[4]["score"].dtype == np.float32
print("all equal")
"""
)


def datapoint(i: int) -> list:
    image = np.full((4, 5, 3), i, np.uint8)
    box = np.arange(6, dtype=np.float32).reshape(2, 3)[:, ::2] + i
    return [image, i, box, f"name-{i}", {"score": np.float32(i), "empty": np.zeros((0, 2))}, [True, None, b"x"]]


class Numbered:
    """A dataflow of COUNT datapoints."""

    def reset_state(self) -> None:
        pass

    def __iter__(self):
        return (datapoint(i) for i in range(COUNT))


@contextmanager
def tensorpack(program: str, address: str, how: str, serializer: str = "msgpack"):
    environment = {**os.environ, "TENSORPACK_SERIALIZE": serializer}
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", program, address, how, str(COUNT)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL if program is SEND else subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("ours", ["bind", "connect"])
def test_what_tensorpack_sends_is_received_equal(address, ours):
    theirs = "connect" if ours == "bind" else "bind"
    with (
        PlainReceiver(address, hwm=50, bind=ours == "bind", loads=plain_msgpack.loads, timeout=HANG) as receiver,
        tensorpack(SEND, address, theirs),
    ):
        for i in range(COUNT):
            got, expected = receiver.receive(), datapoint(i)
            assert plain_msgpack.dumps(got) == plain_msgpack.dumps(expected)
            for one, other in ((got[0], expected[0]), (got[2], expected[2]), (got[4]["empty"], expected[4]["empty"])):
                assert one.dtype == other.dtype
                np.testing.assert_array_equal(one, other)
        assert not receiver.bad_messages


@pytest.mark.parametrize("ours", ["bind", "connect"])
def test_what_is_sent_tensorpack_receives_equal(address, ours):
    theirs = "connect" if ours == "bind" else "bind"
    with tensorpack(RECEIVE, address, theirs) as process:
        send_plain(Numbered(), address, hwm=50, dumps=plain_msgpack.dumps, bind=ours == "bind", passes=1)
        out, err = process.communicate(timeout=HANG)
    assert out.splitlines()[-1:] == ["all equal"], err


def test_tensorpack_that_sends_pickles_is_refused_with_the_remedy(caplog, tmp_path):
    address = f"ipc://{tmp_path}/feed"
    with (
        PlainReceiver(address, hwm=50, bind=True, loads=plain_msgpack.loads, timeout=HANG) as receiver,
        tensorpack(SEND, address, "connect", serializer="pickle") as process,
    ):
        receiver_times_out_once_pickles_came(receiver, process)
    assert "TENSORPACK_SERIALIZE=msgpack" in caplog.text


def receiver_times_out_once_pickles_came(receiver: PlainReceiver, process: subprocess.Popen) -> None:
    receiver._timeout = 0.2  # a round; the deadline is HANG, in the number of rounds
    for _ in range(int(HANG / 0.2)):
        with pytest.raises(Starved):
            receiver.receive()
        if receiver.bad_messages["pickle"]:
            return
    pytest.fail("no pickle arrived")

"""Owns the tests of what strangers can do at a broker's port with bytes that break the protocol: nothing."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import zmq

from dfserve import RemoteDataZMQ
from dfserve.wire import messages as m
from dfserve.wire import values as codes
from dfserve.wire.blocks import encode_block
from dfserve.wire.envelope import seal
from dfserve.wire.limits import DEFAULT_LIMITS

Start = Callable[..., Any]
ITEMS = 300
PATIENCE = 30.0  # seconds for a plain socket to be answered or closed

# ZMTP 3.0 by hand: the greeting of a NULL peer, its READY as a DEALER, and the head of a frame with a long size.
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(16) + b"\x00" + bytes(31)
_READY = b"\x05READY\x0bSocket-Type" + struct.pack(">I", 6) + b"DEALER"
READY = b"\x04" + bytes([len(_READY)]) + _READY


def long_frame(size: int) -> bytes:
    return b"\x02" + struct.pack(">Q", size)


NOT_ZMTP = {
    "nothing": b"",
    "random bytes": random.Random(1).randbytes(100_000),
    "zeros": bytes(100_000),
    "a request for a web page": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "half a greeting": GREETING[:30],
    "a greeting with an unknown mechanism": GREETING.replace(b"NULL", b"EVIL"),
    "a greeting and noise": GREETING + random.Random(2).randbytes(1000),
    "half a READY": GREETING + READY[:10],
    "a READY of a socket that must not connect": GREETING + READY.replace(b"DEALER", b"XPUBLI"),
    "a message that breaks off": GREETING + READY + b"\x01\x05dfs" + long_frame(1000) + b"x" * 10,
    "a message that never ends": GREETING + READY + b"\x01\x01x" * 10_000,
    "a command in the place of a message": GREETING + READY + b"\x04\x05\x04EVIL",
}


@contextlib.contextmanager
def plain(port: int, data: bytes) -> Iterator[socket.socket]:
    """A TCP connection that has sent some bytes; the broker may have closed it meanwhile."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(data)
        yield connection


def is_closed_by_peer(connection: socket.socket) -> bool:
    """Read until the other side closes; a timeout means that it does not."""
    try:
        while connection.recv(65536):
            pass
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return True


A_DICT = "a user's own dict"  # the one of the bombs that is no breach of the protocol, and only a dict


class Bomb:
    """Creates a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (self.path,))


def bombs(path: Path) -> dict[str, list[bytes]]:
    """Blocks of one datapoint that carry a pickle as an array of dtype object, by the way it is wrapped."""
    pickled = np.array([Bomb(path)]).dumps()
    form = {b"nd": True, b"type": "|O", b"kind": b"O", b"shape": [1], b"data": pickled}

    def block(*columns: Any) -> bytes:
        return bytes(msgpack.packb([1, 0, None, list(columns)]))

    return {
        "an array of msgpack-numpy's": [block([0, [msgpack.ExtType(codes.NUMPY, msgpack.packb(form))]])],
        "an array of ours": [block([0, [msgpack.ExtType(codes.ARRAY, msgpack.packb(["|O", [1], pickled]))]])],
        A_DICT: [block([0, [form]])],
        "a map as the body": [bytes(msgpack.packb(form))],
        "a stack": [block([1, "|O", [], 1, False]), pickled[:8]],
        "a stack of another spelling": [block([1, "object", [len(pickled)], 1, False]), pickled],
        "arrays of several shapes": [block([2, "|O", [[1]], 1]), pickled[:8]],
        "a field of a structure": [block([1, [8, [["a", None, 0, "|O", []]]], [], 1, False]), pickled[:8]],
    }


def _plant(peer: Any, frames: list[bytes]) -> None:
    """Do all that an honest producer does before it sends a block, then send this one."""
    peer.join_as_producer("evil/0")
    peer.be_granted(sum(map(len, frames)))
    peer.say(m.Block(1, 1), *frames)
    peer.say(m.Bye(0, 0))


def hello(**changes: Any) -> list[bytes]:
    """A producer's hello with some fields replaced by what they should not be."""
    fields = vars(m.ProducerHello(bytes(16), "n", "h", 1, "default", 0, 1, b"", 0, 0)) | changes
    return [m.encode(m.ProducerHello(b"", "", "", 0, "", 0, 0, b"", 0, 0))[0], msgpack.packb(fields)]


GOOD = [bytes(frame) for frame in encode_block([[1, np.zeros(10_000, np.uint8)]]).frames]
HEADER, BODY = m.encode(m.Done(0, 0.0))
# Messages from somebody who has not said who he is, and the reason under which they count.
BAD = {
    "one frame": ([b"hello"], "frames"),
    "an empty frame and text": ([b"", b"hello"], "magic"),  # what a REQ socket sends
    "random frames": ([random.Random(3).randbytes(5), b"x" * 100], "magic"),
    "another magic": ([b"DFS" + HEADER[3:], BODY], "magic"),
    "an older version": ([HEADER[:3] + b"\x00" + HEADER[4:], BODY], "version"),
    "a newer version": ([HEADER[:3] + bytes([m.VERSION + 1]) + HEADER[4:], BODY], "version"),
    "an unknown kind": ([HEADER[:4] + b"\xfe", BODY], "kind"),
    "a truncated body": ([HEADER, BODY[:-1]], "body"),
    "a truncated header": ([HEADER[:4], BODY], "magic"),
    "a body too large": ([HEADER, bytes(m.MAX_CONTROL_BODY + 1)], "limits"),
    "a header too large": ([HEADER * 2, BODY], "limits"),
    "thousands of frames": ([*m.encode(m.Block(1, 1)), *[b"x"] * (DEFAULT_LIMITS.max_frames + 1)], "limits"),
    "a hundred thousand frames": ([b""] * 100_000, "limits"),
    "a block where none belongs": ([HEADER, BODY, *GOOD], "frames"),
    "a block without frames": (m.encode(m.Block(1, 1)), "frames"),
    "a hello without a session": (hello(session=b""), "body"),
    "a hello with an int for a name": (hello(name=7), "body"),
    "a hello without fields": ([hello()[0], msgpack.packb({})], "body"),
    "a hello that nests": ([hello()[0], b"\x91" * 100_000], "body"),
}


def test_each_bad_message_counts_under_its_reason_and_is_answered(run_broker: Start, stranger: Start) -> None:
    broker = run_broker()
    expected: Counter[str] = Counter()
    for name, (frames, reason) in BAD.items():
        peer = stranger(broker.address)
        peer.send(*frames)
        assert (name, peer.hear(m.Refused).kind) == (name, reason)
        expected[reason] += 1
        assert (name, broker.bad()) == (name, expected)
    assert broker.total("dfserve_producers") == broker.total("dfserve_consumers") == 0


@pytest.mark.parametrize(
    ("joins", "says"),
    [
        ("join_as_producer", m.Done(0, 0.0)),
        ("join_as_consumer", m.Offer(1, [1])),
        ("join_as_consumer", m.WorkerBeat(0, 0, 0, 0.0)),
        ("join_as_consumer", m.Finish(1)),
        ("join_as_producer", m.Who()),
        ("join_as_consumer", m.ConsumerWelcome(bytes(16))),
    ],
)
def test_a_message_of_the_other_role_or_of_the_broker_is_refused(
    run_broker: Start, stranger: Start, joins: str, says: m.Message
) -> None:
    broker = run_broker()
    peer = stranger(broker.address)
    getattr(peer, joins)()
    peer.say(says)
    assert peer.hear(m.Refused).kind == "kind"
    assert broker.bad() == {"kind": 1}
    getattr(peer, joins)()  # it may come back and behave


def test_a_block_without_credit_is_not_taken_in(run_broker: Start, stranger: Start) -> None:
    broker = run_broker()
    peer = stranger(broker.address)
    peer.join_as_producer()
    for sequence in (1, 2, 1 << 40):
        peer.say(m.Block(sequence, 1), *GOOD)
    peer.hear(m.Who)
    for name in ("dfserve_queue_bytes", "dfserve_queue_granted_bytes", "dfserve_datapoints_received_total"):
        assert broker.total(name) == 0, name


@pytest.mark.parametrize("change", [-1, 1])
def test_a_block_of_another_size_than_was_offered_is_refused_and_its_credit_comes_back(
    run_broker: Start, stranger: Start, change: int
) -> None:
    broker = run_broker()
    peer = stranger(broker.address)
    peer.join_as_producer()
    peer.be_granted(sum(map(len, GOOD)) + change)
    peer.say(m.Block(1, 1), *GOOD)
    assert peer.hear(m.Refused).kind == "credit"
    assert broker.bad() == {"credit": 1}
    for name in ("dfserve_queue_bytes", "dfserve_queue_granted_bytes", "dfserve_datapoints_received_total"):
        assert broker.total(name) == 0, name


def test_a_block_with_another_count_than_it_holds_is_refused(run_broker: Start, stranger: Start) -> None:
    broker = run_broker()
    peer = stranger(broker.address)
    peer.join_as_producer()
    peer.be_granted(sum(map(len, GOOD)))
    peer.say(m.Block(1, 1000), *GOOD)
    assert peer.hear(m.Refused).kind == "body"
    assert broker.bad() == {"body": 1}


def test_a_frame_over_max_frame_closes_the_connection_before_it_takes_memory(run_broker: Start) -> None:
    broker = run_broker()
    with plain(broker.port, GREETING + READY + long_frame(1 << 20) + bytes(1 << 20)) as connection:
        connection.settimeout(1)
        assert not is_closed_by_peer(connection), "a frame of a megabyte is admitted"
    before = broker.rss
    for size in (DEFAULT_LIMITS.max_frame + 1, 1 << 34, 1 << 62):
        with plain(broker.port, GREETING + READY + long_frame(size)) as connection:
            assert is_closed_by_peer(connection), size
    assert broker.rss < before + (10 << 20)


@pytest.mark.parametrize(
    ("pieces", "frames", "reason"),
    [
        ([], [GOOD[0], bytes(2 << 20)], "limits"),
        ([1, 2], [GOOD[0], bytes(1 << 20), bytes(1 << 20)], "limits"),
        ([1, 2], GOOD, "frames"),
        ([1], GOOD, "frames"),
        ([1, 1, 0], GOOD, "frames"),
        ([0, 2], GOOD, "frames"),
        ([1, 1], [GOOD[0], GOOD[1][1:]], "frames"),
        ([2], GOOD, "body"),
    ],
)
def test_a_block_over_max_frame_or_with_pieces_that_do_not_fit_is_refused(
    run_broker: Start, stranger: Start, pieces: list[int], frames: list[bytes], reason: str
) -> None:
    broker = run_broker("--max-frame", "1MiB")
    peer = stranger(broker.address)
    peer.join_as_producer()
    peer.be_granted(sum(map(len, frames)))
    peer.say(m.Block(1, 1, pieces), *frames)
    assert peer.hear(m.Refused).kind == reason
    assert broker.bad() == {reason: 1}
    assert broker.total("dfserve_queue_bytes") == broker.total("dfserve_queue_granted_bytes") == 0


def test_a_pickle_in_a_block_is_not_opened_by_the_broker_and_reaches_no_consumer(
    start: Start, run_broker: Start, stranger: Start, produce: Start, tmp_path: Path
) -> None:
    path = tmp_path / "exploded"
    broker = run_broker("--liveness", "1s")
    consumer = start("pipes.py", broker.address)
    consumer.wait_until_said("ready")
    attacks = bombs(path)
    del attacks[A_DICT]
    for frames in attacks.values():
        _plant(stranger(broker.address), frames)
    broker.wait_for("dfserve_bad_messages_total", len(attacks))
    _assert_whole(consumer, produce(broker.address, "data-0", "--passes", "1", count=ITEMS))
    assert set(broker.bad()) == {"dtype", "body"}
    assert broker.bad().total() == len(attacks)
    assert not path.exists()


CONSUME = """
import sys
if "patched" in sys.argv:
    import msgpack_numpy
    msgpack_numpy.patch()
from dfserve import RemoteDataZMQ
with RemoteDataZMQ(sys.argv[1], bind=False, timeout=60) as source:
    got = list(source)
    print([[len(got), got[-1][0], source.errors]])
"""


@pytest.mark.parametrize("patched", ["as it is", "patched"])
def test_a_consumer_opens_no_pickle_that_a_hostile_broker_sends(
    start: Start, tmp_path: Path, tcp_address: str, patched: str
) -> None:
    path = tmp_path / "exploded"
    attacks = bombs(path)
    with zmq.Context() as context, context.socket(zmq.ROUTER) as evil:
        evil.bind(tcp_address)
        consumer = start("-c", CONSUME, tcp_address, patched)
        assert evil.poll(int(PATIENCE * 1000))
        peer = evil.recv_multipart()[0]

        def say(message: m.Message, *frames: Any) -> None:
            for frame in seal([*m.encode(message), *frames], 1):
                evil.send_multipart([peer, frame])

        say(m.Who())
        while evil.poll(int(PATIENCE * 1000)):  # its hello
            if len(evil.recv_multipart()) > 2:
                break
        say(m.ConsumerWelcome(bytes(16)))
        for delivery, frames in enumerate([*attacks.values(), GOOD], 1):
            say(m.Deliver(delivery, 1, 0, "evil/0", False), *frames)
        say(m.DeliverEnd(len(attacks) + 2, 1, []))
        assert consumer.wait() == 0, consumer.output
    assert consumer.lines[-1] == [[2, 1, len(attacks) - 1]]  # the dict, and the honest block
    assert not path.exists()


def _assert_whole(consumer: Any, producer: Any) -> None:
    assert producer.wait() == 0, producer.output
    assert consumer.wait() == 0, consumer.output
    assert Counter(line[0] for line in consumer.lines if isinstance(line, list)) == Counter(range(ITEMS))


def _attack(broker: Any, stranger: Start, path: Path, rng: random.Random) -> None:
    """One round of everything, in a random order; some connections are left open, half-way through a message."""
    messages = [frames for frames, _ in BAD.values() if len(frames) < 10_000]
    messages += [[rng.randbytes(rng.randrange(30)) for _ in range(rng.randrange(1, 9))] for _ in range(50)]
    messages += [[*m.encode(m.Block(1, 1)), *frames] for frames in bombs(path).values()]
    rng.shuffle(messages)
    joined = stranger(broker.address)
    joined.join_as_producer("evil/0")
    anonymous = stranger(broker.address)
    for frames in messages:
        rng.choice([joined, anonymous]).send(*frames)
    for peer in (joined, anonymous):
        peer.socket.close(linger=1000)
    for data in NOT_ZMTP.values():
        with plain(broker.port, data):
            pass


def test_an_honest_stream_goes_on_beside_every_kind_of_attack(
    start: Start, run_broker: Start, stranger: Start, produce: Start, until: Any, tmp_path: Path
) -> None:
    path = tmp_path / "exploded"
    broker = run_broker("--liveness", "1s")
    consumer = start("pipes.py", broker.address)
    consumer.wait_until_said("ready")
    with contextlib.ExitStack() as half_open:
        for data in NOT_ZMTP.values():
            half_open.enter_context(plain(broker.port, data))
        attacked = tmp_path / "attacked"  # the second half comes when there was all of it, however slow that is
        half = {"count": ITEMS, "pause": 0.01, "nbytes": 10_000, "hold_at": ITEMS // 2, "hold_until": str(attacked)}
        producer = produce(broker.address, "data-0", "--passes", "1", **half)
        rng = random.Random(4)

        def one_more() -> bool:
            _attack(broker, stranger, path, rng)
            return {"magic", "frames", "version", "kind", "body", "limits"} <= set(broker.bad())

        until(one_more, "all that is wrong with messages to be noticed")
        attacked.touch()
        while producer.process.poll() is None:
            _attack(broker, stranger, path, rng)
        _assert_whole(consumer, producer)
    assert broker.labelled("dfserve_datapoints_received_total")["data-0/0"] == ITEMS
    until(lambda: broker.total("dfserve_queue_bytes") == 0, "the last receipt, which nobody waits for")
    assert not path.exists()


def test_a_stranger_at_the_public_port_of_a_trainer_does_not_disturb_it(
    produce: Start, stranger: Start, free_port: int, scrape: Any, until: Any, tmp_path: Path
) -> None:
    path = tmp_path / "exploded"
    with RemoteDataZMQ("tcp://127.0.0.1:0", timeout=60, metrics_port=free_port) as source:
        (address,) = source.endpoints
        peer = stranger(address)
        for frames, _ in BAD.values():
            peer.send(*frames)
        attacks = bombs(path)
        del attacks[A_DICT]
        for frames in attacks.values():
            _plant(stranger(address), frames)
        with plain(int(address.rpartition(":")[2]), NOT_ZMTP["random bytes"]):
            producer = produce(address, "data-0", "--passes", "1", count=ITEMS)
            assert [next(source)[0] for _ in range(ITEMS)] == list(range(ITEMS))
        assert producer.wait() == 0
        # Random bytes may make sense to libzmq, as messages of the first version of its protocol.
        least = len(BAD) + len(attacks)
        until(lambda: scrape(free_port).total("dfserve_bad_messages_total") >= least, "all to be read, and counted")
    assert not path.exists()


def test_a_client_of_another_version_is_told_both_versions(run_broker: Start, stranger: Start) -> None:
    broker = run_broker()
    peer = stranger(broker.address)
    peer.send(m.MAGIC + bytes([m.VERSION + 1, m.ProducerHello.CODE]), b"whatever a later version says")
    refused = peer.hear(m.Refused)
    assert refused.kind == "version"
    assert f"protocol {m.VERSION + 1}, this one {m.VERSION}" in refused.text
    assert "install the same dfserve on both" in refused.text


LATER = """
import sys
from dfserve.wire import messages as m
m.VERSION += 1
m._header.cache_clear()
import dfserve, pipes
if sys.argv[2] == "producer":
    dfserve.send_dataflow_zmq(pipes.numbers(), sys.argv[1], passes=1)
else:
    list(dfserve.RemoteDataZMQ(sys.argv[1], bind=False, timeout=60))
"""


@pytest.mark.parametrize("role", ["producer", "consumer"])
def test_a_real_client_of_another_version_ends_with_an_error_that_says_so(
    start: Start, run_broker: Start, role: str
) -> None:
    client = start("-c", LATER, run_broker().address, role)
    assert client.wait() != 0
    last = client.output.splitlines()[-1]
    assert "install the same dfserve on both" in last
    assert f"protocol {m.VERSION}, this one {m.VERSION + 1}" in last

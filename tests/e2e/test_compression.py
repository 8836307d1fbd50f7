"""Owns the tests of compression between producers and brokers in real processes: what arrives, and who refuses what."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from dfserve import ConfigError, RemoteDataZMQ, send_dataflow_zmq
from dfserve.broker.budget import charge_of
from dfserve.keys import make_keys
from dfserve.wire import messages as m
from dfserve.wire.blocks import encode_block
from dfserve.wire.codecs import NAMES, codec_of
from dfserve.wire.compression import compress

Start = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20
COUNT, NBYTES = 300, 20_000
CODEC = pytest.mark.parametrize("codec", NAMES)


@pytest.fixture(autouse=True)
def everything_goes_through_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """As from other machines: what lies in shared memory is not compressed."""
    monkeypatch.setenv("DFSERVE_SHARED_MEMORY", "false")


def test_what_lies_in_shared_memory_is_not_compressed(run_broker: Start) -> None:
    broker = run_broker()
    noise = np.random.default_rng(0).integers(0, 256, NBYTES, np.uint8)
    send_dataflow_zmq([[number, noise] for number in range(3000)], broker.address, passes=1, compression="zstd")
    # All but what was made before the memory was mapped: a block, or if the broker is slow then 32 of these 60 MB.
    assert ratio(broker) < 0.8
    with RemoteDataZMQ(broker.address, bind=False, timeout=60) as consumer:
        assert [number for number, _ in consumer] == list(range(3000))


def ratio(broker: Any) -> float:
    """What came over the network, as a share of the blocks."""
    return float(broker.total("dfserve_received_wire_bytes_total") / broker.total("dfserve_received_bytes_total"))


# ---------------------------------------------------------------------- what arrives


@CODEC
def test_a_stream_arrives_as_it_was_sent_in_fewer_bytes(run_broker: Start, produce: Start, codec: str) -> None:
    broker = run_broker()
    flags = ("--workers", "2", "--passes", "1", "--compression", codec)
    producer = produce(broker.address, "data-1", *flags, count=COUNT, nbytes=NBYTES)
    with RemoteDataZMQ(broker.address, bind=False, min_producers=2, timeout=60) as consumer:
        numbers = []
        for number, array in consumer:
            assert array.shape == (NBYTES,)
            assert (array == number % 256).all()
            numbers.append(number)
    assert sorted(numbers) == sorted([*range(COUNT), *range(COUNT)])
    assert producer.wait() == 0
    assert ratio(broker) < 0.1
    assert set(broker.labelled("dfserve_received_wire_bytes_total")) == {"data-1/0", "data-1/1"}
    assert broker.bad() == {}


@CODEC
def test_arrays_of_several_pieces_arrive_whole(run_broker: Start, produce: Start, codec: str) -> None:
    broker = run_broker()
    produce(broker.address, "data-1", "--compression", codec, factory="batches", nbytes=9 * MIB + 1)
    with RemoteDataZMQ(broker.address, bind=False, timeout=60) as consumer:
        for array, labels in itertools.islice(consumer, 5):
            assert array.shape == (9 * MIB + 1,)
            assert not array.any()
            assert (labels == np.arange(64)).all()
    assert ratio(broker) < 0.1


@CODEC
def test_epochs_are_the_same_with_compression(rig: Any, tcp_address: str, metrics_port: int, codec: str) -> None:
    rig.broker(tcp_address, "--metrics-port", str(metrics_port))
    digests, arrived = [], []
    for name, flags in (("plain", ()), ("small", ("--compression", codec))):
        producer = rig.produce(tcp_address, n=300, nbytes=4000, flags=flags)
        rows = rig.read(rig.consumer(tcp_address, order="strict", seed=7, split_size=16, group=name))
        assert rig.multiset(rows) == rig.whole(300)
        digests.append(rig.digest(rows))
        producer.signal(15)
        assert producer.wait() == 0
        arrived.append([rig.metric(metrics_port, f"dfserve_received_{what}bytes_total") for what in ("wire_", "")])
    assert digests[0] == digests[1]
    plain, both = arrived
    assert plain[0] >= plain[1]
    assert both[0] - plain[0] < 0.5 * (both[1] - plain[1]), "that of the second producer is small"


@CODEC
def test_connections_that_are_cut_repeat_compressed_blocks_and_lose_nothing(
    run_broker: Start, produce: Start, monkeypatch: pytest.MonkeyPatch, codec: str
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    broker = run_broker("--queue-bytes", "4MiB")
    proxy = importlib.import_module("proxy").Proxy(broker.port)
    flags = ("--passes", "1", "--compression", codec)
    produce(f"tcp://127.0.0.1:{proxy.port}", "data-1", *flags, count=2000, nbytes=NBYTES)
    try:
        with RemoteDataZMQ(broker.address, bind=False, timeout=60) as consumer:
            numbers = []
            for number, array in consumer:
                assert (array == number % 256).all()
                numbers.append(number)
                if len(numbers) in (300, 700, 1100):
                    proxy.cut()
    finally:
        proxy.close()
    assert numbers == list(range(2000))
    assert broker.bad() == {}


@CODEC
def test_what_is_encrypted_can_be_compressed_too(run_broker: Start, produce: Start, tmp_path: Path, codec: str) -> None:
    folder = tmp_path / "keys"
    make_keys(folder, ["data-1", "trainer"])
    broker = run_broker("--keys", str(folder))
    key = folder / "clients"
    flags = ("--passes", "1", "--keys", str(key / "data-1.secret"), "--compression", codec)
    produce(broker.address, "data-1", *flags, count=COUNT, nbytes=NBYTES)
    with RemoteDataZMQ(broker.address, bind=False, keys=key / "trainer.secret", timeout=60) as consumer:
        assert [int(number) for number, _ in consumer] == list(range(COUNT))
    assert ratio(broker) < 0.1


def test_what_does_not_shrink_takes_the_bytes_that_it_has(run_broker: Start) -> None:
    broker = run_broker()
    rng = np.random.default_rng(0)
    noise = [[number, rng.integers(0, 256, NBYTES, np.uint8)] for number in range(50)]
    send_dataflow_zmq(noise, broker.address, passes=1, compression="zstd", shared_memory=False)
    assert ratio(broker) == 1.0
    with RemoteDataZMQ(broker.address, bind=False, timeout=60) as consumer:
        for number, array in consumer:
            assert (array == noise[number][1]).all()


# ---------------------------------------------------------------------- a package that is missing


@pytest.fixture
def without(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """Return the environment of a process in which a package cannot be imported."""

    def _without(package: str) -> dict[str, str]:
        (tmp_path / f"{package}.py").write_text(f"raise ImportError('no {package} here')\n")
        return {"PYTHONPATH": f"{tmp_path}:{ROOT}"}

    return _without


@pytest.mark.parametrize(("codec", "package"), [("lz4", "lz4"), ("zstd", "zstandard")])
def test_a_producer_without_the_package_says_what_to_install_before_it_does_anything(
    dfserve: Start, without: Any, codec: str, package: str
) -> None:
    words = ("produce", "pipes:unpicture", "--to", "tcp://127.0.0.1:9", "--compression", codec)
    producer = dfserve(*words, **without(package))
    assert producer.wait() == 2
    assert f"compression with {codec} needs the package {package}: pip install 'dfserve[{codec}]'" in producer.output


def test_a_broker_without_the_package_is_an_error_at_the_sender_that_says_what_to_install_there(
    dfserve: Start, without: Any, tcp_address: str
) -> None:
    broker = dfserve("broker", "--bind", tcp_address, **without("lz4"))
    broker.wait_until_said("broker ready")
    data = [[number] for number in range(10)]
    with pytest.raises(ConfigError, match=r"cannot decompress lz4: pip install 'dfserve\[lz4\]' on its machine"):
        send_dataflow_zmq(data, tcp_address, passes=1, compression="lz4", shared_memory=False)
    words = ("produce", "pipes:numbers", "--to", tcp_address, "--passes", "1", "--compression", "lz4")
    assert dfserve(*words).wait() == 2
    send_dataflow_zmq(data, tcp_address, passes=1, compression="zstd", shared_memory=False)  # which it has
    with RemoteDataZMQ(tcp_address, bind=False, timeout=60) as consumer:
        assert next(consumer) == [0]


# ---------------------------------------------------------------------- strangers

BLOCK = [bytes(frame) for frame in encode_block([[1, np.zeros(MIB, np.uint8)]]).frames]
GRANTED = sum(map(len, BLOCK))


def packed(*how: Any) -> bytes:
    return bytes(msgpack.packb(list(how)))


def attacks(codec: str) -> dict[str, tuple[list[bytes], str]]:
    """What follows the header and the body of a message that was granted `BLOCK`, and why it is refused."""
    how, body, array = compress(BLOCK, codec_of(codec)) or []
    sizes = msgpack.unpackb(how)[1:]
    bomb = codec_of(codec).compress(bytes(200 * MIB))
    return {
        "a bomb": ([how, body, bomb], "body"),
        "a bomb of its true size": ([packed(codec, 0, 200 * MIB), body, bomb], "limits"),
        "half of a frame": ([how, body, array[: len(array) // 2]], "body"),
        "noise": ([how, body, bytes(range(256)) * 4], "body"),
        "a larger block than was granted": ([packed(codec, 0, 2 * MIB), body, array], "credit"),
        "a smaller block than was granted": ([packed(codec, 0, MIB - 1), body, array], "credit"),
        "a body that is none": ([packed(codec, len(body), MIB), codec_of(codec).compress(body), body], "body"),
        "another block of that size": (
            [packed(codec, 0, GRANTED), b"", codec_of(codec).compress(bytes(GRANTED))],
            "body",
        ),
        "too few sizes": ([packed(codec, 0), body, array], "frames"),
        "no sizes": ([b"\xc1", body, array], "body"),
        "a codec that there is not": ([packed("gzip", *sizes), body, array], "body"),
        "no frames": ([how], "frames"),
    }


@CODEC
@pytest.mark.parametrize("name", attacks("lz4"))
def test_a_compressed_block_that_is_not_what_was_granted_is_refused_and_counted(
    run_broker: Start, stranger: Start, codec: str, name: str
) -> None:
    broker = run_broker()
    frames, reason = attacks(codec)[name]
    peer = stranger(broker.address)
    welcome = peer.join_as_producer()
    assert sorted(welcome.codecs) == sorted(NAMES)
    peer.be_granted(GRANTED)
    before = broker.rss
    peer.send(*m.encode(m.Block(1, 1), compressed=True), *frames)
    assert peer.hear(m.Refused).kind == reason
    assert broker.bad() == {reason: 1}
    assert broker.rss < before + 20 * MIB
    for metric in ("dfserve_queue_bytes", "dfserve_queue_granted_bytes", "dfserve_datapoints_received_total"):
        assert broker.total(metric) == 0, metric
    send_dataflow_zmq([[5]], broker.address, passes=1, compression=codec, shared_memory=False)  # the others go on
    assert broker.total("dfserve_datapoints_received_total") == 1


def test_a_compressed_block_without_credit_is_not_decompressed(run_broker: Start, stranger: Start) -> None:
    broker = run_broker()
    peer = stranger(broker.address)
    peer.join_as_producer()
    frames, _ = attacks("zstd")["half of a frame"]  # which would be refused, if anybody looked
    for sequence in (1, 2, 1 << 40):
        peer.send(*m.encode(m.Block(sequence, 1), compressed=True), *frames)
    peer.hear(m.Who)
    assert broker.bad() == {}
    assert broker.total("dfserve_received_wire_bytes_total") == 0


def test_what_carries_no_block_is_not_compressed(run_broker: Start, stranger: Start) -> None:
    broker = run_broker()
    for message in (m.Finish(1), m.Beat(), m.Deliver(1, 1, 0, "x", again=False)):
        peer = stranger(broker.address)
        peer.join_as_producer()
        peer.send(*m.encode(message, compressed=True), *attacks("lz4")["a bomb"][0])
        assert peer.hear(m.Refused).kind == "kind"


def test_a_granted_block_is_charged_as_large_as_it_is_when_decompressed(run_broker: Start, stranger: Start) -> None:
    broker = run_broker()
    peer = stranger(broker.address)
    peer.join_as_producer()
    peer.be_granted(GRANTED)
    peer.send(*m.encode(m.Block(1, 1), compressed=True), *(compress(BLOCK, codec_of("zstd")) or []))
    broker.wait_for("dfserve_datapoints_received_total", 1)
    assert broker.total("dfserve_queue_bytes") == charge_of(GRANTED)
    assert broker.total("dfserve_received_bytes_total") == GRANTED
    assert broker.total("dfserve_received_wire_bytes_total") < GRANTED / 100

"""Owns the tests of keys on tcp, with real sockets and processes: who gets in, who does not, and what both are told."""

from __future__ import annotations

import contextlib
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dfserve import ConfigError, KeysError, RemoteDataZMQ, Starved, send_dataflow_zmq
from dfserve.broker.server import Broker
from dfserve.dataflow import DataFromList
from dfserve.keys import make_keys

PASS = DataFromList([[number] for number in range(100)], shuffle=False)
EXPECTED = [n for n in range(100) for _ in range(0 if n % 7 == 3 else 2 if n % 5 == 1 else 1)]  # epochs_pipes:items
LIMIT = 30.0  # seconds in which a refusal must be known; it takes one


class Keys:
    """A broker's folder with the clients data-1 and trainer, and another broker's."""

    def __init__(self, tmp_path: Path) -> None:
        self.folder, self.other = tmp_path / "keys", tmp_path / "other"
        make_keys(self.folder, ["data-1", "trainer"])
        make_keys(self.other, ["data-1"])

    def client(self, name: str = "trainer") -> Path:
        return self.folder / "clients" / f"{name}.secret"

    def revoke(self, name: str = "trainer") -> None:
        (self.folder / "clients" / f"{name}.public").unlink()


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path)


@pytest.fixture
def locked(run_broker: Callable[..., Any], keys: Keys) -> Any:
    """A broker with keys, at tcp and at an abstract ipc address."""
    return run_broker("--keys", str(keys.folder), binds=("tcp://127.0.0.1:0", f"ipc://@keys-{secrets.token_hex(6)}"))


def refusal_of_a_consumer(address: str, path: Path | None) -> str:
    """Connect, and return the error; nothing may arrive."""
    with pytest.raises(KeysError) as caught, RemoteDataZMQ(address, bind=False, keys=path, timeout=LIMIT) as consumer:
        pytest.fail(f"received {next(consumer)}")
    return str(caught.value)


def refusal_of_a_producer(address: str, path: Path | None) -> str:
    with pytest.raises(KeysError) as caught:
        send_dataflow_zmq(PASS, address, passes=1, keys=path)
    return str(caught.value)


REFUSALS = pytest.mark.parametrize("refusal_of", [refusal_of_a_consumer, refusal_of_a_producer])


# ---------------------------------------------------------------------- who gets in


def test_a_stream_passes_between_clients_with_keys(locked: Any, keys: Keys, produce: Callable[..., Any]) -> None:
    producer = produce(
        locked.address, "data-1", "--workers", "2", "--passes", "1", "--keys", str(keys.client("data-1")), count=50
    )
    with RemoteDataZMQ(locked.address, bind=False, keys=keys.client(), min_producers=2, timeout=60) as consumer:
        assert sorted(int(number) for number, _ in consumer) == sorted([*range(50), *range(50)])
    assert producer.wait() == 0
    assert locked.total("dfserve_refused_connections_total") == 0


def test_ipc_beside_it_asks_for_no_key(locked: Any, keys: Keys) -> None:
    tcp, ipc = locked.addresses
    sending = threading.Thread(target=send_dataflow_zmq, args=(PASS, ipc), kwargs={"passes": 1}, daemon=True)
    with (
        RemoteDataZMQ(ipc, bind=False, group="near", timeout=60) as near,
        RemoteDataZMQ(tcp, bind=False, group="far", keys=keys.client(), timeout=60) as far,
    ):
        near.reset_state()
        far.reset_state()
        sending.start()
        assert [number for (number,) in near] == [number for (number,) in far] == list(range(100))
    sending.join()


def test_an_embedded_broker_asks_for_keys_and_its_trainer_needs_none(
    keys: Keys, free_port: int, dfserve: Callable[..., Any]
) -> None:
    address = f"tcp://127.0.0.1:{free_port}"
    command = ("produce", "epochs_pipes:items", "--to", address)
    with RemoteDataZMQ(
        address, keys=str(keys.folder), mode="epochs", order="strict", shuffle=False, timeout=60
    ) as epochs:
        stranger = dfserve(*command, "--passes", "1")
        dfserve(*command, "--keys", str(keys.client("data-1")))
        for _ in range(2):
            assert [int(number) for number, *_ in epochs] == EXPECTED
        assert stranger.wait() == 2
        assert "asks for a key, and none was given" in stranger.output


def test_a_sender_that_binds_asks_for_keys(keys: Keys, free_port: int) -> None:
    address = f"tcp://127.0.0.1:{free_port}"
    sending = threading.Thread(
        target=send_dataflow_zmq,
        args=(PASS, address),
        kwargs={"passes": 1, "bind": True, "keys": keys.folder},
        daemon=True,
    )
    sending.start()
    assert "asks for a key" in refusal_of_a_consumer(address, None)
    with RemoteDataZMQ(address, bind=False, keys=keys.client(), timeout=60) as consumer:
        assert [number for (number,) in consumer] == list(range(100))
    sending.join()


def test_large_arrays_pass_too(locked: Any, keys: Keys) -> None:
    large = np.random.default_rng(0).integers(0, 256, 20_000_000, np.uint8)
    sending = threading.Thread(
        target=send_dataflow_zmq,
        args=(DataFromList([[large]] * 3), locked.address),
        kwargs={"passes": 1, "keys": keys.client("data-1")},
        daemon=True,
    )
    with RemoteDataZMQ(locked.address, bind=False, keys=keys.client(), timeout=60) as consumer:
        consumer.reset_state()
        sending.start()
        assert [np.array_equal(array, large) for (array,) in consumer] == [True] * 3
    sending.join()


def test_a_client_that_is_admitted_later_gets_in_without_a_restart(locked: Any, keys: Keys) -> None:
    make_keys(keys.folder, ["late"])
    with RemoteDataZMQ(locked.address, bind=False, keys=keys.client("late"), timeout=LIMIT) as consumer:
        consumer.reset_state()


def test_keys_stand_in_for_insecure(run_broker: Callable[..., Any], keys: Keys) -> None:
    broker = run_broker("--keys", str(keys.folder), binds=("tcp://0.0.0.0:0",))
    with RemoteDataZMQ(f"tcp://127.0.0.1:{broker.port}", bind=False, keys=keys.client(), timeout=LIMIT) as consumer:
        consumer.reset_state()


# ---------------------------------------------------------------------- who does not


@REFUSALS
def test_a_client_without_a_key_is_told_how_to_get_one(
    locked: Any, refusal_of: Callable[..., str], until: Callable[..., Any]
) -> None:
    text = refusal_of(locked.address, None)
    assert f"the broker at {locked.address} asks for a key, and none was given" in text
    assert "dfserve keys FOLDER NAME" in text
    # A connection that was only broken off may be counted first: who closes it is chance.
    until(lambda: locked.labelled("dfserve_refused_connections_total")["no_key"] >= 1, "it to be counted")
    assert (locked.total("dfserve_consumers"), locked.total("dfserve_producers")) == (0, 0)


@REFUSALS
def test_a_key_that_was_never_admitted_is_refused(locked: Any, keys: Keys, refusal_of: Callable[..., str]) -> None:
    keys.revoke()
    text = refusal_of(locked.address, keys.client())
    assert f"does not admit the key of {keys.client()}" in text
    assert "dfserve keys FOLDER NAME" in text
    assert locked.labelled("dfserve_refused_connections_total")["unknown_key"] >= 1
    assert "refused a client from 127.0.0.1: no file in" in locked.program.output


@REFUSALS
def test_a_client_that_expects_another_broker_says_so(
    locked: Any, keys: Keys, refusal_of: Callable[..., str], until: Callable[..., Any]
) -> None:
    path = keys.other / "clients" / "data-1.secret"
    text = refusal_of(locked.address, path)
    assert f"the broker at {locked.address} has another key than the one that {path} pins" in text
    until(lambda: locked.labelled("dfserve_refused_connections_total")["wrong_broker_key"] >= 3, "them to be counted")


@REFUSALS
def test_a_client_with_a_key_tells_nothing_to_a_broker_without(
    run_broker: Callable[..., Any], keys: Keys, refusal_of: Callable[..., str]
) -> None:
    broker = run_broker()
    text = refusal_of(broker.address, keys.client())
    assert f"the broker at {broker.address} has no keys, so nothing would be encrypted" in text
    assert "--keys FOLDER" in text
    broker.wait_for("dfserve_refused_connections_total", 1)
    assert (broker.total("dfserve_consumers"), broker.total("dfserve_producers")) == (0, 0)


def test_a_refusal_is_known_before_a_short_timeout_calls_it_silence(locked: Any) -> None:
    def ask(consumer: RemoteDataZMQ) -> None:
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            with contextlib.suppress(Starved):  # a broker that is late: each round ends with the same last look
                next(consumer)

    refused = pytest.raises(KeysError, match="asks for a key")
    with RemoteDataZMQ(locked.address, bind=False, timeout=0.9) as consumer, refused:
        ask(consumer)


def test_a_revoked_client_is_refused_at_its_next_connection(locked: Any, keys: Keys) -> None:
    with RemoteDataZMQ(locked.address, bind=False, keys=keys.client(), timeout=LIMIT) as consumer:
        consumer.reset_state()
        keys.revoke()
        sending = threading.Thread(
            target=send_dataflow_zmq,
            args=(PASS, locked.address),
            kwargs={"passes": 1, "keys": keys.client("data-1")},
            daemon=True,
        )
        sending.start()
        assert len(list(consumer)) == 100  # the connection that was there goes on
        sending.join()
    assert "it was revoked" in refusal_of_a_consumer(locked.address, keys.client())


def test_a_waiting_worker_is_refused_when_its_broker_comes_back_without_it(
    run_broker: Callable[..., Any], keys: Keys, produce: Callable[..., Any], free_port: int
) -> None:
    address = f"tcp://127.0.0.1:{free_port}"
    broker = run_broker("--keys", str(keys.folder), binds=(address,))
    producer = produce(address, "data-1", "--keys", str(keys.client("data-1")), pause=0.05)
    broker.wait_for("dfserve_producers", 1)
    broker.program.kill()
    keys.revoke("data-1")
    run_broker("--keys", str(keys.folder), binds=(address,))
    producer.wait_until_said("does not admit the key of")


def test_a_broker_whose_folder_is_opened_to_others_admits_nobody(locked: Any, keys: Keys) -> None:
    (keys.folder / "clients").chmod(0o777)
    assert "cannot read its own keys" in refusal_of_a_consumer(locked.address, keys.client())
    assert "chmod 700" in locked.program.output
    assert locked.labelled("dfserve_refused_connections_total")["broken_keys"] >= 1


def test_a_client_waits_for_a_broker_behind_a_tunnel_that_is_not_there_yet(keys: Keys) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        ended = threading.Event()

        def slam() -> None:
            with contextlib.suppress(OSError):
                while not ended.is_set():
                    listener.accept()[0].close()

        slamming = threading.Thread(target=slam, daemon=True)
        slamming.start()
        try:
            with (
                pytest.raises(Starved, match="nothing was heard from a broker"),
                RemoteDataZMQ(f"tcp://127.0.0.1:{port}", bind=False, keys=keys.client(), timeout=4) as consumer,
            ):
                consumer.reset_state()
        finally:
            ended.set()
            socket.create_connection(("127.0.0.1", port)).close()
            slamming.join(60)


# ---------------------------------------------------------------------- what is on the wire


class Tap:
    """Forwards a port to another, and keeps what passes."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self.seen = bytearray()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near = self._listener.accept()[0]
                far = socket.create_connection(("127.0.0.1", self._target))
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._forward, args=(one, other), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError), source, target:
            while data := source.recv(1 << 16):
                self.seen += data
                target.sendall(data)

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def tap(request: pytest.FixtureRequest) -> Iterator[Callable[[int], Tap]]:
    taps: list[Tap] = []

    def _tap(port: int) -> Tap:
        taps.append(Tap(port))
        return taps[-1]

    yield _tap
    for each in taps:
        each.close()


@pytest.mark.parametrize("with_keys", [True, False])
def test_with_keys_nobody_on_the_way_can_read_what_is_sent(
    run_broker: Callable[..., Any], keys: Keys, tap: Callable[[int], Tap], with_keys: bool
) -> None:
    broker = run_broker(*(["--keys", str(keys.folder)] if with_keys else []))
    wire = tap(broker.port)
    texts = DataFromList([["the secret recipe of the house"]] * 10)
    own = keys.client("data-1") if with_keys else None
    sending = threading.Thread(
        target=send_dataflow_zmq, args=(texts, wire.address), kwargs={"passes": 1, "keys": own}, daemon=True
    )
    with RemoteDataZMQ(wire.address, bind=False, keys=keys.client() if with_keys else None, timeout=60) as consumer:
        consumer.reset_state()
        sending.start()
        assert len(list(consumer)) == 10
    sending.join()
    assert (b"the secret recipe" in wire.seen) is not with_keys
    assert (b"default" in wire.seen) is not with_keys  # the pipeline's and the group's name
    assert len(wire.seen) > 300


# ---------------------------------------------------------------------- the loop, the calls and the commands


def test_a_stranger_that_says_nothing_holds_nobody_up(locked: Any, keys: Keys) -> None:
    silent = [socket.create_connection(("127.0.0.1", locked.port)) for _ in range(20)]
    started = time.monotonic()
    with RemoteDataZMQ(locked.address, bind=False, keys=keys.client(), timeout=LIMIT) as consumer:
        consumer.reset_state()
    assert time.monotonic() - started < LIMIT
    for each in silent:
        each.close()


def test_an_ipc_address_may_come_after_a_tcp_one_and_the_order_is_kept(keys: Keys) -> None:
    ipc = f"ipc://@keys-{secrets.token_hex(6)}"
    with Broker(["tcp://127.0.0.1:0", ipc, "tcp://127.0.0.1:0"], until=lambda: True, keys=keys.folder) as broker:
        assert [address.partition("://")[0] for address in broker.endpoints] == ["tcp", "ipc", "tcp"]
        assert broker.endpoints[1] == ipc


def test_a_call_whose_keys_cannot_be_used_fails_before_it_binds_or_connects(keys: Keys, free_port: int) -> None:
    address = f"tcp://127.0.0.1:{free_port}"
    with pytest.raises(KeysError, match="is a folder"), RemoteDataZMQ(address, bind=False, keys=keys.folder) as it:
        it.reset_state()
    with pytest.raises(KeysError, match="is a file"), RemoteDataZMQ(address, keys=keys.client()) as it:
        it.reset_state()
    with pytest.raises(KeysError, match="is a folder"):
        send_dataflow_zmq(PASS, address, keys=keys.folder)
    with pytest.raises(ConfigError, match="keys: format='msgpack' is another program's"):
        send_dataflow_zmq(PASS, address, format="msgpack", keys=keys.client())
    with pytest.raises(ConfigError, match="keys: format='msgpack' is another program's"):
        RemoteDataZMQ(address, format="msgpack", keys=keys.folder)


def test_the_commands_make_keys_use_them_and_refuse_what_others_can_read(
    dfserve: Callable[..., Any], run_broker: Callable[..., Any], produce: Callable[..., Any], tmp_path: Path
) -> None:
    folder = tmp_path / "made"
    made = dfserve("keys", str(folder), "data-1")
    assert made.wait() == 0
    assert f"made {folder}/clients/data-1.secret: copy it to that client" in made.output
    assert dfserve("keys", str(folder)).wait() == 0  # a client called client
    again = dfserve("keys", str(folder), "data-1")
    assert again.wait() == 2
    assert "exists already" in again.output

    broker = run_broker("--keys", str(folder))
    mine = folder / "clients" / "data-1.secret"
    producer = produce(broker.address, "data-1", "--keys", str(mine), "--passes", "1", count=20)
    consumer = dfserve("consume", broker.address, "--json", DFSERVE_KEYS=str(folder / "clients" / "client.secret"))
    assert (producer.wait(), consumer.wait()) == (0, 0)
    assert consumer.lines[-1]["items"] == 20
    broker.program.signal(signal.SIGTERM)

    for path, command in (
        (mine, ("produce", "pipes:numbers", "--to", broker.address, "--keys", str(mine))),
        (folder / "broker.secret", ("broker", "--bind", "tcp://127.0.0.1:0", "--keys", str(folder))),
    ):
        path.chmod(0o644)
        refused = dfserve(*command)
        assert refused.wait() == 2
        assert f"chmod 600 {path}" in refused.output
        assert "Traceback" not in refused.output

"""Owns the tests of the broker's front: what is bound answers connections before there is a broker behind it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from dfserve import AddressInUse, KeysError
from dfserve.broker.front import Front
from dfserve.broker.server import Broker
from dfserve.client import Connection
from dfserve.wire.limits import DEFAULT_LIMITS
from dfserve.wire.messages import Who

PATIENCE_MS = 60_000  # a hang becomes a failure


@pytest.fixture
def connection(address: str) -> Iterator[Connection]:
    with Connection(address) as one:
        yield one


def test_a_client_that_comes_before_the_broker_is_asked_who_it_is_as_soon_as_there_is_one(
    address: str, connection: Connection
) -> None:
    front = Front([address], DEFAULT_LIMITS)
    assert connection.socket.poll(PATIENCE_MS, zmq.POLLOUT), "no connection"  # there is none before its handshake
    with Broker(front, until=lambda: False) as broker:
        assert broker.endpoints == [address]
        deadline = time.monotonic() + PATIENCE_MS / 1000
        while (received := connection.receive()) is None and time.monotonic() < deadline:
            broker.turn()
    assert received is not None
    assert isinstance(received[0], Who)


def test_closing_frees_the_address_and_removes_its_file_and_may_be_done_twice(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/socket"
    for _ in range(2):
        with Front([address], DEFAULT_LIMITS) as front:
            assert (tmp_path / "socket").is_socket()
        front.close()
        assert not (tmp_path / "socket").exists()


def test_a_broker_closes_the_front_that_it_was_given(tmp_path: Path) -> None:
    with Broker(Front([f"ipc://{tmp_path}/socket"], DEFAULT_LIMITS), until=lambda: True):
        pass
    assert not (tmp_path / "socket").exists()


def test_when_an_address_is_taken_those_before_it_are_free_again(address: str, tmp_path: Path) -> None:
    with Front([address], DEFAULT_LIMITS):
        with pytest.raises(AddressInUse):
            Front([f"ipc://{tmp_path}/first", address], DEFAULT_LIMITS)
        assert not (tmp_path / "first").exists()


def test_keys_that_cannot_be_used_bind_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeysError):
        Front([f"ipc://{tmp_path}/socket"], DEFAULT_LIMITS, tmp_path / "none")
    assert not (tmp_path / "socket").exists()


def loaded_by(statement: str) -> set[str]:
    script = f"import json, sys\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return set(json.loads(done.stdout))


def test_an_embedded_broker_has_not_loaded_numpy_or_its_decisions_when_it_binds() -> None:
    loaded = loaded_by("import dfserve.broker.__main__")
    assert "dfserve.broker.front" in loaded
    assert loaded.isdisjoint({"numpy", "dfserve.broker.core", "dfserve.broker.server", "cv2", "prometheus_client"})


def test_a_broker_does_not_load_what_it_may_never_need_before_it_serves() -> None:
    loaded = loaded_by("import dfserve.broker.server")
    unneeded = {"epochs_job", "ledger", "ledger_file", "committer", "http", "metrics"}
    assert loaded.isdisjoint({f"dfserve.broker.{name}" for name in unneeded} | {"numpy.random", "numpy.typing"})

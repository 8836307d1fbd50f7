"""Owns the tests of a client's connection that need no broker: how it looks for one."""

from __future__ import annotations

import pytest
import zmq

from dfserve.client import RECONNECT_MAX_BY_NAME_MS, RECONNECT_MAX_MS, Connection


@pytest.mark.parametrize(
    ("address", "longest"),
    [
        ("ipc://@nobody-c", RECONNECT_MAX_MS),
        ("tcp://127.0.0.1:1", RECONNECT_MAX_MS),
        ("tcp://localhost:1", RECONNECT_MAX_MS),
        ("tcp://trainer.invalid:1", RECONNECT_MAX_BY_NAME_MS),
    ],
)
def test_a_broker_by_name_is_looked_for_less_often_since_each_time_asks_a_name_server(
    address: str, longest: int
) -> None:
    with Connection(address) as connection:
        assert connection.socket.getsockopt(zmq.RECONNECT_IVL_MAX) == longest


def test_an_interruption_before_there_is_a_socket_is_raised_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(context: zmq.Context[zmq.Socket[bytes]], *_: object) -> None:
        context.term()
        raise KeyboardInterrupt

    monkeypatch.setattr(zmq.Context, "socket", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Connection("ipc://@nobody")

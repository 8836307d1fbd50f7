"""Owns the tests of the HTTP server for metrics and health."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator

import pytest

from dfserve import AddressInUse
from dfserve.http import Health, make_server


class State:
    """What the probes answer; tests change it."""

    alive: str | None = None
    ready: str | None = None


@pytest.fixture
def state() -> State:
    return State()


@pytest.fixture
def port(state: State) -> Iterator[int]:
    health = Health(lambda: b"dfserve_up 1\n", lambda: state.alive, lambda: state.ready)
    with make_server("127.0.0.1", 0, health) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def get(port: int, path: str, method: str = "GET") -> tuple[int, str, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.getheader("Content-Type", ""), answer.read().decode()
    finally:
        connection.close()


@pytest.mark.parametrize("path", ["/metrics", "/metrics?name[]=up"])
def test_the_metrics_page_is_served_as_prometheus_reads_it(port: int, path: str) -> None:
    status, content_type, body = get(port, path)
    assert (status, body) == (200, "dfserve_up 1\n")
    assert content_type.startswith("text/plain; version=0.0.4")


def test_what_lives_and_is_ready_says_ok(port: int) -> None:
    assert get(port, "/livez")[::2] == (200, "ok\n")
    assert get(port, "/readyz")[::2] == (200, "ok\n")


def test_what_is_wrong_is_said_with_503_by_the_probe_that_asks_for_it(port: int, state: State) -> None:
    state.ready = "draining"
    assert get(port, "/readyz")[::2] == (503, "draining\n")
    assert get(port, "/livez")[0] == 200
    state.alive = "the poll loop has not turned for 11 s"
    assert get(port, "/livez")[::2] == (503, "the poll loop has not turned for 11 s\n")


def test_any_other_path_is_answered_with_what_there_is(port: int) -> None:
    status, _, body = get(port, "/")
    assert status == 404
    assert "/metrics, /livez and /readyz" in body


def test_other_methods_are_refused(port: int) -> None:
    assert get(port, "/metrics", "POST")[0] == 501


def test_serving_says_nothing_on_standard_error(port: int, capfd: pytest.CaptureFixture[str]) -> None:
    get(port, "/metrics")
    assert capfd.readouterr().err == ""


def test_a_port_that_is_taken_is_named_with_the_flag_to_change() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        with pytest.raises(AddressInUse, match=f"metrics port {number} .*; give another --metrics-port"):
            make_server("127.0.0.1", number, Health(bytes, lambda: None, lambda: None))

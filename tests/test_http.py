"""Owns the tests of the HTTP server for metrics and health."""

from __future__ import annotations

import http.client
import resource
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from dfserve import AddressInUse
from dfserve import http as ours
from dfserve.http import REQUEST, Health, make_server

PATIENCE = 60.0  # seconds: a hang becomes a failure
PAGE = b"x" * (32 << 20)  # more than the system takes from us for a client that reads nothing


class State:
    """What the pages answer; tests change it."""

    metrics = b"dfserve_up 1\n"
    alive: str | None = None
    ready: str | None = None

    @property
    def health(self) -> Health:
        return Health(lambda: self.metrics, lambda: self.alive, lambda: self.ready)


@pytest.fixture
def state() -> State:
    return State()


@pytest.fixture(autouse=True)
def _nobody_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless a test wants it: on a busy machine an honest client may be slow too."""
    monkeypatch.setattr(ours, "TIMEOUT", 4 * PATIENCE)


@contextmanager
def serving(state: State, host: str = "127.0.0.1") -> Iterator[int]:
    """Serve in a thread; yields the port."""
    stop = threading.Event()
    with make_server(host, 0, state.health) as server:

        def serve() -> None:
            while not stop.is_set():
                server.turn(0.02)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.port
        finally:
            stop.set()
            thread.join()


@pytest.fixture
def port(state: State) -> Iterator[int]:
    with serving(state) as number:
        yield number


@pytest.fixture
def connect(port: int) -> Iterator[Callable[..., socket.socket]]:
    """Connect a client that says no more than a test has it say."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE))


def everything(client: socket.socket) -> bytes:
    """Return what comes until the other side ends it."""
    return b"".join(iter(lambda: client.recv(1 << 20), b""))


def open_sockets() -> set[str]:
    """Return the sockets that this process has open, under names that no two sockets share."""
    names = set()
    for file in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile, as that of the listing itself
            names.add(str(file.readlink()))
    return {name for name in names if name.startswith("socket:")}


def get(
    port: int, path: str, method: str = "GET", body: bytes | None = None, host: str = "127.0.0.1"
) -> tuple[int, str, str]:
    connection = http.client.HTTPConnection(host, port, timeout=PATIENCE)
    try:
        connection.request(method, path, body)
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


def test_other_methods_are_refused_also_with_a_body_that_nobody_wants(port: int) -> None:
    assert get(port, "/metrics", "POST")[0] == 501
    assert get(port, "/metrics", "POST", b"x" * (1 << 20))[0] == 501


def test_a_request_is_answered_when_all_of_it_is_there(state: State) -> None:
    request = b"GET /livez HTTP/1.1\r\nHost: here\r\n\r\n"
    answers = [state.health.respond(request[:length]) for length in range(len(request) + 1)]
    assert answers[:-1] == [None] * len(request)
    assert answers[-1] is not None
    assert answers[-1].startswith(b"HTTP/1.0 200 OK\r\n")
    assert answers[-1].endswith(b"\r\n\r\nok\n")


@pytest.mark.parametrize(
    ("received", "status"),
    [
        (b"GET /livez\r\n\r\n", b"400"),
        (b"\r\n\r\n", b"400"),
        (b"\xff\x00 \x80 HTTP/1.1\n\n", b"501"),
        (b"GET \xff\x00 HTTP/1.1\r\n\r\n", b"404"),
        (b"x" * (REQUEST + 1), b"431"),
    ],
)
def test_what_is_no_request_is_refused(state: State, received: bytes, status: bytes) -> None:
    answer = state.health.respond(received)
    assert answer is not None
    assert answer.split()[1] == status


def test_a_request_without_an_end_is_refused_when_it_is_too_large(connect: Callable[..., socket.socket]) -> None:
    client = connect()
    client.sendall(b"GET /livez HTTP/1.1\r\n" + b"Name: value\r\n" * (REQUEST // 10))
    assert everything(client).startswith(b"HTTP/1.0 431 ")


def test_a_page_that_fails_is_logged_and_the_next_one_is_answered(
    port: int, state: State, caplog: pytest.LogCaptureFixture
) -> None:
    state.metrics = None  # type: ignore[assignment]
    assert get(port, "/metrics")[0] == 500
    assert "/metrics' cannot be answered" in caplog.text
    assert get(port, "/livez")[0] == 200


def test_clients_that_say_nothing_or_half_hold_up_no_other(port: int, connect: Callable[..., socket.socket]) -> None:
    connect()
    connect().sendall(b"GET /livez HT")
    assert get(port, "/livez")[0] == 200


def test_a_client_that_reads_nothing_holds_up_no_other_and_has_all_when_it_reads(
    port: int, state: State, connect: Callable[..., socket.socket]
) -> None:
    state.metrics = PAGE
    client = connect()
    client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
    assert get(port, "/livez")[0] == 200
    client.sendall(b"GET /livez HTTP/1.1\r\n\r\n")
    client.shutdown(socket.SHUT_WR)
    head, _, body = everything(client).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 200 ")
    assert body == PAGE, "and no answer to what came after it"


def test_clients_that_go_in_the_middle_leave_nothing_behind(
    port: int, state: State, connect: Callable[..., socket.socket], until: Any
) -> None:
    state.metrics = PAGE
    before = open_sockets()
    silent, reading = connect(), connect()
    reading.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
    assert reading.recv(4) == b"HTTP"
    silent.close()
    reading.close()
    # No new ones: not the number of all, of which an earlier test's may be collected meanwhile.
    until(lambda: open_sockets() <= before, "the server to close its ends")
    assert get(port, "/livez")[0] == 200


def test_a_client_that_is_slower_than_all_of_a_connection_may_take_is_cut_off_whatever_it_still_says(
    port: int, connect: Callable[..., socket.socket], monkeypatch: pytest.MonkeyPatch, until: Any
) -> None:
    monkeypatch.setattr(ours, "TIMEOUT", 0.3)
    client = connect()

    def cut_off() -> bool:
        try:
            client.sendall(b"G")
        except ConnectionError:
            return True
        return False

    until(cut_off, "the end of a client that goes on dripping")


def test_of_too_many_clients_the_oldest_is_cut_off(
    port: int, connect: Callable[..., socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ours, "CONNECTIONS", 2)
    oldest, older = connect(), connect()
    assert get(port, "/livez")[0] == 200
    assert everything(oldest) == b""
    older.sendall(b"GET /livez HTTP/1.1\r\n\r\n")
    assert everything(older).endswith(b"ok\n")


def test_a_client_that_comes_when_too_many_files_are_open_is_served_when_they_are_not(state: State, until: Any) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with (
        make_server("127.0.0.1", 0, state.health) as server,
        socket.create_connection(("127.0.0.1", server.port), PATIENCE) as client,
    ):

        def answered() -> bool:
            server.turn(0.02)
            return bool(select.select([client], [], [], 0)[0])

        client.sendall(b"GET /livez HTTP/1.1\r\n\r\n")
        resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno() + 1, hard))
        try:
            assert not answered()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        until(answered, "an answer")
        assert everything(client).endswith(b"ok\n")


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


def test_all_addresses_are_those_of_ipv6_too(state: State) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with serving(state, "") as number:
        assert get(number, "/livez", host="127.0.0.1")[0] == 200
        assert get(number, "/livez", host="::1")[0] == 200


def test_without_ipv6_all_addresses_are_those_of_ipv4(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    with serving(state, "") as number:
        assert get(number, "/livez")[0] == 200


def test_binding_asks_no_name_server_who_we_are(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_arguments: object) -> Any:
        raise AssertionError("it may take long to answer, and nobody needs to know")

    for name in ("getfqdn", "gethostbyaddr", "getnameinfo"):
        monkeypatch.setattr(socket, name, asked)
    make_server("", 0, state.health).close()

"""Addresses: what is accepted, what is refused and how, and who gets to bind."""

from __future__ import annotations

import os
import signal
import socket as sockets
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from dfserve import endpoints
from dfserve.endpoints import Endpoint, parse
from dfserve.errors import AddressInUse, EndpointError

HOLD = """
import sys, time, zmq
socket = zmq.Context().socket(zmq.PULL)
socket.setsockopt(zmq.IPV6, int("[" in sys.argv[1]))
socket.bind(sys.argv[1])
print(socket.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\\0").decode(), flush=True)
time.sleep(600)
"""


class HeldElsewhere:
    """An address that another process binds."""

    def __init__(self, address: str) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", HOLD, address], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()
        self.pid = self.process.pid

    def kill(self) -> None:
        self.process.kill()

    def __enter__(self) -> HeldElsewhere:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def pull():
    with zmq.Context() as context, context.socket(zmq.PULL) as socket:
        yield socket
        socket.close(linger=0)


@pytest.fixture
def push():
    with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
        yield socket
        socket.close(linger=0)


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def has_ipv6() -> bool:
    with sockets.socket(sockets.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tcp://127.0.0.1:8877", Endpoint("tcp://127.0.0.1:8877", "tcp", "127.0.0.1", 8877)),
        ("tcp://*:8877", Endpoint("tcp://*:8877", "tcp", "*", 8877)),
        ("tcp://[::1]:8877", Endpoint("tcp://[::1]:8877", "tcp", "::1", 8877)),
        ("tcp://[0:0::1]:8877", Endpoint("tcp://[::1]:8877", "tcp", "::1", 8877)),
        ("tcp://trainer-1.example.org:1", Endpoint("tcp://trainer-1.example.org:1", "tcp", "trainer-1.example.org", 1)),
        ("tcp://127.0.0.1:*", Endpoint("tcp://127.0.0.1:0", "tcp", "127.0.0.1", 0)),
        ("tcp://127.0.0.1:0", Endpoint("tcp://127.0.0.1:0", "tcp", "127.0.0.1", 0)),
        ("ipc:///tmp/feed", Endpoint("ipc:///tmp/feed", "ipc", path="/tmp/feed")),
        ("ipc://@feed", Endpoint("ipc://@feed", "ipc", path="@feed", abstract=True)),
    ],
)
def test_an_address_is_read(text, expected):
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "taught"),
    [
        ("", "no scheme"),
        ("127.0.0.1:8877", "no scheme"),
        ("udp://127.0.0.1:8877", "unknown scheme 'udp'"),
        ("inproc://feed", "joins threads"),
        ("tcp://127.0.0.1", "no port"),
        ("tcp://127.0.0.1:", "no port"),
        ("tcp://[::1]", "no port"),
        ("tcp://127.0.0.1:65536", "65535"),
        ("tcp://127.0.0.1:-1", "'-1' is not a number"),
        ("tcp://127.0.0.1:http", "'http' is not a number"),
        ("tcp://127.0.0.1:٣", "is not a number"),
        ("tcp://127.0.0.1:" + "9" * 5000, "is not a number"),
        ("tcp://:8877", "not a host"),
        ("tcp://::1:8877", "brackets"),
        ("tcp://[127.0.0.1]:8877", "not a host"),
        ("tcp://127.0.0.256:8877", "not a host"),
        ("tcp://127.0.0.1;10.0.0.1:8877", "not a host"),
        ("tcp://a b:8877", "not a host"),
        ("ipc://", "names no socket"),
        ("ipc://@", "names no socket"),
        ("ipc://*", "names no socket"),
        ("ipc:///tmp/a\0b", "names no socket"),
        ("ipc:///" + "x" * 107, "108 bytes"),
        ("ipc://@" + "ü" * 54, "109 bytes"),
    ],
)
def test_a_wrong_address_is_refused_with_what_to_do(text, taught):
    with pytest.raises(EndpointError, match="address") as caught:
        parse(text)
    assert taught in str(caught.value)


def test_the_longest_ipc_path_can_be_bound(tmp_path, pull):
    path = str(tmp_path / "x")
    path += "x" * (endpoints.MAX_PATH_BYTES - len(path))
    assert endpoints.bind(pull, parse(f"ipc://{path}")) == f"ipc://{path}"


def test_a_relative_ipc_path_is_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert parse("ipc://feed").path == f"{tmp_path}/feed"


@given(st.text())
def test_any_text_is_read_or_refused_by_an_endpoint_error(text):
    for candidate in (text, f"tcp://{text}", f"tcp://{text}:1", f"ipc://{text}"):
        try:
            ep = parse(candidate)
        except EndpointError:
            continue
        assert parse(ep.text) == ep


@pytest.mark.parametrize(
    "text",
    [
        "ipc:///tmp/a",
        "ipc://@a",
        "tcp://localhost:1",
        "tcp://127.9.9.9:1",
        "tcp://[::1]:1",
        "tcp://[::ffff:127.0.0.1]:1",
    ],
)
def test_loopback_and_ipc_are_safe_to_bind(text):
    assert endpoints.is_loopback(parse(text))
    endpoints.require_safe(parse(text), insecure=False)


@pytest.mark.parametrize("text", ["tcp://*:1", "tcp://0.0.0.0:1", "tcp://[::]:1", "tcp://10.0.0.1:1", "tcp://eth0:1"])
def test_what_other_machines_reach_asks_for_insecure(text):
    assert not endpoints.is_loopback(parse(text))
    with pytest.raises(EndpointError, match="--insecure"):
        endpoints.require_safe(parse(text), insecure=False)
    endpoints.require_safe(parse(text), insecure=True)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:*", "tcp://*:0", pytest.param("tcp://[::1]:0", marks=needs_ipv6)])
def test_port_0_becomes_the_real_port(address, pull):
    bound = endpoints.bind(pull, parse(address))
    assert port_of(bound) > 0
    holder = endpoints.holder(parse(bound))
    assert holder is not None
    assert holder.pid == os.getpid()


@pytest.mark.parametrize(
    "address",
    [
        "tcp://127.0.0.1:*",
        "tcp://localhost:0",
        "ipc://@dfserve-test-",
        "path",
        pytest.param("tcp://[::1]:0", marks=needs_ipv6),
    ],
)
def test_what_is_bound_can_be_connected_to(address, pull, push, tmp_path):
    if "@" in address:
        address += str(os.getpid())
    bound = endpoints.bind(pull, parse(f"ipc://{tmp_path}/s" if address == "path" else address))
    endpoints.connect(push, parse(bound))
    push.send(b"hello")
    assert pull.poll(60_000)
    assert pull.recv() == b"hello"


def test_the_other_processs_pid_and_command_are_in_the_message(pull):
    with HeldElsewhere("tcp://127.0.0.1:*") as held, pytest.raises(AddressInUse) as caught:
        endpoints.bind(pull, parse(held.address), patience=0)
    assert f"address {held.address} is bound by pid {held.pid} ({sys.executable} -c" in str(caught.value)
    assert "connect to it if it is a broker (bind=False)" in str(caught.value)


@pytest.mark.parametrize(
    ("held", "wanted"),
    [
        ("tcp://*:*", "127.0.0.1"),
        ("tcp://127.0.0.1:*", "*"),
        ("tcp://127.0.0.1:*", "0.0.0.0"),
        ("tcp://127.0.0.1:*", "localhost"),
        pytest.param("tcp://[::]:*", "127.0.0.1", marks=needs_ipv6),
        pytest.param("tcp://127.0.0.1:*", "[::]", marks=needs_ipv6),
        pytest.param("tcp://[::1]:*", "[::]", marks=needs_ipv6),
    ],
)
def test_a_wildcard_and_a_specific_address_exclude_each_other(held, wanted, pull):
    with HeldElsewhere(held) as other:
        ep = parse(f"tcp://{wanted}:{port_of(other.address)}")
        holder = endpoints.holder(ep)
        assert holder is not None
        assert holder.pid == other.pid
        with pytest.raises(AddressInUse, match=f"pid {other.pid} "):
            endpoints.bind(pull, ep, patience=0)


def test_another_address_with_the_same_port_is_free(pull):
    with HeldElsewhere("tcp://127.0.0.1:*") as held:
        ep = parse(f"tcp://127.0.0.2:{port_of(held.address)}")
        assert endpoints.holder(ep) is None
        assert endpoints.bind(pull, ep, patience=0) == ep.text


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_a_live_ipc_socket_is_not_stolen(kind, tmp_path, pull):
    address = f"ipc://{tmp_path}/feed" if kind == "path" else f"ipc://@dfserve-live-{os.getpid()}"
    with HeldElsewhere(address) as held:
        with pytest.raises(AddressInUse, match=f"pid {held.pid} "):
            endpoints.bind(pull, parse(address), patience=0)
        holder = endpoints.holder(parse(address))
        assert holder is not None
        assert holder.pid == held.pid


def test_a_stale_socket_file_is_taken_over(tmp_path, pull):
    address = f"ipc://{tmp_path}/feed"
    with HeldElsewhere(address) as held:
        held.kill()
    assert (tmp_path / "feed").is_socket()
    assert endpoints.holder(parse(address)) is None
    assert endpoints.bind(pull, parse(address), patience=0) == address


@pytest.mark.parametrize("scheme", ["tcp", "ipc"])
def test_bind_waits_for_a_holder_that_is_about_to_end(scheme, tmp_path, pull):
    with HeldElsewhere("tcp://127.0.0.1:*" if scheme == "tcp" else f"ipc://{tmp_path}/feed") as held:
        with pytest.raises(AddressInUse):
            endpoints.bind(pull, parse(held.address), patience=0)
        killer = threading.Timer(0.3, held.kill)
        killer.start()
        assert endpoints.bind(pull, parse(held.address), patience=30) == held.address
        killer.join()


def test_a_stopped_listener_whose_backlog_is_full_still_counts(tmp_path):
    path = str(tmp_path / "feed")
    with sockets.socket(sockets.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        waiting = []
        for _ in range(3):
            one = sockets.socket(sockets.AF_UNIX)
            one.setblocking(False)
            one.connect_ex(path)
            waiting.append(one)
        assert endpoints.holder(parse(f"ipc://{path}")) is not None
        for one in waiting:
            one.close()


def test_a_file_that_is_no_socket_is_not_deleted(tmp_path, pull):
    precious = tmp_path / "weights"
    precious.write_text("precious")
    with pytest.raises(EndpointError, match="is not a socket"):
        endpoints.bind(pull, parse(f"ipc://{precious}"))
    assert precious.read_text() == "precious"


def test_a_missing_folder_is_named(tmp_path, pull):
    with pytest.raises(EndpointError, match=r"there is no folder .*/gone"):
        endpoints.bind(pull, parse(f"ipc://{tmp_path}/gone/feed"))


def test_an_address_of_another_machine_cannot_be_bound(pull):
    with pytest.raises(EndpointError, match="not an address of this machine"):
        endpoints.bind(pull, parse("tcp://192.0.2.77:8877"))


def test_a_name_that_nothing_resolves_cannot_be_bound(pull):
    with pytest.raises(EndpointError, match="neither a name that resolves nor a network interface"):
        endpoints.bind(pull, parse("tcp://nowhere.invalid:8877"))


AS_NOBODY = """
import os, sys, zmq
from dfserve import endpoints
from dfserve.errors import EndpointError
os.setgroups([]); os.setgid(65534); os.setuid(65534)  # after the imports: nobody may be kept out of root's Python
socket = zmq.Context().socket(zmq.PULL)
try:
    endpoints.bind(socket, endpoints.parse(sys.argv[1]), patience=0)
except EndpointError as error:
    print(type(error).__name__, error)
socket.close()
"""


def as_nobody(address: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", AS_NOBODY, address], capture_output=True, text=True, check=True, timeout=60
    ).stdout


@pytest.fixture
def open_folder(tmp_path_factory):
    """A folder that another user can enter and not write to, as /tmp/pytest-of-user is not."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="dfserve-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")


@as_root
def test_permission_denied_in_a_folder_is_said(open_folder):
    assert "permission denied" in as_nobody(f"ipc://{open_folder}/feed")


@as_root
def test_another_users_socket_is_neither_stolen_nor_waited_for(open_folder):
    with HeldElsewhere(f"ipc://{open_folder}/feed") as held:
        assert "another user" in as_nobody(held.address)


@as_root
def test_a_holder_that_may_not_be_looked_at_is_still_a_holder(open_folder):
    with HeldElsewhere("tcp://127.0.0.1:*") as held:
        said = as_nobody(held.address)
    assert said.startswith("AddressInUse")
    assert "may not look at" in said


@pytest.mark.parametrize("address", ["tcp://*:8877", "tcp://0.0.0.0:8877", "tcp://[::]:8877"])
def test_a_wildcard_cannot_be_connected_to(address, pull):
    with pytest.raises(EndpointError, match="name that machine"):
        endpoints.connect(pull, parse(address))


def test_port_0_cannot_be_connected_to(pull):
    with pytest.raises(EndpointError, match="name the port"):
        endpoints.connect(pull, parse("tcp://127.0.0.1:*"))


def test_a_name_that_does_not_resolve_yet_can_be_connected_to_and_is_said(pull, caplog):
    endpoints.connect(pull, parse("tcp://broker.invalid:8877"))
    assert "no host is known here by the name 'broker.invalid'" in caplog.text


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_nothing_is_said_of_a_host_that_is_known(pull, caplog, host):
    endpoints.connect(pull, parse(f"tcp://{host}:8877"))
    assert not caplog.text


def test_a_holder_that_is_suspended_is_named(pull):
    with HeldElsewhere("tcp://127.0.0.1:*") as held:
        held.process.send_signal(signal.SIGSTOP)
        with pytest.raises(AddressInUse, match=f"pid {held.pid} "):
            endpoints.bind(pull, parse(held.address), patience=0)

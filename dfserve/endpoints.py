"""Owns addresses: what ``tcp://host:port`` and ``ipc://path`` mean, and how a socket binds or connects to one.

Whoever binds an address hosts the broker; whoever connects is a client.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import socket as sockets
import stat
import time
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from dfserve.errors import AddressInUse, EndpointError
from dfserve.listeners import Holder, tcp_listener, unix_listener

# Only who binds or connects loads zmq: addresses are checked before a broker is started, which should not wait for it.
if TYPE_CHECKING:
    import zmq

log = logging.getLogger(__name__)

FORMS = "write tcp://host:port, tcp://*:port, tcp://[::1]:port, ipc:///path/to/socket or ipc://@name"
MAX_PATH_BYTES = 107  # sun_path of struct sockaddr_un has 108, one of which ends the path
MAX_PORT = 65535
RETRY_SECONDS = 0.05  # between two tries to bind: short beside the patience, long beside a look through /proc
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")


@dataclass(frozen=True)
class Endpoint:
    """An address, checked.

    Attributes:
        text: the canonical form, as libzmq takes it.
        scheme: ``"tcp"`` or ``"ipc"``.
        host: tcp: a literal address without brackets, a name, or ``*`` (every IPv4 address of this machine); ipc: "".
        port: tcp: 1 to 65535, or 0 for any free port, which only ``bind`` can use; ipc: 0.
        path: ipc: the absolute path of the socket's file, or ``@name``; tcp: "".
        abstract: ipc: the name is in Linux's abstract namespace, which needs no file.
    """

    text: str
    scheme: str
    host: str = ""
    port: int = 0
    path: str = ""
    abstract: bool = False

    def __str__(self) -> str:
        return self.text

    @property
    def is_wildcard(self) -> bool:
        """Whether it means every address of the machine that binds it; nobody can connect to it."""
        literal = _literal(self.host)
        return self.host == "*" or (literal is not None and literal.is_unspecified)

    @property
    def is_named(self) -> bool:
        """Whether each attempt to connect asks a name server for the address; ``localhost`` needs none."""
        return self.scheme == "tcp" and self.host not in ("*", "localhost") and _literal(self.host) is None


def parse(text: str) -> Endpoint:
    """Read an address. A relative ipc path is taken from the current folder and made absolute.

    Raises:
        EndpointError: it is not an address that dfserve can use; the message says what to write.
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        raise EndpointError(f"address {text!r} has no scheme; {FORMS}")
    if scheme == "tcp":
        return _parse_tcp(text, rest)
    if scheme == "ipc":
        return _parse_ipc(text, rest)
    if scheme == "inproc":
        raise EndpointError(
            f"address {text!r}: inproc:// joins threads of one process, dfserve joins processes; {FORMS}"
        )
    raise EndpointError(f"address {text!r} has the unknown scheme {scheme!r}; {FORMS}")


def _parse_tcp(text: str, rest: str) -> Endpoint:
    host, separator, port_text = rest.rpartition(":")
    if not separator or rest.endswith("]") or not port_text:
        raise EndpointError(f"address {text!r} has no port; {FORMS}")
    bracketed = host.startswith("[") and host.endswith("]")
    host = _checked_host(text, host[1:-1] if bracketed else host, bracketed)
    port = _checked_port(text, port_text)
    shown = f"[{host}]" if ":" in host else host
    return Endpoint(f"tcp://{shown}:{port}", "tcp", host=host, port=port)


def _checked_host(text: str, host: str, bracketed: bool) -> str:
    if ":" in host and not bracketed:
        raise EndpointError(f"address {text!r}: an IPv6 address stands in brackets, as in tcp://[::1]:8877")
    if not bracketed and (host == "*" or (_NAME.fullmatch(host) and not re.fullmatch(r"[0-9.]+", host))):
        return host
    literal = _literal(host)
    if literal is None or bracketed is not isinstance(literal, IPv6Address):
        raise EndpointError(f"address {text!r}: {host!r} is not a host; {FORMS}")
    return str(literal)


def _literal(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _checked_port(text: str, port: str) -> int:
    if port == "*":
        return 0
    if not (port.isascii() and port.isdigit()) or len(port) > 5 or int(port) > MAX_PORT:
        raise EndpointError(
            f"address {text!r}: port {port!r} is not a number from 1 to {MAX_PORT} (or 0 or *: any free port)"
        )
    return int(port)


def _parse_ipc(text: str, rest: str) -> Endpoint:
    if rest in ("", "@", "*") or "\0" in rest:
        raise EndpointError(
            f"address {text!r} names no socket; write ipc:///path/to/socket, or ipc://@name to need no file"
        )
    abstract = rest.startswith("@")
    path = rest if abstract else os.path.abspath(rest)  # noqa: PTH100  # Path.resolve would follow links
    size = len(os.fsencode(path))
    if size > MAX_PATH_BYTES:
        raise EndpointError(
            f"address {text!r}: {path!r} has {size} bytes, and a unix socket's name at most {MAX_PATH_BYTES}; "
            "use a shorter folder such as /tmp or $XDG_RUNTIME_DIR, or ipc://@name"
        )
    return Endpoint(f"ipc://{path}", "ipc", path=path, abstract=abstract)


def is_loopback(ep: Endpoint) -> bool:
    """Whether only this machine can reach it: ipc, localhost, 127.0.0.0/8 and ::1. Other names count as reachable."""
    if ep.scheme == "ipc" or ep.host == "localhost":
        return True
    literal = _literal(ep.host)
    mapped = literal.ipv4_mapped if isinstance(literal, IPv6Address) else None
    return literal is not None and (mapped or literal).is_loopback


def require_safe(ep: Endpoint, insecure: bool, locked: bool = False) -> None:
    """Refuse to bind what other machines can reach, unless keys are asked for there, or ``insecure`` says it is meant.

    Raises:
        EndpointError: the address is reachable from other machines, ``locked`` and ``insecure`` are false.
    """
    if not insecure and not locked and not is_loopback(ep):
        raise EndpointError(
            f"address {ep} can be reached from other machines, and nothing is encrypted or checked: whoever reaches it "
            "can read the data and send other data. Make keys with `dfserve keys FOLDER` and pass --keys FOLDER; "
            "or pass --insecure if the network is yours alone; or bind tcp://127.0.0.1 or ipc://"
        )


def warn_if_open(ep: Endpoint, locked: bool) -> None:
    """Log a warning for an address to bind that other machines can reach, and where no keys are asked for."""
    if not locked and not is_loopback(ep):
        log.warning(
            "%s can be reached from other hosts and asks for no key; make keys with `dfserve keys FOLDER` and pass "
            "keys='FOLDER', or bind a private network's address",
            ep,
        )


def holder(ep: Endpoint) -> Holder | None:
    """Who listens at ``ep`` on this machine at this moment; None if nobody does. No lock: that may change at once.

    Raises:
        EndpointError: the ipc path belongs to something that this user may not connect to.
    """
    if ep.scheme == "tcp":
        return tcp_listener(ep.host, ep.port) if ep.port else None
    try:
        return unix_listener(ep.path)
    except PermissionError:
        raise EndpointError(
            f"address {ep}: permission denied; the socket belongs to another user, use another path"
        ) from None


def bind(socket: zmq.Socket[bytes], ep: Endpoint, patience: float = 2.0) -> str:
    """Bind ``socket`` and return the address that it got, with the real port in place of 0.

    libzmq deletes an ipc path before it binds it, whoever listens there and whatever it is. So the path is looked at
    first: a live socket is never stolen, a file that is no socket never deleted, a stale socket file taken over. Two
    processes that bind one ipc path in the same millisecond can still both find it free.

    Args:
        patience: seconds to try again while somebody holds the address; 2, because the embedded broker of a killed
            trainer needs a moment to notice.

    Raises:
        AddressInUse: somebody still holds it; the message names the process.
        EndpointError: it cannot be bound for another reason, which the message says.
    """
    import zmq

    deadline = time.monotonic() + patience
    numeric = _numeric(ep)
    socket.setsockopt(zmq.IPV6, int(":" in numeric.host))
    while not _try_bind(socket, numeric):
        if time.monotonic() >= deadline:
            raise AddressInUse(_in_use(ep))
        time.sleep(RETRY_SECONDS)
    return bytes(socket.getsockopt(zmq.LAST_ENDPOINT)).rstrip(b"\0").decode()


def connect(socket: zmq.Socket[bytes], ep: Endpoint) -> None:
    """Connect ``socket``; whoever binds the address may come later, and so may its name, but that is logged.

    Raises:
        EndpointError: nobody can connect to this address (``*``, ``0.0.0.0``, ``::``, port 0), or libzmq refuses it.
    """
    import zmq

    if ep.is_wildcard:
        raise EndpointError(
            f"address {ep}: {ep.host} means every address of the machine that binds; to connect, "
            "name that machine, e.g. tcp://trainer-1:8877, or 127.0.0.1 for this one"
        )
    if ep.scheme == "tcp" and ep.port == 0:
        raise EndpointError(f"address {ep}: port 0 means any free port and is for binding; to connect, name the port")
    numeric = _numeric(ep)
    if numeric.is_named:
        log.warning(
            "%s: no host is known here by the name %r; is it right? It is looked up again and again", ep, ep.host
        )
    socket.setsockopt(zmq.IPV6, int(":" in numeric.host))
    try:
        socket.connect(ep.text)  # a name stays one: libzmq looks it up again at each try
    except zmq.ZMQError as error:
        raise EndpointError(f"cannot connect to {ep}: {_reason(ep, error)}") from None


def _numeric(ep: Endpoint) -> Endpoint:
    """The endpoint with a name's address in place of the name, IPv4 where it has one; a name without is left as it is.

    libzmq before 4.3.5 binds no names, and with its IPv6 option on it prefers IPv6 for every name.
    """
    if ep.scheme == "ipc" or ep.host == "*" or _literal(ep.host) is not None:
        return ep
    try:
        found = sockets.getaddrinfo(ep.host, ep.port, type=sockets.SOCK_STREAM)
    except OSError:
        return ep  # an interface's name, or a machine that is not up yet
    addresses = {entry[0]: str(entry[4][0]) for entry in reversed(found)}
    host = addresses.get(sockets.AF_INET) or addresses[sockets.AF_INET6]
    return _parse_tcp(ep.text, f"[{host}]:{ep.port}" if ":" in host else f"{host}:{ep.port}")


def _try_bind(socket: zmq.Socket[bytes], ep: Endpoint) -> bool:
    import zmq

    if ep.path and not ep.abstract and not _path_is_free(ep):
        return False
    try:
        socket.bind(ep.text)
    except zmq.ZMQError as error:
        if error.errno == errno.EADDRINUSE:
            return False
        raise EndpointError(f"cannot bind {ep}: {_reason(ep, error)}") from None
    return True


def _path_is_free(ep: Endpoint) -> bool:
    folder = Path(ep.path).parent
    if not folder.is_dir():
        raise EndpointError(f"cannot bind {ep}: there is no folder {folder}; make it first")
    try:
        mode = os.lstat(ep.path).st_mode
    except FileNotFoundError:
        return True
    except OSError as error:
        raise EndpointError(f"cannot bind {ep}: {error.strerror}") from None
    if not stat.S_ISSOCK(mode):
        raise EndpointError(f"cannot bind {ep}: {ep.path} exists and is not a socket; use another path, or delete it")
    return holder(ep) is None


def _in_use(ep: Endpoint) -> str:
    held_by = holder(ep)
    if held_by is not None:
        return f"address {ep} is bound by {held_by}; connect to it if it is a broker (bind=False), or bind another one"
    if ep.path and not ep.abstract:
        return f"address {ep}: nobody listens, but this user may not replace the file; delete it or use another path"
    return f"address {ep} is bound, this system does not tell by whom; connect (bind=False), or bind another one"


def _reason(ep: Endpoint, error: zmq.ZMQError) -> str:
    if error.errno == errno.ENODEV:
        return f"{ep.host!r} is neither a name that resolves nor a network interface of this machine"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{ep.host} is not an address of this machine; tcp://*:{ep.port} binds all that it has"
    if error.errno == errno.EACCES:
        return "permission denied" + (" (ports below 1024 are for root)" if 0 < ep.port < 1024 else "")
    return os.strerror(error.errno or 0)

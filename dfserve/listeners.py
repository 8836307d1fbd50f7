"""Owns the question who listens at an address of this machine, answered from /proc and from the sockets themselves.

The answer describes a moment: the process may end, and another may start, before the caller acts on it. It is meant for
error messages and for not stealing a live socket file; it is no lock.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

Address = IPv4Address | IPv6Address

LISTEN = "0A"  # the state column of /proc/net/tcp
COMMAND_CHARACTERS = 100  # enough to recognise a process in an error message, which stays one line
PATIENCE = 1.0  # seconds; a local connect either answers at once or finds the listener's backlog full
PEERCRED = struct.Struct("3i")  # struct ucred: pid, uid, gid


@dataclass(frozen=True)
class Holder:
    """Who listens at an address.

    Attributes:
        pid: its process id, or None where the system does not tell (another user's, or in another container).
        command: its command line, cut to 100 characters; empty where the system does not tell.
    """

    pid: int | None
    command: str

    def __str__(self) -> str:
        if self.pid is None:
            return "a process that this user may not look at (another user's, or in another container)"
        own = "this process, " if self.pid == os.getpid() else ""
        return f"{own}pid {self.pid} ({self.command or 'command unknown'})"


def tcp_listener(host: str, port: int) -> Holder | None:
    """Who keeps ``host:port`` from being bound: a listener at this very address, or one of either at the wildcard.

    Args:
        host: a literal IPv4 or IPv6 address without brackets, ``*``, or a name; a name that does not resolve is taken
            for a network interface, and then any listener at the port counts.
        port: 1 to 65535.

    Returns:
        The holder, or None when nobody listens there or the system has no /proc.
    """
    wanted = _addresses(host)
    inodes = {inode for address, inode in _tcp_listeners(port) if _conflict(wanted, address)}
    return _owner(inodes) if inodes else None


def unix_listener(path: str) -> Holder | None:
    """Who listens at a unix socket, found by connecting to it for a moment.

    Args:
        path: a file's path, or ``@name`` in the abstract namespace.

    Returns:
        The holder; None when there is no such socket, or a stale file that nobody listens to.

    Raises:
        PermissionError: this user may not connect to the file.
    """
    name = "\0" + path[1:] if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PATIENCE)
        try:
            probe.connect(name)
        except PermissionError:
            raise
        except TimeoutError:
            return Holder(None, "")  # somebody listens, and does not accept
        except OSError as error:
            full = error.errno == errno.EAGAIN  # the backlog of a listener that does not accept
            return Holder(None, "") if full else None
        pid, _, _ = PEERCRED.unpack(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEERCRED.size))
    return Holder(pid, command_of(pid)) if pid > 0 else Holder(None, "")  # 0: a process outside our pid namespace


def _addresses(host: str) -> set[Address]:
    if host == "*":
        return {IPv4Address(0)}
    try:
        return {_plain(ip_address(host))}
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return {IPv6Address(0)}  # an interface's name: its addresses are unknown here, so any listener counts
    return {_plain(ip_address(entry[4][0])) for entry in found}


def _plain(address: Address) -> Address:
    """An IPv4 address that is written as IPv6 (::ffff:127.0.0.1) as what it is."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _conflict(wanted: set[Address], held: Address) -> bool:
    return any(one == held or _covers(one, held) or _covers(held, one) for one in wanted)


def _covers(wide: Address, address: Address) -> bool:
    """Whether binding ``wide`` takes ``address`` too; the IPv6 wildcard takes IPv4 as well, as libzmq binds it."""
    return wide.is_unspecified and (wide.version == 6 or address.version == 4)


def _tcp_listeners(port: int) -> Iterator[tuple[Address, str]]:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue  # no /proc, or no IPv6
        for line in lines:
            columns = line.split()
            host, _, hex_port = columns[1].partition(":")
            if columns[3] == LISTEN and int(hex_port, 16) == port:
                yield _from_kernel(host), columns[9]


def _from_kernel(text: str) -> Address:
    """Read an address as /proc/net prints it: 32-bit words in the machine's byte order, in hexadecimal."""
    words = [int(text[i : i + 8], 16) for i in range(0, len(text), 8)]
    packed = b"".join(struct.pack("=I", word) for word in words)
    return _plain(ip_address(packed))


def _owner(inodes: set[str]) -> Holder:
    wanted = {f"socket:[{inode}]" for inode in inodes}
    try:
        # Ascending: of a parent and the children that inherited its socket, the parent usually has the lowest pid.
        pids = sorted(int(entry) for entry in os.listdir("/proc") if entry.isdigit())  # noqa: PTH208  # names suffice
    except OSError:
        pids = []
    for pid in pids:
        if _holds(pid, wanted):
            return Holder(pid, command_of(pid))
    return Holder(None, "")


def _holds(pid: int, wanted: set[str]) -> bool:
    folder = f"/proc/{pid}/fd"
    try:
        descriptors = os.listdir(folder)  # noqa: PTH208  # Path objects for every descriptor of the machine cost
    except OSError:
        return False  # it ended, or it is another user's
    return any(_link(f"{folder}/{descriptor}") in wanted for descriptor in descriptors)


def _link(path: str) -> str:
    try:
        return os.readlink(path)  # noqa: PTH115  # as above
    except OSError:
        return ""  # closed meanwhile


def command_of(pid: int) -> str:
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    text = " ".join(argument.decode(errors="replace") for argument in arguments if argument)
    return text if len(text) <= COMMAND_CHARACTERS else text[: COMMAND_CHARACTERS - 1] + "…"

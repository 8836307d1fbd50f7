"""Owns a network of two machines on this one: a namespace, and a link to it whose rate is limited (Linux, root).

What leaves either end of the link passes a token bucket (`tc-tbf`), as it would pass a network card of that rate. Its
queue holds 50 ms, as that of a switch may.
"""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

BURST = 0.01  # seconds at full rate that may go at once: the timer of a kernel ticks every 4 ms at least
QUEUE = "50ms"
NETWORKS = 1 << 14  # of four addresses each, in 198.18.0.0/16, which RFC 2544 keeps for benchmarks


@dataclass(frozen=True)
class Link:
    """A link, and the machine at its other end.

    Attributes:
        namespace: of the other machine.
        device: our end.
        address: of our end.
    """

    namespace: str
    device: str
    address: str

    @property
    def received(self) -> Path:
        """The file with the bytes that have come to us over the link, headers included."""
        return Path(f"/sys/class/net/{self.device}/statistics/rx_bytes")

    def there(self, *command: str) -> list[str]:
        """Return the command that runs another one at the other end."""
        return ["ip", "netns", "exec", self.namespace, *command]


@contextmanager
def link(megabits: int) -> Iterator[Link]:
    """Make a link of so many Mbit/s in either direction; it goes away with the ``with`` block.

    Raises:
        OSError, subprocess.CalledProcessError: it cannot be made here.
    """
    name = f"dfsb{os.getpid()}"
    here, there = f"{name}h", f"{name}g"
    burst = str(int(megabits * 125_000 * BURST))
    shape = ("root", "tbf", "rate", f"{megabits}mbit", "burst", burst, "latency", QUEUE)
    ours, theirs = addresses(os.getpid())
    _run("ip", "netns", "add", name)
    try:
        _run("ip", "link", "add", here, "type", "veth", "peer", "name", there, "netns", name)
        _run("ip", "addr", "add", f"{ours}/30", "dev", here)
        _run("ip", "-n", name, "addr", "add", f"{theirs}/30", "dev", there)
        _run("ip", "link", "set", here, "up")
        _run("ip", "-n", name, "link", "set", there, "up")
        _run("tc", "qdisc", "add", "dev", here, *shape)
        _run("tc", "-n", name, "qdisc", "add", "dev", there, *shape)
        yield Link(name, here, ours)
    finally:
        for command in (("ip", "link", "delete", here), ("ip", "netns", "delete", name)):
            subprocess.run(command, capture_output=True, check=False)


def addresses(number: int) -> tuple[str, str]:
    """Return both ends' addresses, others for another run: one that was killed has left its network behind."""
    third, fourth = divmod(number % NETWORKS * 4, 256)
    return f"198.18.{third}.{fourth + 1}", f"198.18.{third}.{fourth + 2}"


@functools.cache
def why_not() -> str:
    """Return why no link can be made on this machine; empty: one can."""
    try:
        with link(100):
            return ""
    except OSError as error:
        return f"a network of its own cannot be made: {error} (Debian: apt install iproute2)"
    except subprocess.CalledProcessError as error:
        return f"a network of its own cannot be made: {' '.join(error.cmd)}: {error.stderr.strip()} (it needs root)"


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)

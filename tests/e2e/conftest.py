"""Owns what end-to-end tests share beyond processes: a running broker with its metrics, and clients made by hand."""

from __future__ import annotations

import importlib
import json
import re
import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq

from dfserve.wire import messages as m
from dfserve.wire.envelope import Unsealing

PATIENCE_MS = 30_000  # milliseconds for an answer: a hang becomes a failure


class RunningBroker:
    """A `dfserve broker` that is ready, at ``addresses`` (ports are resolved)."""

    def __init__(self, program: Any, scrape: Callable[[int], Any], until: Callable[..., Any]) -> None:
        program.wait_until_said("broker ready at ")
        said = [line["message"] for line in program.lines]
        self.program = program
        self.addresses = next(line[16:] for line in said if line.startswith("broker ready at ")).split(" and ")
        self.metrics_port = int(next(re.findall(r":(\d+)/metrics", line)[0] for line in said if "/metrics" in line))
        self._scrape, self._until = scrape, until

    @property
    def address(self) -> str:
        return str(self.addresses[0])

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    @property
    def rss(self) -> int:
        """Resident bytes of its process."""
        return int(psutil.Process(self.program.pid).memory_info().rss)

    def total(self, name: str) -> float:
        """A metric, summed over its labels."""
        return float(self._scrape(self.metrics_port).total(name))

    def labelled(self, name: str) -> Counter[str]:
        """A metric by the value of its one label; those that are 0 are left out."""
        found: Counter[str] = self._scrape(self.metrics_port).labelled(name)
        return found

    def bad(self) -> Counter[str]:
        """Bad messages by reason."""
        return self.labelled("dfserve_bad_messages_total")

    def wait_for(self, name: str, least: float) -> None:
        """Wait until a metric, summed over its labels, has reached a value."""
        self._until(lambda: self.total(name) >= least, f"{name} to reach {least}")


@pytest.fixture
def run_broker(dfserve: Callable[..., Any], scrape: Any, until: Any) -> Callable[..., RunningBroker]:
    """Start ``dfserve broker`` with flags, at a free tcp port unless ``binds`` says otherwise."""

    def _run(*flags: str, binds: tuple[str, ...] = ("tcp://127.0.0.1:0",)) -> RunningBroker:
        at = [word for address in binds for word in ("--bind", address)]
        return RunningBroker(dfserve("broker", *at, "--metrics-port", "0", *flags), scrape, until)

    return _run


class Stranger:
    """A client made by hand: it sends what it likes, and reads only when told to."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self.socket = socket
        self._unsealing = Unsealing()

    def send(self, *frames: Any) -> None:
        self.socket.send_multipart(frames)

    def say(self, message: m.Message, *frames: Any) -> None:
        self.send(*m.encode(message), *frames)

    def hear(self, kind: type[m.Message]) -> Any:
        """Return the next message of a kind, passing over others."""
        while self.socket.poll(PATIENCE_MS):
            frames = self._unsealing.put(self.socket.recv())
            if frames is None:
                continue
            header, body, *block = frames
            message = m.decode(header, bytes(body), len(block))
            if isinstance(message, kind):
                return message
        return pytest.fail(f"no {kind.__name__} within {PATIENCE_MS} ms")

    def join_as_producer(self, name: str = "stranger/0", passes: int = 0) -> m.ProducerWelcome:
        self.say(m.ProducerHello(secrets.token_bytes(16), name, "far", 1, "default", passes, 1, b"", 0, 0))
        welcome: m.ProducerWelcome = self.hear(m.ProducerWelcome)
        return welcome

    def join_as_consumer(self, group: str = "strangers") -> m.ConsumerWelcome:
        self.say(m.ConsumerHello(secrets.token_bytes(16), "s", "far", 1, "default", group, 50, "skip", 1, b"", 0, 0))
        welcome: m.ConsumerWelcome = self.hear(m.ConsumerWelcome)
        return welcome

    def be_granted(self, *sizes: int, first: int = 1) -> None:
        """Offer blocks and wait until all of them may be sent."""
        self.say(m.Offer(first, list(sizes)))
        while self.hear(m.Credit).granted < first + len(sizes) - 1:
            pass


@pytest.fixture
def stranger() -> Iterator[Callable[..., Stranger]]:
    """Connect a client made by hand to an address."""
    context = zmq.Context()
    sockets: list[zmq.Socket[bytes]] = []

    def _connect(address: str) -> Stranger:
        socket = context.socket(zmq.DEALER)
        sockets.append(socket)
        socket.connect(address)
        return Stranger(socket)

    yield _connect
    for socket in sockets:
        socket.close(linger=0)
    context.term()


@pytest.fixture
def produce(dfserve: Callable[..., Any]) -> Callable[..., Any]:
    """Start ``dfserve produce pipes:FACTORY`` under a name, with keyword arguments for the factory."""

    def _produce(address: str, name: str, *flags: str, factory: str = "numbers", **arguments: Any) -> Any:
        pairs = [word for key, value in arguments.items() for word in ("--arg", f"{key}={json.dumps(value)}")]
        return dfserve("produce", f"pipes:{factory}", "--to", address, *flags, *pairs, DFSERVE_NAME=name)

    return _produce


@pytest.fixture
def rig(
    dfserve: Any, start: Any, until: Any, scrape: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """What the tests of epochs mode share, see epochs_rig.py, which can be imported meanwhile."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    rig = importlib.import_module("epochs_rig").Rig(dfserve, start, until, scrape, tmp_path)
    yield rig
    rig.close()

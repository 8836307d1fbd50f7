"""Owns a broker made by hand for tests: it hears what workers say, and says to them what a test wants."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from typing import Any

import pytest
import zmq

from dfserve.embedded import private_address
from dfserve.frames import send_singly
from dfserve.wire import epoch_messages as e
from dfserve.wire import messages as m
from dfserve.wire.blocks import decode_block
from dfserve.wire.envelope import seal
from dfserve.wire.limits import DEFAULT_LIMITS
from dfserve.wire.pieces import join
from dfserve.wire.recycler import Recycler

PATIENCE = 60.0  # seconds; a test that waits longer for a message hangs
GENERATION = b"g" * 16
MIB = 1 << 20


class FakeBroker:
    """Welcomes every worker, grants whatever it offers, and notes the rest. A context manager.

    Args:
        streams: the names of the pipelines whose streams it wants.
        budget: bytes, as it says in its welcome.
    """

    def __init__(self, streams: Sequence[str] = (), budget: int = 64 * MIB) -> None:
        self.address = private_address()
        self.instance = secrets.token_bytes(16)
        self.streams = set(streams)
        self.budget = budget
        self.routes: dict[bytes, bytes] = {}  # connection by session
        self.hellos: dict[str, m.ProducerHello] = {}  # by pipeline
        self.welcomes = 0
        self.stingy = False  # it grants nothing
        self.heard: list[tuple[str, m.Message, list[Any]]] = []  # pipeline, message, block
        self._acked: dict[bytes, int] = {}
        self._granted: dict[bytes, int] = {}
        self._context = zmq.Context()
        self._number = 0
        self._bind()

    def _bind(self) -> None:
        self._socket = self._context.socket(zmq.ROUTER)
        deadline = time.monotonic() + PATIENCE
        while not self._bound() and time.monotonic() < deadline:
            time.sleep(0.01)  # libzmq closes the one before in a thread of its own

    def _bound(self) -> bool:
        with suppress(zmq.ZMQError):
            self._socket.bind(self.address)
            return True
        return False

    def break_connections(self, *, other_instance: bool = False) -> None:
        """Close the socket and bind another one; perhaps as another instance of the broker."""
        self._socket.close(linger=0)
        self.routes.clear()
        if other_instance:
            self.instance = secrets.token_bytes(16)
        self._bind()

    def leave(self) -> None:
        """Be gone, without a word."""
        self._socket.close(linger=0)

    def __enter__(self) -> FakeBroker:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.leave()
        self._context.term()

    # ------------------------------------------------------------------ what it says

    def say(self, message: m.Message, pipeline: str = "default") -> None:
        """Say something to the worker of a pipeline, as soon as it is known."""
        self.await_welcome(pipeline)
        self._send(self.routes[self.hellos[pipeline].session], message)

    def lease(self, split: int, pipeline: str = "default", **changes: Any) -> int:
        """Lease two items, unless it is said otherwise; returns the lease's number."""
        self._number += 1
        fields: dict[str, Any] = {
            "lease": self._number, "generation": GENERATION, "epoch": 0, "split": split, "seed": 0, "shuffle": False,
            "first": 2 * split, "count": 2, "skip": [], "on_error": "raise", "most": MIB, "taken": [],
        }  # fmt: skip
        message = e.Lease(**(fields | changes))
        self.say(message, pipeline)
        return message.lease

    def want_stream(self, pipeline: str, wanted: bool) -> None:
        """Say whether a pipeline's stream is wanted."""
        self.say(m.Wanted(wanted), pipeline)

    def _send(self, connection: bytes, message: m.Message) -> None:
        send_singly(self._socket, connection, seal(m.encode(message), 1))

    # ------------------------------------------------------------------ what it hears

    def await_welcome(self, pipeline: str = "default") -> None:
        """Wait until the worker of a pipeline is connected and welcomed."""
        while pipeline not in self.hellos or self.hellos[pipeline].session not in self.routes:
            self.turn()

    def hear(self, *kinds: type[m.Message], pipeline: str = "default") -> Any:
        """Return the next message of a kind from the worker of a pipeline; its earlier ones are forgotten."""
        return self.hear_block(*kinds, pipeline=pipeline)[0]

    def hear_block(self, *kinds: type[m.Message], pipeline: str = "default") -> tuple[Any, list[Any]]:
        """Return the next message of a kind, and the datapoints that it carries."""
        while True:
            for place, (whose, message, block) in enumerate(self.heard):
                if whose == pipeline and isinstance(message, kinds):
                    self.heard = [each for each in self.heard[:place] if each[0] != pipeline] + self.heard[place + 1 :]
                    return message, block
            self.turn()

    def hear_all(self, kind: type[m.Message], seconds: float) -> list[Any]:
        """Return all messages of a kind that come in a time, and those noted before."""
        while self._socket.poll(int(seconds * 1000)):
            self.turn()
        return [message for _, message, _ in self.heard if isinstance(message, kind)]

    def turn(self) -> None:
        """Take in one message, and answer it as any broker would."""
        assert self._socket.poll(int(PATIENCE * 1000)), f"nothing was said for {PATIENCE} s, after {self.heard}"
        connection, *frames = self._socket.recv_multipart()
        if len(frames) == 1:  # a connection was made
            self._send(connection, m.Who())
            return
        message = m.decode(frames[0], frames[1], len(frames) - 2)
        if isinstance(message, m.ProducerHello):
            self._welcome(connection, message)
            return
        session = next((session for session, route in self.routes.items() if route == connection), b"")
        name = next((name for name, hello in self.hellos.items() if hello.session == session), "")
        pieces = getattr(message, "pieces", [])
        block = decode_block(join(frames[2:], pieces, DEFAULT_LIMITS, Recycler())) if frames[2:] else []
        self.heard.append((name, message, block))
        if isinstance(message, m.Offer) and not self.stingy:
            self._granted[session] = message.first + len(message.sizes) - 1
            self._send(connection, m.Credit(self._acked[session], self._granted[session], 0))
        elif isinstance(message, m.Block):
            self._acked[session] = message.seq
            self._send(connection, m.Credit(message.seq, max(message.seq, self._granted[session]), message.seq))

    def _welcome(self, connection: bytes, hello: m.ProducerHello) -> None:
        self.routes[hello.session] = connection
        self.hellos[hello.pipeline] = hello
        self.welcomes += 1
        acked = self._granted[hello.session] = self._acked.setdefault(hello.session, 0)
        wanted = hello.pipeline in self.streams
        self._send(connection, m.ProducerWelcome(self.instance, acked, 256 * MIB, self.budget, wanted))


@pytest.fixture
def fake_broker() -> Iterator[Callable[..., FakeBroker]]:
    """Make brokers by hand, with arguments as for `FakeBroker`."""
    with ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(FakeBroker(*args, **options))

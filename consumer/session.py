"""Owns a consumer's sessions: a broker it hosts or joins, the connection, and waits that end or say who is missing."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dfserve import endpoints
from dfserve.embedded import EmbeddedBroker
from dfserve.errors import ConfigError, Starved, WireError
from dfserve.wire import messages as m

if TYPE_CHECKING:
    from dfserve.client import Connection
    from dfserve.wire.epoch_messages import EpochsHello

log = logging.getLogger("dfserve.consumer")

TICK = 1.0  # seconds between heartbeats, and between looks at the embedded broker, while waiting
# What a consumer needs from its first connection on. It brings in zmq and numpy, which take as long to load as a broker
# to start, so that they are loaded meanwhile.
NEEDED = ("dfserve.client", "dfserve.consumer.blocks")
PATIENCE = 10.0  # seconds of waiting before the log says what is being waited for

Hello = TypeVar("Hello", m.ConsumerHello, "EpochsHello")


def introduced(hello: Hello) -> Hello:
    """Return a hello of this process, under a new session.

    That is for when it connects: between that and its making a process may be forked, and two of one session would be
    one consumer to the broker, which gives each datapoint to one of them.
    """
    host, pid = socket.gethostname(), os.getpid()
    return replace(hello, session=secrets.token_bytes(m.SESSION_BYTES), name=f"{host}/{pid}", host=host, pid=pid)


def check_process(sessions: Sequence[Session]) -> None:
    """See that sessions are used where they were made: a forked child would take what its parent is sent.

    Raises:
        ConfigError: they are another process's.
    """
    if sessions:
        check_owner(sessions[0].pid)


def check_owner(pid: int) -> None:
    """See that we are the process that connected.

    Raises:
        ConfigError: we are not.
    """
    if pid != os.getpid():
        raise ConfigError(
            f"this RemoteDataZMQ was connected in process {pid} and is used in {os.getpid()}; "
            "make one in each process (with bind=False), or call reset_state only in the process that iterates"
        )


class Session:
    """The hosted broker, if any, and the connection to it: made together, and closed together at the latest at exit."""

    def __init__(
        self,
        addresses: list[str],
        bind: bool,
        settings: dict[str, Any],
        metrics_port: int | None,
        keys: Path | None = None,
    ) -> None:
        self.pid = os.getpid()
        self.where = " and ".join(addresses)
        self.broker: EmbeddedBroker | None = None
        if bind:
            for address in addresses:
                endpoints.warn_if_open(endpoints.parse(address), keys is not None)
            self.broker = EmbeddedBroker(addresses, settings, metrics_port, keys, meanwhile=load)
        from dfserve.client import Connection  # not before a broker that is hosted loads beside it

        if self.broker is not None:
            self.connection = Connection(self.broker.address, shares=True)
        else:
            from dfserve.keys import read_client_keys

            own = None if keys is None else read_client_keys(keys)
            self.connection = Connection(addresses[0], shares=True, keys=own)
        self._finalizer = weakref.finalize(self, _close, self.pid, self.connection, self.broker)

    def check(self) -> None:
        """Raise BrokerLost if the hosted broker has ended, KeysError if the broker will not have us."""
        self.connection.check()
        if self.broker is not None:
            self.broker.check()

    def close(self) -> None:
        """Close both, once."""
        self._finalizer()

    def send(self, message: m.Message) -> None:
        """Send without waiting, see `Connection.send`; not from what `receive` calls."""
        self.connection.begin()
        self.connection.send(message)
        self.connection.end()

    def receive(self, handle: Callable[[m.Message, list[Any]], object], bad: Callable[[], object]) -> bool:
        """Take in one message that has come; False if there is none.

        Args:
            handle: is given it, with its block's frames, and sends its answers by the connection itself. If that, or
                what a signal's handler raises, does not let it end, the message comes again, by another connection.
            bad: is called in place of that, if it cannot be read.

        Raises:
            WireError: the broker speaks another version of the protocol.
            ConfigError: this is a forked child of the process that made it, where libzmq would try for ever.
        """
        check_owner(self.pid)
        self.connection.begin()
        try:
            received = self.connection.receive()
        except WireError as error:
            if error.reason == "version":
                raise
            bad()
            log.error("the broker at %s sent a message that cannot be read: %s", self.where, error)
            self.connection.end()
            return True
        if received is not None:
            handle(*received)
        self.connection.end()
        return received is not None

    def wait(
        self,
        ready: Callable[[], bool],
        receive: Callable[[], object],
        beat: Callable[[], m.Message],
        who: Callable[[float], str],
        timeout: float,
        each_tick: Callable[[float], None] = lambda _: None,
    ) -> None:
        """As the function `wait`, for this session alone; ``beat`` returns the heartbeat."""
        wait([self], ready, receive, lambda: self.send(beat()), who, timeout, each_tick)


def open_sessions(
    addresses: list[str], bind: bool, settings: dict[str, Any], metrics_port: int | None, keys: Path | None = None
) -> list[Session]:
    """Make one session for each broker: one hosts all addresses that are bound, each that is connected to is another.

    If one cannot be made, those before it are closed.
    """
    with contextlib.ExitStack() as undo:
        made = []
        for some in [addresses] if bind else [[address] for address in addresses]:
            session = Session(some, bind, settings, metrics_port, keys)
            undo.callback(session.close)
            made.append(session)
        undo.pop_all()
    return made


def close_sessions(sessions: Iterable[Session]) -> None:
    """Close all, each in the process and thread that made it; one that was closed is left alone."""
    for session in sessions:
        session.close()


def wait(
    sessions: Sequence[Session],
    ready: Callable[[], bool],
    receive: Callable[[], object],
    beat: Callable[[], object],
    who: Callable[[float], str],
    timeout: float,
    each_tick: Callable[[float], None] = lambda _: None,
) -> None:
    """Receive until ``ready()``; every wait ends with it or with an error that says who is missing.

    Args:
        sessions: whichever has a message ends a sleep.
        receive: takes in what has come. What it leaves in a socket must make ``ready()`` true.
        beat: sends the heartbeats; called once a second.
        who: says who is missing, given the seconds waited.
        timeout: seconds.
        each_tick: called once a second with the seconds waited.

    Raises:
        Starved: ``timeout`` has passed.
        BrokerLost: the hosted broker ended.
        KeysError: a broker refused our key, or the lack of one.
    """
    started = time.monotonic()
    tick, complain = started + TICK, started + PATIENCE
    receive()
    while not ready():
        now = time.monotonic()
        if now >= started + timeout:
            _check(sessions)
            raise Starved(who(now - started))
        if now >= tick:
            tick = now + TICK
            _check(sessions)
            each_tick(now - started)
            beat()
        if now >= complain:
            complain = now + 3 * PATIENCE
            log.warning("%s", who(now - started))
        if listen(sessions, int(1000 * max(0.0, min(tick, started + timeout) - now)) + 1):
            receive()


def listen(sessions: Sequence[Session], milliseconds: int) -> bool:
    """Sleep until a message has come to one of them, or the time is over; tells whether one has."""
    import zmq

    poller = zmq.Poller()
    for session in sessions:
        poller.register(session.connection.socket, zmq.POLLIN)
    return bool(poller.poll(milliseconds))


def load() -> None:
    """Load what a consumer needs from its first connection on."""
    for module in NEEDED:
        import_module(module)


def _check(sessions: Sequence[Session]) -> None:
    for session in sessions:
        session.check()


def _close(pid: int, connection: Connection, broker: EmbeddedBroker | None) -> None:
    if os.getpid() != pid:
        return  # a forked child must not close its parent's
    connection.close()
    if broker is not None:
        broker.close()

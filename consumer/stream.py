"""Owns stream mode at a consumer: what producers send as long as they send it, over any reconnect and any brokers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import chain
from typing import TYPE_CHECKING, Any

from dfserve.consumer.cursor import NO_ROWS, Cursor
from dfserve.consumer.failures import pipeline_error
from dfserve.consumer.feed import Feed
from dfserve.consumer.inbox import Arrival
from dfserve.consumer.rota import Rota
from dfserve.consumer.session import TICK, Session, check_process, listen, wait
from dfserve.consumer.waiting import WaitMeter, combined, metered
from dfserve.dataflow.policy import OnError, Tally
from dfserve.errors import ConfigError, DfserveError, PipelineError, WireError, WorkerLost
from dfserve.wire import messages as m

if TYPE_CHECKING:
    from dfserve.consumer.blocks import Opener

log = logging.getLogger("dfserve.consumer")

SHORT_MS = 1  # milliseconds of a wait before what is owed is sent: at full speed the next block comes sooner
# Seconds that brokers have to answer when one of them has: longer than the way there and a connection that is tried
# anew, and short enough for a training that starts without one of them.
JOINING = 5.0
GONE = 10  # heartbeats, a second apart, without a word from a broker before the log says so while others deliver


class EndOfStream(Exception):  # noqa: N818  # not an error; never leaves this module
    """The stream has ended."""


class Stream:
    """A stream of one consumer, from one broker or several.

    Each broker has a connection and numbers of its own (`Feed`); they take turns, and one that is slow or gone holds up
    nothing but the end: that comes when each has said its own.

    Args:
        addresses: of each broker, for messages.
        connect: makes the sessions, one for each broker.
        identity: what this consumer wants.
        timeout: seconds without a datapoint after which it is an error.
        on_error: the policy for what fails remotely.
        meter: adds up the seconds of waiting, for whichever broker.

    Attributes:
        in_doubt: datapoints that a consumer which died may have handed out too.
    """

    def __init__(
        self,
        addresses: list[str],
        connect: Callable[[], list[Session]],
        identity: m.ConsumerHello,
        *,
        timeout: float,
        on_error: OnError,
        meter: WaitMeter,
    ) -> None:
        self._connect = connect
        self._feeds = [Feed(address, identity) for address in addresses]
        self._several = len(addresses) > 1
        self._rota = Rota(self._feeds)
        self._sessions: list[Session] = []
        self._timeout = timeout
        self._tally = Tally(on_error, "RemoteDataZMQ")
        self._meter = meter
        self._cursor = Cursor()
        self._open: tuple[Feed, Arrival] | None = None
        self._wrong: DfserveError | None = None  # what came in place of a block, and nobody was told yet
        self._over = False  # the stream, and nobody was told yet
        self._next_beat = 0.0
        self._opener: Opener  # made with the sessions: it needs numpy, which is loaded while a broker starts
        self._failures = 0
        self.in_doubt = 0

    @property
    def errors(self) -> int:
        """Failures so far, of items, workers and messages."""
        return self._failures + sum(feed.errors for feed in self._feeds)

    def reset_state(self) -> None:
        """Connect, and join the group at each broker; one that does not answer is waited for only if none does."""
        if self._sessions:
            check_process(self._sessions)
            return
        self._sessions = self._connect()
        from dfserve.consumer.blocks import Opener

        self._opener = Opener()
        for feed, session in zip(self._feeds, self._sessions, strict=True):
            feed.join(session)
        enough = time.monotonic() + min(JOINING, self._timeout / 2)

        def joined() -> bool:
            welcomed = [feed.welcomed for feed in self._feeds]
            return all(welcomed) or (any(welcomed) and time.monotonic() >= enough)

        with self._metered() as each_tick:
            self._wait(joined, self._receive_everything if self._several else self._receive, each_tick)
        self._check_distinct()
        for feed in self._feeds:
            if not feed.welcomed:
                log.warning("the broker at %s has not answered; the others are read meanwhile", feed.address)

    def __iter__(self) -> Iterator[Any]:
        """Return an iterator that ends with the stream. No code of Python's runs between two datapoints of a block."""
        return chain.from_iterable(self._unfolded())

    def _unfolded(self) -> Iterator[Iterator[Any]]:
        try:
            while True:
                yield self._cursor.unfolded
                if not self._cursor.unfold():
                    self._next_block()
        except EndOfStream:
            return

    def __next__(self) -> Any:
        """Return the next datapoint; StopIteration at the end of a finite stream."""
        try:
            while True:
                for datapoint in self._cursor.unfolded:
                    return datapoint
                if not self._cursor.unfold():
                    self._next_block()
        except EndOfStream:
            raise StopIteration from None

    def draws(self, size: int) -> Iterator[list[Sequence[Any]]]:
        """Return an iterator that takes ``size`` datapoints at a time, as slices of blocks; fewer at the stream's end.

        What it has taken counts as handed out.
        """
        while pieces := self._draw(size):
            short = sum(map(len, pieces)) < size
            yield pieces
            if short:
                return

    def _draw(self, size: int) -> list[Sequence[Any]]:
        pieces: list[Sequence[Any]] = []
        try:
            while size:
                piece = self._cursor.take(size)
                if piece:
                    pieces.append(piece)
                    size -= len(piece)
                else:
                    self._next_block()
        except EndOfStream:  # not suppress(): an interrupt as that is left would have the end told to nobody
            return pieces
        return pieces

    def widen(self, hwm: int) -> None:
        """Have at least so many datapoints in flight from each broker, if it is not connected yet."""
        for feed in self._feeds:
            feed.widen(hwm)

    def say_goodbye(self) -> None:
        """Tell each broker how far we are: what was not handed out is the group's again."""
        feed, arrival = (None, None) if self._open is None else self._open
        for each in self._feeds:
            each.say_goodbye(arrival if each is feed else None, self._cursor.left)

    def close(self) -> None:
        """Forget the sessions, which are closed by whoever closes them, and what was received.

        Which brokers' streams have ended is not forgotten: the loop had not ended, and may be taken up again.
        """
        self._sessions = []
        self._cursor, self._open = Cursor(), None
        for feed in self._feeds:
            feed.close()

    # ------------------------------------------------------------------ blocks

    def _next_block(self) -> None:
        """Make the next block the one that is handed out; raise what arrived instead of one."""
        self.reset_state()
        self._finish_open()
        self._tell()
        if self._several and time.monotonic() >= self._next_beat:
            self._keep_in_touch()
        feed, arrival = self._next_arrival()
        message = arrival.message
        if isinstance(message, m.Deliver):
            self._open_block(feed, arrival, message)
            return
        rota, over = self._rota, False
        wrong: DfserveError | None = None
        if isinstance(message, m.DeliverFailure):
            wrong = pipeline_error(message)
        else:
            rota, over = self._rota.after_end(feed)
            if message.broken:
                wrong = _incomplete(message, f" at {feed.address}" if self._several else "")
        # No call comes between these, and so no interrupt.
        self._rota, self._over, self._wrong, self._open = rota, over, wrong, (feed, arrival)
        self._finish_open()
        if isinstance(message, m.DeliverEnd):
            self._give_receipts(all_of_them=True)  # nobody knows whether there will be another loop
        self._tell()

    def _tell(self) -> None:
        """Tell the loop what came in place of a block; not before that is done is it forgotten."""
        if self._wrong is not None:
            try:
                self._fail(self._wrong)
            except Exception:  # the error itself; or one of the quarantine file, which must not come for ever
                self._wrong = None
                raise
            self._wrong = None
        if self._over:
            self._over = False
            raise EndOfStream

    def _next_arrival(self) -> tuple[Feed, Arrival]:
        """Return what is next: of the brokers that have something, from the one that was read longest ago."""
        while True:
            for feed in self._rota.going:
                arrival = feed.first()
                if arrival is not None:
                    self._rota.served(feed)
                    return feed, arrival
            self._await_arrival()

    def _open_block(self, feed: Feed, arrival: Arrival, message: m.Deliver) -> None:
        rows: Sequence[Any] = NO_ROWS
        try:
            rows = self._opener.open(arrival.frames, message.pieces)[message.skip :]
        except WireError as error:
            self._failures += 1
            log.error("dropped a block of %s: %s", message.source, error)
        cursor = Cursor(rows)
        self._open, self._cursor = (feed, arrival), cursor  # no call comes between them, and so no interrupt
        if message.again:
            self.in_doubt += len(rows)
        self._tally.good(len(rows))

    def _finish_open(self) -> None:
        if self._open is not None:
            feed, arrival = self._open
            feed.handed_out(arrival)
            self._open = None
            self._give_receipts()

    def _give_receipts(self, *, all_of_them: bool = False) -> None:
        """Give those that are due, or all that are owed: a broker's may come due while others deliver."""
        now = time.monotonic()
        for feed in self._feeds:
            feed.give_receipt(self._meter.total, now, owed=all_of_them)

    def _fail(self, error: DfserveError) -> None:
        self._failures += 1
        told = self._tally.failed
        self._tally.bad(error, error.remote_traceback if isinstance(error, PipelineError) else "")
        if isinstance(error, PipelineError) and not told:
            log.warning(
                "where a pipeline raises in a stream, the rest of its pass is left out too: its worker starts again."
                " To leave out that item only, give on_error='skip' to the map that raises, or use mode='epochs'"
            )

    # ------------------------------------------------------------------ waiting

    def _await_arrival(self) -> None:
        with self._metered() as each_tick:
            if any(feed.owes for feed in self._feeds):
                if listen(self._sessions, SHORT_MS):
                    self._receive()
                if not self._has_arrivals():
                    self._give_receipts(all_of_them=True)
            self._wait(self._has_arrivals, self._receive, each_tick)

    def _has_arrivals(self) -> bool:
        return any(feed.waiting for feed in self._rota.going)

    def _metered(self) -> AbstractContextManager[Callable[[float], None]]:
        return metered(self._meter, lambda: combined([feed.said for feed in self._feeds]))

    def _wait(
        self, ready: Callable[[], bool], receive: Callable[[], object], each_tick: Callable[[float], None]
    ) -> None:
        wait(self._sessions, ready, receive, self._beat, self._missing, self._timeout, each_tick)

    def _receive(self) -> None:
        """Take in what may be handed out next, and all of a stream that has ended: its broker may ask who we are."""
        for feed in self._rota.going:
            feed.receive()
        for feed in self._rota.ended:
            feed.receive(everything=True)

    def _receive_everything(self) -> None:
        """Take in all: while others are waited for, what is left in a socket would wake the wait again and again."""
        for feed in self._feeds:
            feed.receive(everything=True)

    def _keep_in_touch(self) -> None:
        """While some brokers deliver there is no wait, in which the others would be heard and told that we live."""
        self._receive()
        self._beat()

    def _beat(self) -> None:
        now = time.monotonic()
        self._next_beat = now + TICK
        for feed in self._feeds:
            feed.beat(self._meter.total, now)
            if self._several and feed.unanswered == GONE:
                log.warning("nothing was heard from the broker at %s for %d s", feed.address, GONE * TICK)
        self._check_distinct()

    def _check_distinct(self) -> None:
        seen: dict[bytes, str] = {}
        for feed in self._feeds:
            if feed.welcomed and (other := seen.setdefault(feed.broker, feed.address)) != feed.address:
                raise ConfigError(f"{other} and {feed.address} are the same broker: with bind=False, give each once")

    def _missing(self, waited: float) -> str:
        who = "; ".join(feed.missing(waited) for feed in self._rota.going)
        ended = " and ".join(feed.address for feed in self._rota.ended)
        return f"{who}. The stream of {ended} has ended" if ended else who


def identity(pipeline: str, group: str, lag: str, hwm: int, min_producers: int) -> m.ConsumerHello:
    """Return what a consumer wants, of a process that is filled in when it connects."""
    return m.ConsumerHello(
        session=b"",
        name="",
        host="",
        pid=0,
        pipeline=pipeline,
        group=group,
        hwm=hwm,
        lag=lag,
        min_producers=min_producers,
        broker=b"",
        received=0,
        done=0,
    )


def _incomplete(message: m.DeliverEnd, where: str) -> WorkerLost:
    workers = ", ".join(message.broken)
    first = message.broken[0].split(":")[0]
    return WorkerLost(
        f"the pass{where} is not complete: {len(message.broken)} of {len(message.broken) + message.finished} workers "
        f"did not end it ({workers})",
        host=first.rpartition("/")[0],
        worker=first,
    )

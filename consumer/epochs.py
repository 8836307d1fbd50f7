"""Owns epochs mode at a consumer: one loop is one epoch, each datapoint of it once, from where the state says."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from typing import Any

from dfserve.consumer.blocks import Opener
from dfserve.consumer.epoch_inbox import Arrival, EpochInbox
from dfserve.consumer.failures import pipeline_error
from dfserve.consumer.handout import Handout
from dfserve.consumer.session import Session, check_owner, introduced
from dfserve.consumer.waiting import WaitMeter, absent, metered, missing
from dfserve.dataflow.batch import batch_of
from dfserve.dataflow.policy import OnError, Tally
from dfserve.epochs.plan import Plan
from dfserve.epochs.state import VERSION, State
from dfserve.errors import ConfigError, DatapointError, DfserveError, WireError
from dfserve.wire import epoch_messages as e
from dfserve.wire import messages as m

log = logging.getLogger("dfserve.consumer")

TAKEN_PATIENCE = 15.0  # seconds for a process that was this rank to disappear: longer than the broker's liveness
REPORTING = 1.0  # seconds that the report is waited for: it comes when the broker has read the last claims of all ranks
PARTING = 5.0  # seconds that close() waits for a broker to have on disk where this rank stands: one may start meanwhile


class Epochs:
    """The epochs of one rank.

    Args:
        addresses: of the broker, for messages.
        connect: makes the session.
        identity: which rank this is and what it wants.
        timeout: seconds without a datapoint after which it is an error.
        on_error: the policy for items that fail.
        batch: datapoints of a batch; 0: that of a trailing BatchData in the pipeline, else none.
        drop_last: leave out a last, smaller batch; None: as the trailing BatchData says.
        collate: makes a batch of a list of datapoints; None: as BatchData does.
        meter: adds up the seconds of waiting.
    """

    def __init__(
        self,
        addresses: list[str],
        connect: Callable[[], Session],
        identity: e.EpochsHello,
        *,
        timeout: float,
        on_error: OnError,
        batch: int,
        drop_last: bool | None,
        collate: Callable[[list[Any]], Any] | None,
        meter: WaitMeter,
    ) -> None:
        self._addresses = addresses
        self._connect = connect
        self._inbox = EpochInbox(identity)
        self._timeout = timeout
        self._tally = Tally(on_error, "RemoteDataZMQ")
        self._batch_size, self._drop_last, self._collate = batch, drop_last, collate
        self._meter = meter
        self._session: Session | None = None
        self._handout: Handout | None = None
        self._state: State | None = None  # after what was handed out last
        self._loaded: State | None = None
        self._beat: m.ConsumerBeat | None = None
        self._retry_until = 0.0
        self._refusal = ""  # what the broker has against this rank, and may not have soon
        self._opener = Opener()
        self._batch: list[Sequence[Any]] = []  # what the next batch has so far: slices of blocks
        self._run: Iterator[Any] = iter(())
        self._run_length = 0
        self._ended: int | None = None  # the last epoch of which this object has had all
        self._touched = False  # some of the present epoch was handed out by this object
        self.errors = 0

    # ------------------------------------------------------------------ the user's side

    def reset_state(self) -> None:
        """Connect and say who this rank is; the generation opens when all ranks and a producer are there."""
        if self._session is None:
            self._check_open()
            if self._inbox.identity.pid != os.getpid():  # it was never connected, or what was is left to the parent
                self._inbox = EpochInbox(introduced(self._inbox.identity))
            self._session = self._connect()
            self._await(lambda: self._inbox.greeted)

    def _check_open(self) -> None:
        if self._session is not None:
            check_owner(self._session.pid)  # here, too: an iterator may be older than the fork of the process it is in
        elif self._inbox.generation:
            raise ConfigError("this loader was closed: make a new one, and load this one's state_dict() into it")

    def widen(self, hwm: int) -> None:
        """Have at least so many datapoints in flight, if it is not connected yet."""
        self._inbox.widen(hwm)

    def load(self, state: State) -> None:
        """Begin where a state says."""
        self._check_open()
        if self._session is not None:
            raise ConfigError(
                "load_state_dict() comes before the first iteration, and before len(), source_len, state_dict() and"
                " reset_state(): this loader has joined its group already, at another position. Make a new one, and"
                " load first"
            )
        self._loaded = state
        identity = replace(self._inbox.identity, state=json.dumps(state.to_dict()), epoch=state.epoch)
        self._inbox = EpochInbox(identity)

    @property
    def state(self) -> State:
        """The position after what was handed out last; before that, where the group begins, which is waited for.

        Raises:
            ConfigError: several ranks share the order of arrival.
            Starved: nobody says where the group begins.
        """
        self._note_position()
        state = self._state or self._loaded
        if state is None:
            self._begin()
            state = self._state
            assert state is not None
        if state.order == "arrival" and state.world > 1:
            raise ConfigError(
                f"a position in the order of arrival is one rank's, and this group has {state.world}; choose 'strict'"
            )
        return state

    @property
    def report(self) -> dict[str, int] | None:
        """What became of every item of the epoch that ended last here, as far as the broker has told."""
        deadline = time.monotonic() + REPORTING
        reports = self._inbox.reports
        while self._session is not None:
            self._receive()
            left = deadline - time.monotonic()
            if self._ended is None or self._ended in reports or left <= 0:
                break
            self._session.connection.socket.poll(int(1000 * left) + 1)
        return reports.get(max(reports) if self._ended is None else self._ended) if reports else None

    @property
    def items(self) -> int:
        """How many items the source has; waits for the broker to know."""
        return self._opened().items

    def length(self) -> int:
        """Return what this rank yields in an epoch: as if nothing were filtered until the epoch's end is known."""
        opened = self._opened()
        plan = self._plan()
        total = self._inbox.total if self._inbox.final else opened.items
        share = plan.rows.share(total, plan.even)
        size = self._size()
        return share if not size else share // size if self._drops() else -(-share // size)

    def __iter__(self) -> Iterator[Any]:
        """Return the datapoints, or batches, that are left of the epoch."""
        self.reset_state()
        return self._epoch()

    def _note_position(self) -> None:
        """Bring the state up to the last datapoint; that of batches is noted with each of them."""
        if self._handout is not None and not self._size():
            self._settle_run()
            self._state = self._handout.state()

    def farewell(self) -> m.Message:
        """Return the goodbye. The last report is waited for, since it may be read afterwards."""
        with contextlib.suppress(DfserveError):
            _ = self.report
        self._note_position()
        usable = self._state is not None and not (self._state.order == "arrival" and self._state.world > 1)
        state = json.dumps(self._state.to_dict()) if usable and self._state is not None else ""
        return e.Farewell(self._inbox.generation, state)

    def await_parting(self, session: Session, goodbye: m.Message) -> None:
        """Wait until what the goodbye said is durable, but not for ever: a broker that died may not come back."""
        if self._inbox.opened is None:
            return
        connection = session.connection
        deadline = time.monotonic() + PARTING
        while (left := deadline - time.monotonic()) > 0 and connection.socket.poll(int(1000 * left) + 1):
            with contextlib.suppress(WireError):
                while (received := connection.receive()) is not None:
                    if isinstance(received[0], e.Parted | m.Refused):
                        return
                    if isinstance(received[0], m.Who):  # it lost the connection, or its memory
                        connection.send(self._inbox.hello())
                        connection.send(goodbye)
        where = " and ".join(self._addresses)
        log.warning(
            "the broker at %s has not confirmed in %.0f s where this rank stopped: resume='broker' may not know it;"
            " a checkpoint does", where, PARTING
        )  # fmt: skip

    def close(self) -> None:
        """Forget the session, which is closed by whoever closes it. If it had joined a group, that is over."""
        deque(self._run, maxlen=0)  # what is left of it was given back
        self._run_length = 0
        self._session = None

    # ------------------------------------------------------------------ an epoch

    def _resumed(self) -> Handout:
        handout = self._begin()
        self._settle_run()
        taken = self._inbox.taken
        if taken is not None and handout.has(taken.message.split):  # an interrupt came when that was done
            self._inbox.put_out()
        if self._touched and not self._batch and not self._await_more(handout):
            self._end()  # the last loop had all of its epoch, but was not asked for more: this one is the next
            handout = self._begin()
        deque(self._run, maxlen=0)  # whoever still iterates over them must not have them too
        self._run_length = 0
        return handout

    def _epoch(self) -> Iterator[Any]:
        handout = self._resumed()
        size = self._size()
        if size:
            yield from self._batches(handout, size)
        else:
            self._inbox.need(0)
            while rows := self._next_run(handout, None):
                run, length = iter(rows), len(rows)
                self._run, self._run_length = run, length  # no call comes between them, and so no interrupt
                yield from self._run
                self._settle_run()
        self._end()

    def draws(self, size: int) -> Iterator[list[Sequence[Any]]]:
        """Return an iterator that takes ``size`` at a time of what is left of the epoch; fewer at its end.

        Datapoints come as slices of blocks. What it has taken counts as handed out.
        """
        self.reset_state()
        return self._draws(size)

    def _draws(self, size: int) -> Iterator[list[Sequence[Any]]]:
        if self._size():
            batches = self._epoch()
            while some := list(islice(batches, size)):
                yield [some]
            return
        handout = self._resumed()
        while True:
            pieces: list[Sequence[Any]] = []
            short = self._fill(handout, pieces, size) < size
            if short:
                self._end()
            if pieces:
                yield pieces
            if short:
                return

    def _await_more(self, handout: Handout) -> bool:
        """Wait until the next datapoint is here, or it is known that the epoch has no more."""
        return bool(self._next_run(handout, 1))

    def _settle_run(self) -> None:
        """Count what was handed out of the present run of datapoints."""
        left = self._run.__length_hint__()  # type: ignore[attr-defined]  # list and tuple iterators have it
        assert self._handout is not None
        self._advance(self._handout, self._run_length - left)
        self._run_length = left

    def _advance(self, handout: Handout, count: int) -> None:
        handout.advance(count)
        self._touched |= count > 0

    def _fill(self, handout: Handout, pieces: list[Sequence[Any]], size: int) -> int:
        """Hand out datapoints into ``pieces`` until they are ``size``; returns how many, fewer at the epoch's end."""
        self._inbox.need(size)
        if self._session is not None:
            self._receive()  # what came during the step: the batch after this one is claimed while this one is made
        count = sum(map(len, pieces))
        while count < size and (rows := self._next_run(handout, size - count)):
            length = len(rows)
            self._advance(handout, length)
            pieces += [rows]  # no call comes between them, and so no interrupt
            count += length
        return count

    def _batches(self, handout: Handout, size: int) -> Iterator[Any]:
        while self._fill(handout, self._batch, size) == size:
            yield self._made(handout)
        if self._batch and not self._drops():
            yield self._made(handout)

    def _made(self, handout: Handout) -> Any:
        made = self._collated(self._batch)
        state = handout.state()
        # What raised before this is tried again by the next loop; no call comes between these, and so no interrupt.
        self._batch, self._state = [], state
        return made

    def _collated(self, pieces: list[Sequence[Any]]) -> Any:
        if self._collate is not None:
            return self._collate(list(chain.from_iterable(pieces)))
        try:
            return batch_of(pieces, self._opened().use_list and not self._batch_size)
        except DatapointError as error:
            raise DatapointError(
                f"{error}; or give RemoteDataZMQ a collate=, which makes a batch of a list of datapoints: a collate_fn"
                " of torch's DataLoader will do"
            ) from error

    def _begin(self) -> Handout:
        opened = self._opened()
        if self._handout is None or self._inbox.fresh:
            self._inbox.fresh = False
            where = json.loads(opened.state)
            plan = self._plan()
            self._state = self._beginning(opened, plan, where)
            self._batch, self._run_length = [], 0
            self._handout = Handout(plan, self._inbox.identity.rank, self._state, where["begin"])
        return self._handout

    def _beginning(self, opened: e.Opened, plan: Plan, where: dict[str, Any]) -> State:
        fields = {**plan.to_dict(), "even": plan.even or None}
        state = State(
            version=VERSION, source=opened.source, n=opened.items, batch=self._size(), epoch=where["epoch"], **fields
        )
        if plan.order == "strict":
            row = max(0, where["begin"] - self._inbox.identity.rank * plan.stride)
            row, taken = divmod(row, plan.rows.size) if where["begin"] else (0, 0)
            return replace(state, split=where["split"], start=where["start"], row=row, taken=taken)
        done, begun = ([(int(a), int(b)) for a, b in where[key]] for key in ("done", "skip"))
        return replace(state, done=tuple(done), open=tuple(sorted(begun)))

    def _end(self) -> None:
        """The epoch is over: the next loop is the next one."""
        assert self._handout is not None
        assert self._state is not None
        self._batch = []
        self._touched = False
        self._ended = self._inbox.epoch
        epoch = self._inbox.epoch + 1
        self._inbox.want(epoch)
        self._state = self._state.beginning(epoch)
        self._handout = Handout(self._plan(), self._inbox.identity.rank, self._state, 0)
        if self._session is not None:
            self._session.send(self._inbox.beat(self._meter.total))
            self._receive()

    def _next_run(self, handout: Handout, most: int | None) -> Sequence[Any]:
        """Return datapoints that may be handed out, as soon as there are any; () at the end of the epoch."""
        inbox = self._inbox
        while True:
            self._check_open()
            self._check_fresh()
            self._hear(handout)
            rows = handout.run(handout.limit(inbox.total, final=inbox.final), most)
            if rows:
                return rows
            if inbox.final and handout.over(inbox.total):
                return ()
            arrival = inbox.take()
            if arrival is not None:
                self._open(arrival, handout)
            elif inbox.final and handout.pads(inbox.total) and handout.has_padding(inbox.total):
                return (handout.padding(inbox.total),)
            else:
                self._wait(handout)

    def _hear(self, handout: Handout) -> None:
        """Count the items that were given up before what comes next."""
        inbox = self._inbox
        over = inbox.final and handout.over(inbox.total)
        while (news := inbox.given_up(over=over)) is not None:
            self._fail(news)

    def _check_fresh(self) -> None:
        if self._inbox.fresh:
            raise ConfigError("the group was started again with this rank in it: make a new loader")

    def _open(self, arrival: Arrival, handout: Handout) -> None:
        message = arrival.message
        self._claim(hungry=False)
        if isinstance(message, e.Mishap):
            self._inbox.put_out()
            self._fail(message)
            return
        rows = self._opener.open(arrival.frames, message.pieces)
        count = handout.add(message.split, message.start, message.skip, rows, padding=message.padding)
        self._inbox.put_out()
        self._tally.good(count * handout.plan.world)  # one rank hears of the failures of all

    def _fail(self, message: e.Mishap | e.Quarantined) -> None:
        self.errors += 1
        place = f"split {message.split} of epoch {message.epoch}" if isinstance(message, e.Mishap) else ""
        self._tally.bad(pipeline_error(message, place), message.traceback)

    # ------------------------------------------------------------------ waiting

    def _opened(self) -> e.Opened:
        if self._inbox.opened is None:
            self.reset_state()
            self._await(lambda: self._inbox.opened is not None)
        assert self._inbox.opened is not None
        return self._inbox.opened

    def _plan(self) -> Plan:
        self._opened()
        assert self._inbox.plan is not None
        return self._inbox.plan

    def _size(self) -> int:
        return self._batch_size or self._opened().batch

    def _drops(self) -> bool:
        if self._drop_last is not None:
            return self._drop_last
        return not self._batch_size and not self._opened().remainder

    def _wait(self, handout: Handout) -> None:
        inbox = self._inbox
        self._claim(hungry=True)

        def ready() -> bool:
            self._claim(hungry=True)
            over = inbox.final and handout.over(inbox.total)
            return inbox.has_confirmed or over or bool(handout.run(handout.limit(inbox.total, final=inbox.final), 1))

        self._await(ready)

    def _claim(self, *, hungry: bool) -> None:
        if self._session is not None:
            for message in self._inbox.claims(self._meter.total, hungry=hungry):
                self._session.send(message)

    def _await(self, ready: Callable[[], bool]) -> None:
        session = self._session
        assert session is not None
        beat = lambda: self._inbox.beat(self._meter.total)  # noqa: E731  # read when it is sent
        with metered(self._meter, lambda: self._beat) as each_tick:
            session.wait(ready, self._receive, beat, self._missing, self._timeout, each_tick)

    def _missing(self, waited: float) -> str:
        where = " and ".join(self._addresses)
        if self._inbox.opened is None and self._refusal:
            return f"waited {waited:.0f} s: {self._refusal}"
        if self._inbox.opened is None and self._inbox.waiting_for:
            return f"waited {waited:.0f} s at {where} for {self._inbox.waiting_for}{absent(self._beat)}"
        return missing(self._beat, where, waited, 1)

    def _receive(self) -> None:
        session = self._session
        assert session is not None
        while session.receive(partial(self._handle, session), self._note_bad):
            pass

    def _note_bad(self) -> None:
        self.errors += 1

    def _handle(self, session: Session, message: m.Message, frames: list[Any]) -> None:
        if isinstance(message, m.ConsumerBeat):
            self._beat = message
        if isinstance(message, m.Refused):
            self._refused(message)
        if isinstance(message, e.Forming | e.Opened):
            self._refusal = ""
        if isinstance(message, e.Opened) and not message.items:
            name = self._inbox.identity.pipeline
            log.warning("pipeline %r has 0 items, so each epoch ends at once: is its folder the right one?", name)
        for answer in self._inbox.receive(message, frames):
            session.connection.send(answer)
        if self._inbox.hopeless and self._beat is not None:
            name = self._inbox.identity.pipeline
            raise ConfigError(f"no producer can serve pipeline {name!r} in epochs: {self._beat.refused[0]}")

    def _refused(self, message: m.Refused) -> None:
        text = f"the broker at {' and '.join(self._addresses)} refused this consumer: {message.text}"
        now = time.monotonic()
        if message.kind == "taken" and self._inbox.opened is None:
            self._retry_until = self._retry_until or now + TAKEN_PATIENCE
            if now < self._retry_until:
                self._refusal = text
                log.info("%s; trying again", message.text)
                return  # the heartbeat is a hello: it says it again
        raise ConfigError(text) if message.kind in ("config", "taken") else WireError(message.kind, text)

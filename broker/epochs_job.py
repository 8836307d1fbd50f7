"""Owns one group's epochs over one pipeline: its ranks, its generation, its epochs, and what each rank is sent. Pure.

Events come in as method calls with the broker's clock; `pump` does all that has become possible. What must be durable
before a rank hears of it goes through ``save``, which returns a number; `saved` says up to which it is on the disk.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from dfserve.broker.budget import Budget
from dfserve.broker.epoch_commits import Commits, Save
from dfserve.broker.epoch_report import OUTCOMES, EpochReport
from dfserve.broker.epoch_start import common, kept_of, opened, restored, start_of, starting_state
from dfserve.broker.ledger import Ledger, Split, Start
from dfserve.broker.production import NO_BYTES, REFUSALS, Production, Send, some
from dfserve.broker.seats import Delivery, Seat, seated
from dfserve.broker.tally import Tally
from dfserve.epochs.plan import Plan
from dfserve.epochs.state import State
from dfserve.errors import WireError
from dfserve.wire import epoch_messages as e
from dfserve.wire.messages import ConsumerBeat, Refused

log = logging.getLogger("dfserve.broker")

WINDOW = 1024  # splits above the first that is not settled which may be under way: bounds what is remembered
OPEN_EPOCHS = 2  # at once: one that ranks are at the end of, one that they begin


class EpochsJob:
    """One group in epochs mode.

    Args:
        name: pipeline and group, for messages.
        budget: the job's bytes.
        send: called with (session, message, block frames).
        lease_time: seconds without progress after which a worker's leases go to others.
        save: makes a record durable, returns its number; None: nothing outlives this process, and all is durable.
        draw: returns so many random bytes.
    """

    def __init__(
        self,
        name: tuple[str, str],
        budget: Budget,
        tally: Tally,
        send: Send,
        lease_time: float,
        *,
        save: Save | None = None,
        draw: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self.pipeline, self.group = name
        self.tally = tally
        self.instance = draw(16)
        first_lease = int.from_bytes(draw(3), "big") << 36  # lease numbers of another instance are others
        self.production = Production(budget, tally, send, lease_time, first_lease + 1)
        self.seats: dict[int, Seat] = {}
        self.generation = NO_BYTES
        self.plan: Plan | None = None
        self.reports: dict[int, EpochReport] = {}
        self._send = send
        self._commits = Commits(save)
        self._draw = draw
        self._members: dict[int, Seat] = {}  # of the generation: a seat may have gone to another since
        self._sessions: dict[int, bytes] = {}  # of the generation, by rank, as the record has them
        self._restored: dict[int, Start] = {}  # epochs, as the record had them that this broker began with
        self._left: dict[int, State] = {}  # where the ranks stood that said goodbye

    @property
    def epochs(self) -> dict[int, Ledger]:
        """The ledgers of the epochs that are under way."""
        return self.production.open_epochs

    # ------------------------------------------------------------------ ranks

    def rank_hello(self, hello: e.EpochsHello, now: float) -> Seat:  # noqa: ARG002  # all events have a time
        """Take a rank in, or back after its connection broke.

        Raises:
            WireError: reason ``config``: its plan is another than the group's, or its generation is over; reason
                ``taken``: another process is this rank, and connected.
        """
        mine = self.seats.get(hello.rank)
        before = self._members.get(hello.rank)
        if before is not None and before.session == hello.session and not (mine is not None and mine.connected):
            mine = self.seats[hello.rank] = before
        if mine is not None and mine.session == hello.session:
            self._welcome_back(mine, hello)
            return mine
        if hello.generation and hello.generation != self.generation:
            raise WireError(
                "config", "this rank's run is over: all ranks were started again, or the broker lost its ledger"
            )
        if mine is not None and mine.connected:
            raise WireError(
                "taken", f"{mine.who} of group {self.group!r} is connected; two processes cannot be one rank"
            )
        seat = seated(hello, ledger=self._commits.ledger)
        self._check_agreement(seat)
        member = bool(hello.generation) or self._sessions.get(hello.rank) == hello.session
        if member:  # of a broker that died; this one knows the generation from its ledger
            self._take_over(seat, hello)
        self.seats[hello.rank] = seat
        if member:
            self._say_opened(seat, kept_of(hello.holding, self._restored))
        else:
            self._say_forming(seat)
        return seat

    def _take_over(self, seat: Seat, hello: e.EpochsHello) -> None:
        if hello.rank in self._members:
            raise WireError("config", f"another process is rank {hello.rank} of this run")
        self._members[hello.rank] = seat
        self._left.pop(hello.rank, None)
        # One that was not told of the generation yet is where this began.
        seat.begin(self.generation, hello.epoch if hello.generation else min(self.epochs))
        seat.durable = True
        self.production.on_error = seat.on_error
        for epoch, ledger in self.epochs.items():
            if epoch < seat.epoch:
                ledger.passed(hello.rank)

    def _check_agreement(self, seat: Seat) -> None:
        for other in self.seats.values():
            if other.rank != seat.rank and other.connected and (what := other.plan.differs(seat.plan)):
                raise WireError("config", f"{seat.who} disagrees with {other.who} of group {self.group!r}: {what}")

    def _welcome_back(self, seat: Seat, hello: e.EpochsHello) -> None:
        if self._is_fresh(seat):
            self._check_agreement(seat)
            seat.connected = True
            self._say_forming(seat)
            return
        seat.connected = True
        if not seat.durable:
            return  # it is told soon
        knows = hello.broker == self.instance and hello.generation == self.generation
        self._say_opened(seat, [] if knows else kept_of(hello.holding, self._restored))
        for delivery in seat.unclaimed:
            if delivery.number > hello.received or not knows:
                self._send(seat.session, delivery.message, delivery.frames)

    def rank_unreachable(self, seat: Seat) -> None:
        """Note that a rank's connection is gone. What it claimed is its own, whatever comes."""
        seat.connected = False

    def farewell(self, seat: Seat, message: e.Farewell) -> None:
        """Let a rank go, which says where it stands. It is answered when that is durable."""
        seat.connected = False
        if message.generation == self.generation == seat.generation and message.state:
            try:
                self._left[seat.rank] = State.from_dict(json.loads(message.state))
            except (ValueError, RecursionError) as error:
                raise WireError("body", f"a farewell's state is malformed: {error}") from None
            self._commits.part(seat)
            return
        if seat.generation != self.generation and self.seats.get(seat.rank) is seat:
            del self.seats[seat.rank]
        self._say_parted(seat)

    def claim(self, seat: Seat, message: e.Claim) -> None:
        """Note a rank's claims."""
        seat.waited = message.waited
        if message.generation != self.generation or seat.generation != self.generation:
            return
        if message.claimed > seat.sent:
            raise WireError("body", f"{seat.who} claimed delivery {message.claimed} of {seat.sent}")
        while seat.unclaimed and seat.unclaimed[0].number <= message.claimed:
            delivery = seat.unclaimed.popleft()
            seat.claimed = delivery.number
            seat.doubt.append((delivery.number, delivery.count))
            ledger = self.epochs.get(delivery.epoch)
            if ledger is not None:
                ledger.claim(delivery.split, delivery.claimant)
            group = self.tally.group(self.group)
            group.datapoints += delivery.count
            group.nbytes += delivery.nbytes
            self._commits.due = True
        while seat.doubt and seat.doubt[0][0] <= message.handed:
            seat.doubt.popleft()
        if message.epoch > seat.epoch:
            seat.epoch = message.epoch
            for epoch, ledger in self.epochs.items():
                if epoch < seat.epoch:
                    ledger.passed(seat.rank)
            self._commits.due = True

    # ------------------------------------------------------------------ generations

    def _maybe_open(self) -> None:
        seats = [seat for seat in self.seats.values() if seat.connected and self._is_fresh(seat)]
        if not seats or len(seats) < seats[0].plan.world or (source := self.production.elected()) is None:
            return
        if seats[0].resume == "broker":
            for member in self._members.values():
                member.claim_unseen(self.epochs)
        try:
            if self.plan is not None and all(seat.state is None for seat in seats):
                self.production.check_goes_on(source, seats[0].resume)
            plan, epoch, start = start_of(seats, source, self._so_far())
        except WireError as error:
            for seat in seats:
                self._refuse(seat, error)
            return
        in_doubt = self.in_doubt if start != Start() and seats[0].state is None else 0
        self._close_generation()
        self.production.adopt(source)
        self.generation = self.production.generation = self._draw(16)
        self.plan = self.production.plan = plan
        self.production.poison.begin(source.items, plan.seed, plan.shuffle)
        self.production.expect(source.item_bytes * plan.split_size)
        self.production.on_error = seats[0].on_error
        self.production.entered = epoch
        self._open_epoch(epoch, start)
        self.reports[epoch].in_doubt = in_doubt
        self.tally.in_doubt += in_doubt
        for seat in seats:
            seat.begin(self.generation, epoch)
        self._members = {seat.rank: seat for seat in seats}
        self._sessions = {seat.rank: seat.session for seat in seats}
        self._commits.due = True

    def _is_fresh(self, seat: Seat) -> bool:
        return not seat.generation or seat.generation != self.generation

    def _so_far(self) -> tuple[Plan | None, int, Start, State | None]:
        """Where the present generation stands: its plan, first epoch that is not complete, and what ranks said."""
        if self.plan is None:
            return None, 0, Start(), None
        under_way = [epoch for epoch, ledger in self.epochs.items() if not ledger.complete] or list(self.epochs)
        epoch = min(under_way, default=0)
        start = self.epochs[epoch].record() if under_way else Start()
        return self.plan, epoch, start, common(self._left.values(), self.plan.world)

    def _close_generation(self) -> None:
        for seat in self._commits.forget():
            self._say_parted(seat)  # what it said was used, or is not wanted any more
        self.production.stop()
        self.reports.clear()
        self._members.clear()
        self._left.clear()
        self._restored.clear()
        self.seats = {rank: seat for rank, seat in self.seats.items() if seat.connected and self._is_fresh(seat)}

    def _open_epoch(self, epoch: int, start: Start) -> None:
        assert self.plan is not None
        assert self.production.source is not None
        items = self.production.source.items
        splits = self.plan.splits(items)
        strict = self.plan.order == "strict"
        window = max(WINDOW, self.plan.rows.size)
        self.epochs[epoch] = Ledger(
            splits, self.plan.rows, strict=strict, even=self.plan.even, window=window, start=start
        )
        for seat in self._members.values():
            if seat.epoch > epoch:
                self.epochs[epoch].passed(seat.rank)
        earlier = start.low + sum(last - first for first, last in start.done)
        self.reports[epoch] = EpochReport(epoch, items, earlier=min(items, earlier * self.plan.split_size))

    def _advance(self) -> None:
        """Begin the next epoch when a rank wants it or workers have nothing else; forget one that all ranks left."""
        assert self.plan is not None
        first, last = min(self.epochs), max(self.epochs)
        wanted = max((seat.epoch for seat in self._members.values()), default=first)
        self.production.entered = max(self.production.entered, wanted)
        left = len(self._members) == self.plan.world and all(seat.epoch > first for seat in self._members.values())
        over = self.epochs[first].complete or self.epochs[first].abandoned or wanted > last
        if len(self.epochs) == OPEN_EPOCHS and left and over:
            self._tell_report(first)
            self.production.forget(first)
            del self.reports[first]
            self._commits.due = True
        if len(self.epochs) < OPEN_EPOCHS and (wanted > last or self.epochs[last].all_leased):
            self._open_epoch(last + 1, Start())

    # ------------------------------------------------------------------ what follows

    def pump(self, now: float, *, grant: bool = True) -> None:
        """Do everything that has become possible. Call it after each batch of events."""
        self._maybe_open()
        if self.plan is None or not self.epochs:
            return
        self._advance()
        self.production.settle_accounts()
        if grant and any(seat.connected and seat.generation == self.generation for seat in self.seats.values()):
            self.production.lease_all(now)
        self._commit()
        self._tell_news()
        for seat in self.seats.values():
            if seat.generation == self.generation and seat.connected and seat.durable:
                if not seat.opened:
                    self._say_opened(seat, [])
                self._deliver(seat)
        self.production.receipts()
        self._tell()

    def _deliver(self, seat: Seat) -> None:
        ledger = self.epochs.get(seat.epoch)
        queue = ledger.queues[seat.rank] if ledger is not None else ()
        while queue and seat.has_room():
            number, claimant = queue.popleft()
            assert ledger is not None
            split = ledger.open.get(number)
            if split is None or claimant not in split.owed:
                continue
            seat.sent += 1
            delivery = self._delivery(seat, split, claimant, ledger)
            seat.unclaimed.append(delivery)
            self._send(seat.session, delivery.message, delivery.frames)

    def _delivery(self, seat: Seat, split: Split, claimant: int, ledger: Ledger) -> Delivery:
        made = split.made
        assert made is not None
        assert self.plan is not None
        if made.failed:
            mishap = e.Mishap(seat.sent, self.generation, seat.epoch, split.number, *made.block)
            return Delivery(seat.sent, seat.epoch, split.number, claimant, 0, 0, mishap, ())
        frames, worker = made.block
        skip = max(0, -split.start, ledger.skip.get(split.number, 0))
        padding = claimant >= self.plan.world
        seat.told = claimed, _, total, final = self._standing(seat, ledger)
        message = e.Portion(
            seat.sent, self.generation, seat.epoch, split.number, split.start + skip, made.outputs, skip, padding,
            worker, claimed, total, final,
        )  # fmt: skip
        return Delivery(seat.sent, seat.epoch, split.number, claimant, made.outputs, made.nbytes, message, frames)

    def _commit(self) -> None:
        self._commits.commit(self.record, self._members.values())
        if not self._commits.ledger:
            self.saved(0)

    def saved(self, number: int) -> None:
        """All records up to ``number`` are durable: confirm what they hold."""
        for seat in self._commits.saved(number):
            self._say_parted(seat)

    def _say_parted(self, seat: Seat) -> None:
        self._send(seat.session, e.Parted(seat.generation), ())

    def _listening(self) -> list[Seat]:
        """Return the ranks that were told of the generation and are connected."""
        seats = self.seats.values()
        return [seat for seat in seats if seat.connected and seat.opened and seat.generation == self.generation]

    def _tell_news(self) -> None:
        """Tell rank 0 of items that were given up, before anything that ends their epoch."""
        for seat in self._listening() if self.production.news else ():
            if seat.rank == 0:
                for news in self.production.news:
                    self._send(seat.session, news, ())
                self.production.news.clear()

    def _tell(self) -> None:
        for seat in self._listening():
            ledger = self.epochs.get(seat.epoch)
            if ledger is not None and (told := self._standing(seat, ledger)) != seat.told:
                seat.told = told
                self._send(seat.session, e.Confirm(self.generation, *told, ""), ())
        for epoch in [epoch for epoch, ledger in self.epochs.items() if ledger.complete]:
            if self._commits.settled:
                self._tell_report(epoch)

    def _tell_report(self, epoch: int) -> None:
        """Tell what became of an epoch to the ranks that were not told; they may have gone on."""
        ledger = self.epochs[epoch]
        report = self._report(epoch, ledger)
        for seat in self._listening() if ledger.complete else ():
            if seat.reported < epoch <= seat.epoch:
                seat.reported = epoch
                claimed, _, total, final = self._standing(seat, ledger)
                self._send(seat.session, e.Confirm(self.generation, claimed, epoch, total, final, report), ())

    def _standing(self, seat: Seat, ledger: Ledger) -> tuple[int, int, int, bool]:
        """Return what a rank needs to know to hand out: the claims that are durable, its epoch, how far that is."""
        total = max(0, ledger.total)  # below 0: what was handed out before the number of ranks changed
        if not ledger.final:
            total = ledger.rows.ready(total) * (ledger.rows.world > 1)
        return (seat.confirmed if seat.confirms else 0), seat.epoch, total, ledger.final

    def _report(self, epoch: int, ledger: Ledger) -> str:
        report = self.reports[epoch]
        if not report.text:
            report.fill(ledger, self.production.counts.get(epoch, {}))
            for outcome in OUTCOMES:
                self.tally.epoch_items[outcome] += getattr(report, outcome)
        return report.text

    # ------------------------------------------------------------------ time

    def tick(self, now: float, *, drained: bool = True) -> None:
        """Do what time brings. ``drained``: everything that had arrived was taken in; else nobody is called late."""
        if drained:
            self.production.tick(now)
        for seat in self.seats.values():
            if seat.connected and self._is_fresh(seat):
                self._say_forming(seat)

    def queued(self) -> int:
        """Count the datapoints of blocks that are here and not claimed by all; also in another thread."""
        return sum(made.outputs for ledger in list(self.epochs.values()) for made in ledger.held())

    @property
    def epoch(self) -> int | None:
        """The epoch of the rank that is furthest behind; None where none has begun."""
        return min(
            (seat.epoch for seat in list(self.seats.values()) if seat.generation == self.generation), default=None
        )

    def beat(self, seat: Seat) -> ConsumerBeat:
        """Say what a waiting rank wants to know."""
        here, budget = self.production.lessees.here, self.production.budget
        refused = [f"{worker.name} ({worker.refused})" for worker in here if worker.refused]
        live, occupancy = len(here) - len(refused), budget.used / budget.total
        return ConsumerBeat(seat.sent, live, 0, [], self.queued(), occupancy, [], refused[-REFUSALS:])

    def _say_forming(self, seat: Seat) -> None:
        here = {each.rank for each in self.seats.values() if each.connected and self._is_fresh(each)}
        missing = sorted(set(range(seat.plan.world)) - here)
        waiting = []
        if missing:
            waiting.append(f"rank {some(missing, 16)} of {seat.plan.world} in group {self.group!r}")
        if self.production.elected() is None:
            waiting.append(self.production.nothing_known(self.pipeline))
        self._send(seat.session, e.Forming(self.instance, " and ".join(waiting)), ())

    def _say_opened(self, seat: Seat, kept: Sequence[int]) -> None:
        seat.opened, seat.told, seat.reported = True, None, -1
        assert self.plan is not None
        assert self.production.source is not None
        state = starting_state(seat, self.epochs)
        message = opened(self.instance, seat, self.plan, self.production.source, state, kept)
        self._send(seat.session, message, ())

    def _refuse(self, seat: Seat, error: WireError) -> None:
        self._send(seat.session, Refused("config", str(error)), ())
        self.seats.pop(seat.rank, None)

    # ------------------------------------------------------------------ rest, and the record on disk

    @property
    def may_rest(self) -> bool:
        """Whether nobody is here, and its record holds all that those who were may have handed out."""
        if any(seat.connected for seat in self.seats.values()) or not self._commits.idle:
            return False
        return all(rank in self._left or seat.confirms for rank, seat in self._members.items())

    @property
    def in_doubt(self) -> int:
        """Datapoints that were claimed by ranks which have not said that they handed them out, nor goodbye."""
        return sum(n for rank, seat in self._members.items() if rank not in self._left for _, n in seat.doubt)

    def rest(self) -> dict[str, Any] | None:
        """Give all memory back; returns the record from which another job can go on, None if it never began."""
        record = None if self.plan is None else self.record()
        self.production.stop()
        return record

    def record(self) -> dict[str, Any]:
        """Return what must be durable, of plain JSON types."""
        assert self.plan is not None
        assert self.production.source is not None
        return {
            "generation": self.generation.hex(),
            "plan": self.plan.to_dict(),
            "source": asdict(self.production.source),
            "epochs": {str(epoch): vars(ledger.record()) for epoch, ledger in self.epochs.items()},
            "poisoned": sorted(self.production.poison.items),
            "sessions": {str(rank): session.hex() for rank, session in self._sessions.items()},
            "left": {str(rank): state.to_dict() for rank, state in self._left.items()},
        }

    def restore(self, record: dict[str, Any]) -> None:
        """Go on from a record, in its generation: ranks that live come back, workers are leased anew."""
        self.plan = self.production.plan = Plan(**record["plan"])
        self.generation = self.production.generation = bytes.fromhex(record["generation"])
        self.production.source = e.Source(**record["source"])
        plan, items = self.plan, self.production.source.items
        self.production.poison.begin(items, plan.seed, plan.shuffle, record["poisoned"])
        self._restored = {int(epoch): restored(fields) for epoch, fields in record["epochs"].items()}
        for epoch, start in self._restored.items():
            self._open_epoch(epoch, start)
        self._sessions = {int(rank): bytes.fromhex(session) for rank, session in record["sessions"].items()}
        self._left = {int(rank): State.from_dict(state) for rank, state in record["left"].items()}
        for rank, state in self._left.items():
            for epoch, ledger in self.epochs.items():
                if epoch < state.epoch:
                    ledger.passed(rank)
        self.production.expect(self.production.source.item_bytes * self.plan.split_size)
        self.production.entered = max(self.epochs, default=0) + 1  # ranks may be further than the record

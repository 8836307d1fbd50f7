"""Owns a job's way from leases to blocks: who makes which split, what it may cost, and what is too late. Pure.

A lease is the credit: its bytes are charged when it is granted, the rest comes back with the block. The earliest split
that is not made always gets room: others leave one block's bytes free for it, and give up what nobody has seen if a
block turns out larger than any before.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from typing import Any

from dfserve.broker.budget import Budget, charge_of
from dfserve.broker.ledger import Ledger, Made, NotRepeatableError
from dfserve.broker.lessees import Leased, Lessee, Lessees
from dfserve.broker.poison import Poison
from dfserve.broker.tally import Tally
from dfserve.epochs.plan import Plan
from dfserve.errors import WireError
from dfserve.wire import epoch_messages as e
from dfserve.wire.messages import Message

log = logging.getLogger("dfserve.broker")

SLOT_LEAST = 64 << 10  # bytes that a block may have at first: what a worker says of its first item is a guess
SLOT_ROOM = 1.25  # times the largest block so far: that the next ones may have
RESENT = 3.0  # seconds after which a lease that a worker does not know is said again
NO_BYTES = b""
REFUSALS = 3  # workers that are named to a rank: those that cannot serve the job, or have not said what it is

Send = Callable[[bytes, Message, Sequence[Any]], None]


class Production:
    """The workers of one job. ``open_epochs`` belongs to the job, which adds and removes ledgers.

    Attributes:
        source: what all workers must agree on; None until the first has said it.
        slot: bytes that a block may have.
    """

    def __init__(self, budget: Budget, tally: Tally, send: Send, lease_time: float, first_lease: int) -> None:
        self.budget = budget
        self.tally = tally
        self.lessees = Lessees()
        self.source: e.Source | None = None
        self.slot = SLOT_LEAST
        self.open_epochs: dict[int, Ledger] = {}
        self.generation = NO_BYTES
        self.plan: Plan | None = None
        self.on_error = "raise"
        self.entered = 0  # the last epoch that a rank may have seen something of
        self.poison = Poison()
        self.news: list[e.Quarantined] = []
        self.counts: dict[int, dict[str, int]] = {}  # by epoch: expired, redelivered, fenced
        self._send = send
        self._lease_time = lease_time
        self._next_lease = first_lease
        self._taken: dict[bytes, list[int]] = {}

    # ------------------------------------------------------------------ workers

    def worker_here(self, session: bytes, name: str, host: str, now: float) -> None:
        """Take a worker in, or back after its connection broke."""
        worker = self.lessees.workers.get(session)
        if worker is None:
            worker = self.lessees.workers[session] = Lessee(session, name, host, progress=now)
        worker.connected = True
        if worker.source is None and not worker.refused:
            self._send(session, e.Describe(), ())

    def worker_unreachable(self, session: bytes) -> None:
        """Note that a worker's connection is gone; it may come back."""
        if session in self.lessees.workers:
            self.lessees.workers[session].connected = False

    def worker_gone(self, session: bytes, at: Sequence[int] = ()) -> None:
        """Give a worker up; ``at``: (epoch, position) of the item that it died at, as its supervisor saw it."""
        worker = self.lessees.workers.pop(session, None)
        if worker is None:
            return
        for leased in list(worker.leases.values()):
            self._take_back(worker, leased)
        if len(at) == 2 and at[0] in self.open_epochs and (index := self.poison.strike(*at)) is not None:
            self._give_up(worker, at[0], index)

    def describe(self, session: bytes, source: e.Source) -> str:
        """Take in what a worker says of its source. Returns why it cannot take part, or ""."""
        worker = self.lessees.workers.get(session)
        if worker is None:
            return ""
        worker.source = source
        worker.refused = source.refusal or self._disagreement(source)
        if not worker.refused and self.source is None:
            self.source = source
        return worker.refused

    def elected(self) -> e.Source | None:
        """Return the source of a generation that begins: as before where a worker has that, else what one has, or None.

        Without a worker it is not known whether the data are what they were.
        """
        said = [worker.source for worker in self.lessees.here if worker.source and not worker.source.refusal]
        agreed = self.source is not None and any(not self._disagreement(each) for each in said)
        return self.source if agreed else next(iter(said), None)

    def check_goes_on(self, source: e.Source, resume: str) -> None:
        """See that what the broker knows is of the source that there is now, where ranks go on from that.

        Raises:
            WireError: reason ``config``: it is not.
        """
        mine = self.source
        if resume == "broker" and mine is not None and self._disagreement(source):
            raise WireError(
                "config",
                f"resume='broker' goes on with the data that there were, {mine.items} items of {mine.name}, and"
                f" producers have {source.items} of {source.name} now, or make other datapoints of them: choose"
                " resume='fresh'",
            )

    def adopt(self, source: e.Source) -> None:
        """Begin a generation with a source; workers that have it may serve now, and no others."""
        self.source = source
        for worker in self.lessees.workers.values():
            if worker.source is not None:
                worker.refused = worker.source.refusal or self._disagreement(worker.source)

    def nothing_known(self, pipeline: str) -> str:
        """Say why nobody has told what there is to serve."""
        here = self.lessees.here
        if asked := [worker.name for worker in here if not worker.refused]:
            return f"the first item of pipeline {pipeline!r}, asked of {some(asked, REFUSALS)}: it is slow, or hangs"
        refused = "".join(f" ({worker.name} cannot: {worker.refused})" for worker in here[:REFUSALS])
        return f"a producer of pipeline {pipeline!r}{refused}"

    def _disagreement(self, source: e.Source) -> str:
        mine = self.source
        for field in ("items", "sharded", "fingerprint", "batch", "remainder", "use_list") if mine else ():
            ours, theirs = getattr(mine, field), getattr(source, field)
            if ours != theirs:
                return (
                    f"its source {source.name} has {field} {theirs}, and that of other workers {ours}: all producers"
                    " of a pipeline must read the same data, in the same order (sort what os.listdir gives, seed what"
                    " is random in the factory), with the same code"
                )
        return ""

    def beat(self, session: bytes, message: e.LeaseBeat, now: float) -> None:
        """Take in a worker's heartbeat; say again what it may have missed: leases, and that it is to drop one."""
        worker = self.lessees.workers.get(session)
        if worker is None:
            return
        if message.items != worker.items:
            worker.items, worker.progress = message.items, now
            worker.hangs = False
        elif not message.leases:  # it is at none
            worker.hangs = False
        known = set(message.leases)
        for leased in worker.leases.values():
            if leased.number not in known and now - leased.since > RESENT:
                leased.since = now
                self._say(worker, leased)
            elif leased.revoked and leased.number in known:
                self._send(session, e.Revoke([leased.number]), ())

    # ------------------------------------------------------------------ leases

    def expect(self, nbytes: int) -> None:
        """Note how large a block may well be; more than the budget has is not charged."""
        self.slot = max(self.slot, int(SLOT_ROOM * nbytes))

    def lease_all(self, now: float) -> None:
        """Lease what there is to workers that have room, the earliest split first, within the budget."""
        for epoch in sorted(self.open_epochs):
            ledger = self.open_epochs.get(epoch)
            if ledger is None or (epoch <= self.entered and self._earlier_is_out(epoch)):
                return  # what is made of it could not be let go for the earlier one
            while ledger.may_lease and (worker := self.lessees.idlest(self.slot)) is not None:
                if not self._has_room(ledger, epoch):
                    return
                self._lease(worker, ledger, epoch, now)

    def _lease(self, worker: Lessee, ledger: Ledger, epoch: int, now: float) -> None:
        split = ledger.lease(self._next_lease)
        assert split is not None
        assert self.plan is not None
        assert self.source is not None
        self._next_lease += 1
        charge = self._charge()
        first, count = self.plan.span(split.number, self.source.items)
        skip = self.poison.within(epoch, first, count)
        self.budget.take(charge)
        if not worker.leases:
            worker.progress = now
        leased = Leased(split.lease, epoch, split.number, charge, split.attempts, now, skip)
        worker.leases[leased.number] = leased
        self._say(worker, leased)

    def _has_room(self, ledger: Ledger, epoch: int) -> bool:
        charge = self._charge()
        if self.budget.fits(2 * charge):
            return True
        if not self._next_is_earliest(ledger, epoch):
            return False  # what is left is for the earliest
        while not self.budget.fits(charge):
            if not self._make_room(epoch):
                return False
            self.settle_accounts()
        return True

    def _charge(self) -> int:
        return min(charge_of(self.slot), self.budget.total)

    def _make_room(self, epoch: int) -> bool:
        """Let something go for the earliest split, which is of ``epoch``; False: nothing, or it takes a while."""
        ledgers = [self.open_epochs[each] for each in sorted(self.open_epochs, reverse=True)]
        if any(ledger.drop_ready() for ledger in ledgers) or any(ledger.set_aside() for ledger in ledgers):
            return True
        if self._revoke_latest():
            return False
        last = max(self.open_epochs)
        if last > max(epoch, self.entered):  # nobody has seen anything of it
            self.forget(last)
            return True
        return False

    def forget(self, epoch: int) -> None:
        """Take everything of an epoch back: it is over, or begins anew."""
        for worker, leased in list(self.lessees.out()):
            if leased.epoch == epoch:
                self._send(worker.session, e.Revoke([leased.number]), ())
                self._take_back(worker, leased, count=False)
        self.settle_accounts()
        ledger = self.open_epochs.pop(epoch)
        self.budget.give_back(sum(made.nbytes for made in ledger.held()))
        self.counts.pop(epoch, None)

    def _next_is_earliest(self, ledger: Ledger, epoch: int) -> bool:
        return not self._earlier_is_out(epoch) and ledger.earliest() == ledger.next_pending

    def _earlier_is_out(self, epoch: int) -> bool:
        return any(self.open_epochs[each].earliest() is not None for each in self.open_epochs if each < epoch)

    def _revoke_latest(self) -> bool:
        """Ask for the latest lease back whose block is not here; False if there is none."""
        out = [(leased.epoch, leased.split, worker, leased) for worker, leased in self.lessees.out()]
        if out and not any(leased.revoked for *_, leased in out):
            _, _, worker, leased = max(out, key=lambda each: each[:2])
            leased.revoked = True
            self._send(worker.session, e.Revoke([leased.number]), ())
        return bool(out)

    def _say(self, worker: Lessee, leased: Leased) -> None:
        assert self.plan is not None
        assert self.source is not None
        plan = self.plan
        first, count = plan.span(leased.split, self.source.items)
        message = e.Lease(
            leased.number, self.generation, leased.epoch, leased.split, plan.seed, plan.shuffle, first, count,
            list(leased.skip), self.on_error, leased.charge - charge_of(0), self._taken.pop(worker.session, []),
        )  # fmt: skip
        self._send(worker.session, message, ())

    # ------------------------------------------------------------------ what comes back

    def expects(self, session: bytes, message: e.Made, nbytes: int) -> bool:
        """Whether a worker holds the lease of which it sends a block, and may make one of so many bytes."""
        worker = self.lessees.workers.get(session)
        leased = None if worker is None else worker.leases.get(message.lease)
        return (
            leased is not None
            and message.generation == self.generation
            and (leased.epoch, leased.split) == (message.epoch, message.split)
            and charge_of(nbytes) <= leased.charge
        )

    def made(self, session: bytes, message: e.Made | e.MadeNothing, frames: Sequence[Any], now: float) -> bool:
        """Take a block in. False: nobody wants it any more, and nothing changed but the count of these."""
        nbytes = sum(len(frame) for frame in frames)
        found = self._found(session, message, now)
        if found is None:
            return False
        worker, leased, ledger = found
        if charge_of(nbytes) > leased.charge:
            self._take_back(worker, leased)
            raise WireError("credit", f"{worker.name} was leased {leased.charge} bytes and sent {charge_of(nbytes)}")
        try:
            made = self._judged(worker, leased, message, frames, charge_of(nbytes))
        except WireError:
            self._take_back(worker, leased)
            raise
        del worker.leases[leased.number]
        self.budget.give_back(leased.charge - made.nbytes)
        try:
            taken = ledger.made(leased.split, leased.number, made)
        except NotRepeatableError as error:
            failure = ("", "NotRepeatableError", str(error), "", worker.host, worker.name)
            taken = ledger.made(leased.split, leased.number, Made(0, 0, nbytes=made.nbytes, block=failure, failed=True))
        assert taken, "a worker holds a lease that is not the split's"
        self.expect(nbytes)
        producer = self.tally.producer(worker.name)
        producer.datapoints += made.outputs
        producer.nbytes += nbytes
        return True

    def not_made(self, session: bytes, message: e.NotMade, now: float) -> None:
        """Take in that a worker has no block: it is too large for the lease, or an item raised."""
        found = self._found(session, message, now)
        if found is None:
            return
        worker, leased, ledger = found
        most = self.budget.total - charge_of(0)
        if 0 < message.nbytes <= most:
            self.slot = max(self.slot, min(most, int(SLOT_ROOM * message.nbytes)))
            self._take_back(worker, leased, count=False)  # nothing was lost
            return
        del worker.leases[leased.number]
        self.tally.errors["pipeline"] += 1
        text = message.text
        if message.nbytes:
            text = (
                f"the block of split {message.split} has {message.nbytes} bytes, and this job's share of the broker's"
                f" budget is {most}: raise queue_bytes (--queue-bytes), or lower split_size"
            )
        failure = (message.key, message.kind or "BlockTooLarge", text, message.traceback, worker.host, worker.name)
        charge = charge_of(len(message.traceback) + len(text))
        charge = min(charge, leased.charge)
        self.budget.give_back(leased.charge - charge)
        ledger.made(leased.split, leased.number, Made(0, 0, nbytes=charge, block=failure, failed=True))

    def dropped(self, session: bytes, leases: Sequence[int]) -> None:
        """Take in that a worker has dropped leases: it was asked to, or it is about to leave and is leased no more."""
        worker = self.lessees.workers.get(session)
        if worker is None:
            return
        for number in leases:
            if (leased := worker.leases.get(number)) is not None:
                worker.leaves |= not leased.revoked
                self._take_back(worker, leased)

    def _found(
        self, session: bytes, message: e.Made | e.MadeNothing | e.NotMade, now: float
    ) -> tuple[Lessee, Leased, Ledger] | None:
        worker = self.lessees.workers.get(session)
        leased = None if worker is None else worker.leases.get(message.lease)
        self._taken.setdefault(session, []).append(message.lease)
        if worker is not None:
            worker.hangs = False
        if worker is None or leased is None or message.generation != self.generation:
            self._count(message.epoch, "fenced")
            self.tally.fenced += 1
            return None
        if (leased.epoch, leased.split) != (message.epoch, message.split):
            raise WireError("body", f"{worker.name} has lease {leased.number} for another split than it says")
        worker.progress = now
        return worker, leased, self.open_epochs[leased.epoch]

    def _judged(
        self, worker: Lessee, leased: Leased, message: e.Made | e.MadeNothing, frames: Sequence[Any], charge: int
    ) -> Made:
        assert self.plan is not None
        assert self.source is not None
        _, items = self.plan.span(leased.split, self.source.items)
        given_up = len(leased.skip)
        if isinstance(message, e.MadeNothing):
            given_up += self._given_up(worker, leased.epoch, message.quarantined)
            return Made(0, items, items - given_up, given_up, (0,) * items, charge)
        counts = message.counts
        if counts and (len(counts) != items or sum(counts) != message.outputs):
            raise WireError("body", f"{worker.name} counted {len(counts)} items with {sum(counts)} outputs in a block")
        if not counts and message.outputs != items:
            raise WireError("body", f"{worker.name} sent {message.outputs} outputs of {items} items and no counts")
        given_up += self._given_up(worker, leased.epoch, message.quarantined)
        empty = sum(count == 0 for count in counts)
        if given_up > empty:
            raise WireError("body", f"{worker.name} gave {given_up} items up, and {empty} gave no output")
        block = (frames, worker.name)
        return Made(message.outputs, items, empty - given_up, given_up, tuple(counts), charge, block)

    def _given_up(self, worker: Lessee, epoch: int, listed: str) -> int:
        """Note the items that a worker gave up, for the ranks to hear of; returns how many."""
        try:
            found = [tuple(map(str, each)) for each in json.loads(listed)] if listed else []
            news = [(key, kind, text, traceback) for key, kind, text, traceback in found]
        except (ValueError, TypeError, RecursionError) as error:
            raise WireError("body", f"{worker.name} sent a malformed list of quarantined items: {error}") from None
        for key, kind, text, traceback in news:
            self.tally.quarantined += 1
            self.news.append(
                e.Quarantined(self.generation, epoch, key, kind, text, traceback, worker.host, worker.name)
            )
        return len(news)

    # ------------------------------------------------------------------ time and ends

    def tick(self, now: float) -> None:
        """Take the leases of late workers back."""
        for worker in self.lessees.workers.values():
            if worker.late(now, self._lease_time):
                log.warning("worker %s has begun no item for %.0f s", worker.name, now - worker.progress)
                worker.progress, worker.hangs = now, True  # else the same split might go to it again, and again
                for leased in list(worker.leases.values()):
                    self._count(leased.epoch, "expired")
                    self.tally.expired += 1
                    self._take_back(worker, leased)
            if worker.connected and worker.source is None and not worker.refused:
                self._send(worker.session, e.Describe(), ())

    def settle_accounts(self) -> None:
        """Give back the bytes of blocks that nobody needs any more."""
        for ledger in self.open_epochs.values():
            for made in ledger.freed:
                self.budget.give_back(made.nbytes)
            ledger.freed.clear()

    def receipts(self) -> None:
        """Tell workers what they may forget, where no lease has told them."""
        for session, leases in self._taken.items():
            self._send(session, e.Taken(leases), ())
        self._taken.clear()

    @property
    def leased_bytes(self) -> int:
        """Bytes of the budget that are leased, and not here; also in another thread."""
        workers = list(self.lessees.workers.values())
        return sum(leased.charge for worker in workers for leased in list(worker.leases.values()))

    @property
    def held_bytes(self) -> int:
        """Bytes of the budget that are taken by what is here."""
        return max(0, self.budget.used - self.leased_bytes)

    def stop(self) -> None:
        """Take everything back: the generation is over."""
        for epoch in list(self.open_epochs):
            self.forget(epoch)

    def _take_back(self, worker: Lessee, leased: Leased, *, count: bool = True) -> None:
        worker.leases.pop(leased.number, None)
        self.budget.give_back(leased.charge)
        ledger = self.open_epochs.get(leased.epoch)
        if ledger is not None and ledger.lost(leased.split, leased.number) and count and not leased.revoked:
            self._count(leased.epoch, "redelivered")

    def _count(self, epoch: int, what: str) -> None:
        if epoch not in self.open_epochs:
            return
        counts = self.counts.setdefault(epoch, {})
        counts[what] = counts.get(what, 0) + 1

    def _give_up(self, worker: Lessee, epoch: int, index: int) -> None:
        self.tally.quarantined += 1
        key = f"item {index}"
        log.error("%s killed its worker three times and is given up", key)
        text = "three workers died while they made this item"
        self.news.append(e.Quarantined(self.generation, epoch, key, "WorkerLost", text, "", worker.host, worker.name))


def some(names: Sequence[object], most: int) -> str:
    """Return the first of some names, for a message."""
    return ", ".join(map(str, names[:most])) + (", …" if len(names) > most else "")

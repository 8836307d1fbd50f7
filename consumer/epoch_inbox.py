"""Owns a rank's side of the protocol in epochs mode: what it has, has claimed, and was confirmed. Pure: no sockets."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from dfserve.epochs.plan import Plan
from dfserve.wire import epoch_messages as e
from dfserve.wire.messages import ConsumerBeat, Message, Who

# A rank claims so much ahead of need: what is claimed and not handed out is in doubt if it dies.
AHEAD_BLOCKS = 2
AHEAD_BYTES = 2 << 20  # of small blocks: a claim's way to the broker and back takes as long as some of them

REFUSED = 5  # heartbeats, of a second each: producers that were just started anew have answered by then

Delivered = e.Portion | e.Mishap


@dataclass(eq=False)
class Arrival:
    """A delivery that was received and not opened."""

    number: int
    message: Delivered
    frames: Sequence[Any]
    nbytes: int

    @property
    def outputs(self) -> int:
        """How many datapoints it has, of all ranks."""
        return self.message.outputs - self.message.skip if isinstance(self.message, e.Portion) else 0

    @property
    def claimant(self) -> int:
        """What the broker calls this rank's part of the block, less the rank."""
        return int(isinstance(self.message, e.Portion) and self.message.padding)


class EpochInbox:
    """What a rank has received and not opened.

    Args:
        identity: who this rank is; what it holds is filled in here.

    Attributes:
        opened: what the broker said when it opened the generation; None while it waits for others.
        waiting_for: whom it waits for, in words.
        fresh: a new generation began since this was last set to False: whoever hands out starts over.
        epoch: that is wanted.
        total, final: how many outputs of the epoch have numbers (in complete rows), and whether that is all.
        report: of the epoch, once it is complete.
        taken: the delivery that is being opened.
    """

    def __init__(self, identity: e.EpochsHello) -> None:
        self.identity = identity
        self.opened: e.Opened | None = None
        self.plan: Plan | None = None
        self.waiting_for = ""
        self.fresh = False
        self.epoch = identity.epoch
        self.total = 0
        self.final = False
        self.reports: dict[int, dict[str, int]] = {}
        self._news: deque[tuple[int, e.Quarantined]] = deque()  # and the delivery that came before it
        self._broker = b""
        self._welcomed = False
        self._received = self._claimed = self._confirmed = 0
        self._opened = self._handed = 0  # deliveries: the last that was taken, and that was handed out whole
        self._need = 0  # outputs
        self._waiting: deque[Arrival] = deque()
        self.taken: Arrival | None = None
        self._refused = 0  # heartbeats in a row, one a second, in which every producer refused

    @property
    def greeted(self) -> bool:
        """Whether the broker knows this rank, and whether it waits for others or not."""
        return self._welcomed

    @property
    def hopeless(self) -> bool:
        """Whether every producer that is there has refused the pipeline for some seconds, and none was started anew."""
        return self._refused >= REFUSED

    @property
    def generation(self) -> bytes:
        """The one that is open, or empty."""
        return b"" if self.opened is None else self.opened.generation

    def need(self, datapoints: int) -> None:
        """Claim at least so many of this rank's datapoints ahead: as many as are taken at a time."""
        self._need = datapoints * (1 if self.plan is None else self.plan.world)

    def widen(self, hwm: int) -> None:
        """Want at least so many datapoints in flight, from the next hello on."""
        self.identity = replace(self.identity, hwm=max(hwm, self.identity.hwm))

    def hello(self) -> e.EpochsHello:
        """Return the answer to WHO."""
        self._welcomed = False
        holding: list[int] = []
        for arrival in self._waiting:
            if self._confirmed < arrival.number <= self._claimed and self.plan is not None:
                claimant = self.identity.rank + self.plan.world * arrival.claimant
                holding += [arrival.message.epoch, arrival.message.split, claimant]
        return replace(
            self.identity,
            broker=self._broker,
            generation=self.generation,
            received=self._received,
            epoch=self.epoch,
            holding=holding,
        )

    def beat(self, waited: float) -> Message:
        """Return a heartbeat: what is claimed, or once more who we are."""
        return self._claim(waited) if self._welcomed and self.opened is not None else self.hello()

    def _claim(self, waited: float) -> e.Claim:
        return e.Claim(self.generation, self._claimed, self.epoch, waited, self._handed)

    def want(self, epoch: int) -> None:
        """Go on to an epoch: all of the one before was handed out."""
        self.epoch, self.total, self.final = epoch, 0, False
        self._handed = max(self._handed, self._opened)

    def claims(self, waited: float, *, hungry: bool) -> list[Message]:
        """Claim as much as is due; returns what is to be said.

        Args:
            waited: seconds in all, for the broker's metrics.
            hungry: what is confirmed and not opened is not enough to go on, whatever it is.
        """
        if not self._welcomed or self.opened is None:
            return []
        claimed = max(self._claimed, self._opened)  # without confirmations what is opened may not be claimed
        count = nbytes = outputs = 0
        for arrival in self._waiting:
            if arrival is self.taken:
                continue
            enough = count >= AHEAD_BLOCKS and nbytes >= AHEAD_BYTES and outputs >= self._need
            if arrival.number > claimed:
                if enough and not (hungry and claimed == self._confirmed):
                    break
                claimed = arrival.number
            count, nbytes, outputs = count + 1, nbytes + arrival.nbytes, outputs + arrival.outputs
        if claimed == self._claimed:
            return []
        self._claimed = claimed
        return [self._claim(waited)]

    def take(self) -> Arrival | None:
        """Take the oldest delivery if its claim is confirmed. It is there until it is `put_out`."""
        if not self.has_confirmed:
            return None
        arrival = self._waiting[0]
        if arrival is not self.taken:
            self._handed = max(self._handed, self._opened)  # the one before
            self._opened, self.taken = arrival.number, arrival
        return arrival

    def put_out(self) -> None:
        """Let go of the delivery that was taken: what it has is with whoever hands it out."""
        if self._waiting and self._waiting[0] is self.taken:
            self._waiting.popleft()
        self.taken = None

    def given_up(self, *, over: bool) -> e.Quarantined | None:
        """Take the news of an item that was given up: when what came before is opened, or the epoch is ``over``.

        Workers are ahead of this rank, by an epoch even; their failures are told apart from how much it has had.
        """
        if not self._news:
            return None
        before, message = self._news[0]
        if message.epoch > self.epoch or not (over or before <= self._opened or not self._waiting):
            return None
        return self._news.popleft()[1]

    @property
    def has_confirmed(self) -> bool:
        """Whether ``take`` would return something. What an epoch that is over left out is dropped here."""
        while self._waiting and self._waiting[0].message.epoch < self.epoch:
            self._claimed = max(self._claimed, self._waiting.popleft().number)
        return bool(self._waiting) and self._waiting[0].number <= self._confirmed

    # ------------------------------------------------------------------ what the broker says

    def receive(self, message: Message, frames: Sequence[Any]) -> list[Message]:
        """Take in what the broker says. The answer is a hello when it asks, or when something is missing."""
        lost = False
        if isinstance(message, e.Portion | e.Mishap):
            lost = not self._put(message, frames)
        elif isinstance(message, e.Confirm):
            self._confirm(message)
            if message.report and message.generation == self.generation:
                self.reports[message.epoch] = json.loads(message.report)
        elif isinstance(message, e.Opened):
            self._open(message)
        elif isinstance(message, e.Forming):
            self._broker, self._welcomed, self.waiting_for = message.broker, True, message.waiting_for
        elif isinstance(message, e.Quarantined) and message.generation == self.generation:
            self._news.append((self._received, message))
        elif isinstance(message, ConsumerBeat):
            all_refuse = self.opened is None and not message.producers and message.refused
            self._refused = self._refused + 1 if all_refuse else 0
            lost = self._welcomed and self.opened is not None and message.sent > self._received
        return [self.hello()] if lost or isinstance(message, Who) else []

    def _put(self, message: Delivered, frames: Sequence[Any]) -> bool:
        """Take a delivery in; False if one before it is missing."""
        if message.generation != self.generation or not self._welcomed:
            return True
        if message.delivery > self._received + 1:
            return False
        if message.delivery == self._received + 1:
            if isinstance(message, e.Portion):
                self._confirm(message)
            number = message.delivery
            waiting = deque([*self._waiting, Arrival(number, message, frames, sum(map(len, frames)))])
            confirmed = number if self.opened is not None and not self.opened.confirms else self._confirmed
            # All or, if an interrupt comes, nothing.
            self._waiting, self._received, self._confirmed = waiting, number, confirmed
        return True

    def _confirm(self, message: e.Confirm | e.Portion) -> None:
        if message.generation != self.generation or not self._welcomed:
            return
        self._confirmed = max(self._confirmed, message.claimed)
        if message.epoch == self.epoch:
            self.total, self.final = max(self.total, message.total), message.final or self.final

    def _open(self, message: e.Opened) -> None:
        same = self.opened is not None and message.generation == self.opened.generation
        if not same:
            self._waiting.clear()
            self.fresh = True
            self.reports.clear()
            self.plan = Plan(**json.loads(message.plan))
            self.want(json.loads(message.state)["epoch"])
        elif message.broker != self._broker:
            self._keep(message.kept)
        if not same or message.broker != self._broker:
            self._received = self._claimed = self._confirmed = message.sent
            self._opened = self._handed = 0
            self._news = deque((0, message) for _, message in self._news)
        self.opened, self._broker, self._welcomed = message, message.broker, True

    def _keep(self, kept: Sequence[int]) -> None:
        """A broker that came after one that died counts anew: what is the rank's own stays, the rest comes again."""
        assert self.plan is not None
        mine = set(zip(kept[::3], kept[1::3], kept[2::3], strict=False))
        stay = []
        for arrival in self._waiting:
            claimant = self.identity.rank + self.plan.world * arrival.claimant
            if arrival.number <= self._confirmed or (arrival.message.epoch, arrival.message.split, claimant) in mine:
                arrival.number = 0
                stay.append(arrival)
        self._waiting = deque(stay)

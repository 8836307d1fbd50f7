"""Owns what the broker knows of a rank: its session, what it wants, and the deliveries that it has not claimed."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dfserve.broker.ledger import Ledger
from dfserve.epochs.plan import Plan
from dfserve.epochs.state import State
from dfserve.errors import ConfigError, WireError
from dfserve.window import Window
from dfserve.wire.epoch_messages import EpochsHello
from dfserve.wire.messages import Message

RESUMES = ("checkpoint", "broker", "fresh")


@dataclass(frozen=True)
class Delivery:
    """What was sent to a rank and is not claimed."""

    number: int
    epoch: int
    split: int
    claimant: int
    count: int
    nbytes: int
    message: Message
    frames: Sequence[Any]


@dataclass(eq=False)
class Seat:
    """A rank's session.

    Attributes:
        generation: the one that it takes part in; empty until the first is open.
        confirms: it hands out what was confirmed only; else all that it gets, since no broker outlives that.
        durable: its generation is on the disk, and may be told of.
        opened: it was told.
        sent, claimed, confirmed: numbers: all deliveries of the generation up to them were.
        epoch: that it wants.
        told: delivery, epoch, total and final, as it was told last.
        reported: the last epoch whose report it was told.
    """

    session: bytes
    name: str
    host: str
    pid: int
    rank: int
    plan: Plan
    window: Window
    resume: str
    state: State | None
    on_error: str
    confirms: bool
    generation: bytes = b""
    connected: bool = True
    sent: int = 0
    claimed: int = 0
    confirmed: int = 0
    epoch: int = 0
    durable: bool = False
    opened: bool = False
    waited: float = 0.0
    told: tuple[int, int, int, bool] | None = None
    reported: int = -1
    unclaimed: deque[Delivery] = field(default_factory=deque)
    doubt: deque[tuple[int, int]] = field(default_factory=deque)  # claimed, not said to be handed out: number, count

    @property
    def who(self) -> str:
        """How messages name it."""
        return f"rank {self.rank} ({self.host}, pid {self.pid})"

    def begin(self, generation: bytes, epoch: int) -> None:
        """Take part in a generation."""
        self.generation, self.epoch = generation, epoch
        self.sent = self.claimed = self.confirmed = 0
        self.durable = self.opened = False
        self.unclaimed.clear()
        self.doubt.clear()
        self.told, self.reported = None, -1

    def claim_unseen(self, epochs: Mapping[int, Ledger]) -> None:
        """Claim what was sent to it, where it may have handed that out before it said so."""
        for delivery in () if self.confirms else self.unclaimed:
            self.doubt.append((delivery.number, delivery.count))
            if (ledger := epochs.get(delivery.epoch)) is not None:
                ledger.claim(delivery.split, delivery.claimant)

    def has_room(self) -> bool:
        """Whether one more block may be sent to it."""
        held = self.unclaimed
        return self.connected and self.window.has_room(
            len(held), sum(each.count for each in held), sum(each.nbytes for each in held)
        )


def seated(hello: EpochsHello, *, ledger: bool) -> Seat:
    """Return the seat that a hello asks for; ``ledger``: claims are put on a disk.

    Raises:
        WireError: with reason ``config``: what it says cannot be; the text is for the user.
    """
    try:
        plan = Plan(**json.loads(hello.plan))
        state = State.from_dict(json.loads(hello.state)) if hello.state else None
    except ConfigError as error:
        raise WireError("config", str(error)) from None
    except (ValueError, TypeError, RecursionError) as error:
        raise WireError("body", f"a rank's plan or state is malformed: {error}"[:200]) from None
    if hello.resume not in RESUMES or hello.on_error not in ("raise", "skip") or hello.hwm < 1:
        raise WireError("config", f"resume={hello.resume!r}, on_error={hello.on_error!r}, hwm={hello.hwm}")
    if hello.rank >= plan.world:
        raise WireError("config", f"rank is {hello.rank}; with world={plan.world} ranks are 0 to {plan.world - 1}")
    # Without a ledger only another process that goes on with resume="broker" must know what this one has had. It cannot
    # if the broker ended too, nor if there are several ranks and one of them did not say where it stands.
    confirms = ledger or (plan.world == 1 and not hello.hosts)
    return Seat(
        hello.session, hello.name, hello.host, hello.pid, hello.rank, plan, Window(hello.hwm), hello.resume, state,
        hello.on_error, confirms,
    )  # fmt: skip

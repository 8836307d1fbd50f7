"""Owns the messages of epochs mode, beside those that both modes share; see ``dfserve.wire.messages`` for the coding.

What belongs to a lease, a delivery or a claim carries the generation: 16 random bytes that the broker draws when it
opens a job for a full set of ranks. What carries another one changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from dfserve.wire.messages import Message


@dataclass(eq=False, repr=False)
class EpochsHello(Message):
    """A rank says who it is, what it wants, and what it holds of the broker's deliveries; also its repetition."""

    CODE: ClassVar[int] = 11
    OF_CONSUMER: ClassVar[bool] = True
    session: bytes
    name: str
    host: str
    pid: int
    pipeline: str
    group: str
    hwm: int
    rank: int
    plan: str  # JSON, see dfserve.epochs.plan
    resume: str  # "checkpoint", "broker" or "fresh"
    state: str  # JSON, see dfserve.epochs.state; empty: none was loaded
    on_error: str  # "raise" or "skip"
    hosts: bool  # the broker ends with this rank's process
    epoch: int  # that it wants
    broker: bytes  # the broker instance that `received` belongs to
    generation: bytes  # that it was told of; empty at first
    received: int  # deliveries
    holding: list[int]  # (epoch, split, claimant) of what it has claimed without being told that this is durable


@dataclass(eq=False, repr=False)
class Claim(Message):
    """A rank claims its deliveries up to a number, and says which epoch it is in; also its heartbeat."""

    CODE: ClassVar[int] = 12
    generation: bytes
    claimed: int
    epoch: int
    waited: float  # seconds so far
    handed: int = 0  # deliveries that were handed out whole


@dataclass(eq=False, repr=False)
class Farewell(Message):
    """A rank leaves; ``state`` is its position (JSON), so that ``resume="broker"`` goes on exactly there.

    It is answered with Parted when that is durable.
    """

    CODE: ClassVar[int] = 13
    generation: bytes
    state: str


@dataclass(eq=False, repr=False)
class Source(Message):
    """A worker says what its pipeline is a function of, or why it cannot serve epochs (``refusal``)."""

    CODE: ClassVar[int] = 14
    name: str
    items: int
    sharded: bool
    fingerprint: str
    item_bytes: int  # of the outputs of its first item
    batch: int  # of a trailing BatchData; 0: none
    remainder: bool
    use_list: bool
    refusal: str


@dataclass(eq=False, repr=False)
class Made(Message):
    """A split's block. ``counts``: outputs of each item, empty if each gave one. ``quarantined``: JSON."""

    CODE: ClassVar[int] = 15
    CARRIES_BLOCK: ClassVar[bool] = True
    lease: int
    generation: bytes
    epoch: int
    split: int
    outputs: int
    counts: list[int]
    quarantined: str
    pieces: list[int] = field(default_factory=list)


@dataclass(eq=False, repr=False)
class MadeNothing(Message):
    """A split that gave no output: all its items were filtered or quarantined."""

    CODE: ClassVar[int] = 16
    lease: int
    generation: bytes
    epoch: int
    split: int
    quarantined: str


@dataclass(eq=False, repr=False)
class NotMade(Message):
    """A split whose block the worker does not have: an item raised, or the block exceeds the lease's bytes."""

    CODE: ClassVar[int] = 17
    lease: int
    generation: bytes
    epoch: int
    split: int
    nbytes: int  # of the block that was too large; 0: an item raised
    key: str
    kind: str
    text: str
    traceback: str


@dataclass(eq=False, repr=False)
class LeaseBeat(Message):
    """A worker's heartbeat while it makes splits: those it holds, and how many items it has begun in all."""

    CODE: ClassVar[int] = 18
    leases: list[int]
    items: int


@dataclass(eq=False, repr=False)
class Dropped(Message):
    """A worker has dropped leases, as it was asked to."""

    CODE: ClassVar[int] = 19
    leases: list[int]


# ---------------------------------------------------------------- from the broker


@dataclass(eq=False, repr=False)
class Describe(Message):
    """The broker wants a pipeline in epochs: build it, and answer with its Source."""

    CODE: ClassVar[int] = 48


@dataclass(eq=False, repr=False)
class Lease(Message):
    """A split to make. It says all that is needed, so a worker remembers nothing between leases."""

    CODE: ClassVar[int] = 49
    lease: int
    generation: bytes
    epoch: int
    split: int
    seed: int
    shuffle: bool
    first: int  # position in the epoch
    count: int
    skip: list[int]  # positions that are quarantined
    on_error: str
    most: int  # bytes that the block may have
    taken: list[int]  # as in Taken, which it saves


@dataclass(eq=False, repr=False)
class Taken(Message):
    """The broker has, or does not want, what a worker made of these leases; it may forget them."""

    CODE: ClassVar[int] = 50
    leases: list[int]


@dataclass(eq=False, repr=False)
class Revoke(Message):
    """The broker asks a worker to drop leases whose block it has not sent."""

    CODE: ClassVar[int] = 51
    leases: list[int]


@dataclass(eq=False, repr=False)
class Forming(Message):
    """The broker knows the rank and waits: for other ranks, or for a worker that describes its source."""

    CODE: ClassVar[int] = 52
    broker: bytes
    waiting_for: str


@dataclass(eq=False, repr=False)
class Opened(Message):
    """The generation is open: its plan, its source, and where it begins (JSON, see dfserve.epochs.state)."""

    CODE: ClassVar[int] = 53
    broker: bytes
    generation: bytes
    plan: str
    items: int
    source: str  # fingerprint
    batch: int
    remainder: bool
    use_list: bool
    state: str
    sent: int  # deliveries so far
    confirms: bool  # there is a ledger: what was delivered is handed out when its claim was confirmed, else at once
    kept: list[int]  # (epoch, split, claimant) of what the rank holds and had claimed before the broker died


@dataclass(eq=False, repr=False)
class Portion(Message):
    """A block, of which some outputs are the rank's. Its first ``skip`` outputs were handed out before."""

    CODE: ClassVar[int] = 54
    CARRIES_BLOCK: ClassVar[bool] = True
    delivery: int
    generation: bytes
    epoch: int
    split: int
    start: int  # number of its first output after the skipped ones
    outputs: int
    skip: int
    padding: bool  # it is there to complete the last row
    source: str
    claimed: int  # these three as in Confirm, which they save
    total: int
    final: bool
    pieces: list[int] = field(default_factory=list)


@dataclass(eq=False, repr=False)
class Mishap(Message):
    """An item raised; the split is made again when the rank has claimed this."""

    CODE: ClassVar[int] = 55
    delivery: int
    generation: bytes
    epoch: int
    split: int
    key: str
    kind: str
    text: str
    traceback: str
    host: str
    worker: str


@dataclass(eq=False, repr=False)
class Quarantined(Message):
    """An item was given up (on_error="skip", or it killed its worker three times). News, not a delivery."""

    CODE: ClassVar[int] = 56
    generation: bytes
    epoch: int
    key: str
    kind: str
    text: str
    traceback: str
    host: str
    worker: str


@dataclass(eq=False, repr=False)
class Confirm(Message):
    """Claims up to a delivery are durable; and how far the rank's epoch is."""

    CODE: ClassVar[int] = 57
    generation: bytes
    claimed: int
    epoch: int
    total: int  # outputs that have numbers
    final: bool  # that is all of them
    report: str  # JSON when the epoch is complete, else empty


@dataclass(eq=False, repr=False)
class Parted(Message):
    """What a rank said when it left is durable, or changes nothing: it may forget the session."""

    CODE: ClassVar[int] = 58
    generation: bytes

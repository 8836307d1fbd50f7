"""Owns the messages between clients and the broker: their kinds, their fields and their checks, as pure functions.

A message is a list of frames: a header of five bytes (magic, protocol version, kind), a msgpack map, and for the two
kinds that carry a block the frames of that block, which this module never looks into. Fields are checked against the
annotations of the message's class, each of which must be there; fields that the class does not have are ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, ClassVar, get_type_hints

from dfserve.errors import WireError
from dfserve.wire.unpatched import Packer, unpackb

MAGIC = b"dfs"
VERSION = 2  # changes when a peer of the old version could misread a message
HEADER_BYTES = len(MAGIC) + 2
SESSION_BYTES = 16  # a random session id: 128 bits, so that nobody guesses another's
IN_MEMORY = 0x80  # in the kind's byte: the block lies in shared memory
COMPRESSED = 0x40  # in the kind's byte: the block is compressed
MAX_CONTROL_BODY = 1 << 20  # bytes; the largest is a failure: two long texts of up to four bytes a character
MAX_TEXT = 64 << 10  # characters of a text field
MAX_NAME = 256  # characters of a field that names something: hosts, workers, pipelines, groups, classes of exceptions
MAX_REASON = 1000  # characters of a field that says which item or why
NAMES = frozenset({"name", "host", "pipeline", "group", "kind", "lag", "source", "worker"})
REASONS = frozenset({"key", "reason"})
MAX_LIST = 4096  # entries of one list field
MAX_INT = 1 << 62  # sequence numbers and byte counts stay far below


@dataclass(eq=False, repr=False)
class Message:
    """Base of all messages, which nobody changes once they are made. ``CODE`` is the kind's byte in the header.

    Comparing and showing is written here for all, and nothing is frozen: what dataclasses generate for that, for each
    of 45 kinds, took a tenth of the time that a consumer takes to start, and made messages at a third of the speed.
    """

    CODE: ClassVar[int]
    CARRIES_BLOCK: ClassVar[bool] = False
    OF_CONSUMER: ClassVar[bool] = False  # it says who a consumer is

    def __init_subclass__(cls) -> None:
        KINDS[cls.CODE] = cls

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((self.CODE, *vars(self).values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


KINDS: dict[int, type[Message]] = {}


@dataclass(eq=False, repr=False)
class ProducerHello(Message):
    """A worker says who it is, in answer to WHO. ``base`` is the number of its first unacknowledged block."""

    CODE: ClassVar[int] = 1
    session: bytes
    name: str  # host/slot: the `producer` label of the metrics
    host: str
    pid: int
    pipeline: str
    passes: int  # 0 = for ever
    base: int
    broker: bytes  # the broker instance that acknowledged what lies before base; empty at first
    uncertain: int  # blocks that another broker instance was sent: lost, or handed on, or neither
    restarts: int  # how often the slot's worker has died before
    eager: bool = True  # it has only this pipeline, and may be asked for its stream before any consumer came


@dataclass(eq=False, repr=False)
class ConsumerHello(Message):
    """A consumer says who it is, in answer to WHO, and what it holds (of ``broker``'s deliveries)."""

    CODE: ClassVar[int] = 2
    OF_CONSUMER: ClassVar[bool] = True
    session: bytes
    name: str
    host: str
    pid: int
    pipeline: str
    group: str
    hwm: int
    lag: str
    min_producers: int
    broker: bytes
    received: int
    done: int


@dataclass(eq=False, repr=False)
class Offer(Message):
    """The sizes in bytes of blocks that a worker holds, numbered from ``first``."""

    CODE: ClassVar[int] = 3
    first: int
    sizes: list[int]


@dataclass(eq=False, repr=False)
class Block(Message):
    """A block of ``count`` datapoints. ``pieces``: how many each of its frames was cut into, empty if none was."""

    CODE: ClassVar[int] = 4
    CARRIES_BLOCK: ClassVar[bool] = True
    seq: int
    count: int
    pieces: list[int] = field(default_factory=list)


@dataclass(eq=False, repr=False)
class Fail(Message):
    """The pipeline raised. Numbered like a block, so that what came before it arrives before it."""

    CODE: ClassVar[int] = 5
    seq: int
    key: str
    kind: str
    text: str
    traceback: str
    fatal: bool  # the worker's finite pass is broken by it

    @property
    def nbytes(self) -> int:
        """Bytes of its texts, which are charged to the budget as a block's are."""
        return sum(
            len(text.encode("utf-8", "surrogatepass")) for text in (self.key, self.kind, self.text, self.traceback)
        )


@dataclass(eq=False, repr=False)
class Finish(Message):
    """The clean end of a worker's last pass. Numbered like a block."""

    CODE: ClassVar[int] = 6
    seq: int


@dataclass(eq=False, repr=False)
class WorkerBeat(Message):
    """A worker's heartbeat: the last block that it offered, knows to be granted, and sent; seconds it was blocked."""

    CODE: ClassVar[int] = 7
    offered: int
    granted: int
    sent: int
    blocked: float


@dataclass(eq=False, repr=False)
class Done(Message):
    """A consumer has handed out everything up to a delivery; also its heartbeat. ``waited`` in seconds so far."""

    CODE: ClassVar[int] = 8
    done: int
    waited: float


@dataclass(eq=False, repr=False)
class Bye(Message):
    """A client leaves. For a consumer: ``done`` as in Done, and ``partial`` datapoints of the delivery after it."""

    CODE: ClassVar[int] = 9
    done: int
    partial: int


@dataclass(eq=False, repr=False)
class Obituary(Message):
    """A supervisor reports the death of a worker that it saw."""

    CODE: ClassVar[int] = 10
    session: bytes
    reason: str
    at: list[int] = field(default_factory=list)  # epoch and position of the item that it was making, if any
    pipeline: str = ""  # of the session


@dataclass(eq=False, repr=False)
class Who(Message):
    """The broker asks a connection who it is; the answer is a hello."""

    CODE: ClassVar[int] = 32


@dataclass(eq=False, repr=False)
class ProducerWelcome(Message):
    """The broker knows the worker now, and has its blocks up to ``acked``. All grants before this are void."""

    CODE: ClassVar[int] = 33
    broker: bytes
    acked: int
    max_frame: int
    budget: int
    stream: bool = True  # the pipeline's stream is wanted; `Wanted` says when that changes
    codecs: list[str] = field(default_factory=list)  # with which blocks may be compressed
    machine: str = ""  # the kernel's boot id: a worker that finds its own there may offer a pool


@dataclass(eq=False, repr=False)
class Credit(Message):
    """Has blocks up to ``acked``; blocks up to ``granted`` may be sent; ``released`` blocks were consumed by all."""

    CODE: ClassVar[int] = 34
    acked: int
    granted: int
    released: int


@dataclass(eq=False, repr=False)
class ConsumerWelcome(Message):
    """The broker knows the consumer now."""

    CODE: ClassVar[int] = 35
    broker: bytes


@dataclass(eq=False, repr=False)
class Deliver(Message):
    """A block for a consumer, whose first ``skip`` datapoints were handed out already by one that left."""

    CODE: ClassVar[int] = 36
    CARRIES_BLOCK: ClassVar[bool] = True
    delivery: int
    count: int
    skip: int
    source: str
    again: bool  # in doubt: it was sent to a consumer that died, which may have seen it
    pieces: list[int] = field(default_factory=list)  # as in Block; put in as it is sent


@dataclass(eq=False, repr=False)
class DeliverFailure(Message):
    """A pipeline's exception, for one consumer of each group."""

    CODE: ClassVar[int] = 37
    delivery: int
    key: str
    kind: str
    text: str
    traceback: str
    host: str
    worker: str


@dataclass(eq=False, repr=False)
class DeliverEnd(Message):
    """The stream ended: ``finished`` workers cleanly, ``broken`` (worker: reason) not."""

    CODE: ClassVar[int] = 38
    delivery: int
    finished: int
    broken: list[str]


@dataclass(eq=False, repr=False)
class ConsumerBeat(Message):
    """What a waiting consumer wants to know. ``sent``: the number of its last delivery."""

    CODE: ClassVar[int] = 39
    sent: int
    producers: int  # live now
    finished: int  # ended cleanly so far
    lost: list[str]  # the last few that are gone, with the reason
    queued: int  # datapoints waiting at the broker for this group
    occupancy: float  # queued bytes / budget
    others: list[str] = field(default_factory=list)  # other pipelines that have producers, where this one has none
    refused: list[str] = field(default_factory=list)  # in epochs mode: that are here and cannot serve, with the reason


@dataclass(eq=False, repr=False)
class MemoryWanted(Message):
    """A consumer would share memory with a broker on its machine, which it names by the kernel's boot id."""

    CODE: ClassVar[int] = 20
    machine: str


@dataclass(eq=False, repr=False)
class PoolOffer(Message):
    """Memory that others may read: a worker's, to its broker; that or its own, to consumers on its machine."""

    CODE: ClassVar[int] = 22
    path: str
    size: int
    nonce: bytes


@dataclass(eq=False, repr=False)
class PoolMapped(Message):
    """A pool that was offered is mapped, or cannot be."""

    CODE: ClassVar[int] = 23
    nonce: bytes
    mapped: bool


@dataclass(eq=False, repr=False)
class PoolGone(Message):
    """A worker is to build in another pool; a consumer need not keep this one mapped."""

    CODE: ClassVar[int] = 24
    nonce: bytes


@dataclass(eq=False, repr=False)
class Beat(Message):
    """The broker lives."""

    CODE: ClassVar[int] = 40


@dataclass(eq=False, repr=False)
class Refused(Message):
    """The broker will not serve this client. ``kind`` is "config", a WireError's reason, or "expired": the consumer
    was away for too long, others have what it held, and it may come back under another session id."""

    CODE: ClassVar[int] = 41
    kind: str
    text: str


@dataclass(eq=False, repr=False)
class Wanted(Message):
    """Whether the broker wants the stream of a worker's pipeline from now on."""

    CODE: ClassVar[int] = 42
    stream: bool


@cache
def _checks(code: int) -> dict[str, Callable[[Any], bool]]:
    """Return what tells whether a value may be in each field of a message."""
    kind = KINDS[code]
    hints = get_type_hints(kind)
    return {
        each.name: _texts(each.name) if hints[each.name] is str else CHECKS[hints[each.name]] for each in fields(kind)
    }


@cache
def _header(code: int) -> bytes:
    return MAGIC + bytes([VERSION, code])


def encode(message: Message, *, in_memory: bool = False, compressed: bool = False) -> list[bytes]:
    """Return the two control frames of a message; the frames of a block, if it carries one, follow them.

    ``in_memory``: in their place comes one that says where in shared memory they lie (`dfserve.wire.placement`).
    ``compressed``: they are, and another comes before them (`dfserve.wire.compression`).
    """
    return [_header(message.CODE | in_memory * IN_MEMORY | compressed * COMPRESSED), Packer().pack(vars(message))]


def is_in_memory(header: bytes) -> bool:
    """Tell whether a message's block lies in shared memory."""
    return len(header) == HEADER_BYTES and bool(header[4] & IN_MEMORY)


def is_compressed(header: bytes) -> bool:
    """Tell whether a message's block is compressed; False of what carries none."""
    return len(header) == HEADER_BYTES and bool(header[4] & COMPRESSED) and carries_block(without_compression(header))


def carries_block(header: bytes) -> bool:
    """Tell whether a header is of a kind that is followed by a block; False of what is no header."""
    kind = KINDS.get(header[4]) if len(header) == HEADER_BYTES else None
    return kind is not None and kind.CARRIES_BLOCK


def without_memory(header: bytes) -> bytes:
    """Return the header of the same message with its block's frames in it."""
    return header[:4] + bytes([header[4] & ~IN_MEMORY])


def without_compression(header: bytes) -> bytes:
    """Return the header of the same message with its block's frames as they are."""
    return header[:4] + bytes([header[4] & ~COMPRESSED])


def decode(header: bytes, body: bytes, block_frames: int) -> Message:
    """Read the two control frames of a message that is followed by ``block_frames`` more frames.

    Raises:
        WireError: with reason ``magic``, ``version``, ``kind``, ``frames``, ``limits`` or ``body``.
    """
    kind = _kind_of(header)
    if bool(block_frames) is not kind.CARRIES_BLOCK:
        raise WireError("frames", f"{kind.__name__} came with {block_frames} block frames")
    if len(body) > MAX_CONTROL_BODY:
        raise WireError("limits", f"control body of {len(body)} bytes exceeds {MAX_CONTROL_BODY}")
    try:
        found = unpackb(body, max_ext_len=0)
    except Exception as error:  # noqa: BLE001  # msgpack raises its own and several built-in errors on bad bytes
        raise WireError("body", f"control body is not msgpack: {type(error).__name__}") from None
    if not isinstance(found, dict):
        raise WireError("body", "control body is not a map")
    message = object.__new__(kind)
    values = vars(message)  # past __init__, which takes some microseconds to set the fields of what is frozen
    for name, good in _checks(kind.CODE).items():
        value = values[name] = found.get(name)
        if not good(value):
            raise WireError("body", f"{kind.__name__}.{name} is missing, of another type or out of range")
    return message


def check_header(header: bytes) -> None:
    """Raise WireError, reason ``magic`` or ``version``, unless a message of this protocol begins like this."""
    if len(header) != HEADER_BYTES or header[:3] != MAGIC:
        raise WireError("magic", "not a dfserve message")
    if header[3] != VERSION:
        raise WireError(
            "version", f"peer speaks protocol {header[3]}, this one {VERSION}; install the same dfserve on both"
        )


def _kind_of(header: bytes) -> type[Message]:
    check_header(header)
    kind = KINDS.get(header[4])
    if kind is None:
        raise WireError("kind", f"unknown kind of message {header[4]}")
    return kind


def _whole(value: Any) -> bool:
    return type(value) is int and 0 <= value < MAX_INT


def _number(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < MAX_INT  # NaN is not


def _session(value: Any) -> bool:
    return isinstance(value, bytes) and len(value) in (0, SESSION_BYTES)


def _texts(name: str) -> Callable[[Any], bool]:
    most = MAX_NAME if name in NAMES else MAX_REASON if name in REASONS else MAX_TEXT
    return lambda value: isinstance(value, str) and len(value) <= most


def _list_of(good: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and len(value) <= MAX_LIST and all(map(good, value))


CHECKS: dict[Any, Callable[[Any], bool]] = {
    bool: lambda value: isinstance(value, bool),
    int: _whole,
    float: _number,
    bytes: _session,
    list[int]: _list_of(_whole),
    list[str]: _list_of(lambda value: isinstance(value, str) and len(value) <= MAX_TEXT),
}

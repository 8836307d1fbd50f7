"""Owns the tests of control messages: each kind comes back equal, and bad bytes raise WireError and nothing else."""

from __future__ import annotations

import collections
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfserve.errors import WireError
from dfserve.wire import epoch_messages
from dfserve.wire import messages as m

ROUNDS = 30_000  # fuzzed messages; about 2 s
REASONS = {None, "magic", "version", "kind", "frames", "limits", "body"}
# Of a peer: what an honest one can hold, and the extremes of what is let through.
VALUES = {
    bool: st.booleans(),
    int: st.integers(0, m.MAX_INT - 1),
    float: st.floats(0, float(m.MAX_INT), exclude_max=True),
    str: st.text(st.characters(exclude_categories=["Cs"]), max_size=100),
    bytes: st.sampled_from([b"", bytes(16), b"\xff" * 16]),
    list[int]: st.lists(st.integers(0, m.MAX_INT - 1), max_size=20),
    list[str]: st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=10), max_size=20),
}


def hints(kind: type[m.Message]) -> dict[str, Any]:
    """Return the fields of a kind with their types."""
    return {
        name: hint
        for name, hint in get_type_hints(kind).items()
        if name not in ("CODE", "CARRIES_BLOCK", "OF_CONSUMER")
    }


MESSAGES = st.one_of(
    [st.builds(kind, **{name: VALUES[hint] for name, hint in hints(kind).items()}) for kind in m.KINDS.values()]
)


def reason_of(header: bytes, body: bytes, block_frames: int) -> str | None:
    """Return why a message is refused, or None; anything but a WireError goes through and fails the test."""
    try:
        m.decode(header, body, block_frames)
    except WireError as error:
        return error.reason
    return None


@given(MESSAGES)
def test_a_message_of_every_kind_comes_back_equal(message: m.Message) -> None:
    header, body = m.encode(message)
    assert m.decode(header, body, int(message.CARRIES_BLOCK)) == message


def test_every_kind_has_a_code_of_its_own_and_is_in_the_round_trip() -> None:
    assert len(m.KINDS) == len(m.Message.__subclasses__()) == 45
    assert epoch_messages.Lease in m.KINDS.values()
    assert all(code == kind.CODE for code, kind in m.KINDS.items())


@given(MESSAGES, st.dictionaries(st.text(max_size=5).map("later_".__add__), st.integers(0, 9)))
def test_fields_that_a_later_version_added_are_passed_over(message: m.Message, later: dict[str, int]) -> None:
    header, _ = m.encode(message)
    assert m.decode(header, msgpack.packb(vars(message) | later), int(message.CARRIES_BLOCK)) == message


@given(MESSAGES, st.data())
def test_a_message_without_one_of_its_fields_is_refused(message: m.Message, data: st.DataObject) -> None:
    values = dict(vars(message))
    if not values:
        return
    del values[data.draw(st.sampled_from(sorted(values)))]
    assert reason_of(m.encode(message)[0], msgpack.packb(values), int(message.CARRIES_BLOCK)) == "body"


DONE = m.encode(m.Done(1, 0.5))
BLOCK = m.encode(m.Block(1, 1))
REFUSED: dict[str, tuple[bytes, bytes, int, str]] = {
    "an empty header": (b"", DONE[1], 0, "magic"),
    "a short header": (DONE[0][:-1], DONE[1], 0, "magic"),
    "a long header": (DONE[0] + b"\x00", DONE[1], 0, "magic"),
    "another magic": (b"DFS" + DONE[0][3:], DONE[1], 0, "magic"),
    "the next version": (m.MAGIC + bytes([m.VERSION + 1, m.Done.CODE]), DONE[1], 0, "version"),
    "no version": (m.MAGIC + bytes([0, m.Done.CODE]), DONE[1], 0, "version"),
    "an unknown kind": (m.MAGIC + bytes([m.VERSION, 255]), DONE[1], 0, "kind"),
    "a block where none belongs": (DONE[0], DONE[1], 1, "frames"),
    "a block without its frames": (BLOCK[0], BLOCK[1], 0, "frames"),
    "a body that is too long": (DONE[0], bytes(m.MAX_CONTROL_BODY + 1), 0, "limits"),
    "an empty body": (DONE[0], b"", 0, "body"),
    "a body that is no map": (DONE[0], msgpack.packb([1, 0.5]), 0, "body"),
    "trailing bytes": (DONE[0], DONE[1] + b"\x00", 0, "body"),
    "a truncated body": (DONE[0], DONE[1][:-1], 0, "body"),
    "keys of bytes": (DONE[0], msgpack.packb({b"done": 1, b"waited": 0.5}), 0, "body"),
    "keys that are no text": (DONE[0], msgpack.packb({1: 1}), 0, "body"),
    "a bool for an int": (DONE[0], msgpack.packb({"done": True, "waited": 0.5}), 0, "body"),
    "a negative int": (DONE[0], msgpack.packb({"done": -1, "waited": 0.5}), 0, "body"),
    "a huge int": (DONE[0], msgpack.packb({"done": m.MAX_INT, "waited": 0.5}), 0, "body"),
    "no number": (DONE[0], msgpack.packb({"done": 1, "waited": float("nan")}), 0, "body"),
    "infinity": (DONE[0], msgpack.packb({"done": 1, "waited": float("inf")}), 0, "body"),
    "an extension": (DONE[0], msgpack.packb({"done": msgpack.ExtType(1, b"x"), "waited": 0.5}), 0, "body"),
    "an extension in a field that is passed over": (
        DONE[0], msgpack.packb({"done": 1, "waited": 0.5, "later": msgpack.ExtType(1, b"x")}), 0, "body"),
    "lists without end": (DONE[0], b"\x91" * 100_000, 0, "body"),
    "a claimed map of four billion": (DONE[0], b"\xdf\xff\xff\xff\xff", 0, "body"),
    "a list that is too long": (m.encode(m.Offer(1, [1]))[0], msgpack.packb({"first": 1, "sizes": [1] * 4097}), 0,
        "body"),
    "a list of texts for ints": (m.encode(m.Offer(1, [1]))[0], msgpack.packb({"first": 1, "sizes": ["1"]}), 0, "body"),
    "a text that is too long": (m.encode(m.Refused("", ""))[0], msgpack.packb({"kind": "x" * 65537, "text": ""}), 0,
        "body"),
    "broken UTF-8": (m.encode(m.Refused("", ""))[0], b"\x82\xa4kind\xa1\xff\xa4text\xa0", 0, "body"),
    "a session of 15 bytes": (m.encode(m.Obituary(b"", ""))[0], msgpack.packb({"session": bytes(15), "reason": ""}), 0,
        "body"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_message_is_refused_for_its_reason(name: str) -> None:
    header, body, block_frames, reason = REFUSED[name]
    assert reason_of(header, body, block_frames) == reason


def test_another_version_is_told_what_to_do() -> None:
    with pytest.raises(WireError, match=rf"protocol {m.VERSION + 6}, this one {m.VERSION}; install the same dfserve"):
        m.decode(m.MAGIC + bytes([m.VERSION + 6, m.Done.CODE]), DONE[1], 0)


def _sample(rng: random.Random, hint: Any) -> Any:
    """Return a value that is mostly of the wanted type, and often at or beyond the edge of its range."""
    if rng.random() < 0.1:
        return rng.choice(
            [None, True, -1, 1 << 62, (1 << 64) - 1, 0.5, float("nan"), "x", b"x", [], [None], {}, {"a": 1}]
        )
    numbers = [0, 1, 7, 1 << 31, m.MAX_INT - 1]
    samples: dict[Any, Callable[[], Any]] = {
        bool: lambda: rng.random() < 0.5,
        int: lambda: rng.choice(numbers),
        float: lambda: rng.random() * rng.choice(numbers),
        str: lambda: "é" * rng.choice([0, 1, 9]),
        bytes: lambda: bytes(rng.choice([0, 16, 16, 16, 15])),
        list[int]: lambda: [rng.choice(numbers) for _ in range(rng.randrange(4))],
        list[str]: lambda: ["x"] * rng.randrange(4),
    }
    return samples[hint]()


def _fuzzed(rng: random.Random) -> tuple[bytes, bytes, int]:
    """Return a message that is random, random in its fields, or well-formed and then damaged."""
    if rng.random() < 0.1:
        return rng.randbytes(rng.randrange(8)), rng.randbytes(rng.randrange(60)), rng.randrange(3)
    kind = rng.choice(list(m.KINDS.values()))
    fields = {name: _sample(rng, hint) for name, hint in hints(kind).items()}
    frames = [bytearray(m.MAGIC + bytes([m.VERSION, kind.CODE])), bytearray(msgpack.packb(fields))]
    damage = rng.randrange(8)
    frame = frames[rng.randrange(10) > 0]
    if damage == 0:
        frame[rng.randrange(len(frame))] ^= 1 << rng.randrange(8)
    elif damage == 1:
        del frame[rng.randrange(len(frame)) :]
    elif damage == 2:
        at = rng.randrange(len(frame) + 1)
        frame[at:at] = rng.randbytes(rng.randrange(1, 9))
    block_frames = int(kind.CARRIES_BLOCK) if rng.random() < 0.95 else rng.randrange(3)
    return bytes(frames[0]), bytes(frames[1]), block_frames


def test_random_and_mutated_messages_raise_only_wire_errors() -> None:
    rng = random.Random(20240301)
    outcomes = collections.Counter(reason_of(*_fuzzed(rng)) for _ in range(ROUNDS))
    assert set(outcomes) == REASONS - {"limits"}, outcomes  # a body beyond the limit is in the table above
    assert min(outcomes.values()) > 20, outcomes


class Bomb:
    """Creates a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (self.path,))


DETONATE = """
import sys
import msgpack, msgpack_numpy
msgpack_numpy.patch()
from dfserve.errors import WireError
from dfserve.wire import epoch_messages, messages as m
body = sys.stdin.buffer.read()
for kind in m.KINDS.values():
    try:
        m.decode(m.MAGIC + bytes([m.VERSION, kind.CODE]), body, int(kind.CARRIES_BLOCK))
    except WireError as error:
        print(error.reason)
if "live" in sys.argv:
    msgpack.unpackb(body, strict_map_key=False)
"""


@pytest.mark.parametrize("nested", [True, False])
def test_a_pickle_in_a_control_body_stays_closed_even_where_msgpack_numpy_has_patched_msgpack(
    tmp_path: Path, nested: bool
) -> None:
    path = tmp_path / "exploded"
    bomb = {b"nd": True, b"type": "|O", b"kind": b"O", b"shape": [1], b"data": np.array([Bomb(path)]).dumps()}
    body = msgpack.packb({"sizes": bomb, "first": 1} if nested else bomb)

    def detonate(*arguments: str) -> list[str]:
        child = subprocess.run(
            [sys.executable, "-c", DETONATE, *arguments], input=body, capture_output=True, check=True
        )
        return str(child.stdout, "ascii").split()

    reasons = detonate()
    assert not path.exists()
    assert reasons == ["body"] * sum(bool(hints(kind)) for kind in m.KINDS.values())
    detonate("live")
    assert path.exists()  # the bomb was live: the patched function would have opened it

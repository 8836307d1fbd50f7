"""Owns the tests of how messages to clients travel: every frame comes back, whatever a connection has lost."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfserve.errors import WireError
from dfserve.wire import messages as m
from dfserve.wire.envelope import GRAIN, HEAD, LONG, SEAL, Unsealing, seal

WHO = m.encode(m.Who())
LENGTHS = st.one_of(
    st.integers(0, 100), st.sampled_from([LONG - HEAD.size - 8, LONG - 1, LONG, LONG + 1, 3 * LONG]), st.just(0)
)


def message(lengths: list[int], mark: int = 0) -> list[bytes]:
    """A message whose frames have these lengths, and bytes that no other message has."""
    header, body = m.encode(m.Deliver(mark, 1, 0, "data/0", False))
    return [header, body, *(bytes([mark + place & 255]) * length for place, length in enumerate(lengths))]


MESSAGES = st.lists(st.lists(LENGTHS, max_size=5), min_size=1, max_size=5).map(
    lambda lengths: [message(some, 10 * number) for number, some in enumerate(lengths)]
)


def sealed(messages: list[list[bytes]], first: int = 0) -> list[Any]:
    return [piece for number, frames in enumerate(messages, first) for piece in seal(frames, number)]


def unsealed(unsealing: Unsealing, frames: list[Any]) -> list[list[bytes]]:
    found = [unsealing.put(frame) for frame in frames]
    return [[bytes(frame) for frame in frames] for frames in found if frames is not None]


def refusal(unsealing: Unsealing, frame: bytes) -> str:
    """Why a frame is refused; empty if it is not."""
    try:
        unsealing.put(frame)
    except WireError as error:
        return error.reason
    return ""


@given(MESSAGES)
def test_messages_come_back_frame_by_frame(messages: list[list[bytes]]) -> None:
    assert unsealed(Unsealing(), sealed(messages)) == messages


@given(MESSAGES)
def test_short_frames_are_in_the_envelope_and_long_ones_are_not_copied(messages: list[list[bytes]]) -> None:
    for frames in messages:
        long = [frame for frame in frames[1:] if len(frame) >= LONG]
        envelope, *others = seal(frames, 7)
        assert len(envelope) < LONG
        if others:
            *others, end = others
            assert end == SEAL.pack(7)
        assert all(one is other for one, other in zip(long, others[len(others) - len(long) :], strict=True))
        assert len(others) <= len(long) + 1


def test_a_message_of_a_few_numbers_is_one_frame_that_is_little_longer() -> None:
    frames = m.encode(m.Done(7, 1.5))
    (envelope,) = seal(frames, 1)
    assert len(envelope) <= sum(map(len, frames)) + HEAD.size + GRAIN


@pytest.mark.parametrize("count", [1, 3, 5000])
def test_many_short_frames_travel_as_a_long_one(count: int) -> None:
    frames = message([31] * count + [LONG])
    pieces = seal(frames, 1)
    assert len(pieces) == (3 if count < 100 else 4)
    assert unsealed(Unsealing(), pieces) == [frames]


def test_short_frames_begin_where_numbers_can_be_read() -> None:
    frames = message([30, 50, 800], mark=100)
    (envelope,) = seal(frames, 1)
    assert [envelope.index(frame) % GRAIN for frame in frames[1:]] == [0] * 4


# Of one length, so that one could be taken for another, or for what some short ones are together.
LIKE = st.lists(st.lists(st.sampled_from([LONG, LONG, 7, LONG - HEAD.size]), max_size=3), min_size=1, max_size=5).map(
    lambda lengths: [message(some, 10 * number) for number, some in enumerate(lengths)]
)


@given(st.one_of(MESSAGES, LIKE), MESSAGES, st.integers(0, 25), st.integers(0, 25))
def test_a_connection_that_breaks_anywhere_loses_messages_whole_and_mixes_none(
    before: list[list[bytes]], after: list[list[bytes]], arrived: int, lost: int
) -> None:
    """The first loses its tail; of the next one anything may have been sent before it begins, with `Who`."""
    pieces = sealed(before)
    unsealing = Unsealing()
    found = unsealed(unsealing, pieces[:arrived] + pieces[arrived + lost :])
    assert found == [frames for frames in before if frames in found], "in order, each once, none mixed"
    rest = [WHO, *after]
    assert unsealed(unsealing, sealed(rest, len(before))) == rest


def test_a_message_that_lost_its_middle_is_not_filled_up_from_another() -> None:
    messages = [message([LONG], mark) for mark in (1, 2)]
    envelope, _, _, _, long, end = sealed(messages)
    assert unsealed(Unsealing(), [envelope, long, end, *seal(WHO, 9)]) == [WHO]


@given(
    st.lists(
        st.one_of(st.binary(max_size=60), st.binary(max_size=60).map(lambda tail: HEAD.pack(WHO[0], 1, 0, 2, 9) + tail))
    )
)
def test_bytes_that_are_no_envelope_are_refused_and_the_next_one_is_read(pieces: list[bytes]) -> None:
    unsealing = Unsealing()
    assert {refusal(unsealing, piece) for piece in pieces} <= {"", "magic", "version", "frames"}
    assert unsealed(unsealing, seal(WHO, 1)) == [WHO]


def envelope(count: int, nbytes: int, short: bytes, long: int = 0) -> bytes:
    return HEAD.pack(WHO[0], 5, long, count, nbytes) + short


def lengths(*some: int) -> bytes:
    return b"".join(each.to_bytes(4, "little") for each in some)


END = SEAL.pack(5)
BAD = {
    "no frames": [envelope(0, 8, bytes(8))],
    "more frames than bytes": [envelope(1 << 31, 8, bytes(8))],
    "fewer bytes than it says": [envelope(1, 16, bytes(8))],
    "short frames that are not there": [envelope(2, 8, lengths(9, 9))],
    "bytes that belong to no frame": [envelope(1, 16, lengths(4) + bytes(12))],
    "fewer long frames than it lists": [envelope(1, 4, lengths(LONG))],
    "more long frames than it lists": [envelope(1, 4, lengths(0), long=1), bytes(LONG), END],
    "a long frame of another length": [envelope(1, 4, lengths(LONG), long=1), bytes(LONG + 1), END],
    "short frames that come by themselves, too few": [envelope(1, 2 * LONG, b"", long=1), bytes(LONG), END],
}


@pytest.mark.parametrize("name", BAD)
def test_an_envelope_that_contradicts_itself_is_refused(name: str) -> None:
    unsealing = Unsealing()
    *fine, bad = BAD[name]
    assert unsealed(unsealing, fine) == []
    assert refusal(unsealing, bad) == "frames"
    assert unsealing.put(bytes(LONG)) is None, "what came after it is of no message"
    assert unsealed(unsealing, seal(WHO, 1)) == [WHO]


def test_a_peer_that_sends_long_frames_without_end_fills_no_memory() -> None:
    unsealing = Unsealing()
    assert unsealing.put(envelope(1, 4, lengths(LONG), long=1)) is None
    alive = []
    for _ in range(5):
        frame = np.zeros(LONG, np.uint8)
        alive.append(weakref.ref(frame))
        assert unsealing.put(frame) is None
    del frame
    assert sum(each() is not None for each in alive) == 2, "one more than was to come tells that it is wrong"
    assert unsealed(unsealing, [END, *seal(WHO, 6)]) == [WHO]


def test_a_broker_of_the_first_protocol_is_told_from_a_broken_one() -> None:
    """It sends a header as a frame of its own."""
    assert refusal(Unsealing(), m.MAGIC + bytes([1, 32])) == "version"

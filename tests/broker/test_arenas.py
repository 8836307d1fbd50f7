"""Owns the tests of which consumer shares which memory with a broker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dfserve.broker import arenas as arenas_module
from dfserve.broker.arenas import Arenas
from dfserve.sharing import arena
from dfserve.sharing.arena import ArenaView
from dfserve.wire import messages as m
from dfserve.wire import pieces as pieces_module
from dfserve.wire.blocks import decode_block, encode_block
from dfserve.wire.pieces import cut
from dfserve.wire.placement import ARENA, SMALLEST, pack_freed, unpack_place

ONE, OTHER = b"c" * 16, b"d" * 16


@pytest.fixture
def arenas(monkeypatch: pytest.MonkeyPatch) -> Iterator[Arenas]:
    monkeypatch.setattr(arenas_module, "ARENA_BYTES", 16 << 20)
    found = Arenas()
    yield found
    found.close()


def mapped(arenas: Arenas, connection: bytes = ONE) -> ArenaView:
    offer = arenas.hear(connection, m.ArenaWanted(arena.machine()))
    assert isinstance(offer, m.ArenaOffer)
    view = ArenaView(offer.path, offer.size, offer.nonce)
    assert arenas.hear(connection, m.ArenaMapped(offer.nonce, mapped=True)) is None
    assert not Path(offer.path).exists()
    return view


def delivery(nbytes: int) -> tuple[m.Deliver, list[object]]:
    frames, pieces = cut(encode_block([[np.arange(nbytes, dtype=np.uint8), 3]]).frames)
    return m.Deliver(1, 1, 0, "w", False, pieces), frames


def place_of(sent: list[Any]) -> tuple[int, list[int]]:
    """Return where in the arena a message says that its block lies."""
    place = unpack_place(sent[2])
    assert isinstance(place, tuple)
    return place


def test_a_block_goes_through_the_memory_once_that_is_mapped(arenas: Arenas) -> None:
    message, frames = delivery(100_000)
    assert arenas.place(ONE, message, frames) is None
    view = mapped(arenas)
    sent = arenas.place(ONE, message, frames)
    assert sent is not None
    header, body, _ = sent
    assert m.is_in_arena(header)
    found = view.frames(*place_of(sent))
    assert m.decode(m.without_arena(header), body, len(found)) == message
    ((array, three),) = decode_block(found)
    assert (array == np.arange(100_000, dtype=np.uint8)).all()
    assert three == 3
    assert arenas.place(OTHER, message, frames) is None


def test_a_frame_that_was_cut_lies_in_one_piece(arenas: Arenas, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces_module, "PIECE", 10_000)
    message, frames = delivery(100_000)
    assert message.pieces
    view = mapped(arenas)
    sent = arenas.place(ONE, message, frames)
    assert sent is not None
    found = view.frames(*place_of(sent))
    assert len(found) == len(message.pieces)
    told = m.decode(m.without_arena(sent[0]), sent[1], len(found))
    assert isinstance(told, m.Deliver)
    assert told.pieces == []
    assert len(decode_block(found)) == 1


def test_what_is_small_goes_by_the_socket(arenas: Arenas) -> None:
    mapped(arenas)
    assert arenas.place(ONE, *delivery(SMALLEST // 2)) is None


def test_freed_slots_are_used_again_and_a_full_arena_leaves_it_to_the_socket(arenas: Arenas) -> None:
    mapped(arenas)
    message, frames = delivery(3 << 20)
    places = [arenas.place(ONE, message, frames) for _ in range(9)]
    sent = [place for place in places if place is not None]
    assert 0 < len(sent) < 9
    arenas.freed(ONE, pack_freed({ARENA: [place_of(sent[0])[0], 999]}))
    assert arenas.place(ONE, message, frames) is not None
    arenas.freed(OTHER, pack_freed({ARENA: [0]}))


def test_a_consumer_on_another_machine_is_offered_nothing(arenas: Arenas) -> None:
    assert arenas.hear(ONE, m.ArenaWanted("another")) is None


def test_a_consumer_that_cannot_map_it_gets_its_blocks_by_the_socket(arenas: Arenas) -> None:
    offer = arenas.hear(ONE, m.ArenaWanted(arena.machine()))
    assert isinstance(offer, m.ArenaOffer)
    arenas.hear(ONE, m.ArenaMapped(bytes(16), mapped=True))  # of another offer
    message, frames = delivery(100_000)
    assert arenas.place(ONE, message, frames) is None
    arenas.hear(ONE, m.ArenaMapped(offer.nonce, mapped=False))
    assert arenas.place(ONE, message, frames) is None
    assert not Path(offer.path).exists()


def test_a_consumer_that_comes_back_gets_other_memory(arenas: Arenas) -> None:
    message, frames = delivery(100_000)
    before = mapped(arenas)
    sent = arenas.place(ONE, message, frames)
    assert sent is not None
    after = mapped(arenas)
    again = arenas.place(ONE, message, frames)
    assert again is not None
    assert place_of(again)[0] == place_of(sent)[0]
    assert len(decode_block(before.frames(*place_of(sent)))) == 1  # it still has what was in its own
    assert len(decode_block(after.frames(*place_of(again)))) == 1


def test_without_shared_memory_it_is_said_once(
    arenas: Arenas, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(arena, "FOLDER", Path("/nowhere"))
    for connection in (ONE, OTHER):
        assert arenas.hear(connection, m.ArenaWanted(arena.machine())) is None
    assert len(caplog.records) == 1


def test_the_arenas_of_those_that_left_are_let_go(arenas: Arenas) -> None:
    mapped(arenas, ONE)
    mapped(arenas, OTHER)
    arenas.keep({OTHER: None})
    assert not arenas.shares_with(ONE)
    assert arenas.shares_with(OTHER)


def test_there_are_so_many_arenas_and_no_more(arenas: Arenas, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arenas_module, "MOST", 1)
    mapped(arenas, ONE)
    assert arenas.hear(OTHER, m.ArenaWanted(arena.machine())) is None
    arenas.drop(ONE)
    mapped(arenas, OTHER)


def test_what_was_placed_is_kept_there_only_should_another_consumer_have_to_get_it(arenas: Arenas) -> None:
    message, frames = delivery(100_000)
    before = [bytes(frame) for frame in frames]  # type: ignore[call-overload]  # frames are buffers
    received = list(frames)
    view = mapped(arenas)
    sent = arenas.place(ONE, message, received)
    assert sent is not None
    assert not any(one is other for one, other in zip(frames, received, strict=True))
    arenas.freed(ONE, pack_freed({ARENA: [place_of(sent)[0]]}))
    arenas.place(ONE, *delivery(100_000))
    arenas.drop(ONE)  # the consumer is gone, and its block goes to another
    other = mapped(arenas, OTHER)
    again = arenas.place(OTHER, message, received)
    assert again is not None
    assert [bytes(frame) for frame in other.frames(*place_of(again))] == before
    assert view is not other


def test_a_block_for_several_consumers_is_copied_to_all_of_them_at_once(arenas: Arenas) -> None:
    message, frames = delivery(300_000)
    one, other = mapped(arenas), mapped(arenas, OTHER)
    expected = [bytes(frame) for frame in frames]  # type: ignore[call-overload]  # frames are buffers
    outgoing = [(ONE, message, frames), (OTHER, message, frames)]
    arenas.spread(outgoing)
    frames[:] = [bytes(len(frame)) for frame in expected]  # what is sent now was copied before
    for view, (connection, _, _) in zip((one, other), outgoing, strict=True):
        sent = arenas.place(connection, message, frames)
        assert sent is not None
        assert [bytes(frame) for frame in view.frames(*place_of(sent))] == expected

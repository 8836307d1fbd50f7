"""Owns the tests of memory that is shared with a consumer: real files, maps and processes."""

from __future__ import annotations

import gc
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dfserve.sharing import arena
from dfserve.sharing.arena import LEAST, Arena, ArenaView, reap
from dfserve.sharing.extents import GRAIN
from dfserve.sharing.places import GROWTH
from dfserve.sharing.view import HEAD
from dfserve.wire.blocks import decode_block, encode_block

SIZE = 16 << 20


@pytest.fixture
def both() -> Iterator[tuple[Arena, ArenaView]]:
    one = Arena(SIZE)
    view = ArenaView(str(one.path), one.size, one.nonce)
    one.unlink()
    yield one, view
    one.close()


def placed(both: tuple[Arena, ArenaView], frames: list[bytes]) -> tuple[int, list[memoryview]]:
    place = both[0].place([[frame] for frame in frames])
    assert place is not None
    return place.address, both[1].frames(place.address, place.lengths)


def test_what_a_broker_places_a_consumer_sees(both: tuple[Arena, ArenaView]) -> None:
    _, frames = placed(both, [b"body", b"", bytes(range(256)) * 100])
    assert [bytes(frame) for frame in frames] == [b"body", b"", bytes(range(256)) * 100]


def test_pieces_of_a_frame_lie_side_by_side(both: tuple[Arena, ArenaView]) -> None:
    place = both[0].place([[b"ab", b"cde"], [b"f"]])
    assert place is not None
    assert [bytes(frame) for frame in both[1].frames(place.address, place.lengths)] == [b"abcde", b"f"]
    assert [bytes(piece) for piece in place.pieces] == [b"ab", b"cde", b"f"]


def test_a_block_is_decoded_where_it_lies_and_cannot_be_written_to(both: tuple[Arena, ArenaView]) -> None:
    block = encode_block([[np.arange(1000), "a"], [np.arange(1000, 2000), "b"]])
    _, frames = placed(both, [bytes(frame) for frame in block.frames])
    (first, _), (second, _) = decode_block(frames)
    assert first.tolist() == list(range(1000))
    assert second[0] == 1000
    for array in (first, first[5:]):
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True


def test_a_slot_is_free_when_nothing_refers_to_it_any_more_and_not_before(both: tuple[Arena, ArenaView]) -> None:
    one, view = both
    address, frames = placed(both, [bytes(1000), bytes(5000)])
    array = np.frombuffer(frames[1], np.uint8)[7:].view(np.uint8)[::2]
    part = array[5:9]
    del frames, array
    gc.collect()
    assert view.take_freed() == []
    del part
    gc.collect()
    assert view.take_freed() == [address]
    assert view.take_freed() == []
    assert one.used == GRAIN
    one.give_back(address)
    assert one.used == 0


def test_arrays_outlive_the_arena_and_its_view() -> None:
    one = Arena(SIZE)
    view = ArenaView(str(one.path), one.size, one.nonce)
    place = one.place([[b"kept" * 1000]])
    assert place is not None
    array = np.frombuffer(view.frames(place.address, place.lengths)[0], np.uint8)
    one.close()
    del view
    gc.collect()
    assert bytes(array[-4:]) == b"kept"
    assert bytes(place.pieces[0][-4:]) == b"kept"  # which may still have to go to another consumer


def test_a_place_is_not_used_again_while_the_broker_may_have_to_deliver_what_is_in_it(
    both: tuple[Arena, ArenaView],
) -> None:
    one, _ = both
    first = one.place([[b"first"]])
    assert first is not None
    one.give_back(first.address)
    second = one.place([[b"second"]])
    assert second is not None
    assert second.address != first.address
    assert bytes(first.pieces[0]) == b"first"
    address = first.address
    del first
    third = one.place([[b"third"]])
    assert third is not None
    assert third.address == address


def test_what_the_broker_keeps_cannot_be_written_to(both: tuple[Arena, ArenaView]) -> None:
    place = both[0].place([[b"kept"]])
    assert place is not None
    assert place.pieces[0].readonly


def test_a_fork_makes_copies_that_the_broker_cannot_write_over(both: tuple[Arena, ArenaView]) -> None:
    one, view = both
    address, frames = placed(both, [b"kept" * 100])
    pid = os.fork()
    if not pid:
        freed = len(view.take_freed())
        mine = bytes(frames[0]) == b"kept" * 100
        del frames
        gc.collect()
        os._exit(0 if mine and len(view.take_freed()) == 0 and freed == 1 else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert view.take_freed() == [address]  # at the fork: both have copies of their own
    one.give_back(address)
    assert placed(both, [b"next" * 100])[0] == address
    assert bytes(frames[0]) == b"kept" * 100


def test_an_arena_that_is_full_says_so_by_none_and_has_room_again(both: tuple[Arena, ArenaView]) -> None:
    one = both[0]
    places = []
    while (place := one.place([[bytes(3 << 20)]])) is not None:
        places.append(place.address)
    assert len(places) == (SIZE - HEAD) // (3 << 20)
    one.give_back(places[1])
    assert one.place([[bytes(3 << 20)]]) is not None


def test_memory_is_taken_as_it_is_used(both: tuple[Arena, ArenaView]) -> None:
    one = both[0]
    before = os.fstat(one.file).st_blocks
    placed(both, [bytes(1000)])
    assert os.fstat(one.file).st_blocks * 512 <= before * 512 + GROWTH


def test_a_file_system_that_is_full_ends_the_growth_and_is_said(
    both: tuple[Arena, ArenaView], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    one = both[0]
    assert one.place([[bytes(1000)]]) is not None
    monkeypatch.setattr(os, "posix_fallocate", full)
    with caplog.at_level(logging.WARNING):
        assert one.place([[bytes(GROWTH)]]) is None
        assert one.place([[bytes(GROWTH)]]) is None
    assert [record.message.count("--shm-size") for record in caplog.records] == [1]
    assert one.place([[bytes(1000)]]) is not None


def test_a_small_dev_shm_is_refused_with_both_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    class Small:
        f_bavail, f_frsize = 1024, 4096

    monkeypatch.setattr(os, "statvfs", lambda _: Small)
    with pytest.raises(OSError, match="room for 4 MiB, and 16 are needed"):
        Arena(SIZE)


def test_another_file_is_not_mapped(tmp_path: Path) -> None:
    one = Arena(SIZE)
    try:
        with pytest.raises(ValueError, match="another than was offered"):
            ArenaView(str(one.path), one.size, bytes(16))
        with pytest.raises(ValueError, match="bytes"):
            ArenaView(str(one.path), one.size + 4096, one.nonce)
    finally:
        one.close()
    with pytest.raises(FileNotFoundError):
        ArenaView(str(one.path), one.size, one.nonce)
    other = tmp_path / "file"
    other.write_bytes(bytes(LEAST))
    with pytest.raises(ValueError, match="an arena at"):
        ArenaView(str(other), LEAST, bytes(16))


def test_a_slot_beyond_the_arena_is_refused(both: tuple[Arena, ArenaView]) -> None:
    for address, lengths in ((SIZE, [1]), (0, [1]), (HEAD, [SIZE]), (HEAD + 1, [1])):
        with pytest.raises(ValueError, match="a block of"):
            both[1].frames(address, lengths)


KILLED = """
import os, signal, sys
from dfserve.sharing.arena import Arena
print(Arena(16 << 20).path, flush=True)
sys.stdin.read(1)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_broker_leaves_is_reaped_and_what_a_living_one_has_is_not() -> None:
    process = subprocess.Popen([sys.executable, "-c", KILLED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    path = Path(process.stdout.readline().strip())
    reap()
    assert path.exists()
    process.communicate("x", timeout=30)
    assert process.returncode == -signal.SIGKILL
    assert path.exists()
    assert reap() >= 1
    assert not path.exists()


def test_a_machine_has_a_name() -> None:
    assert len(arena.machine()) == 36

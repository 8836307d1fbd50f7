"""Owns the tests of a worker's pool: found by others through /proc, read-only for them, and gone with its last map."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dfserve.sharing import pool_file, pool_view
from dfserve.sharing.extents import GRAIN
from dfserve.sharing.pool import Pool
from dfserve.sharing.pool_file import HEAD, NAME, NONCE_BYTES, path_of
from dfserve.sharing.pool_view import PoolView

SIZE = 16 << 20
MIB = 1 << 20


@pytest.fixture
def both() -> Iterator[tuple[Pool, PoolView]]:
    pool = Pool(SIZE)
    yield pool, seen(pool)
    pool.close()


def seen(pool: Pool, **more: Any) -> PoolView:
    return PoolView(pool.path, pool.size, pool.nonce, **more)


def written(pool: Pool, contents: bytes) -> tuple[memoryview, tuple[int, int]]:
    """Return a frame in the pool, and where it lies."""
    memory = pool.take(len(contents))
    assert memory is not None
    memory[:] = np.frombuffer(contents, np.uint8)
    frame = memory.data
    (span,) = pool.spans([frame])
    assert span is not None
    return frame, span


def read(view: PoolView, span: tuple[int, int]) -> memoryview:
    return view.frame(*span)


def open_files() -> list[str]:
    """What this process has open of pools."""
    found = []
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one of this listing
            found.append(str(each.readlink()))
    return sorted(name for name in found if "memfd" in name)


def maps() -> int:
    """How many maps of pools this process has."""
    return Path("/proc/self/maps").read_text().count(f"/memfd:{NAME}")


def test_what_a_worker_writes_its_readers_read(both: tuple[Pool, PoolView]) -> None:
    pool, view = both
    contents = [bytes([n]) * (64_000 + n) for n in range(20)]
    frames = [written(pool, some) for some in contents]
    for (_, span), some in zip(frames, contents, strict=True):
        assert bytes(read(view, span)) == some


def test_only_the_worker_can_write(both: tuple[Pool, PoolView]) -> None:
    pool, view = both
    _, span = written(pool, bytes(100_000))
    frame = read(view, span)
    assert frame.readonly
    with pytest.raises(TypeError):
        frame[0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        np.frombuffer(frame, np.uint8).flags.writeable = True
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(view.file, b"x")


def test_small_frames_and_those_that_lie_elsewhere_have_no_place(both: tuple[Pool, PoolView]) -> None:
    pool, _ = both
    frame, span = written(pool, bytes(100_000))
    assert pool.spans([b"body" * 100_000, frame, frame[:1000], memoryview(bytes(100_000))]) == [None, span, None, None]


def test_the_size_cannot_be_changed_under_a_reader(both: tuple[Pool, PoolView]) -> None:
    pool, _ = both
    for size in (0, SIZE - GRAIN, 2 * SIZE):
        with pytest.raises(PermissionError):
            os.ftruncate(pool.file, size)


def test_a_place_is_free_when_the_reader_refers_to_it_no_more(both: tuple[Pool, PoolView]) -> None:
    pool, view = both
    _, span = written(pool, bytes(100_000))
    array = np.frombuffer(read(view, span), np.uint8)[5:].view(np.uint8)[::3]
    assert (view.lent, view.take_freed()) == (1, [])
    del array
    assert (view.lent, view.take_freed(), view.lent) == (1, [span[0]], 0)


def test_a_long_list_of_free_places_is_told_in_parts(both: tuple[Pool, PoolView]) -> None:
    pool, view = both
    spans = [written(pool, bytes(40_000))[1] for _ in range(10)]
    for span in spans:
        read(view, span)
    told = [view.take_freed(4) for _ in range(4)]
    assert [len(some) for some in told] == [4, 4, 2, 0]
    assert view.lent == 0


def test_others_find_it_at_any_reader_of_it_when_the_worker_has_let_go() -> None:
    pool = Pool(SIZE)
    frame, span = written(pool, b"kept" * 25_000)
    first = seen(pool)
    size, nonce = pool.size, pool.nonce
    pool.close()
    del frame, pool
    gc.collect()
    second = PoolView(first.path, size, nonce)
    array = np.frombuffer(read(second, span), np.uint8)
    del first, second
    gc.collect()
    assert bytes(array[-4:]) == b"kept"


# ---------------------------------------------------------------------- what is no pool


def refused(path: str, pool: Pool, **changes: Any) -> None:
    said = {"path": path, "size": pool.size, "nonce": pool.nonce, **changes}
    gc.collect()
    files, mapped = open_files(), maps()
    with pytest.raises((OSError, ValueError)):
        PoolView(**said)
    gc.collect()
    assert (open_files(), maps()) == (files, mapped)


def test_other_memory_than_was_offered_is_refused(both: tuple[Pool, PoolView]) -> None:
    pool, _ = both
    refused(pool.path, pool, nonce=bytes(NONCE_BYTES))
    refused(pool.path, pool, nonce=pool.nonce[:5])
    refused(pool.path, pool, nonce=b"")
    for size in (0, HEAD, pool.size - 1, pool.size + GRAIN, 1 << 62):
        refused(pool.path, pool, size=size)


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "/dev/null",
        "/proc/self/fd/0",
        "/proc/self/mem",
        "/proc/1/../1/fd/1",
        "/proc/0/fd/1",
        "/proc/x/fd/1",
        "/proc/4194999/fd/1",
        "/proc/1/fd/1/x",
        "",
        "\0",
        "x" * 100_000,
    ],
)
def test_a_path_that_is_none_of_a_pool_is_not_opened(
    both: tuple[Pool, PoolView], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []
    with monkeypatch.context() as patch:
        patch.setattr(pool_file.os, "open", lambda *said: opened.append(said))
        with pytest.raises((OSError, ValueError)):
            PoolView(path, both[0].size, both[0].nonce)
    assert not opened


def test_what_others_have_open_beside_pools_is_not_opened(
    both: tuple[Pool, PoolView], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening some files acts: of a tape, a terminal, a FIFO that somebody waits at."""
    plain = tmp_path / "plain"
    plain.write_bytes(bytes(both[0].nonce) + bytes(SIZE - NONCE_BYTES))
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / f"memfd:{NAME}").write_bytes(both[0].nonce)
    other = os.memfd_create("other", os.MFD_CLOEXEC)
    files = [
        os.open(plain, os.O_RDWR),
        os.open(tmp_path / "fifo", os.O_RDWR),
        os.open(tmp_path / f"memfd:{NAME}", os.O_RDWR),
        os.open(tmp_path, os.O_RDONLY),
        other,
        *os.pipe(),
    ]
    opened: list[Any] = []
    try:
        with monkeypatch.context() as patch:
            patch.setattr(pool_file.os, "open", lambda *said: opened.append(said))
            for file in files:
                with pytest.raises(ValueError, match="a pool at"):
                    PoolView(path_of(file), both[0].size, both[0].nonce)
        assert not opened
    finally:
        for file in files:
            os.close(file)


@pytest.mark.parametrize("seals", [0, fcntl.F_SEAL_GROW, fcntl.F_SEAL_SHRINK, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW])
def test_memory_that_could_be_shortened_is_refused_before_it_is_looked_at(
    both: tuple[Pool, PoolView], seals: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, _ = both
    file = os.memfd_create(NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    looked: list[Any] = []
    with monkeypatch.context() as patch:
        patch.setattr(pool_view.os, "fstat", lambda *said, **_: looked.append(said))
        try:
            os.ftruncate(file, pool.size)
            os.pwrite(file, pool.nonce, 0)
            fcntl.fcntl(file, fcntl.F_ADD_SEALS, seals)
            refused(path_of(file), pool)
        finally:
            os.close(file)
    assert not looked


def test_a_pool_that_is_too_large_for_our_addresses_is_refused_when_it_is_offered(both: tuple[Pool, PoolView]) -> None:
    pool, _ = both
    file = os.memfd_create(NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(file, 1 << 60)  # a hole; no memory
        os.pwrite(file, pool.nonce, 0)
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        refused(path_of(file), pool, size=1 << 60)
    finally:
        os.close(file)


def test_a_frame_beyond_the_pool_or_of_nothing_is_refused(both: tuple[Pool, PoolView]) -> None:
    _, view = both
    for address, nbytes in ((SIZE, 1), (0, 1), (HEAD, SIZE), (HEAD + 1, 1), (HEAD, 0), (1 << 60, 1)):
        with pytest.raises(ValueError, match="a frame of"):
            view.frame(address, nbytes)
    assert view.lent == 0


def test_a_system_without_such_memory_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    with pytest.raises(OSError, match="no memory without a name"):
        Pool(SIZE)


def test_a_pool_that_cannot_be_mapped_leaves_nothing_open() -> None:
    gc.collect()
    before = open_files()
    with pytest.raises(OSError):
        Pool(1 << 60)
    assert open_files() == before


# ---------------------------------------------------------------------- ends


def test_pools_leave_no_descriptors_and_no_maps() -> None:
    gc.collect()
    before, mapped = open_files(), maps()
    for _ in range(20):
        pool = Pool(SIZE)
        frame, span = written(pool, bytes(MIB))
        view = seen(pool)
        array = np.frombuffer(read(view, span), np.uint8)
        pool.close()
        del pool, frame, view, array
    gc.collect()
    assert (open_files(), maps()) == (before, mapped)


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # of tests that ran before; it ends at once
def test_a_fork_gives_a_consumer_copies_that_the_worker_cannot_write_over(both: tuple[Pool, PoolView]) -> None:
    pool, view = both
    memory, span = written(pool, b"kept" * 25_000)
    frame = read(view, span)
    pid = os.fork()
    if not pid:
        freed = view.take_freed()
        mine = bytes(frame) == b"kept" * 25_000
        del frame
        gc.collect()
        os._exit(0 if mine and freed == [span[0]] and view.take_freed() == [] else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert view.take_freed() == [span[0]]  # at the fork: both have copies of their own
    memory[:4] = b"next"
    assert bytes(frame[:4]) == b"kept"
    assert bytes(read(view, span)[:4]) == b"next"


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # of tests that ran before; it ends at once
def test_a_fork_of_who_only_passes_blocks_on_frees_nothing_that_others_read(both: tuple[Pool, PoolView]) -> None:
    """A broker in the process of a test, say, which forks."""
    pool, _ = both
    broker = seen(pool, buys=False)
    _, span = written(pool, b"kept" * 25_000)
    frame = read(broker, span)
    pid = os.fork()
    if not pid:
        del frame
        gc.collect()
        os._exit(len(broker.take_freed()))
    assert os.waitpid(pid, 0)[1] == 0
    assert (broker.take_freed(), broker.lent) == ([], 1)
    assert bytes(frame[:4]) == b"kept"
    del frame
    assert (broker.take_freed(), broker.lent) == ([span[0]], 0)


KILLED = """
import sys, time
import numpy as np
from dfserve.sharing.pool import Pool
pool = Pool(16 << 20)
memory = pool.take(1 << 20)
memory[:] = 7
print(pool.path, pool.size, pool.nonce.hex(), pool.address_of(memory.data), flush=True)
time.sleep(600)
"""


def test_a_killed_worker_leaves_its_memory_to_who_has_it_mapped_and_nothing_else() -> None:
    names = set(Path("/dev/shm").glob("*dfserve*"))
    worker = subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    path, size, nonce, at = worker.stdout.readline().split()
    view = PoolView(path, int(size), bytes.fromhex(nonce))
    worker.send_signal(signal.SIGKILL)
    worker.wait(60)
    worker.stdout.close()
    assert not {name for name in set(Path("/dev/shm").glob("*dfserve*")) - names if "pool" in name.name}
    with pytest.raises(FileNotFoundError):
        PoolView(path, int(size), bytes.fromhex(nonce))
    assert bytes(read(view, (int(at), MIB))) == b"\x07" * MIB
    other = PoolView(view.path, int(size), bytes.fromhex(nonce))  # who comes later finds it here
    assert read(other, (int(at), MIB))[0] == 7

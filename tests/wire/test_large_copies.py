"""Copies that two threads share: all of it arrives, whatever the layout, in a forked child and at a process's end."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfserve.wire import columns, large_copies
from dfserve.wire.blocks import BlockBuilder, decode_block
from dfserve.wire.large_copies import CHUNK, LARGE, copy_large

TEN_MIB = 10 << 20


def numbers(nbytes: int, dtype: Any = np.uint8) -> np.ndarray[Any, Any]:
    dtype = np.dtype(dtype)
    return (np.arange(nbytes // dtype.itemsize) % 251).astype(dtype)


def is_copied(source: np.ndarray[Any, Any]) -> bool:
    target = np.zeros(source.shape, source.dtype)
    copy_large(target, source)
    return bool(np.array_equal(target, source))


@pytest.mark.parametrize("nbytes", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, LARGE, TEN_MIB + 3])
def test_every_byte_arrives_whatever_the_length(nbytes: int) -> None:
    assert is_copied(numbers(nbytes))


@given(shape=st.tuples(*[st.integers(0, 40)] * 3), dtype=st.sampled_from(["u1", ">i4", "f8", "c16", "S3", "M8[s]"]))
def test_every_element_arrives_whatever_the_shape_and_dtype(shape: tuple[int, ...], dtype: str) -> None:
    assert is_copied(numbers(int(np.prod(shape)), np.uint8).astype(dtype).reshape(shape))


@pytest.mark.parametrize("layout", ["transposed", "every other", "backwards", "broadcast"])
def test_an_array_of_any_layout_is_copied(layout: str) -> None:
    square = numbers(4 * TEN_MIB, np.float32).reshape(2, 1280, -1)
    sources = {
        "transposed": square.T,
        "every other": square[:, :, ::2],
        "backwards": square[::-1],
        "broadcast": np.broadcast_to(square[:1], (3, *square.shape[1:])),
    }
    assert is_copied(sources[layout])


def test_a_memory_map_is_copied(tmp_path: Path) -> None:
    mapped = np.memmap(tmp_path / "file", np.uint8, "w+", shape=TEN_MIB)
    mapped[:] = numbers(TEN_MIB)
    assert is_copied(mapped)


def test_large_arrays_of_a_block_come_out_as_they_went_in() -> None:
    builder = BlockBuilder(8 * TEN_MIB)
    first, second = numbers(TEN_MIB, np.float32), numbers(TEN_MIB, np.float32)[::-1]
    assert builder.add([first, 1])
    assert builder.add([second, 2])
    block = builder.close()
    for (array, _), right in zip(decode_block(block.frames), (first, second), strict=True):
        assert np.array_equal(array, right)


def test_threads_that_copy_at_once_do_not_disturb_one_another() -> None:
    sources = [numbers(TEN_MIB) + number for number in range(8)]
    right = []
    threads = [threading.Thread(target=lambda it=it: right.append(is_copied(it))) for it in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert right == [True] * 8


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # so it is
def test_a_forked_child_copies_with_a_thread_of_its_own() -> None:
    assert is_copied(numbers(TEN_MIB))  # the parent's thread runs, and the child has none of it
    child = multiprocessing.get_context("fork").Process(target=_copy_or_fail)
    child.start()
    child.join(60)
    assert child.exitcode == 0


def _copy_or_fail() -> None:
    assert is_copied(numbers(TEN_MIB))


class Watched(np.ndarray[Any, Any]):
    """Notes which threads write to it."""

    writers: set[str]
    begun: threading.Barrier  # neither thread is done before the other begins

    def __setitem__(self, key: Any, value: Any) -> None:
        name = threading.current_thread().name
        if name not in self.base.writers:  # type: ignore[union-attr]
            self.base.writers.add(name)  # type: ignore[union-attr]
            self.base.begun.wait(60)  # type: ignore[union-attr]
        super().__setitem__(key, value)


@pytest.mark.skipif(large_copies._helper.alone, reason="there is one core")
@pytest.mark.parametrize(("nbytes", "names"), [(LARGE, {"MainThread", "dfserve-copies"}), (LARGE - 1, set())])
def test_a_large_array_of_a_block_is_copied_by_two_threads_and_others_as_ever(
    nbytes: int, names: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    writers: set[str] = set()

    def watched(target: np.ndarray[Any, Any], source: np.ndarray[Any, Any]) -> None:
        seen = target.view(Watched)
        seen.writers, seen.begun = writers, threading.Barrier(2)
        copy_large(seen, source)

    monkeypatch.setattr(columns, "copy_large", watched)
    builder = BlockBuilder(LARGE)
    assert builder.add([numbers(nbytes), 1])
    assert writers == names


def test_an_array_of_one_large_text_arrives() -> None:
    builder = BlockBuilder(LARGE)
    builder.add([np.array(b"x" * TEN_MIB), 1])
    ((text, _),) = decode_block(builder.close().frames)
    assert text == b"x" * TEN_MIB


@pytest.mark.skipif(large_copies._helper.alone, reason="there is one core")
def test_who_finds_the_other_thread_busy_copies_alone_and_nothing_keeps_the_arrays() -> None:
    going_on, began = threading.Event(), threading.Event()

    class Slow(np.ndarray[Any, Any]):
        def __setitem__(self, key: Any, value: Any) -> None:
            if threading.current_thread().name == "dfserve-copies":
                began.set()
                going_on.wait(60)
            began.wait(60)
            super().__setitem__(key, value)

    first = threading.Thread(target=copy_large, args=(np.zeros(TEN_MIB, np.uint8).view(Slow), numbers(TEN_MIB)))
    first.start()
    assert began.wait(60)
    source = numbers(TEN_MIB)
    kept = weakref.ref(source)
    assert is_copied(source)
    del source
    assert kept() is None
    going_on.set()
    first.join(60)
    assert not first.is_alive()


INTERRUPTED = """
import random, signal, threading, time
import numpy as np
from dfserve.wire.large_copies import copy_large

class Stop(BaseException):
    pass

def stop(*_):
    raise Stop

writing = threading.Event()

class Watched(np.ndarray):
    def __setitem__(self, key, value):
        if threading.current_thread() is threading.main_thread():
            super().__setitem__(key, value)
            return
        writing.set()
        super().__setitem__(key, value)
        writing.clear()

signal.signal(signal.SIGALRM, stop)
source = np.ones(10 << 20, np.uint8)
target = np.zeros_like(source).view(Watched)
def timed():
    began = time.perf_counter()
    copy_large(target, source)
    return time.perf_counter() - began

took = min(timed() for _ in range(5))
interrupts, deadline = 0, time.monotonic() + 60
while interrupts < 50:
    assert time.monotonic() < deadline
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0, 2 * took))
        copy_large(target, source)
        signal.setitimer(signal.ITIMER_REAL, 0)
    except Stop:
        interrupts += 1
        assert not writing.is_set()
target[:] = 0
copy_large(target, source)
assert target.all()
"""


def test_whenever_a_signal_interrupts_nobody_writes_any_more_and_the_next_copy_is_whole() -> None:
    run = [sys.executable, "-c", INTERRUPTED]
    ended = subprocess.run(run, capture_output=True, text=True, timeout=200, check=False)
    assert ended.returncode == 0, ended.stderr


def test_without_another_thread_the_copy_is_made_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(large_copies, "_helper", large_copies._Helper())
    monkeypatch.setattr(threading.Thread, "start", none)
    assert is_copied(numbers(TEN_MIB))


def test_a_process_ends_though_it_has_copied_and_copies_while_it_ends() -> None:
    program = """
import atexit, numpy as np
from dfserve.wire.large_copies import copy_large
source = np.arange(10 << 20).astype(np.uint8)
def copy():
    target = np.zeros_like(source)
    copy_large(target, source)
    assert np.array_equal(target, source)
    print("copied")
atexit.register(copy)
copy()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout.split() == ["copied", "copied"], ended.stderr

"""Copies that two threads share: all of it arrives, whatever the layout, in a forked child and at a process's end."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfserve.wire import large_copies
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


class Stopped(np.ndarray[Any, Any]):
    """Raises in the thread that asked for the copy at its third chunk; the other thread is slow."""

    def __setitem__(self, key: Any, value: Any) -> None:
        if threading.current_thread() is not threading.main_thread():
            time.sleep(0.02)
        elif key.start >= 2 * CHUNK:
            raise KeyboardInterrupt
        super().__setitem__(key, value)


def test_after_ctrl_c_nobody_writes_any_more() -> None:
    target = np.zeros(TEN_MIB, np.uint8)
    with pytest.raises(KeyboardInterrupt):
        copy_large(target.view(Stopped), np.ones_like(target))
    as_it_was_left = target.copy()
    assert 0 < as_it_was_left.sum() < TEN_MIB
    time.sleep(0.2)
    assert np.array_equal(target, as_it_was_left)


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

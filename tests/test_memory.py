"""Owns the tests of the heap: what a long queue took goes back to the system, what is used does not."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dfserve import memory
from dfserve.memory import Heap, keep_large_blocks

# A process whose queue was long and is short; the last block keeps malloc from returning anything by itself.
PROCESS = """
import sys
import numpy as np
from dfserve.memory import Heap, _own_bytes, keep_large_blocks

assert keep_large_blocks()
queue = [np.ones(1 << 20, np.uint8) for _ in range({blocks})]
last, heap = np.ones(1 << 20, np.uint8), Heap(looks=3)
{before}
del queue[:]
{after}
print(_own_bytes() >> 20)
"""
LOOK = "heap.shrink()\n"


def resident(before: str = "", after: str = "", blocks: int = 400) -> int:
    """Return MiB that the process has for itself at the end."""
    program = PROCESS.format(before=before, after=after, blocks=blocks)
    return int(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, timeout=60).stdout)


pytestmark = pytest.mark.skipif(Heap()._libc is None, reason="another C library than glibc 2.33 or newer")


def test_what_a_long_queue_took_stays_in_the_heap_and_goes_back_after_some_looks_at_it_idle() -> None:
    assert resident() > 400
    assert resident(after=2 * LOOK) > 400
    assert resident(after=3 * LOOK) < 100


def test_what_was_used_at_one_of_the_looks_stays() -> None:
    assert resident(before=LOOK, after=2 * LOOK) > 400
    assert resident(before=LOOK, after=5 * LOOK) < 100


def test_what_a_short_queue_swings_by_stays() -> None:
    assert resident(blocks=60, after=9 * LOOK) > 60


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Musl:
        def __init__(self, _name: object) -> None:
            pass

    monkeypatch.setattr(memory.ctypes, "CDLL", Musl)
    heap = Heap(looks=1)
    heap.shrink()
    assert not keep_large_blocks()

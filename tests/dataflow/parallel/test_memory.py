"""Memory that two processes share: what is written is read, and an extent goes back exactly when nobody uses it."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dfserve.dataflow.parallel.memory import FIRST, Reader, SharedFile, Writer
from dfserve.dataflow.parallel.messages import Sent, extent_bytes
from dfserve.wire.blocks import decode_block, encode_block


class Shared:
    """Both sides of a file in one process."""

    def __init__(self) -> None:
        self.file = SharedFile()
        self.writer = Writer(self.file)
        self.freed: list[int] = []
        self.reader = Reader(self.file, lambda extent, _nbytes: self.freed.append(extent))

    def send(self, datapoints: list[Any]) -> list[Any]:
        body, *buffers = encode_block(datapoints).frames
        sent = Sent(0, frames=[bytes(body)])
        extent = self.writer.extents.take(extent_bytes(buffers))
        assert extent is not None
        self.writer.put(sent, extent, buffers)
        return decode_block(self.reader.frames(sent), writable=True)


@pytest.fixture
def shared() -> Shared:
    return Shared()


def test_what_is_written_is_read_also_when_the_file_has_grown_meanwhile(shared: Shared) -> None:
    arrays = [np.random.RandomState(n).rand(n * 20_000 + 3) for n in range(8)]
    found = [shared.send([[array, n]])[0] for n, array in enumerate(arrays)]
    assert os.fstat(shared.file.fd).st_size > FIRST
    for array, (view, _) in zip(arrays, found, strict=True):
        assert np.array_equal(array, view)


VIEWS: dict[str, Callable[[Any], Any]] = {
    "the array": lambda a: a,
    "a slice": lambda a: a[3:9:2],
    "a row": lambda a: a[1],
    "a transpose": lambda a: a.T,
    "a reshape": lambda a: a.reshape(-1),
    "another dtype": lambda a: a.view(np.uint8),
    "a view of a view": lambda a: a[2:].reshape(-1)[5:].view(np.int32),
    "a memoryview": memoryview,
    "a flat iterator": lambda a: a.flat,
    "an array of a buffer": lambda a: np.frombuffer(a[1:].data, np.uint8),
    "a subclass": lambda a: a.view(np.matrix),
}


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize("kind", VIEWS)
def test_an_extent_is_lent_as_long_as_anything_refers_to_its_memory(shared: Shared, kind: str) -> None:
    datapoints = shared.send([[np.full((20, 30), n, np.int64)] for n in range(3)])
    view = VIEWS[kind](datapoints[1][0])
    del datapoints
    gc.collect()
    assert shared.freed == []
    del view
    gc.collect()
    assert shared.freed == [0]


def test_what_holds_no_memory_of_the_extent_does_not_hold_it(shared: Shared) -> None:
    (datapoint,) = shared.send([[np.arange(100), "text", {"a": 1}]])
    kept = [datapoint[0].copy(), datapoint[0][3], *datapoint[1:]]
    del datapoint
    gc.collect()
    assert shared.freed == [0]
    assert kept[1] == 3


def test_arrays_outlive_the_file(shared: Shared) -> None:
    (datapoint,) = shared.send([[np.arange(100_000)]])
    shared.file.close()
    del shared.reader, shared.writer
    assert np.array_equal(datapoint[0], np.arange(100_000))


def test_a_fork_makes_what_is_on_loan_the_processs_own_and_gives_the_extent_back(shared: Shared) -> None:
    (kept,) = shared.send([[np.arange(50_000)]])
    if not (pid := os.fork()):
        kept[0][...] = 0
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert shared.freed == [0]
    shared.writer.extents.give_back(0)
    (later,) = shared.send([[np.full(50_000, 7)]])  # where the first one was
    assert np.array_equal(kept[0], np.arange(50_000))
    assert (later[0] == 7).all()
    del kept
    gc.collect()
    assert shared.freed == [0], "not twice: it is in use again"
    del later
    gc.collect()
    assert shared.freed == [0, 0]


def test_memory_that_was_given_up_is_never_mapped_as_zeros(shared: Shared) -> None:
    shared.file.close()
    with pytest.raises(OSError, match="closed"):
        shared.file.map(4096)

"""Tests of batches that are made of blocks by whole columns: they are what stacking the datapoints one by one makes."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfserve.dataflow import BatchData, DataFlow
from dfserve.dataflow.columnwise import drawing, stacked_by_column
from dfserve.errors import DatapointError
from dfserve.wire.arrays import RECYCLED, blank_array
from dfserve.wire.blocks import Rows, encode_block, open_block

SPECS = [
    "<f4",
    "|u1",
    "<i8",
    ">i4",
    "|b1",
    "<c8",
    "<f2",
    "<U3",
    "|S2",
    "<M8[s]",
    "<m8[ms]",
    [("a", "<i4"), ("b", "<f8")],
]
SHAPES = [(), (1,), (3,), (2, 2), (0,), (2, 0, 3)]


def array_of(spec: Any, shape: tuple[int, ...], number: int) -> Any:
    """Return an array that is another one for each number."""
    dtype = np.dtype(spec)
    array = np.empty(shape, dtype)
    array[...] = (
        np.array(number % 2 if dtype.kind in "bSU" else number).astype(dtype) if dtype.names is None else number
    )
    return array


def value_of(kind: Any, number: int) -> Any:
    """Return the component of one kind of the datapoint of that number."""
    if isinstance(kind, tuple):
        what, spec, shape = kind
        array = array_of(spec, shape, number)
        return array[()] if what == "scalar" else array
    return {
        "int": number, "float": number / 4, "bool": number % 2 == 0, "str": str(number), "bytes": b"b%d" % number,
        "huge": 2**63 + number, "wide": 1e300, "nul": f"{number}\0", "none": None, "list": [number],
        "ragged": np.zeros(number % 3), "nested": [np.zeros(2)],
    }[kind]  # fmt: skip


_arrays = st.tuples(st.just("array"), st.sampled_from(SPECS), st.sampled_from(SHAPES))
_scalars = st.tuples(
    st.just("scalar"), st.sampled_from([spec for spec in SPECS if np.dtype(spec).kind not in "USV"]), st.just(())
)
_values = st.sampled_from(
    ["int", "float", "bool", "str", "bytes", "huge", "wide", "nul", "none", "list", "ragged", "nested"]
)
_likely = st.sampled_from(
    [("array", "<f4", (3,)), ("array", "|u1", (2, 2)), ("scalar", "<i8", ()), "int", "float", "str"]
)
_kinds = st.one_of(_likely, _arrays, _scalars, _values)


@st.composite
def blocks(draw: st.DrawFn) -> list[list[Any]]:
    """Draw the datapoints of some blocks; mostly, but not always, of one structure."""
    kinds = draw(st.lists(_kinds, max_size=3))
    form = draw(st.sampled_from([list, tuple, dict]))
    found, number = [], 0
    for count in draw(st.lists(st.integers(1, 5), min_size=1, max_size=4)):
        if draw(st.integers(0, 9)) == 0:
            kinds = draw(st.lists(_kinds, max_size=3))
        if draw(st.integers(0, 19)) == 0:
            form = draw(st.sampled_from([list, tuple, dict]))
        block = []
        for _ in range(count):
            values = [value_of(kind, number) for kind in kinds]
            block.append(form(zip("abc", values, strict=False)) if form is dict else form(values))
            number += 1
        found.append(block)
    return found


def outcome(make: Any) -> Any:
    try:
        return make()
    except DatapointError as error:
        return f"{type(error).__name__}: {error}"


def described(batch: Any) -> Any:
    """Return all that is to be equal of two batches, and what a user may do with them."""
    if isinstance(batch, str):
        return batch
    parts = batch.items() if isinstance(batch, dict) else enumerate(batch)
    return type(batch), [
        (name, type(part), part.dtype, part.dtype.str, part.shape, part.tobytes(), part.flags.writeable,
         part.flags.c_contiguous, part.flags.aligned)
        for name, part in parts
    ]  # fmt: skip


@settings(max_examples=300)
@given(blocks(), st.data())
def test_a_batch_by_columns_is_the_batch_by_datapoints(found: list[list[Any]], data: st.DataObject) -> None:
    pieces: list[Sequence[Any]] = []
    for block in found:
        rows = open_block(encode_block(block).frames)
        start = data.draw(st.integers(0, len(rows) - 1))
        pieces.append(rows[start : data.draw(st.integers(start + 1, len(rows)))])
    expected = outcome(lambda: BatchData.aggregate_batch([datapoint for piece in pieces for datapoint in piece]))
    got = outcome(lambda: stacked_by_column(pieces))
    if got is not None:
        assert described(got) == described(expected)
    assert described(outcome(lambda: next(iter(batched(pieces))))) == described(expected)


class InBlocks(DataFlow):
    """A source that has its datapoints in blocks, as RemoteDataZMQ has."""

    def __init__(self, pieces: Sequence[Sequence[Any]]) -> None:
        self._pieces = pieces
        self.expected = 0

    def __iter__(self) -> Iterator[Any]:
        for piece in self._pieces:
            yield from piece

    def expect_draws(self, size: int) -> None:
        self.expected = size

    def draws(self, size: int) -> Iterator[list[Sequence[Any]]]:
        taken: list[Sequence[Any]] = []
        for whole in self._pieces:
            piece = whole
            while piece:
                taken.append(piece[: size - sum(map(len, taken))])
                piece = piece[len(taken[-1]) :]
                if sum(map(len, taken)) == size:
                    yield taken
                    taken = []
        if taken:
            yield taken


def batched(pieces: Sequence[Sequence[Any]]) -> BatchData:
    return BatchData(InBlocks(pieces), max(1, sum(map(len, pieces))), remainder=True)


def images(count: int, first: int = 0, side: int = 4) -> Rows:
    return open_block(encode_block([np.full((side, side), first + n, "u1"), first + n] for n in range(count)).frames)


@given(st.lists(st.integers(1, 7), max_size=6), st.integers(1, 9), st.booleans())
def test_batches_reach_across_blocks(counts: list[int], size: int, remainder: bool) -> None:
    starts = np.cumsum([0, *counts]).tolist()
    source = InBlocks([images(count, start) for count, start in zip(counts, starts, strict=False)])
    numbers = list(range(sum(counts)))
    expected = [numbers[start : start + size] for start in range(0, len(numbers), size)]
    if not remainder:
        expected = [some for some in expected if len(some) == size]
    got = list(BatchData(source, size, remainder=remainder))
    assert [labels.tolist() for _, labels in got] == expected
    assert [images[:, 0, 0].tolist() for images, _ in got] == expected


def test_no_datapoint_is_made_for_a_batch_of_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    source = InBlocks([images(5), images(5, 5)])
    monkeypatch.setattr(Rows, "listed", None)
    assert [labels.tolist() for _, labels in BatchData(source, 4)] == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_a_source_is_told_how_many_are_taken_at_a_time() -> None:
    source = InBlocks([])
    BatchData(source, 7)
    assert source.expected == 7


def test_a_subclass_with_another_pass_is_asked_for_that_pass() -> None:
    class Doubled(InBlocks):
        def __iter__(self) -> Iterator[Any]:
            for image, label in super().__iter__():
                yield [image, 2 * label]

    source = Doubled([images(4)])
    assert [labels.tolist() for _, labels in BatchData(source, 2)] == [[0, 2], [4, 6]]
    assert source.expected == 0
    assert [sum(map(len, pieces)) for pieces, _ in zip(drawing(source, 3), range(3), strict=False)] == [3, 1, 0]


def test_a_subclass_that_makes_its_batches_otherwise_is_given_the_datapoints() -> None:
    class Labels(BatchData):
        @staticmethod
        def aggregate_batch(datapoints: Sequence[Any], use_list: bool = False) -> Any:
            return [label for _, label in datapoints]

    assert list(Labels(InBlocks([images(3), images(3, 3)]), 4)) == [[0, 1, 2, 3]]


def test_use_list_gathers_what_the_blocks_hold() -> None:
    (batch,) = BatchData(InBlocks([images(2), images(1, 2)]), 3, use_list=True)
    assert [image[0, 0] for image in batch[0]] == [0, 1, 2] == batch[1]


class Holder(bytearray):
    """Memory whose end can be observed."""


def test_the_blocks_memory_is_free_while_the_batch_is_used() -> None:
    frames = encode_block([np.full((8, 8), n, "u1"), n] for n in range(4)).frames
    gone: list[weakref.ref[Holder]] = []

    class Received(InBlocks):
        """Keeps nothing of what it hands out, as RemoteDataZMQ."""

        def draws(self, size: int) -> Iterator[list[Sequence[Any]]]:
            for _ in range(2):
                memory = Holder(frames[1])
                gone.append(weakref.ref(memory))
                taken: list[Sequence[Any]] = [open_block([frames[0], memory])]
                assert len(taken[0]) == size
                del memory
                yield taken

        def __iter__(self) -> Iterator[Any]:
            raise AssertionError("blocks are to be had")

    for images, labels in BatchData(Received([]), 4):
        assert gone[-1]() is None
        assert images[:, 0, 0].tolist() == labels.tolist() == [0, 1, 2, 3]


# ---------------------------------------------------------------------- memory that is used again


def place(array: Any) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


@pytest.fixture
def _no_garbage() -> None:
    """Large memory in the garbage of earlier tests would be used again from the middle of this one on."""
    gc.collect()


@pytest.mark.usefixtures("_no_garbage")
def test_large_memory_is_used_again_when_nothing_refers_to_it_and_not_before() -> None:
    array = blank_array((RECYCLED,), np.dtype("u1"))
    part = array[100:].reshape(-1, 2)[::3]
    first = place(array)
    del array
    gc.collect()
    other = blank_array((RECYCLED,), np.dtype("u1"))
    assert place(other) != first, "a view still refers to it"
    del part
    gc.collect()
    assert place(blank_array((RECYCLED,), np.dtype("u1"))) == first


def test_small_memory_is_the_arrays_own() -> None:
    assert blank_array((3, 4), np.dtype("f4")).flags.owndata


def test_batches_that_are_kept_stay_as_they_were() -> None:
    side = 1200  # a batch of two has more than RECYCLED bytes
    source = InBlocks([images(1, n, side) for n in range(12)])
    kept = []
    for number, (batch, _) in enumerate(BatchData(source, 2)):
        assert batch.flags.writeable
        if number % 2:
            kept.append((number, batch))
        else:
            batch[...] = 255  # it is the user's
    assert [batch[:, 0, 0].tolist() for _, batch in kept] == [[2 * number, 2 * number + 1] for number, _ in kept]


@pytest.mark.usefixtures("_no_garbage")
def test_a_steady_loop_uses_the_same_memory_again_and_again() -> None:
    source = InBlocks([images(1, n, 1200) for n in range(40)])
    places = [place(images) for images, _ in BatchData(source, 2)]
    assert len(set(places)) <= 3


@pytest.mark.usefixtures("_no_garbage")
def test_batches_of_single_datapoints_use_large_memory_again_too() -> None:
    arrays = [np.full((1200, 1200), n, "u1") for n in range(8)]
    places = set()
    for number, (images,) in enumerate(BatchData([[array] for array in arrays], 2)):
        assert images[:, 7, 7].tolist() == [2 * number, 2 * number + 1]
        assert images.flags.writeable
        places.add(place(images))
    assert len(places) <= 3


@pytest.mark.usefixtures("_no_garbage")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # the child uses no thread
def test_a_forked_childs_end_leaves_its_parents_batch_alone() -> None:
    (batch, _), *_ = BatchData(InBlocks([images(1, n, 1200) for n in range(2)]), 2)
    pid = os.fork()
    if not pid:
        first = place(batch)
        del batch
        gc.collect()
        again = blank_array((2, 1200, 1200), np.dtype("u1"))
        again[...] = 99
        os._exit(0 if place(again) == first else 1)
    assert os.waitpid(pid, 0)[1] == 0
    other = blank_array((2, 1200, 1200), np.dtype("u1"))
    assert place(other) != place(batch)
    assert batch[:, 0, 0].tolist() == [0, 1]

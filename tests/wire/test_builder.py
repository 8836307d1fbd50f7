"""Owns the tests of how a block fills: when it is full, when a datapoint must wait, and that errors leave no trace."""

from __future__ import annotations

import numpy as np
import pytest

from dfserve.errors import EncodeError
from dfserve.wire.blocks import BlockBuilder, decode_block
from dfserve.wire.limits import Limits


def filled(builder: BlockBuilder, datapoint: object) -> int:
    while not builder.full:
        assert builder.add(datapoint)
    return builder.count


def test_a_block_is_full_when_another_datapoint_like_the_last_would_pass_max_bytes():
    builder = BlockBuilder(max_bytes=10_000)
    assert filled(builder, [np.zeros(125), 7]) == 9
    assert not builder.add([np.zeros(125), 7])
    assert builder.nbytes == pytest.approx(builder.close().nbytes, abs=100)


def test_a_block_is_full_at_max_count_and_takes_no_more():
    builder = BlockBuilder(max_count=5)
    assert filled(builder, [1]) == 5
    assert not builder.add([1])
    assert builder.close().count == 5


def test_a_single_datapoint_larger_than_max_bytes_makes_a_full_block_of_its_own():
    builder = BlockBuilder(max_bytes=1000)
    assert builder.add([np.zeros(1000)])
    assert builder.full
    assert not builder.add([np.zeros(1000)])
    assert builder.count == 1


@pytest.mark.parametrize("size", [0, 1, 8, 1000, 300_000, 2_000_000])
def test_a_block_never_passes_max_bytes_with_more_than_one_datapoint(size):
    builder = BlockBuilder(max_bytes=1 << 20, max_count=1024)
    count = filled(builder, [np.zeros(size, "u1"), b"x" * (size // 7), [1, 2]])
    block = builder.close()
    assert block.count == count
    assert count == 1 or block.nbytes <= 1 << 20
    assert block.nbytes > (1 << 19) or count == 1024


def test_a_closed_builder_is_empty_and_can_be_filled_again():
    builder = BlockBuilder()
    builder.add([np.arange(3)])
    first = builder.close()
    assert (builder.count, builder.nbytes, builder.full) == (0, 0, False)
    builder.add({"other": 5})
    second = builder.close()
    assert decode_block(second.frames) == [{"other": 5}]
    assert decode_block(first.frames)[0][0].tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="without datapoints"):
        builder.close()


FIRST = {"a": np.zeros(2, "<f4"), 1: np.float32(1), "c": "value"}


@pytest.mark.parametrize(
    "other",
    [
        [np.zeros(2, "<f4"), np.float32(1), "value"],
        {"a": np.zeros(2, "<f4"), 1: np.float32(1)},
        {"a": np.zeros(2, "<f4"), "c": "value", 1: np.float32(1)},
        {"a": np.zeros(2, "<f4"), True: np.float32(1), "c": "value"},
        {**FIRST, "d": 1},
        {**FIRST, "a": np.zeros(2, ">f4")},
        {**FIRST, "a": np.zeros(2, "<f8")},
        {**FIRST, "a": [0.0, 0.0]},
        {**FIRST, "a": None},
        {**FIRST, 1: np.float64(1)},
        {**FIRST, 1: 1.0},
        {**FIRST, 1: np.array(1, "<f4")},
        {**FIRST, "c": np.zeros(3)},
        {**FIRST, "c": np.int64(3)},
    ],
)
def test_a_datapoint_of_another_structure_waits_for_the_next_block(other, same):
    builder = BlockBuilder()
    assert builder.add(FIRST)
    assert not builder.add(other)
    assert builder.add(FIRST)
    assert same(decode_block(builder.close().frames), [FIRST, FIRST])
    assert builder.add(other)
    assert same(decode_block(builder.close().frames), [other])


def test_datetimes_of_another_unit_wait_for_the_next_block():
    builder = BlockBuilder()
    assert builder.add([np.datetime64("2020-01-01", "D")])
    assert not builder.add([np.datetime64("2020-01-01", "s")])


def test_values_of_different_types_share_a_column(same):
    builder = BlockBuilder()
    datapoints = [[value] for value in (1, 2.5, "x", None, [1], (2,), {"a": np.zeros(9999)}, np.str_("n"), b"b", 2**99)]
    assert all(map(builder.add, datapoints))
    assert same(decode_block(builder.close().frames), datapoints)


def test_a_refused_datapoint_leaves_the_block_as_it_was(same):
    good = [{"image": np.full(5, n), "caption": str(n), "extra": [np.full(1000, n)]} for n in range(3)]
    bad = {"image": np.full(6, 9), "caption": "bad", "extra": [np.full(1000, 9), object()]}
    builder = BlockBuilder()
    builder.add(good[0])
    before = builder.nbytes
    for datapoint in good[1:]:
        with pytest.raises(EncodeError, match=r"component 2 \('extra'\) is a object"):
            builder.add(bad)
        builder.add(datapoint)
    assert before > 0
    assert same(decode_block(builder.close().frames), good)


def test_the_component_is_named_by_index_or_by_key():
    with pytest.raises(EncodeError, match=r"^component 1 is a object"):
        BlockBuilder().add([1, object(), 3])
    with pytest.raises(EncodeError, match=r"^component 1 \('boxes'\) is a object"):
        BlockBuilder().add({"image": 1, "boxes": object(), "label": 3})
    with pytest.raises(EncodeError, match=r"^component 0 \('image'\) dtype object holds Python objects"):
        BlockBuilder().add({"image": np.array([None]), "boxes": 1})


def test_an_empty_builder_that_refused_a_datapoint_takes_the_next(same):
    builder = BlockBuilder()
    with pytest.raises(EncodeError):
        builder.add([np.zeros(3), [np.zeros(9999)], object()])
    assert builder.count == builder.nbytes == 0
    assert builder.add([np.zeros(3)])
    assert same(decode_block(builder.close().frames), [[np.zeros(3)]])


@pytest.mark.parametrize("limits", [Limits(max_frame=1000), Limits(max_body=180), Limits(max_frames=6)], ids=repr)
def test_a_block_closes_before_it_passes_the_receivers_limits(limits, same):
    builder = BlockBuilder(limits=limits)
    datapoints = [[np.zeros(n % 5 + 1), np.zeros(20), [n], [np.zeros(1 << 9) if limits.max_frames == 6 else 0]]
                  for n in range(40)]  # fmt: skip
    found, blocks = [], 0
    for datapoint in datapoints:
        if not builder.add(datapoint):
            found += decode_block(builder.close().frames, limits)
            blocks += 1
            assert builder.add(datapoint)
    found += decode_block(builder.close().frames, limits)
    assert blocks > 3
    assert same(found, datapoints)


def test_a_block_with_few_rows_does_not_hold_on_to_memory_for_many():
    builder = BlockBuilder()
    for _ in range(3):
        builder.add([np.zeros(512, "<i4"), 1])
        frame = builder.close().frames[1]
        assert memoryview(frame).obj.base is None or memoryview(frame).obj.base.nbytes <= 2 * len(frame)


def test_a_block_that_grows_past_its_first_memory_keeps_every_row(same):
    datapoints = [[b"x" * 5000, np.full(n % 2, n), np.float32(n)] for n in range(3)]
    datapoints += [[b"", np.full(n % 3, n), np.float32(n)] for n in range(900)]
    builder = BlockBuilder(max_bytes=20_000)
    found = []
    for _ in range(2):
        for datapoint in datapoints:
            if not builder.add(datapoint):
                found += decode_block(builder.close().frames)
                builder.add(datapoint)
    found += decode_block(builder.close().frames)
    assert same(found, datapoints * 2)

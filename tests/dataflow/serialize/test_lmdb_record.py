"""Records of an LMDB file: datapoints come back equal, and damage is found."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfserve.dataflow.serialize import lmdb_record
from dfserve.dataflow.serialize.lmdb_record import RecordWriter, is_record, read_record
from dfserve.errors import EncodeError, StoreError

Same = Callable[[Any, Any], bool]

IMAGE = np.random.default_rng(0).integers(0, 256, (60, 50, 3), np.uint8)  # more than two pages of 4 KiB
SMALL, LARGE = [np.arange(5), "text", 7], [IMAGE, 7]


def record_of(datapoint: Any) -> bytes:
    return bytes(RecordWriter().record(datapoint))


@pytest.mark.parametrize(
    "datapoint",
    [
        SMALL,
        LARGE,
        [],
        (1, "a", None),
        {"image": IMAGE, "boxes": np.zeros((0, 4), "f4"), "nested": {"a": [np.zeros(5000), (1, 2)]}},
        [np.zeros(20000, np.uint8)] * 3,
        [np.zeros(3, np.uint8)] * 40,  # more frames than most have
        [b"\0" * 30000, np.float32(1), np.datetime64("2020-01-01")],
    ],
)
def test_a_datapoint_comes_back_equal(datapoint: Any, same: Same) -> None:
    record = record_of(datapoint)
    assert len(record) % 16 == 0
    assert is_record(record)
    assert same(read_record(memoryview(record), 0), datapoint)


@given(st.lists(st.one_of(st.integers(0, 40000).map(lambda n: np.full(n, 7, np.uint8)), st.text(), st.integers())))
def test_any_sizes_come_back_equal(same: Same, components: list[Any]) -> None:
    assert same(read_record(memoryview(record_of(components))), components)


def test_an_array_larger_than_a_message_admits_can_be_stored() -> None:
    huge = np.zeros((300 << 20,), np.uint8)
    huge[-1] = 7
    (found,) = read_record(memoryview(RecordWriter().record([huge])))
    assert (found.shape, found[-1]) == (huge.shape, 7)


def test_a_record_larger_than_lmdb_admits_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lmdb_record, "MAX_BYTES", 9000)
    with pytest.raises(EncodeError, match="has 9088 bytes in all, and LMDB takes 9000"):
        RecordWriter().record(LARGE)


def test_records_know_their_place() -> None:
    writer = RecordWriter()
    records = [memoryview(writer.record([n])) for n in range(3)]
    assert writer.count == 3
    assert [read_record(record, place) for place, record in enumerate(records)] == [[0], [1], [2]]
    assert read_record(records[2]) == [2]
    with pytest.raises(StoreError, match="is not where it should be"):
        read_record(records[2], 1)


def test_a_refused_datapoint_takes_no_place() -> None:
    writer = RecordWriter()
    with pytest.raises(EncodeError, match=r"component 1 is a .*object"):
        writer.record([1, object()])
    assert read_record(memoryview(writer.record([2])), 0) == [2]


@pytest.mark.parametrize("datapoint", [SMALL, LARGE])
def test_every_flipped_bit_is_found(datapoint: Any) -> None:
    record = bytearray(record_of(datapoint))
    draw = random.Random(0)
    positions = range(len(record)) if len(record) < 1000 else draw.sample(range(len(record)), 1000)
    for position in positions:
        bit = 1 << draw.randrange(8)
        record[position] ^= bit
        with pytest.raises(StoreError):
            read_record(memoryview(record), 0)
        record[position] ^= bit
    read_record(memoryview(record), 0)


@pytest.mark.parametrize("datapoint", [SMALL, LARGE])
def test_a_record_that_was_cut_or_goes_on_is_found(datapoint: Any) -> None:
    record = record_of(datapoint)
    for wrong in (b"", record[:8], record[:-1], record[:-16], record[: len(record) // 2], record + bytes(16)):
        with pytest.raises(StoreError):
            read_record(memoryview(wrong), 0)


def test_a_page_that_was_zeroed_or_moved_is_found() -> None:
    record = record_of(LARGE)
    zeroed = record[:4096] + bytes(4096) + record[8192:]
    page = 8 + 4096  # the checksum begins behind itself
    swapped = record[:8] + record[page : page + 4096] + record[8:page] + record[page + 4096 :]
    later = record[:page] + record[page + 512 : page + 4096] + record[page : page + 512] + record[page + 4096 :]
    assert len(zeroed) == len(swapped) == len(later) == len(record)
    for wrong in (zeroed, swapped):
        with pytest.raises(StoreError, match=r"wrong checksum|not where"):
            read_record(memoryview(wrong), 0)
    # What the sums of pages do not see, so that nobody believes more of them than that.
    assert read_record(memoryview(later), 0)[1] == 7


def test_a_checksum_is_not_compared_twice_if_that_is_asked() -> None:
    record = bytearray(record_of(LARGE))
    record[5000] ^= 1
    assert read_record(memoryview(record), 0, verify=False)[1] == 7


def test_records_with_a_right_checksum_and_nonsense_in_them_are_refused() -> None:
    for place, count, described in ((0, 3, 40), (0, 0, 9), (0, 4000, 4), (0, 2, 1 << 30)):
        record = bytearray(record_of(SMALL))
        lmdb_record._HEAD.pack_into(record, 0, lmdb_record.MAGIC, 0, len(record), place, count, described)
        record[4:8] = lmdb_record._checksum(memoryview(record), len(record)).to_bytes(4, "little")
        with pytest.raises(StoreError, match="is none that dfserve wrote"):
            read_record(memoryview(record), 0)


@pytest.mark.parametrize("other", [b"", b"\x80\x04K\x01.", b"\x93\x01\x02\x03", b"dfr\x01" + bytes(40)])
def test_what_others_write_is_no_record(other: bytes) -> None:
    assert not is_record(other)
    with pytest.raises(StoreError):
        read_record(memoryview(other))

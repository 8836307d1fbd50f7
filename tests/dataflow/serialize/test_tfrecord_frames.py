"""TFRecord framing: known bytes, and every kind of damage."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfserve.dataflow.serialize import tfrecord_frames
from dfserve.dataflow.serialize.tfrecord_frames import import_crc32c, masked, read_records, write_record
from dfserve.errors import EncodeError, StoreError

CRC32C = import_crc32c()
PAYLOADS = [b"first", b"", b"third" * 20]


def framed(*payloads: bytes) -> bytes:
    file = io.BytesIO()
    for payload in payloads:
        write_record(file, payload, CRC32C)
    return file.getvalue()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data.tfrecord"


def read(path: Path, content: bytes) -> list[bytes]:
    path.write_bytes(content)
    return list(read_records(path, CRC32C))


def test_the_checksum_is_that_of_rfc_3720_and_its_mask_that_of_tensorflow() -> None:
    assert CRC32C(bytes(32)) == 0x8A9136AA  # RFC 3720, B.4
    assert masked(CRC32C(b"\x05" + bytes(7))) == int.from_bytes(bytes.fromhex("eab2043e"), "little")


def test_a_record_has_the_bytes_that_tensorflow_writes() -> None:
    # tf.io.TFRecordWriter of tensorflow 2.21, write(b"hello")
    assert framed(b"hello").hex() == "0500000000000000eab2043e68656c6c6fbb1f1c19"


@given(payloads=st.lists(st.binary(max_size=50), min_size=1))
def test_payloads_come_back_in_their_order(tmp_path_factory: pytest.TempPathFactory, payloads: list[bytes]) -> None:
    assert read(tmp_path_factory.getbasetemp() / "payloads.tfrecord", framed(*payloads)) == payloads


def test_every_flipped_bit_is_found_and_named_by_file_record_and_byte(path: Path) -> None:
    whole = framed(*PAYLOADS)
    starts = [0, len(framed(PAYLOADS[0])), len(framed(*PAYLOADS[:2])), len(whole)]
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        with pytest.raises(StoreError) as caught:
            read(path, bytes(damaged))
        number = sum(start <= place for start in starts) - 1
        assert str(path) in str(caught.value)
        assert place < 12 or f"record {number}, byte {starts[number]}:" in str(caught.value)


def test_every_cut_but_between_records_is_found_after_the_records_before_it(path: Path) -> None:
    whole = framed(*PAYLOADS)
    boundaries = [len(framed(*PAYLOADS[:count])) for count in range(1, 4)]
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        records, found = read_records(path, CRC32C), []
        if length in boundaries:
            assert list(records) == PAYLOADS[: boundaries.index(length) + 1]
            continue
        with pytest.raises(StoreError, match=r"damaged|empty"):
            found.extend(records)
        assert found == PAYLOADS[: sum(boundary <= length for boundary in boundaries)]


def test_a_length_that_is_a_lie_with_a_right_checksum_allocates_nothing(path: Path) -> None:
    for length in (1 << 63, 1 << 30):
        head = length.to_bytes(8, "little")
        content = framed(b"good") + head + masked(CRC32C(head)).to_bytes(4, "little") + bytes(50)
        with pytest.raises(StoreError, match="record 1, byte 20"):
            read(path, content)


@pytest.mark.parametrize(
    ("content", "remedy"),
    [(gzip.compress(framed(b"x"), mtime=0), "gunzip"), (b"not a record file", "no TFRecord file")],
)
def test_a_foreign_file_is_refused_with_what_it_is(path: Path, content: bytes, remedy: str) -> None:
    with pytest.raises(StoreError, match=remedy):
        read(path, content)


def test_a_payload_that_no_reader_takes_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tfrecord_frames, "MAX_PAYLOAD", 3)
    with pytest.raises(EncodeError, match="4 bytes"):
        framed(b"four")

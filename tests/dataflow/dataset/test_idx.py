"""idx files as MNIST has them, whole, damaged and hostile."""

from __future__ import annotations

import gzip
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dfserve.dataflow.dataset.idx import read_idx
from dfserve.errors import StoreError

IMAGES = np.random.RandomState(3).randint(0, 256, (5, 4, 6), np.uint8)


def encode(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@given(
    array=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=9)), zipped=st.booleans()
)
def test_what_was_written_is_read(array: np.ndarray, zipped: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a")
        path.write_bytes(gzip.compress(encode(array)) if zipped else encode(array))
        read = read_idx(path, array.shape[1:])
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, array)
    assert not read.flags.writeable


@pytest.mark.parametrize("zipped", [False, True])
def test_a_file_that_is_cut_anywhere_is_refused_with_its_name(tmp_path: Path, zipped: bool) -> None:
    whole = gzip.compress(encode(IMAGES)) if zipped else encode(IMAGES)
    path = tmp_path / "train-images"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(StoreError, match="train-images"):
            read_idx(path, (4, 6))


def test_the_error_has_the_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(encode(IMAGES)[:-1])
    with pytest.raises(StoreError, match="says that 120 bytes follow, but there are 119; remove it"):
        read_idx(path, (4, 6))
    path.write_bytes(encode(IMAGES) + b"!")
    with pytest.raises(StoreError, match="says that 120 bytes follow, but there are more"):
        read_idx(path, (4, 6))
    path.write_bytes(encode(IMAGES))
    with pytest.raises(StoreError, match=r"5 items of shape \(4, 6\); here .* of shape \(28, 28\)"):
        read_idx(path, (28, 28))
    with pytest.raises(StoreError, match="begins with 00000803, not 00000801"):
        read_idx(path, ())


def test_a_bit_that_fell_over_in_a_zipped_file_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    whole = bytearray(gzip.compress(encode(IMAGES), 0))
    whole[60] ^= 1  # within the pixels, which level 0 stores as they are
    path.write_bytes(whole)
    with pytest.raises(StoreError, match="damaged"):
        read_idx(path, (4, 6))


def test_a_header_that_claims_billions_of_items_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(struct.pack(">BBBB3I", 0, 0, 8, 3, 2**32 - 1, 28, 28))
    with pytest.raises(StoreError, match="4,294,967,295 items"):
        read_idx(path, (28, 28))


def test_a_small_file_that_unzips_to_much_more_than_it_says_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(gzip.compress(encode(IMAGES) + bytes(50 << 20)))
    with pytest.raises(StoreError, match="more"):
        read_idx(path, (4, 6))


def test_other_files_are_refused(tmp_path: Path) -> None:
    for content in (b"", b"<html>", b"\x1f\x8b", b"\x1f\x8bnot gzip", encode(IMAGES).replace(b"\x08", b"\x0d", 1)):
        (tmp_path / "a").write_bytes(content)
        with pytest.raises(StoreError):
            read_idx(tmp_path / "a", (4, 6))

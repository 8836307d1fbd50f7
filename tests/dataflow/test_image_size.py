"""What the header of an image says, against what OpenCV makes of the image."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfserve.dataflow.image_size import claimed_size, is_cut_jpeg

cv2 = pytest.importorskip("cv2")


def encoded(suffix: str, height: int, width: int, *parameters: int) -> bytes:
    image = np.random.RandomState(height * width).randint(0, 255, (height, width, 3), "uint8")
    good, data = cv2.imencode(suffix, image, list(parameters))
    assert good
    return bytes(data)


KINDS: list[tuple[str, tuple[int, ...]]] = [
    (".jpg", ()),
    (".jpg", (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)),
    (".jpg", (cv2.IMWRITE_JPEG_RST_INTERVAL, 1)),
    (".png", ()),
    (".webp", (cv2.IMWRITE_WEBP_QUALITY, 50)),  # VP8
    (".webp", (cv2.IMWRITE_WEBP_QUALITY, 101)),  # VP8L: without loss
    (".bmp", ()),
]


@given(kind=st.sampled_from(KINDS), height=st.integers(1, 70), width=st.integers(1, 70))
def test_the_header_says_what_opencv_decodes(kind: tuple[str, tuple[int, ...]], height: int, width: int) -> None:
    data = encoded(kind[0], height, width, *kind[1])
    assert claimed_size(data) == (height, width) == cv2.imdecode(np.frombuffer(data, "uint8"), 1).shape[:2]
    assert not is_cut_jpeg(data)


def test_headers_that_opencv_does_not_write_are_read_too() -> None:
    assert claimed_size(b"GIF89a" + struct.pack("<HH", 640, 480) + bytes(30)) == (480, 640)
    extended = b"RIFF\0\0\0\0WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + b"\x7f\x02\x00\xdf\x01\x00"
    assert claimed_size(extended) == (480, 640)
    assert claimed_size(b"BM" + bytes(12) + struct.pack("<IHHHH", 12, 640, 480, 1, 24) + bytes(9)) == (480, 640)
    assert claimed_size(b"BM" + bytes(12) + struct.pack("<Iii", 40, 640, -480) + bytes(9)) == (480, 640)


def test_a_jpeg_may_have_other_segments_fill_bytes_and_rubbish_before_its_size() -> None:
    data = encoded(".jpg", 30, 40)
    thumbnail = encoded(".jpg", 5, 6)
    note = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    for between in (note, b"\xff\xff\xff", b"rubbish", b"\xff\x00", note * 30):
        assert claimed_size(data[:2] + between + data[2:]) == (30, 40)


def test_a_jpeg_is_whole_with_its_end_marker_and_what_follows_that_is_no_matter() -> None:
    data = encoded(".jpg", 30, 40)
    assert not is_cut_jpeg(data + b"appended by a telephone")
    for end in range(3, len(data)):
        assert is_cut_jpeg(data[:end])


def test_the_end_marker_of_a_thumbnail_is_not_that_of_the_image() -> None:
    data, thumbnail = encoded(".jpg", 30, 40), encoded(".jpg", 5, 6)
    note = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    assert not is_cut_jpeg(data[:2] + note + data[2:])
    assert is_cut_jpeg((data[:2] + note + data[2:])[:-5])


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"text" * 20])
def test_other_bytes_say_nothing(data: bytes) -> None:
    assert claimed_size(data) is None


@given(st.sampled_from(KINDS), st.binary(max_size=60), st.integers(0, 60))
def test_damaged_headers_raise_nothing(kind: tuple[str, tuple[int, ...]], noise: bytes, start: int) -> None:
    data = encoded(kind[0], 8, 9, *kind[1])
    for damaged in (data[:start] + noise + data[start + len(noise) :], data[:start] + noise):
        claimed: Any = claimed_size(damaged)
        assert claimed is None or all(number >= 0 for number in claimed)
        is_cut_jpeg(damaged)


def test_a_jpeg_with_segments_without_end_is_given_up() -> None:
    assert claimed_size(b"\xff\xd8" + b"\xff\xe0\x00\x02" * 1_000_000) is None
    assert claimed_size(b"\xff\xd8" + b"\xff\x00" * 1_000_000) is None

"""Decoding images in memory: what comes out, and what is refused and how."""

from __future__ import annotations

import os
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from dfserve.dataflow.decoding import MAX_PIXELS, decode_image, read_image
from dfserve.errors import DatapointError

cv2 = pytest.importorskip("cv2")


def png(height: int, width: int) -> bytes:
    """An image of nothing, so that it is small whatever its size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = zlib.compressobj(9)
    packed = b"".join(rows.compress(bytes(1 + width // 8)) for _ in range(height)) + rows.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)  # one bit for each pixel
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def test_a_photograph_is_what_opencv_reads_from_its_file(photographs: Path) -> None:
    for file in photographs.glob("train/*/*.JPEG"):
        image = decode_image(file.read_bytes(), str(file))
        assert image.dtype == np.uint8
        assert np.array_equal(image, cv2.imread(str(file)))


def test_bytes_come_in_any_kind_of_buffer(jpegs: list[bytes]) -> None:
    image = decode_image(jpegs[0])
    read_only = np.frombuffer(jpegs[0], "uint8")
    assert not read_only.flags.writeable
    for buffer in (
        read_only,
        read_only.copy(),
        bytearray(jpegs[0]),
        memoryview(jpegs[0]),
        np.repeat(read_only, 2)[::2],
    ):
        assert np.array_equal(decode_image(buffer), image)
    assert image.flags.writeable


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 4)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_grey_transparent_and_deep_images_become_three_channels_of_uint8(shape: tuple[int, ...], dtype: str) -> None:
    _, encoded = cv2.imencode(".png", np.zeros(shape, dtype))
    image = decode_image(encoded)
    assert (image.shape, image.dtype) == ((20, 30, 3), np.dtype("uint8"))


@pytest.mark.parametrize("data", [b"no image", b"<html>" * 100, b"\xff\xd8\xff\xd9", b"\x89PNG\r\n\x1a\n", b""])
def test_what_is_no_image_is_an_error_that_names_it(data: bytes) -> None:
    with pytest.raises(DatapointError, match=r"http://a/b\.jpg"):
        decode_image(data, "http://a/b.jpg")
    with pytest.raises(DatapointError, match="the image"):
        decode_image(data)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_an_image_that_is_cut_short_is_refused_not_filled_up_with_grey(
    suffix: str, share: float, jpegs: list[bytes]
) -> None:
    _, encoded = cv2.imencode(suffix, decode_image(jpegs[0]))
    with pytest.raises(DatapointError, match="x"):
        decode_image(encoded[: int(len(encoded) * share)], "x")


def test_a_small_file_that_claims_a_huge_image_is_refused_before_it_is_decoded() -> None:
    bomb = png(20_000, 30_000)
    assert len(bomb) < 200_000
    with pytest.raises(DatapointError, match=rf"20000 x 30000 pixels, more than max_pixels={MAX_PIXELS}"):
        decode_image(bomb, "bomb.png")


def test_the_limit_on_pixels_can_be_set() -> None:
    assert decode_image(png(100, 200), max_pixels=20_000).shape == (100, 200, 3)
    with pytest.raises(DatapointError, match="max_pixels=19999"):
        decode_image(png(100, 200), max_pixels=19_999)


def test_an_image_that_is_decoded_already_is_refused(jpegs: list[bytes]) -> None:
    with pytest.raises(DatapointError, match=r"uint8 and shape \(256, 256, 3\); is it decoded already"):
        decode_image(decode_image(jpegs[0]))
    with pytest.raises(DatapointError, match="float32"):
        decode_image(np.zeros(9, "float32"))  # type: ignore[arg-type]


def turned(jpeg: bytes, orientation: int) -> bytes:
    """Put an EXIF segment with an orientation into a JPEG."""
    tiff = b"MM\x00*\x00\x00\x00\x08" + struct.pack(">HHHIHHI", 1, 0x0112, 3, 1, orientation, 0, 0)
    exif = b"Exif\x00\x00" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_file_has_the_pixels_of_imread_turned_upright(
    tmp_path: Path, jpegs: list[bytes], orientation: int, grey: bool
) -> None:
    path = tmp_path / "turned.jpg"
    path.write_bytes(turned(jpegs[1], orientation))
    expected = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR)
    assert np.array_equal(read_image(path, grey=grey), expected)
    if orientation == 6:  # a quarter turn
        assert expected.shape[:2] == decode_image(jpegs[1]).shape[1::-1]


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3), (20, 30, 4)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("suffix", [".png", ".tiff", ".webp", ".bmp"])
def test_other_formats_have_the_pixels_of_imread_too(
    tmp_path: Path, suffix: str, dtype: str, shape: tuple[int, ...]
) -> None:
    if dtype == "uint16" and suffix in (".webp", ".bmp"):
        dtype = "uint8"  # all that these have
    path = tmp_path / f"image{suffix}"
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    assert cv2.imwrite(str(path), pixels)
    for grey, flag in ((False, cv2.IMREAD_COLOR), (True, cv2.IMREAD_GRAYSCALE)):
        assert np.array_equal(read_image(path, grey=grey), cv2.imread(str(path), flag))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere file names are text")
def test_a_file_name_that_is_not_utf8_is_read_and_can_be_printed(tmp_path: Path, jpegs: list[bytes]) -> None:
    path = os.path.join(str(tmp_path), os.fsdecode(b"bad\xff.jpg"))  # noqa: PTH118  # as a str
    Path(path).write_bytes(jpegs[0])
    assert np.array_equal(read_image(path), decode_image(jpegs[0]))
    Path(path).write_bytes(jpegs[0][:1000])
    with pytest.raises(DatapointError, match="cut short") as caught:
        read_image(path)
    assert rb"bad\udcff.jpg" in str(caught.value).encode()


@pytest.mark.parametrize("grey", [False, True])
def test_a_file_that_is_cut_short_is_refused_not_filled_up_with_grey(
    tmp_path: Path, jpegs: list[bytes], grey: bool
) -> None:
    path = tmp_path / "cut.jpg"
    path.write_bytes(jpegs[0][: len(jpegs[0]) // 2])
    with pytest.raises(DatapointError, match=r"cut\.jpg is a JPEG that is cut short"):
        read_image(path, grey=grey)


@pytest.mark.parametrize(
    ("path", "why"), [(b"a.jpg", "no path"), ("a\0.jpg", "no path"), ("/", "directory"), ("no.jpg", "No such file")]
)
def test_what_is_no_path_of_a_file_is_an_error_that_says_so(path: str, why: str) -> None:
    with pytest.raises(DatapointError, match=why):
        read_image(path)


def test_a_file_may_be_larger_than_what_came_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "map.png"
    path.write_bytes(png(100, 200))
    monkeypatch.setattr("dfserve.dataflow.decoding._MAX_PIXELS_OF_FILES", 20_000)
    assert read_image(path).shape == (100, 200, 3)
    monkeypatch.setattr("dfserve.dataflow.decoding._MAX_PIXELS_OF_FILES", 19_999)
    with pytest.raises(DatapointError, match="100 x 200 pixels"):
        read_image(path)

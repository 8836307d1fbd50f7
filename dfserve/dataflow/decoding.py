"""Owns the decoding of images, from bytes in memory and from files; nothing that is cut short passes as whole."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dfserve.dataflow.image_size import claimed_size, is_cut_jpeg
from dfserve.errors import DatapointError

if TYPE_CHECKING:
    import numpy.typing as npt

# Pixels: 384 MiB once decoded, and more than the largest cameras' (102 million). A file of some kilobytes can claim
# billions, and OpenCV's own limit (OPENCV_IO_MAX_IMAGE_PIXELS, 2**30) admits 3 GiB an image.
MAX_PIXELS = 1 << 27
# Pixels: OpenCV's own limit as it is delivered. A file on one's own disk may be a map or a scan of that size.
_MAX_PIXELS_OF_FILES = 1 << 30


def decode_image(
    encoded: bytes | bytearray | memoryview | npt.NDArray[np.uint8], name: str = "", *, max_pixels: int = MAX_PIXELS
) -> npt.NDArray[np.uint8]:
    """Decode an image to an array of uint8 and shape (height, width, 3), BGR, turned upright as its EXIF tag says.

    Grey, CMYK, transparent and 16-bit images are converted to that; of an animation it is the first picture. Needs
    OpenCV, and reads the formats that it does.

    Args:
        encoded: the bytes of the file; an array of them is uint8 of one dimension, and may be read-only.
        name: what messages call it: its URL or file.
        max_pixels: height times width of the largest image to decode. It is checked before decoding for JPEG, PNG,
            GIF, WebP and BMP; other formats are held to OpenCV's own limit of 2**30.

    Raises:
        DatapointError: this is no image, one that is cut short or damaged, or one that is too large.
    """
    name = name or "the image"
    return _decoded(_as_bytes(encoded, name), name, max_pixels)


def read_image(path: str | os.PathLike[str], *, grey: bool = False) -> npt.NDArray[np.uint8]:
    """Return the image of a file: as ``decode_image`` has it, or uint8 of shape (height, width) if ``grey``.

    The pixels are those of ``cv2.imread``. It is not called: some releases crash on a file name that is not UTF-8, and
    all fill up what is missing of a JPEG with grey. An image may have 2**30 pixels, OpenCV's own limit.

    Raises:
        DatapointError: the file is missing, no image, cut short or damaged; it names the file and says why.
        ImportError: OpenCV is not installed.
    """
    import_cv2()  # first: without it no file is at fault
    name = str(path).encode("utf-8", "backslashreplace").decode()
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DatapointError(f"the image {name} cannot be read: {error.strerror or error}") from error
    except (TypeError, ValueError) as error:  # bytes; a NUL in the name
        raise DatapointError(f"{path!r} is no path of an image: {error}") from error
    return _decoded(data, name, _MAX_PIXELS_OF_FILES, grey)


def import_cv2() -> Any:
    """Return the module.

    Raises:
        ImportError: it is not installed; the message has the command.
    """
    try:
        import cv2
    except ImportError as error:
        raise ImportError("decoding images needs OpenCV: pip install 'dfserve[producer]'") from error
    return cv2


def _decoded(data: bytes, name: str, max_pixels: int, grey: bool = False) -> npt.NDArray[np.uint8]:
    cv2 = import_cv2()
    _check(data, name, max_pixels)
    try:
        image: npt.NDArray[np.uint8] | None = cv2.imdecode(
            np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR
        )
    except cv2.error as error:
        raise DatapointError(f"cv2 cannot decode {name} ({_described(data)}): {error}") from error
    if image is None:
        raise DatapointError(f"cv2 cannot decode {name} ({_described(data)}): no image, or a damaged one")
    return image


def _as_bytes(encoded: Any, name: str) -> bytes:
    if isinstance(encoded, np.ndarray):
        if encoded.dtype != np.uint8 or encoded.ndim != 1:
            raise DatapointError(
                f"{name}: an encoded image is a one-dimensional array of uint8, not one of {encoded.dtype} and shape"
                f" {encoded.shape}; is it decoded already?"
            )
        return encoded.tobytes()
    return bytes(encoded)


def _check(data: bytes, name: str, max_pixels: int) -> None:
    if not data:
        raise DatapointError(f"{name} is no image: it is empty")
    if is_cut_jpeg(data):
        raise DatapointError(f"{name} is a JPEG that is cut short: its {len(data)} bytes have no end marker")
    size = claimed_size(data)
    if size is None and data.startswith(b"\xff\xd8"):
        raise DatapointError(f"{name} is a damaged JPEG: its {len(data)} bytes have no header with a size")
    height, width = size or (0, 0)  # of a format that this does not read, or no image
    if height * width > max_pixels:
        raise DatapointError(
            f"{name} claims {height} x {width} pixels, more than max_pixels={max_pixels}: {len(data)} bytes would"
            f" become {3 * height * width}"
        )


def _described(data: bytes) -> str:
    return f"{len(data)} bytes that begin with {data[:16]!r}"

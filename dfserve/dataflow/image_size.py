"""Owns how large an encoded image says it is, and whether it is all there, from its bytes alone."""

from __future__ import annotations

# A photograph has some tens of segments before its pixels; a colour profile is cut into 255 at most.
_MOST_SEGMENTS = 1000
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, b"\xff\xd9"
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0 .. SOF15, without the tables and the reserved one
_BARE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a segment


def claimed_size(encoded: bytes) -> tuple[int, int] | None:
    """Return (height, width) as the header of a JPEG, PNG, GIF, WebP or BMP has it, before any rotation.

    Returns:
        None for another format, and for a header that is damaged: no decoder will make much of it.

    Sources: ITU-T T.81, the PNG specification, GIF89a, RFC 9649 (WebP), and Microsoft's BITMAPINFOHEADER.
    """
    if encoded.startswith(b"\xff\xd8"):
        return _jpeg(encoded)[0]
    if len(encoded) < 30:  # the longest of the headers below
        return None
    if encoded.startswith(b"\x89PNG\r\n\x1a\n"):
        return _big(encoded, 20, 4), _big(encoded, 16, 4)
    if encoded.startswith((b"GIF87a", b"GIF89a")):
        return _little(encoded, 8, 2), _little(encoded, 6, 2)
    if encoded.startswith(b"RIFF") and encoded[8:12] == b"WEBP":
        return _webp(encoded)
    if encoded.startswith(b"BM"):
        return _bmp(encoded)
    return None


def is_cut_jpeg(encoded: bytes) -> bool:
    """Tell whether this is a JPEG that ends before its end marker. Older OpenCVs fill up the rest with grey.

    Bytes after the marker, as some telephones append, are no damage. Within the pixels the marker cannot occur.
    """
    if not encoded.startswith(b"\xff\xd8") or encoded.endswith(_END_OF_IMAGE):
        return False
    return encoded.find(_END_OF_IMAGE, _jpeg(encoded)[1]) < 0


def _jpeg(encoded: bytes) -> tuple[tuple[int, int] | None, int]:
    """Return the size in the first frame header, and where the pixels start (or the search for them ended)."""
    size = None
    place = 2
    for _ in range(_MOST_SEGMENTS):
        # As libjpeg does: whatever lies between two segments is passed over.
        place = encoded.find(b"\xff", place)
        if place < 0 or place + 9 > len(encoded):
            return size, len(encoded)
        marker = encoded[place + 1]
        if marker in (0x00, 0xFF) or marker in _BARE:
            place += 1 if marker == 0xFF else 2
            continue
        if marker in _FRAMES and size is None:
            size = _big(encoded, place + 5, 2), _big(encoded, place + 7, 2)
        place += 2 + _big(encoded, place + 2, 2)
        if marker == _START_OF_SCAN:
            break
    return size, place


def _webp(encoded: bytes) -> tuple[int, int] | None:
    kind = encoded[12:16]
    if kind == b"VP8 ":
        return _little(encoded, 28, 2) & 0x3FFF, _little(encoded, 26, 2) & 0x3FFF
    if kind == b"VP8L":
        bits = _little(encoded, 21, 4)
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if kind == b"VP8X":
        return _little(encoded, 27, 3) + 1, _little(encoded, 24, 3) + 1
    return None


def _bmp(encoded: bytes) -> tuple[int, int]:
    if _little(encoded, 14, 4) == 12:  # the header of OS/2
        return _little(encoded, 20, 2), _little(encoded, 18, 2)
    height = int.from_bytes(encoded[22:26], "little", signed=True)  # negative: the first row is the top one
    return abs(height), _little(encoded, 18, 4)


def _big(encoded: bytes, start: int, count: int) -> int:
    return int.from_bytes(encoded[start : start + count], "big")


def _little(encoded: bytes, start: int, count: int) -> int:
    return int.from_bytes(encoded[start : start + count], "little")

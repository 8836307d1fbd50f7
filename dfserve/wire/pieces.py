"""Owns cutting large frames into pieces for the wire and joining them again: none on the wire is larger.

So no peer need be allowed to announce a frame of a whole array (the broker's limit is that of a body, 16 MiB), and the
C library reuses the memory of pieces, where it would return that of a whole array to the system.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from dfserve.errors import WireError
from dfserve.wire.limits import Limits

if TYPE_CHECKING:
    from dfserve.wire.recycler import Recycler  # which needs numpy; a broker listens before it has loaded that

PIECE = 4 << 20  # bytes; large enough that a message of a whole batch has few frames


class Extent:
    """Stands for a frame of which only the length matters."""

    def __init__(self, nbytes: int) -> None:
        self._nbytes = nbytes

    def __len__(self) -> int:
        return self._nbytes


def cut(frames: Sequence[Any]) -> tuple[list[Any], list[int]]:
    """Cut a block's frames. Returns the pieces, and how many each frame became: an empty list if none was cut."""
    if all(len(frame) <= PIECE for frame in frames):
        return list(frames), []
    pieces: list[Any] = []
    counts: list[int] = []
    for frame in frames:
        view = memoryview(frame)
        some = [view[start : start + PIECE] for start in range(0, len(view), PIECE)] or [view]
        pieces += some
        counts.append(len(some))
    return pieces, counts


def measure(pieces: Sequence[Any], counts: Sequence[int], limits: Limits) -> list[Any]:
    """Return the frames for inspection: the body whole, the others, where they are of several pieces, as extents.

    Raises:
        WireError: the counts do not describe the pieces, or a frame passes its limit.
    """
    if not counts:
        return list(pieces)
    body, *rest = _grouped(pieces, counts, limits)
    whole = body[0] if len(body) == 1 else b"".join(bytes(piece) for piece in body)
    return [whole, *(found[0] if len(found) == 1 else Extent(_total(found)) for found in rest)]


def join(pieces: Sequence[Any], counts: Sequence[int], limits: Limits, recycler: Recycler) -> list[Any]:
    """Return the frames, those of several pieces joined in memory that lives as long as anything refers to it.

    Raises:
        WireError: as `measure`.
    """
    if not counts:
        return list(pieces)
    return [found[0] if len(found) == 1 else _joined(found, recycler) for found in _grouped(pieces, counts, limits)]


def grouped(pieces: Sequence[Any], counts: Sequence[int]) -> list[list[Any]]:
    """Return each frame's pieces; the counts were checked."""
    if not counts:
        return [[piece] for piece in pieces]
    rest = iter(pieces)
    return [list(islice(rest, count)) for count in counts]


def _grouped(pieces: Sequence[Any], counts: Sequence[int], limits: Limits) -> list[list[Any]]:
    if not all(counts) or sum(counts) != len(pieces):
        raise WireError("frames", f"{len(pieces)} pieces cannot make {len(counts)} frames as the message says")
    frames = grouped(pieces, counts)
    if _total(frames[0]) > limits.max_body:
        raise WireError("limits", f"a body of {_total(frames[0])} bytes exceeds {limits.max_body}")
    largest = max(map(_total, frames))
    if largest > limits.max_frame:
        raise WireError("limits", f"a frame of {largest} bytes exceeds {limits.max_frame}")
    return frames


def _total(pieces: list[Any]) -> int:
    return sum(len(piece) for piece in pieces)


def fill(memory: memoryview, pieces: Sequence[Any]) -> None:
    """Write a frame's pieces, end to end, to memory of so many bytes."""
    start = 0
    for piece in pieces:
        end = start + len(piece)
        memory[start:end] = memoryview(piece).cast("B")
        start = end


def _joined(pieces: list[Any], recycler: Recycler) -> memoryview:
    memory = recycler.take(_total(pieces)).data
    fill(memory, pieces)
    return memory.toreadonly()

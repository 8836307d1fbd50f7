"""Owns the receiver's side of a block: every check that its frames must pass, and the columns that they hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dfserve.errors import WireError
from dfserve.wire.columns import RAGGED, STACK, VALUES, aligned
from dfserve.wire.components import Components, Ragged, Stack, Values
from dfserve.wire.dtypes import read_dtype, read_shape, scalar_stackable
from dfserve.wire.limits import Limits
from dfserve.wire.pieces import Extent
from dfserve.wire.reader import Reader, hashables
from dfserve.wire.rows import Received


def received(frames: Sequence[Any], limits: Limits, build: bool, writable: bool = False) -> Received:
    """Check the frames of a block.

    Args:
        frames: objects with the buffer protocol, which stay alive as long as the arrays over them.
        limits: checked before anything is allocated.
        build: make nested arrays too; without it ``columns`` must not be looked at, and frames may be extents.
        writable: let arrays over frames that may be written to be written to: nobody else refers to their memory.

    Raises:
        WireError: with reason ``frames``, ``limits``, ``body``, ``dtype`` or ``shape``, and nothing else.
    """
    reader: Reader | None = None
    try:
        reader = Reader(_views(frames, limits, writable), limits, build, writable)
        return _received(reader)
    except WireError:
        raise
    except (MemoryError, RecursionError) as error:
        raise WireError("limits", f"a block takes more than this machine has: {type(error).__name__}") from None
    except Exception as error:  # noqa: BLE001  # msgpack and hash() raise a dozen kinds on bad bytes
        raise WireError("body", f"a block's body is malformed: {type(error).__name__}: {error}"[:200]) from None
    finally:
        if reader is not None:
            reader.release()


def _views(frames: Sequence[Any], limits: Limits, writable: bool) -> list[memoryview | Extent]:
    if not 1 <= len(frames) <= limits.max_frames:
        raise WireError("limits", f"a block has {len(frames)} frames; it may have 1 to {limits.max_frames}")
    views = [_bytes_view(frame, writable) for frame in frames]
    longest = max(map(len, views))
    if longest > limits.max_frame:
        raise WireError("limits", f"a frame has {longest} bytes; it may have {limits.max_frame}")
    if len(views[0]) > limits.max_body:
        raise WireError("limits", f"a body has {len(views[0])} bytes; it may have {limits.max_body}")
    return views


def _bytes_view(frame: Any, writable: bool) -> memoryview | Extent:
    if isinstance(frame, Extent):
        return frame
    view = memoryview(frame)
    if not writable:
        view = view.toreadonly()
    return view if view.format == "B" and view.ndim == 1 and view.contiguous else view.cast("B")


def _received(reader: Reader) -> Received:
    count, kind, keys, columns = _list(reader.body())
    if type(count) is not int or type(kind) is not int or kind not in (0, 1, 2):
        raise WireError("body", "the head of a block is not [count, kind, keys, columns]")
    if not 1 <= count <= reader.limits.max_count:
        raise WireError("limits", f"a block has {count} datapoints; it may have 1 to {reader.limits.max_count}")
    names = _keys(reader, kind, keys, len(_list(columns)))
    found = [_column(reader, count, column) for column in columns]
    reader.finish()
    return Received(count, kind, names, found)


def _keys(reader: Reader, kind: int, keys: object, width: int) -> list[Any]:
    if kind != 2:
        if keys is not None:
            raise WireError("body", "datapoints that are no dicts have keys")
        return []
    names = _list(keys)
    reader.check_values(names)
    if len(names) != width or len(set(hashables(names))) != width:
        raise WireError("body", f"dict datapoints of {width} components have {len(names)} keys, or two equal ones")
    return names


def _column(reader: Reader, count: int, column: Any) -> Components:
    code, *rest = _list(column)
    if type(code) is int and code == VALUES:
        return _values(reader, count, *rest)
    if type(code) is int and code == STACK:
        return _stack(reader, count, *rest)
    if type(code) is int and code == RAGGED:
        return _ragged(reader, count, *rest)
    raise WireError("body", "a column is of an unknown kind")


def _values(reader: Reader, count: int, values: Any) -> Components:
    _require_rows(_list(values), count)
    reader.check_values(values)
    return Values(values)


def _stack(reader: Reader, count: int, spec: Any, dims: Any, number: Any, scalars: Any) -> Components:
    dtype = read_dtype(spec)
    shape, elements = read_shape(dims, dtype.itemsize, reader.limits.max_frame)
    if type(scalars) is not bool or (scalars and (shape or not scalar_stackable(dtype))):
        raise WireError("dtype", f"a stack of shape {shape} and dtype {dtype} cannot hold numpy scalars")
    frame = reader.claim(number)
    _require_bytes(frame, count * elements * dtype.itemsize)
    return Stack(frame, dtype, (count, *shape), scalars)


def _ragged(reader: Reader, count: int, spec: Any, shapes: Any, number: Any) -> Components:
    dtype = read_dtype(spec)
    _require_rows(_list(shapes), count)
    places = []
    end = 0
    for dims in shapes:
        shape, elements = read_shape(dims, dtype.itemsize, reader.limits.max_frame)
        start = aligned(end)
        end = start + elements * dtype.itemsize
        places.append((shape, start))
    frame = reader.claim(number)
    _require_bytes(frame, end)
    return Ragged(frame, dtype, places)


def _list(found: Any) -> list[Any]:
    if type(found) is not list:
        raise WireError("body", "a list is missing in a block's body")
    return found


def _require_rows(rows: list[Any], count: int) -> None:
    if len(rows) != count:
        raise WireError("body", f"a column has {len(rows)} rows in a block of {count} datapoints")


def _require_bytes(frame: memoryview | Extent, expected: int) -> None:
    if len(frame) != expected:
        raise WireError("frames", f"a frame has {len(frame)} bytes where dtype and shape say {expected}")

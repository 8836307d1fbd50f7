"""Owns saving a DataFlow as an ``.npz`` file, and the datapoints of such a file.

The file is a zip of arrays that ``numpy.load`` reads: ``format`` (a text), ``block_000000``, ``block_000001``, ...
(uint8: records end to end, see ``dfserve.dataflow.serialize.records``) and ``offsets`` (int64: where each record
begins, as though the blocks were joined, and the end). Records rather than stacked columns, because ragged images,
texts and Python values come back as they were, without pickles. Blocks, because then saving takes the memory of one.
Nothing is compressed, so that a record can be read by its place.
"""

from __future__ import annotations

import os
import zipfile
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np

from dfserve.dataflow.base import Datapoint, RNGDataFlow
from dfserve.dataflow.indexing import place_of
from dfserve.dataflow.items import method_of
from dfserve.dataflow.serialize.npz_file import NpzFile
from dfserve.dataflow.serialize.records import decode_record, encode_record, encoded
from dfserve.dataflow.serialize.saving import one_pass, unfinished
from dfserve.errors import StoreError, WireError

_Array = np.ndarray[Any, np.dtype[Any]]
FORMAT = "dfserve datapoints 1"  # the number changes when an older reader could misread the file
_BLOCK = 8 << 20  # bytes of a block, and what saving holds in memory; a datapoint that has more is one of its own


class NumpySerializer:
    """DataFlows in ``.npz`` files, whose records are read when they are asked for."""

    @staticmethod
    def save(df: Any, path: str | os.PathLike[str]) -> None:
        """Write one pass of ``df`` to ``path``, which appears, or is replaced, when all is written.

        Args:
            df: a DataFlow, or another source of datapoints.
            path: the file to write; ``.npz`` is added if it does not end so, as ``numpy.savez`` does.

        Raises:
            EncodeError: a component could only be pickled, an array of objects say; it names datapoint and component.
            ConfigError: ``path`` cannot be written.
        """
        target = _npz(path)
        with unfinished(target, replace=True) as partial, zipfile.ZipFile(partial, "w") as archive:
            with one_pass(df, target) as datapoints:
                offsets = _write_blocks(archive, encoded(datapoints, encode_record))
            _write(archive, "offsets", np.array(offsets, np.int64))
            _write(archive, "format", np.array(FORMAT))

    @staticmethod
    def load(path: str | os.PathLike[str], shuffle: bool = True) -> NumpyData:
        """Return the datapoints of a file; all of it is read once now, to compare its checksums.

        Args:
            path: the file; ``.npz`` is added if it does not end so.
            shuffle: a new order for every pass.

        Raises:
            StoreError: the file is damaged, cut short, or was not saved by this class (tensorpack's are pickles).
            OSError: it cannot be opened.
        """
        return NumpyData(_npz(path), shuffle)


def _npz(path: str | os.PathLike[str]) -> str:
    name = os.fspath(path)
    return name if name.endswith(".npz") else name + ".npz"


def _write_blocks(archive: zipfile.ZipFile, records: Iterable[bytes]) -> list[int]:
    """Write records as blocks. Returns the offsets."""
    offsets, block, filled, blocks = [0], [], 0, 0
    for record in records:
        block.append(record)
        filled += len(record)
        offsets.append(offsets[-1] + len(record))
        if filled >= _BLOCK:
            _write_block(archive, blocks, block)
            block, filled, blocks = [], 0, blocks + 1
    if block:
        _write_block(archive, blocks, block)
    return offsets


def _write_block(archive: zipfile.ZipFile, number: int, records: list[bytes]) -> None:
    # As write_array does with the records joined, without joining them.
    head = {"descr": "|u1", "fortran_order": False, "shape": (sum(map(len, records)),)}
    with archive.open(f"block_{number:06d}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array_header_1_0(file, head)
        file.writelines(records)


def _write(archive: zipfile.ZipFile, name: str, array: _Array) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array(file, array, allow_pickle=False)


class NumpyData(RNGDataFlow):
    """The datapoints of a file of ``NumpySerializer``. Item *i* is the *i*-th that was saved."""

    def __init__(self, path: str | os.PathLike[str], shuffle: bool = True) -> None:
        """Check and open ``path``; arguments and errors are those of ``NumpySerializer.load``."""
        self.shuffle = shuffle
        self._path = Path(os.path.abspath(path))  # noqa: PTH100 (resolve() would follow links)
        self._open(check=True)

    def _open(self, *, check: bool) -> None:
        file = NpzFile(self._path, check=check)
        found = file.array("format") if "format" in file.names else None
        if found is None or found.shape or str(found) != FORMAT:
            raise StoreError(f"{self._path} {_strange(found)}")
        self._file = file
        self._offsets = file.array("offsets") if "offsets" in file.names else np.zeros(0)
        blocks = [file.bytes_of(name) for name in sorted(file.names) if name not in ("format", "offsets")]
        self._blocks = [block for block in blocks if block is not None]  # (where in the file it begins, bytes)
        self._begins = list(accumulate((size for _, size in self._blocks), initial=0))
        if len(self._blocks) < len(blocks) or not _are_offsets(self._offsets, self._begins[-1]):
            raise StoreError(f"{self._path} says in offsets where its records lie, and that is not within its blocks")

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self._path, "shuffle": self.shuffle, "count": len(self), "rng": self._rng}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._path, self.shuffle, self._rng = state["path"], state["shuffle"], state["rng"]
        self._open(check=False)
        if len(self) != state["count"]:
            raise StoreError(f"{self._path} had {state['count']} datapoints and has {len(self)}: it was replaced")

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, index: SupportsIndex) -> Datapoint:
        """Return datapoint ``index`` of those saved, whatever the order of the passes; its arrays are writable."""
        place = place_of(index, len(self))
        begin, end = self._offsets[place : place + 2].tolist()
        number = bisect_right(self._begins, begin) - 1
        try:
            start, size = self._blocks[number]
            start += begin - self._begins[number]
            if end > self._begins[number] + size:
                raise StoreError(f"datapoint {place} of {self._path} is malformed: it does not end in its block")
            return decode_record(self._file.read(start, end - begin))
        except (WireError, IndexError) as error:
            raise StoreError(f"datapoint {place} of {self._path} is malformed: {error}") from error

    def __iter__(self) -> Iterator[Datapoint]:
        order = np.arange(len(self))
        if self.shuffle:
            self.rng.shuffle(order)
        item = method_of(self, "__getitem__")
        for place in order.tolist():
            yield item(place)


def _are_offsets(offsets: _Array, end: int) -> bool:
    fitting = offsets.dtype == np.int64 and offsets.ndim == 1 and len(offsets) > 0
    return bool(fitting and offsets[0] == 0 and offsets[-1] == end and (np.diff(offsets) >= 0).all())


def _strange(found: _Array | None) -> str:
    if found is not None:
        return f"has the format {str(found)[:60]!r}; this version of dfserve reads {FORMAT!r}"
    return "is an .npz, but not of dfserve's NumpySerializer: load it with numpy.load and use DataFromList"

"""Owns the datapoints of HDF5 files: data sets of one length, whoever wrote them, zipped."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np

from dfserve.dataflow.base import RNGDataFlow
from dfserve.dataflow.indexing import place_of
from dfserve.dataflow.items import method_of
from dfserve.errors import ConfigError, StoreError

# Bytes: a data set up to this size is read whole when it is first used. Labels and small images are then a hundred
# times faster than by one call of HDF5 (some 60 us) for each row.
_SMALL = 64 << 20
_BLOCK = 4 << 20  # bytes of all components that a pass in order reads ahead
_BLOCK_ROWS = 1024
# Bytes of a row, or of a chunk that is read for one: a file claims any size in 100 bytes, and memory is taken for it.
_MOST_BYTES = 1 << 30
_MOST_LINKS = 16  # that one path leads through; HDF5's own limit

_lock = threading.RLock()  # held while a file is opened or closed, so that threads do it once; re-entrant: errors close


def _renew_lock() -> None:
    global _lock
    _lock = threading.RLock()  # another thread of the parent may hold the old one for ever


os.register_at_fork(after_in_child=_renew_lock)


def import_h5py() -> Any:
    """Return h5py; raises ImportError with the command that installs it."""
    try:
        import h5py
    except ImportError as error:
        raise ImportError("HDF5 files need h5py: pip install 'dfserve[formats]'") from error
    return h5py


def checked_paths(data_paths: Sequence[str] | Mapping[Any, str]) -> list[tuple[Any, str]]:
    """Return (position or key of the component, path of its data set) pairs.

    Raises:
        ConfigError: there are none, one twice, or one that is no text.
    """
    if isinstance(data_paths, str):
        raise ConfigError(f"data_paths is {data_paths!r}; it is a list of paths, one for each component")
    pairs = list(data_paths.items() if isinstance(data_paths, Mapping) else enumerate(data_paths))
    names = [name for _, name in pairs]
    if not names or not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
        raise ConfigError(f"data_paths is {names}; it has a path for each component, and none twice")
    return pairs


class HDF5Data(RNGDataFlow):
    """The rows of data sets of an HDF5 file, zipped: datapoints are lists, or dicts if the data sets come as a mapping.

    Rows are read when they are asked for, but data sets of up to 64 MiB, labels say, once and whole. Arrays are
    writable, rows without dimensions are numpy scalars, and variable-length texts are str. The file is opened in each
    process that reads.
    """

    def __init__(
        self,
        filename: str | os.PathLike[str],
        data_paths: Sequence[str] | Mapping[Any, str],
        shuffle: bool = True,
    ) -> None:
        """Look into ``filename``.

        Args:
            filename: an HDF5 file, from any program.
            data_paths: the paths of the data sets in it, e.g. ``["images", "labels"]``, or a mapping from the keys of
                dict datapoints to them.
            shuffle: a new order for every pass. Shuffled passes read row by row: slower than in order, for large data.

        Raises:
            ImportError: h5py is not installed.
            ConfigError: there is no such data set, or they have different lengths.
            StoreError: the file is damaged, cut short, or not HDF5.
            OSError: it cannot be opened.
        """
        self.shuffle = shuffle
        self._path = Path(os.path.abspath(filename))  # noqa: PTH100 (resolve() would follow links)
        self._pairs = checked_paths(data_paths)
        self._as_dicts = isinstance(data_paths, Mapping)
        self._forget()
        self._size = -1  # not known yet
        lengths = {name: len(data) for name, data in self._sets().items()}
        self._close()  # until it is needed: what a process opened, those that it forks should not share
        if len(set(lengths.values())) > 1:
            raise ConfigError(f"the data sets in {self._path} have different lengths: {lengths}")
        self._size = next(iter(lengths.values()))

    def _forget(self) -> None:
        self._pid = 0
        self._file: Any = None
        self._opened: dict[str, _Rows] = {}

    def _close(self) -> None:
        # While a file is open, HDF5 takes what is at the same place on the disk for the same file.
        with _lock:
            if self._file is not None:
                self._file.close()
            self._forget()

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_pid": 0, "_file": None, "_opened": {}}

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: SupportsIndex) -> Any:
        """Return row ``index`` of every data set, whatever the order of the passes.

        Raises:
            StoreError: it cannot be read; it names the file, the data set and the row.
        """
        place = place_of(index, self._size)
        return self._datapoint(_owned(self._rows(name, place)) for _, name in self._pairs)

    def __iter__(self) -> Iterator[Any]:
        """Start a pass; raises StoreError as ``ds[i]`` does."""
        if self.shuffle:
            order = np.arange(self._size)
            self.rng.shuffle(order)
            item = method_of(self, "__getitem__")
            for place in order.tolist():
                yield item(place)
            return
        step = self._rows_at_once()
        for start in range(0, self._size, step):
            block = [self._rows(name, slice(start, start + step)) for _, name in self._pairs]
            for row in zip(*block, strict=True):
                yield self._datapoint(map(_owned, row))

    def _datapoint(self, components: Any) -> Any:
        if self._as_dicts:
            return dict(zip((key for key, _ in self._pairs), components, strict=True))
        return list(components)

    def _rows_at_once(self) -> int:
        row = sum(data.row_bytes for data in self._sets().values())
        return max(1, min(_BLOCK_ROWS, _BLOCK // max(1, row)))

    def _rows(self, name: str, places: int | slice) -> Any:
        data = self._sets()[name]
        with self._blamed(f"row {places} of {name}" if isinstance(places, int) else f"{name} from {places.start} on"):
            return data.rows(places)

    def _sets(self) -> dict[str, _Rows]:
        """Return the data sets by their paths, opened by this process."""
        with _lock:
            if self._pid != os.getpid():
                self._open()
            return self._opened

    def _open(self) -> None:
        self._close()  # what was opened by the process that forked this one
        h5py = import_h5py()
        with self._blamed("opening it"):
            self._file = h5py.File(self._path, "r", locking="best-effort")
            self._opened = {name: self._set(h5py, name) for _, name in self._pairs}
        self._pid = os.getpid()
        if self._size >= 0 and any(len(data) != self._size for data in self._opened.values()):
            self._close()
            raise StoreError(f"{self._path} had {self._size} rows and has others now: it was replaced")

    def _set(self, h5py: Any, name: str) -> _Rows:
        if _leaves(h5py, self._file, name):
            raise self._refused(name, "lies in another file, behind an external link")
        found = self._file.get(name)
        if not isinstance(found, h5py.Dataset) or not found.ndim:
            names: list[str] = []
            self._file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
            what = "nothing" if found is None else "a group or a single value"
            known = ", ".join(names[:20]) or "none"
            raise ConfigError(f"at {name!r} in {self._path} is {what}; its data sets: {known}")
        if found.external or found.is_virtual:
            raise self._refused(name, "has its data in other files, and any file could be named there")
        rows = _Rows(found, h5py.check_string_dtype(found.dtype))
        most = max(rows.row_bytes, rows.chunk_bytes)
        if most > _MOST_BYTES:
            raise self._refused(name, f"has rows or chunks of {most} bytes, and {_MOST_BYTES} is the limit")
        return rows

    def _refused(self, name: str, why: str) -> StoreError:
        return StoreError(f"{name!r} in {self._path} {why}: copy it into a data set of plain rows with h5py")

    @contextmanager
    def _blamed(self, what: str) -> Iterator[None]:
        try:
            yield
        except (ConfigError, StoreError):
            self._close()
            raise
        except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError) as error:
            self._close()
            # What the system says has a number; what HDF5 says of bad bytes is one of these without.
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise StoreError(f"{self._path} is damaged, cut short or no HDF5 file: {what}: {error}") from error


class _Rows:
    """The rows of one data set, in memory if they are few bytes."""

    def __init__(self, data: Any, text: Any) -> None:
        self._length = len(data)
        itemsize = data.dtype.itemsize
        self.row_bytes: int = math.prod(data.shape[1:]) * itemsize  # Python's integers: numpy's may overflow
        self.chunk_bytes: int = math.prod(data.chunks or (0,)) * itemsize
        # Of variable-length values nobody knows the size before they are read.
        self._small = self._length * self.row_bytes <= _SMALL and not data.dtype.hasobject
        self._data = data if text is None or text.length is not None else data.asstr()
        self._whole: Any = None

    def __len__(self) -> int:
        return self._length

    def rows(self, places: int | slice) -> Any:
        if not self._small:
            return self._data[places]
        if self._whole is None:
            self._whole = self._data[...]
        return self._whole[places]


def _leaves(h5py: Any, file: Any, name: str) -> bool:
    """Tell whether a path leads through an external link; HDF5 would open any file that one names."""
    parts, place, links = name.split("/"), "", 0
    while parts and links <= _MOST_LINKS:
        part = parts.pop(0)
        if part in ("", "."):
            continue
        link = file.get(f"{place}/{part}", getlink=True)
        if isinstance(link, h5py.ExternalLink):
            return True
        if isinstance(link, h5py.SoftLink):
            links += 1
            parts = link.path.split("/") + parts
            place = "" if link.path.startswith("/") else place
        else:
            place += f"/{part}"
    return False


def _owned(row: Any) -> Any:
    """Return a row that shares no memory with others, so that whoever gets it may change it."""
    return row.copy() if isinstance(row, (np.ndarray, np.void)) else row

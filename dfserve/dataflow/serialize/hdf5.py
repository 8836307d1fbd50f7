"""Owns saving a DataFlow as an HDF5 file: one data set for each component, grown while datapoints come."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from dfserve.dataflow.base import Datapoint
from dfserve.dataflow.failures import attach_key
from dfserve.dataflow.serialize.hdf5_data import HDF5Data, checked_paths, import_h5py
from dfserve.dataflow.serialize.hdf5_sink import Sink
from dfserve.dataflow.serialize.saving import one_pass, unfinished
from dfserve.errors import ConfigError, DatapointError, EncodeError

_Array = np.ndarray[Any, np.dtype[Any]]
# Bytes of a chunk, the unit that HDF5 stores and checks: small, because a random read of one row reads one whole.
_CHUNK = 64 << 10
_CHUNK_ROWS = 1024  # so that a data set of a few labels takes no 64 KiB
_BLOCK = 4 << 20  # bytes of a component that are gathered before they are written
_FORMAT = ("v110", "v110")  # of HDF5 1.10 (2016), the first that has checksums on everything but the data


class HDF5Serializer:
    """DataFlows in HDF5 files, for data whose components have one shape and dtype each.

    Needs ``pip install 'dfserve[formats]'``.
    """

    @staticmethod
    def save(df: Any, path: str | os.PathLike[str], data_paths: Sequence[str] | Mapping[Any, str]) -> None:
        """Write one pass of ``df`` to ``path``, which appears, or is replaced, when all is written.

        Each component becomes one data set of shape (datapoints, \\*shape of one), with a checksum for every chunk. A
        Python int becomes int64, a float float64, a bool bool; nested lists what ``numpy.asarray`` makes of them.

        Args:
            df: a DataFlow, or another source of datapoints.
            path: the file to write.
            data_paths: where in the file each component goes, e.g. ``["images", "labels"]``; for dicts a mapping from
                each key to its place.

        Raises:
            ImportError: h5py is not installed.
            ConfigError: ``path`` cannot be written, or ``data_paths`` is empty, doubled, or makes no HDF5 names.
            DatapointError: a datapoint has other components, or one of another shape or dtype, than the first: HDF5
                data sets are not ragged; or there are no datapoints.
            EncodeError: a component is text, bytes, an object, or of a dtype that HDF5 does not have.
            OSError: the disk is full, say. The pass ends there, and a file that was there before stays.
        """
        names = checked_paths(data_paths)
        h5py = import_h5py()
        with (
            unfinished(path, replace=True) as partial,
            Sink(partial) as sink,
            h5py.File(sink, "w", libver=_FORMAT) as file,
            one_pass(df, path) as datapoints,
        ):
            columns = [_Column(file, key, name) for key, name in names]
            if not _append(columns, _while_written(sink, datapoints), isinstance(data_paths, Mapping)):
                raise DatapointError(f"nothing to save in {path}: {type(df).__name__} yielded no datapoints")

    @staticmethod
    def load(
        path: str | os.PathLike[str], data_paths: Sequence[str] | Mapping[Any, str], shuffle: bool = True
    ) -> HDF5Data:
        """Return ``HDF5Data(path, data_paths, shuffle)``."""
        return HDF5Data(path, data_paths, shuffle)


def _while_written(sink: Sink, datapoints: Iterable[Datapoint]) -> Iterator[Datapoint]:
    for datapoint in datapoints:
        yield datapoint
        sink.check()


def _append(columns: list[_Column], datapoints: Iterable[Datapoint], as_dicts: bool) -> int:
    """Write datapoints into the columns. Returns how many."""
    count = 0
    for position, datapoint in enumerate(datapoints):
        try:
            _check(columns, datapoint, as_dicts)
            for column in columns:
                column.add(datapoint[column.key])
        except (DatapointError, EncodeError) as error:
            placed = type(error)(f"datapoint {position} cannot be saved: {error}")
            attach_key(placed, datapoint, position)
            raise placed from error
        count += 1
    for column in columns:
        column.flush()
    return count


def _check(columns: list[_Column], datapoint: Datapoint, as_dicts: bool) -> None:
    if not isinstance(datapoint, dict if as_dicts else (list, tuple)):
        raise DatapointError(
            f"it is a {type(datapoint).__name__}: data_paths is a list for datapoints that are lists or tuples, and a"
            " mapping {key: path} for dicts"
        )
    if len(datapoint) != len(columns) or (as_dicts and any(column.key not in datapoint for column in columns)):
        found = list(datapoint) if as_dicts else f"{len(datapoint)} components"
        raise DatapointError(f"it has {found} and data_paths {[column.key for column in columns]}")


class _Column:
    """One component of all datapoints, and its data set, which is made when the first one comes."""

    def __init__(self, file: Any, key: Hashable, name: str) -> None:
        self.key = key
        self._file = file
        self._name = name
        self._rows = np.empty(0)
        self._filled = 0

    def add(self, value: Any) -> None:
        """Take the component of the next datapoint."""
        array = self._array(value)
        if not len(self._rows):
            self._begin(array)
        if array.shape != self._rows.shape[1:] or array.dtype != self._rows.dtype:
            raise DatapointError(
                f"component {self.key!r} has the shape {array.shape} and dtype {array.dtype}, that of datapoint 0"
                f" {self._rows.shape[1:]} and {self._rows.dtype}. An HDF5 data set has one shape: resize, pad or"
                " convert in a map, or use LMDBSerializer, which takes any"
            )
        self._rows[self._filled] = array
        self._filled += 1
        if self._filled == len(self._rows):
            self.flush()

    def flush(self) -> None:
        """Append what was gathered to the data set."""
        if self._filled:
            end = len(self._set) + self._filled
            self._set.resize(end, axis=0)
            self._set[end - self._filled :] = self._rows[: self._filled]
            self._filled = 0

    def _array(self, value: Any) -> _Array:
        if isinstance(value, (str, bytes)):
            raise EncodeError(
                f"component {self.key!r} is {type(value).__name__}, which HDF5 stores without a checksum or cuts at"
                " zeros: save numbers or arrays of one shape, or use LMDBSerializer"
            )
        try:
            array = np.asarray(value)
        except (ValueError, TypeError) as error:
            raise EncodeError(f"component {self.key!r} is no array: {error}") from error
        if array.dtype.hasobject:
            raise EncodeError(
                f"component {self.key!r} is a {type(value).__name__} that makes an array of objects, which could only"
                " be pickled: convert it in a map"
            )
        return array

    def _begin(self, first: _Array) -> None:
        if not first.nbytes:
            raise EncodeError(f"component {self.key!r} has the shape {first.shape}: HDF5 takes no arrays without bytes")
        try:
            import_h5py().h5t.py_create(first.dtype, logical=True)
        except TypeError as error:
            raise EncodeError(f"component {self.key!r} has a dtype that HDF5 does not have: {error}") from error
        chunk = max(1, min(_CHUNK_ROWS, _CHUNK // first.nbytes))
        try:
            self._set = self._file.create_dataset(
                self._name,
                shape=(0, *first.shape),
                maxshape=(None, *first.shape),
                chunks=(chunk, *first.shape),
                dtype=first.dtype,
                fletcher32=True,
            )
        except (ValueError, TypeError) as error:  # also "x" and "x/y": a data set is no folder
            raise ConfigError(f"{self._name!r} in data_paths: {error}") from error
        self._rows = np.empty((chunk * max(1, _BLOCK // (chunk * first.nbytes)), *first.shape), first.dtype)

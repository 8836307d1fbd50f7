"""Owns reading any LMDB file as pairs of bytes, and decoding those."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, SupportsIndex

import numpy as np

from dfserve.dataflow.base import Datapoint, RNGDataFlow
from dfserve.dataflow.indexing import place_of
from dfserve.dataflow.items import method_of
from dfserve.dataflow.mapping import MapData
from dfserve.dataflow.policy import OnError
from dfserve.dataflow.serialize.lmdb_datapoints import LMDBDatapoints, read_pair
from dfserve.dataflow.serialize.lmdb_file import OpenFile, import_lmdb, opened
from dfserve.dataflow.serialize.lmdb_header import data_file
from dfserve.dataflow.serialize.lmdb_label import DIGITS, LABEL, TENSORPACK_DIGITS, TENSORPACK_KEYS
from dfserve.errors import StoreError

log = logging.getLogger("dfserve.dataflow")

# The entries that are none of the data, and the keys that those with such an entry have.
_FORMATS = {LABEL: f"{{:0{DIGITS}d}}", TENSORPACK_KEYS: f"{{:0{TENSORPACK_DIGITS}d}}"}


class LMDBData(RNGDataFlow):
    """The entries of any LMDB file as datapoints [key, value], both bytes.

    Every process opens the file for itself. It is opened without LMDB's lock, so nobody may write to it meanwhile. The
    entry that dfserve, or tensorpack, adds to the datapoints it saves is left out.
    """

    def __init__(
        self,
        lmdb_path: str | os.PathLike[str],
        shuffle: bool = True,
        keys: str | Sequence[str | bytes] | None = None,
    ) -> None:
        """Look at ``lmdb_path``.

        Args:
            lmdb_path: a data file, or the folder that its ``data.mdb`` is in.
            shuffle: a new order for every pass. Without it a pass goes through the file from its beginning to its end.
            keys: with ``shuffle``, the keys of a pass, or a format such as ``"{:0>8d}"``, which gives them for the
                numbers from 0 to the number of entries. By default all keys, for which the whole file may have to be
                searched now, unless ``LMDBSerializer`` wrote it, dfserve's or tensorpack's.

        Raises:
            ImportError: lmdb is not installed.
            StoreError: the file was cut short, is damaged, or is no LMDB file.
            OSError: it cannot be read.
        """
        self._path = data_file(lmdb_path)
        self._shuffle = shuffle
        self._file: OpenFile | None = None
        file = opened(self._path)
        try:
            with file.env.begin() as txn:
                self._hidden = [key for key in _FORMATS if txn.get(key) is not None]
                self._entries = int(txn.stat()["entries"]) - len(self._hidden)
                self._keys = self._find_keys(txn, keys) if shuffle else None
        except import_lmdb().Error as error:
            raise self._damaged(error) from error

    def _find_keys(self, txn: Any, keys: str | Sequence[str | bytes] | None) -> Sequence[bytes]:
        if isinstance(keys, str):
            return _Numbered(keys, self._entries)
        if keys is not None:
            return [key.encode() if isinstance(key, str) else key for key in keys]
        if self._hidden and self._entries:
            numbered = _Numbered(_FORMATS[self._hidden[0]], self._entries)
            if txn.get(numbered[0]) is not None and txn.get(numbered[-1]) is not None:
                return numbered
        log.info("searching %s for its %d keys; giving keys=... saves that", self._path, self._entries)
        with txn.cursor() as cursor:
            return [key for key in cursor.iternext(values=False) if key not in self._hidden]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None}

    def __len__(self) -> int:
        return self._entries if self._keys is None else len(self._keys)

    def __getitem__(self, index: SupportsIndex) -> list[bytes]:
        """Return [key, value] of the ``index``-th of the keys, given or in order; finding those may search the file.

        Raises:
            IndexError: there is no such entry.
            StoreError: the file is damaged, or does not have a key that was given.
        """
        place = place_of(index, len(self))
        file = self._opened()
        file.check_size()
        try:
            with file.env.begin() as txn:
                if self._keys is None:
                    self._keys = self._find_keys(txn, None)
                key = self._keys[place]
                value = txn.get(key)
        except import_lmdb().Error as error:
            raise self._damaged(error) from error
        if value is None:
            raise StoreError(f"{self._path} has no key {key!r}: is it damaged, or are the given keys another file's?")
        return [key, value]

    def __iter__(self) -> Iterator[list[bytes]]:
        """Start a pass.

        Raises:
            StoreError: the file is damaged, or does not have a key that was given; what came before was yielded.
        """
        if not self._shuffle:
            yield from self._in_order()
            return
        order = np.arange(len(self))
        self.rng.shuffle(order)
        item = method_of(self, "__getitem__")
        for place in order.tolist():
            yield item(place)

    def _in_order(self) -> Iterator[list[bytes]]:
        last = None
        while True:
            file = self._opened()
            file.check_size()
            try:
                with file.env.begin() as txn, txn.cursor() as cursor:
                    if not (cursor.first() if last is None else _move_past(cursor, last)):
                        return
                    for key, value in cursor:
                        if key not in self._hidden:
                            yield [key, value]
                        last = key
                        if file.pid != os.getpid():  # forked in mid-pass: open it here
                            break
                        file.check_size()
                    else:
                        return
            except import_lmdb().Error as error:
                raise self._damaged(error) from error

    def _opened(self) -> OpenFile:
        if self._file is None or self._file.pid != os.getpid():
            self._file = opened(self._path)
        return self._file

    def _damaged(self, error: Exception) -> StoreError:
        return StoreError(f"{self._path} is damaged: {error}")


class LMDBDataDecoder(MapData):
    """The entries of an LMDB file through a function of key and value."""

    def __init__(
        self, lmdb_data: Any, decoder: Callable[[bytes, bytes], Datapoint | None], *, on_error: OnError = "raise"
    ) -> None:
        """Decode the entries of ``lmdb_data``.

        Args:
            lmdb_data: an ``LMDBData``, or another source of [key, value].
            decoder: takes key and value, returns a datapoint, or None to drop it.
            on_error: what to do with an entry for which ``decoder`` raises, see ``MapData``.
        """
        super().__init__(lmdb_data, partial(_decoded, decoder), on_error=on_error)


def LMDBDataPoint(  # noqa: N802  # it was a class in tensorpack
    lmdb_data_or_path: Any, shuffle: bool = True
) -> LMDBDatapoints | MapData:
    """Return what ``LMDBSerializer.save`` wrote, under the name that tensorpack had for it before 0.9.

    Args:
        lmdb_data_or_path: the file, as in ``LMDBSerializer.load``; or a source of [key, value] of such a file, an
            ``LMDBData`` behind a ``LocallyShuffleData`` say, whose values are decoded.
        shuffle: a new order for every pass; only used with a path.

    Raises:
        StoreError: as ``LMDBSerializer.load`` for a path; else while iterating.
    """
    if isinstance(lmdb_data_or_path, str | os.PathLike):
        return LMDBDatapoints(lmdb_data_or_path, shuffle)
    return MapData(lmdb_data_or_path, read_pair)


class _Numbered(Sequence[bytes]):
    """Keys that are made from their place."""

    def __init__(self, form: str, count: int) -> None:
        self._form = form
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        return self._form.format(place_of(index, self._count)).encode()


def _move_past(cursor: Any, key: bytes) -> bool:
    return bool(cursor.set_range(key) and (cursor.key() != key or cursor.next()))


def _decoded(decoder: Callable[[bytes, bytes], Datapoint | None], pair: Any) -> Datapoint | None:
    key, value = pair
    return decoder(key, value)

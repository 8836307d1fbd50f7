"""Owns the datapoints of an LMDB file: in the order of the save, shuffled, or by index."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, SupportsIndex

import numpy as np

from dfserve.dataflow.base import Datapoint, RNGDataFlow
from dfserve.dataflow.indexing import place_of
from dfserve.dataflow.items import method_of
from dfserve.dataflow.serialize.lmdb_file import OpenFile, import_lmdb, opened
from dfserve.dataflow.serialize.lmdb_header import data_file
from dfserve.dataflow.serialize.lmdb_label import read_label
from dfserve.dataflow.serialize.lmdb_record import is_record, read_record
from dfserve.errors import StoreError, WireError
from dfserve.formats import plain_msgpack
from dfserve.wire.copies import writable


class LMDBDatapoints(RNGDataFlow):
    """The datapoints of a file of ``LMDBSerializer``. Item *i* is the *i*-th that was saved.

    Every process opens the file for itself, when it reads the first datapoint. Any number may read it at once, threads
    too. Datapoints are copies: nothing refers to the file, and arrays may be changed in place. A checksum is compared
    when a process first reads a record, not in later passes.

    Attributes:
        shuffle: whether a pass has an order of its own.
        schema: kind and components of the first datapoint, see ``dfserve.dataflow.serialize.schema.describe``. None, if
            there is none or tensorpack wrote the file.
    """

    def __init__(self, path: str | os.PathLike[str], shuffle: bool = True) -> None:
        """Find the datapoints of ``path``; arguments and errors are those of ``LMDBSerializer.load``."""
        self.shuffle = shuffle
        self._path = data_file(path)
        self._file: OpenFile | None = None
        self._verified = bytearray()
        file = opened(self._path)
        try:
            with file.env.begin(buffers=True) as txn:
                self._label = read_label(txn, self._path)
        except import_lmdb().Error as error:
            raise self._damaged(error) from error
        self._form = self._label.form
        self.schema = self._label.schema

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None, "_verified": bytearray()}

    def __len__(self) -> int:
        return self._label.count

    def __getitem__(self, index: SupportsIndex) -> Datapoint:
        """Return datapoint ``index`` of those saved, whatever the order of the passes.

        Raises:
            IndexError: there is no such datapoint.
            StoreError: the file is damaged there, or another took its place.
        """
        place = place_of(index, len(self))
        file = self._opened()
        file.check_size()
        try:
            with file.env.begin(buffers=True) as txn:
                return self._read(txn.get(self._form % place), place)
        except import_lmdb().Error as error:
            raise self._damaged(error) from error

    def __iter__(self) -> Iterator[Datapoint]:
        """Start a pass.

        Raises:
            StoreError: the file is damaged, or another took its place; what came before was yielded.
        """
        if not self.shuffle:
            yield from self._in_order()
            return
        order = np.arange(len(self))
        self.rng.shuffle(order)
        item = method_of(self, "__getitem__")
        for place in order.tolist():
            yield item(place)

    def _in_order(self) -> Iterator[Datapoint]:
        count, form, read, getpid = len(self), self._form, self._read, os.getpid  # every 0.1 µs of the loop counts
        place = 0
        while place < count:
            file = self._opened()
            pid, check_size = file.pid, file.check_size
            check_size()
            try:
                with file.env.begin(buffers=True) as txn, txn.cursor() as cursor:
                    get = cursor.get
                    while place < count and pid == getpid():  # else: forked in mid-pass, open it here
                        check_size()
                        # By its key, not as the next: LMDB ends the process where a next page is none of its own.
                        yield read(get(form % place), place)
                        place += 1
            except import_lmdb().Error as error:
                raise self._damaged(error) from error

    def _opened(self) -> OpenFile:
        file = self._file
        if file is None or file.pid != os.getpid():
            file = opened(self._path)
            with file.env.begin(buffers=True) as txn:
                if read_label(txn, self._path).raw != self._label.raw:
                    raise StoreError(f"{self._path} is not the file any more that it was: load it again")
            self._file = file
            self._verified = bytearray(len(self))
        return file

    def _read(self, value: memoryview | None, place: int) -> Datapoint:
        try:
            if value is None:
                raise StoreError("is missing: the file is damaged")
            if self._label.is_tensorpack:
                return writable(plain_msgpack.loads(value))
            datapoint = read_record(value, place, not self._verified[place])
        except (StoreError, WireError) as error:
            raise StoreError(f"datapoint {place} of {self._path} {error}") from None
        self._verified[place] = 1
        return datapoint

    def _damaged(self, what: object) -> StoreError:
        return StoreError(f"{self._path} is damaged: {what}")


def read_pair(pair: Any) -> Datapoint:
    """Return the datapoint of a pair (key, value) that ``LMDBData`` yielded: a component of its own codec, or msgpack.

    Raises:
        StoreError: the value is neither; a pickle is never opened.
    """
    key, value = pair
    try:
        return read_record(memoryview(value)) if is_record(value) else writable(plain_msgpack.loads(value))
    except (StoreError, WireError) as error:
        raise StoreError(f"the value of key {bytes(key)[:40]!r} {error}") from None

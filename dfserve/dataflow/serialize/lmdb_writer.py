"""Owns the writing of an LMDB file whose size nobody knows beforehand: the map grows, and nothing is lost when it does.

LMDB refuses a put, or a commit, for which its map is too small, and the open transaction is lost with it. So what was
put since the last commit is kept, and put again after the map was doubled.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dfserve.dataflow.serialize.lmdb_file import import_lmdb
from dfserve.dataflow.serialize.lmdb_header import complete
from dfserve.errors import StoreError

PENDING_BYTES = 64 << 20  # committed at the latest; a transaction's bytes are in memory twice
_LEAST_MAP = 1 << 16  # bytes; LMDB needs a few pages to begin with
_MAP_STEP = 1 << 16  # bytes; the largest page of a system on which LMDB runs


class GrowingFile:
    """An LMDB data file being written by nobody else; keys must come in order. Use it in a ``with`` statement."""

    def __init__(self, path: Path, map_size: int, commit_every: int) -> None:
        """Open the empty file ``path``.

        Args:
            path: of the file.
            map_size: bytes of the map to begin with.
            commit_every: puts in a transaction, or fewer if they are large.

        Raises:
            StoreError: here and in all methods: LMDB cannot write, since the disk is full say.
        """
        self._lmdb = import_lmdb()
        self._path = path
        self._commit_every = commit_every
        self._pending: list[tuple[bytes, Any]] = []
        self._pending_bytes = 0
        # Nothing is flushed here, because nobody reads the file before it is flushed as a whole.
        with self._errors():
            self._env: Any = self._lmdb.open(
                os.fspath(path), subdir=False, lock=False, sync=False, metasync=False, map_size=_map_size(map_size)
            )
            self._txn: Any = self._env.begin(write=True)

    def __enter__(self) -> GrowingFile:
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        try:
            if kind is None:
                with self._errors():
                    self._commit()
            else:
                self._txn.abort()
        finally:
            self._env.close()
        if kind is None:
            complete(self._path)

    def put(self, key: bytes, value: bytes | bytearray) -> None:
        """Add an entry; ``key`` sorts after all before it."""
        with self._errors():
            if len(self._pending) >= self._commit_every or self._pending_bytes + len(value) > PENDING_BYTES:
                self._commit()
                self._txn = self._env.begin(write=True)
            self._pending.append((key, value))
            self._pending_bytes += len(value)
            try:
                in_order = self._txn.put(key, value, append=True)
            except self._lmdb.MapFullError:
                self._grow_and_put_again()
            else:
                assert in_order, f"{key!r} does not sort after the keys before it"

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except self._lmdb.Error as error:
            raise StoreError(f"LMDB cannot write {self._path}: {error}") from error

    def _commit(self) -> None:
        while not self._committed():
            self._grow_and_put_again()
        self._pending = []
        self._pending_bytes = 0

    def _committed(self) -> bool:
        try:
            self._txn.commit()
        except self._lmdb.MapFullError:
            return False
        return True

    def _grow_and_put_again(self) -> None:
        self._grow()
        while not self._put_pending():
            self._grow()

    def _grow(self) -> None:
        self._txn.abort()
        self._env.set_mapsize(_map_size(2 * self._env.info()["map_size"]))
        self._txn = self._env.begin(write=True)

    def _put_pending(self) -> bool:
        try:
            for key, value in self._pending:
                self._txn.put(key, value, append=True)
        except self._lmdb.MapFullError:
            return False
        return True


def _map_size(wanted: int) -> int:
    return -(-max(wanted, _LEAST_MAP) // _MAP_STEP) * _MAP_STEP

"""Owns the yardstick: LMDB itself. It writes the arrays' bytes, and reads dfserve's file as bytes, without decoding."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import lmdb
import numpy as np

MAP_SIZE = 16 << 30  # bytes of addresses; the file has what is written
COMMIT_EVERY = 5000  # as the others


def save(datapoints: list[Any], path: str) -> None:
    """Write the arrays' bytes, in order, and flush them to the disk."""
    with lmdb.open(path, subdir=False, map_size=MAP_SIZE, sync=False, metasync=False) as env:
        numbered = enumerate(datapoints)
        while part := list(itertools.islice(numbered, COMMIT_EVERY)):
            with env.begin(write=True) as txn:
                for number, (array, _) in part:
                    txn.put(b"%010d" % number, memoryview(array).cast("B"), append=True)
        env.sync(True)


def load(path: str, shuffle: bool) -> Values:
    """Return the file's values; each iterator is a pass."""
    return Values(path, shuffle)


class Values:
    """What a file of dfserve's has, as bytes: with a cursor, or by key in random order."""

    def __init__(self, path: str, shuffle: bool) -> None:
        self._env: Any = lmdb.open(path, subdir=False, readonly=True, lock=False)
        self._count = self._env.stat()["entries"] - 1  # one is the file's label, which is the last
        self._shuffle = shuffle
        with self._env.begin() as txn:
            digits = len(next(txn.cursor().iternext(values=False)))
        self._keys = [b"%0*d" % (digits, number) for number in range(self._count)] if shuffle else []
        self._rng = np.random.RandomState(0)

    def __iter__(self) -> Iterator[bytes]:
        with self._env.begin(buffers=False) as txn:
            if self._shuffle:
                for place in self._rng.permutation(self._count).tolist():
                    yield txn.get(self._keys[place])
            else:
                yield from itertools.islice(txn.cursor().iternext(keys=False), self._count)

"""Owns saving a DataFlow as an LMDB file, and finding its datapoints again."""

from __future__ import annotations

import os
from typing import Any

from dfserve.dataflow.base import Datapoint
from dfserve.dataflow.serialize.lmdb_datapoints import LMDBDatapoints, read_pair
from dfserve.dataflow.serialize.lmdb_file import import_lmdb
from dfserve.dataflow.serialize.lmdb_header import data_file
from dfserve.dataflow.serialize.lmdb_label import DIGITS, LABEL, write_label
from dfserve.dataflow.serialize.lmdb_record import RecordWriter
from dfserve.dataflow.serialize.lmdb_writer import GrowingFile
from dfserve.dataflow.serialize.records import encoded
from dfserve.dataflow.serialize.saving import one_pass, unfinished
from dfserve.dataflow.serialize.schema import describe
from dfserve.errors import ConfigError

MAP_SIZE = 64 << 20  # bytes to begin with; a terabyte is 14 doublings away


class LMDBSerializer:
    """DataFlows in LMDB files: the format to choose, since it reads fastest, in any order. Needs ``lmdb``.

    Datapoints are stored one by one in dfserve's wire codec, with checksums. Nothing is ever pickled or unpickled.
    """

    @staticmethod
    def save(df: Any, path: str | os.PathLike[str], write_frequency: int = 5000, *, map_size: int = MAP_SIZE) -> None:
        """Write one pass of ``df`` to ``path``, which appears when all is written and flushed to the disk.

        Args:
            df: a DataFlow, or another source of datapoints. It is reset here.
            path: the file to write, or a folder, which gets a ``data.mdb``.
            write_frequency: datapoints in a transaction, or fewer if they have 64 MiB: fewer take less memory.
            map_size: bytes of LMDB's map to begin with. It doubles when it is full, and nothing is lost by that; the
                file itself is never larger than what is in it.

        Raises:
            ImportError: lmdb is not installed.
            ConfigError: ``path`` exists or cannot be written, or an argument is not positive.
            EncodeError: a component is of a type that could only be pickled; it names datapoint and component.
            StoreError: LMDB cannot write, since the disk is full say. After any error nothing is left of the file.
        """
        if write_frequency < 1 or map_size < 1:
            raise ConfigError(f"write_frequency={write_frequency} and map_size={map_size}: both are at least 1")
        import_lmdb()
        target = data_file(path)
        with unfinished(target) as partial:
            _write(df, target, GrowingFile(partial, map_size, write_frequency))

    @staticmethod
    def load(path: str | os.PathLike[str], shuffle: bool = True) -> LMDBDatapoints:
        """Return the datapoints of a file, to be iterated or indexed.

        It reads what ``save`` wrote, and what tensorpack wrote when it ran with ``TENSORPACK_SERIALIZE=msgpack``.
        Without ``shuffle`` a pass goes through the file from its beginning to its end, as a hard disk needs it.

        Args:
            path: the file, or the folder that its ``data.mdb`` is in.
            shuffle: a new order for every pass.

        Raises:
            ImportError: lmdb is not installed.
            StoreError: the file was cut short, is damaged, or is something else: a pickled one of tensorpack's, say.
            OSError: it cannot be read.
        """
        return LMDBDatapoints(path, shuffle)

    # tensorpack's documentation has people map it over an LMDBData, to decode in parallel.
    _deserialize_lmdb = staticmethod(read_pair)


def _write(df: Any, target: os.PathLike[str], file: GrowingFile) -> None:
    writer = RecordWriter()
    schema = None

    def record(datapoint: Datapoint) -> bytearray:
        nonlocal schema
        made = writer.record(datapoint)
        schema = schema or describe(datapoint)
        return made

    with file:
        with one_pass(df, target) as datapoints:
            for place, made in enumerate(encoded(datapoints, record)):  # type: ignore[arg-type]  # no bytes, but alike
                file.put(b"%0*d" % (DIGITS, place), made)
        file.put(LABEL, write_label(writer.count, schema))

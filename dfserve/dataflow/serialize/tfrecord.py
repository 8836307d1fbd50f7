"""Owns saving a DataFlow as a TFRecord file, and the datapoints of such a file, TensorFlow's included."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from dfserve.dataflow.base import DataFlow, Datapoint
from dfserve.dataflow.serialize.records import MAGIC, decode_record, encode_record, encoded
from dfserve.dataflow.serialize.saving import one_pass, unfinished
from dfserve.dataflow.serialize.tfrecord_example import decode_example, encode_example
from dfserve.dataflow.serialize.tfrecord_frames import import_crc32c, read_records, write_record
from dfserve.errors import ConfigError, DatapointError, StoreError, UnknownLengthError, WireError

_ENCODERS: dict[str, Callable[[Any], bytes]] = {"dfserve": encode_record, "example": encode_example}
_EXAMPLE_BEGINS = b"\n"  # field 1, with a length: the only field of an Example
_PICKLE_BEGINS = b"\x80"


class TFRecordSerializer:
    """DataFlows in TFRecord files: read from the beginning only. Needs ``pip install 'dfserve[formats]'``.

    TensorFlow reads the records of every file saved here. What is in a record is another matter: our own codec, which
    keeps any datapoint as it is, or a ``tf.train.Example``, which TensorFlow understands.
    """

    @staticmethod
    def save(df: Any, path: str | os.PathLike[str], *, record: Literal["dfserve", "example"] = "dfserve") -> None:
        """Write one pass of ``df`` to ``path``, which appears, or is replaced, when all is written.

        Args:
            df: a DataFlow, or another source of datapoints.
            path: the file to write.
            record: what a record holds. ``"dfserve"``: a datapoint of any kind, as it is. ``"example"``: a dict as a
                ``tf.train.Example``, see ``encode_example`` for what becomes of which component.

        Raises:
            ImportError: google-crc32c is not installed.
            ConfigError: another ``record``, or a ``path`` that cannot be written.
            EncodeError: a datapoint that cannot be saved; it names the component.
            DatapointError: there are no datapoints: an empty file cannot be told from one that was never written.
        """
        if record not in _ENCODERS:
            raise ConfigError(f"record is {record!r}; it is 'dfserve' or 'example'")
        crc32c = import_crc32c()
        with unfinished(path, replace=True) as partial:
            with partial.open("wb") as file, one_pass(df, path) as datapoints:
                for payload in encoded(datapoints, _ENCODERS[record]):
                    write_record(file, payload, crc32c)
            if not partial.stat().st_size:
                raise DatapointError(f"nothing to save in {path}: {type(df).__name__} yielded no datapoints")

    @staticmethod
    def load(path: str | os.PathLike[str], size: int | None = None) -> TFRecordData:
        """Return the datapoints of a file, in their order; each pass reads it again.

        Records of ``tf.train.Example``, recognised by their first bytes, become dicts of lists of bytes and 1-D arrays
        of float32 and int64.

        Args:
            path: the file.
            size: datapoints of a pass, which becomes its length. The format stores no count, so without it there is no
                length, and a file that was cut exactly between two records cannot be told from a whole one.

        Raises:
            ImportError: google-crc32c is not installed.
            ConfigError: ``size`` is below 1.
            StoreError: the file is empty, foreign, or damaged in its first record.
            OSError: it cannot be opened.
        """
        return TFRecordData(path, size)


class TFRecordData(DataFlow):
    """The datapoints of a TFRecord file."""

    def __init__(self, path: str | os.PathLike[str], size: int | None = None) -> None:
        """Read ``path``; arguments and errors are those of ``TFRecordSerializer.load``."""
        if size is not None and size < 1:
            raise ConfigError(f"size is {size}; it is the number of records, or None where that is unknown")
        self._path = Path(os.path.abspath(path))  # noqa: PTH100 (resolve() would follow links)
        self._size = size
        with closing(read_records(self._path, import_crc32c())) as records:
            next(records)

    def __len__(self) -> int:
        if self._size is None:
            raise UnknownLengthError(f"a TFRecord file stores no count: load({self._path.name!r}, size=...) gives one")
        return self._size

    def __iter__(self) -> Iterator[Datapoint]:
        """Start a pass.

        Raises:
            StoreError: the file is damaged, holds something else than datapoints, or fewer than ``size``; what came
                before was yielded.
        """
        with closing(read_records(self._path, import_crc32c())) as records:
            number = -1
            for number, payload in enumerate(islice(records, self._size)):
                yield self._decoded(payload, number)
            if self._size is not None and number + 1 < self._size:
                raise StoreError(
                    f"{self._path} has {number + 1} records and size is {self._size}: it was cut, or size is wrong"
                )

    def _decoded(self, payload: bytes, number: int) -> Datapoint:
        try:
            if payload.startswith(MAGIC):
                return decode_record(payload)
            if not payload or payload.startswith(_EXAMPLE_BEGINS):
                return decode_example(payload)
        except (WireError, ValueError) as error:
            raise StoreError(f"record {number} of {self._path} is malformed: {error}") from error
        what = f"begins with {payload[:8]!r} and is neither a datapoint of dfserve nor a tf.train.Example"
        if payload.startswith(_PICKLE_BEGINS):
            what = "is a pickle (tensorpack's?), which is never loaded: load it there, and save it here"
        raise StoreError(f"record {number} of {self._path} {what}")

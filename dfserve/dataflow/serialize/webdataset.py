"""Owns reading of WebDataset shards: tars in which files of one name and several extensions are one datapoint."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from dfserve.dataflow.failures import attach_key
from dfserve.dataflow.policy import OnError, Tally
from dfserve.dataflow.serialize.braces import expand_braces
from dfserve.dataflow.serialize.npy import view_npy
from dfserve.dataflow.serialize.tar_reader import TarFile, read_tar
from dfserve.dataflow.sharded import ShardedDataFlow
from dfserve.errors import ConfigError, DatapointError, StoreError
from dfserve.wire.limits import DEFAULT_LIMITS

_NAME = re.compile(r"((?:.*/)?[^./]+)\.([^/]*)", re.DOTALL)  # the key, and all extensions
_META = re.compile(r"__[^/]*__(?:$|/)")  # files about the shard, which webdataset leaves out too
_SCHEME = re.compile(r"[a-z][a-z0-9+]*:", re.IGNORECASE)


class WebDataset(ShardedDataFlow):
    """The samples of tar shards as dicts: ``{"__key__": "n01440764/123", "jpg": uint8 array, "cls": uint8 array}``.

    Files next to each other whose names are alike up to the first dot after the last slash are one sample, in the
    order of the tar; the rest of the name, in lower case, is the component's key. Each component is the file's content
    as a read-only 1-D array of uint8. Left out are links, folders, names without an extension or that begin with a dot,
    and what lies in folders like ``__meta__``. Shards may be compressed with gzip. Nothing is ever unpickled.

    A shard is a split: ``shard_keys()`` are the paths, ``open_shard(path)`` reads one. ``len()`` is unknown.
    """

    def __init__(
        self,
        paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        shuffle: bool = False,
        *,
        decode: bool = False,
        max_sample: int = DEFAULT_LIMITS.max_frame,
        on_error: OnError = "raise",
    ) -> None:
        """Read the shards ``paths``.

        Args:
            paths: one or several local paths, with or without braces: ``"train-{000..146}.tar"``, ``"{a,b}.tar"``.
            shuffle: go through the shards in a new random order in every pass. Samples keep their order in a shard;
                mix them with ``LocallyShuffleData``.
            decode: turn these into values, by the last extension: ``txt``, ``text``, ``transcript`` into str; ``cls``,
                ``cls2``, ``class``, ``count``, ``index``, ``inx``, ``id`` into int; ``json``, ``jsn`` into what they
                hold; ``npy`` into an array. All else, images too, stays bytes.
            max_sample: bytes of all files of a sample, checked before memory is taken for them. 256 MiB, as one array
                may have on its way to a trainer.
            on_error: what to do with a bad sample (larger than ``max_sample``, an extension twice, text that does not
                decode): ``"raise"``, ``"skip"``, or a ``SkipErrors``. A damaged shard is always raised: nobody knows
                how many samples are lost with it.

        Raises:
            ConfigError: no paths, one twice, a pattern that is none, a URL, or a file that does not exist.
        """
        super().__init__(shuffle)
        self._paths = _expanded(paths)
        self._decode = decode
        self._max_sample = max_sample
        self._tally = Tally(on_error, type(self).__name__)

    def shard_keys(self) -> list[str]:
        """Return the paths of the shards, in the order in which they were given."""
        return list(self._paths)

    def open_shard(self, key: str) -> Iterator[dict[str, Any]]:
        """Read the shard of this path.

        Raises:
            StoreError: it is no tar, damaged, cut short, or has files but no sample; it names the shard and the last
                whole sample.
            DatapointError: a bad sample, with ``on_error="raise"``; it names the shard and the sample, as does its key.
            TooManyErrors: more was skipped than the limits allow.
            OSError: the file cannot be opened.
        """
        path, last, count = Path(key), "none", 0
        try:
            for name, files in groupby(_named(path), lambda file: file[0]):
                count += 1
                try:
                    sample = self._sample(name, files)
                except DatapointError as error:
                    bad = DatapointError(f"sample {name!r} of {path}: {error}")
                    attach_key(bad, f"{path}/{name}", count)
                    bad.__cause__ = error
                    self._tally.bad(bad)
                    continue
                self._tally.good()
                yield sample
                last = name
        except StoreError as error:
            raise StoreError(f"{error} (the last whole sample: {last})") from error

    def _sample(self, name: str, files: Iterable[tuple[str, str, TarFile]]) -> dict[str, Any]:
        sample: dict[str, Any] = {"__key__": name}
        total = 0
        for _, extension, file in files:
            total += file.size
            if file.sparse:
                raise DatapointError(f"{file.name} is stored sparse, which is not read: make the tar without --sparse")
            if total > self._max_sample:
                raise DatapointError(f"it has more than {self._max_sample} bytes (max_sample) with {file.name}")
            if extension in sample:
                raise DatapointError(f"it has two files {extension!r}; the second is {file.name}")
            sample[extension] = self._value(file, extension)
        return sample

    def _value(self, file: TarFile, extension: str) -> Any:
        content = file.read()
        decoder = _DECODERS.get(extension.rpartition(".")[2]) if self._decode else None
        if decoder is None:
            return np.frombuffer(content, np.uint8)
        try:
            return decoder(content)
        except (ValueError, RecursionError) as error:
            raise DatapointError(f"{file.name} does not decode: {type(error).__name__}: {error}") from error


def _expanded(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[str]:
    given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    names = [name for path in given for name in expand_braces(os.fspath(path))]
    if not names:
        raise ConfigError("WebDataset was given no shards: the list of paths is empty")
    for name in names:
        if _SCHEME.match(name):
            raise ConfigError(f"{name} is no local path; WebDataset reads files: fetch the shards first, or mount them")
    if len(set(names)) < len(names):
        raise ConfigError(f"the shard {Counter(names).most_common(1)[0][0]} is given more than once")
    missing = [name for name in names if not Path(name).is_file()]
    if missing:
        raise ConfigError(f"{len(missing)} of {len(names)} shards are no files here; the first: {missing[0]}")
    return names


def _named(path: Path) -> Iterator[tuple[str, str, TarFile]]:
    """Yield (key, extension, file) for every file of a shard that belongs to a sample."""
    seen = found = 0
    for file in read_tar(path):
        seen += 1
        match = _NAME.fullmatch(file.name)
        if match and not _META.match(file.name):
            found += 1
            yield match[1], match[2].lower(), file
    if seen and not found:
        raise StoreError(f"{path} has no samples: none of its {seen} files is named KEY.EXTENSION")


def _text(content: bytes) -> str:
    return content.decode()


def _number(content: bytes) -> int:
    return int(content)


def _array(content: bytes) -> Any:
    return view_npy(memoryview(content)).copy()


_DECODERS: dict[str, Callable[[bytes], Any]] = {
    **dict.fromkeys(("txt", "text", "transcript"), _text),
    **dict.fromkeys(("cls", "cls2", "class", "count", "index", "inx", "id"), _number),
    **dict.fromkeys(("json", "jsn"), json.loads),
    "npy": _array,
}

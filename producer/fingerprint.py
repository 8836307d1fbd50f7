"""Owns the fingerprint of a pipeline's source: what producers that serve the same pipeline must have in common.

It is a digest of

- the names of the classes of operators and source, parallel maps counting as MapData, those that only look left out;
- how many items or shards there are, and the batch;
- the keys of the shards, or of the items where the source has them at hand: the texts of a list of files, URLs or
  datapoints (their first text, or a first integer), the indices of a subset (of the data set in it too, and so on),
  the id of an LMDB file, the layout of an ``.npz`` file;
- the ``pipeline_version`` of an operator, of the source or of the data set in it.

The folder that all keys have in common is left out, so that the same data may lie elsewhere on another machine. What
functions do is not seen: whoever changes one that matters says so, by ``ds.pipeline_version = "2"``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Any

import numpy as np

from dfserve.dataflow.failures import name_of
from dfserve.producer.itemwise import Pipeline, adapted, is_parallel_map, name_of_source

_DIGITS = 32
# Keys that are hashed: all of a million takes under a second. Of a longer list it is each second, third, ... one.
_MOST_KEYS = 1 << 20
_LOOKING_ON = {"PrintData", "TestDataSpeed"}
# Attributes that hold an entry for each item: those of our own sources, of torch's Subset and of torchvision's folders.
_LISTS = ("imglist", "files", "datapoints", "lst", "indices", "samples", "paths")
# Attributes that hold what a data set takes its items from: those of torch's Subset and of our own DataFromList.
_INNER = ("dataset", "lst")
_FLAT = (list, tuple, range, str, bytes, np.ndarray)
_DEEPEST = 16  # data sets in data sets


def fingerprint_of(pipeline: Pipeline) -> str:
    """Return the digest, 32 hexadecimal digits; the same for the same pipeline in any process, on any machine."""
    digest = sha256()
    for field in _fields(pipeline):
        data = field.encode("utf-8", "surrogateescape")  # a file name may hold bytes that are no UTF-8
        digest.update(b"%d:" % len(data))
        digest.update(data)
    return digest.hexdigest()[:_DIGITS]


def _fields(pipeline: Pipeline) -> Iterator[str]:
    source, batch = pipeline.source, pipeline.batch
    yield "dfserve source 1"
    for operator in pipeline.operators:
        name = "MapData" if is_parallel_map(operator) else type(operator).__name__
        if name not in _LOOKING_ON:
            yield f"operator {name}"
    yield f"source {name_of_source(source)}"
    yield f"batch {batch and (batch.batch_size, batch.remainder, batch.use_list)}"
    for part in (*pipeline.operators, source, adapted(source)):
        if (version := getattr(part, "pipeline_version", None)) is not None:
            yield f"version {version}"
    if pipeline.sharded:
        keys = list(source.shard_keys())
        yield f"shards {len(keys)}"
        yield from _below_common_folder(keys)
    else:
        yield f"items {len(source)}"
        yield from _keys(source)


def _keys(source: Any) -> Iterator[str]:
    """Yield what is known of the items without reading them."""
    label, offsets = getattr(source, "_label", None), getattr(source, "_offsets", None)
    held = adapted(source)
    if isinstance(raw := getattr(label, "raw", None), bytes):
        yield f"label {sha256(raw).hexdigest()}"
    elif isinstance(offsets, np.ndarray):
        yield f"offsets {sha256(offsets.astype('<i8').tobytes()).hexdigest()}"
    elif isinstance(held, np.ndarray):
        yield f"array {held.dtype.str} {held.shape}"
    else:
        for part in _nested(held):
            yield from _below_common_folder([_key(entry) for entry in _entries(part)])


def _nested(held: Any) -> Iterator[Any]:
    """Yield a data set, the one that it takes its items from, and so on."""
    for _ in range(_DEEPEST):
        yield held
        inner = (_attribute(held, name) for name in _INNER)
        held = next((found for found in inner if not isinstance(found, _FLAT) and _length(found) is not None), None)
        if held is None:
            return


def _entries(held: Any) -> list[Any]:
    """Return what a data set has for each item, or for each second, third, ... of very many; nothing if it has none."""
    count = _length(held)
    for found in (held, *(_attribute(held, name) for name in _LISTS)):
        if _is_at_hand(found) and len(found) == count:
            some = found[:: max(1, -(-count // _MOST_KEYS))]
            return list(some) if isinstance(some, Sequence) else list(some.tolist())
    return []


def _is_at_hand(found: Any) -> bool:
    """Tell a list, or a vector of numpy's or torch's in memory: nothing else is read just to be compared."""
    vectors = (np.ndarray, getattr(sys.modules.get("torch"), "Tensor", np.ndarray))
    return isinstance(found, (list, tuple, range)) or (isinstance(found, vectors) and found.ndim == 1)


def _attribute(held: Any, name: str) -> Any:
    """Return an attribute of somebody's data set; None if it has none, or cannot say."""
    try:
        return getattr(held, name, None)
    except Exception:  # noqa: BLE001  # whatever a property of theirs raises
        return None


def _length(held: Any) -> int | None:
    try:
        return len(held)
    except Exception:  # noqa: BLE001  # see above
        return None


def _key(entry: Any) -> str:
    name = name_of(entry)
    if name is not None:
        return f"t{name}"
    first = entry[0] if isinstance(entry, (list, tuple)) and len(entry) else entry
    return f"i{int(first)}" if isinstance(first, (int, np.integer)) else "?"


def _below_common_folder(keys: list[str]) -> Iterator[str]:
    if not keys:
        return
    # The smallest and the largest text differ as early as any two.
    low, high = min(keys), max(keys)
    common = next(
        (place for place, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high))
    )
    folder = low.rfind("/", 0, common) + 1
    for key in keys:
        yield key[folder:]

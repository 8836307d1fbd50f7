"""Owns the turning of torch Tensors and PIL images into ndarrays before they are sent, without importing either."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from dfserve.errors import EncodeError

# Types that need no look inside. The check is one pass in C over a datapoint's types: it runs for every datapoint.
_PLAIN = frozenset({np.ndarray, int, float, bool, str, bytes, complex, type(None)} | set(np.sctypeDict.values()))
_ARE_PLAIN = _PLAIN.issuperset

# Module and name of the classes that are converted: recognised by what they call themselves.
_FOREIGN = {("torch", "Tensor"): "tensor", ("PIL.Image", "Image"): "image"}


def to_arrays(datapoint: Any) -> Any:
    """Return the datapoint with every torch Tensor and PIL image in it, at any depth, as an ndarray.

    A Tensor comes to the CPU, off its gradient; the array may share its memory. A PIL image is what ``numpy.asarray``
    makes of it: (height, width) or (height, width, channels), RGB; an image with a palette gives the palette's indices.
    Everything else is left alone, and where nothing is converted, the very same object comes back. Nothing that the
    caller holds is changed: lists, tuples and dicts around something converted are new.

    Raises:
        EncodeError: a tensor or image that numpy cannot hold, such as bfloat16; it names the component.
    """
    kind = type(datapoint)
    if kind is list or kind is tuple:
        if _ARE_PLAIN(map(type, datapoint)):
            return datapoint
    elif kind is dict and _ARE_PLAIN(map(type, datapoint.values())):
        return datapoint
    return _convert(datapoint, "")


def _convert(value: Any, path: str) -> Any:
    kind: Any = type(value)  # Any: mypy takes no type for hashable
    if kind in _PLAIN:
        return value
    sort = _sort(kind)
    if sort == "other":
        return value
    if sort not in ("tensor", "image") and _ARE_PLAIN(map(type, value.values() if sort == "dict" else value)):
        return value
    if sort == "dict":
        converted = {key: _convert(entry, f"{path}[{key!r}]") for key, entry in value.items()}
        same = all(converted[key] is entry for key, entry in value.items())
        return value if same else converted
    if sort in ("list", "tuple"):
        entries = [
            entry if type(entry) in _PLAIN else _convert(entry, f"{path}[{place}]") for place, entry in enumerate(value)
        ]
        if all(new is old for new, old in zip(entries, value, strict=True)):
            return value
        # A named tuple is made of its fields, another tuple of one iterable.
        return entries if sort == "list" else kind._make(entries) if hasattr(kind, "_make") else tuple(entries)
    return _tensor_to_array(value, path) if sort == "tensor" else _image_to_array(value, path)


@lru_cache(maxsize=1024)  # types: a pipeline has a handful; the bound is for those that make classes on the fly
def _sort(kind: type) -> str:
    """Classify a type: list, tuple, dict, tensor, image or other. Subclasses count as what they derive from."""
    for container in (list, tuple, dict):
        if issubclass(kind, container):
            return container.__name__
    for base in kind.__mro__:
        found = _FOREIGN.get((base.__module__, base.__name__))
        if found:
            return found
    return "other"


def _tensor_to_array(tensor: Any, path: str) -> Any:
    try:
        return tensor.detach().cpu().resolve_conj().resolve_neg().numpy()
    except (TypeError, RuntimeError, ValueError) as error:
        remedy = (
            "call .to_dense()" if "spars" in str(tensor.layout) else "convert it in the pipeline, e.g. with .float()"
        )
        raise EncodeError(
            f"component {path or 'of the datapoint'} is a tensor of {tensor.dtype} on {tensor.device} that numpy cannot"
            f" hold ({error}); {remedy}"
        ) from error


def _image_to_array(image: Any, path: str) -> Any:
    try:
        return np.asarray(image)
    except (OSError, TypeError, ValueError) as error:
        file = getattr(image, "filename", "") or "in memory"
        raise EncodeError(
            f"component {path or 'of the datapoint'} is a PIL image ({file}) that cannot be decoded: {error}"
        ) from error

"""Owns private copies of DataFlows: the original may be iterated as a stream in the same process at other times."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import copy, deepcopy
from functools import partial
from typing import Any

from dfserve.dataflow.mapping import MapData
from dfserve.dataflow.policy import Tally
from dfserve.dataflow.rng import PhiloxState
from dfserve.producer.itemwise import in_processes, is_parallel_map

_DEEP = 8  # functions in functions: more than decorators pile up
_MOST_OBJECTS = 10_000  # more than any pipeline's own functions refer to; it bounds the search in somebody's library


def twin_of(ds: Any) -> Any:
    """Return a copy of a DataFlow that shares its data, and whose methods and functions refer to the copy.

    A function that a constructor makes, and that refers to ``self``, refers to the copy's ``self``. What else an object
    holds, files and connections too, is the same object in both; ``reset_state()`` is expected to make it anew.
    """
    twin = _bare_copy(ds)
    for name, value in list(getattr(twin, "__dict__", {}).items()):
        if isinstance(value, Tally):
            twin.__dict__[name] = deepcopy(value)
        else:
            twin.__dict__[name] = _rebound(value, ds, twin, _DEEP)
    return twin


def whole_twin_of(ds: Any) -> Any:
    """Return a twin of a source that may consist of other DataFlows, over twins of those."""
    twin = twin_of(ds)
    if hasattr(getattr(twin, "ds", None), "reset_state"):
        twin.ds = whole_twin_of(twin.ds)
    if isinstance(parts := getattr(twin, "df_lists", None), list):
        twin.df_lists = [whole_twin_of(part) for part in parts]
    return twin


def twin_over(operator: Any, below: Any) -> Any:
    """Return a twin of an operator with ``below`` as its source; one of a parallel map runs its function itself."""
    twin = twin_of(operator)
    if not is_parallel_map(operator):
        twin.ds = below
        return twin
    here = MapData(below, _OnCopies(twin.map_func) if in_processes(operator) else twin.map_func)
    here._tally = twin._tally
    return here


def generators_in(ds: Any) -> Iterator[PhiloxState]:
    """Yield the generators that a DataFlow, or a function it holds, refers to; in an order that never changes.

    Followed are what functions enclose, the functions of their own package that they name, and the attributes of
    objects that are called.
    """
    queue = list(getattr(ds, "__dict__", {}).values())
    seen: set[int] = set()
    for value in queue:  # which grows
        if id(value) in seen or len(seen) > _MOST_OBJECTS:
            continue
        seen.add(id(value))
        if isinstance(value, PhiloxState):
            yield value
        else:
            queue += _referred(value)


def _bare_copy(ds: Any) -> Any:
    # Not as pickle copies: that would leave out, or load again, what belongs to this process.
    has_slots = any(vars(base).get("__slots__") for base in type(ds).__mro__)
    if hasattr(type(ds), "__copy__") or not hasattr(ds, "__dict__") or has_slots:
        return copy(ds)
    twin = object.__new__(type(ds))
    twin.__dict__.update(ds.__dict__)
    return twin


def _rebound(value: Any, old: Any, new: Any, depth: int) -> Any:
    """Return a function that refers to ``new`` where ``value`` refers to ``old``; anything else unchanged."""
    if isinstance(value, types.MethodType):
        return types.MethodType(value.__func__, new) if value.__self__ is old else value
    if depth and isinstance(value, partial):
        func, *args = [_swapped(part, old, new, depth) for part in (value.func, *value.args)]
        return partial(func, *args, **{name: _swapped(part, old, new, depth) for name, part in value.keywords.items()})
    if depth and isinstance(value, types.FunctionType) and value.__closure__:
        cells = tuple(_cell(cell, old, new, depth) for cell in value.__closure__)
        if all(a is b for a, b in zip(cells, value.__closure__, strict=True)):
            return value
        clone = types.FunctionType(value.__code__, value.__globals__, value.__name__, value.__defaults__, cells)
        clone.__kwdefaults__ = value.__kwdefaults__
        clone.__dict__.update(value.__dict__)
        return clone
    return value


def _swapped(value: Any, old: Any, new: Any, depth: int) -> Any:
    return new if value is old else _rebound(value, old, new, depth - 1)


def _cell(cell: types.CellType, old: Any, new: Any, depth: int) -> types.CellType:
    try:
        content = cell.cell_contents
    except ValueError:  # not filled yet
        return cell
    swapped = _swapped(content, old, new, depth)
    return cell if swapped is content else types.CellType(swapped)


def _referred(value: Any) -> list[Any]:
    if isinstance(value, partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, types.MethodType):
        return [value.__func__, value.__self__, *getattr(value.__self__, "__dict__", {}).values()]
    if isinstance(value, types.FunctionType):
        return [*enclosed(value), *_named(value)]
    if callable(value) and not isinstance(value, type):
        return list(getattr(value, "__dict__", {}).values())
    return []


def enclosed(function: types.FunctionType) -> Iterator[Any]:
    """Yield what a function holds: its defaults, and the variables around it."""
    yield from function.__defaults__ or ()
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # not filled yet
            yield cell.cell_contents


def _named(function: types.FunctionType) -> Iterator[Any]:
    codes = [function.__code__]
    for code in codes:
        for name in code.co_names:
            found = function.__globals__.get(name)
            its_own = isinstance(found, types.FunctionType) and _package(found) == _package(function)
            if its_own or isinstance(found, PhiloxState):
                yield found
        codes += [const for const in code.co_consts if isinstance(const, types.CodeType)]  # of functions within


def _package(function: types.FunctionType) -> str:
    return (function.__module__ or "").partition(".")[0]


class _OnCopies:
    """A function that may change its argument, as one that runs in another process may."""

    def __init__(self, func: Callable[[Any], Any]) -> None:
        self._func = func

    def __call__(self, datapoint: Any) -> Any:
        return self._func(deepcopy(datapoint))

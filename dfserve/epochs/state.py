"""Owns the state of a loader: its JSON form, and every check that it must pass."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any

from dfserve.epochs.plan import MAX_ITEMS, MAX_SPLIT, MAX_WORLD, ORDERS
from dfserve.errors import ConfigError

VERSION = 1  # of the JSON form: raised when a field comes, goes or means something else
MAX_TEXT = 1000  # characters of a name: no state holds more than a few lines
_UNCHANGED = "give the state as state_dict() returned it (`dfserve state skip` is there to move it)"

# The least and the most that each integer can be, whatever the others are.
_INTEGERS = {
    "version": (VERSION, VERSION),
    "n": (0, MAX_ITEMS - 1),
    "seed": (0, MAX_ITEMS - 1),
    "split_size": (1, MAX_SPLIT),
    "world": (1, MAX_WORLD),
    "stride": (1, MAX_ITEMS - 1),
    "batch": (0, MAX_ITEMS - 1),
    "epoch": (0, MAX_ITEMS - 1),
    "split": (0, MAX_ITEMS - 1),
    "start": (1 - MAX_ITEMS, MAX_ITEMS - 1),  # below 0: before the output at which the rows of another world began
    "row": (0, MAX_ITEMS - 1),
    "taken": (0, MAX_ITEMS - 1),
}
PLAN = ("pipeline", "source", "n", "seed", "shuffle", "order", "split_size", "world", "stride", "even", "batch")
_STRICT = ("split", "start", "row", "taken")
_ARRIVAL = ("done", "open")


@dataclass(frozen=True)
class State:
    """Where a loader is: the plan that it follows, and what it has handed out of an epoch. Made unchecked.

    Attributes:
        version: of this form.
        pipeline: its name.
        source: the fingerprint of its source, in hexadecimal.
        n: items of the source.
        seed: of the order and of the items' random numbers.
        shuffle: whether every epoch has an order of its own.
        order: "strict" or "arrival".
        split_size: items of a split.
        world: ranks.
        stride: datapoints that a rank takes of a row, which is ``world * stride`` datapoints.
        even: what becomes of the last, incomplete row: "drop" or "pad"; None where neither is needed.
        batch: datapoints of a batch that the consumer makes; 0: it makes none.
        epoch: from 0.
        split: strict order: the split to go on with; as many as there are splits at an epoch's end.
        start: strict order: the number, in the epoch, of the first output of ``split``.
        row: strict order: complete rows that are handed out.
        taken: strict order: datapoints of its stride in the next row that a rank has handed out.
        done: order of arrival: the splits that are handed out completely: ranges (first, last + 1), ascending, with
            gaps between them.
        open: order of arrival: the splits that are handed out in part, ascending, and how many outputs of each are.
            That is the present one, and those that an earlier loader had begun and whose rest has not come yet.
    """

    version: int
    pipeline: str
    source: str
    n: int
    seed: int
    shuffle: bool
    order: str
    split_size: int
    world: int
    stride: int
    even: str | None
    batch: int
    epoch: int
    split: int = 0
    start: int = 0
    row: int = 0
    taken: int = 0
    done: tuple[tuple[int, int], ...] = ()
    open: tuple[tuple[int, int], ...] = ()

    @property
    def splits(self) -> int:
        """How many splits an epoch has."""
        return -(-self.n // self.split_size)

    @property
    def row_size(self) -> int:
        """Datapoints of a row, of all ranks together."""
        return self.world * self.stride

    def items_of(self, split: int) -> int:
        """Return how many items a split has: the last may have fewer than the others."""
        return min(self.split_size, self.n - split * self.split_size)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields of this order, as plain JSON types."""
        plain: dict[str, Any] = {name: getattr(self, name) for name in _names(self.order)}
        if self.order == "arrival":
            plain["done"] = [list(pair) for pair in self.done]
            plain["open"] = [list(pair) for pair in self.open]
        return plain

    @classmethod
    def from_dict(cls, state: Any) -> State:
        """Return the state that ``to_dict()`` gave, checked.

        Raises:
            ConfigError: it is none, of another version, or says what cannot be; it names the field and the value.
        """
        _check_fields(state)
        for name, value in state.items():
            _check_type(name, value)
        pairs = {name: tuple(map(tuple, state.get(name, ()))) for name in _ARRIVAL}
        made = cls(**{**state, **pairs})
        _check_plan(made)
        (_check_strict if made.order == "strict" else _check_arrival)(made)
        return made

    def beginning(self, epoch: int) -> State:
        """Return the position at the beginning of an epoch of the same plan."""
        return replace(self, epoch=epoch, split=0, start=0, row=0, taken=0, done=(), open=())

    def disagreement(self, plan: Mapping[str, Any]) -> str | None:
        """Say in which field of ``plan`` it differs from this state, the first of them with both values, else None.

        Args:
            plan: some or all of the fields in ``PLAN``; ``even`` may be "" for None.
        """
        assert not plan.keys() - set(PLAN), f"fields of no plan: {sorted(plan.keys() - set(PLAN))}"
        for name in ("n", *PLAN):  # how many items there are says more than a fingerprint
            mine, theirs = getattr(self, name), plan.get(name, getattr(self, name))
            if (mine or None if name == "even" else mine) != (theirs or None if name == "even" else theirs):
                if name == "n":
                    return f"the source had {mine} items (n) when the state was saved, and has {theirs} here"
                return f"{name} is {mine!r} in the state and {theirs!r} here"
        return None


@cache  # a state is taken with every batch
def _names(order: str) -> tuple[str, ...]:
    """Return the fields that a state of this order has, as they are written."""
    others = _ARRIVAL if order == "strict" else _STRICT
    return tuple(field.name for field in fields(State) if field.name not in others)


def _check_fields(state: Any) -> None:
    if not isinstance(state, Mapping):
        raise ConfigError(f"a state is a dict, not an object of type {type(state).__name__}: {_UNCHANGED}")
    if "operator" in state:
        raise ConfigError(
            f"the state is one of {state['operator']!r} around a source: load it into the same chain of operators that"
            " it was taken from, not into the source"
        )
    version = state.get("version")
    if "version" in state and (type(version) is not int or version != VERSION):
        raise ConfigError(
            f"the state has version {version!r}, and this dfserve reads version {VERSION}: load it with the dfserve"
            " that wrote it"
        )
    order = state.get("order")
    if "order" in state and order not in ORDERS:
        raise _wrong("order", order, f"one of {', '.join(ORDERS)}")
    names = _names("strict" if order is None else order)
    if missing := [name for name in names if name not in state]:
        raise ConfigError(f"the state has no {missing[0]!r}: {_UNCHANGED}")
    if unknown := [name for name in state if name not in names]:
        raise ConfigError(f"the state has a field {_shown(unknown[0])}, which none in {order} order has: {_UNCHANGED}")


def _check_type(name: str, value: Any) -> None:
    if name in _INTEGERS:
        least, most = _INTEGERS[name]
        if type(value) is not int or not least <= value <= most:
            raise _wrong(name, value, f"an integer from {least} to {most}")
    elif name == "shuffle" and type(value) is not bool:
        raise _wrong(name, value, "true or false")
    elif name == "pipeline" and not (isinstance(value, str) and 0 < len(value) <= MAX_TEXT):
        raise _wrong(name, value, f"a name of 1 to {MAX_TEXT} characters")
    elif name == "source" and not (isinstance(value, str) and re.fullmatch("[0-9a-f]{1,128}", value)):
        raise _wrong(name, value, "a fingerprint of 1 to 128 hexadecimal digits")
    elif name == "even" and value is not None and (not isinstance(value, str) or value not in ("drop", "pad")):
        raise _wrong(name, value, "drop, pad or nothing")
    elif name == "done" and not (isinstance(value, (list, tuple)) and all(map(_is_pair, value))):
        raise _wrong(name, value, "a list of pairs [first split, last split + 1]")
    elif name == "open" and not (isinstance(value, (list, tuple)) and all(map(_is_pair, value))):
        raise _wrong(name, value, "a list of pairs [split, outputs handed out of it]")


def _is_pair(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) == 2
        and all(type(number) is int and 0 <= number < MAX_ITEMS for number in value)
    )


def _check_plan(state: State) -> None:
    if state.world > 1 and state.even is None:
        raise _wrong("even", None, f"drop or pad where there are several ranks, as world={state.world} says")
    if state.world > 1 and state.order == "arrival":
        raise _wrong("world", state.world, "1 in order of arrival: with several ranks there is no common position")


def _check_strict(state: State) -> None:
    if state.split > state.splits:
        raise _wrong("split", state.split, f"at most {state.splits}, for there are no more splits in the epoch")
    if state.taken >= state.stride:
        raise _wrong("taken", state.taken, f"below stride={state.stride}, for then the row is complete")
    if state.split == 0 and state.start > 0:
        raise _wrong("start", state.start, "at most 0 in the first split")
    handed = state.row * state.row_size + state.taken
    if state.start > handed:
        raise _wrong("start", state.start, f"at most {handed}, which row={state.row} and taken={state.taken} are at")


def _check_arrival(state: State) -> None:
    end = -1
    for first, last in state.done:
        if not end < first < last <= state.splits:
            wanted = f"ascending, with gaps between them, none empty, and within 0 to {state.splits}"
            raise _wrong("done", [first, last], f"made of ranges that are {wanted}")
        end = last
    end = -1
    for split, handed in state.open:
        if split >= state.splits or any(first <= split < last for first, last in state.done):
            raise _wrong("open", [split, handed], f"made of splits below {state.splits} that are not done")
        if split <= end:
            raise _wrong("open", [split, handed], "made of splits in ascending order, each once")
        end = split


def _wrong(name: str, value: Any, wanted: str) -> ConfigError:
    return ConfigError(f"the state has {name}={_shown(value)}; it is {wanted}: {_UNCHANGED}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."  # one line of a terminal

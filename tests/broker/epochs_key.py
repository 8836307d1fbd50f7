"""Owns when two simulated worlds are the same: a hash of all that can influence what happens, and a quick copy."""

from __future__ import annotations

import hashlib
import io
import json
import marshal
import pickle
from collections import deque
from collections.abc import Iterable
from dataclasses import is_dataclass
from enum import Enum
from typing import Any

from dfserve.broker.ledger import Made
from dfserve.broker.tally import Tally
from dfserve.epochs.plan import Plan
from dfserve.epochs.rows import Rows
from dfserve.epochs.state import State
from dfserve.wire import epoch_messages as e
from dfserve.wire.messages import Message

RENAMED = 1 << 35  # numbers from here on are names: of leases and of records on the disk

# What says nothing of what can happen: counters, times, what never changes.
UNSEEN = {
    *("tally", "_tally", "since", "progress", "peak", "reports", "counts", "attempts", "attempt", "scenario", "news"),
    *("_send", "_save", "_draw", "save", "stamp", "begun", "_next_lease", "name", "host", "pid", "window"),
    *("lessee", "report", "pieces"),
}
UNSEEN_OF = {
    "Lessee": {"items"},  # `World.key` says whether it is what the worker would say now
    "Poison": {"items", "_positions"},  # no item is given up here
    "Lease": {"first", "count", "shuffle", "on_error"},  # these follow from the plan, which is one
    "Opened": {"plan", "items", "source", "batch", "remainder", "use_list"},
    "EpochsJob": {"pipeline", "group"},
    "Production": {"_lease_time", "plan"},
    "Ledger": {"splits", "rows", "strict", "even", "window"},
    "SimWorker": {"failed", "made", "todo", "up", "down", "session", "connected"},  # see `World.key`
}
LIST, MAP, SET, END, SAME = "\0[", "\0{", "\0<", "\0]", "\0@"
_CONSTANT = {Plan, Rows, State, e.Source}
_told_of: dict[Any, str] = {}
_fields: dict[type, tuple[bool, tuple[str, ...]]] = {}


class Record(dict[str, Any]):
    """A record for the disk, which nobody changes. One number stands for all that are equal."""

    __slots__ = ("_number", "text")

    def __init__(self, value: Any) -> None:
        self.text = json.dumps(value)
        self._number = -1
        super().__init__(json.loads(self.text))

    @property
    def number(self) -> int:
        """Its place among the records that were compared or copied; these are kept."""
        if self._number < 0:
            self._number = _numbers.setdefault(self.text, len(_records))
            if self._number == len(_records):
                _records.append(self)
                names: dict[Any, int] = {}
                walk = Walk(names)
                walk.see(dict(self))
                _templates.append((walk.digest(), tuple(names)))
        return self._number


_numbers: dict[str, int] = {}
_records: list[Record] = []
_templates: list[tuple[bytes, tuple[Any, ...]]] = []


class Walk:
    """Goes through a structure. What was drawn or counted stands only for the place where it stood first.

    Two worlds with the same parts are equal but for those names, for what `UNSEEN` lists, and for the order of entries
    under numbers and texts that are no names, which the broker goes through in the order of its own queues only.
    """

    def __init__(self, names: dict[Any, int] | None = None) -> None:
        self.names: dict[Any, int] = {} if names is None else names
        self.seen: dict[int, int] = {}
        self.parts: list[Any] = []

    def digest(self) -> bytes:
        # The second version of marshal's form depends on values alone.
        return hashlib.blake2b(marshal.dumps(self.parts, 2), digest_size=16).digest()

    def name(self, value: Any) -> None:
        self.parts.append(self.names.setdefault(value, len(self.names)) + 0.5)

    def see(self, value: Any) -> None:  # noqa: C901  # one branch a kind; it is called a hundred times a state
        kind = type(value)
        parts = self.parts
        if kind is int:
            if value >= RENAMED:
                self.name(value)
            else:
                parts.append(value)
        elif kind is bool or value is None or kind is float:
            parts.append(value)
        elif kind is str:
            if len(value) == 32:
                self.name(bytes.fromhex(value))
            elif len(value) == 2 and value[0] == "w":  # which worker it was says nothing
                parts.append("w")
            else:  # nor do the counts of a report
                parts.append("a report" if '"redelivered"' in value else value)
        elif kind is bytes:
            if len(value) == 16:
                self.name(value)
            else:
                parts.append(value)
        elif kind in (tuple, list, deque):
            parts.append(LIST)
            for each in value:
                self.see(each)
            parts.append(END)
        elif kind is dict:
            self._see_map(value)
        elif kind is set or kind is frozenset:
            parts.append(SET)
            for each in sorted(value):
                self.see(each)
            parts.append(END)
        else:
            self._see_object(value, kind)

    def _see_map(self, value: dict[Any, Any]) -> None:
        parts = self.parts
        parts.append(MAP)
        pairs: Iterable[tuple[Any, Any]] = value.items()
        key = next(iter(value), 0)
        if not (isinstance(key, bytes) or (isinstance(key, int) and key >= RENAMED)):
            pairs = sorted(pairs)
        for key, each in pairs:
            self.see(key)
            self.see(each)
        parts.append(END)

    def _see_object(self, value: Any, kind: type) -> None:
        parts = self.parts
        if kind is Record:
            static, names = _templates[value.number]
            parts.append(static)
            for each in names:
                self.name(each)
            return
        if kind in _CONSTANT:
            told = _told_of.get(value)
            if told is None:
                told = _told_of[value] = repr(value)
            parts.append(told)
            return
        if isinstance(value, Enum):
            parts.append(value.name)
            return
        found = _fields.get(kind)
        if found is None:
            found = _fields[kind] = _described(value, kind)
        by_value, fields = found
        if not by_value:  # it may stand in several places, and what changes in one changes in all
            number = self.seen.get(id(value))
            if number is not None:
                parts.append(SAME)
                parts.append(number)
                return
            self.seen[id(value)] = len(self.seen)
        parts.append(kind.__name__)
        state = value.__dict__
        for field in fields:
            self.see(state[field])


def _described(value: Any, kind: type) -> tuple[bool, tuple[str, ...]]:
    if callable(value) or not hasattr(value, "__dict__"):
        raise TypeError(f"{kind} cannot be compared")
    unseen = UNSEEN | UNSEEN_OF.get(kind.__name__, set())
    frozen = is_dataclass(kind) and kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    return frozen, tuple(sorted(vars(value).keys() - unseen))


def digest(value: Any) -> bytes:
    """Return the hash of a structure."""
    walk = Walk()
    walk.see(value)
    return walk.digest()


# ---------------------------------------------------------------------- copies

_constants: dict[Any, int] = {}
_values: list[Any] = []
_tally = Tally()


def _value(number: int) -> Any:
    return _values[number]


def _record(number: int) -> Record:
    return _records[number]


def _one_tally() -> Tally:
    return _tally


def _constant(value: Any) -> tuple[Any, tuple[int]]:
    number = _constants.setdefault(value, len(_constants))
    if number == len(_values):
        _values.append(value)
    return _value, (number,)


def _unchanging(value: Any) -> Any:
    """Reduce what nobody changes to its number, though it has lists in it."""
    kind = type(value)
    try:
        text = kind, marshal.dumps(list(value.__dict__.values()), 2)
    except ValueError:  # something in it is no plain value
        return value.__reduce_ex__(5)
    number = _constants.setdefault(text, len(_constants))
    if number == len(_values):
        _values.append(value)
    return _value, (number,)


DISPATCH: dict[type, Any] = {
    Plan: _constant,
    Rows: _constant,
    State: _constant,
    **dict.fromkeys((*Message.__subclasses__(), Made), _unchanging),
    Record: lambda record: (_record, (record.number,)),
    Tally: lambda _: (_one_tally, ()),
}


def packed(world: Any) -> bytes:
    """Return what `pickle.loads` makes a world of again, in this process."""
    DISPATCH.setdefault(type(world.scenario), _constant)
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, 5)
    pickler.dispatch_table = DISPATCH
    pickler.dump(world)
    return buffer.getvalue()

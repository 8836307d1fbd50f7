"""Owns the position in a DataFlow: who has one, and what an operator adds to that of its source.

A state says which datapoint was handed out last; what an operator knows beyond its source's state it puts around that,
as ``{"operator": NAME, FIELD: NUMBER, "ds": STATE}``, while there is such a thing. Otherwise it passes it on as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dfserve.dataflow.items import how_far_up
from dfserve.errors import ConfigError, DfserveError


def withdraw_state_of_another_pass(cls: type) -> None:
    """Refuse the state that ``cls`` inherits from further up than its ``__iter__``: it is that of another pass."""
    for name, refuse in (("state_dict", refuse_state), ("load_state_dict", refuse_to_load)):
        if how_far_up(cls, "__iter__") < how_far_up(cls, name):
            setattr(cls, name, refuse)


def refuse_state(self: Any) -> dict[str, Any]:
    """Be the ``state_dict()`` of what has no position.

    Raises:
        ConfigError: always.
    """
    raise without_position(self)


def refuse_to_load(self: Any, state: dict[str, Any]) -> None:  # noqa: ARG001  # whatever it is
    """Be the ``load_state_dict()`` of what has no position.

    Raises:
        ConfigError: always.
    """
    raise without_position(self)


def without_position(ds: Any) -> ConfigError:
    """Return the error for what has no position."""
    name = type(ds).__name__
    return ConfigError(
        f"{name} has no position that a checkpoint could keep: it is a source without one (RemoteDataZMQ in epochs"
        " mode has one), or an operator that reads ahead, mixes, keeps or starts over, or is not known to do none of"
        f" these. Move {name} into the producers' pipeline, or define state_dict() and load_state_dict() in it, as the"
        " documentation of DataFlow.state_dict says"
    )


def state_of(ds: Any) -> dict[str, Any]:
    """Return ``ds.state_dict()``, also of what is no DataFlow.

    Raises:
        ConfigError: it has no position.
    """
    if not hasattr(ds, "state_dict"):
        raise without_position(ds)
    state: dict[str, Any] = ds.state_dict()
    return state


def known_state(ds: Any) -> dict[str, Any] | None:
    """Return ``ds.state_dict()``, or None where it has none or cannot tell it now."""
    try:
        return state_of(ds)
    except DfserveError:
        return None


def load_into(ds: Any, state: dict[str, Any]) -> None:
    """Call ``ds.load_state_dict(state)``, also of what is no DataFlow.

    Raises:
        ConfigError: it has no position, or ``state`` is no dict.
    """
    if not isinstance(state, dict):
        raise ConfigError(f"a state is the dict that state_dict() returned, not an object of {type(state).__name__}")
    if not hasattr(ds, "load_state_dict"):
        raise without_position(ds)
    ds.load_state_dict(state)


class Position:
    """What an operator knows of its place beyond the state of its source: one number, 0 where there is no more to say.

    Attributes:
        number: what it is now.
        source: the state of the source that it counts from; None: the one that the source has now.
    """

    def __init__(self, operator: str, field: str) -> None:
        self.number = 0
        self.source: dict[str, Any] | None = None
        self._operator, self._field = operator, field
        self._first = 0  # where the next pass begins
        self._turn = 0  # the newest pass: one that is left behind and closed later says nothing any more

    @contextmanager
    def passing(self) -> Iterator[int]:
        """Surround a pass; lends the number it begins with, which is not 0 after a state was loaded.

        A pass that ends or is given up leaves 0, for what follows is another one. One that fails, or is interrupted,
        leaves the number as it is: that of the last datapoint that was handed out.
        """
        self._turn += 1
        turn = self._turn
        self.number, self.source, self._first = self._first, None, 0
        try:
            yield self.number
        except GeneratorExit:
            self._leave(turn)
            raise
        self._leave(turn)

    def _leave(self, turn: int) -> None:
        if self._turn == turn:
            self.number, self.source = 0, None

    def state(self, ds: Any) -> dict[str, Any]:
        """Return the state of the operator over ``ds``; raises ConfigError if that has none."""
        inner = state_of(ds) if self.source is None else self.source
        if not self.number and inner.get("operator") != self._operator:
            return inner  # what load() reads as 0, for there is nothing of this operator's
        return {"operator": self._operator, self._field: self.number, "ds": inner}

    def load(self, ds: Any, state: dict[str, Any], most: int) -> None:
        """Take the state of the operator over ``ds``, which loads its part of it.

        Args:
            ds: the source.
            state: what ``state()`` returned.
            most: the largest number that this operator can be at.

        Raises:
            ConfigError: it is no such state, or ``ds`` has none.
        """
        number, inner = 0, state
        if isinstance(state, dict) and state.get("operator") == self._operator:
            number, inner = self._unpacked(state, most)
        load_into(ds, inner)
        self.number, self._first, self.source = number, number, None
        self._turn += 1

    def _unpacked(self, state: dict[str, Any], most: int) -> tuple[int, dict[str, Any]]:
        fields = {"operator", self._field, "ds"}
        if state.keys() != fields:
            raise ConfigError(
                f"the state of {self._operator} has the fields {sorted(state, key=str)}, not {sorted(fields)}: load it"
                " as state_dict() returned it"
            )
        number = state[self._field]
        if type(number) is not int or not 0 <= number <= most:
            raise ConfigError(
                f"the state of {self._operator} has {self._field}={number!r}; here it is an integer from 0 to {most}:"
                f" load it into a {self._operator} with the arguments that it was saved with"
            )
        return number, state["ds"]

"""Owns the passing over of a part of an epoch: what a state is after it."""

from __future__ import annotations

from dataclasses import replace

from dfserve.epochs.plan import MAX_ITEMS
from dfserve.epochs.state import State
from dfserve.errors import ConfigError


def skip_rows(state: State, rows: int) -> State:
    """Return the state that passes over ``rows`` whole rows: each rank leaves out ``rows`` strides from where it is.

    Workers make the outputs that are passed over again and drop them, for in strict order it is not known in which
    split a later row begins. A row beyond the epoch's last means the epoch's end.

    Raises:
        ConfigError: the order is not strict, ``rows`` is below 1, or so large that it is beyond any epoch.
    """
    if state.order != "strict":
        raise ConfigError(f"rows are of the strict order, and this state has order={state.order!r}: skip items")
    if rows < 1:
        raise ConfigError(f"rows to skip: {rows}; there must be at least 1")
    if state.row + rows >= MAX_ITEMS // state.row_size:
        raise ConfigError(
            f"rows to skip: {rows} of {state.row_size} datapoints, from row {state.row} on; that is beyond any epoch"
        )
    return replace(state, row=state.row + rows)


def skip(state: State, items: int) -> tuple[State, int]:
    """Return a state that passes over at least the next ``items`` items of the epoch, and how many it does pass over.

    To leave out a range of data, as after a spike of the loss. In strict order whole rows are passed over, as many as
    ``items`` outputs need: if a pipeline does not make one output of each item, these are not as many items. In order
    of arrival it is the rest of what is open, then the first whole splits that are not done; the rest of the
    open ones counts as if each item made one output.

    Raises:
        ConfigError: ``items`` is below 1, or more than the epoch has left.
    """
    if items < 1:
        raise ConfigError(f"items to skip: {items}; there must be at least 1")
    handed = state.row * state.row_size + state.taken * state.world if state.order == "strict" else 0
    if items > max(0, state.n - handed):
        raise _beyond(items, max(0, state.n - handed), state)
    if state.order == "strict":
        rows = -(-items // state.row_size)
        return skip_rows(state, rows), rows * state.row_size
    return _skip_splits(state, items)


def _skip_splits(state: State, items: int) -> tuple[State, int]:
    done = list(state.done)
    skipped = 0
    for split, handed in state.open:
        skipped += max(0, state.items_of(split) - handed)
        done = _joined([*done, (split, split + 1)])
    for first, last in _gaps(done, state.splits):
        if skipped >= items:
            break
        wanted = min(last - first, -(-(items - skipped) // state.split_size))
        done.append((first, first + wanted))
        skipped += (wanted - 1) * state.split_size + state.items_of(first + wanted - 1)
    if skipped < items:
        raise _beyond(items, skipped, state)
    return replace(state, done=tuple(_joined(done)), open=()), skipped


def _gaps(done: list[tuple[int, int]], splits: int) -> list[tuple[int, int]]:
    """Return the ranges of splits that are not done."""
    ends = [0, *(last for _, last in done)]
    begins = [*(first for first, _ in done), splits]
    return [(first, last) for first, last in zip(ends, begins, strict=True) if first < last]


def _joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return disjoint ranges in order, those that touch made one."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if joined and joined[-1][1] == first:
            joined[-1] = (joined[-1][0], last)
        else:
            joined.append((first, last))
    return joined


def _beyond(items: int, left: int, state: State) -> ConfigError:
    return ConfigError(
        f"items to skip: {items}, but epoch {state.epoch} has {left} of {state.n} left: skip no more than these; the"
        " next epoch has another order, and is skipped from a state of its own"
    )

"""Owns the plan of a job in epochs mode: what all ranks of a group must agree on, and what follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from dfserve.epochs.rows import Rows
from dfserve.errors import ConfigError

ORDERS = ("arrival", "strict")
EVENS = ("", "drop", "pad")
MAX_SPLIT = 4096  # items: a message lists what each of them gave
MAX_WORLD = 4096  # ranks of one group
MAX_ITEMS = 1 << 62
# What a split is to make where its size is not given. Arrays of 150 KB came at 6,400/s with 2 MiB, at 9,500 with 4 and
# at 14,500 with this (a stream of them at 20,000). But a strict order begins when its first split is made, and what a
# trainer that is killed had claimed and not used is two of them.
BLOCK_BYTES = 8 << 20
SPLITS_LEAST = 64  # splits in an epoch where the source has so many items, so that no worker is idle for long


@dataclass(frozen=True)
class Plan:
    """What one pass after another over a pipeline means to a group.

    Attributes:
        pipeline: its name.
        seed: of the order and of every item's random numbers.
        shuffle: a new order in every epoch, or always that of the source.
        order: "strict", the plan's order, or "arrival", what is ready first.
        split_size: items of a split; 0 until the broker has chosen it.
        world: ranks.
        stride: datapoints that a rank takes in a row; 0 until the broker has set it to the pipeline's batch, or 1.
        even: what becomes of the last, incomplete row: "drop" or "pad"; "" with one rank, which needs neither.
    """

    pipeline: str
    seed: int
    shuffle: bool
    order: str
    split_size: int
    world: int
    stride: int
    even: str

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise ConfigError(f"order is {self.order!r}; it is one of {', '.join(ORDERS)}")
        if not 0 <= self.seed < MAX_ITEMS:
            raise ConfigError(f"the seed is {self.seed}; it must be between 0 and {MAX_ITEMS - 1}")
        if not 0 <= self.split_size <= MAX_SPLIT:
            raise ConfigError(f"split_size is {self.split_size} items; it must be 1 to {MAX_SPLIT}, or None")
        if not 1 <= self.world <= MAX_WORLD:
            raise ConfigError(f"world is {self.world}; it counts the ranks of the group, 1 to {MAX_WORLD}")
        if self.stride < 0:
            raise ConfigError(f"stride is {self.stride}; it counts datapoints and must be at least 1, or None")
        if self.even not in EVENS or (self.world > 1 and not self.even):
            raise ConfigError(
                f"even is {self.even or None!r} with world={self.world}: choose even='drop' (the last, incomplete row"
                " is left out) or even='pad' (it is filled up with repeats), so that all ranks take as many steps"
            )

    @property
    def rows(self) -> Rows:
        """Which datapoints belong to which rank."""
        return Rows(self.world, self.stride)

    def differs(self, other: Plan) -> str:
        """Name the first field in which another plan disagrees, with both values; "" where none does.

        A split size or stride that is not given agrees with any.
        """
        for field in fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            if mine != theirs and not (field.name in ("split_size", "stride") and 0 in (mine, theirs)):
                hint = " (where it is not given, it is batch_size)" if field.name == "stride" else ""
                return f"{field.name} is {theirs!r}, and that of the group is {mine!r}{hint}"
        return ""

    def sized(self, items: int, item_bytes: int, batch: int) -> Plan:
        """Return the plan with what was left open.

        Args:
            items: of the source.
            item_bytes: of the outputs of one of them.
            batch: datapoints of the pipeline's trailing batch, or 0.
        """
        wanted = max(1, BLOCK_BYTES // max(1, item_bytes))
        size = self.split_size or max(1, min(wanted, items // SPLITS_LEAST, MAX_SPLIT))
        return replace(self, split_size=size, stride=self.stride or max(1, batch))

    def splits(self, items: int) -> int:
        """Return how many splits an epoch over ``items`` items has."""
        return -(-items // self.split_size)

    def span(self, split: int, items: int) -> tuple[int, int]:
        """Return the first position of a split, and how many it has."""
        first = split * self.split_size
        return first, min(self.split_size, items - first)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, all of plain JSON types."""
        return asdict(self)


def merged(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the same numbers in as few [first, last) ranges as can be, sorted."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if found and first <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return found

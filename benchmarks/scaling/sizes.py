"""Owns the sizes that are measured: how many producers, consumers and groups, and in how many processes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """One arrangement around a standalone broker, or several.

    Attributes:
        title: as the table shows it.
        producers: sessions, each a call of `send_dataflow_zmq` in a thread of its own.
        processes: over which the producers are spread.
        groups: each gets everything.
        consumers: of each group; a process each.
        brokers: each has an equal part of the producers, and every consumer takes from all.
    """

    title: str
    producers: int = 1
    processes: int = 1
    groups: int = 1
    consumers: int = 1
    brokers: int = 1


SIZES = {
    "one": Size("1 producer, 1 consumer"),
    "producers16": Size("16 producers (2 processes)", producers=16, processes=2),
    # 128 processes of 40 MB would test this machine's memory and its scheduler, not the broker.
    "producers128": Size("128 producers (8 processes)", producers=128, processes=8),
    "consumers8": Size("8 consumers of one group", consumers=8),
    "groups2": Size("2 groups", groups=2),
    "producers2": Size("2 producers, 1 broker", producers=2, processes=2),
    "brokers2": Size("2 producers, 2 brokers", producers=2, processes=2, brokers=2),
}

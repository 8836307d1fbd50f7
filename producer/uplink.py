"""Owns how a worker's datapoints get to a broker: where it is, how much is under way, and in which form."""

from __future__ import annotations

from dataclasses import dataclass

from dfserve.keys import ClientKeys


@dataclass(frozen=True)
class Uplink:
    """A worker's way to one broker.

    Attributes:
        address: the broker's.
        hwm: datapoints that may be in flight, see `Window`; 50 is tensorpack's.
        keys: what the worker presents over tcp; None: nothing, and what it sends is not encrypted.
        compression: the name of a codec (`dfserve.wire.codecs`) for blocks on their way there; None: none.
        shared_memory: build blocks in memory that a broker on this machine reads.
    """

    address: str
    hwm: int = 50
    keys: ClientKeys | None = None
    compression: str | None = None
    shared_memory: bool = True

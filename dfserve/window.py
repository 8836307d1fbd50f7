"""Owns the rule for how much a worker or a consumer may have in flight: a count of datapoints within byte bounds."""

from __future__ import annotations

from dataclasses import dataclass

from dfserve.errors import ConfigError

# Under this, `hwm` does not bind: tensorpack's high-water mark did not count what lay in the kernel's socket buffers
# either, a few MiB, and without it 50 datapoints of 2 KB would be a tenth of a block in flight.
FLOOR_BYTES = 16 << 20
# The same for a worker: two of its largest blocks, so that one is offered and granted while another is on its way, and
# the next one is made meanwhile. With one the connection waits for the answer to each offer (measured: 1.13 times as
# many images over tcp, 1.19 times as many tokens through shared memory).
WORKER_FLOOR_BYTES = 32 << 20
# Over this no further block is taken in, whatever `hwm` says: 50 batches of 38 MB would be 1.9 GB in every worker.
CEILING_BYTES = 64 << 20
# Nor over this: blocks of a few bytes cost their handling, not their bytes.
CEILING_BLOCKS = 256
# One block on its way while the next is made; less would stop and wait for every large batch.
FLOOR_BLOCKS = 2


@dataclass(frozen=True)
class Window:
    """How much may be in flight.

    Attributes:
        hwm: datapoints, at least 1. It binds between two bounds in bytes.
        floor: the lower one of these.
    """

    hwm: int
    floor: int = FLOOR_BYTES

    def __post_init__(self) -> None:
        if self.hwm < 1:
            raise ConfigError(f"hwm is {self.hwm}; it counts datapoints in flight and must be at least 1")

    def has_room(self, blocks: int, datapoints: int, nbytes: int) -> bool:
        """Tell whether one more block may be put in flight beside what is there."""
        if blocks < FLOOR_BLOCKS:
            return True
        if blocks >= CEILING_BLOCKS:
            return False
        return nbytes < self.floor or (datapoints < self.hwm and nbytes < CEILING_BYTES)

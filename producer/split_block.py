"""Owns the collecting of a split's outputs into one block, whatever their kinds and their number."""

from __future__ import annotations

from typing import Any

from dfserve.producer.foreign import to_arrays
from dfserve.producer.splits import NoItemsFault
from dfserve.wire.arrays import Supply
from dfserve.wire.blocks import decode_block
from dfserve.wire.builder import BlockBuilder, EncodedBlock
from dfserve.wire.limits import DEFAULT_LIMITS, Limits

_ANY_BYTES = 1 << 60  # the block's size is checked here, after each output


class BlockOverflow(NoItemsFault):
    """The outputs of a split take more bytes than the broker's whole budget.

    Attributes:
        nbytes: of those so far.
    """

    def __init__(self, nbytes: int) -> None:
        super().__init__(f"{nbytes} bytes so far")
        self.nbytes = nbytes


class OutputsDiffer(NoItemsFault):
    """The outputs of a split cannot travel in one block; the text says why, and what to do."""


class SplitBlock:
    """A block under construction. Everything is copied when it is added.

    Args:
        expected: outputs to make room for at first.
        budget: bytes that it may have.
        max_frame: bytes of one array that the broker admits.
        supply: where its memory comes from, see `BlockBuilder`.
    """

    def __init__(self, expected: int, budget: int, max_frame: int, supply: Supply | None = None) -> None:
        self._supply = supply
        self._expected = expected
        self._budget = budget
        self._limits = Limits(max_frame=min(max_frame, DEFAULT_LIMITS.max_frame))
        self.clear()

    def clear(self) -> None:
        """Throw away what was added."""
        self._mixed = False
        self._builder = self._new_builder()

    @property
    def count(self) -> int:
        """Outputs that were added."""
        return self._builder.count

    def add(self, output: Any) -> None:
        """Add an output; Tensors and images in it become arrays.

        Raises:
            EncodeError: it can travel in no block; the block is as before.
            BlockOverflow, OutputsDiffer: see there.
        """
        builder = self._builder
        if builder.take(output):
            return
        output = to_arrays(output)
        if not builder.add(output):
            if not (self._loosen() and self._builder.add(output)):
                raise OutputsDiffer(self._complaint(output))
            builder = self._builder
        if builder.nbytes > self._budget:
            raise BlockOverflow(builder.nbytes)

    def close(self) -> EncodedBlock:
        """Return the block; at least one output was added."""
        return self._builder.close()

    def _new_builder(self) -> BlockBuilder:
        return BlockBuilder(
            _ANY_BYTES,
            self._limits.max_count,
            self._limits,
            mixed=self._mixed,
            rows=max(1, self._expected),
            supply=self._supply,
            take_bytes=self._budget,
        )

    def _loosen(self) -> bool:
        """Let components be of other kinds, or of more bytes than one frame has, in other outputs."""
        if self._mixed:
            return False
        before = decode_block(self._builder.close().frames, self._limits)
        self._mixed = True
        self._builder = self._new_builder()
        return all(self._builder.add(output) for output in before)

    def _complaint(self, output: Any) -> str:
        return (
            f"output {self._builder.count} of the split, a {type(output).__name__} of {len(output)} components, does"
            " not fit into the block of those before it. In epochs mode the outputs of a split travel in one block: all"
            " must be lists, all tuples or all dicts, with as many components and the same keys, and they may have"
            f" {self._limits.max_frames} large arrays of different kinds and {self._limits.max_count} outputs; make"
            " them alike, or lower split_size"
        )

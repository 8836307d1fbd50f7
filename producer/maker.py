"""Owns what a worker makes for epochs: the answers to the broker's question for the source, and to leases."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dfserve.dataflow.base import DataFlow
from dfserve.dataflow.failures import text_of
from dfserve.errors import ConfigError
from dfserve.producer.lessee import Answer
from dfserve.producer.reports import cut_text, listed, traceback_of
from dfserve.producer.split_block import BlockOverflow, OutputsDiffer, SplitBlock
from dfserve.producer.splits import ItemFailed, NoItemsFault, Outcome, Split, SplitRunner
from dfserve.wire.arrays import Supply
from dfserve.wire.epoch_messages import Lease, Made, MadeNothing, NotMade, Source
from dfserve.wire.messages import MAX_NAME, MAX_REASON, MAX_TEXT, ProducerWelcome

log = logging.getLogger("dfserve.producer")

LEASE_OVERHEAD = 2048  # bytes of a lease that are for what surrounds its block at the broker, as of every block


@dataclass(frozen=True)
class Product:
    """What was made of a lease.

    Attributes:
        answer: the message.
        frames: of the block that it carries.
        outputs: datapoints in the block.
        nbytes: of the block.
    """

    answer: Answer
    frames: Sequence[Any] = ()
    outputs: int = 0
    nbytes: int = 0


class Maker:
    """Runs a pipeline over the splits that are leased.

    Args:
        build: returns the pipeline, always the same.
        supply: where the memory of blocks comes from, see `BlockBuilder`.
        blamed: what of the exceptions is the pipeline's, see `SplitRunner`.
    """

    def __init__(
        self, build: Callable[[], DataFlow], supply: Supply | None = None, blamed: type[BaseException] = Exception
    ) -> None:
        self._build = build
        self._supply = supply
        self._blamed = blamed
        self._made: SplitRunner | None = None

    def describe(self, limits: ProducerWelcome | None) -> Source:
        """Return what the pipeline's items come from, or why it cannot serve epochs."""
        try:
            source = self._runner.source
            item_bytes = self._item_bytes(limits) if source.length else 0
        except ConfigError as error:
            log.error("the pipeline cannot be served in epochs mode: %s", text_of(error))
            return _refusal(text_of(error))
        except self._blamed as error:  # whatever the factory raises
            log.exception("the pipeline cannot be built")
            return _refusal(f"the pipeline cannot be built: {traceback_of(error)}")
        batch = source.batch
        return Source(
            name=cut_text(source.name, MAX_NAME),
            items=source.length,
            sharded=source.sharded,
            fingerprint=source.fingerprint,
            item_bytes=item_bytes,
            batch=0 if batch is None else batch.batch_size,
            remainder=batch is not None and batch.remainder,
            use_list=batch is not None and batch.use_list,
            refusal="",
        )

    def make(self, lease: Lease, limits: ProducerWelcome, at: Callable[[int], object]) -> Product:
        """Run the pipeline over the split of a lease, telling ``at`` each position before its item is fetched.

        A `NoItemsFault` that ``at`` raises ends it, and is raised here.
        """
        split = Split(
            lease.seed, lease.epoch, lease.shuffle, lease.first, lease.count, frozenset(lease.skip), lease.on_error
        )
        block = SplitBlock(lease.count, limits.budget, limits.max_frame, self._supply)
        try:
            outcome = self._run(split, block, at)
        except BlockOverflow as found:
            return Product(_not_made(lease, nbytes=found.nbytes))
        except OutputsDiffer as found:
            return Product(_not_made(lease, kind="ConfigError", text=str(found)))
        except ItemFailed as failed:
            return Product(_failure(lease, failed.__cause__ or failed, failed.key))
        except NoItemsFault:
            raise
        except self._blamed as error:  # whatever the pipeline raises
            return Product(_failure(lease, error, ""))
        return _product(lease, block, outcome)

    @property
    def _runner(self) -> SplitRunner:
        if self._made is None:
            self._made = SplitRunner(self._build(), self._blamed)
        return self._made

    def _run(self, split: Split, block: SplitBlock, at: Callable[[int], object]) -> Outcome:
        return self._runner.run(split, block.add, at, block.clear)

    def _item_bytes(self, limits: ProducerWelcome | None) -> int:
        """Return the bytes that one item's outputs take, for the broker to choose the size of splits by."""
        assert limits is not None, "it was asked for by a broker that had welcomed us"
        block = SplitBlock(1, limits.budget, limits.max_frame)
        try:
            self._run(Split(0, 0, False, 0, 1, on_error="skip"), block, bool)
        except BlockOverflow as found:
            return found.nbytes
        except (ItemFailed, OutputsDiffer):
            return 0  # whoever leases it will hear
        return block.close().nbytes if block.count else 0


def _product(lease: Lease, block: SplitBlock, outcome: Outcome) -> Product:
    quarantined = listed(outcome.quarantined)
    if not block.count:
        return Product(MadeNothing(lease.lease, lease.generation, lease.epoch, lease.split, quarantined))
    outputs = block.count
    counts = outcome.counts if any(count != 1 for count in outcome.counts) else []
    encoded = block.close()
    if encoded.nbytes > lease.most - LEASE_OVERHEAD:
        return Product(_not_made(lease, nbytes=encoded.nbytes))
    answer = Made(lease.lease, lease.generation, lease.epoch, lease.split, outputs, counts, quarantined)
    return Product(answer, encoded.frames, outputs, encoded.nbytes)


def _failure(lease: Lease, error: BaseException, key: str) -> NotMade:
    log.error("split %d of epoch %d: %s at %s: %s", lease.split, lease.epoch, type(error).__name__, key, text_of(error))
    return _not_made(lease, key=key, kind=type(error).__name__, text=text_of(error), traceback=traceback_of(error))


def _not_made(
    lease: Lease, *, nbytes: int = 0, key: str = "", kind: str = "", text: str = "", traceback: str = ""
) -> NotMade:
    return NotMade(
        lease.lease,
        lease.generation,
        lease.epoch,
        lease.split,
        nbytes,
        cut_text(key, MAX_REASON),
        cut_text(kind, MAX_NAME),
        cut_text(text, MAX_TEXT),
        cut_text(traceback, MAX_TEXT),
    )


def _refusal(text: str) -> Source:
    return Source("", 0, False, "", 0, 0, False, False, cut_text(text, MAX_TEXT))

"""Owns who a rank of an epochs group says it is, and what it wants."""

from __future__ import annotations

import json

from dfserve.consumer.options import whole
from dfserve.dataflow.policy import OnError
from dfserve.epochs.plan import Plan
from dfserve.errors import ConfigError
from dfserve.wire import epoch_messages as e


def checked_batch(size: int | None) -> int:
    """Return the size of a batch; 0 for None."""
    if size is None:
        return 0
    size = whole("batch_size", size)
    if size < 1:
        raise ConfigError(f"batch_size is {size}: a batch has at least 1 datapoint")
    return size


def rank_identity(
    plan: Plan, group: str, hwm: int, rank: int, resume: str, on_error: OnError, *, hosts: bool
) -> e.EpochsHello:
    """Return what a rank wants, of a process that is filled in when it connects. ``hosts``: it has its own broker."""
    if not 0 <= rank < plan.world:
        raise ConfigError(f"rank is {rank}; with world={plan.world} ranks are 0 to {plan.world - 1}")
    return e.EpochsHello(
        session=b"",
        name="",
        host="",
        pid=0,
        pipeline=plan.pipeline,
        group=group,
        hwm=hwm,
        rank=rank,
        plan=json.dumps(plan.to_dict()),
        resume=resume,
        state="",
        on_error="raise" if on_error == "raise" else "skip",
        hosts=hosts,
        epoch=0,
        broker=b"",
        generation=b"",
        received=0,
        holding=[],
    )

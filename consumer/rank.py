"""Owns who a rank of an epochs group says it is, and what it wants."""

from __future__ import annotations

import json
import os
import secrets
import socket

from dfserve.dataflow.policy import OnError
from dfserve.epochs.plan import Plan
from dfserve.errors import ConfigError
from dfserve.wire import epoch_messages as e
from dfserve.wire import messages as m


def checked_batch(size: int | None) -> int:
    """Return the size of a batch; 0 for None."""
    if size is not None and size < 1:
        raise ConfigError(f"batch_size is {size}: a batch has at least 1 datapoint")
    return size or 0


def rank_identity(
    plan: Plan, group: str, hwm: int, rank: int, resume: str, on_error: OnError, *, hosts: bool
) -> e.EpochsHello:
    """Return who a rank of this process is, and what it wants. ``hosts``: it has a broker of its own."""
    if not 0 <= rank < plan.world:
        raise ConfigError(f"rank is {rank}; with world={plan.world} ranks are 0 to {plan.world - 1}")
    host = socket.gethostname()
    return e.EpochsHello(
        session=secrets.token_bytes(m.SESSION_BYTES),
        name=f"{host}/{os.getpid()}",
        host=host,
        pid=os.getpid(),
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

"""Owns the error that the loop raises for what a pipeline raised on a data machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dfserve.errors import PipelineError

if TYPE_CHECKING:
    from dfserve.wire.epoch_messages import Mishap, Quarantined
    from dfserve.wire.messages import DeliverFailure


def pipeline_error(message: DeliverFailure | Mishap | Quarantined, place: str = "") -> PipelineError:
    """Return the error, with key, host, worker and remote traceback; ``place``: where it was, if at no item."""
    where = f"item {message.key}" if message.key.isdecimal() else message.key or place
    return PipelineError(
        f"{message.kind} at {where} on {message.host}: {message.text}",
        key=message.key,
        kind=message.kind,
        host=message.host,
        worker=message.worker,
        remote_traceback=message.traceback,
    )

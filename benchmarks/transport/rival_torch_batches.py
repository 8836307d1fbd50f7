"""Owns PyTorch's side as it is mostly used: batches of 64 by the default collate, taken apart in the consumer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.transport import rival_torch
from benchmarks.transport.apart import BATCH, apart


def receive(address: str, case: str) -> Iterator[Any]:
    """Yield datapoints for ever."""
    return apart(rival_torch.receive(address, case, BATCH))

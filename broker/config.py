"""Owns what a broker can be told: its limits, checked. It loads nothing large, since a broker binds before it does."""

from __future__ import annotations

from dataclasses import dataclass, fields
from numbers import Real

from dfserve.errors import ConfigError
from dfserve.wire.limits import Limits

MIN_BUDGET = 1 << 20  # bytes; less could not hold one block of the usual size


@dataclass(frozen=True)
class BrokerConfig:
    """What a broker can be told.

    Attributes:
        queue_bytes: budget for all that is granted, queued or handed out and not acknowledged. 1 GiB holds a few
            seconds of a fast pipeline, and is small beside a training machine's memory.
        max_frame: bytes of one array at most. (On the wire it comes in pieces.)
        liveness: seconds without a connection after which a client is given up. Longer than a switch takes to
            converge, shorter than a person's patience.
        lease_time: epochs mode: seconds in which a worker begins no item after which its splits go to others.
    """

    queue_bytes: int = 1 << 30
    max_frame: int = 256 << 20
    liveness: float = 10.0
    lease_time: float = 60.0

    def __post_init__(self) -> None:
        for field in fields(self):
            if not isinstance(value := getattr(self, field.name), Real):
                raise ConfigError(f"{field.name} is {value!r}; it is a number, of bytes or seconds")
        if self.queue_bytes < MIN_BUDGET:
            raise ConfigError(
                f"queue_bytes is {self.queue_bytes}; at least {MIN_BUDGET} (1MiB) is needed for one block"
            )
        if self.max_frame < MIN_BUDGET:
            raise ConfigError(f"max_frame is {self.max_frame}; at least {MIN_BUDGET} (1MiB) is needed for one block")
        if self.liveness <= 0:
            raise ConfigError(f"liveness is {self.liveness} seconds; it must be above 0")
        if self.lease_time <= 0:
            raise ConfigError(f"lease_time is {self.lease_time} seconds; it must be above 0")

    @property
    def limits(self) -> Limits:
        """The limits on messages that follow from it."""
        return Limits(max_frame=min(self.max_frame, self.queue_bytes))

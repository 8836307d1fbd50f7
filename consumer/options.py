"""Owns which arguments of `RemoteDataZMQ` may be given, and which belong together."""

from __future__ import annotations

import operator
from collections.abc import Collection
from typing import Any

from dfserve import endpoints
from dfserve.errors import ConfigError

OF_STREAMS = ("min_producers", "lag")
OF_EPOCHS = (
    "seed", "shuffle", "order", "split_size", "rank", "world", "stride", "even", "batch_size", "drop_last", "collate",
    "resume",
)  # fmt: skip
OF_BROKERS = ("queue_bytes", "max_frame", "metrics_port", "lease_time")
OF_DFSERVE = ("keys", "pipeline", "group", "on_error", *OF_STREAMS, *OF_EPOCHS, *OF_BROKERS)


def listed(addr1: str | list[str] | tuple[str, ...], addr2: str | None) -> list[str]:
    """Return the addresses of both arguments."""
    several = [addr1] if isinstance(addr1, str) else list(addr1)
    return several if addr2 is None else [*several, addr2]


def check_values(addresses: list[str], bind: bool, lag: str, timeout: float, min_producers: int) -> None:
    """See that each value can be.

    Raises:
        EndpointError, ConfigError: one cannot.
    """
    if not addresses:
        raise ConfigError("addr1 is an empty list; give at least one address")
    texts = [endpoints.parse(address).text for address in addresses]
    if not bind and len(set(texts)) < len(texts):
        raise ConfigError(f"{' and '.join(addresses)}: the same address twice")
    if lag not in ("wait", "skip"):
        raise ConfigError(f"lag is {lag!r}; it is 'wait' or 'skip'")
    if timeout <= 0:
        raise ConfigError(f"timeout is {timeout}; it counts seconds and must be above 0")
    if min_producers < 1:
        raise ConfigError(f"min_producers is {min_producers}; at least 1 must end before a stream can end")


def whole(name: str, value: Any) -> int:
    """Return an argument as an int of Python's own, which numpy's are not.

    Raises:
        ConfigError: it is no whole number.
    """
    try:
        return operator.index(value)
    except TypeError:
        raise ConfigError(f"{name} is {value!r}, of type {type(value).__name__}; it is a whole number") from None


def check_collate(collate: object) -> None:
    """See that batches can be made with it.

    Raises:
        ConfigError: it is no function.
    """
    if collate is not None and not callable(collate):
        raise ConfigError(
            f"collate is {collate!r}, of type {type(collate).__name__}; it is a function that makes a batch of a list"
            " of datapoints, or None"
        )


def check_addresses(addresses: list[str], bind: bool, mode: str, wire_format: str | None) -> None:
    """See that there are no more addresses than may be.

    Raises:
        ConfigError: there are.
    """
    if wire_format is not None and len(addresses) > 2:
        raise ConfigError(f"format={wire_format!r} takes two addresses at most, as tensorpack's does")
    if mode == "epochs" and not bind and len(addresses) > 1:
        raise ConfigError(
            "mode='epochs' takes one broker: it owns the plan and knows which item was handed out, so two would hand "
            f"out each item twice. Give one address, not {' and '.join(addresses)}, and send all producers there; "
            "mode='stream' takes several"
        )


def check_options(mode: str, wire_format: str | None, given: Collection[str]) -> None:
    """See that the options that were given do something.

    Those of a hosted broker may be given with ``bind=False``, too: ranks of one script differ in nothing but that.

    Args:
        mode: as for `RemoteDataZMQ`.
        wire_format: its ``format``.
        given: the names of the others that are not what they are by default.

    Raises:
        ConfigError: one would be ignored.
    """
    if mode not in ("stream", "epochs"):
        raise ConfigError(f"mode is {mode!r}; it is 'stream' or 'epochs'")
    if wire_format is not None and mode == "epochs":
        raise ConfigError(f"format={wire_format!r} is another program's, which has no epochs")
    if wire_format is not None and (idle := _named(OF_DFSERVE, given)):
        raise ConfigError(f"{idle}: format={wire_format!r} is another program's, which has no such thing; leave it out")
    other, names = ("epochs", OF_EPOCHS) if mode == "stream" else ("stream", OF_STREAMS)
    if idle := _named(names, given):
        raise ConfigError(f"{idle}: only mode={other!r} has this")


def _named(names: Collection[str], given: Collection[str]) -> str:
    return ", ".join(name for name in names if name in given)

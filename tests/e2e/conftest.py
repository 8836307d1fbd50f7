"""Owns what the end-to-end tests share beyond processes: a running broker with its metrics, and clients made by hand."""

from __future__ import annotations

import json
import re
import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import psutil
import pytest
import zmq

from dfserve.wire import messages as m

PATIENCE_MS = 30_000  # milliseconds that a client made by hand waits for an answer: a hang becomes a failure
Kind = TypeVar("Kind", bound=m.Message)


class RunningBroker:
    """A `dfserve broker` that is ready.

    Attributes:
        addresses: where it is bound, with ports resolved.
    """

    def __init__(self, program: Any, scrape: Callable[[int], Any], until: Callable[..., Any]) -> None:
        program.wait_until_said("broker ready at ")
        self.program = program
        self.addresses = re.findall(r"\S+", re.search(r"broker ready at ([^\"]+)", program.output)[1].replace(" and ", " "))  # type: ignore[index] # it said so
        self.metrics_port = int(re.search(r"metrics at http://\S+?:(\d+)/", program.output)[1])  # type: ignore[index] # it says so before that
        self._scrape, self._until = scrape, until

    @property
    def address(self) -> str:
        return self.addresses[0]

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    @property
    def rss(self) -> int:
        """Resident bytes of its process."""
        return int(psutil.Process(self.program.pid).memory_info().rss)

    def metrics(self) -> Any:
        return self._scrape(self.metrics_port)

    def total(self, name: str) -> float:
        return float(self.metrics().total(name))

    def bad(self) -> Counter[str]:
        """Bad messages by reason."""
        found = re.findall(r'dfserve_bad_messages_total\{reason="(\w+)"\}', "\n".join(values := self.metrics().values))
        return Counter({reason: int(values[f'dfserve_bad_messages_total{{reason="{reason}"}}']) for reason in found})

    def wait_for(self, name: str, least: float) -> None:
        """Wait until a metric, summed over its labels, has reached a value."""
        self._until(lambda: self.total(name) >= least, f"{name} to reach {least}")

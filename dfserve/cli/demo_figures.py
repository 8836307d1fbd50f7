"""Owns what the demo knows while it runs: the broker's metrics, its own counts, and what follows from them."""

from __future__ import annotations

import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

TIMEOUT = 5.0  # seconds for one look at the metrics
FULL = 0.5  # mean occupancy from which on the queue was rather full than empty
SMALL_WAIT = 0.1  # share of the time that a trainer may wait before its producers count as too slow


@dataclass(frozen=True)
class Reading:
    """The broker's metrics at one moment, by producer where there are several."""

    when: float  # monotonic seconds
    received: dict[str, int]  # datapoints
    nbytes: dict[str, int]
    blocked: dict[str, float]  # seconds
    delivered: int
    queued: int  # bytes
    capacity: int  # bytes

    @property
    def occupancy(self) -> float:
        """The queue's share of the budget, 0 to 1."""
        return self.queued / self.capacity


def read_metrics(port: int) -> Reading:
    """Ask the broker.

    Raises:
        OSError: nobody answers.
    """
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=TIMEOUT) as page:
        text = page.read().decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def by_producer(name: str) -> dict[str, float]:
        return {s.labels["producer"].partition("/")[0]: s.value for s in samples if s.name == f"dfserve_{name}"}

    def total(name: str) -> int:
        return int(sum(s.value for s in samples if s.name == f"dfserve_{name}"))

    return Reading(
        time.monotonic(),
        {name: int(value) for name, value in by_producer("datapoints_received_total").items()},
        {name: int(value) for name, value in by_producer("received_bytes_total").items()},
        by_producer("producer_blocked_seconds_total"),
        total("datapoints_delivered_total"),
        total("queue_bytes"),
        total("queue_capacity_bytes"),
    )


@dataclass
class Figures:
    """What has arrived so far.

    Attributes:
        arrived: datapoints handed to the trainer, by producer.
        wrong: datapoints that were not the next of their producer: one before them is missing, or they came twice.
        occupancies: the queue's occupancy each time somebody looked while producers were sending.
    """

    arrived: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    started: float = 0.0  # monotonic seconds: the first datapoint
    ended: float = 0.0  # the last one
    waited: float = 0.0  # seconds between the two
    occupancies: list[float] = field(default_factory=list)

    def add(self, producer: str, number: int) -> None:
        """Count a datapoint."""
        self.ended = time.monotonic()
        self.started = self.started or self.ended
        self.wrong += number != self.arrived[producer]
        self.arrived[producer] += 1

    @property
    def seconds(self) -> float:
        """From the first datapoint to the last."""
        return max(self.ended - self.started, 1e-9)

    @property
    def waited_share(self) -> float:
        """The share of that time that the trainer waited."""
        return min(1.0, self.waited / self.seconds)

    @property
    def occupancy(self) -> float:
        """The mean occupancy while producers were sending."""
        return sum(self.occupancies) / max(1, len(self.occupancies))

    def bottleneck(self) -> str:
        """Say which side is slower, why we think so, and what would help."""
        facts = f"the trainer waited {self.waited_share:.0%} of the time and the queue was {self.occupancy:.0%} full"
        if self.waited_share <= SMALL_WAIT:
            return f"the trainer ({facts} on average): producers could feed a faster one"
        if self.occupancy < FULL:
            return f"the pipelines ({facts} on average): add --workers or data machines"
        return f"the last hop ({facts} on average): data were there, but did not reach the trainer in time"


def account(figures: Figures, last: Reading) -> tuple[bool, str]:
    """Compare what producers sent, what the broker delivered and what the trainer counted; tell whether all agree."""
    received, arrived = sum(last.received.values()), figures.arrived.total()
    agree = received == last.delivered == arrived > 0 and last.received == dict(figures.arrived) and not figures.wrong
    sign = "=" if agree else "!="
    each = ", ".join(f"{name} {count}" for name, count in sorted(last.received.items()))
    text = (
        f"produced {received} ({each}) {sign} delivered {last.delivered} {sign} trained on {arrived}; "
        f"{figures.wrong} missing, repeated or out of order"
    )
    return agree, text

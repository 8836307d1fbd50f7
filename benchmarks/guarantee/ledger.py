"""Owns the cost of the broker's ledger by the length of an epoch: `python -m benchmarks.guarantee.ledger`."""

from __future__ import annotations

import time
import tracemalloc

from dfserve.broker.ledger import Ledger, Made, Start
from dfserve.epochs.rows import Rows

LENGTHS = (10**3, 10**4, 10**5, 10**6, 10**7)  # splits of an epoch
MADE = 50_000  # splits, at most: the first ones and the last ones
WINDOW = 1024  # splits under way, as in the broker
EVENTS = 3  # of a split: leased, made, claimed


def turn(ledger: Ledger, first: int, count: int) -> None:
    """Lease so many splits, bring their blocks, and have them claimed."""
    numbers = []
    for lease in range(first, first + count):
        split = ledger.lease(lease)
        assert split is not None
        numbers.append(split.number)
    for lease, number in zip(range(first, first + count), numbers, strict=True):
        ledger.made(number, lease, Made(8, 8, nbytes=1 << 20))
    for number in numbers:
        ledger.claim(number, 0)
    ledger.freed.clear()


def measured(splits: int, low: int) -> tuple[float, int]:
    """Return microseconds per event, and the peak of the bytes in use, from the split ``low`` on."""
    ledger = Ledger(splits, Rows(1, 1), strict=True, even="", window=WINDOW, start=Start(low, 8 * low))
    count = min(MADE, splits - low)
    started = time.perf_counter()
    for first in range(1, count + 1, 64):
        turn(ledger, first, min(64, count + 1 - first))
    elapsed = time.perf_counter() - started
    tracemalloc.start()
    small = Ledger(splits, Rows(1, 1), strict=True, even="", window=WINDOW, start=Start(low, 8 * low))
    for first in range(1, min(2000, count) + 1, 64):
        turn(small, first, min(64, min(2000, count) + 1 - first))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return elapsed / (count * EVENTS) * 1e6, peak


def main() -> None:
    """Print a table."""
    print(
        "| splits of an epoch | us per event, the first | the last | peak, bytes |\n|---:|---:|---:|---:|"
    )  # its purpose
    for splits in LENGTHS:
        first, peak = measured(splits, 0)
        last, _ = measured(splits, max(0, splits - MADE))
        print(f"| {splits:,} | {first:.1f} | {last:.1f} | {peak:,} |")  # as above


if __name__ == "__main__":
    main()

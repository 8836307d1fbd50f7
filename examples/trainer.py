"""Owns an example of a trainer: it takes batches from a broker until it is told to stop, and says how fast they come.

::

    python examples/trainer.py tcp://127.0.0.1:8877
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence
from types import FrameType

from dfserve.dataflow import BatchData, RemoteDataZMQ

BATCH = 32  # datapoints in a training step
TIMEOUT = 60.0  # seconds without data until the trainer gives up, with an error that says who is missing
REPORT_EVERY = 1.0  # seconds between two lines
TOLD: list[int] = []  # signals: what is raised in a finaliser Python swallows, so the loop looks here too


def train(address: str) -> None:
    """Iterate for ever, printing a line per second with the items so far and their rate.

    Args:
        address: where the broker listens, e.g. ``tcp://broker:8877``.

    Raises:
        Starved: nothing arrived for ``TIMEOUT`` seconds.
    """
    with RemoteDataZMQ(address, bind=False, timeout=TIMEOUT) as data:
        batches = BatchData(data, BATCH)
        batches.reset_state()
        items, reported, since = 0, 0, time.monotonic()
        for images, _names in batches:
            if TOLD:
                return
            # A real trainer takes its step here.
            items += len(images)
            now = time.monotonic()
            if now - since >= REPORT_EVERY:
                print(f"{items} items, {(items - reported) / (now - since):.0f} items/s, {images.shape} {images.dtype}")
                reported, since = items, now


def stop(signum: int, _frame: FrameType | None) -> None:
    """Leave the loop wherever it is, so that the ``with`` block gives back what was not used."""
    TOLD.append(signum)
    sys.exit(0)


def main(argv: Sequence[str]) -> None:
    """Run with the broker's address as the only argument, until SIGTERM or Ctrl-C."""
    if len(argv) != 1:
        sys.exit("usage: trainer.py ADDRESS, e.g. tcp://127.0.0.1:8877")
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    train(argv[0])


if __name__ == "__main__":
    main(sys.argv[1:])

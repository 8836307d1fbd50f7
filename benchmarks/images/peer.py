"""Owns what runs in the consumer's process: `python -m benchmarks.images.peer SIDE LIST SECONDS`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from benchmarks.counting import print_and_end
from benchmarks.images.ours import LISTING
from benchmarks.images.sides import measure


def main(side: str, listing: str, seconds: str) -> None:
    """Measure a side over the files that are named in the JSON file ``listing``; print the figures as JSON and exit."""
    os.environ[LISTING] = listing  # for producers that are started here
    print_and_end(measure(side, json.loads(Path(listing).read_text()), float(seconds)))


if __name__ == "__main__":
    main(*sys.argv[1:])

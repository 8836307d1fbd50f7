"""Owns the process that starts: `python -m benchmarks.latency.starting ADDRESS BIND`, with nothing imported before."""

from __future__ import annotations

import json
import os
import sys
import time


def main(address: str, bind: str) -> None:
    """Import dfserve, receive one datapoint, print as JSON how long this took, and end."""
    began = time.perf_counter()
    import dfserve

    imported = time.perf_counter()
    next(iter(dfserve.RemoteDataZMQ(address, bind=bind == "bind")))
    received = time.perf_counter()
    print(json.dumps({"items": 1, "seconds": received - began, "import_s": imported - began}), flush=True)
    os._exit(0)  # a hosted broker ends when its parent's pipe closes


if __name__ == "__main__":
    main(*sys.argv[1:])

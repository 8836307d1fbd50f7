"""Owns the plain proxy: `python -m benchmarks.transport.proxy TCP IPC CASE`, libzmq's own loop from PULL to PUSH."""

from __future__ import annotations

import sys

import zmq

from benchmarks.transport.cases import CASES
from benchmarks.transport.limit_raw import opened


def main(tcp: str, ipc: str, case: str) -> None:
    """Carry messages for ever."""
    nbytes = CASES[case].nbytes
    pull, push = opened(zmq.PULL, nbytes), opened(zmq.PUSH, nbytes)
    pull.bind(tcp)
    push.bind(ipc)
    zmq.proxy(pull, push)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Owns the program of the kill tests: processes that commit in a loop are killed, and their ledger is opened again.

    python commit_rounds.py FILE ROUNDS LARGEST

Every round forks a process that opens the ledger, commits states of up to LARGEST bytes through a committer, and says
each number that is durable. After a random time it is killed with signal 9. The ledger must then hold the last number
that was said, or a later one, with the state that belongs to the number. Prints one line of JSON: for each round the
number that was said last, and the one that was found.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import struct
import sys
import time

from dfserve.broker.committer import Committer
from dfserve.broker.ledger_file import LedgerFile

NUMBER = struct.Struct("<Q")


def state(sequence: int, largest: int) -> bytes:
    """Return the state that belongs to a number: of any size, and different for each."""
    return random.Random(sequence).randbytes(sequence * 7919 % largest)


def commit_for_ever(path: str, largest: int, said: int) -> None:
    """Commit, two states submitted for each that is waited for; say what is durable."""
    committer = Committer(LedgerFile(path))
    sequence = committer.durable
    os.write(said, NUMBER.pack(sequence))
    while committer.error is None:
        for _ in range(2):
            sequence += 1
            committer.submit(sequence, state(sequence, largest))
        select.select([committer], [], [])
        committer.acknowledge()
        os.write(said, NUMBER.pack(committer.durable))
    raise committer.error


def one_round(path: str, largest: int, generator: random.Random) -> tuple[int, int]:
    """Return the last number that a process said before it was killed, and the one found afterwards."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        try:
            commit_for_ever(path, largest, writer)
        finally:
            os._exit(1)
    os.close(writer)
    said = os.read(reader, NUMBER.size)  # from now on it holds the ledger
    time.sleep(generator.uniform(0, 0.05))
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status), f"the process ended by itself with {status}"
    while more := os.read(reader, 1 << 16):
        said += more
    os.close(reader)
    with LedgerFile(path) as ledger:
        found, payload = ledger.sequence, ledger.read()
    assert payload == (state(found, largest) if found else None), f"record {found} holds another state"
    return NUMBER.unpack(said[-NUMBER.size :])[0], found


def main() -> None:
    path, rounds, largest = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    generator = random.Random()
    print(json.dumps([one_round(path, largest, generator) for _ in range(rounds)]))


if __name__ == "__main__":
    main()

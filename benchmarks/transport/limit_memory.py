"""Owns the limit of this machine's memory: arrays copied to slots of shared memory, which another process looks at.

A ring of slots of at least 1 MiB. Each datapoint is copied to its place; a byte over a socket says which slot is full,
and one back which is free again.
"""

from __future__ import annotations

import mmap
import os
import socket
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.transport.cases import CASES, Source
from benchmarks.transport.limit_socket import RETRY, block_of

SLOTS = 4
FOR_ONE = b"x"  # slot


def name_of(address: str) -> str:
    """Return the name of the socket, in the abstract namespace."""
    return f"\0dfserve-bench-memory-{address.rsplit(':', 1)[1]}"


def slots_of(memory: Any, nbytes: int) -> list[Any]:
    """Return the slots of a map."""
    whole = np.frombuffer(memory, np.uint8)
    return [whole[first : first + nbytes] for first in range(0, SLOTS * nbytes, nbytes)]


def send(source: Source, address: str) -> None:
    """Copy for ever."""
    arrays, count = block_of(source)
    flat = [part.reshape(-1).view(np.uint8) for part in arrays]
    slot_bytes = sum(part.nbytes for part in arrays) * count
    file = os.memfd_create("dfserve-bench")
    os.ftruncate(file, SLOTS * slot_bytes)
    slots = slots_of(mmap.mmap(file, 0), slot_bytes)
    connection = socket.socket(socket.AF_UNIX)
    while True:
        try:
            connection.connect(name_of(address))
            break
        except ConnectionRefusedError:
            time.sleep(RETRY)
    socket.send_fds(connection, [FOR_ONE], [file])
    free = SLOTS
    while True:
        for slot in slots:
            if not free:
                free = len(connection.recv(SLOTS))
            place = 0
            for _ in range(count):
                for part in flat:
                    slot[place : place + part.nbytes] = part
                    place += part.nbytes
            connection.sendall(FOR_ONE)
            free -= 1


def receive(address: str, case: str) -> Iterator[Any]:
    """Yield views of the slots for ever."""
    _, count = block_of(Source(CASES[case].make()))
    nbytes = CASES[case].nbytes
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name_of(address))
        server.listen()
        connection, _ = server.accept()
    _, (file, *_), _, _ = socket.recv_fds(connection, len(FOR_ONE), 1)
    slots = slots_of(mmap.mmap(file, 0, prot=mmap.PROT_READ), nbytes * count)
    full = 0
    while True:
        for slot in slots:
            if not full:
                full = len(connection.recv(SLOTS))
            for first in range(0, len(slot), nbytes):
                yield slot[first : first + nbytes]
            connection.sendall(FOR_ONE)
            full -= 1

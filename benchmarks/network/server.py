"""Owns the server: `python -m benchmarks.network.server LIST LATENCY`, files over HTTP/1.1, each answer after a wait.

It does as little as a server can, since it takes the cores' time from those who are measured: all answers are made
beforehand, and one thread serves all connections, which stay open.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

END = b"\r\n\r\n"  # of a request


class Answers(asyncio.Protocol):
    """One connection. The path of a request is the number of a file."""

    _transport: Any = None

    def __init__(self, answers: Sequence[bytes], latency: float) -> None:
        self._answers = answers
        self._latency = latency
        self._received = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport  # asyncio has set TCP_NODELAY

    def data_received(self, data: bytes) -> None:
        *requests, self._received = (self._received + data).split(END)
        for request in requests:
            number = int(request.split(b" ", 2)[1][1:])
            asyncio.get_running_loop().call_later(self._latency, self._transport.write, self._answers[number])


def answer(body: bytes) -> bytes:
    """Return the bytes of an answer."""
    return b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


async def serve(answers: Sequence[bytes], latency: float) -> None:
    """Print the port, and serve for ever."""
    server = await asyncio.get_running_loop().create_server(
        lambda: Answers(answers, latency), "127.0.0.1", 0, backlog=1024
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main(listing: str, latency: str) -> None:
    """Serve the files that are named in the JSON file ``listing``, each ``latency`` seconds after its request."""
    answers = [answer(Path(file).read_bytes()) for file in json.loads(Path(listing).read_text())]
    asyncio.run(serve(answers, float(latency)))


if __name__ == "__main__":
    main(*sys.argv[1:])

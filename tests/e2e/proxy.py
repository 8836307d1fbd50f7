"""Owns a TCP proxy that can cut its connections, for tests of what a broken network loses. Run as a program."""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import sys
import threading


class Proxy:
    """Forwards one port to another; `cut` resets every connection, losing whatever is in flight."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._lock = threading.Lock()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self.forwarded = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def cut(self) -> int:
        """Reset all connections. Returns how many there were."""
        with self._lock:
            sockets = list(self._pairs)
            for end in sockets:
                self._drop(end)
        return len(sockets) // 2

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.cut()
        self._listener.close()
        self._selector.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            for key, _ in self._selector.select(0.1):
                with self._lock, contextlib.suppress(OSError):
                    if key.fileobj is self._listener:
                        self._accept()
                    elif isinstance(key.fileobj, socket.socket) and key.fileobj in self._pairs:
                        self._forward(key.fileobj)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            server = socket.create_connection(("127.0.0.1", self._target))
        except OSError:
            client.close()
            return
        for one, other in ((client, server), (server, client)):
            # A reset instead of a close: what is in flight is lost, as when a cable is pulled.
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._pairs[one] = other
            self._selector.register(one, selectors.EVENT_READ)

    def _forward(self, source: socket.socket) -> None:
        try:
            data = source.recv(1 << 16)
            if not data:
                raise ConnectionResetError
            self._pairs[source].sendall(data)
            self.forwarded += len(data)
        except OSError:
            self._drop(source)

    def _drop(self, end: socket.socket) -> None:
        other = self._pairs.pop(end, None)
        if other is None:
            return
        self._pairs.pop(other, None)
        for one in (end, other):
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(one)
            one.close()


if __name__ == "__main__":
    proxy = Proxy(int(sys.argv[1]))
    print(proxy.port, flush=True)
    for line in sys.stdin:
        if line.strip() == "cut":
            print(proxy.cut(), flush=True)

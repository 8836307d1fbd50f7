"""Owns a broker's door on tcp: who is admitted by its key, and how many were turned away for what.

libzmq asks over ZAP (RFC 27) for each client that has proved to own a key. Everybody else it turns away by itself,
which its monitor tells. The files are read again for each client that knocks: one that was revoked is refused then.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import zmq
from zmq.utils import z85

from dfserve.errors import KeysError
from dfserve.handshake import CRYPTOGRAPHIC, MISMATCH, NO_DETAIL, NOT_ADMITTED, PROTOCOL, Monitor
from dfserve.keys import CLIENTS, admitted, read_broker_keys

log = logging.getLogger("dfserve.broker")

ZAP = "inproc://zeromq.zap.01"
DOMAIN = b"dfserve"
ADMITTED, BROKEN = 200, 500  # ZAP's statuses; 400 is NOT_ADMITTED
MAX_SAID = 1000  # different lines of the log; a stranger must not fill the disk
WHY = {
    "no_key": "it has no key: make one with `dfserve keys`",
    "wrong_broker_key": "it expects another broker's key: give it a file that was made in this broker's folder",
    "unexpected_key": "it has a key and this broker has none: start the broker with --keys",
}


class Door:
    """Admits clients on tcp. It belongs to the thread of the broker's socket.

    Args:
        socket: the broker's; nothing of tcp is bound yet.
        folder: the folder of keys; None: everybody is admitted, and nothing is encrypted.
        refused: is counted up for each client that is turned away, by reason.

    Raises:
        KeysError: the folder cannot be used.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        socket: zmq.Socket[bytes],
        folder: Path | None,
        refused: Counter[str],
    ) -> None:
        self._folder = folder
        self._refused = refused
        self._said: set[str] = set()
        self._socket = socket
        self._keys = None if folder is None else read_broker_keys(folder)
        if folder is not None:
            self._note_wrong(admitted(folder)[1])
        self._monitor = Monitor(context, socket)
        self._zap = context.socket(zmq.ROUTER)
        self._zap.setsockopt(zmq.LINGER, 0)
        self._zap.bind(ZAP)  # before anybody can knock; without keys nobody does

    @property
    def sockets(self) -> Sequence[zmq.Socket[bytes]]:
        """What to poll; call `serve` when one is readable."""
        return (self._monitor.socket,) if self._keys is None else (self._zap, self._monitor.socket)

    def lock(self) -> None:
        """Ask for keys at every address that is bound from here on. What is bound before (ipc) asks for none.

        libzmq copies a socket's options when it binds, and cannot be told to unset all of these again.
        """
        if self._keys is None:
            return
        self._socket.setsockopt(zmq.CURVE_SERVER, 1)
        self._socket.setsockopt(zmq.CURVE_SECRETKEY, self._keys.secret)
        self._socket.setsockopt(zmq.ZAP_DOMAIN, DOMAIN)
        self._socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)  # if nobody answers ZAP, nobody is admitted

    def serve(self) -> None:
        """Answer those who knock, count those who were turned away."""
        with contextlib.suppress(zmq.Again):
            while self._keys is not None:
                self._answer(self._zap.recv_multipart(zmq.NOBLOCK))
        for event, value in self._monitor.events():
            if event == NO_DETAIL:
                self._refused["broken_off"] += 1
            elif event == PROTOCOL:
                self._turned_away(_reason(value, locked=self._keys is not None))

    def close(self) -> None:
        """Stop watching; close the socket next, and then `close_zap`."""
        self._monitor.close()

    def close_zap(self) -> None:
        """Answer nobody any more."""
        self._zap.close()

    def _answer(self, request: Sequence[bytes]) -> None:
        asker, _, version, number, _domain, peer, _identity, mechanism, *credentials = request
        status, name = self._look_up(peer.decode("ascii", "replace"), mechanism, credentials)
        text = b"OK" if status == ADMITTED else b"not admitted"
        self._zap.send_multipart([asker, b"", version, number, b"%d" % status, text, name.encode(), b""])

    def _look_up(self, peer: str, mechanism: bytes, credentials: Sequence[bytes]) -> tuple[int, str]:
        assert self._folder is not None
        try:
            names, wrong = admitted(self._folder)
        except KeysError as error:
            self._refused["broken_keys"] += 1
            self._say(f"nobody is admitted: {error}")
            return BROKEN, ""
        self._note_wrong(wrong)
        key = z85.encode(credentials[0]) if mechanism == b"CURVE" and credentials else b""
        if (name := names.get(key)) is None:
            self._refused["unknown_key"] += 1
            self._say(f"refused a client from {peer}: no file in {self._folder / CLIENTS} has its key {key.decode()}")
            return NOT_ADMITTED, ""
        log.debug("admitted client %s from %s", name, peer)
        return ADMITTED, name

    def _turned_away(self, reason: str) -> None:
        self._refused[reason] += 1
        if reason in WHY:
            self._say(f"refused a client ({reason}): {WHY[reason]}")

    def _note_wrong(self, wrong: Sequence[KeysError]) -> None:
        for error in wrong:
            self._say(f"not admitted: {error}")

    def _say(self, text: str) -> None:
        """Warn once; clients knock again and again."""
        if text not in self._said and len(self._said) < MAX_SAID:
            self._said.add(text)
            log.warning("%s", text)


def _reason(value: int, *, locked: bool) -> str:
    if value == MISMATCH:
        return "no_key" if locked else "unexpected_key"
    return "wrong_broker_key" if value == CRYPTOGRAPHIC else "broken_off"

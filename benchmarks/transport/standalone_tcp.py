"""Owns dfserve's side with `dfserve broker` and a producer as from another machine: blocks through tcp."""

from __future__ import annotations

from benchmarks.transport import standalone, tcp

send = tcp.send
receive = standalone.receive

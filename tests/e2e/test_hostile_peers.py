"""Owns the tests of peers that speak the protocol and mean ill: they flood, never read, and send the largest texts."""

from __future__ import annotations

import dataclasses
import itertools
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dfserve.wire import messages as m

Start = Callable[..., Any]
MIB = 1 << 20
FLOOD = 100_000  # messages; what the broker keeps of each, be it a hundred bytes, shows in its memory
GROWTH = 5 * MIB  # bytes of memory that may come and go meanwhile

JUNK = [b"no", b"sense"]
PROBE = [b""]  # what libzmq sends on a new connection: the broker asks who it is


def producer(**changes: Any) -> list[bytes]:
    fields = vars(m.ProducerHello(secrets.token_bytes(16), "evil/0", "far", 1, "default", 0, 1, b"", 0, 0))
    return m.encode(m.ProducerHello(**(fields | changes)))


FLOODS: dict[str, Callable[[], Iterator[list[bytes]]]] = {
    "bad messages": lambda: itertools.repeat(JUNK),
    "bad messages and probes": lambda: itertools.cycle([JUNK, PROBE]),
    "bad messages and hellos": lambda: itertools.cycle([JUNK, producer()]),
    "hellos": lambda: itertools.repeat(producer()),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_a_peer_that_floods_and_never_reads_does_not_grow_the_brokers_memory(
    run_broker: Start, stranger: Start, tmp_path: Path, until: Any, flood: str
) -> None:
    broker = run_broker(binds=(f"ipc://{tmp_path}/socket",))  # the kernel buffers little here, unlike over tcp
    peer = stranger(broker.address)
    messages = FLOODS[flood]()
    rss: list[int] = []
    for count in (FLOOD // 10, FLOOD):
        for frames in itertools.islice(messages, count):
            peer.send(*frames)
        peer.send(b"that was all")
        until(lambda: broker.bad()["frames"] == len(rss) + 1, "the broker to have read it all")
        rss.append(broker.rss)
    assert rss[1] - rss[0] < GROWTH, f"{flood}: {(rss[1] - rss[0]) / FLOOD:.0f} bytes kept of each message"


def test_reports_of_failures_are_charged_what_they_hold(run_broker: Start, stranger: Start, until: Any) -> None:
    budget = 8 * MIB
    broker = run_broker("--queue-bytes", str(budget))
    peer = stranger(broker.address)
    peer.join_as_producer()
    before = broker.rss
    text = "x" * m.MAX_TEXT
    fail = m.Fail(1, text[: m.MAX_REASON], text[: m.MAX_NAME], text, text, False)
    fit = budget // (fail.nbytes + 2048)  # the overhead of a block
    peer.be_granted(*[fail.nbytes] * fit)
    for sequence in range(1, fit + 1):
        peer.say(dataclasses.replace(fail, seq=sequence))
    broker.wait_for("dfserve_errors_total", fit)
    peer.say(m.Offer(fit + 1, [fail.nbytes] * 100))
    for sequence in range(fit + 1, fit + 1500):
        peer.say(dataclasses.replace(fail, seq=sequence))  # without credit: dropped, and asked for a new hello
    peer.hear(m.Who)
    peer.send(b"that was all")
    until(lambda: broker.bad()["frames"] == 1, "the broker to have read it all")
    # libzmq reads a thousand of them ahead, if the broker is slow; that comes back.
    until(lambda: broker.rss - before < budget + 100 * MIB, "what was dropped to take no memory")
    assert broker.total("dfserve_errors_total") == fit


SKIPPING = """
import sys, dfserve
source = dfserve.RemoteDataZMQ(sys.argv[1], bind=False, timeout=60, on_error="skip")
with source:
    source.reset_state()
    print("ready", flush=True)
    print([list(source), source.errors])
"""
TEXTS = ("name", "host", "kind", "key", "text", "traceback")


@pytest.mark.parametrize("longest", [*((name,) for name in TEXTS), TEXTS], ids=[*TEXTS, "all of them"])
def test_the_longest_texts_of_a_worker_that_breaks_do_not_keep_a_consumer_from_the_end(
    start: Start, run_broker: Start, stranger: Start, longest: tuple[str, ...]
) -> None:
    broker = run_broker()
    reader = start("-c", SKIPPING, broker.address)
    reader.wait_until_said("ready")
    most = {
        name: m.MAX_NAME if name in m.NAMES else m.MAX_REASON if name in m.REASONS else m.MAX_TEXT for name in TEXTS
    }
    wide = "\N{GRINNING FACE}"  # four bytes in the message
    texts = dict.fromkeys(TEXTS, "short") | {name: wide * most[name] for name in longest}
    peer = stranger(broker.address)
    peer.send(*producer(passes=1, name=texts.pop("name"), host=texts.pop("host")))
    peer.hear(m.ProducerWelcome)
    fail = m.Fail(1, **texts, fatal=True)
    peer.be_granted(fail.nbytes)
    peer.say(fail)
    broker.wait_for("dfserve_errors_total", 1)
    assert reader.wait() == 0, reader.output[-1000:]
    assert reader.lines[-1] == [[], 2]  # the exception, and the pass that it broke


def test_a_producer_that_says_hello_again_under_another_session_leaves_no_worker_behind(
    start: Start, run_broker: Start, stranger: Start, produce: Start
) -> None:
    broker = run_broker("--liveness", "1s")
    peer = stranger(broker.address)
    for _ in range(3):
        peer.join_as_producer()
    peer.say(m.Bye(0, 0))
    reader = start("pipes.py", broker.address, "--timeout", "20")
    assert produce(broker.address, "data-0", "--passes", "1", count=10).wait() == 0
    assert reader.wait() == 0, reader.output  # the stream ends: no worker is still expected to send

"""Owns the tests that what the broker remembers is bounded, whatever one peer claims to be, again and again."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable
from typing import Any

import pytest

from dfserve.broker.config import BrokerConfig
from dfserve.broker.core import Core
from dfserve.wire import messages as m

CLAIMS = 500  # hellos of one connection; an honest one says a few in its life
BOUND = 100  # of anything that is kept because of them


def make_core() -> Core:
    core = Core(BrokerConfig(), lambda: 0.0)
    core.tick(0.0)
    return core


def producer(**changes: Any) -> m.ProducerHello:
    identity = m.ProducerHello(secrets.token_bytes(16), "evil/0", "far", 1, "default", 0, 1, b"", 0, 0)
    return m.ProducerHello(**(vars(identity) | changes))


def consumer(**changes: Any) -> m.ConsumerHello:
    identity = m.ConsumerHello(secrets.token_bytes(16), "e", "far", 1, "default", "g", 1, "skip", 1, b"", 0, 0)
    return m.ConsumerHello(**(vars(identity) | changes))


SAME = bytes(16)
FLOODS: dict[str, Callable[[int], m.Message]] = {
    "producers": lambda n: producer(),
    "names of producers": lambda n: producer(session=SAME, name=f"evil/{n}"),
    "consumers": lambda n: consumer(),
    "groups": lambda n: consumer(session=SAME, group=f"evil-{n}"),
    "pipelines": lambda n: producer(pipeline=f"evil-{n}"),
}


def kept(core: Core) -> dict[str, int]:
    """Count all that the broker keeps."""
    jobs = list(core.jobs.values())
    return {
        "jobs": len(jobs),
        "peers": len(core.peers),
        "routes": len(core.routes),
        "workers": sum(len(job.intake.workers) for job in jobs),
        "groups": sum(len(job.groups) for job in jobs),
        "consumers": sum(len(group.consumers) for job in jobs for group in job.groups.values()),
        "labels": len(core.tally.producers) + len(core.tally.groups),
    }


@pytest.mark.parametrize("flood", FLOODS)
def test_a_connection_that_claims_ever_new_identities_leaves_little_behind(flood: str) -> None:
    core = make_core()
    for number in range(CLAIMS):
        core.receive(b"connection", m.encode(FLOODS[flood](number)))
        core.drain()
    assert max(kept(core).values()) <= BOUND, kept(core)


def test_a_consumer_that_says_hello_under_another_session_gives_back_what_it_held() -> None:
    core = make_core()
    held = [consumer(session=secrets.token_bytes(16)) for _ in range(2)]
    for hello in held:
        core.receive(b"connection", m.encode(hello))
    core.tick(1.0)
    for seconds in itertools.accumulate([1.0] * 30, initial=2.0):
        core.tick(seconds)
    (group,) = core.jobs["default"].groups.values()
    assert set(group.consumers) == {held[1].session}


def test_connections_that_only_send_nonsense_are_forgotten_too() -> None:
    core = make_core()
    for number in range(25_000):
        core.receive(b"%d" % number, [b"no", b"sense"])
        core.receive(b"%d" % number, [b""])
        core.drain()
    remembered = len(core._scolded) + len(core._asked) + len(core.peers)
    assert remembered < 25_000
    assert core.tally.bad == {"magic": 25_000}

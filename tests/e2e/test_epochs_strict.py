"""Owns the tests that the strict order, contents and random numbers included, does not depend on the cluster."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

N = 600


def _run(rig: Any, producers: int, split_size: int, events: dict[int, Callable[[Any], None]] | None = None) -> str:
    """Read two epochs; the digest of all."""
    source, address = rig.hosting(order="strict", seed=7, split_size=split_size)
    fleet = [rig.produce(address, n=N, nbytes=4000) for _ in range(producers)]
    bound = {at: (lambda event=event: event(fleet)) for at, event in (events or {}).items()}
    rows = [*rig.read(source, bound), *rig.read(source)]
    source.close()
    for each in fleet:
        each.kill()
    assert rig.multiset(rows) == rig.whole(N) + rig.whole(N)
    return str(rig.digest(rows))


@pytest.fixture
def expected(rig: Any) -> str:
    return _run(rig, 1, 8)


def test_the_sequence_is_the_same_for_any_number_of_producers_and_any_split_size(rig: Any, expected: str) -> None:
    assert [_run(rig, producers, size) for producers, size in ((2, 8), (5, 8), (1, 64), (5, 64))] == [expected] * 4


def test_the_sequence_is_the_same_with_kills_in_the_middle(rig: Any, expected: str) -> None:
    def kill(fleet: list[Any]) -> None:
        rig.kill(fleet[0], rig.workers(fleet[0], 1)[0])

    assert _run(rig, 2, 16, {100: kill, 300: kill}) == expected


def test_the_sequence_is_the_same_after_a_resume_on_other_producers_with_another_world(
    rig: Any, tcp_address: str
) -> None:
    options = {"order": "strict", "seed": 7, "split_size": 8}
    rig.broker(tcp_address)
    rig.produce(tcp_address, n=N, nbytes=4000)
    whole = rig.read(rig.consumer(tcp_address, **options, group="whole"))
    source = rig.consumer(tcp_address, **options, stride=4)
    rows = []
    for number, which, drawn, _ in source:
        rows.append((number, which, drawn))
        if len(rows) == 200:
            break
    for world in (2, 3, 1):
        state = json.loads(json.dumps(source.state_dict()))
        source.close()
        rig.produce(tcp_address, n=N, nbytes=4000, workers=2)
        many = {} if world == 1 else {"world": world, "even": "drop"}
        ranks = [rig.consumer(tcp_address, **options, stride=4, rank=rank, **many) for rank in range(world)]
        for rank in ranks:
            rank.load_state_dict(state)
            rank.reset_state()
        for _ in range(10 if world > 1 else 0):  # rows
            for rank in ranks:
                rows += [next(rank)[:3] for _ in range(4)]
        *others, source = ranks  # the state of any of them restores all
        for rank in others:
            assert (rank.state_dict()["row"], rank.state_dict()["taken"]) == (source.state_dict()["row"], 0)
            rank.close()
    rows += rig.read(source)
    assert rig.digest(rows) == rig.digest(whole)

"""Owns the tests that what is produced is what arrives, over each transport, in each arrangement."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Start = Callable[..., Any]
ITEMS = 200


def _numbers(program: Any) -> list[int]:
    return [line[0] for line in program.lines if isinstance(line, list)]


def _produce(dfserve: Start, address: str, producer: int, **options: Any) -> Any:
    arguments = {"start": producer * 1000, "count": ITEMS, **options}
    pairs = [word for key, value in arguments.items() for word in ("--arg", f"{key}={json.dumps(value)}")]
    name = {"DFSERVE_NAME": f"data-{producer}"}
    return dfserve("produce", "pipes:numbers", "--to", address, "--passes", "1", *pairs, **name)


def _all(producers: int) -> Counter[int]:
    return Counter(producer * 1000 + i for producer in range(producers) for i in range(ITEMS))


def test_three_producers_and_three_consumers_of_a_group_share_exactly_what_was_produced(
    start: Start, dfserve: Start, address: str
) -> None:
    broker = dfserve("broker", "--bind", address)
    broker.wait_until_said("broker ready")
    consumers = [start("pipes.py", address, "--min-producers", "3", "--pause", "0.001") for _ in range(3)]
    for consumer in consumers:
        consumer.wait_until_said("ready")
    producers = [_produce(dfserve, address, n) for n in range(3)]
    assert [producer.wait() for producer in producers] == [0, 0, 0]
    assert [consumer.wait() for consumer in consumers] == [0, 0, 0]
    assert Counter(n for consumer in consumers for n in _numbers(consumer)) == _all(3)
    assert all(_numbers(consumer) for consumer in consumers), "a consumer of the group had nothing"


def test_two_groups_each_receive_all_of_it(start: Start, dfserve: Start, address: str) -> None:
    dfserve("broker", "--bind", address).wait_until_said("broker ready")
    groups = [start("pipes.py", address, "--group", name, "--min-producers", "2") for name in ("a", "b")]
    for consumer in groups:
        consumer.wait_until_said("ready")
    for number in range(2):
        _produce(dfserve, address, number)
    assert [consumer.wait() for consumer in groups] == [0, 0]
    assert [Counter(_numbers(consumer)) for consumer in groups] == [_all(2), _all(2)]


def test_a_consumer_that_binds_hosts_the_broker_and_producers_connect_to_it(
    start: Start, dfserve: Start, address: str
) -> None:
    producer = _produce(dfserve, address, 0)
    trainer = start("pipes.py", address, "--bind")
    assert trainer.wait() == 0
    assert producer.wait() == 0
    assert Counter(_numbers(trainer)) == _all(1)


def test_a_sender_that_binds_hosts_the_broker_and_each_rank_has_a_share(
    start: Start, address: str, tmp_path: Path
) -> None:
    joined = tmp_path / "joined"  # a rank that comes when the sender has ended finds nobody
    # More bytes than a block has, and the next one goes to the rank that was sent fewer.
    numbers = f"pipes.numbers(count={ITEMS}, nbytes=100_000, hold_at=0, hold_until={str(joined)!r})"
    ranks = [start("pipes.py", address) for _ in range(2)]
    call = f"dfserve.send_dataflow_zmq({numbers}, {address!r}, bind=True, passes=1)"
    sender = start("-c", f"import dfserve, pipes; {call}")
    for rank in ranks:
        rank.wait_until_said("ready")
    joined.touch()
    assert [rank.wait() for rank in ranks] == [0, 0]
    assert sender.wait() == 0
    assert Counter(n for rank in ranks for n in _numbers(rank)) == _all(1)
    assert all(_numbers(rank) for rank in ranks), "a rank had nothing"


def test_the_seed_calls_over_two_addresses_and_ipv6(start: Start, dfserve: Start, free_port: int) -> None:
    code = f"""
import dfserve
with dfserve.RemoteDataZMQ("ipc://@seed-{free_port}", "tcp://[::1]:{free_port}", min_producers=2) as df:
    print([sorted(dp[0] for dp in df)])
"""
    trainer = start("-c", code)
    _produce(dfserve, f"tcp://[::1]:{free_port}", 0)
    _produce(dfserve, f"ipc://@seed-{free_port}", 1)
    assert trainer.wait() == 0, trainer.output
    assert Counter(trainer.lines[0][0]) == _all(2)


def test_send_returns_after_its_passes_and_repeats_them(start: Start, tcp_address: str) -> None:
    code = f"import dfserve, pipes; dfserve.send_dataflow_zmq(pipes.numbers(count=10), {tcp_address!r}, passes=3)"
    trainer = start("pipes.py", tcp_address, "--bind")
    assert start("-c", code).wait() == 0
    assert trainer.wait() == 0
    assert Counter(_numbers(trainer)) == Counter(list(range(10)) * 3)


def test_workers_each_send_their_own_passes(start: Start, dfserve: Start, tcp_address: str) -> None:
    trainer = start("pipes.py", tcp_address, "--bind", "--min-producers", "2")
    producer = dfserve(
        "produce", "pipes:numbers", "--to", tcp_address, "--passes", "2", "--workers", "2", "--arg", "count=10"
    )
    assert producer.wait() == 0
    assert trainer.wait() == 0
    assert Counter(_numbers(trainer)) == Counter(list(range(10)) * 4)


def test_breaking_out_and_iterating_again_loses_nothing(dfserve: Start, tcp_address: str) -> None:
    from dfserve import RemoteDataZMQ

    with RemoteDataZMQ(tcp_address) as source:
        source.reset_state()
        producer = _produce(dfserve, tcp_address, 0)
        numbers: list[int] = []
        for number, _ in source:
            numbers.append(number)
            if len(numbers) % 7 == 0:
                break
        while True:
            before = len(numbers)
            for number, _ in source:
                numbers.append(number)
                if len(numbers) % 7 == 0:
                    break
            else:
                break
            assert len(numbers) > before
        assert producer.wait() == 0
    assert Counter(numbers) == _all(1)


def test_a_consumer_that_closes_gives_back_what_it_had_not_handed_out(dfserve: Start, tcp_address: str) -> None:
    from dfserve import RemoteDataZMQ

    dfserve("broker", "--bind", tcp_address).wait_until_said("broker ready")
    producer = _produce(dfserve, tcp_address, 0)
    numbers: list[int] = []
    for some in (1, 2, 50, 3):
        with RemoteDataZMQ(tcp_address, bind=False, timeout=60) as source:
            numbers += [next(source)[0] for _ in range(some)]
    with RemoteDataZMQ(tcp_address, bind=False, timeout=60) as source:
        numbers += [number for number, _ in source]
        assert source.in_doubt == 0
    assert producer.wait() == 0
    assert numbers == list(range(ITEMS))


@pytest.mark.parametrize("hwm", [1, 50])
def test_large_datapoints_arrive_whole(start: Start, dfserve: Start, tcp_address: str, hwm: int) -> None:
    trainer = start("pipes.py", tcp_address, "--bind", "--hwm", str(hwm))
    _produce(dfserve, tcp_address, 0, count=12, nbytes=12_000_000)
    assert trainer.wait() == 0, trainer.output
    assert _numbers(trainer) == list(range(12))

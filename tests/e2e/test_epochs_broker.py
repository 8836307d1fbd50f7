"""Owns the tests of epochs mode in which a standalone broker is killed, and another goes on from its ledger."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

N = 1500


@pytest.mark.parametrize("order", ["arrival", "strict"])
def test_a_broker_killed_in_mid_epoch_goes_on_from_its_ledger_with_the_same_consumer(
    rig: Any, tcp_address: str, order: str
) -> None:
    brokers = [rig.broker(tcp_address)]
    rig.produce(tcp_address, workers=2, n=N, nbytes=4000)
    source = rig.consumer(tcp_address, order=order, split_size=16)

    def again() -> None:
        brokers[-1].kill()
        brokers.append(rig.broker(tcp_address))

    for epoch, events in enumerate(({200: again, 700: again, 1100: again}, {})):
        rows = rig.read(source, events)
        assert rig.multiset(rows) == rig.whole(N)
        assert rig.report_of(source, epoch)["datapoints"] == len(rows)


@pytest.mark.parametrize("order", ["arrival", "strict"])
def test_three_ranks_outlive_their_broker(rig: Any, tcp_address: str, until: Callable[..., Any], order: str) -> None:
    broker = rig.broker(tcp_address)
    rig.produce(tcp_address, workers=2, n=N, nbytes=4000)
    options = {"world": 3, "even": "drop", "order": order, "split_size": 16, "stride": 4}
    ranks = [rig.trainer(tcp_address, "--pause", "0.001", rank=rank, **options) for rank in range(3)]
    for least in (100, 300):
        until(lambda least=least: min(len(rig.rows_of(rank)) for rank in ranks) > least, "datapoints")
        broker.kill()
        broker = rig.broker(tcp_address)
    assert [rank.wait() for rank in ranks] == [0, 0, 0], [rank.output[-2000:] for rank in ranks]
    rows = [row for rank in ranks for row in rig.rows_of(rank)]
    whole = rig.whole(N)
    assert rig.multiset(rows) <= whole
    assert len(rows) == whole.total() - whole.total() % 12
    assert len({end["count"] for rank in ranks for end in rig.ends_of(rank)}) == 1


def test_a_broker_that_comes_without_its_ledger_says_so_and_hands_nothing_out_twice(
    rig: Any, tcp_address: str, tmp_path: Path
) -> None:
    from dfserve.errors import ConfigError

    broker = rig.broker(tcp_address)
    rig.produce(tcp_address, n=N, nbytes=4000)
    source = rig.consumer(tcp_address, split_size=16)

    def forget() -> None:
        broker.kill()
        (tmp_path / "ledger").unlink()
        rig.broker(tcp_address)

    with pytest.raises(ConfigError, match="the broker lost its ledger"):
        rig.read(source, {300: forget, 1490: lambda: None})


def test_a_new_run_at_a_broker_that_was_killed_is_asked_what_it_wants(rig: Any, tcp_address: str) -> None:
    from dfserve.errors import ConfigError

    broker = rig.broker(tcp_address)
    rig.produce(tcp_address, n=N, nbytes=4000)
    source = rig.consumer(tcp_address, split_size=16)
    rows = []
    for number, which, *_ in source:
        rows.append((number, which))
        if len(rows) == 500:
            break
    state = json.loads(json.dumps(source.state_dict()))
    broker.kill()
    source.close()
    rig.broker(tcp_address)
    with pytest.raises(ConfigError, match="resume="):
        rig.read(rig.consumer(tcp_address, split_size=16))
    again = rig.consumer(tcp_address, split_size=16)
    again.load_state_dict(state)
    assert rig.multiset(rows) + rig.multiset(rig.read(again)) == rig.whole(N)

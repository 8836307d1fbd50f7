"""Owns the tests of epochs mode with little or nothing to hand out, through real processes."""

from __future__ import annotations

from typing import Any

import pytest


def test_there_are_fewer_splits_than_workers(rig: Any) -> None:
    source, address = rig.hosting(split_size=8)
    rig.workers(rig.produce(address, workers=4, n=12), 4)
    for epoch in range(3):
        assert rig.multiset(rig.read(source)) == rig.whole(12)
        assert rig.report_of(source, epoch)["delivered"] == 12 - rig.filtered(12)


@pytest.mark.parametrize("order", ["arrival", "strict"])
def test_an_empty_source_gives_empty_epochs_and_a_warning(
    rig: Any, order: str, caplog: pytest.LogCaptureFixture
) -> None:
    source, address = rig.hosting(order=order)
    rig.produce(address, n=0)
    for epoch in range(3):
        assert rig.read(source) == []
        assert rig.report_of(source, epoch)["items"] == 0
    assert len(source) == source.source_len == 0
    assert "has 0 items, so each epoch ends at once: is its folder the right one?" in caplog.text


@pytest.mark.parametrize("order", ["arrival", "strict"])
def test_all_items_of_some_splits_or_of_all_are_filtered(rig: Any, order: str) -> None:
    source, address = rig.hosting(order=order, split_size=4, shuffle=False)
    rig.produce(address, workers=2, n=40, keep_from=21)
    for epoch in range(2):
        assert rig.multiset(rig.read(source)) == rig.whole(40, keep_from=21)
        report = rig.report_of(source, epoch)
        assert report["filtered"] == 21 + rig.filtered(40) - rig.filtered(21)
    nothing, address = rig.hosting(order=order, split_size=4)
    rig.produce(address, n=40, keep_from=40)
    assert rig.read(nothing) == []
    assert rig.report_of(nothing, 0)["filtered"] == 40


def test_a_source_shorter_than_a_batch_gives_one_short_batch_or_none(rig: Any) -> None:
    source, address = rig.hosting()  # the pipeline's own BatchData, which has no remainder
    rig.produce(address, n=70, keep_from=60, batch=64)
    assert ([*source], [*source]) == ([], [])
    assert rig.report_of(source, 1)["delivered"] == 10 - (rig.filtered(70) - rig.filtered(60))
    source, address = rig.hosting()
    rig.produce(address, n=10, batch=64, remainder=True)
    for _ in range(2):
        ((numbers, which, drawn, arrays),) = [*source]
        assert rig.multiset(zip(numbers.tolist(), which.tolist(), strict=True)) == rig.whole(10)
        assert (len(drawn), arrays.shape) == (len(numbers), (len(numbers), 100))
    assert len(source) == 1
    source, address = rig.hosting(batch_size=64)
    rig.produce(address, n=10)
    assert [len(batch[0]) for batch in source] == [rig.whole(10).total()]
    source, address = rig.hosting(batch_size=64, drop_last=True)
    rig.produce(address, n=10)
    assert ([*source], [*source], len(source)) == ([], [], 0)


@pytest.mark.parametrize("order", ["arrival", "strict"])
def test_two_ranks_and_less_than_a_row(rig: Any, tcp_address: str, order: str) -> None:
    rig.broker(tcp_address)
    rig.produce(tcp_address, n=5)
    whole = rig.whole(5)
    for even in ("drop", "pad"):
        options = {"world": 2, "stride": 8, "even": even, "order": order, "split_size": 2, "group": even}
        ranks = [rig.consumer(tcp_address, rank=rank, **options) for rank in range(2)]
        for _ in range(2):
            pairs = [*zip(*ranks, strict=True)]
            assert len(pairs) == (0 if even == "drop" else 8)
            for rows in zip(*pairs, strict=True):
                assert set(rig.multiset(rows)) == set(whole), "padded with all that there is"
        assert [len(rank) for rank in ranks] == [len(pairs)] * 2

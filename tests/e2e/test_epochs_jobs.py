"""Owns the tests of epochs mode with several loaders in one thread: two ranks, and two pipelines of one daemon."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest

N = 600


@pytest.mark.parametrize("order", ["arrival", "strict"])
@pytest.mark.parametrize("even", ["drop", "pad"])
def test_zip_over_two_ranks_in_one_thread_ends_each_epoch(rig: Any, tcp_address: str, order: str, even: str) -> None:
    rig.broker(tcp_address)
    rig.produce(tcp_address, workers=2, n=N, nbytes=4000)
    ranks = [
        rig.consumer(tcp_address, rank=rank, world=2, even=even, stride=8, order=order, split_size=16)
        for rank in range(2)
    ]
    whole = rig.whole(N)
    for _ in range(3):
        pairs = [(one[:2], other[:2]) for one, other in zip(*ranks, strict=True)]
        rows = rig.multiset(row for pair in pairs for row in pair)
        if even == "drop":
            assert rows <= whole
            assert rows.total() == whole.total() - whole.total() % 16
        else:
            assert whole <= rows
            assert rows.total() == whole.total() + -whole.total() % 16
    for rank in ranks:
        assert rank.report is None or rank.report["items"] == N


def test_a_train_and_a_val_pipeline_of_one_daemon_are_interleaved_in_one_thread(rig: Any, tcp_address: str) -> None:
    rig.broker(tcp_address)
    arguments = {"train.n": N, "train.nbytes": 4000, "val.n": 40}
    rig.produce(tcp_address, workers=2, pipelines=("train=", "val="), **arguments)
    train = rig.consumer(tcp_address, pipeline="train", order="strict", split_size=16)
    val = rig.consumer(tcp_address, pipeline="val", order="strict", shuffle=False)
    seen: list[Any] = []
    validations = 0
    for _ in range(2):
        steps = iter(train)
        while part := list(islice(steps, 150)):
            seen += [(number, which) for number, which, *_ in part]
            assert rig.multiset(rig.read(val)) == rig.whole(40)
            validations += 1
    assert rig.multiset(seen) == rig.whole(N) + rig.whole(N)
    assert validations == 2 * -(-rig.whole(N).total() // 150)
    assert rig.report_of(val, validations - 1)["items"] == 40


def test_a_val_loader_that_nobody_reads_does_not_hold_the_training_up(rig: Any, tcp_address: str) -> None:
    rig.broker(tcp_address)
    rig.produce(tcp_address, workers=1, pipelines=("train=", "val="), n=N, nbytes=4000)
    val = rig.consumer(tcp_address, pipeline="val", split_size=16)
    unread = iter(val)
    first = [next(unread)[:2] for _ in range(3)]
    train = rig.consumer(tcp_address, pipeline="train", split_size=16)
    for _ in range(3):
        assert rig.multiset(rig.read(train)) == rig.whole(N)
    assert rig.multiset([*first, *(row[:2] for row in unread)]) == rig.whole(N), "where it was"

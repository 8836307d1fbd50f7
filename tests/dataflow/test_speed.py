"""The measurement of a DataFlow's speed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from dfserve.dataflow import DataFlow, DataFromList, TestDataSpeed
from dfserve.errors import DatapointError


class Counted(DataFlow):
    def __init__(self) -> None:
        self.resets = self.taken = 0

    def reset_state(self) -> None:
        self.resets += 1

    def __iter__(self) -> Iterator[Any]:
        while True:
            self.taken += 1
            yield [self.taken]


def test_it_resets_warms_up_and_takes_no_more_than_it_measures(capsys: pytest.CaptureFixture[str]) -> None:
    ds = Counted()
    assert TestDataSpeed(ds, size=20, warmup=5).start() > 0
    assert (ds.resets, ds.taken) == (1, 25)
    assert "Counted: 20 datapoints in " in capsys.readouterr().err


def test_what_was_reset_is_not_reset_again() -> None:
    ds = Counted()
    test = TestDataSpeed(ds, size=1)
    test.reset_state()
    test.start()
    test.start()
    assert ds.resets == 1


def test_iterating_measures_first_and_then_yields_the_datapoints(capsys: pytest.CaptureFixture[str]) -> None:
    ds = TestDataSpeed(DataFromList([[1], [2]], shuffle=False), size=10)
    assert list(ds) == [[1], [2]]
    assert ": 2 datapoints in " in capsys.readouterr().err


def test_a_pass_shorter_than_the_warm_up_is_an_error() -> None:
    with pytest.raises(DatapointError, match=r"ended after 2 datapoints, warmup is 5"):
        TestDataSpeed(DataFromList([[1], [2]], shuffle=False), warmup=5).start()

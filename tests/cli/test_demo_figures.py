"""What the demo concludes from the numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dfserve.cli.demo_figures import Figures, Reading, account

FINE = Reading(0.0, {"data-1": 2, "data-2": 1}, {}, {}, delivered=3, queued=0, capacity=100)


@pytest.fixture
def figures() -> Figures:
    """Two datapoints from data-1 and one from data-2."""
    figures = Figures()
    for producer, number in (("data-1", 0), ("data-2", 0), ("data-1", 1)):
        figures.add(producer, number)
    return figures


def test_the_account_agrees_when_all_three_counts_do(figures: Figures) -> None:
    agree, text = account(figures, FINE)
    assert agree
    assert "produced 3 (data-1 2, data-2 1) = delivered 3 = trained on 3; 0 missing" in text


@pytest.mark.parametrize(
    "reading",
    [
        replace(FINE, delivered=2),
        replace(FINE, received={"data-1": 3, "data-2": 1}),
        replace(FINE, received={"data-1": 1, "data-2": 2}),
    ],
)
def test_the_account_disagrees_when_one_count_differs(figures: Figures, reading: Reading) -> None:
    agree, text = account(figures, reading)
    assert not agree
    assert "!=" in text


@pytest.mark.parametrize("numbers", [[0, 2], [0, 0], [1, 0]])
def test_a_datapoint_that_is_missing_repeated_or_out_of_order_is_noticed(numbers: list[int]) -> None:
    figures = Figures()
    for number in numbers:
        figures.add("data-1", number)
    agree, _ = account(figures, Reading(0.0, {"data-1": 2}, {}, {}, delivered=2, queued=0, capacity=1))
    assert figures.wrong > 0
    assert not agree


def test_nothing_at_all_is_no_agreement() -> None:
    assert not account(Figures(), Reading(0.0, {}, {}, {}, delivered=0, queued=0, capacity=1))[0]


@pytest.mark.parametrize(
    ("waited", "occupancy", "side"),
    [(0.0, 0.9, "the trainer"), (0.5, 0.1, "the trainer"), (5.0, 0.1, "the pipelines"), (5.0, 0.9, "the last hop")],
)
def test_the_bottleneck_follows_from_the_wait_and_the_queue(waited: float, occupancy: float, side: str) -> None:
    figures = Figures(started=1.0, ended=11.0, waited=waited, occupancies=[occupancy])
    assert figures.bottleneck().startswith(f"{side} (the trainer waited {waited * 10:.0f}% of the time")

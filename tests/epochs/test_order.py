"""The order of an epoch: every item once, anew for every epoch, the same everywhere and for ever."""

from __future__ import annotations

import math
import tracemalloc
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dfserve.epochs.order import MOST, Order, key_of
from dfserve.errors import ConfigError

seeds = st.integers(-(2**70), 2**70)
epochs = st.integers(0, 2**40)
# Small ones, squares and their neighbours (where the halves change size), and the largest.
lengths = st.one_of(
    st.integers(1, 40),
    st.builds(lambda root, more: root * root + more, st.integers(2, 2**31 - 1), st.integers(-1, 1)),
    st.integers(1, MOST),
    st.just(MOST),
)


@st.composite
def places(draw: st.DrawFn) -> tuple[int, int, int]:
    """Return a length, and the first and the count of some positions within it, often the first or the last."""
    n = draw(lengths)
    count = draw(st.integers(0, min(n, 40)))
    return n, draw(st.sampled_from([0, n - count]) | st.integers(0, n - count)), count


@given(st.integers(0, 3000), seeds, epochs)
def test_every_item_stands_at_one_position(n: int, seed: int, epoch: int) -> None:
    assert sorted(Order(n, seed, epoch, True).indices(0, n)) == list(range(n))


def test_every_item_stands_at_one_position_for_every_small_length() -> None:
    for n in range(150):
        for seed in range(3):
            assert sorted(Order(n, seed, 1, True).indices(0, n)) == list(range(n)), (n, seed)


@given(places(), seeds, epochs, st.booleans())
def test_the_indices_of_a_split_are_those_of_its_positions(
    place: tuple[int, int, int], seed: int, epoch: int, shuffle: bool
) -> None:
    n, first, count = place
    order = Order(n, seed, epoch, shuffle)
    indices = order.indices(first, count)
    assert indices == [order.index(position) for position in range(first, first + count)]
    assert all(type(index) is int and 0 <= index < n for index in indices)


@given(places(), seeds, epochs, st.booleans())
def test_the_position_of_an_index_is_where_it_stands(
    place: tuple[int, int, int], seed: int, epoch: int, shuffle: bool
) -> None:
    n, first, count = place
    order = Order(n, seed, epoch, shuffle)
    assert [order.position(index) for index in order.indices(first, count)] == list(range(first, first + count))


@given(places(), seeds, epochs)
def test_without_shuffle_every_item_stands_at_its_own_number(
    place: tuple[int, int, int], seed: int, epoch: int
) -> None:
    n, first, count = place
    assert Order(n, seed, epoch, False).indices(first, count) == list(range(first, first + count))


@given(st.integers(0, 500), seeds, epochs, st.lists(st.integers(1, 64), max_size=8))
def test_the_order_does_not_depend_on_where_it_is_split(n: int, seed: int, epoch: int, sizes: list[int]) -> None:
    order = Order(n, seed, epoch, True)
    split: list[int] = []
    for size in sizes:
        split += order.indices(len(split), min(size, n - len(split)))
    split += order.indices(len(split), n - len(split))
    assert split == order.indices(0, n)


# A failure here means that whoever resumes from a checkpoint goes on in another order: never change these values.
@pytest.mark.parametrize(
    ("n", "seed", "epoch", "first", "indices"),
    [
        (1, 0, 0, 0, [0]),
        (2, 0, 0, 0, [1, 0]),
        (3, 0, 0, 0, [2, 0, 1]),
        (5, 7, 3, 0, [3, 4, 0, 2, 1]),
        (10, 0, 0, 0, [0, 4, 5, 9, 2, 1, 7, 6, 3, 8]),
        (16, 7, 3, 0, [14, 5, 9, 0, 3, 4, 15, 2, 7, 6, 8, 11, 10, 12, 1, 13]),
        (256, 7, 3, 0, [126, 122, 219, 187, 242, 248, 27, 80, 144, 175, 24, 48]),
        (257, 7, 3, 0, [182, 152, 53, 136, 144, 233, 96, 201, 245, 154, 34, 191]),
        (1000, 7, 3, 0, [763, 847, 243, 707, 259, 787, 244, 902, 162, 547, 871, 408]),
        (1_281_167, 7, 3, 640_583, [134457]),
        (2**40 + 1, 7, 3, 2**40, [1002861016148]),
        (2**62, 7, 3, 0, [2659543725688988303, 312880406883904599]),
        (2**62, 7, 3, 2**62 - 1, [2554223557642053805]),
    ],
)
def test_the_order_is_the_same_on_every_platform_and_in_every_version(
    n: int, seed: int, epoch: int, first: int, indices: list[int]
) -> None:
    order = Order(n, seed, epoch, True)
    assert order.indices(first, len(indices)) == indices
    assert [order.index(first + i) for i in range(len(indices))] == indices


def test_the_key_of_an_epoch_is_the_same_on_every_platform_and_in_every_version() -> None:
    assert key_of(0, 0) == 1062904789327002540
    assert key_of(7, 3) == 13533722334883754062
    assert key_of(2**64 - 1, 2**40) == 2212334618008608714
    assert key_of(-1, 0) == 16950266274239223817


def test_the_keys_of_seeds_and_epochs_are_words_of_64_bits_and_all_different() -> None:
    keys = {key_of(seed, epoch) for seed in range(-50, 50) for epoch in range(100)}
    assert len(keys) == 10_000
    assert all(0 <= key < 2**64 for key in keys)
    assert max(keys) >> 63


def test_numbers_of_numpy_name_the_same_order_as_those_of_python() -> None:
    order = Order(np.int64(1000), np.int32(7), np.uint8(3), True)
    assert order.indices(np.int64(0), np.int64(12)) == Order(1000, 7, 3, True).indices(0, 12)
    assert order.position(order.index(np.int32(999))) == 999
    assert key_of(np.int64(7), np.int64(3)) == key_of(7, 3)


def shared_places(one: list[int], other: list[int]) -> int:
    return sum(a == b for a, b in zip(one, other, strict=True))


def test_epochs_and_seeds_have_different_orders_that_agree_no_more_than_by_chance() -> None:
    n = 1000
    orders = [Order(n, seed, epoch, True).indices(0, n) for seed in range(4) for epoch in range(10)]
    agreements = [shared_places(one, other) for i, one in enumerate(orders) for other in orders[:i]]
    assert max(agreements) < 10  # a Poisson variable of mean 1, 780 times
    assert 0.8 < sum(agreements) / len(agreements) < 1.2


def deviations(counts: NDArray[np.int64], freedom: int, scale: float = 1.0) -> float:
    """Return by how many standard deviations the chi-square of counts that should be equal exceeds its mean."""
    expected = counts.mean()
    chi_square = scale * float(((counts - expected) ** 2 / expected).sum())
    return (chi_square - freedom) / math.sqrt(2 * freedom)


# The seeds are fixed, so neither test is a matter of luck; a fair shuffle stays below 3 in nearly all choices of them.
@pytest.mark.parametrize("n", range(2, 17))
def test_over_many_seeds_every_item_stands_equally_often_at_every_position(n: int) -> None:
    counts = np.zeros((n, n), np.int64)
    for seed in range(1000):
        counts[np.arange(n), Order(n, seed, 0, True).indices(0, n)] += 1
    # Rows and columns have fixed sums, which leaves (n - 1)**2 degrees of freedom at n / (n - 1) of the usual variance.
    assert deviations(counts, (n - 1) ** 2, (n - 1) / n) < 5


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_over_many_epochs_every_order_of_a_few_items_comes_equally_often(n: int) -> None:
    counts = dict.fromkeys(permutations(range(n)), 0)
    for epoch in range(100 * len(counts)):
        counts[tuple(Order(n, 1, epoch, True).indices(0, n))] += 1
    assert deviations(np.array(list(counts.values())), len(counts) - 1) < 5


@pytest.mark.parametrize("n", [10_000, 10_007, 8_192, 65_536])
def test_an_order_has_no_visible_structure(n: int) -> None:
    indices = np.array(Order(n, 3, 5, True).indices(0, n))
    root = math.isqrt(n - 1) + 1  # the size of a half of the network
    for lag in (1, 2, 8, 64, root - 1, root, root + 1):
        ahead = indices[lag:]
        assert abs(np.corrcoef(indices[:-lag], ahead)[0, 1]) < 5 / math.sqrt(n)
        assert abs(np.mean((indices[:-lag] % 2) == (ahead % 2)) - 0.5) < 2.5 / math.sqrt(n)
        steps = np.unique((ahead - indices[:-lag]) % n)
        assert abs(len(steps) / n - (1 - 1 / math.e)) < 0.03  # as many different ones as that many draws of n have


def test_a_split_of_neighbouring_positions_has_items_from_everywhere() -> None:
    n = 1_000_000
    splits = [Order(n, 0, 0, True).indices(first, 500) for first in range(0, n, 50_000)]
    tenths = np.array([np.bincount(np.array(split) // (n // 10), minlength=10) for split in splits])
    assert tenths.min() >= 20  # 50 on average
    assert tenths.max() <= 85


def test_an_order_of_very_many_items_takes_no_more_memory_than_one_of_few() -> None:
    tracemalloc.start()
    try:
        order = Order(MOST, 0, 0, True)
        order.indices(MOST - 64, 64)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000


@pytest.mark.parametrize("shuffle", [False, True])
def test_an_empty_source_has_an_order_without_positions(shuffle: bool) -> None:
    order = Order(0, 1, 2, shuffle)
    assert order.indices(0, 0) == []
    for call in (order.index, order.position):
        with pytest.raises(IndexError, match="0 items"):
            call(0)


@pytest.mark.parametrize("shuffle", [False, True])
def test_what_lies_outside_the_epoch_is_refused(shuffle: bool) -> None:
    order = Order(10, 1, 2, shuffle)
    for outside in (-1, 10, 2**70):
        for call in (order.index, order.position):
            with pytest.raises(IndexError, match="the epoch has 10 items"):
                call(outside)
    for first, count in ((-1, 2), (0, 11), (9, 2), (11, 0), (3, -1)):
        with pytest.raises(IndexError, match=f"{count} from {first} on"):
            order.indices(first, count)
    assert order.indices(10, 0) == []


@pytest.mark.parametrize("n", [-1, MOST + 1])
def test_a_length_out_of_bounds_is_refused_with_the_number(n: int) -> None:
    with pytest.raises(ConfigError, match=f"n is {n};"):
        Order(n, 0, 0, True)

"""What every parallel map does, over a pool without threads that answers in the order that a test wants."""

from __future__ import annotations

import copy
import gc
import random
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfserve.dataflow import DataFlow, DataFromGenerator, DataFromList, MapData
from dfserve.dataflow.failures import key_of
from dfserve.dataflow.parallel.map_base import ParallelMapData
from dfserve.dataflow.parallel.pool import Pool
from dfserve.dataflow.parallel.window import Outcome
from dfserve.dataflow.policy import SkipErrors
from dfserve.errors import ConfigError, DatapointError, DfserveError, TooManyErrors, WorkerLost


class ShufflingPool(Pool):
    """Does the work when it is asked for outcomes, a few at a time, in an order that a seed decides."""

    def __init__(self, func: Callable[[Any], Any], seed: int = 0) -> None:
        self.func = func
        self.random = random.Random(seed)
        self.gathered: list[tuple[int, Any]] = []
        self.sent: list[tuple[int, Any]] = []
        self.most = 0
        self.forgotten = 0
        self.closed = 0
        self.broken = False

    def submit(self, ticket: int, datapoint: Any) -> None:
        self.gathered.append((ticket, datapoint))
        self.most = max(self.most, len(self.gathered) + len(self.sent))

    def flush(self) -> None:
        self.sent += self.gathered
        self.gathered = []

    def collect(self, wait: bool) -> list[Outcome]:
        if self.broken:
            raise WorkerLost("worker 1 was killed")
        assert self.sent or not wait, "would wait for ever"
        self.random.shuffle(self.sent)
        count = self.random.randint(1 if wait else 0, len(self.sent))
        taken, self.sent = self.sent[:count], self.sent[count:]
        return [self._outcome(*task) for task in taken]

    def forget(self, before: int) -> None:
        self.forgotten = before

    def close(self) -> None:
        self.closed += 1

    def _outcome(self, ticket: int, datapoint: Any) -> Outcome:
        try:
            return Outcome(ticket, self.func(datapoint))
        except BaseException as error:
            return Outcome(ticket, None, error)


class ShufflingMap(ParallelMapData):
    def __init__(
        self, ds: Any, func: Callable[[Any], Any], buffer_size: int = 8, seed: int = 0, **options: Any
    ) -> None:
        super().__init__(ds, buffer_size, **options)
        self.func = func
        self.seed = seed
        self.pools: list[ShufflingPool] = []

    def _open_pool(self) -> Pool:
        self.pools.append(ShufflingPool(self.func, self.seed))
        return self.pools[-1]


class Failing(DataFlow):
    """The numbers 0 .. at-1, then an error; ``passes`` counts how often it was iterated."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.passes = 0

    def __iter__(self) -> Iterator[list[int]]:
        self.passes += 1
        yield from ([number] for number in range(self.at))
        raise OSError("the disk is gone")


def numbers(size: int) -> DataFromList:
    return DataFromList([[number] for number in range(size)], shuffle=False)


def doubled(datapoint: list[int]) -> list[int]:
    return [2 * datapoint[0]]


def odd(datapoint: list[int]) -> list[int] | None:
    return datapoint if datapoint[0] % 2 else None


def failing_at_5(datapoint: list[int]) -> list[int]:
    if datapoint[0] == 5:
        raise ValueError("five")
    return datapoint


def reset(ds: ShufflingMap) -> ShufflingMap:
    ds.reset_state()
    return ds


@given(
    size=st.integers(0, 30),
    buffer_size=st.integers(1, 12),
    seed=st.integers(0, 99),
    func=st.sampled_from([doubled, odd]),
)
def test_a_strict_pass_is_a_reordering_of_the_map_and_an_ordered_one_is_the_map(
    size: int, buffer_size: int, seed: int, func: Callable[[Any], Any]
) -> None:
    expected = list(MapData(numbers(size), func))
    strict = reset(ShufflingMap(numbers(size), func, buffer_size, seed, strict=True))
    ordered = reset(ShufflingMap(numbers(size), func, buffer_size, seed, ordered=True))
    for _ in range(2):
        assert sorted(strict) == sorted(expected)
        assert list(ordered) == expected
    assert strict.pools[0].most <= buffer_size
    assert ordered.pools[0].most <= buffer_size


@given(
    size=st.integers(1, 12),
    buffer_size=st.integers(1, 12),
    seed=st.integers(0, 99),
    stops=st.lists(st.integers(0, 9), max_size=9),
)
def test_without_strict_it_is_an_endless_stream_of_which_no_iterator_loses_anything(
    size: int, buffer_size: int, seed: int, stops: list[int]
) -> None:
    read: Counter[int] = Counter()

    def noting(datapoint: list[int]) -> list[int]:
        read.update(datapoint)
        return datapoint

    ds = reset(ShufflingMap(MapData(numbers(size), noting), doubled, buffer_size, seed))
    seen = Counter(number // 2 for stop in [*stops, 40] for [number] in islice(ds, stop))
    assert seen <= read
    assert (read - seen).total() <= buffer_size, "what was read and not yielded is in flight"
    assert max(read.values()) - min(read[number] for number in range(size)) <= 1, "passes follow one another"


def test_what_one_iterator_read_ahead_the_next_one_yields() -> None:
    ds = reset(ShufflingMap(numbers(1000), doubled, 8))
    seen = {number // 2 for _ in range(50) for [number] in islice(ds, 3)}
    assert len(seen) == 150
    assert max(seen) < 158, "what was not seen of those that were read, at most 8, is in flight"


@pytest.mark.parametrize("options", [{"strict": True}, {"ordered": True}])
def test_an_abandoned_strict_pass_is_discarded_and_the_next_one_is_whole(options: dict[str, bool]) -> None:
    ds = reset(ShufflingMap(numbers(20), doubled, **options))
    for taken in (1, 5, 19):
        assert len(list(islice(ds, taken))) == taken
        assert ds.pools[0].forgotten > 0
        assert sorted(ds) == [[2 * number] for number in range(20)]
    assert ds.pools[0].most <= 8, "abandoned work counts against buffer_size"


def test_an_error_of_the_function_has_its_key_and_the_next_iterator_works() -> None:
    ds = reset(ShufflingMap(numbers(20), failing_at_5, ordered=True))
    for _ in range(2):
        datapoints = iter(ds)
        assert list(islice(datapoints, 5)) == [[number] for number in range(5)]
        with pytest.raises(ValueError, match="five") as raised:
            next(datapoints)
        assert key_of(raised.value) == "5"


def test_the_position_in_a_key_begins_anew_with_every_pass_of_an_endless_stream() -> None:
    ds = reset(ShufflingMap(numbers(7), failing_at_5, 3))
    keys = set()
    for _ in range(5):
        with pytest.raises(ValueError, match="five") as raised:
            list(ds)
        keys.add(key_of(raised.value))
    assert keys == {"5"}


def test_errors_are_skipped_within_limits() -> None:
    ds = reset(ShufflingMap(numbers(20), failing_at_5, strict=True, on_error="skip"))
    assert sorted(ds) == [[number] for number in range(20) if number != 5]
    limited = reset(ShufflingMap(numbers(20), failing_at_5, strict=True, on_error=SkipErrors(total=0)))
    with pytest.raises(TooManyErrors, match="total=0"):
        list(limited)


def test_what_is_no_exception_is_raised_even_where_errors_are_skipped() -> None:
    def leave(datapoint: Any) -> Any:
        raise SystemExit(3)

    ds = reset(ShufflingMap(numbers(20), leave, strict=True, on_error="skip"))
    with pytest.raises(SystemExit):
        list(ds)


@pytest.mark.parametrize("options", [{}, {"strict": True}, {"ordered": True}])
def test_an_error_of_the_source_comes_after_all_that_was_read_before_it(options: dict[str, bool]) -> None:
    source = Failing(11)
    ds = reset(ShufflingMap(source, doubled, **options))
    for passes in (1, 2):
        datapoints = iter(ds)
        assert sorted(next(datapoints) for _ in range(11)) == [[2 * number] for number in range(11)]
        with pytest.raises(OSError, match="disk"):
            next(datapoints)
        assert source.passes == passes


def test_an_error_of_the_source_outlives_an_iterator_that_the_functions_error_ended() -> None:
    ds = reset(ShufflingMap(Failing(7), failing_at_5, 20))
    with pytest.raises(ValueError, match="five"):
        list(ds)
    with pytest.raises(OSError, match="disk"):
        list(ds)


def test_a_source_that_cannot_even_be_iterated_raises_its_error() -> None:
    class Unready(DataFlow):
        def __iter__(self) -> Iterator[Any]:
            raise RuntimeError("not today")

    for options in ({}, {"strict": True}):
        ds = reset(ShufflingMap(Unready(), doubled, **options))
        for _ in range(2):
            with pytest.raises(RuntimeError, match="not today"):
                next(iter(ds))


@pytest.mark.parametrize("size", [0, 1, 20])
def test_an_endless_stream_of_nothing_is_an_error(size: int) -> None:
    ds = reset(ShufflingMap(numbers(size), lambda datapoint: None))
    for _ in range(3):
        with pytest.raises(DatapointError, match="yields nothing"):
            next(iter(ds))


def test_an_endless_stream_of_errors_that_are_skipped_is_an_error() -> None:
    def fail(datapoint: Any) -> Any:
        raise ValueError("always")

    ds = reset(ShufflingMap(numbers(3), fail, on_error=SkipErrors(rate=None, in_a_row=None)))
    with pytest.raises(DatapointError, match="yields nothing"):
        next(iter(ds))


def test_a_generator_that_runs_once_is_yielded_whole_before_its_end_is_an_error() -> None:
    ds = reset(ShufflingMap(DataFromGenerator([number] for number in range(5)), doubled))
    datapoints = iter(ds)
    assert sorted(islice(datapoints, 5)) == [[2 * number] for number in range(5)]
    with pytest.raises(DatapointError, match="runs once"):
        next(datapoints)


def test_a_map_that_drops_one_whole_pass_but_not_all_goes_on() -> None:
    kept = iter([True] * 4 + [False] * 2 + [True] * 100)
    ds = reset(ShufflingMap(numbers(4), lambda datapoint: datapoint if next(kept) else None, 1))
    assert [number for [number] in islice(ds, 10)] == [0, 1, 2, 3, 2, 3, 0, 1, 2, 3]


def test_only_the_newest_iterator_goes_on() -> None:
    for options in ({}, {"strict": True}):
        ds = reset(ShufflingMap(numbers(20), doubled, **options))
        older = iter(ds)
        next(older)
        newer = iter(ds)
        with pytest.raises(DfserveError, match=r"superseded.*iter\(\)"):
            next(older)
        assert len(list(islice(newer, 20))) == 20


def test_closing_a_superseded_iterator_does_not_touch_the_newer_ones_pass() -> None:
    ds = reset(ShufflingMap(numbers(20), doubled, ordered=True))
    older = iter(ds)
    next(older)
    newer = iter(ds)
    first = next(newer)
    older.close()  # type: ignore[attr-defined]
    assert [first, *newer] == [[2 * number] for number in range(20)]


def test_a_map_that_was_not_reset_says_so() -> None:
    with pytest.raises(DfserveError, match=r"ShufflingMap was not reset: call reset_state\(\) once"):
        iter(ShufflingMap(numbers(3), doubled))


def test_nothing_starts_before_the_first_datapoint_is_asked_for() -> None:
    ds = reset(ShufflingMap(numbers(3), doubled))
    datapoints = iter(ds)
    assert not ds.pools
    next(datapoints)
    assert len(ds.pools) == 1


def test_a_map_may_start_its_pool_when_it_is_reset() -> None:
    class Eager(ShufflingMap):
        _eager = True

    ds = reset(Eager(numbers(3), doubled, strict=True))
    assert len(ds.pools) == 1
    assert len(list(ds)) == 3
    assert len(ds.pools) == 1


def test_resetting_again_closes_the_pool_and_ends_iterators() -> None:
    ds = reset(ShufflingMap(numbers(3), doubled))
    datapoints = iter(ds)
    next(datapoints)
    reset(ds)
    assert ds.pools[0].closed == 1
    with pytest.raises(DfserveError, match="superseded"):
        next(datapoints)
    assert len(list(islice(ds, 3))) == 3
    assert len(ds.pools) == 2


def test_the_pool_is_closed_when_the_map_is_collected() -> None:
    ds = reset(ShufflingMap(numbers(3), doubled))
    next(iter(ds))
    pool = ds.pools[0]
    del ds
    gc.collect()
    assert pool.closed == 1


@pytest.mark.parametrize("options", [{}, {"strict": True}])
def test_a_broken_pool_is_replaced_by_the_next_iterator(options: dict[str, bool]) -> None:
    ds = reset(ShufflingMap(numbers(20), doubled, **options))
    datapoints = iter(ds)
    next(datapoints)
    ds.pools[0].broken = True
    with pytest.raises(WorkerLost):
        list(datapoints)
    assert ds.pools[0].closed == 1
    assert len(list(islice(ds, 20))) == 20
    assert len(ds.pools) == 2


def test_an_interrupt_in_the_middle_of_the_books_costs_the_pool_and_no_more() -> None:
    class Interrupted(DataFlow):
        passes = 0

        def __iter__(self) -> Iterator[list[int]]:
            self.passes += 1
            for number in range(20):
                if number == 10 and self.passes == 1:
                    raise KeyboardInterrupt
                yield [number]

    ds = reset(ShufflingMap(Interrupted(), doubled, strict=True))
    with pytest.raises(KeyboardInterrupt):
        list(ds)
    assert sorted(ds) == [[2 * number] for number in range(20)]


def test_a_slow_source_does_not_hold_back_what_is_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dfserve.dataflow.parallel.flow._LOOK_EVERY", 0.0)  # every source is slow
    read = []

    def source() -> Iterator[list[int]]:
        for number in range(100):
            read.append(number)
            yield [number]

    ds = reset(ShufflingMap(DataFromGenerator(source), doubled, 50, strict=True))
    next(iter(ds))
    assert len(read) < 20


def test_a_copied_map_is_one_that_was_not_reset() -> None:
    ds = reset(ShufflingMap(numbers(20), doubled, strict=True))
    datapoints = iter(ds)
    next(datapoints)
    ds.pools.clear()
    for twin in (copy.copy(ds), copy.deepcopy(ds)):  # they do what pickle does
        with pytest.raises(DfserveError, match="was not reset"):
            iter(twin)
        assert len(list(reset(twin))) == 20
    assert next(datapoints)


def test_a_length_is_that_of_the_source() -> None:
    assert len(ShufflingMap(numbers(7), odd)) == 7


@pytest.mark.parametrize("buffer_size", [0, -1, None, 2.5, "many"])
def test_a_buffer_of_nothing_is_refused(buffer_size: Any) -> None:
    with pytest.raises(ConfigError, match=r"buffer_size is .*at least 1"):
        ShufflingMap(numbers(3), doubled, buffer_size)

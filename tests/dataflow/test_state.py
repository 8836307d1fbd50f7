"""The position of a pipeline: what follows a loaded state is what followed when it was taken."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

import dfserve.dataflow as d
from dfserve.dataflow import (
    BatchData,
    DataFlow,
    FixedSizeData,
    MapData,
    MapDataComponent,
    PrintData,
    ProxyDataFlow,
    RepeatedData,
    RepeatedDataPoint,
    SelectComponent,
    TestDataSpeed,
)  # fmt: skip
from dfserve.dataflow.resumable import refuse_state
from dfserve.errors import ConfigError, DatapointError


class Epochs(DataFlow):
    """A source with a position: epochs of ``count`` datapoints, none like another; a new pass goes on where one was."""

    def __init__(self, count: int, interrupt_at: int = -1) -> None:
        self.count, self.epoch, self.taken = count, 0, 0
        self.interrupt_at = interrupt_at

    def __iter__(self) -> Iterator[list[Any]]:
        while self.taken < self.count:
            if self.taken == self.interrupt_at:
                self.interrupt_at = -1
                raise KeyboardInterrupt
            self.taken += 1
            yield [1000 * self.epoch + self.taken, "text"]
        self.epoch, self.taken = self.epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "taken": self.taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        assert state.keys() == {"epoch", "taken"}, state
        self.epoch, self.taken = state["epoch"], state["taken"]


def after_json(state: dict[str, Any]) -> Any:
    return json.loads(json.dumps(state))


# ---------------------------------------------------------------------- the law


def keep_some(datapoint: Any) -> Any:
    return datapoint if crc32(repr(datapoint).encode()) % 3 else None


def keep(value: Any) -> Any:
    return value


OPERATORS: list[Callable[[Any], Any]] = [
    lambda ds: MapData(ds, keep),
    lambda ds: MapData(ds, keep_some),
    lambda ds: MapDataComponent(ds, keep),
    lambda ds: SelectComponent(ds, [0]),
    lambda ds: PrintData(ds, num=0),
    lambda ds: ProxyDataFlow(ds),
    lambda ds: BatchData(ds, 2, use_list=True),
    lambda ds: BatchData(ds, 3, remainder=True, use_list=True),
    lambda ds: RepeatedData(ds, -1),
    lambda ds: RepeatedData(ds, 2),
    lambda ds: RepeatedDataPoint(ds, 1),
    lambda ds: RepeatedDataPoint(ds, 3),
    lambda ds: FixedSizeData(ds, 2),
    lambda ds: FixedSizeData(ds, 5),
]
CHAINS = st.lists(st.sampled_from(OPERATORS), max_size=4)
SEEN = 40  # datapoints and ends of passes that are looked at


def chain(operators: list[Callable[[Any], Any]], count: int) -> Any:
    ds: Any = Epochs(count)
    try:
        for operator in operators:
            ds = operator(ds)
    except ConfigError:  # batches larger than the passes below them
        reject()
    ds.reset_state()
    return ds


def events(ds: Any) -> Iterator[Any]:
    """Yield the datapoints of one pass after another, and where each pass ends; then what went wrong."""
    try:
        while True:
            yield from ds
            yield "end"
    except DatapointError:
        yield "error"


@given(CHAINS, st.integers(1, 7), st.integers(0, SEEN), st.booleans())
def test_what_follows_a_loaded_state_is_what_followed_when_it_was_taken(
    operators: list[Callable[[Any], Any]], count: int, cut: int, used: bool
) -> None:
    ds = chain(operators, count)
    running = events(ds)
    before = list(islice(running, cut))
    if "error" in before:
        return  # nothing follows
    state = ds.state_dict()
    followed = list(islice(running, SEEN))

    resumed = chain(operators, count)
    if used:  # what it did before does not matter
        list(islice(events(resumed), 3))
    resumed.load_state_dict(after_json(state))
    assert resumed.state_dict() == state
    assert list(islice(events(resumed), SEEN)) == followed


@given(CHAINS, st.integers(1, 7), st.integers(1, 20))
def test_after_a_break_the_state_leads_to_what_the_next_loop_gives(
    operators: list[Callable[[Any], Any]], count: int, cut: int
) -> None:
    ds = chain(operators, count)
    try:
        for place, _ in enumerate(ds, 1):
            if place == cut:
                break
    except DatapointError:
        return
    resumed = chain(operators, count)
    resumed.load_state_dict(after_json(ds.state_dict()))
    assert list(islice(events(resumed), SEEN)) == list(islice(events(ds), SEEN))


@given(CHAINS, st.integers(1, 7), st.integers(0, SEEN))
def test_a_state_stays_small_and_is_the_sources_where_an_operator_has_nothing_to_add(
    operators: list[Callable[[Any], Any]], count: int, cut: int
) -> None:
    ds = chain(operators, count)
    list(islice(events(ds), cut))
    assert len(json.dumps(ds.state_dict())) < 60 * (1 + len(operators))
    plain = SelectComponent(MapData(BatchData(PrintData(Epochs(4), 0), 2), keep), [0])
    next(iter(plain))
    assert plain.state_dict() == {"epoch": 0, "taken": 2}


# ---------------------------------------------------------------------- interrupted, failed, dropped


def numbers(batches: list[Any]) -> list[int]:
    return [number for batch in batches for number in batch[0].tolist()]


def test_what_a_batch_had_gathered_when_it_was_interrupted_is_not_lost() -> None:
    ds = BatchData(MapData(Epochs(10, interrupt_at=5), keep), 3)
    batches = []
    with pytest.raises(KeyboardInterrupt):
        batches.extend(ds)  # extend() keeps what came before
    assert numbers(batches) == [1, 2, 3]
    assert ds.state_dict() == {"epoch": 0, "taken": 3}
    resumed = BatchData(MapData(Epochs(10), keep), 3)
    resumed.load_state_dict(after_json(ds.state_dict()))
    assert numbers(list(resumed)) == [4, 5, 6, 7, 8, 9]


def test_a_batch_that_cannot_be_made_comes_again() -> None:
    def odd_shape(datapoint: Any) -> Any:
        return [np.zeros(2 if datapoint[0] == 5 else 1)]

    ds = BatchData(MapData(Epochs(10), odd_shape), 3)
    running = iter(ds)
    next(running)
    with pytest.raises(DatapointError):
        next(running)
    assert ds.state_dict() == {"epoch": 0, "taken": 3}


def test_what_a_function_failed_at_is_past() -> None:
    def fail_at_two(datapoint: Any) -> Any:
        return [1 // (datapoint[0] - 2)]

    ds = MapData(Epochs(10), fail_at_two)
    with pytest.raises(ZeroDivisionError):
        list(ds)
    assert ds.state_dict() == {"epoch": 0, "taken": 2}


def test_a_remainder_that_is_dropped_is_past() -> None:
    ds = BatchData(Epochs(7), 3)
    assert numbers(list(ds)) == [1, 2, 3, 4, 5, 6]
    assert ds.state_dict() == {"epoch": 1, "taken": 0}


def test_the_end_of_a_pass_that_was_not_said_yet_is_said_after_loading() -> None:
    ds = BatchData(Epochs(4), 3, remainder=True)
    running = iter(ds)
    assert numbers([next(running), next(running)]) == [1, 2, 3, 4]
    state = ds.state_dict()
    assert state == {"operator": "BatchData", "ends": 1, "ds": {"epoch": 1, "taken": 0}}
    resumed = BatchData(Epochs(4), 3, remainder=True)
    resumed.load_state_dict(state)
    assert list(resumed) == []
    assert numbers(list(resumed)) == [1001, 1002, 1003, 1004]


def test_a_pass_that_was_left_before_a_state_was_loaded_changes_nothing_when_it_is_closed() -> None:
    ds = FixedSizeData(Epochs(9), 5)
    left = iter(ds)
    next(left)
    ds.load_state_dict({"operator": "FixedSizeData", "taken": 3, "ds": {"epoch": 0, "taken": 3}})
    left.close()  # type: ignore[attr-defined]  # a generator
    assert ds.state_dict()["taken"] == 3
    assert [number for number, _ in ds] == [4, 5]


def test_what_was_kept_for_the_next_pass_is_dropped_when_a_state_is_loaded() -> None:
    ds = FixedSizeData(RepeatedDataPoint(Epochs(9), 3), 2)
    list(ds)  # its next pass would begin with the third copy of 1
    ds.load_state_dict({"epoch": 0, "taken": 4})
    assert [number for number, _ in ds] == [5, 5]


def test_iterating_needs_no_position_and_asks_a_source_without_one_at_most_twice_in_a_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []
    source = d.DataFromList([[n] for n in range(8)], shuffle=False)
    monkeypatch.setattr(type(source), "state_dict", lambda self: asked.append(1) or refuse_state(self))
    assert len(list(BatchData(source, 2))) == 4
    assert len(list(RepeatedDataPoint(source, 2))) == 16
    assert len(asked) == 3
    for ds in (BatchData(source, 2), RepeatedDataPoint(source, 2)):
        next(iter(ds))
        with pytest.raises(ConfigError, match="DataFromList has no position"):
            ds.state_dict()


class Late(Epochs):
    """A source that knows where it is from its first datapoint on."""

    def state_dict(self) -> dict[str, Any]:
        if self.taken == 0 and self.epoch == 0:
            raise ConfigError("not connected yet")
        return super().state_dict()


def test_a_source_that_cannot_tell_its_position_yet_never_leads_to_a_wrong_one() -> None:
    copies = RepeatedDataPoint(Late(4), 2)
    running = iter(copies)
    next(running)
    with pytest.raises(ConfigError, match="take it after the last copy"):
        copies.state_dict()
    next(running)
    assert copies.state_dict() == {"epoch": 0, "taken": 1}

    batches = BatchData(Late(4), 3, remainder=True)
    running = iter(batches)
    next(running)
    assert batches.state_dict() == {"epoch": 0, "taken": 3}
    next(running)
    assert batches.state_dict() == {"operator": "BatchData", "ends": 1, "ds": {"epoch": 1, "taken": 0}}


def test_a_position_travels_with_a_copy() -> None:
    ds = RepeatedDataPoint(BatchData(Epochs(9), 2, use_list=True), 3)
    running = iter(ds)
    list(islice(running, 5))
    state = ds.state_dict()
    copy = pickle.loads(pickle.dumps(ds))
    assert copy.state_dict() == state
    assert state == {"operator": "RepeatedDataPoint", "copies": 2, "ds": {"epoch": 0, "taken": 2}}


def test_measuring_the_speed_counts_as_handing_out() -> None:
    ds = TestDataSpeed(Epochs(10), size=4)
    assert next(iter(ds))[0] == 5
    assert ds.state_dict() == {"epoch": 0, "taken": 5}


# ---------------------------------------------------------------------- who has none


def source() -> Any:
    return d.DataFromList([[n, float(n)] for n in range(8)])


WITH = {
    "AugmentImageComponent", "AugmentImageComponents", "AugmentImageCoordinates", "BatchData", "FixedSizeData",
    "LMDBDataDecoder", "MapData", "MapDataComponent", "PrintData", "ProxyDataFlow", "RemoteDataZMQ", "RepeatedData",
    "RepeatedDataPoint", "TestDataSpeed",
}  # fmt: skip
REFUSING: dict[str, Callable[[], Any]] = {
    "BatchDataByShape": lambda: d.BatchDataByShape(Epochs(4), 2, 0),
    "CacheData": lambda: d.CacheData(Epochs(4)),
    "ConcatData": lambda: d.ConcatData([Epochs(4), Epochs(4)]),
    "DataFromList": source,
    "FakeData": lambda: d.FakeData([[1]]),
    "JoinData": lambda: d.JoinData([Epochs(4), Epochs(4)]),
    "LocallyShuffleData": lambda: d.LocallyShuffleData(Epochs(4), 2),
    "MultiProcessMapAndBatchData": lambda: d.MultiProcessMapAndBatchData(Epochs(4), 1, keep, 2),
    "MultiProcessMapData": lambda: d.MultiProcessMapData(Epochs(4), 1, keep, strict=True),
    "MultiProcessRunner": lambda: d.MultiProcessRunner(Epochs(4), 2, 1),
    "MultiProcessRunnerZMQ": lambda: d.MultiProcessRunnerZMQ(Epochs(4), 1),
    "MultiThreadMapData": lambda: d.MultiThreadMapData(Epochs(4), 1, keep, ordered=True),
    "MultiThreadRunner": lambda: d.MultiThreadRunner(lambda: Epochs(4), 2, 1),
    "RandomChooseData": lambda: d.RandomChooseData([Epochs(4), Epochs(4)]),
    "RandomMixData": lambda: d.RandomMixData([source(), source()]),
}


def test_only_these_have_a_position() -> None:
    public = [getattr(d, name) for name in d.__all__ if isinstance(getattr(d, name), type)]
    flows = [cls for cls in public if issubclass(cls, DataFlow) and cls is not DataFlow]
    refusing = (refuse_state, DataFlow.state_dict)
    having = {cls.__name__ for cls in flows if cls.state_dict not in refusing}
    assert having | {"RemoteDataZMQ"} == WITH  # which decides by its mode


@pytest.mark.parametrize("name", REFUSING)
def test_what_has_no_position_says_so_and_what_to_do(name: str) -> None:
    for call in ("state_dict", "load_state_dict"):
        for outside in (REFUSING[name](), MapData(BatchData(REFUSING[name](), 1), keep)):
            arguments = [{}] if call == "load_state_dict" else []
            with pytest.raises(ConfigError, match=f"{name} has no position .* Move {name} into the producers"):
                getattr(outside, call)(*arguments)


def test_passes_that_start_over_have_no_position() -> None:
    ds = FixedSizeData(Epochs(4), 2, keep_state=False)
    with pytest.raises(ConfigError, match="leave keep_state at True"):
        ds.state_dict()
    with pytest.raises(ConfigError, match="leave keep_state at True"):
        ds.load_state_dict({})


class Foreign:
    """Somebody else's DataFlow."""

    def reset_state(self) -> None: ...
    def __iter__(self) -> Iterator[list[int]]:
        return iter([[1], [2]])


def test_a_dataflow_of_others_has_none_unless_it_says_so() -> None:
    ds = MapData(Foreign(), keep)
    with pytest.raises(ConfigError, match="Foreign has no position"):
        ds.state_dict()
    with pytest.raises(ConfigError, match="Foreign has no position"):
        ds.load_state_dict({})
    assert list(BatchData(Foreign(), 1, use_list=True)) == [[[1]], [[2]]]


# ---------------------------------------------------------------------- users' own operators


class Pairs(ProxyDataFlow):
    """An operator that nobody knows anything about: in truth it reads ahead."""

    def __iter__(self) -> Iterator[Any]:
        return zip(*[iter(self.ds)] * 2, strict=False)


class Old(ProxyDataFlow):
    def get_data(self) -> Iterator[Any]:
        yield from self.ds


class OwnMap(MapData):
    def __iter__(self) -> Iterator[Any]:
        yield from super().__iter__()


class Scaled(ProxyDataFlow):
    def __iter__(self) -> Iterator[Any]:
        for number, text in self.ds:
            yield [number * 2, text]

    state_dict = ProxyDataFlow.state_dict
    load_state_dict = ProxyDataFlow.load_state_dict


class Named(MapData):
    """A subclass with the pass of its parent."""


def with_parts(ds: Any) -> list[Any]:
    return [Pairs(ds), OwnMap(ds, keep), Old(ds)]


@pytest.mark.parametrize("place", range(3))
def test_an_operator_of_the_users_has_no_position_unless_it_says_so(place: int) -> None:
    ds = with_parts(Epochs(4))[place]
    with pytest.raises(ConfigError, match=f"{type(ds).__name__} has no position"):
        ds.state_dict()
    with pytest.raises(ConfigError, match=f"{type(ds).__name__} has no position"):
        BatchData(ds, 2).load_state_dict({"epoch": 0, "taken": 0})


@pytest.mark.parametrize("make", [Scaled, lambda ds: Named(ds, keep)])
def test_one_that_says_so_or_has_its_parents_pass_has_one(make: Callable[[Any], Any]) -> None:
    ds = make(Epochs(4))
    next(iter(ds))
    assert ds.state_dict() == {"epoch": 0, "taken": 1}
    ds.load_state_dict({"epoch": 0, "taken": 3})
    assert len(list(ds)) == 1


# ---------------------------------------------------------------------- states that are none


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (None, "not an object of NoneType"),
        ([1], "not an object of list"),
        ({"operator": "FixedSizeData", "ds": {}}, "has the fields"),
        ({"operator": "FixedSizeData", "taken": 1, "ds": {}, "more": 1}, "has the fields"),
        ({"operator": "FixedSizeData", "taken": 6, "ds": {}}, "from 0 to 5"),
        ({"operator": "FixedSizeData", "taken": -1, "ds": {}}, "from 0 to 5"),
        ({"operator": "FixedSizeData", "taken": True, "ds": {}}, "from 0 to 5"),
        ({"operator": "FixedSizeData", "taken": "1", "ds": {}}, "from 0 to 5"),
        ({"operator": "FixedSizeData", "taken": 1, "ds": 5}, "not an object of int"),
    ],
)
def test_a_state_that_is_none_is_refused_and_changes_nothing(state: Any, said: str) -> None:
    ds = FixedSizeData(MapData(Epochs(9), keep), 5)
    next(iter(ds))
    before = ds.state_dict()
    with pytest.raises(ConfigError, match=said):
        ds.load_state_dict(state)
    assert ds.state_dict() == before


def test_a_state_of_more_copies_than_are_made_is_refused() -> None:
    state = {"operator": "RepeatedDataPoint", "copies": 2, "ds": {"epoch": 0, "taken": 2}}
    with pytest.raises(ConfigError, match="copies=2; here it is an integer from 0 to 1"):
        RepeatedDataPoint(Epochs(4), 2).load_state_dict(state)


def test_repeating_goes_on_in_the_pass_that_it_was_in() -> None:
    ds = RepeatedData(Epochs(3), 3)
    assert len(list(islice(running := iter(ds), 4))) == 4
    state = ds.state_dict()
    assert state == {"operator": "RepeatedData", "passes": 1, "ds": {"epoch": 1, "taken": 1}}
    resumed = RepeatedData(Epochs(3), 3)
    resumed.load_state_dict(state)
    assert list(resumed) == list(running)
    assert len(list(resumed)) == 9  # what comes then begins anew

"""Owns the tests of splits: what comes of an item is the same whoever makes it, and every failure is accounted for."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfserve import ConfigError
from dfserve.dataflow import (
    AugmentImageComponent,
    BatchData,
    DataFromList,
    DataFromShards,
    LMDBSerializer,
    MapData,
    MapDataComponent,
    MultiProcessMapAndBatchData,
    MultiProcessMapData,
    MultiThreadMapData,
    PrintData,
    ProxyDataFlow,
    RepeatedDataPoint,
    RNGDataFlow,
    SelectComponent,
    fix_rng_seed,
    get_rng,
    imgaug,
    rng,
)
from dfserve.dataflow.adapt import as_dataflow
from dfserve.dataflow.rng import Place, take_place
from dfserve.producer.itemwise import Batch
from dfserve.producer.splits import ItemFailed, NoItemsFault, Split, SplitRunner

SEED = 7


@pytest.fixture(autouse=True)
def _no_seed() -> Iterator[None]:
    yield
    take_place(Place())


def plain(value: Any) -> Any:
    """Return a datapoint as something that == compares."""
    if isinstance(value, np.ndarray):
        return (value.dtype.str, value.shape, value.tobytes())
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    return {key: plain(entry) for key, entry in value.items()} if isinstance(value, dict) else value


def epoch_of(
    runner: SplitRunner, size: int, shuffle: bool = True, epoch: int = 0, **options: Any
) -> tuple[list[Any], list[int]]:
    """Return all outputs of an epoch that is made in splits of ``size``, and how many came of each position."""
    outputs: list[Any] = []
    counts: list[int] = []
    n = runner.source.length
    for first in range(0, n, size):
        split = Split(SEED, epoch, shuffle, first, min(size, n - first), **options)
        made: list[Any] = []
        counts += runner.run(split, lambda output, made=made: made.append(plain(output)), restart=made.clear).counts
        outputs += made
    assert sum(counts) == len(outputs)
    return outputs, counts


def by_item(runner: SplitRunner, size: int, shuffle: bool, **options: Any) -> dict[int, list[Any]]:
    """Return the outputs of each item, by its index; they begin with that."""
    outputs, counts = epoch_of(runner, size, shuffle, **options)
    found: dict[int, list[Any]] = {}
    rest = iter(outputs)
    for count in counts:
        made = [next(rest) for _ in range(count)]
        if made:
            found[made[0][0]] = made
    return found


def numbers(count: int) -> DataFromList:
    return DataFromList([[number] for number in range(count)], shuffle=True)


class Jitters(RNGDataFlow, ProxyDataFlow):
    """A user's operator with a generator: some outputs, none, or several of each item."""

    def __init__(self, ds: Any) -> None:
        ProxyDataFlow.__init__(self, ds)

    def reset_state(self) -> None:
        ProxyDataFlow.reset_state(self)
        RNGDataFlow.reset_state(self)

    def __iter__(self) -> Iterator[Any]:
        for datapoint in self.ds:
            for _ in range(self.rng.randint(4)):
                yield [*datapoint, self.rng.rand()]


class Dataset:
    """As a torch Dataset: items by their number, with the augmentation in them."""

    def __init__(self, size: int = 30) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[int, float, float]:
        return index, random.random(), float(np.random.rand())


class Table(RNGDataFlow):
    """A user's source that draws when an item is read."""

    def __len__(self) -> int:
        return 30

    def __getitem__(self, index: int) -> list[Any]:
        return [index, self.rng.rand()]

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))


def images() -> DataFromList:
    generator = np.random.default_rng(0)
    return DataFromList([[n, generator.integers(0, 256, (16, 16, 3), np.uint8)] for n in range(30)])


def with_augmentors_in_a_function() -> Any:
    augmentors = imgaug.AugmentorList([imgaug.Flip(horiz=True), imgaug.RandomCrop(9), imgaug.Brightness(20)])
    sometimes = imgaug.Contrast((0.5, 1.5))

    def function(datapoint: Any) -> Any:
        image = augmentors.augment(datapoint[1])
        if datapoint[0] % 3 == 0:
            image = sometimes.augment(image)
        return [datapoint[0], image]

    return MapData(images(), function)


def with_a_generator_of_the_factory() -> Any:
    mine = get_rng()
    return MapData(numbers(30), lambda datapoint: [*datapoint, mine.rand()])


def with_generators_made_on_the_way() -> Any:
    kept: list[Any] = []

    def function(datapoint: Any) -> Any:
        if not kept:
            kept.append(get_rng())
        return [*datapoint, kept[0].rand(), get_rng().rand()]

    return MapData(numbers(30), function)


class RefersToItself(MapData):
    """Its function is made in the constructor, and reads what reset_state() sets."""

    def __init__(self, ds: Any) -> None:
        super().__init__(ds, lambda datapoint: [*datapoint, self.mine.rand()])

    def reset_state(self) -> None:
        super().reset_state()
        self.mine = get_rng(self)


RANDOM: dict[str, Callable[[], Any]] = {
    "operators": lambda: Jitters(Jitters(numbers(30))),
    "numpy": lambda: MapData(numbers(30), lambda dp: [*dp, np.random.rand(), np.random.randint(9)]),
    "random": lambda: MapDataComponent(MapData(numbers(30), lambda dp: [*dp, 0]), lambda _: random.gauss(0, 1), 1),
    "dataset": Dataset,
    "torch": lambda: MapData(numbers(30), _torchs),
    "table": Table,
    "imgaug": lambda: AugmentImageComponent(
        images(), [imgaug.RandomCrop(8), imgaug.GaussianNoise(), imgaug.Flip(vert=True)], index=1
    ),
    "imgaug in a function": with_augmentors_in_a_function,
    "imgaug, no operator's": lambda: MapDataComponent(images(), imgaug.RandomCrop(8).augment, 1),
    "a generator of the factory": with_a_generator_of_the_factory,
    "generators made on the way": with_generators_made_on_the_way,
    "a function with self": lambda: RefersToItself(numbers(30)),
    "threads": lambda: MultiThreadMapData(numbers(30), 3, lambda dp: [*dp, np.random.rand()]),
}


def _torchs(datapoint: Any) -> Any:
    import torch

    return [*datapoint, torch.rand(1).item()]


@pytest.fixture(params=RANDOM)
def pipeline(request: pytest.FixtureRequest) -> Callable[[], Any]:
    if request.param == "torch":
        pytest.importorskip("torch")
    return RANDOM[request.param]


def test_the_outputs_of_an_item_do_not_depend_on_splits_order_or_neighbours(pipeline: Callable[[], Any]) -> None:
    expected = by_item(SplitRunner(pipeline()), 8, shuffle=True)
    assert by_item(SplitRunner(pipeline()), 1, shuffle=True) == expected
    assert by_item(SplitRunner(pipeline()), 64, shuffle=False) == expected
    runner = SplitRunner(pipeline())
    epoch_of(runner, 5, epoch=3)
    without = by_item(runner, 4, shuffle=False, skip=frozenset({2, 3, 9}))
    assert without == {index: made for index, made in expected.items() if index not in (2, 3, 9)}


def test_the_outputs_of_an_item_differ_from_those_of_others_and_of_other_epochs(pipeline: Callable[[], Any]) -> None:
    runner = SplitRunner(pipeline())
    first, second = (epoch_of(runner, 8, False, epoch)[0] for epoch in (0, 1))
    random_parts = {str(output[1:]) for output in first}
    assert len(random_parts) == len(first)
    common = random_parts & {str(output[1:]) for output in second}
    assert len(common) < 5  # of small images there are but 81 crops


def test_augmentors_of_one_item_draw_different_numbers() -> None:
    two = [imgaug.RandomCrop(8), imgaug.RandomCrop(8)]
    drawn = MapData(numbers(8), lambda dp: [augmentor.rng.rand() for augmentor in two])
    outputs, _ = epoch_of(SplitRunner(drawn), 8)
    assert len({number for output in outputs for number in output}) == 16


# Their streams depend on more than the seed: on the global generators, which a run leaves elsewhere.
NOT_REPEATED = {"numpy", "random", "dataset"}


# Without "threads": those of the stream go on for a while, and draw from the same global generator.
@pytest.mark.parametrize("name", sorted(RANDOM.keys() - {"torch", "threads", "generators made on the way"}))
def test_one_that_is_streamed_before_and_after_gives_the_same_in_both_ways(name: str) -> None:
    expected, _ = epoch_of(SplitRunner(RANDOM[name]()), 8)

    def streamed(run_between: bool) -> list[Any]:
        fix_rng_seed(3)
        ds = as_dataflow(RANDOM[name]())
        ds.reset_state()
        passes = iter(ds)
        datapoints = [plain(next(passes)) for _ in range(3)]
        if run_between:
            runner = SplitRunner(ds)
            for _ in range(2):
                assert epoch_of(runner, 8)[0] == expected
        return datapoints + [plain(datapoint) for datapoint in islice(passes, 20)]

    with_runs = streamed(run_between=True)
    if name not in NOT_REPEATED:
        assert with_runs == streamed(run_between=False)


def test_what_is_streamed_after_equal_runs_does_not_repeat_itself() -> None:
    runner = SplitRunner(RANDOM["dataset"]())
    drawn = []
    for _ in range(2):
        epoch_of(runner, 8)
        drawn += [np.random.rand(), random.random()]
    assert len(set(drawn)) == 4


def test_a_filter_and_one_to_many_are_counted_for_each_position() -> None:
    even = MapData(numbers(10), lambda dp: dp if dp[0] % 2 == 0 else None)
    outputs, counts = epoch_of(SplitRunner(PrintData(RepeatedDataPoint(even, 3), num=0)), 4, shuffle=False)
    assert outputs == [[number] for number in range(0, 10, 2) for _ in range(3)]
    assert counts == [3, 0] * 5


@given(st.integers(0, 40), st.integers(1, 50), st.booleans(), st.integers(0, 2**63))
@settings(max_examples=50, deadline=None)
def test_an_epoch_has_every_item_once(count: int, size: int, shuffle: bool, seed: int) -> None:
    runner = SplitRunner(SelectComponent(DataFromList([["x", number] for number in range(count)]), [1]))
    outputs: list[Any] = []
    for first in range(0, count, size):
        runner.run(Split(seed, 5, shuffle, first, min(size, count - first)), outputs.append)
    assert sorted(outputs) == [[number] for number in range(count)]


def failing(*bad: int) -> Callable[[Any], Any]:
    def function(datapoint: Any) -> Any:
        if datapoint[0] in bad:
            raise ValueError(f"no good: {datapoint[0]}")
        return [*datapoint, np.random.rand()]

    return function


def test_an_item_that_fails_is_raised_with_position_and_key_and_the_runner_goes_on() -> None:
    runner = SplitRunner(MapData(numbers(20), failing(5)))
    outputs: list[Any] = []
    with pytest.raises(ItemFailed, match="position 5, 5: ValueError: no good: 5") as caught:
        runner.run(Split(SEED, 0, False, 4, 4), outputs.append)
    assert (caught.value.position, caught.value.key) == (5, "5")
    assert isinstance(caught.value.__cause__, ValueError)
    assert [output[0] for output in outputs] == [4]
    again: list[Any] = []
    assert runner.run(Split(SEED, 0, False, 4, 4, frozenset({5})), again.append).counts == [1, 0, 1, 1]
    assert again[0] == outputs[0]


def test_items_that_fail_are_left_out_and_the_others_are_what_they_would_be() -> None:
    expected = by_item(SplitRunner(MapData(numbers(20), failing())), 20, shuffle=False)
    runner = SplitRunner(MapData(numbers(20), failing(0, 7, 8, 19)))
    outputs: list[Any] = []
    outcome = runner.run(Split(SEED, 0, False, 0, 20, on_error="skip"), outputs.append)
    assert [failed.position for failed in outcome.quarantined] == [0, 7, 8, 19]
    assert [position for position, count in enumerate(outcome.counts) if not count] == [0, 7, 8, 19]
    assert {output[0]: [output] for output in outputs} == {n: expected[n] for n in range(20) if n not in (0, 7, 8, 19)}
    failed = outcome.quarantined[1]
    assert (failed.key, failed.kind, failed.text) == ("7", "ValueError", "no good: 7")
    assert "in function" in failed.traceback


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize("bare", [True, False], ids=["bare source", "with a map"])
def test_what_is_no_exception_is_an_items_failure_too_where_only_an_item_can_raise_it(
    kind: type[BaseException], bare: bool
) -> None:
    class Exits(Dataset):
        """Ends the process at the item 2, as a library may that calls sys.exit()."""

        def __getitem__(self, index: int) -> Any:
            if index == 2:
                raise kind(3)
            return [index]

    pipeline: Any = Exits() if bare else MapData(Exits(), lambda datapoint: datapoint)
    runner = SplitRunner(pipeline, BaseException)
    with pytest.raises(ItemFailed, match=f"position 2, 2: {kind.__name__}: 3"):
        runner.run(Split(SEED, 0, False, 1, 4), lambda _: None)
    outcome = runner.run(Split(SEED, 0, False, 1, 4, on_error="skip"), lambda _: None)
    assert outcome.counts == [1, 0, 1, 1]
    assert [(failed.position, failed.kind, failed.text) for failed in outcome.quarantined] == [(2, kind.__name__, "3")]
    with pytest.raises(kind):
        SplitRunner(pipeline).run(Split(SEED, 0, False, 1, 4, on_error="skip"), lambda _: None)


def test_the_key_of_a_failure_is_the_items_name_where_it_has_one() -> None:
    def function(datapoint: Any) -> Any:
        raise ValueError("unreadable")

    runner = SplitRunner(MapData(DataFromList([[f"{n}.jpg", n] for n in range(9)]), function))
    outcome = runner.run(Split(SEED, 0, False, 3, 2, on_error="skip"), lambda _: None)
    assert [failed.key for failed in outcome.quarantined] == ["3.jpg", "4.jpg"]


def test_an_item_that_cannot_be_read_is_its_own_failure() -> None:
    class Half(Dataset):
        def __getitem__(self, index: int) -> Any:
            if index % 2:
                raise OSError("gone")
            return index

    outcome = SplitRunner(Half()).run(Split(SEED, 0, False, 0, 6, on_error="skip"), lambda _: None)
    assert outcome.counts == [1, 0, 1, 0, 1, 0]
    assert [failed.key for failed in outcome.quarantined] == ["1", "3", "5"]


def test_what_cannot_be_added_is_a_failure_of_its_item() -> None:
    added: list[Any] = []

    def add(output: Any) -> None:
        if output[0] == 2:
            raise TypeError("cannot travel")
        added.append(output)

    outcome = SplitRunner(numbers(5)).run(Split(SEED, 0, False, 0, 5, on_error="skip"), add)
    assert added == [[0], [1], [3], [4]]
    assert [(failed.position, failed.kind) for failed in outcome.quarantined] == [(2, "TypeError")]


def test_an_operators_own_policy_comes_first() -> None:
    runner = SplitRunner(MapData(numbers(8), failing(3), on_error="skip"))
    outcome = runner.run(Split(SEED, 0, False, 0, 8), lambda _: None)
    assert outcome.counts == [1, 1, 1, 0, 1, 1, 1, 1]
    assert not outcome.quarantined


def test_a_sources_own_policy_comes_first(tmp_path: Path) -> None:
    from dfserve.dataflow import ImageFromFile

    for name in "ac":
        cv2 = pytest.importorskip("cv2")
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.zeros((4, 4, 3), np.uint8))
    files = [tmp_path / f"{name}.png" for name in "abc"]
    assert epoch_of(SplitRunner(ImageFromFile(files, on_error="skip")), 2, shuffle=False)[1] == [1, 0, 1]
    with pytest.raises(ItemFailed, match=r"b\.png"):
        epoch_of(SplitRunner(ImageFromFile(files)), 2, shuffle=False)


def test_a_package_that_is_missing_is_never_an_items_fault() -> None:
    def function(datapoint: Any) -> Any:
        import a_package_that_nobody_has  # noqa: F401

    runner = SplitRunner(MapData(numbers(3), function))
    with pytest.raises(ItemFailed, match="a_package_that_nobody_has"):
        runner.run(Split(SEED, 0, False, 0, 3, on_error="skip"), lambda _: None)


class YieldsThenFails(ProxyDataFlow):
    """Fails at item 2, after two of its outputs."""

    def __iter__(self) -> Iterator[Any]:
        for datapoint in self.ds:
            yield [*datapoint, "a"]
            yield [*datapoint, "b"]
            if datapoint[0] == 2:
                raise ValueError("late")


def test_an_item_that_fails_after_some_of_its_outputs_leaves_none_if_the_split_can_be_begun_again() -> None:
    added: list[Any] = []
    told: list[int] = []
    split = Split(SEED, 0, False, 0, 4, on_error="skip")
    outcome = SplitRunner(YieldsThenFails(numbers(4))).run(split, added.append, told.append, added.clear)
    assert outcome.counts == [2, 2, 0, 2]
    assert [output[0] for output in added] == [0, 0, 1, 1, 3, 3]
    assert [failed.position for failed in outcome.quarantined] == [2]
    assert told == [0, 1, 2, 0, 1, 3]


def test_without_that_the_outputs_before_the_failure_are_counted() -> None:
    added: list[Any] = []
    split = Split(SEED, 0, False, 0, 4, on_error="skip")
    outcome = SplitRunner(YieldsThenFails(numbers(4))).run(split, added.append)
    assert outcome.counts == [2, 2, 2, 2]
    assert len(added) == 8


def test_each_position_is_told_before_its_item_is_fetched() -> None:
    events: list[Any] = []

    class Tells(Dataset):
        def __getitem__(self, index: int) -> Any:
            events.append("fetch")
            return index

    SplitRunner(Tells()).run(Split(SEED, 0, True, 6, 2), lambda _: events.append("add"), events.append)
    assert events == [6, "fetch", "add", 7, "fetch", "add"]


@pytest.mark.parametrize("blamed", [Exception, BaseException])
def test_an_interrupt_ends_the_run_and_the_runner_works_on(blamed: type[BaseException]) -> None:
    class Interrupt(NoItemsFault):
        pass

    def at(position: int) -> None:
        if position == 3:
            raise Interrupt

    runner = SplitRunner(MapData(numbers(9), failing()), blamed)
    expected = by_item(runner, 9, shuffle=False)
    with pytest.raises(Interrupt):
        runner.run(Split(SEED, 0, False, 0, 9, on_error="skip"), lambda _: None, at)
    assert by_item(runner, 3, shuffle=False) == expected


def test_an_operator_cannot_change_the_sources_datapoints() -> None:
    class Appends(ProxyDataFlow):
        def __iter__(self) -> Iterator[Any]:
            for datapoint in self.ds:
                datapoint.append(len(datapoint))
                yield datapoint

    runner = SplitRunner(Appends(numbers(5)))
    assert epoch_of(runner, 2) == epoch_of(runner, 5)


def test_a_function_for_processes_may_change_its_argument() -> None:
    def double(datapoint: Any) -> Any:
        datapoint[1] *= 2
        return datapoint

    ds = MultiProcessMapData(DataFromList([[n, np.ones(3)] for n in range(4)]), 2, double)
    runner = SplitRunner(ds)
    assert epoch_of(runner, 2) == epoch_of(runner, 4)


def test_parallel_maps_give_what_mapdata_gives() -> None:
    function, before = failing(3), set(threading.enumerate())
    expected = epoch_of(SplitRunner(MapData(numbers(9), function, on_error="skip")), 4)
    for operator in (
        MultiThreadMapData(numbers(9), 2, function, on_error="skip"),
        MultiProcessMapData(numbers(9), 2, function, on_error="skip"),
        MultiProcessMapAndBatchData(numbers(9), 2, function, 4, on_error="skip"),
    ):
        assert epoch_of(SplitRunner(operator), 4) == expected
        assert set(threading.enumerate()) <= before, "earlier tests' may end meanwhile"


def test_a_batch_at_the_end_is_the_consumers() -> None:
    runner = SplitRunner(BatchData(numbers(9), 4, remainder=True, use_list=True))
    assert runner.source.batch == Batch(4, True, True)
    assert sorted(epoch_of(runner, 2)[0]) == [[number] for number in range(9)]
    assert SplitRunner(MultiProcessMapAndBatchData(numbers(9), 2, failing(), 3)).source.batch == Batch(3, False, False)
    assert SplitRunner(numbers(9)).source.batch is None


def test_the_items_of_an_lmdb_are_those_of_its_save(tmp_path: Path) -> None:
    LMDBSerializer.save(images(), str(tmp_path / "x.lmdb"))
    saved = sorted(map(plain, LMDBSerializer.load(str(tmp_path / "x.lmdb"), shuffle=False)))
    ds = LMDBSerializer.load(str(tmp_path / "x.lmdb"))
    ds.reset_state()
    runner = SplitRunner(ds)
    assert (runner.source.name, runner.source.length) == ("LMDBDatapoints", 30)
    assert sorted(epoch_of(runner, 8)[0]) == saved
    assert sorted(map(plain, ds)) == saved


SHARDS = {"a": 3, "b": 0, "c": 5, "d": 1}


def shard(key: str) -> Iterator[Any]:
    for number in range(SHARDS[key]):
        yield [f"{key}{number}", np.random.rand()]


def sharded() -> Any:
    return Jitters(MapData(DataFromShards(list(SHARDS), shard), lambda dp: [*dp, random.random()]))


def test_the_outputs_of_a_shard_do_not_depend_on_what_came_before() -> None:
    runner = SplitRunner(sharded())
    assert (runner.source.length, runner.source.sharded) == (4, True)
    whole, counts = epoch_of(runner, 4, shuffle=False)
    assert epoch_of(SplitRunner(sharded()), 1, shuffle=False) == (whole, counts)
    c = [output for output in whole if output[0].startswith("c")]
    assert [output for output in epoch_of(runner, 1, shuffle=True)[0] if output[0].startswith("c")] == c


def test_the_datapoints_of_a_shard_draw_different_numbers() -> None:
    outputs, _ = epoch_of(SplitRunner(MapData(DataFromShards(list(SHARDS), shard), lambda dp: dp)), 1)
    assert len({output[1] for output in outputs}) == len(outputs) == 9


def test_a_shard_that_fails_is_left_out_whole() -> None:
    def function(datapoint: Any) -> Any:
        if datapoint[0] == "c3":
            raise ValueError("bad")
        return datapoint

    added: list[Any] = []
    runner = SplitRunner(MapData(DataFromShards(list(SHARDS), shard), function))
    split = Split(SEED, 0, False, 0, 4, on_error="skip")
    outcome = runner.run(split, lambda output: added.append(output[0]), restart=added.clear)
    assert added == ["a0", "a1", "a2", "d0"]
    assert outcome.counts == [3, 0, 0, 1]
    assert [(failed.position, failed.key) for failed in outcome.quarantined] == [(2, "c3")]


def test_a_shard_that_cannot_be_opened_is_named_by_its_key() -> None:
    def opened(key: str) -> Any:
        raise OSError("gone")

    with pytest.raises(ItemFailed, match="position 1, two: OSError: gone"):
        SplitRunner(DataFromShards(["one", "two"], opened)).run(Split(SEED, 0, False, 1, 1), lambda _: None)


class Pairs(ProxyDataFlow):
    """Batches, in its own way."""

    def __iter__(self) -> Iterator[Any]:
        held: list[Any] = []
        for datapoint in self.ds:
            held.append(datapoint)
            if len(held) == 2:
                yield held
                held = []
        if held:
            yield held


class Sorts(ProxyDataFlow):
    """Needs all items at once."""

    def __iter__(self) -> Iterator[Any]:
        yield from sorted(self.ds)


class Ahead(ProxyDataFlow):
    """Reads one item ahead."""

    def __iter__(self) -> Iterator[Any]:
        items = iter(self.ds)
        last = next(items)
        for item in items:
            yield last
            last = item
        yield last


class Twice(ProxyDataFlow):
    """Makes two passes."""

    def __iter__(self) -> Iterator[Any]:
        yield from self.ds
        yield from self.ds


class Few(ProxyDataFlow):
    """Ends early."""

    def __iter__(self) -> Iterator[Any]:
        for datapoint, _ in zip(self.ds, range(2), strict=False):
            yield datapoint


class Heads(ProxyDataFlow):
    """Begins with a datapoint of its own."""

    def __iter__(self) -> Iterator[Any]:
        yield ["head"]
        yield from self.ds


class Threads(ProxyDataFlow):
    """Reads its source in a thread."""

    def __iter__(self) -> Iterator[Any]:
        found: list[Any] = []

        def read() -> None:
            try:
                found.extend(self.ds)
            except BaseException as error:
                found.append(error)

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        thread.join()
        if isinstance(found[-1], BaseException):
            raise found[-1]
        yield from found


@pytest.mark.parametrize(
    ("operator", "message"),
    [
        (Pairs, "Pairs yields outputs after its source's end"),
        (Sorts, "Sorts yields outputs after its source's end"),
        (Ahead, "Ahead yields outputs after its source's end"),
        (Twice, "Twice makes more than one pass"),
        (Few, "Few ends its pass before its source's end"),
        (Heads, "Heads yields before it has taken an item"),
        (Threads, "Threads reads its source in another thread"),
    ],
)
def test_an_operator_that_does_not_go_item_by_item_is_found_out(operator: Any, message: str) -> None:
    runner = SplitRunner(MapData(operator(numbers(5)), lambda dp: dp))
    with pytest.raises(ConfigError, match=message):
        runner.run(Split(SEED, 0, True, 0, 5, on_error="skip"), lambda _: None)


def test_what_an_operator_raises_without_an_item_is_raised_as_it_is() -> None:
    class Broken(ProxyDataFlow):
        def __iter__(self) -> Iterator[Any]:
            raise OSError("no connection")

    with pytest.raises(OSError, match="no connection"):
        SplitRunner(Broken(numbers(5))).run(Split(SEED, 0, True, 0, 5, on_error="skip"), lambda _: None)


@pytest.mark.parametrize(("first", "count", "on_error"), [(3, 3, "raise"), (-1, 2, "raise"), (0, 1, "ignore")])
def test_a_split_that_cannot_be_is_refused(first: int, count: int, on_error: str) -> None:
    with pytest.raises(ConfigError):
        SplitRunner(numbers(5)).run(Split(SEED, 0, True, first, count, on_error=on_error), lambda _: None)


def test_nothing_is_reset_or_read_before_the_first_run_and_then_it_is_reset_once() -> None:
    events: list[str] = []

    class Tells(ProxyDataFlow):
        def reset_state(self) -> None:
            events.append("reset")
            super().reset_state()

    runner = SplitRunner(Tells(numbers(5)))
    assert events == []
    epoch_of(runner, 1)
    assert events == ["reset"]


def test_a_reset_that_failed_is_done_again_with_the_same_numbers() -> None:
    class Fails(Jitters):
        tries = 0

        def reset_state(self) -> None:
            super().reset_state()
            Fails.tries += 1
            if Fails.tries == 1:
                raise OSError("not yet")

    runner = SplitRunner(Fails(numbers(9)))
    with pytest.raises(OSError, match="not yet"):
        epoch_of(runner, 3)
    assert epoch_of(runner, 3) == epoch_of(SplitRunner(Jitters(numbers(9))), 9)


def test_a_source_made_of_others_leaves_them_their_generators() -> None:
    class Joined(ProxyDataFlow):
        """The items of another, with a number drawn."""

        def __len__(self) -> int:
            return len(self.ds)

        def __getitem__(self, index: int) -> Any:
            return [*self.ds[index], np.random.rand()]

        def __iter__(self) -> Iterator[Any]:
            return iter(self.ds)

    inner = numbers(9)
    inner.reset_state()
    mine = inner.rng
    runner = SplitRunner(Joined(inner))
    assert epoch_of(runner, 2) == epoch_of(runner, 9)
    assert inner.rng is mine


def test_a_shard_that_is_there_twice_is_refused() -> None:
    class Shards:
        def shard_keys(self) -> list[str]:
            return ["a", "b", "a"]

        def open_shard(self, key: str) -> Iterator[Any]:
            return iter(())

        def reset_state(self) -> None:
            pass

        def __iter__(self) -> Iterator[Any]:
            return iter(())

    with pytest.raises(ConfigError, match="shard 'a' is there more than once"):
        SplitRunner(MapData(Shards(), list))


def test_a_bare_list_leaves_the_global_generators_alone() -> None:
    np.random.seed(5)
    expected = np.random.rand(3).tolist()
    np.random.seed(5)
    drawn: list[float] = []
    runner = SplitRunner(DataFromList([[0], [1], [2]]))
    runner.run(Split(SEED, 0, True, 0, 3), lambda _: drawn.append(np.random.rand()))
    assert drawn == expected


def test_generators_made_meanwhile_do_not_shift_those_of_the_run(pipeline: Callable[[], Any]) -> None:
    ds = pipeline()
    fix_rng_seed(9)
    expected = get_rng().rand()
    fix_rng_seed(9)
    runner = SplitRunner(ds)
    epoch_of(runner, 8)
    assert get_rng().rand() == expected
    assert not rng._makers


WORKERS = """
import os, sys
import numpy as np
from dfserve.dataflow import DataFromList, MapData, get_rng, imgaug
from dfserve.dataflow.afresh import start_afresh
from dfserve.dataflow.rng import Place
from dfserve.producer.splits import Split, SplitRunner

augmentors = imgaug.AugmentorList([imgaug.RandomCrop(9), imgaug.Brightness(20)])
mine = get_rng()
augment = lambda dp: [dp[0], augmentors.augment(dp[1]).sum(), mine.rand(), np.random.rand()]
pixels = np.arange(768, dtype=np.uint8).reshape(16, 16, 3)
ds = MapData(DataFromList([[number, pixels] for number in range(12)]), augment)
made_before_the_fork = SplitRunner(ds)

for worker in range(3):
    child = os.fork()
    if child:
        assert os.waitpid(child, 0)[1] == 0
        continue
    start_afresh(Place(None, (worker,)))
    runner = made_before_the_fork if worker else SplitRunner(ds)
    outputs = []
    for first in range(0, 12, 3 + worker):
        runner.run(Split(1, 0, True, first, min(3 + worker, 12 - first)), outputs.append)
    print([[float(number) for number in output] for output in outputs], flush=True)
    os._exit(0)
"""


def test_workers_that_were_forked_make_the_same_outputs() -> None:
    told = subprocess.run([sys.executable, "-c", WORKERS], check=True, capture_output=True, text=True, timeout=60)
    first, second, third = told.stdout.splitlines()
    assert first == second == third
    assert len(json.loads(first)) == 12


def test_globals_that_are_drawn_from_only_later_are_seeded_from_there_on() -> None:
    def function(datapoint: Any) -> Any:
        return [*datapoint, random.random() if datapoint[0] >= 20 else 0.0]

    outputs, _ = epoch_of(SplitRunner(MapData(numbers(30), function)), 8, shuffle=False)
    again, _ = epoch_of(SplitRunner(MapData(numbers(30), function)), 7, shuffle=False)
    assert outputs == again
    assert len({output[-1] for output in outputs}) == 11


def test_an_item_that_fails_by_chance_fails_again() -> None:
    def function(datapoint: Any) -> Any:
        if np.random.rand() < 0.3:
            raise ValueError("bad luck")
        return datapoint

    def positions() -> list[int]:
        runner = SplitRunner(MapData(numbers(30), function))
        outcome = runner.run(Split(SEED, 0, False, 0, 30, on_error="skip"), lambda _: None, restart=lambda: None)
        return [failed.position for failed in outcome.quarantined]

    assert positions() == positions() != []

"""The DataFlow protocol: passes, lengths, resets, and tensorpack's old names."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from dfserve.dataflow import DataFlow, DataFromList, DataFromShards, ProxyDataFlow, RNGDataFlow
from dfserve.dataflow.base import known_length
from dfserve.errors import DfserveError


class Count(DataFlow):
    def __iter__(self) -> Iterator[Any]:
        return iter([[0], [1], [2]])


def test_a_dataflow_can_be_iterated_more_than_once() -> None:
    ds = Count()
    assert list(ds) == list(ds) == [[0], [1], [2]]


def test_a_dataflow_without_iter_cannot_be_made() -> None:
    class Nothing(DataFlow):
        pass

    with pytest.raises(TypeError, match="abstract"):
        Nothing()  # type: ignore[abstract]


def test_an_unknown_length_is_tensorpacks_error_and_does_not_keep_list_from_working() -> None:
    with pytest.raises(NotImplementedError, match="Count does not know its length"):
        len(Count())
    assert list(Count()) == [[0], [1], [2]]
    assert known_length(Count()) is None
    assert known_length(DataFromList([[1]])) == 1


def test_a_proxy_passes_length_reset_and_datapoints_on() -> None:
    class Source(DataFromList):
        resets = 0

        def reset_state(self) -> None:
            super().reset_state()
            self.resets += 1

    source = Source([[1], [2]], shuffle=False)
    proxy = ProxyDataFlow(ProxyDataFlow(source))
    proxy.reset_state()
    assert (list(proxy), len(proxy), source.resets) == ([[1], [2]], 2, 1)


def test_the_old_names_work_and_warn() -> None:
    ds = ProxyDataFlow(DataFromList([[1], [2]], shuffle=False))
    with pytest.warns(DeprecationWarning, match="get_data"):
        assert list(ds.get_data()) == [[1], [2]]
    with pytest.warns(DeprecationWarning, match="size"):
        assert ds.size() == 2


def test_a_subclass_may_define_the_old_names_only() -> None:
    class OldStyle(DataFlow):
        def get_data(self) -> Iterator[Any]:
            yield from ([1], [2])

        def size(self) -> int:
            return 2

    ds = ProxyDataFlow(OldStyle())  # type: ignore[abstract] # __iter__ comes with get_data, unseen by the checker
    assert list(ds) == list(ds.ds.get_data()) == [[1], [2]]
    assert len(ds) == ds.ds.size() == 2


def test_an_old_style_subclass_may_call_its_parents_get_data() -> None:
    class Doubled(DataFromList):
        def get_data(self) -> Iterator[Any]:
            for (number,) in super().get_data():
                yield [2 * number]

    with pytest.warns(DeprecationWarning, match="get_data"):
        assert list(Doubled([[1], [2]], shuffle=False)) == [[2], [4]]


def test_get_data_is_the_pass_of_the_class_that_a_mixin_completes() -> None:
    class Mixin:
        def __iter__(self) -> Iterator[Any]:
            return iter([["mixin"]])

    class Mixed(Mixin, Count):
        pass

    with pytest.warns(DeprecationWarning, match="get_data"):
        assert list(Mixed().get_data()) == [["mixin"]]


def test_drawing_random_numbers_without_a_reset_says_what_to_call() -> None:
    with pytest.raises(DfserveError, match=r"call reset_state\(\)"):
        list(DataFromList([[1], [2]], shuffle=True))


def test_every_reset_makes_another_generator() -> None:
    class Draws(RNGDataFlow):
        def __iter__(self) -> Iterator[Any]:
            yield self.rng.rand(4).tolist()

    ds = Draws()
    ds.reset_state()
    first = list(ds)
    ds.reset_state()
    assert list(ds) != first


def test_a_generator_of_ones_own_may_be_set() -> None:
    ds = DataFromList([[n] for n in range(9)])
    ds.rng = np.random.RandomState(3)
    first = list(ds)
    ds.rng = np.random.RandomState(3)
    assert list(ds) == first
    assert sorted(first) == [[n] for n in range(9)]


def test_a_dataflow_can_be_pickled_for_a_worker() -> None:
    ds = ProxyDataFlow(DataFromList([[1], [2]], shuffle=False))
    ds.reset_state()
    assert list(pickle.loads(pickle.dumps(ds))) == [[1], [2]]


class Doubled(DataFromList):
    def __iter__(self) -> Iterator[Any]:
        for (number,) in super().__iter__():
            yield [2 * number]


class OldDoubled(DataFromList):
    def get_data(self) -> Iterator[Any]:
        for (number,) in self.lst:
            yield [2 * number]


class Twice:
    def __iter__(self) -> Iterator[Any]:
        return iter([[2], [4]])


class MixedIn(Twice, DataFromList):
    pass


class Inherited(Doubled):
    pass


@pytest.mark.parametrize("kind", [Doubled, OldDoubled, MixedIn, Inherited])
def test_the_items_of_a_parent_are_not_those_of_another_pass(kind: Any) -> None:
    ds = kind([[1], [2]], shuffle=False)
    assert list(ds) == list(pickle.loads(pickle.dumps(ds))) == [[2], [4]]
    with pytest.raises(TypeError):
        ds[0]
    assert DataFromList([[1]])[0] == [1]


def test_a_subclass_has_items_if_it_defines_them_with_its_pass_or_further_down() -> None:
    class Both(Doubled):
        def __getitem__(self, index: int) -> Any:
            return [2 * self.lst[index][0]]

    class Reversed(DataFromList):
        __getitem__ = DataFromList.__getitem__

        def __iter__(self) -> Iterator[Any]:
            return (self[place] for place in reversed(range(len(self))))

    class OtherItems(DataFromList):
        def __getitem__(self, index: int) -> Any:
            return [-self.lst[index][0]]

    lst = [[1], [2]]
    assert (list(Both(lst, False)), Both(lst)[0]) == ([[2], [4]], [2])
    assert (list(Reversed(lst, False)), Reversed(lst)[0]) == ([[2], [1]], [1])
    assert OtherItems(lst)[0] == [-1]


def test_the_shards_of_a_parent_are_not_those_of_another_pass() -> None:
    class Negated(DataFromShards):
        def __iter__(self) -> Iterator[Any]:
            for (number,) in super().__iter__():
                yield [-number]

    class Whole(DataFromShards):
        def __iter__(self) -> Iterator[Any]:
            return self.open_shard(self.shard_keys()[0])

        def open_shard(self, key: str) -> Iterator[Any]:
            yield [key]

    ds: Any = Negated(["1", "2"], lambda key: [[int(key)]])
    assert list(ds) == [[-1], [-2]]
    assert ds.open_shard is ds.shard_keys is None
    assert list(Whole(["1"], lambda _: [])) == [["1"]]

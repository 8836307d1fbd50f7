"""Owns the tests of private copies of DataFlows."""

from __future__ import annotations

from functools import partial
from typing import Any

from dfserve.dataflow import DataFromList, MapData, MapDataComponent, RNGDataFlow, get_rng
from dfserve.producer.twins import generators_in, twin_of

OF_THE_MODULE = get_rng()


def draw(datapoint: Any) -> Any:
    return helper(datapoint)


def helper(datapoint: Any) -> Any:
    return [*datapoint, OF_THE_MODULE.rand()]


class Caller:
    """A function with a generator."""

    def __init__(self) -> None:
        self.rng = get_rng(self)

    def __call__(self, datapoint: Any) -> Any:
        return [*datapoint, self.rng.rand()]

    def method(self, datapoint: Any) -> Any:
        return self(datapoint)


class Scales(MapData):
    """Operators of users refer to themselves in all these ways."""

    def __init__(self, ds: Any) -> None:
        super().__init__(ds, self.scale)
        self.factor = 1
        self.closure = lambda x: x * self.factor
        self.nested = (lambda inner: lambda x: inner(x))(self.closure)
        self.partial = partial(Scales._scaled, self)
        self.keyword = partial(Scales._scaled, x=3, self=self)

    def scale(self, datapoint: Any) -> Any:
        return [self._scaled(datapoint[0])]

    def _scaled(self, x: int) -> int:
        return x * self.factor


def test_methods_closures_and_partials_of_a_copy_refer_to_the_copy() -> None:
    original = Scales([[1]])
    twin = twin_of(original)
    twin.factor = 10
    for ds, factor in ((twin, 10), (original, 1)):
        assert ds.func([3]) == [3 * factor]
        assert ds.closure(3) == ds.nested(3) == ds.partial(3) == ds.keyword() == 3 * factor


def test_what_is_no_part_of_the_operator_is_shared() -> None:
    data = [[1], [2]]
    twin = twin_of(DataFromList(data))
    assert twin.lst is data


def test_a_copy_counts_its_own_failures() -> None:
    original = MapDataComponent([[1]], str, on_error="skip")
    twin = twin_of(original)
    twin._tally.bad(ValueError())
    assert (twin._tally.failed, original._tally.failed) == (1, 0)


def test_a_copy_has_a_generator_of_its_own_after_a_reset() -> None:
    original = DataFromList([[1]])
    original.reset_state()
    mine = original.rng
    twin = twin_of(original)
    twin.reset_state()
    assert twin.rng is not mine
    assert original.rng is mine


def test_a_class_with_slots_is_copied_too() -> None:
    class Slots(RNGDataFlow):
        __slots__ = ("x",)

        def __iter__(self) -> Any:
            return iter(())

    original = Slots()
    original.x = 5
    original.y = 6
    assert (twin_of(original).x, twin_of(original).y) == (5, 6)


def test_generators_are_found_where_functions_refer_to_them() -> None:
    mine = get_rng()
    caller = Caller()
    assert list(generators_in(MapData([[1]], lambda dp: mine.rand()))) == [mine]
    assert list(generators_in(MapData([[1]], draw))) == [OF_THE_MODULE]
    assert list(generators_in(MapData([[1]], partial(lambda rng, dp: dp, mine)))) == [mine]
    assert list(generators_in(MapData([[1]], lambda dp, rng=mine: dp))) == [mine]
    assert list(generators_in(MapData([[1]], caller))) == [caller.rng]
    assert list(generators_in(MapData([[1]], caller.method))) == [caller.rng]
    assert list(generators_in(MapData([[1]], lambda dp: [mine.rand() for _ in dp]))) == [mine]
    assert list(generators_in(MapData([[1]], str))) == []

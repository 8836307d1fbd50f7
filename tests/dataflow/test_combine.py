"""Several DataFlows as one: chosen by chance, mixed, one after the other, side by side."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfserve.dataflow import DataFromGenerator, DataFromList, RepeatedData, RNGDataFlow
from dfserve.dataflow.combine import ConcatData, JoinData, RandomChooseData, RandomMixData
from dfserve.errors import ConfigError, DatapointError, DfserveError, UnknownLengthError

OPERATORS: list[Any] = [ConcatData, JoinData, RandomChooseData, RandomMixData]
# Lengths of a few sources.
lengths = st.lists(st.integers(0, 12), min_size=1, max_size=5)


def source(name: str, length: int) -> DataFromList:
    return DataFromList([[f"{name}{n}"] for n in range(length)], shuffle=False)


def sources(lengths: list[int]) -> list[DataFromList]:
    return [source("abcde"[place], length) for place, length in enumerate(lengths)]


def names(datapoints: Any) -> list[str]:
    return [name for (name,) in datapoints]


@given(lengths)
def test_a_concatenation_is_what_that_of_lists_is(lengths: list[int]) -> None:
    ds = ConcatData(sources(lengths))
    ds.reset_state()
    assert list(ds) == list(ds) == [dp for each in sources(lengths) for dp in each]
    assert len(ds) == sum(lengths)


@given(lengths)
def test_a_mix_is_all_datapoints_and_each_sources_keep_their_order(lengths: list[int]) -> None:
    ds = RandomMixData(sources(lengths))
    ds.reset_state()
    mixed = names(ds)
    assert len(mixed) == len(ds) == sum(lengths)
    for place, length in enumerate(lengths):
        own = [name for name in mixed if name[0] == "abcde"[place]]
        assert own == [f"{'abcde'[place]}{n}" for n in range(length)]


def test_a_mix_makes_every_interleaving_equally_often() -> None:
    ds = RandomMixData([source("a", 2), source("b", 1)])
    ds.reset_state()
    ds.rng.seed(1)
    counts = Counter("".join(name[0] for name in names(ds)) for _ in range(3000))
    assert set(counts) == {"aab", "aba", "baa"}
    assert min(counts.values()) > 850  # 1000 each on average; 5 standard deviations are 130


def test_a_mix_has_tensorpacks_order_for_the_same_generator(tensorpack: ModuleType) -> None:
    ours = RandomMixData(sources([30, 1, 20]))
    theirs = tensorpack.RandomMixData(
        [tensorpack.DataFromList(list(each), shuffle=False) for each in sources([30, 1, 20])]
    )
    for ds in (ours, theirs):
        ds.reset_state()
        ds.rng = np.random.RandomState(3)
    assert list(ours) == list(theirs)


def test_a_mix_takes_no_more_of_a_source_than_its_length_and_less_of_one_that_has_less() -> None:
    class Claims(DataFromList):
        def __len__(self) -> int:
            return 5

    ds = RandomMixData([Claims([["few"]] * 2, shuffle=False), Claims([["many"]] * 9, shuffle=False)])
    ds.reset_state()
    assert Counter(names(ds)) == {"few": 2, "many": 5}


def test_a_mix_needs_lengths() -> None:
    with pytest.raises(ConfigError, match="entry 1, RepeatedData, has no length"):
        RandomMixData([source("a", 2), RepeatedData(source("b", 1), -1)])


@given(lengths)
def test_joined_datapoints_have_the_components_of_all_and_the_shortest_decides(lengths: list[int]) -> None:
    ds = JoinData(sources(lengths))
    ds.reset_state()
    joined = list(ds)
    assert joined == [["abcde"[place] + str(n) for place in range(len(lengths))] for n in range(min(lengths))]
    assert len(ds) == min(lengths)


def test_different_lengths_of_what_is_joined_are_told(caplog: pytest.LogCaptureFixture) -> None:
    JoinData([source("a", 2), source("b", 2), DataFromGenerator(lambda: iter([]))])
    assert not caplog.records
    JoinData([source("a", 3), source("b", 2)])
    assert [record.getMessage() for record in caplog.records] == [
        "JoinData: the lengths are [2, 3]; a pass ends after 2"
    ]


def test_what_is_joined_is_as_tensorpacks(tensorpack: ModuleType) -> None:
    for parts in (([[1, 2]], [(3,)]), ([(1,)], [[2]]), ([{"a": 1}], [{"b": 2, "c": 3}])):
        ours = JoinData([DataFromList(part, shuffle=False) for part in parts])
        theirs = tensorpack.JoinData([tensorpack.DataFromList(part, shuffle=False) for part in parts])
        assert list(ours) == list(theirs)


def test_a_key_that_two_of_the_joined_dicts_have_is_refused() -> None:
    ds = JoinData([[{"image": 1, "label": 2}], [{"label": 3}]])
    with pytest.raises(DatapointError, match=r"datapoint 0 of DataFlow 1 has keys .*\['label'\]"):
        list(ds)


def test_lists_are_joined_with_lists_only() -> None:
    with pytest.raises(DatapointError, match="datapoint 0 consists of list, dict"):
        list(JoinData([[[1]], [{"a": 1}]]))
    with pytest.raises(DatapointError, match="datapoint 0 consists of dict, str"):
        list(JoinData([[{"a": 1}], DataFromList(["bare"], shuffle=False)]))


def test_a_source_may_be_joined_with_itself_and_is_reset_once() -> None:
    class Counts(RNGDataFlow):
        resets = 0

        def reset_state(self) -> None:
            self.resets += 1

        def __iter__(self) -> Any:
            return iter([[1], [2]])

    ds = Counts()
    for operator in (JoinData, ConcatData, RandomChooseData):
        ds.resets = 0
        operator([ds, ds]).reset_state()
        assert ds.resets == 1
    assert list(JoinData([ds, ds])) == [[1, 1], [2, 2]]


def test_choosing_ends_with_the_first_source_that_is_chosen_and_has_no_more() -> None:
    ds = RandomChooseData([RepeatedData(source("a", 1), -1), source("b", 10)])
    ds.reset_state()
    for _ in range(20):
        chosen = names(ds)
        assert [name for name in chosen if name[0] == "b"] == [f"b{n}" for n in range(10)]
    with pytest.raises(UnknownLengthError):
        len(ds)


def test_sources_are_chosen_as_often_as_their_probabilities_say() -> None:
    endless = [RepeatedData(source(name, 1), -1) for name in "abc"]
    ds = RandomChooseData([(endless[0], 0.7), (endless[1], 0), (endless[2], 0.3)])
    ds.reset_state()
    ds.rng.seed(2)
    counts = Counter(names(islice(ds, 10_000)))
    assert set(counts) == {"a0", "c0"}
    assert abs(counts["a0"] - 7000) < 230  # 5 standard deviations


def test_sources_without_probabilities_are_chosen_alike() -> None:
    ds = RandomChooseData([RepeatedData(source(name, 1), -1) for name in "abcd"])
    ds.reset_state()
    ds.rng.seed(3)
    counts = Counter(names(islice(ds, 10_000)))
    assert all(abs(counts[name] - 2500) < 220 for name in ("a0", "b0", "c0", "d0"))


def test_choices_are_tensorpacks_for_the_same_generator(tensorpack: ModuleType) -> None:
    weights = [0.25, 0.5, 0.25]
    ours = RandomChooseData(list(zip(sources([50, 60, 70]), weights, strict=True)))
    theirs = tensorpack.RandomChooseData(
        [
            (tensorpack.DataFromList(list(each), shuffle=False), weight)
            for each, weight in zip(sources([50, 60, 70]), weights, strict=True)
        ]
    )
    for ds in (ours, theirs):
        ds.reset_state()
        ds.rng = np.random.RandomState(3)
    chosen = list(ours)
    assert chosen == list(iter(theirs))  # list() alone asks for its length, and trips
    assert len(chosen) > 30


@pytest.mark.parametrize("count", [3, 7, 10])
def test_probabilities_that_sum_up_to_one_but_for_rounding_are_fine(count: int) -> None:
    ds = RandomChooseData([(source("a", 1), 1 / count)] * count)
    ds.reset_state()
    assert len(list(ds)) >= 1


@pytest.mark.parametrize("probabilities", [(0.5, 0.4), (1.5, -0.5), (float("nan"), 1), (0, 0), (2, 1)])
def test_wrong_probabilities_are_refused(probabilities: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="the probabilities are"):
        RandomChooseData([(source("a", 1), probabilities[0]), (source("b", 1), probabilities[1])])


def test_probabilities_for_some_only_are_refused() -> None:
    with pytest.raises(ConfigError, match="1 of the 2 entries have a probability"):
        RandomChooseData([(source("a", 1), 1.0), source("b", 1)])


@pytest.mark.parametrize("operator", OPERATORS)
def test_sources_may_be_lists_and_data_sets(operator: Any) -> None:
    ds = operator([[[1], [2]], np.array([3, 4])])
    ds.reset_state()
    components = [int(component) for datapoint in ds for component in datapoint]
    assert set(components) <= {1, 2, 3, 4}
    # Choosing ends with the first source that has no more; the others yield all.
    assert len(components) >= 2 if operator is RandomChooseData else sorted(components) == [1, 2, 3, 4]


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("given", [[], DataFromList([[1]]), None, 5])
def test_what_is_no_list_of_sources_is_refused(operator: Any, given: Any) -> None:
    with pytest.raises(ConfigError, match="takes a list of at least one DataFlow"):
        operator(given)


@pytest.mark.parametrize("operator", [RandomChooseData, RandomMixData])
def test_chance_without_a_reset_says_what_to_call(operator: Any) -> None:
    with pytest.raises(DfserveError, match=r"call reset_state\(\)"):
        list(operator(sources([2, 2])))

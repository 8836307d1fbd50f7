"""Batches by shape: full ones, of one shape each, and what is left is told."""

from __future__ import annotations

from collections import Counter
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfserve.dataflow import BatchData, DataFromList
from dfserve.dataflow.by_shape import BatchDataByShape
from dfserve.dataflow.failures import key_of
from dfserve.errors import ConfigError, DatapointError

SHAPES = [(), (2,), (3,), (2, 3)]


def arrays(kinds: list[int]) -> list[Any]:
    return [[np.full(SHAPES[kind], number), number] for number, kind in enumerate(kinds)]


@given(st.lists(st.integers(0, 3), max_size=40), st.integers(1, 5))
def test_a_pass_yields_full_batches_of_one_shape_and_drops_only_what_fills_none(
    kinds: list[int], batch_size: int
) -> None:
    if len(kinds) < batch_size:
        return
    batches = list(BatchDataByShape(DataFromList(arrays(kinds), shuffle=False), batch_size, 0))
    given_by_shape = {kind: [n for n, other in enumerate(kinds) if other == kind] for kind in range(4)}
    for kind, numbers in given_by_shape.items():
        own = [batch[1].tolist() for batch in batches if batch[0].shape[1:] == SHAPES[kind]]
        full = len(numbers) // batch_size
        # In the order in which they came, so only the last ones of a shape are dropped.
        assert own == [numbers[k * batch_size : (k + 1) * batch_size] for k in range(full)]
    assert len(batches) == sum(count // batch_size for count in Counter(kinds).values())


def test_a_pass_yields_tensorpacks_batches(tensorpack: ModuleType) -> None:
    datapoints = arrays([1, 2, 1, 1, 2, 3, 1, 3, 1])
    ours = BatchDataByShape(DataFromList(datapoints, shuffle=False), 2, 0)
    theirs = tensorpack.BatchDataByShape(tensorpack.DataFromList(datapoints, shuffle=False), 2, 0)
    theirs.reset_state()
    for mine, yours in zip(list(ours), list(theirs), strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(mine, yours, strict=True))


def test_every_pass_begins_anew() -> None:
    ds = BatchDataByShape(arrays([1, 1, 1]), 2, 0)
    assert [batch[1].tolist() for batch in ds] == [batch[1].tolist() for batch in ds] == [[0, 1]]


def test_the_component_may_be_named_by_a_key() -> None:
    ds = BatchDataByShape([{"image": np.zeros((n % 2 + 1, 4)), "label": n} for n in range(4)], 2, "image")
    assert [(batch["image"].shape, batch["label"].tolist()) for batch in ds] == [
        ((2, 1, 4), [0, 2]),
        ((2, 2, 4), [1, 3]),
    ]


def test_what_is_dropped_is_counted_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    list(BatchDataByShape(arrays([1, 2, 1, 1, 2]), 3, 0))
    assert [record.getMessage() for record in caplog.records] == [
        "BatchDataByShape drops 2 datapoints at the end of the pass: fewer than batch_size=3 of each of 1 shapes:"
        " 2 of (3,)"
    ]
    caplog.clear()
    list(BatchDataByShape(arrays([1, 1]), 2, 0))
    assert not caplog.records


def test_only_some_of_many_shapes_are_named(caplog: pytest.LogCaptureFixture) -> None:
    list(BatchDataByShape([[np.zeros(n)] for n in range(100)], 2, 0))
    (record,) = caplog.records
    assert "drops 100 datapoints" in record.getMessage()
    assert record.getMessage().endswith("1 of (95,), ...")


@pytest.mark.parametrize(("datapoint", "idx"), [(["a.jpg", 1], 1), (["a.jpg"], 1), ({"file": "a.jpg"}, "image")])
def test_a_component_that_is_missing_or_has_no_shape_is_an_error_that_names_it(datapoint: Any, idx: Any) -> None:
    with pytest.raises(DatapointError, match=f"component {idx!r}, which datapoint 0 does not have") as caught:
        list(BatchDataByShape([datapoint], 1, idx))
    assert key_of(caught.value) == "a.jpg"


def test_it_is_a_batch_data_and_refuses_what_that_does() -> None:
    assert isinstance(BatchDataByShape(arrays([1]), 1, 0), BatchData)
    with pytest.raises(ConfigError, match="batch_size"):
        BatchDataByShape(arrays([1]), 2, 0)

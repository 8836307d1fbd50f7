"""What a datapoint may be, and what other items become."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from dfserve.dataflow.datapoints import as_datapoint, outline
from dfserve.errors import DatapointError


@pytest.mark.parametrize("item", [[1], (1, 2), {"a": 1}, [], {}])
def test_lists_tuples_and_dicts_stay_what_they_are(item: Any) -> None:
    assert as_datapoint(item, 0) is item


def test_another_mapping_becomes_a_dict() -> None:
    datapoint = as_datapoint(MappingProxyType({"a": 1}), 0)
    assert type(datapoint) is dict
    assert datapoint == {"a": 1}


@pytest.mark.parametrize("item", [1, "a", b"a", np.zeros(2), 0, ""])
def test_anything_else_is_one_component(item: Any) -> None:
    assert as_datapoint(item, 0) == [item]


def test_none_is_no_datapoint_and_its_place_is_told() -> None:
    with pytest.raises(DatapointError, match="item 17 of the pipeline is None"):
        as_datapoint(None, 17)


def test_the_outline_of_a_datapoint_has_its_keys_or_the_number_of_its_components() -> None:
    said = [outline(item) for item in ({"a": 1}, [1, 2], (1,), 7)]
    assert said == ["a dict with the keys ['a']", "a list of 2 components", "a tuple of 1 components", "a bare int"]

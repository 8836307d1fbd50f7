"""The choice of components."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from dfserve.dataflow import MapData
from dfserve.dataflow.failures import key_of
from dfserve.dataflow.select import SelectComponent
from dfserve.errors import ConfigError, DatapointError


@pytest.mark.parametrize(
    ("datapoint", "idxs"),
    [
        (["a", "b", "c"], [2, 1]),
        (("a", "b", "c"), (0, 0, -1)),
        ({"x": 1, "y": 2, "z": 3}, ["z", "x"]),
        (["a"], []),
    ],
)
def test_it_selects_what_tensorpacks_does(tensorpack: ModuleType, datapoint: Any, idxs: Any) -> None:
    theirs = tensorpack.SelectComponent(tensorpack.DataFromList([datapoint], shuffle=False), idxs)
    assert list(SelectComponent([datapoint], idxs)) == list(theirs)


def test_the_result_is_a_map() -> None:
    ds = SelectComponent([[1, 2], [3, 4]], [1])
    assert isinstance(ds, MapData)
    assert (list(ds), len(ds)) == ([[2], [4]], 2)


@pytest.mark.parametrize(
    ("datapoint", "idxs", "text"),
    [
        (["a.jpg", 1], [0, 2], r"takes \[0, 2\], but a datapoint is a list of 2 components"),
        ({"file": "a.jpg"}, ["image"], r"a dict with the keys \['file'\]"),
        (["a.jpg"], ["image"], "a list of 1 components"),
    ],
)
def test_a_missing_component_is_an_error_with_what_there_is(datapoint: Any, idxs: Any, text: str) -> None:
    with pytest.raises(DatapointError, match=text) as caught:
        list(SelectComponent([datapoint], idxs))
    assert key_of(caught.value) == "a.jpg"


@pytest.mark.parametrize("idxs", ["image", 1, None])
def test_what_is_no_list_of_components_is_refused(idxs: Any) -> None:
    with pytest.raises(ConfigError, match="it is a list of positions or keys"):
        SelectComponent([[1]], idxs)

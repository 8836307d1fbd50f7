"""Owns the tests of whose code a pipeline runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dfserve.dataflow import (
    AugmentImageComponent,
    DataFromList,
    DataFromShards,
    FakeData,
    MapData,
    MapDataComponent,
    PrintData,
    ProxyDataFlow,
    RepeatedDataPoint,
    SelectComponent,
    imgaug,
)
from dfserve.dataflow.decoding import decode_image
from dfserve.producer.authorship import is_ours
from dfserve.producer.itemwise import analysed


class Lazy(list[Any]):
    """A list whose entries are made when they are asked for."""


class Operator(ProxyDataFlow):
    """A user's."""


def items() -> DataFromList:
    return DataFromList([[np.zeros((4, 4, 3), np.uint8), 1]])


def test_dfserves_own_operators_and_plain_sources_are_ours() -> None:
    crop = [imgaug.RandomCrop(2), imgaug.RandomApplyAug(imgaug.Flip(horiz=True), 0.5)]
    for ds in (
        items(),
        [[1]],
        np.zeros((3, 3)),
        FakeData([(2,)]),
        PrintData(RepeatedDataPoint(SelectComponent(items(), [1, 0]), 2)),
        AugmentImageComponent(items(), crop),
        MapDataComponent(items(), decode_image),
        DataFromList([[number] for number in range(100_000)]),
    ):
        assert is_ours(analysed(ds))


@pytest.mark.parametrize(
    "ds",
    [
        MapData([[1]], lambda dp: dp),
        MapDataComponent([[1]], np.random.permutation),
        MapDataComponent([[1]], lambda x: x),
        AugmentImageComponent([[1]], [imgaug.RandomApplyAug(imgaug.MapImage(lambda image: image), 0.5)]),
        Operator([[1]]),
        DataFromShards(["a"], lambda key: []),
        type("Dataset", (), {"__len__": lambda self: 1, "__getitem__": lambda self, index: index})(),
        type("Source", (DataFromList,), {})([[1]]),
        DataFromList(Lazy()),
    ],
)
def test_anything_else_may_draw_from_the_global_generators(ds: Any) -> None:
    assert not is_ours(analysed(ds))

"""Batches: what is stacked, and what is refused because it does not fit together."""

from __future__ import annotations

from itertools import count
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from dfserve.dataflow import BatchData, DataFromGenerator, DataFromList
from dfserve.errors import ConfigError, DatapointError


def listed(*datapoints: Any) -> DataFromList:
    return DataFromList(list(datapoints), shuffle=False)


def one_batch(*datapoints: Any, use_list: bool = False) -> Any:
    (batch,) = BatchData(listed(*datapoints), len(datapoints), use_list=use_list)
    return batch


def test_a_batch_of_lists_is_a_list_of_stacked_components() -> None:
    images, labels = one_batch([np.zeros((4, 5, 3), "uint8"), 1], [np.ones((4, 5, 3), "uint8"), 2])
    assert (images.shape, images.dtype, images[1].min()) == ((2, 4, 5, 3), np.dtype("uint8"), 1)
    assert labels.tolist() == [1, 2]


def test_a_batch_of_dicts_is_a_dict_with_the_same_keys() -> None:
    batch = one_batch({"image": np.zeros(3), "label": 1}, {"label": 2, "image": np.ones(3)})
    assert list(batch) == ["image", "label"]
    assert batch["image"].tolist() == [[0, 0, 0], [1, 1, 1]]
    assert batch["label"].tolist() == [1, 2]


def test_a_batch_of_tuples_is_a_list() -> None:
    assert isinstance(one_batch((1, 2), (3, 4)), list)


@pytest.mark.parametrize(("remainder", "sizes"), [(False, [2, 2]), (True, [2, 2, 1])])
def test_the_remainder_is_dropped_or_yielded_as_in_tensorpack(
    tensorpack: ModuleType, remainder: bool, sizes: list[int]
) -> None:
    datapoints = [[n] for n in range(5)]
    ours = BatchData(listed(*datapoints), 2, remainder=remainder)
    theirs = tensorpack.BatchData(tensorpack.DataFromList(datapoints, shuffle=False), 2, remainder=remainder)
    assert [len(numbers) for (numbers,) in ours] == [len(numbers) for (numbers,) in theirs] == sizes
    assert len(ours) == len(theirs) == len(sizes)


def test_an_endless_source_without_length_is_batched() -> None:
    batches = iter(BatchData(DataFromGenerator([n] for n in count()), 3))
    assert [next(batches)[0].tolist() for _ in range(2)] == [[0, 1, 2], [3, 4, 5]]


def test_use_list_gathers_whatever_the_components_are() -> None:
    small, large = np.zeros((2, 2)), np.zeros((3, 3))
    batch = one_batch([small, "a", None], [large, 2, {}], use_list=True)
    assert batch[0][0] is small
    assert batch[0][1] is large
    assert batch[1:] == [["a", 2], [None, {}]]


@pytest.mark.parametrize(
    "values",
    [
        [1.5, -2.5],
        ["cat", "catfish"],
        [np.float64(1), np.float64(2)],
        [np.int16(3), np.int16(4)],
        [np.bool_(True), np.bool_(False)],
        [np.array([1, 2], "float16"), np.array([3, 4], "float16")],
        [np.zeros((2, 0)), np.zeros((2, 0))],
        [np.array(5, "uint64"), np.array(6, "uint64")],
        [np.array("2020-01-01", "M8[D]"), np.array("2021-01-01", "M8[D]")],
        [np.zeros(2, [("a", "i4"), ("b", "f8")])] * 2,
    ],
)
def test_what_tensorpack_stacks_without_loss_is_stacked_alike(tensorpack: ModuleType, values: list[Any]) -> None:
    (ours,) = one_batch(*([value] for value in values))
    (theirs,) = tensorpack.BatchData.aggregate_batch([[value] for value in values])
    assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
    assert np.array_equal(ours, theirs)


def test_python_ints_become_int64_where_tensorpacks_int32_would_overflow() -> None:
    (labels,) = one_batch([1], [2**40])
    assert (labels.dtype, labels.tolist()) == (np.dtype("int64"), [1, 2**40])


def test_an_int_beyond_int64_is_refused() -> None:
    with pytest.raises(DatapointError, match=rf"component 1.*{2**64}.*int64"):
        one_batch([0, 1], [0, 2**64])


def test_a_float_beyond_float32_is_refused_and_an_infinite_one_is_not() -> None:
    with pytest.raises(DatapointError, match=r"component 0.*1e\+300.*float32"):
        one_batch([1.0], [1e300])
    (values,) = one_batch([float("inf")], [float("nan")])
    assert np.isinf(values[0])
    assert np.isnan(values[1])


def test_bools_stay_bools() -> None:
    (flags,) = one_batch([True], [False])
    assert (flags.dtype, flags.tolist()) == (np.dtype("bool"), [True, False])


def test_bytes_stay_bytes() -> None:
    (values,) = one_batch([b"\xff\xd8"], [b"\x00abc"])
    assert values.tolist() == [b"\xff\xd8", b"\x00abc"]


@pytest.mark.parametrize("value", ["a\0", b"a\0"])
def test_a_nul_at_the_end_that_numpy_would_drop_is_refused(value: Any) -> None:
    with pytest.raises(DatapointError, match="NUL"):
        one_batch([value], [value])


def test_text_arrays_of_several_widths_keep_their_text() -> None:
    (values,) = one_batch([np.array(["a", "b"])], [np.array(["abc", "d"])], [np.array(["e", "f"])])
    assert values.tolist() == [["a", "b"], ["abc", "d"], ["e", "f"]]


def test_transposed_arrays_are_stacked_in_c_order() -> None:
    (images,) = one_batch([np.arange(6).reshape(2, 3).T], [np.arange(6).reshape(2, 3).T])
    assert images.flags.c_contiguous
    assert images[1].tolist() == [[0, 3], [1, 4], [2, 5]]


def test_arrays_of_objects_are_not_unpacked() -> None:
    value = np.empty(2, object)
    value[:] = [[1, 2], [3, 4]]
    (stacked,) = one_batch([value], [value])
    assert stacked.shape == (2, 2)


def test_ragged_shapes_are_refused_by_component_and_shapes() -> None:
    images = [np.zeros((480, 640, 3))] * 3 + [np.zeros((375, 500, 3))]
    with pytest.raises(DatapointError) as caught:
        one_batch(*({"label": 1, "image": image} for image in images))
    text = str(caught.value)
    assert "component 'image'" in text
    assert "(480, 640, 3) x 3" in text
    assert "(375, 500, 3) x 1" in text
    assert "datapoint 3 of the batch" in text
    assert "use_list=True" in text


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([1, 2.5], "int x 1, float x 1"),
        ([1, True], "int x 1, bool x 1"),
        (["a", 1], "str x 1, int x 1"),
        (["a", b"a"], "str x 1, bytes x 1"),
        ([np.int64(1), 2], "int64 x 1, int x 1"),
        ([np.zeros(2, "uint8"), np.zeros(2, "float32")], "uint8 x 1, float32 x 1"),
        ([np.array("a"), np.array(b"a")], "<U1 x 1"),
        ([None, None], "NoneType x 2"),
        ([np.zeros(2), None], "ndarray x 1, NoneType x 1"),
    ],
)
def test_mixed_or_unknown_types_are_refused_by_component_and_types(values: list[Any], found: str) -> None:
    with pytest.raises(DatapointError, match=r"component 0") as caught:
        one_batch(*([value] for value in values))
    assert found in str(caught.value)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (
            [[1, 2], [1, 2], [1]],
            "Its values are lists of different lengths, which cannot be stacked: length 2 x 2, length 1 x 1 (the first:"
            " length 2; datapoint 2 of the batch: length 1). To keep them as they are use use_list=True; else pad or"
            " cut them in a map to arrays of one length",
        ),
        (
            [(1,), ()],
            "Its values are tuples of different lengths, which cannot be stacked: length 1 x 1, length 0 x 1 (",
        ),
        (
            [[1], [2]],
            "Its values are lists, which are not stacked: length 1 x 2. To keep them as they are use use_list=True;"
            " else make arrays of them in a map: numpy.array(x)",
        ),
        ([None, None], "Its types: NoneType x 2. To keep"),
    ],
)
def test_lists_are_refused_with_their_lengths_and_what_does_not_differ_is_not_said_to(
    values: list[Any], found: str
) -> None:
    with pytest.raises(DatapointError, match=r"component 0") as caught:
        one_batch(*([value] for value in values))
    assert found in str(caught.value)


@pytest.mark.parametrize("use_list", [False, True])
@pytest.mark.parametrize(
    ("first", "second", "text"),
    [
        ([1], [1, 2], "datapoint 1 of the batch is a list of 2 components, its datapoint 0 a list of 1 components"),
        ([1, 2], [1], "is a list of 1 components"),
        ({"a": 1}, {"b": 1}, "keys ['b'], its datapoint 0 a dict with the keys ['a']"),
        ([1], {"a": 1}, "is a dict with the keys ['a']"),
        ([1], 1, "is a bare int"),
    ],
)
def test_datapoints_with_other_components_are_refused(first: Any, second: Any, text: str, use_list: bool) -> None:
    with pytest.raises(DatapointError) as caught:
        one_batch(first, second, use_list=use_list)
    assert text in str(caught.value)


def test_a_datapoint_that_is_no_list_or_dict_is_refused() -> None:
    with pytest.raises(DatapointError, match=r"not a bare ndarray: wrap it as \[x\]"):
        one_batch(np.zeros(3), np.zeros(3))


def test_a_batch_size_that_can_never_be_filled_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="never be a batch"):
        BatchData(listed([1], [2]), 3)
    assert len(BatchData(listed([1], [2]), 3, remainder=True)) == 1
    with pytest.raises(ConfigError, match="at least 1"):
        BatchData(listed([1]), 0)

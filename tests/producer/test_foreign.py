"""Tensors and PIL images become ndarrays; everything else is left alone."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfserve.errors import EncodeError
from dfserve.producer.foreign import to_arrays


class Pair(NamedTuple):
    image: Any
    label: Any


@pytest.mark.parametrize(
    "datapoint",
    [
        [np.zeros((2, 3), "uint8"), 7],
        (np.float32(1), "a", b"b", None, True),
        {"image": np.zeros(3), "label": np.int64(3)},
        [[np.zeros(2), {"a": (1, 2)}], {"b": []}],
        Pair(np.zeros(2), 1),
        [object()],
        np.zeros(3),
        [],
    ],
)
def test_what_holds_nothing_foreign_comes_back_as_the_same_object(datapoint: Any) -> None:
    assert to_arrays(datapoint) is datapoint


_plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
)


@given(_plain)
def test_plain_data_of_any_nesting_comes_back_as_the_same_object(datapoint: Any) -> None:
    assert to_arrays(datapoint) is datapoint


def test_pil_images_become_arrays_at_any_depth_and_the_caller_keeps_its_own() -> None:
    image_module = pytest.importorskip("PIL.Image")
    pixels = np.arange(24, dtype="uint8").reshape(2, 4, 3)
    image = image_module.fromarray(pixels)
    datapoint = [image, {"views": (image, 1)}, Pair(image, 2)]
    first, nested, pair = to_arrays(datapoint)
    for array in (first, nested["views"][0], pair.image):
        assert type(array) is np.ndarray
        assert np.array_equal(array, pixels)
    assert (nested["views"][1], pair.label, type(pair)) == (1, 2, Pair)
    assert datapoint[0] is image
    assert datapoint[1] == {"views": (image, 1)}


def test_grey_and_black_and_white_images_have_two_dimensions() -> None:
    image_module = pytest.importorskip("PIL.Image")
    (grey,) = to_arrays([image_module.new("L", (5, 4), 9)])
    (bitmap,) = to_arrays([image_module.new("1", (5, 4), 1)])
    assert (grey.shape, grey.dtype, int(grey[0, 0])) == ((4, 5), np.dtype("uint8"), 9)
    assert (bitmap.shape, bitmap.dtype) == ((4, 5), np.dtype("bool"))


def test_a_pil_image_that_cannot_be_decoded_is_named(tmp_path: Any) -> None:
    image_module = pytest.importorskip("PIL.Image")
    file = tmp_path / "cut.png"
    image_module.fromarray(np.random.RandomState(0).randint(255, size=(64, 64, 3)).astype("uint8")).save(file)
    file.write_bytes(file.read_bytes()[:2000])
    with image_module.open(file) as image, pytest.raises(EncodeError, match=r"component \[1\]\['image'\].*cut\.png"):
        to_arrays([1, {"image": image}])


def test_tensors_become_arrays_at_any_depth() -> None:
    torch = pytest.importorskip("torch")
    values = np.arange(6, dtype="float32").reshape(2, 3)
    tensor = torch.tensor(values, requires_grad=True)
    parameter = torch.nn.Parameter(torch.tensor(values))
    first, nested = to_arrays([tensor, {"b": (tensor, parameter, torch.tensor(3))}])
    for array in (first, *nested["b"][:2]):
        assert type(array) is np.ndarray
        assert np.array_equal(array, values)
    assert (nested["b"][2].shape, nested["b"][2].dtype) == ((), np.dtype("int64"))
    assert type(to_arrays(tensor)) is np.ndarray
    conjugate = torch.tensor([1 + 2j]).conj()
    assert to_arrays([conjugate])[0].tolist() == [1 - 2j]


def test_a_tensor_that_numpy_cannot_hold_is_refused_with_the_remedy() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(EncodeError, match=r"component \['x'\].*torch\.bfloat16 on cpu.*\.float\(\)"):
        to_arrays({"x": torch.zeros(2, dtype=torch.bfloat16)})
    with pytest.raises(EncodeError, match=r"to_dense"):
        to_arrays([torch.eye(3).to_sparse()])


class _StandIn:
    """What ``to_arrays`` needs of a Tensor, for machines without torch."""

    layout, dtype, device = "torch.strided", "torch.float32", "cuda:0"

    def __init__(self, fail: bool = False) -> None:
        self.calls: list[str] = []
        self.fail = fail

    def __getattr__(self, name: str) -> Any:
        def step() -> Any:
            self.calls.append(name)
            if name == "numpy" and self.fail:
                raise TypeError("Got unsupported ScalarType BFloat16")
            return np.ones(2) if name == "numpy" else self

        return step


Tensor = type("Tensor", (_StandIn,), {"__module__": "torch"})


def test_a_tensor_is_recognised_by_name_and_comes_off_its_device_and_gradient() -> None:
    derived = type("Parameter", (Tensor,), {"__module__": "mine"})()
    assert to_arrays([derived])[0].tolist() == [1, 1]
    assert derived.calls.index("detach") < derived.calls.index("cpu") < derived.calls.index("numpy")
    with pytest.raises(EncodeError, match=r"component \[0\].*torch\.float32 on cuda:0.*\.float\(\)"):
        to_arrays([Tensor(fail=True)])


def test_neither_torch_nor_pil_is_imported() -> None:
    code = (
        "import sys, numpy as np\n"
        "from dfserve.producer.foreign import to_arrays\n"
        "to_arrays([object(), [np.zeros(2)], {'a': {1}}])\n"
        "print([name for name in ('torch', 'PIL') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"

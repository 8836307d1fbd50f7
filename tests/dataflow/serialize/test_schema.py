"""What a file says of its datapoints."""

from __future__ import annotations

import json

import numpy as np

from dfserve.dataflow.serialize.schema import MOST, describe


def test_kind_and_components_are_described_in_json() -> None:
    schema = describe([np.zeros((2, 3), np.uint8), np.float32(1), "a", None])
    assert json.loads(json.dumps(schema)) == {
        "kind": "list",
        "count": 4,
        "components": [
            {"type": "ndarray", "dtype": "uint8", "shape": [2, 3]},
            {"type": "float32", "dtype": "float32", "shape": []},
            {"type": "str"},
            {"type": "NoneType"},
        ],
    }


def test_the_components_of_a_dict_have_their_keys() -> None:
    assert describe({"a": 1, 2: "b"}) == {
        "kind": "dict",
        "count": 2,
        "components": [{"key": "a", "type": "int"}, {"key": "2", "type": "str"}],
    }


def test_a_schema_stays_short() -> None:
    schema = describe({f"{number:01000d}": number for number in range(10_000)})
    assert (schema["count"], len(schema["components"])) == (10_000, MOST)
    assert len(json.dumps(schema)) < 100_000


def test_structured_arrays_have_a_dtype_that_json_takes() -> None:
    (component,) = describe((np.zeros(3, [("x", "<f4"), ("y", "<i2", (2,))]),))["components"]
    assert component["shape"] == [3]
    assert "'x'" in json.loads(json.dumps(component))["dtype"]

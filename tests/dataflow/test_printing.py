"""The description of the first datapoints."""

from __future__ import annotations

import numpy as np
import pytest

from dfserve.dataflow import DataFromList, PrintData


def test_everything_passes_unchanged_and_only_the_first_datapoints_are_described(
    capsys: pytest.CaptureFixture[str],
) -> None:
    datapoints = [[n] for n in range(5)]
    ds = PrintData(DataFromList(datapoints, shuffle=False), num=2, name="numbers")
    assert list(ds) == datapoints
    assert list(ds) == datapoints
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("numbers, datapoint") == 2
    assert "0: int 1" in captured.err


def test_arrays_are_described_by_dtype_shape_and_range(capsys: pytest.CaptureFixture[str]) -> None:
    datapoint = {
        "image": np.arange(6, dtype="uint8").reshape(2, 3),
        "empty": np.zeros((0, 4), "float32"),
        "names": np.array(["a", "bc"]),
        "file": "cats/1.JPEG",
    }
    list(PrintData(DataFromList([datapoint], shuffle=False)))
    text = capsys.readouterr().err
    assert "image: ndarray uint8 (2, 3) in [0, 5]" in text
    assert "empty: ndarray float32 (0, 4)\n" in text
    assert "names: ndarray <U2 (2,)\n" in text
    assert "file: str of 11: 'cats/1.JPEG'" in text


def test_long_and_deep_lists_are_cut(capsys: pytest.CaptureFixture[str]) -> None:
    list(PrintData(DataFromList([[list(range(50)), [[["deep"]]]]], shuffle=False), max_depth=3, max_list=2))
    text = capsys.readouterr().err
    assert "0: list of 50\n    0: int 0\n    1: int 1\n    ... 48 more\n" in text
    assert "deep" not in text

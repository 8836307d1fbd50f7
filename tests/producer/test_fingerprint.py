"""Owns the tests of fingerprints: alike for the same data anywhere, different for different pipelines."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dfserve.dataflow import (
    BatchData,
    DataFromList,
    DataFromShards,
    ImageFromFile,
    LMDBSerializer,
    MapData,
    MultiThreadMapData,
    NumpySerializer,
    PrintData,
    RepeatedDataPoint,
)
from dfserve.producer.fingerprint import fingerprint_of
from dfserve.producer.itemwise import analysed


def of(ds: Any) -> str:
    return fingerprint_of(analysed(ds))


def files(folder: str, count: int = 5) -> list[Any]:
    return [[f"{folder}/{number % 2}/{number}.jpg", number] for number in range(count)]


def test_it_does_not_depend_on_the_process() -> None:
    code = (
        "from dfserve.dataflow import *\n"
        "from dfserve.producer.fingerprint import fingerprint_of\n"
        "from dfserve.producer.itemwise import analysed\n"
        "print(fingerprint_of(analysed(MapData(DataFromList([['a.jpg', 1], ['b.jpg', 2]]), lambda dp: dp))))"
    )
    told = [
        subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout.strip()
        for seed in "12"
    ]
    assert told[0] == told[1] == of(MapData(DataFromList([["a.jpg", 1], ["b.jpg", 2]]), lambda dp: dp))
    assert told[0] == "91b75ef7900846e1ac4d37502a394677"  # nor on the versions of Python and numpy


def test_the_same_files_in_another_folder_are_the_same_source() -> None:
    assert of(DataFromList(files("/data/imagenet/train"))) == of(DataFromList(files("/mnt/x/train")))
    assert of(files("/data/train")) == of(files("data"))
    assert of(ImageFromFile([Path("/a/1.jpg"), Path("/a/2.jpg")])) == of(ImageFromFile(["/b/1.jpg", "/b/2.jpg"]))
    assert of(DataFromShards(["/a/s-0", "/a/s-1"], list)) == of(DataFromShards(["/b/c/s-0", "/b/c/s-1"], list))


def test_other_items_or_another_order_are_another_source() -> None:
    given = files("/data")
    different = [
        given,
        given[::-1],
        given[:-1],
        [*given[:-1], ["/data/1/x.jpg", 4]],
        [[number] for number in range(5)],
        [[number + 1] for number in range(5)],
        np.zeros((5, 2)),
        np.zeros((5, 2), np.float32),
        np.zeros((5, 3)),
    ]
    assert len({of(ds) for ds in different}) == len(different)
    assert of(DataFromList(given)) != of(given)
    assert of(DataFromShards(["a", "b"], list)) != of(DataFromShards(["b", "a"], list))


def test_operators_and_batches_count_but_not_how_a_map_is_run_nor_a_look() -> None:
    items = DataFromList(files("/data"))
    plain = MapData(items, list)
    assert of(plain) == of(MultiThreadMapData(items, 2, list)) == of(PrintData(plain))
    different = [
        items,
        plain,
        MapData(plain, list),
        RepeatedDataPoint(plain, 2),
        BatchData(plain, 2),
        BatchData(plain, 3),
    ]
    assert len({of(ds) for ds in different}) == len(different)


class Five:
    """A data set of five items."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> Any:
        return index


class Subset:
    """As torch's."""

    def __init__(self, dataset: Any, indices: Any) -> None:
        self.dataset, self.indices = dataset, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[self.indices[index]]


def test_another_subset_of_the_same_items_is_another_source_however_deep_it_lies() -> None:
    whole = np.zeros((5, 2))
    different = [[0, 1, 2], [0, 1, 3], [2, 1, 0]]
    assert len({of(Subset(whole, indices)) for indices in different}) == 3
    assert len({of(Subset(Subset(whole, indices), [1, 2])) for indices in different}) == 3
    assert of(Subset(whole, range(2))) != of(Subset(whole, range(2, 4)))
    assert of(DataFromList(Subset(whole, [0, 1]))) != of(DataFromList(Subset(whole, [0, 2])))
    assert of(Subset(whole, [2, 0, 1])) == of(Subset(whole, (2, 0, 1))) == of(Subset(whole, np.array([2, 0, 1])))


def test_the_files_of_a_data_set_count_where_it_keeps_them_by_a_usual_name() -> None:
    class Folder(Five):
        def __init__(self, samples: list[Any]) -> None:
            self.samples = samples

    given = [(f"/data/{number}.jpg", number % 2) for number in range(5)]
    elsewhere = [(path.replace("/data", "/mnt/d"), number) for path, number in given]
    assert of(Folder(given)) == of(Folder(elsewhere)) != of(Folder(given[::-1]))


class Odd(Five):
    """A data set whose attributes cannot all be looked at, or are large."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)

    @property
    def samples(self) -> Any:
        raise RuntimeError("call setup() first")


class Lazy:
    """A vector on a disk, say."""

    ndim = 1

    def __len__(self) -> int:
        raise ValueError("it is closed")

    def __getattr__(self, name: str) -> Any:
        raise KeyError(name)

    def __getitem__(self, index: int) -> Any:
        raise AssertionError("nothing is read to be compared")


def test_attributes_that_cannot_be_looked_at_are_passed_over() -> None:
    plain = of(Odd())
    for attributes in ({"dataset": Lazy()}, {"paths": Lazy()}, {"dataset": "imagenet"}, {"dataset": {"a": 1}}):
        assert of(Odd(**attributes)) == plain


def test_a_vector_of_another_length_than_the_items_is_not_taken_for_their_names() -> None:
    class Unreadable(np.ndarray[Any, Any]):
        def tolist(self) -> Any:
            raise AssertionError("it is not the items'")

    assert of(Odd(paths=np.zeros(1000).view(Unreadable))) == of(Odd())
    assert of(Odd(paths=np.arange(5))) != of(Odd())


def test_a_version_of_the_pipeline_counts_wherever_it_is_set() -> None:
    class Dataset:
        pipeline_version = "1"

        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> Any:
            return index

    first = of(Dataset())
    Dataset.pipeline_version = "2"
    assert of(Dataset()) != first
    versions = []
    for version in ("1", "1", "2"):
        ds = MapData(DataFromList(files("/data")), list)
        ds.pipeline_version = version  # type: ignore[attr-defined]
        versions.append(of(ds))
    assert versions[0] == versions[1] != versions[2]


def test_a_copy_of_a_stored_file_is_the_same_and_another_file_is_not(tmp_path: Path) -> None:
    pytest.importorskip("lmdb")
    for name, count in (("a", 4), ("b", 5)):
        datapoints = [[np.zeros(number + 1)] for number in range(count)]
        LMDBSerializer.save(datapoints, str(tmp_path / f"{name}.lmdb"))
        NumpySerializer.save(datapoints, tmp_path / f"{name}.npz")
    (tmp_path / "copy").mkdir()
    for suffix, load in (("lmdb", LMDBSerializer.load), ("npz", NumpySerializer.load)):
        copy = tmp_path / "copy" / f"c.{suffix}"
        shutil.copyfile(tmp_path / f"a.{suffix}", copy)
        assert of(load(str(copy))) == of(load(str(tmp_path / f"a.{suffix}")))
        assert of(load(str(copy))) != of(load(str(tmp_path / f"b.{suffix}")))


def test_a_name_that_is_no_utf_8_is_taken() -> None:
    assert of([["caf\udce9.jpg"]]) != of([["caf.jpg"]])


def test_a_million_files_take_seconds_at_most() -> None:
    million = DataFromList([(f"/data/imagenet/train/n{number:08d}.jpg", number) for number in range(1_000_000)])
    began = time.process_time()  # whatever else the machine has to do
    of(million)
    assert time.process_time() - began < 20

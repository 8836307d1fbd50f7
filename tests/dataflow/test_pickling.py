"""Every source and operator pickles, before its reset and after, so that a spawned worker can run it."""

from __future__ import annotations

import pickle
import subprocess
import sys
import tarfile
from collections.abc import Callable
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dfserve.dataflow as d
from dfserve.dataflow import DataFlow


class Always:
    """A queue that pickles and is never empty."""

    def get(self, timeout: float) -> Any:
        return [1]


def source() -> Any:
    return d.DataFromList([[n, float(n)] for n in range(8)])


def images() -> Any:
    return d.FakeData([[8, 8, 3], [2, 2]], size=4, dtype=["uint8", "float32"], domain=[(0, 255), (1, 6)])


def one_image(folder: Path) -> Any:
    cv2 = pytest.importorskip("cv2")
    assert cv2.imwrite(str(folder / "grey.png"), np.full((4, 4), 9, np.uint8))
    return d.ImageFromFile([folder / "grey.png"], shuffle=True)


def lmdb(folder: Path) -> str:
    pytest.importorskip("lmdb")
    path = str(folder / "data.lmdb")
    d.LMDBSerializer.save(source(), path)
    return path


def hdf5(folder: Path) -> Any:
    pytest.importorskip("h5py")
    d.HDF5Serializer.save(source(), str(folder / "data.h5"), ["number", "same"])
    return d.HDF5Data(str(folder / "data.h5"), ["number", "same"])


def shards(folder: Path) -> Any:
    (folder / "a.txt").write_text("x")
    with tarfile.open(folder / "shard-0.tar", "w") as tar:
        tar.add(folder / "a.txt", "a.txt")
    return d.WebDataset(str(folder / "shard-0.tar"), shuffle=True)


def pair(*key_and_value: bytes) -> list[bytes]:
    return list(key_and_value)


_FUNCTION = itemgetter(slice(None))  # returns what it is given, and pickles
MAKERS: dict[str, Callable[[Path], Any]] = {
    "AugmentImageComponent": lambda _: d.AugmentImageComponent(images(), [d.imgaug.Flip(horiz=True)]),
    "AugmentImageComponents": lambda _: d.AugmentImageComponents(images(), [d.imgaug.Flip(horiz=True)], (0,)),
    "AugmentImageCoordinates": lambda _: d.AugmentImageCoordinates(images(), [d.imgaug.Flip(horiz=True)]),
    "BatchData": lambda _: d.BatchData(source(), 2),
    "BatchDataByShape": lambda _: d.BatchDataByShape(images(), 2, 0),
    "CacheData": lambda _: d.CacheData(source(), shuffle=True),
    "ConcatData": lambda _: d.ConcatData([source(), source()]),
    "DataFromGenerator": lambda _: d.DataFromGenerator(range(3)),
    "DataFromIterable": lambda _: d.DataFromIterable([[1], [2]]),
    "DataFromList": lambda _: source(),
    "DataFromQueue": lambda _: d.DataFromQueue(Always()),
    "DataFromShards": lambda _: d.DataFromShards(["a", "b"], list, shuffle=True),
    "FakeData": lambda _: images(),
    "FixedSizeData": lambda _: d.FixedSizeData(source(), 5),
    "HDF5Data": hdf5,
    "ImageFromFile": one_image,
    "JoinData": lambda _: d.JoinData([source(), source()]),
    "LMDBData": lambda folder: d.LMDBData(lmdb(folder), shuffle=True),
    "LMDBDataDecoder": lambda folder: d.LMDBDataDecoder(d.LMDBData(lmdb(folder)), pair),
    "LocallyShuffleData": lambda _: d.LocallyShuffleData(source(), 3),
    "MapData": lambda _: d.MapData(source(), _FUNCTION),
    "MapDataComponent": lambda _: d.MapDataComponent(source(), str, 1, on_error="skip"),
    "MultiProcessMapAndBatchData": lambda _: d.MultiProcessMapAndBatchData(source(), 1, _FUNCTION, 2),
    "MultiProcessMapAndBatchDataZMQ": lambda _: d.MultiProcessMapAndBatchDataZMQ(source(), 1, _FUNCTION, 2),
    "MultiProcessMapData": lambda _: d.MultiProcessMapData(source(), 1, _FUNCTION),
    "MultiProcessMapDataZMQ": lambda _: d.MultiProcessMapDataZMQ(source(), 1, _FUNCTION),
    "MultiProcessPrefetchData": lambda _: d.MultiProcessPrefetchData(source(), 2, 1),
    "MultiProcessRunner": lambda _: d.MultiProcessRunner(source(), 2, 1),
    "MultiProcessRunnerZMQ": lambda _: d.MultiProcessRunnerZMQ(source(), 1),
    "MultiThreadMapData": lambda _: d.MultiThreadMapData(source(), 1, _FUNCTION),
    "MultiThreadPrefetchData": lambda _: d.MultiThreadPrefetchData(images, 2, 1),
    "MultiThreadRunner": lambda _: d.MultiThreadRunner(images, 2, 1),
    "PrefetchData": lambda _: d.PrefetchData(source(), 2, 1),
    "PrefetchDataZMQ": lambda _: d.PrefetchDataZMQ(source(), 1),
    "PrintData": lambda _: d.PrintData(source(), num=0),
    "ProxyDataFlow": lambda _: d.ProxyDataFlow([[1], [2]]),
    "RandomChooseData": lambda _: d.RandomChooseData([(source(), 0.5), (source(), 0.5)]),
    "RandomMixData": lambda _: d.RandomMixData([source(), source()]),
    "RepeatedData": lambda _: d.RepeatedData(source(), -1),
    "RepeatedDataPoint": lambda _: d.RepeatedDataPoint(source(), 2),
    "SelectComponent": lambda _: d.SelectComponent(source(), [1]),
    "TestDataSpeed": lambda _: d.TestDataSpeed(source(), 2),
    "WebDataset": shards,
}
# What these start belongs to their process: they travel before their reset only, and are run by tests of their own.
PARALLEL = {name for name in MAKERS if name.startswith(("Multi", "Prefetch"))}
# No operators: what people derive theirs from, and the end of a stream.
OTHERS = {"DataFlow", "RNGDataFlow", "ShardedDataFlow", "RemoteDataZMQ"}
NAMES = sorted(name for name in MAKERS if name in d.__all__)
IN_A_WORKER = """
import itertools, pickle, sys
for name, ds in pickle.load(sys.stdin.buffer).items():
    ds.reset_state()
    print(name, sum(1 for _ in itertools.islice(ds, 6)))
"""


def test_none_is_left_out() -> None:
    public = {name for name in d.__all__ if name not in OTHERS}
    flows = {name for name in public if isinstance(getattr(d, name), type) and issubclass(getattr(d, name), DataFlow)}
    assert flows - MAKERS.keys() == set()


@pytest.mark.parametrize("name", NAMES)
def test_it_pickles_before_its_reset(name: str, tmp_path: Path) -> None:
    ds = MAKERS[name](tmp_path)
    copy = pickle.loads(pickle.dumps(ds))
    assert type(copy) is type(ds)
    assert vars(copy).keys() == vars(ds).keys()


@pytest.mark.parametrize("name", sorted(set(NAMES) - PARALLEL))
def test_it_pickles_after_its_reset_and_in_the_middle_of_a_pass(name: str, tmp_path: Path) -> None:
    ds = MAKERS[name](tmp_path)
    ds.reset_state()
    assert len(list(islice(pickle.loads(pickle.dumps(ds)), 1))) == 1
    datapoints = iter(ds)
    next(datapoints)
    copy = pickle.loads(pickle.dumps(ds))
    copy.reset_state()
    assert len(list(islice(copy, 1))) == 1


def test_all_of_them_run_in_a_process_that_shares_nothing_with_this_one(tmp_path: Path) -> None:
    # A test's own class is not known over there.
    names = sorted(set(NAMES) - PARALLEL - {"DataFromQueue"})
    flows = {}
    for name in names:
        (tmp_path / name).mkdir()
        flows[name] = MAKERS[name](tmp_path / name)
    expected = []
    for name, ds in flows.items():
        copy = pickle.loads(pickle.dumps(ds))
        copy.reset_state()
        expected.append((name, sum(1 for _ in islice(copy, 6))))
    result = subprocess.run([sys.executable, "-c", IN_A_WORKER], input=pickle.dumps(flows), capture_output=True)
    assert result.returncode == 0, result.stderr.decode()
    counts = dict(line.split() for line in result.stdout.decode().splitlines())
    assert list(counts) == names
    assert {name: str(count) for name, count in expected} == counts

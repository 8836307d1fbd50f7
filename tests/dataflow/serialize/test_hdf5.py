"""HDF5 files: what was saved comes back, whoever wrote it, and damage is found."""

from __future__ import annotations

import pickle
import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
import pytest

from dfserve.dataflow import DataFromList
from dfserve.dataflow.failures import key_of
from dfserve.dataflow.serialize import hdf5, hdf5_data
from dfserve.dataflow.serialize.hdf5 import HDF5Serializer
from dfserve.dataflow.serialize.hdf5_data import HDF5Data
from dfserve.errors import ConfigError, DatapointError, EncodeError, StoreError

DATAPOINTS: list[Any] = [[np.full((4, 3), n, "uint8"), n, n / 4, n % 2 == 0] for n in range(30)]
PATHS = ["images", "more/labels", "more/scores", "even"]


def listed(*datapoints: Any) -> DataFromList:
    return DataFromList(list(datapoints), shuffle=False)


def plain(datapoints: Any) -> list[Any]:
    return [[image.tolist(), *rest] for image, *rest in datapoints]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data.h5"


@pytest.fixture
def saved(path: Path) -> Path:
    HDF5Serializer.save(listed(*DATAPOINTS), path, PATHS)
    return path


@pytest.fixture(params=["in memory", "row by row"])
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "row by row":
        monkeypatch.setattr(hdf5_data, "_SMALL", 0)
        monkeypatch.setattr(hdf5_data, "_BLOCK", 100)


@pytest.mark.usefixtures("both_ways")
def test_datapoints_come_back_in_their_order_with_numpy_scalars(saved: Path) -> None:
    ds = HDF5Serializer.load(saved, PATHS, shuffle=False)
    assert len(ds) == 30
    assert plain(ds) == plain(ds) == plain(DATAPOINTS)
    assert [np.asarray(component).dtype for component in ds[3]] == ["uint8", "int64", "float64", "bool"]


@pytest.mark.usefixtures("both_ways")
def test_an_item_is_a_function_of_its_index_whatever_was_done_to_it_before(saved: Path) -> None:
    ds = HDF5Serializer.load(saved, PATHS, shuffle=False)
    ds[2][0][...] = 99
    next(iter(ds))[0][...] = 99
    assert plain([ds[2], ds[-28], ds[0]]) == plain([DATAPOINTS[2], DATAPOINTS[2], DATAPOINTS[0]])
    with pytest.raises(IndexError):
        ds[30]


@pytest.mark.usefixtures("both_ways")
def test_a_pass_is_shuffled_anew_by_default_and_as_tensorpack_does(saved: Path, tensorpack: ModuleType) -> None:
    ours = HDF5Data(saved, PATHS)
    theirs = tensorpack.HDF5Data(str(saved), PATHS)
    for ds in (ours, theirs):
        ds.reset_state()
        ds.rng = np.random.RandomState(3)
    first, second = plain(ours), plain(ours)
    assert first == plain(theirs)
    assert first != second
    assert sorted(first) == sorted(second)
    theirs.f.close()


def test_dicts_are_saved_and_loaded_with_a_mapping(path: Path) -> None:
    paths = {"image": "images", "label": "labels"}
    HDF5Serializer.save(listed({"label": 1, "image": [1, 2]}, {"image": [3, 4], "label": 2}), path, paths)
    first, second = HDF5Serializer.load(path, paths, shuffle=False)
    assert (list(first), first["image"].tolist(), second["label"]) == (["image", "label"], [1, 2], 2)
    assert [label for (label,) in HDF5Data(path, ["labels"], shuffle=False)] == [1, 2]


def test_more_rows_than_a_block_and_rows_larger_than_a_chunk_are_saved_whole(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hdf5, "_BLOCK", 300)
    monkeypatch.setattr(hdf5, "_CHUNK", 100)
    rng = np.random.RandomState(0)
    datapoints = [[rng.bytes(7)[0], rng.rand(5, 5), rng.rand(2)] for _ in range(101)]
    HDF5Serializer.save(listed(*datapoints), path, ["a", "b", "c"])
    found = list(HDF5Data(path, ["a", "b", "c"], shuffle=False))
    assert len(found) == 101
    assert all(np.array_equal(x, y) for f, d in zip(found, datapoints, strict=True) for x, y in zip(f, d, strict=True))


@pytest.mark.parametrize("dtype", ["float16", "complex64", ">i4", "S5", [("x", "i4"), ("y", "f8")]], ids=str)
def test_dtypes_that_hdf5_has_come_back(path: Path, dtype: Any) -> None:
    rows = [np.zeros(3, dtype) for _ in range(2)]
    HDF5Serializer.save(listed(*([row] for row in rows)), path, ["x"])
    ((found,), _) = HDF5Data(path, ["x"], shuffle=False)
    assert (found.dtype, found.tolist()) == (np.dtype(dtype), rows[0].tolist())


@pytest.mark.parametrize(
    ("second", "kind", "reason"),
    [
        ([np.zeros((2, 3)), 1], DatapointError, r"component 0 has the shape \(2, 3\) .* that of datapoint 0 \(2, 2\)"),
        ([np.zeros((2, 2)), 1.5], DatapointError, "component 1 has the shape .* float64, .* int64"),
        ([np.zeros((2, 2)), 2**63], DatapointError, "component 1 .* uint64"),
        ([np.zeros((2, 2)), 2**70], EncodeError, "component 1 .* objects"),
        ([np.zeros((2, 2)), "text"], EncodeError, "component 1 is str"),
        ([np.zeros((2, 2)), {}], EncodeError, "component 1 .* objects"),
        ([np.zeros((2, 2))], DatapointError, "1 components and data_paths"),
        ({"a": 1, "b": 2}, DatapointError, "mapping"),
    ],
)
def test_a_datapoint_that_does_not_fit_is_named_and_leaves_the_old_file(
    saved: Path, second: Any, kind: type[Exception], reason: str
) -> None:
    with pytest.raises(kind, match=f"datapoint 1 cannot be saved: .*{reason}") as caught:
        HDF5Serializer.save(listed([np.zeros((2, 2)), 1], second), saved, ["x", "y"])
    assert key_of(caught.value) == ("text" if "str" in reason else "1")
    assert plain(HDF5Data(saved, PATHS, shuffle=False)) == plain(DATAPOINTS)
    assert len(list(saved.parent.iterdir())) == 1


@pytest.mark.filterwarnings("ignore:Creating an ndarray from ragged")  # numpy 1.23 warns and makes objects
@pytest.mark.parametrize(
    "value", [b"bytes", np.array("a"), np.array("2020-01-01", "M8[D]"), np.zeros((0, 3)), [[1], [1, 2]], None]
)
def test_a_component_that_hdf5_does_not_hold_is_refused_by_name(path: Path, value: Any) -> None:
    with pytest.raises(EncodeError, match="datapoint 0 cannot be saved: component 1 "):
        HDF5Serializer.save(listed([1, value]), path, ["x", "y"])
    assert not list(path.parent.iterdir())


def test_dicts_of_other_keys_are_refused(path: Path) -> None:
    with pytest.raises(DatapointError, match=r"datapoint 1 .*'c'"):
        HDF5Serializer.save(listed({"a": 1}, {"c": 1}), path, {"a": "a"})


def test_no_datapoints_and_impossible_paths_are_refused(path: Path) -> None:
    with pytest.raises(DatapointError, match="yielded no datapoints"):
        HDF5Serializer.save(listed(), path, ["x"])
    for data_paths in ("images", [], ["x", "x"], [3], [""]):
        with pytest.raises(ConfigError, match="data_paths is"):
            HDF5Serializer.save(listed([1]), path, data_paths)  # type: ignore[arg-type]  # the mistakes that are tested
    with pytest.raises(ConfigError, match="'x/y' in data_paths"):
        HDF5Serializer.save(listed([1, 2]), path, ["x", "x/y"])
    assert not list(path.parent.iterdir())


def test_a_file_of_another_program_is_read_with_its_texts_and_ragged_rows(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["names"] = ["é", "b"]
        file.create_dataset("boxes", (2,), h5py.vlen_dtype("f4"))
        file["boxes"][0], file["boxes"][1] = [1, 2, 3], []
        file["fixed"] = np.array([b"ab", b"c"])
    first, second = ds = HDF5Data(path, ["names", "boxes", "fixed"], shuffle=False)
    assert (first[0], first[1].tolist(), first[2]) == ("é", [1, 2, 3], b"ab")
    assert (second[0], second[1].tolist(), ds[1][0]) == ("b", [], "b")


def test_data_sets_that_are_not_there_or_do_not_fit_together_are_named(saved: Path) -> None:
    with h5py.File(saved, "a", libver=("v110", "v110")) as file:
        file["single"] = 3
        file["short"] = [1, 2]
    with pytest.raises(ConfigError, match=r"at 'label' in .* is nothing; its data sets: even, images, more/labels"):
        HDF5Data(saved, ["images", "label"])
    for name in ("more", "single"):
        with pytest.raises(ConfigError, match="is a group or a single value"):
            HDF5Data(saved, [name])
    with pytest.raises(ConfigError, match=r"different lengths: {'images': 30, 'short': 2}"):
        HDF5Data(saved, ["images", "short"])


@pytest.fixture
def small(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(hdf5, "_CHUNK", 200)
    HDF5Serializer.save(listed(*DATAPOINTS), path, PATHS)
    return path


@pytest.mark.usefixtures("both_ways")
def test_a_flipped_bit_is_found_or_changes_nothing(small: Path) -> None:
    whole = small.read_bytes()
    damaged_path = small.with_name("damaged.h5")
    errors = []
    rng = random.Random(4)
    for place in rng.sample(range(len(whole)), 400):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.randrange(8)
        damaged_path.write_bytes(damaged)
        try:
            found = plain(HDF5Data(damaged_path, PATHS, shuffle=False))
        except StoreError as error:
            errors.append(str(error))
        else:
            assert found == plain(DATAPOINTS)
    assert len(errors) > 100
    assert all(str(damaged_path) in error for error in errors)


def test_damage_within_the_data_names_the_data_set_and_the_row(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5_data, "_SMALL", 0)
    whole = bytearray(small.read_bytes())
    place = whole.index(bytes([20] * 12))  # image 20
    whole[place] ^= 1
    small.write_bytes(whole)
    ds = HDF5Data(small, PATHS, shuffle=False)
    assert ds[0][1] == 0
    with pytest.raises(StoreError, match=f"{small} is damaged.* row 20 of images"):
        ds[20]


def test_every_cut_or_foreign_file_is_refused(small: Path) -> None:
    whole = small.read_bytes()
    for length in [*range(0, len(whole), len(whole) // 50), len(whole) - 1]:
        small.write_bytes(whole[:length])
        with pytest.raises(StoreError, match=str(small)):
            HDF5Data(small, PATHS)


def test_a_missing_file_is_an_error_of_the_system(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        HDF5Data(path, PATHS)


def test_a_loaded_file_pickles_in_the_middle_of_a_pass(saved: Path) -> None:
    ds = HDF5Data(saved, PATHS, shuffle=False)
    next(iter(ds))
    assert plain(pickle.loads(pickle.dumps(ds))) == plain(DATAPOINTS)


def test_a_file_that_was_replaced_by_another_is_noticed(saved: Path) -> None:
    ds = HDF5Data(saved, PATHS, shuffle=False)
    HDF5Serializer.save(listed(*DATAPOINTS[:3]), saved, PATHS)
    with pytest.raises(StoreError, match="had 30 rows and has others now"):
        ds[0]


def test_processes_forked_in_the_middle_of_a_pass_open_the_file_themselves(saved: Path) -> None:
    script = f"""
import os, sys
from dfserve.dataflow.serialize import hdf5_data
hdf5_data._SMALL = 0
ds = hdf5_data.HDF5Data({str(saved)!r}, {PATHS!r}, shuffle=False)
passing = iter(ds)
first = [int(next(passing)[1])]
children = []
for _ in range(3):
    child = os.fork()
    if not child:
        good = [int(row[1]) for row in ds] == list(range(30)) and int(ds[7][0][0, 0]) == 7
        os._exit(0 if good else 1)
    children.append(child)
good = first + [int(row[1]) for row in passing] == list(range(30))
codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
sys.exit(0 if good and codes == [0, 0, 0] else f"parent {{good}}, children {{codes}}")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("limit", [0, 5, 2000, 300_000, 5_000_000])
def test_a_full_disk_is_an_error_that_leaves_the_old_file_and_a_process_that_lives(saved: Path, limit: int) -> None:
    script = f"""
import gc, os, resource, sys
import numpy as np
from dfserve.dataflow.serialize.hdf5 import HDF5Serializer
taken = 0
def source():
    global taken
    for number in range(6000):
        taken += 1
        yield [np.full((50, 50, 3), number % 251, "uint8"), number]
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    HDF5Serializer.save(source(), {str(saved)!r}, ["x", "y"])
except OSError as error:
    assert error.errno == 27, error
else:
    sys.exit("no error")
gc.collect()
assert taken < 6000  # the pass ended with the first write that failed
assert os.listdir({str(saved.parent)!r}) == [{saved.name!r}]
assert len(HDF5Serializer.load({str(saved)!r}, {PATHS!r}, False)[3]) == 4
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_threads_may_share_the_first_use(saved: Path) -> None:
    for _ in range(20):
        ds = HDF5Data(saved, PATHS, shuffle=False)
        together = threading.Barrier(8)

        def read(number: int, ds: HDF5Data = ds, together: threading.Barrier = together) -> int:
            together.wait(60)
            return int(ds[number][1])

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(read, range(8))) == list(range(8))


def outside(path: Path) -> Path:
    secret = path.with_name("secret.h5")
    with h5py.File(secret, "w") as file:
        file["x"] = np.arange(12).reshape(4, 3)
    return secret


def of_external_bytes(file: Any, secret: Path) -> None:
    file.create_dataset("x", (4, 3), "u1", external=[(str(secret), 0, 12)])


def of_an_external_link(file: Any, secret: Path) -> None:
    file["x"] = h5py.ExternalLink(str(secret), "x")


def of_an_external_link_behind_a_soft_one(file: Any, secret: Path) -> None:
    file["a/out"] = h5py.ExternalLink(str(secret), "/")
    file["b"] = h5py.SoftLink("a")
    file["x"] = h5py.SoftLink("/b/out/x")


def of_a_virtual_data_set(file: Any, secret: Path) -> None:
    layout = h5py.VirtualLayout((4, 3), "i8")
    layout[...] = h5py.VirtualSource(str(secret), "x", (4, 3))
    file.create_virtual_dataset("x", layout)


@pytest.mark.parametrize(
    "write",
    [of_external_bytes, of_an_external_link, of_an_external_link_behind_a_soft_one, of_a_virtual_data_set],
)
def test_a_file_that_leads_to_other_files_is_refused(path: Path, write: Any) -> None:
    secret = outside(path)
    with h5py.File(path, "w") as file:
        write(file, secret)
    with pytest.raises(StoreError, match=f"'x' in {path} .*other file"):
        HDF5Data(path, ["x"])


def test_soft_links_within_the_file_are_followed_and_circles_are_refused(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["a/x"] = np.arange(4)
        file["a/y"] = h5py.SoftLink("x")
        file["z"] = h5py.SoftLink("/a/./y")
        file["one"] = h5py.SoftLink("other")
        file["other"] = h5py.SoftLink("/one")
    assert [int(x) for (x,) in HDF5Data(path, ["z"], shuffle=False)] == [0, 1, 2, 3]
    with pytest.raises((ConfigError, StoreError), match=str(path)):
        HDF5Data(path, ["one"])


@pytest.mark.parametrize(
    ("shape", "chunks"), [((4, 1 << 40), None), ((4, 1 << 40), (1, 1 << 10)), ((4, 1 << 10), (1 << 20, 1 << 11))]
)
def test_rows_that_are_only_claimed_take_no_memory(path: Path, shape: Any, chunks: Any) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("x", shape, "u1", chunks=chunks, maxshape=(None, None) if chunks else None)
    with pytest.raises(StoreError, match=r"'x' in .* has rows or chunks of \d+ bytes"):
        HDF5Data(path, ["x"])


def test_without_h5py_the_command_that_installs_it_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"pip install 'dfserve\[formats\]'"):
        HDF5Serializer.save(listed([1]), path, ["x"])
    with pytest.raises(ImportError, match=r"pip install 'dfserve\[formats\]'"):
        HDF5Data(path, ["x"])

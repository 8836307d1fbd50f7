"""Loaded LMDB files: passes, indices, processes, and files that change."""

from __future__ import annotations

import copy
import gc
import itertools
import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dfserve.dataflow import DataFromGenerator, DataFromList, fix_rng_seed
from dfserve.dataflow.serialize import LMDBSerializer, lmdb_datapoints, lmdb_file
from dfserve.errors import StoreError

lmdb: Any = pytest.importorskip("lmdb")
# Python 3.12 warns of every fork of a process with threads; that forks work is what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

FORK, SPAWN = multiprocessing.get_context("fork"), multiprocessing.get_context("spawn")
PATIENCE = 60  # seconds
COUNT = 300
of_lmdb_3 = pytest.mark.skipif(
    not hasattr(lmdb.Environment, "lib_version"), reason="before 3.0 lmdb tells open files by their path, or not at all"
)
Same = Callable[[Any, Any], bool]


@pytest.fixture(scope="module")
def datapoints() -> list[list[Any]]:
    return [[np.full(number * 13 % 5000, number % 251, np.uint8), number] for number in range(COUNT)]


@pytest.fixture
def path(tmp_path: Path, datapoints: list[list[Any]]) -> Path:
    LMDBSerializer.save(DataFromList(datapoints, shuffle=False), tmp_path / "x")
    return tmp_path / "x"


def test_every_shuffled_pass_has_another_order_and_all_datapoints(path: Path) -> None:
    ds = LMDBSerializer.load(path)
    ds.reset_state()
    first, second = ([number for _, number in ds] for _ in range(2))
    assert first != second
    assert sorted(first) == sorted(second) == list(range(COUNT))


def test_the_order_follows_the_seed(path: Path) -> None:
    orders = []
    for seed in (1, 1, 2):
        fix_rng_seed(seed)
        ds = LMDBSerializer.load(path)
        ds.reset_state()
        orders.append([number for _, number in ds])
    assert orders[0] == orders[1] != orders[2]


def test_a_pass_without_shuffle_needs_no_reset(path: Path, datapoints: list[Any], same: Same) -> None:
    assert same(list(LMDBSerializer.load(path, shuffle=False)), datapoints)


@pytest.mark.parametrize("shuffle", [False, True])
def test_item_i_is_the_ith_that_was_saved(path: Path, datapoints: list[Any], same: Same, shuffle: bool) -> None:
    ds = LMDBSerializer.load(path, shuffle)
    assert len(ds) == COUNT
    for index in (0, 7, COUNT - 1, -1, -COUNT, np.int64(5)):
        assert same(ds[index], datapoints[index])
    for index in (COUNT, -COUNT - 1):
        with pytest.raises(IndexError):
            ds[index]


def test_datapoints_may_be_changed_and_outlive_the_file(path: Path, datapoints: list[Any], same: Same) -> None:
    ds = LMDBSerializer.load(path, shuffle=False)
    kept = list(ds)
    del ds
    gc.collect()
    path.unlink()
    for array, _ in kept:
        array += 1
    assert same([[array - 1, number] for array, number in kept], datapoints)


def test_passes_may_be_mixed_and_left(path: Path, datapoints: list[Any], same: Same) -> None:
    ds = LMDBSerializer.load(path, shuffle=False)
    one, other = iter(ds), iter(ds)
    found = [(next(one), next(other), ds[3]) for _ in range(20)]
    assert same([pair[0] for pair in found], datapoints[:20])
    assert same([pair[1] for pair in found], datapoints[:20])
    del one
    assert next(other)[1] == 20


def test_the_file_is_open_once_however_many_read_it(path: Path) -> None:
    one, other, copied = (LMDBSerializer.load(path, shuffle=False) for _ in range(3))
    copied = copy.copy(one)
    link = path.with_name("link")
    os.link(path, link)
    linked = LMDBSerializer.load(link, shuffle=False)
    passes = [iter(ds) for ds in (one, other, copied, linked)]
    assert [next(one_pass)[1] for one_pass in passes] == [0, 0, 0, 0]
    assert len({id(ds._file.env) for ds in (one, other, copied, linked)}) == 1


def test_the_file_is_closed_with_the_last_that_reads_it(path: Path) -> None:
    def is_open() -> bool:  # this one: an earlier test's may be garbage that is still to be collected
        return (path.stat().st_dev, path.stat().st_ino) in lmdb_file._open

    ds = LMDBSerializer.load(path, shuffle=False)
    assert not is_open()
    passing = iter(ds)
    next(passing)
    del ds
    gc.collect()
    assert is_open()
    assert next(passing)[1] == 1
    passing.close()
    del passing
    gc.collect()
    assert not is_open()
    with lmdb.open(str(path), subdir=False, readonly=True, lock=False) as env:  # refused if it were open still
        assert env.stat()["entries"] == COUNT + 1


def test_many_threads_read_by_index_at_once(path: Path) -> None:
    ds = LMDBSerializer.load(path)
    wrong: list[Any] = []

    def read(seed: int) -> None:
        draw = random.Random(seed)
        for _ in range(500):
            index = draw.randrange(COUNT)
            array, number = ds[index]
            if number != index or (array != number % 251).any():
                wrong.append((index, number))

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not wrong


def test_threads_that_load_and_drop_one_file_do_not_open_it_twice(path: Path) -> None:
    script = f"""
import sys, threading
from dfserve.dataflow.serialize import LMDBSerializer, lmdb_file
sys.setswitchinterval(1e-6)
errors = []
def load():
    try:
        for _ in range(200):
            ds = LMDBSerializer.load({str(path)!r}, shuffle=False)
            assert ds[3][1] == 3
            del ds
    except BaseException as error:
        errors.append(repr(error))
threads = [threading.Thread(target=load) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
sys.exit(str((errors, lmdb_file._open)) if errors or lmdb_file._open else 0)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr  # -11 where one closed what another had open


@pytest.mark.parametrize("left", [0, 8192])
def test_a_file_that_is_cut_short_while_it_is_open_is_an_error_and_not_the_end(path: Path, left: int) -> None:
    script = f"""
import os, sys
from dfserve.dataflow.serialize import LMDBSerializer
from dfserve.dataflow.serialize.lmdb_data import LMDBData
from dfserve.errors import StoreError
sources = [LMDBSerializer.load({str(path)!r}, shuffle=False), LMDBData({str(path)!r}, shuffle=False)]
reads = [read for ds in sources for read in (iter(ds).__next__, lambda ds=ds: ds[250], lambda ds=ds: next(iter(ds)))]
for read in reads:
    read()
os.truncate({str(path)!r}, {left})
for number, read in enumerate(reads):
    try:
        read()
    except StoreError as error:
        assert "cut short" in str(error) and {str(path)!r} in str(error), error
    else:
        sys.exit(f"read {{number}} took no notice")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr  # -7 where it touched a page that is gone


def _numbers(ds: Any, results: Any) -> None:
    ds.reset_state()
    results.put((os.getpid(), [number for _, number in ds], ds[17][1], ds._file.pid))


@pytest.mark.parametrize("context", [FORK, SPAWN], ids=["fork", "spawn"])
@pytest.mark.parametrize("used", [False, True])
def test_several_processes_read_at_once_each_with_its_own_environment(path: Path, context: Any, used: bool) -> None:
    ds = LMDBSerializer.load(path)
    if used:
        assert ds[3][1] == 3  # open here, too
    results = context.Queue()
    readers = [context.Process(target=_numbers, args=(ds, results)) for _ in range(3)]
    for reader in readers:
        reader.start()
    found = [results.get(timeout=PATIENCE) for _ in readers]
    for reader in readers:
        reader.join(PATIENCE)
        assert reader.exitcode == 0
    assert len({pid for pid, *_ in found}) == 3
    assert len({tuple(numbers) for _, numbers, *_ in found}) == 3  # each in an order of its own
    for pid, numbers, seventeenth, opener in found:
        assert (sorted(numbers), seventeenth, opener) == (list(range(COUNT)), 17, pid)
    assert ds[5][1] == 5


def test_a_pass_goes_on_in_a_forked_child_and_in_the_parent(path: Path) -> None:
    ds = LMDBSerializer.load(path, shuffle=False)
    passing = iter(ds)
    assert [next(passing)[1] for _ in range(10)] == list(range(10))
    here, there = os.pipe()
    child = os.fork()
    if not child:
        try:
            right = [number for _, number in passing] == list(range(10, COUNT)) and ds._file.pid == os.getpid()
            os.write(there, b"y" if right else b"n")
        finally:
            os._exit(0)
    assert next(passing)[1] == 10
    assert os.read(here, 1) == b"y"
    assert os.waitpid(child, 0)[1] == 0
    assert [number for _, number in passing] == list(range(11, COUNT))
    os.close(here)
    os.close(there)


def test_a_child_forked_while_a_thread_opens_files_can_open_them_too(path: Path) -> None:
    ds = LMDBSerializer.load(path, shuffle=False)
    with lmdb_file._lock:
        results = FORK.Queue()
        # Forked by another thread, for which the lock is taken: the child has nobody to give it back.
        reader = FORK.Process(target=_numbers, args=(ds, results))
        starter = threading.Thread(target=reader.start)
        starter.start()
        starter.join(PATIENCE)
        _, numbers, *_ = results.get(timeout=PATIENCE)
    reader.join(PATIENCE)
    assert numbers == list(range(COUNT))


def test_a_pickled_source_takes_neither_file_nor_data_along(path: Path) -> None:
    ds = LMDBSerializer.load(path, shuffle=False)
    list(ds)
    pickled = pickle.dumps(ds)
    assert len(pickled) < 2000
    assert [number for _, number in pickle.loads(pickled)] == list(range(COUNT))


@pytest.mark.parametrize("size", ["same", "other"])
def test_a_file_that_took_the_place_of_another_is_not_mistaken_for_it(
    path: Path, datapoints: list[Any], size: str
) -> None:
    ds = LMDBSerializer.load(path, shuffle=False)
    path.unlink()
    others = datapoints if size == "same" else datapoints[:9]
    LMDBSerializer.save(DataFromList(others, shuffle=False), path)
    with pytest.raises(StoreError, match="is not the file any more that it was"):
        next(iter(ds))


def test_an_open_file_can_be_read_on_after_it_was_removed(path: Path) -> None:
    ds = LMDBSerializer.load(path, shuffle=False)
    assert ds[0][1] == 0
    path.unlink()
    assert len(list(ds)) == COUNT


@of_lmdb_3
def test_an_open_file_can_be_read_on_beside_the_one_that_took_its_place(path: Path, datapoints: list[Any]) -> None:
    ds = LMDBSerializer.load(path, shuffle=False)
    assert ds[0][1] == 0
    path.unlink()
    LMDBSerializer.save(DataFromList(datapoints[:9], shuffle=False), path)
    assert len(list(LMDBSerializer.load(path, shuffle=False))) == 9
    assert len(list(ds)) == COUNT


def test_a_checksum_is_compared_once_in_a_process(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verified: list[bool] = []
    read = lmdb_datapoints.read_record
    monkeypatch.setattr(lmdb_datapoints, "read_record", lambda *args: (verified.append(args[2]), read(*args))[1])
    ds = LMDBSerializer.load(path, shuffle=False)
    for _ in range(2):
        list(ds)
    assert verified == [True] * COUNT + [False] * COUNT
    pickle.loads(pickle.dumps(ds))[0]
    assert verified[-1]


@of_lmdb_3
def test_a_file_that_somebody_else_has_open_in_this_process_is_an_error_that_says_so(path: Path) -> None:
    with (
        lmdb.open(str(path), subdir=False, readonly=True, lock=False),
        pytest.raises(StoreError, match="is already open in this process"),
    ):
        LMDBSerializer.load(path)
    assert LMDBSerializer.load(path)[3][1] == 3


# Saves again and again; the parent kills it.
SAVE_FOR_EVER = """
import itertools, sys
import numpy as np
from dfserve.dataflow import DataFromGenerator
from dfserve.dataflow.serialize import LMDBSerializer

def datapoints():
    for number in range(400):
        yield [np.full(number * 13 % 5000, number % 251, np.uint8), number]

for number in itertools.count():
    LMDBSerializer.save(DataFromGenerator(datapoints), f"{sys.argv[1]}/{number:04d}", write_frequency=50, map_size=1)
    print(number, flush=True)
"""


def test_a_save_that_is_killed_leaves_nothing_that_loads(tmp_path: Path) -> None:
    draw = random.Random(0)
    interrupted = 0
    for trial in itertools.count():
        if trial >= 6 and interrupted:  # on a busy machine a saver may not get to its next save before it is killed
            break
        folder = tmp_path / str(trial)
        folder.mkdir()
        saver = subprocess.Popen([sys.executable, "-c", SAVE_FOR_EVER, str(folder)], stdout=subprocess.PIPE)
        assert saver.stdout is not None
        assert saver.stdout.readline() == b"0\n"
        time.sleep(draw.uniform(0, 0.1))  # any moment will do
        saver.send_signal(signal.SIGKILL)
        saver.wait(PATIENCE)
        saver.stdout.close()
        for path in folder.iterdir():
            if path.name.startswith("."):
                interrupted += 1
                continue
            found = list(LMDBSerializer.load(path, shuffle=False))
            assert [number for _, number in found] == list(range(400))
            assert all((array == number % 251).all() for array, number in found)


def test_what_a_killed_save_leaves_is_removed_by_the_next_one(tmp_path: Path) -> None:
    def suicidal() -> Any:
        for number in range(1000):
            if number == 700:
                os.kill(os.getpid(), signal.SIGKILL)
            yield [number]

    saver = FORK.Process(target=LMDBSerializer.save, args=(DataFromGenerator(suicidal), tmp_path / "x", 50))
    saver.start()
    saver.join(PATIENCE)
    assert saver.exitcode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    with pytest.raises(FileNotFoundError):
        LMDBSerializer.load(tmp_path / "x")
    with pytest.raises(StoreError, match="no label"):  # not even if somebody asks for it by its name
        LMDBSerializer.load(left)
    LMDBSerializer.save(DataFromList([[1]], shuffle=False), tmp_path / "x")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]

"""The pipelines of tensorpack's tutorials, on photographs: as they are, and through a sender in another process."""

from __future__ import annotations

import gc
import importlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import psutil
import pytest

from dfserve.dataflow import RemoteDataZMQ, TestDataSpeed

HERE = Path(__file__).parent
PHOTOS = sorted((HERE.parents[1] / "examples" / "photos").glob("*.jpg"))
SYNSETS = ("n01440764", "n01443537", "n01484850")  # label 0: everything is blue; 1: green; 2: red
BATCH = 4
PASS = len(SYNSETS) * len(PHOTOS) // BATCH  # batches
LONG = 200  # batches: a file that is not among them never comes
PATIENCE = 60.0  # seconds for a sender on a busy machine to start
Start = Callable[..., Any]
Run = Callable[[str, Path], Iterator[Any]]
Files = dict[Path, int]

pytestmark = [
    # What is forked here has no lock of another thread's to wait for: OpenCV's threads and libzmq's are unused there.
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
    pytest.mark.usefixtures("no_process_left"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ImageNet-shaped folder of photographs of several sizes. Which channel is the brightest tells the label."""
    root = tmp_path_factory.mktemp("ILSVRC12")
    for label, synset in enumerate(SYNSETS):
        (root / "train" / synset).mkdir(parents=True)
        for number, photo in enumerate(PHOTOS):
            image = cv2.imread(str(photo))[::2, ::2]
            image = image[: image.shape[0] - 5 * label, : image.shape[1] - 7 * number]
            tinted = image // 4
            tinted[:, :, label] = 128 + image[:, :, label] // 2
            assert cv2.imwrite(str(root / "train" / synset / f"{synset}_{number}.JPEG"), tinted)
    return root


@pytest.fixture(scope="module")
def files(folder: Path) -> Files:
    """The label of each file of ``folder``."""
    return {path: SYNSETS.index(path.parent.name) for path in sorted(folder.glob("train/*/*.JPEG"))}


@pytest.fixture(scope="module")
def tutorials() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HERE))
        yield importlib.import_module("tutorials")


@pytest.fixture(scope="module")
def saved(folder: Path, tutorials: ModuleType) -> Path:
    """``folder``, with its LMDB file."""
    tutorials.save_jpegs(folder)
    return folder


@pytest.fixture
def no_process_left(until: Callable[..., Any]) -> Iterator[None]:
    """See that what a test starts in this process has ended after it."""
    me = psutil.Process()
    before = set(me.children(recursive=True))
    yield
    gc.collect()  # a pipeline that a frame of a traceback holds
    until(lambda: not set(me.children(recursive=True)) - before, "processes to end")


@pytest.fixture(params=["here", "remote"])
def run(request: pytest.FixtureRequest, tutorials: ModuleType, start: Start, tmp_path: Path) -> Iterator[Run]:
    """Run a pipeline by its name: in this process, or in another one that sends to this."""
    remotes: list[RemoteDataZMQ] = []

    def _here(name: str, folder: Path) -> Iterator[Any]:
        ds = getattr(tutorials, name)(folder)
        ds.reset_state()
        return iter(ds)

    def _remote(name: str, folder: Path) -> Iterator[Any]:
        address = f"ipc://{tmp_path}/socket"
        remotes.append(RemoteDataZMQ(address, timeout=PATIENCE))
        start("tutorials.py", name, str(folder), address)
        return iter(remotes[0])

    yield _here if request.param == "here" else _remote
    for remote in remotes:
        remote.close()


@pytest.fixture
def web(start: Start, folder: Path, files: Files, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The URLs of ``files``, from a server in a process of its own."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")  # if there is a proxy here: it is not what is tested
    server = start("-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(folder))
    server.wait_until_said("Serving HTTP")
    (port,) = re.findall(r"port (\d+)", server.output)
    return [f"http://127.0.0.1:{port}/{path.relative_to(folder)}" for path in files]


def contents(pairs: list[tuple[Any, int]]) -> Counter[Any]:
    """Return what can be compared, in whatever order it came."""
    return Counter((array.shape, array.dtype, array.tobytes(), label) for array, label in pairs)


def resized(files: Files) -> list[tuple[Any, int]]:
    return [(cv2.resize(cv2.imread(str(path)), (224, 224)), label) for path, label in files.items()]


def pairs_of(batches: Iterator[Any], number: int) -> list[tuple[Any, int]]:
    """Return (image or JPEG, label) of each datapoint of so many batches."""
    pairs = [
        (one, int(its)) for images, labels in islice(batches, number) for one, its in zip(images, labels, strict=True)
    ]
    assert len(pairs) == number * BATCH
    return pairs


def labels_of(batches: Iterator[Any], number: int) -> list[int]:
    """Return the labels of so many batches of augmented images, and see that each belongs to its image."""
    labels: list[int] = []
    for image, label in islice(batches, number):
        assert (image.shape, image.dtype) == ((BATCH, 224, 224, 3), np.dtype("uint8"))
        assert (label.shape, label.dtype) == ((BATCH,), np.dtype("int64"))
        assert image.mean(axis=(1, 2)).argmax(axis=1).tolist() == label.tolist()
        labels += label.tolist()
    assert len(labels) == number * BATCH
    return labels


def in_lists(batches: Iterator[Any]) -> Iterator[Any]:
    """Pass batches on, and see that they are lists of images or JPEGs of sizes of their own."""
    for images, labels in batches:
        assert [type(column) for column in (images, labels)] == [list, list]
        assert {image.dtype for image in images} == {np.dtype("uint8")}
        yield images, labels


# Random read


def test_images_in_lists_are_those_of_the_files_each_once(run: Run, folder: Path, files: Files) -> None:
    got = pairs_of(in_lists(run("images", folder)), PASS)
    wanted = [(cv2.imread(str(path)), label) for path, label in files.items()]
    assert contents(got) == contents(wanted)


def test_the_speed_of_reading_is_measured(tutorials: ModuleType, folder: Path, capsys: Any) -> None:
    assert TestDataSpeed(tutorials.images(folder)).start() > 0
    assert f"BatchData: {PASS} datapoints in " in capsys.readouterr().err


def test_resized_images_are_batches_of_the_files_each_once(run: Run, folder: Path, files: Files) -> None:
    got = pairs_of(run("resized", folder), PASS)
    assert contents(got) == contents(resized(files))


def test_a_pipeline_in_three_processes_gives_images_of_the_files(run: Run, folder: Path, files: Files) -> None:
    # Each process has a shuffled pass of its own: which batches of them come first is chance.
    got = pairs_of(run("simple", folder), PASS)
    assert contents(got).keys() <= contents(resized(files)).keys()


def test_images_that_are_augmented_in_two_processes_keep_their_labels(run: Run, folder: Path) -> None:
    assert set(labels_of(run("runner", folder), PASS)) <= {0, 1, 2}


PARALLEL_MAPS = ["threads_of_images", "threads_of_files", "decoded_by_processes"]


@pytest.mark.parametrize("pipeline", PARALLEL_MAPS)
def test_a_parallel_map_goes_on_for_ever_and_labels_stay_with_their_images(
    run: Run, saved: Path, pipeline: str
) -> None:
    assert set(labels_of(run(pipeline, saved), 3 * PASS)) == {0, 1, 2}


@pytest.mark.parametrize("pipeline", PARALLEL_MAPS)
def test_a_parallel_map_gives_every_file_and_nothing_else(
    tutorials: ModuleType, saved: Path, files: Files, pipeline: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tutorials, "lots_of_augmentors", [tutorials.imgaug.Resize(224)])
    ds = getattr(tutorials, pipeline)(saved)
    ds.reset_state()
    batches, missing = iter(ds), contents(resized(files)).keys()
    for _ in range(LONG):
        got = contents(pairs_of(batches, 1)).keys()
        assert got <= contents(resized(files)).keys()
        missing = missing - got
        if not missing:
            break
    assert not missing


# Sequential read


@pytest.mark.parametrize("pipeline", ["jpegs", "shuffled_jpegs"])
def test_jpegs_that_were_saved_are_the_files_each_once(run: Run, saved: Path, files: Files, pipeline: str) -> None:
    got = pairs_of(in_lists(run(pipeline, saved)), PASS)
    wanted = [(np.frombuffer(path.read_bytes(), np.uint8), label) for path, label in files.items()]
    assert contents(got) == contents(wanted)


def test_the_file_is_read_in_its_order_or_shuffled_in_a_buffer(tutorials: ModuleType, saved: Path) -> None:
    def order(name: str) -> list[bytes]:
        ds = getattr(tutorials, name)(saved)
        ds.reset_state()
        return [jpeg.tobytes() for jpeg, _ in pairs_of(iter(ds), PASS)]

    assert order("jpegs") == order("jpegs")
    assert order("shuffled_jpegs") != order("jpegs")  # but for one run in 12!


def test_jpegs_that_are_decoded_and_augmented_come_each_once(run: Run, saved: Path, files: Files) -> None:
    assert Counter(labels_of(run("decoded", saved), PASS)) == Counter(files.values())


# Distributed


def test_two_machines_and_this_one_send_to_a_trainer(start: Start, tutorials: ModuleType, free_port: int) -> None:
    here, there = f"ipc://@my-socket-{os.getpid()}-{free_port}", f"tcp://127.0.0.1:{free_port}"
    senders = {"machine 1": there, "machine 2": there, "training machine": here}
    for name, address in senders.items():
        start("tutorials.py", "MyLargeData", name, address)
    with RemoteDataZMQ(here, f"tcp://0.0.0.0:{free_port}", timeout=PATIENCE) as ds:
        assert TestDataSpeed(ds).start() > 0
        seen: Counter[str] = Counter()
        for name, array in ds:
            assert (array == array[0, 0]).all()
            seen[name] += 1
            if seen.keys() == senders.keys():
                break


# wbaek/dataflow


def test_network_images_come_from_a_server_in_order(web: list[str], tutorials: ModuleType, files: Files) -> None:
    ds = tutorials.NetworkImagesImple(web)
    with pytest.warns(DeprecationWarning, match="get_data"):
        images = [image for image, _ in ds.get_data()]
    assert all(np.array_equal(image, cv2.imread(str(path))) for image, path in zip(images, files, strict=True))


def test_threads_in_two_processes_fetch_network_images(web: list[str], tutorials: ModuleType, files: Files) -> None:
    with pytest.warns(DeprecationWarning, match="nr_proc"):
        ds = tutorials.network_images(web)
    ds.reset_state()
    with pytest.warns(DeprecationWarning, match="get_data"):
        got = list(ds.get_data())
    paths = list(files)
    assert len(got) == len(paths)
    assert all(np.array_equal(image, cv2.imread(str(paths[label]))) for image, label in got)


# The import


def test_everything_that_the_tutorials_name_comes_with_the_import() -> None:
    namespace: dict[str, Any] = {}
    exec("from dfserve.dataflow import *", namespace)
    named = {
        *("dataset", "imgaug", "BatchData", "TestDataSpeed", "AugmentImageComponent", "MapDataComponent", "DataFlow"),
        *("MultiProcessRunner", "MultiProcessRunnerZMQ", "MultiThreadRunner", "MultiThreadMapData"),
        *("MultiProcessMapData", "MultiProcessMapDataZMQ", "PrefetchDataZMQ", "LocallyShuffleData", "FakeData"),
        *("LMDBSerializer", "send_dataflow_zmq", "RemoteDataZMQ"),
    }
    assert named <= namespace.keys()
    assert all(hasattr(namespace["dataset"], name) for name in ("ILSVRC12", "ILSVRC12Files", "NetworkImages"))
    assert all(hasattr(namespace["imgaug"], name) for name in ("AugmentorList", "Resize", "GaussianBlur"))

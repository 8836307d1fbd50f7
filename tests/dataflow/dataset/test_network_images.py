"""Images from a real server: one by one, with threads, in parts, and decoded by other processes."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfserve.dataflow.dataset.network_images import NetworkImages
from dfserve.dataflow.decoding import decode_image
from dfserve.dataflow.failures import key_of
from dfserve.dataflow.policy import SkipErrors
from dfserve.errors import ConfigError, DatapointError, DfserveError, DownloadError, TooManyErrors

pytest.importorskip("urllib3")
pytest.importorskip("cv2")

NOWHERE = [[f"http://127.0.0.1/{n}.jpg", n] for n in range(23)]  # never fetched


@pytest.fixture
def listed(web: Any, jpegs: list[bytes]) -> list[Any]:
    """[url, label] of 30 photographs; the label is the place in the list."""
    return [[web.page(f"/{n}.jpg", web.body(jpegs[n % len(jpegs)])), n] for n in range(30)]


@pytest.fixture
def images(jpegs: list[bytes]) -> list[Any]:
    """What those are, by label."""
    return [decode_image(jpegs[n % len(jpegs)]) for n in range(30)]


def labels(ds: Any) -> list[int]:
    return [datapoint[1] for datapoint in ds]


def reset(ds: Any) -> Any:
    ds.reset_state()
    return ds


def test_a_subclass_that_sets_its_datapoints_runs_as_it_was_written(
    web: Any, listed: list[Any], images: list[Any]
) -> None:
    class NetworkImagesImple(NetworkImages):
        def __init__(self, shuffle: bool = False) -> None:
            super(NetworkImagesImple, self).__init__(shuffle)  # noqa: UP008  # as the tutorial has it
            self.datapoints = [
                [listed[0][0], 0],
                [listed[1][0], 1],
                [listed[2][0], 2],
            ]

    ds = NetworkImagesImple()
    with pytest.warns(DeprecationWarning, match="get_data"):
        found = list(ds.get_data())
    assert [label for _, label in found] == [0, 1, 2]
    for image, label in found:
        assert (image.dtype, image.ndim) == (np.dtype("uint8"), 3)
        assert np.array_equal(image, images[label])
    with pytest.warns(DeprecationWarning, match="size"):
        assert ds.size() == 3
    assert [label for _, label in ds] == [0, 1, 2]
    shuffled = reset(NetworkImagesImple(shuffle=True).parallel(num_threads=3))
    assert sorted(labels(shuffled)) == [0, 1, 2]
    assert web.hits[f"/{0}.jpg"] == 3


def test_the_first_argument_is_the_list_or_whether_to_shuffle() -> None:
    named = NetworkImages(datapoints=NOWHERE, shuffle=True)
    for ds in (NetworkImages(NOWHERE, True), NetworkImages(NOWHERE, shuffle=True), named):
        assert (ds.datapoints, ds.shuffle) == (NOWHERE, True)
    assert not NetworkImages(NOWHERE).shuffle
    for ds in (NetworkImages(True), NetworkImages(shuffle=True), NetworkImages(np.True_), NetworkImages(1)):
        assert ds.shuffle
        with pytest.raises(ConfigError, match=r"has no datapoints: pass a list .* or set self\.datapoints"):
            len(ds)
    assert not NetworkImages().shuffle
    assert not NetworkImages(False).shuffle
    with pytest.raises(ConfigError, match="it is a list of"):
        NetworkImages("http://127.0.0.1/a.jpg")  # type: ignore[arg-type]


def test_what_is_not_set_is_told_when_it_is_iterated_too() -> None:
    with pytest.raises(ConfigError, match="has no datapoints"):
        list(NetworkImages())
    with pytest.raises(ConfigError, match="has no datapoints"):
        NetworkImages().partitioning(2, 0)


def test_an_item_is_the_same_whatever_the_order_of_the_passes(listed: list[Any], images: list[Any]) -> None:
    ds = reset(NetworkImages(listed, shuffle=True))
    first, second = labels(ds), labels(ds)
    assert sorted(first) == sorted(second) == list(range(30))
    assert first != second
    image, label = ds[7]
    assert label == ds[7 - 30][1] == 7
    assert np.array_equal(image, images[7])
    with pytest.raises(IndexError):
        ds[30]


def test_shuffling_needs_a_reset_and_nothing_else_does(listed: list[Any]) -> None:
    with pytest.raises(DfserveError, match="reset_state"):
        list(NetworkImages(listed, shuffle=True))
    assert labels(NetworkImages(listed)) == list(range(30))


def test_datapoints_may_have_more_components_or_names(listed: list[Any], images: list[Any]) -> None:
    url = listed[3][0]
    more, pair, named, alone = NetworkImages([[url, 3, {"box": 1}], (url, 3), {"image": url, "label": 3}, [url]])
    assert np.array_equal(more[0], images[3])
    assert more[1:] == [3, {"box": 1}]
    assert pair[1:] == [3]
    assert list(named) == ["image", "label"]
    for image in (pair[0], named["image"], alone[0]):
        assert np.array_equal(image, images[3])
    assert listed[3] == [url, 3]


@pytest.mark.parametrize(
    "datapoint", [[3, "a"], [], "http://127.0.0.1/a.jpg", None, [b"http://127.0.0.1/a.jpg", 1], {}]
)
def test_a_datapoint_without_a_url_is_an_error(datapoint: Any) -> None:
    ds = NetworkImages([datapoint])
    with pytest.raises(DatapointError, match="URL"):
        list(ds)
    with pytest.raises(DatapointError, match="URL"):
        ds[0]


def test_without_decoding_the_bytes_are_those_of_the_server(listed: list[Any], jpegs: list[bytes]) -> None:
    for ds in (NetworkImages(listed, decode=False), reset(NetworkImages(listed, decode=False).parallel(4))):
        for encoded, label in ds:
            assert (encoded.dtype, encoded.ndim) == (np.dtype("uint8"), 1)
            assert encoded.tobytes() == jpegs[label % len(jpegs)]


# Other threads run while this forks: those of the server.
FORKS = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


def _decode(datapoint: Any) -> Any:
    return [decode_image(datapoint[0], datapoint[2]), datapoint[1]]


@FORKS
def test_processes_decode_what_threads_fetch(listed: list[Any], images: list[Any]) -> None:
    parallel = pytest.importorskip("dfserve.dataflow.parallel.process_map")
    urls = [[url, label, url] for url, label in listed]
    ds = parallel.MultiProcessMapData(NetworkImages(urls, decode=False).parallel(4), 2, _decode, strict=True)
    found = {label: image for image, label in reset(ds)}
    ds.reset_state()  # ends the processes
    assert sorted(found) == list(range(30))
    assert all(np.array_equal(found[label], images[label]) for label in found)


@FORKS
def test_a_whole_pipeline_runs_in_other_processes(listed: list[Any]) -> None:
    parallel = pytest.importorskip("dfserve.dataflow.parallel.process_runner")
    ds = parallel.MultiProcessRunnerZMQ(NetworkImages(listed, shuffle=True).parallel(num_threads=4), 2)
    ds.reset_state()
    iterator = iter(ds)
    seen = Counter(next(iterator)[1] for _ in range(30))
    assert set(seen) <= set(range(30))
    assert max(seen.values()) <= 2
    ds.reset_state()


def test_threads_fetch_each_item_once_a_pass_and_many_at_a_time(
    web: Any, listed: list[Any], images: list[Any], jpegs: list[bytes]
) -> None:
    gate = threading.Barrier(8)

    def together(answer: Any) -> Any:
        return lambda visit: (gate.wait(30), answer(visit))

    for n in range(8):
        answer = web.body(jpegs[n % len(jpegs)])
        web.page(f"/{n}.jpg", together(answer), answer)
    ds = reset(NetworkImages(listed).parallel(8))
    assert len(ds) == 30
    for number in (1, 2):
        found = {label: image for image, label in ds}
        assert sorted(found) == list(range(30))
        assert all(np.array_equal(found[label], images[label]) for label in found)
        assert Counter(web.hits.values()) == {number: 30}
    assert web.most_together == 8
    assert web.connections <= 8


def test_a_parallel_pass_that_is_not_strict_goes_on_without_end(listed: list[Any]) -> None:
    ds = reset(NetworkImages(listed).parallel(4, buffer_size=8, strict=False))
    endless = iter(ds)
    assert set(Counter(next(endless)[1] for _ in range(90))) == set(range(30))
    ds.reset_state()


def test_a_parallel_flow_begins_its_threads_in_the_process_that_iterates(listed: list[Any]) -> None:
    ds = NetworkImages(listed).parallel(3)
    before = set(threading.enumerate())
    ds.reset_state()
    assert set(threading.enumerate()) <= before, "earlier tests' may end meanwhile"
    assert sorted(labels(ds)) == list(range(30))
    threads = set(threading.enumerate()) - before - {thread for thread in threading.enumerate() if not thread.daemon}
    assert sum(thread.name.startswith("ParallelImages") for thread in threads) == 3


@given(st.integers(0, 40), st.integers(1, 50), st.booleans())
def test_parts_have_nothing_in_common_and_everything_together(count: int, parts: int, parallel: bool) -> None:
    whole = NetworkImages([[f"http://127.0.0.1/{n}", n] for n in range(count)])
    cut = [(whole.parallel(2) if parallel else whole).partitioning(parts, n) for n in range(parts)]
    lists = [(part.images if parallel else part).datapoints for part in cut]
    assert sorted(n for part in lists for _, n in part) == list(range(count))
    assert [len(part) for part in cut] == [len(part) for part in lists]
    assert max(map(len, lists)) - min(map(len, lists)) <= 1
    assert len(whole) == count


def test_parts_and_threads_go_together_in_either_order(listed: list[Any]) -> None:
    for ds in (
        NetworkImages(listed).partitioning(4, 1).parallel(3),
        NetworkImages(listed).parallel(3).partitioning(4, 1),
        NetworkImages(listed).parallel(3).partitioning(2, 1).partitioning(2, 0),
    ):
        assert len(ds) == len(range(1, 30, 4))
        assert sorted(labels(reset(ds))) == list(range(1, 30, 4))
    assert labels(NetworkImages(listed).partitioning(8)) == [0, 8, 16, 24]
    assert NetworkImages(listed).partitioning(4, 1)[1][1] == 5


def test_parts_of_a_flow_that_was_reset_draw_orders_of_their_own(listed: list[Any]) -> None:
    whole = reset(NetworkImages([*listed, *listed], shuffle=True))
    parts = [reset(whole.partitioning(2, n)) for n in range(2)]
    orders = [labels(part) for part in parts]
    assert orders[0] != orders[1]
    assert sorted(labels(whole)) == sorted(orders[0] + orders[1])


@pytest.mark.parametrize(("count", "index"), [(2, 2), (2, -1), (0, 0), (-1, 0)])
def test_parts_that_do_not_exist_are_refused(count: int, index: int) -> None:
    for ds in (NetworkImages(NOWHERE), NetworkImages(NOWHERE).parallel(2)):
        with pytest.raises(ConfigError, match=f"partition_index is {index}"):
            ds.partitioning(count, index)


@pytest.mark.parametrize("arguments", [(0,), (-1,), (2, 0)])
def test_threads_that_do_not_exist_are_refused(arguments: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError):
        NetworkImages(NOWHERE).parallel(*arguments)


@FORKS
@pytest.mark.parametrize("parallel", [False, True])
def test_it_goes_to_a_forked_child(web: Any, listed: list[Any], parallel: bool) -> None:
    ds: Any = NetworkImages(listed[:6], shuffle=True)
    ds = reset(ds.parallel(2) if parallel else ds)
    assert sorted(labels(ds)) == list(range(6))  # it has connections, threads and a generator now
    ours = web.connections
    child = os.fork()
    if not child:
        good = False
        with contextlib.suppress(Exception):
            good = sorted(labels(reset(ds))) == list(range(6))
        os._exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert web.connections > ours


@pytest.mark.parametrize("parallel", [False, True])
def test_it_pickles_for_another_program(listed: list[Any], parallel: bool, tmp_path: Path) -> None:
    ds: Any = NetworkImages(listed[:6], shuffle=True, on_error="skip")
    ds = reset(ds.parallel(2) if parallel else ds)
    assert sorted(labels(ds)) == list(range(6))
    (tmp_path / "ds.pickle").write_bytes(pickle.dumps(ds))
    code = (
        "import pickle, sys; ds = pickle.load(open(sys.argv[1], 'rb')); ds.reset_state()\n"
        "print(len(ds), sorted(label for _, label in ds))\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "ds.pickle")]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout == "6 [0, 1, 2, 3, 4, 5]\n"


def test_a_missing_image_and_a_file_that_is_none_are_errors_with_their_url(web: Any, listed: list[Any]) -> None:
    missing, text = web.url("/missing.jpg"), web.page("/page.jpg", web.body(b"<html>" * 100))
    for url, error, match in ((missing, DownloadError, "404 Not Found"), (text, DatapointError, "cannot decode")):
        ds = NetworkImages([*listed[:2], [url, 5]])
        for flow in (ds, ds.parallel(2)):
            with pytest.raises(error, match=match) as caught:
                list(reset(flow))
            assert key_of(caught.value) == url
            assert url in str(caught.value)
        with pytest.raises(error) as caught:
            ds[2]
        assert key_of(caught.value) == url


def test_skipping_leaves_out_what_fails_within_limits(web: Any, listed: list[Any]) -> None:
    gone = [[web.url(f"/gone/{n}"), -n] for n in range(1, 6)]
    mixed = [item for pair in zip(listed, gone, strict=False) for item in pair]
    ds = NetworkImages(mixed, on_error="skip")
    assert labels(ds) == sorted(labels(reset(ds.parallel(3)))) == [0, 1, 2, 3, 4]
    strict = NetworkImages(mixed, on_error=SkipErrors(total=2))
    for flow in (strict, strict.parallel(3), strict.partitioning(1, 0)):
        with pytest.raises(TooManyErrors, match="more than total=2"):
            list(reset(flow))


def test_of_300_images_the_good_ones_come_and_the_bad_ones_are_put_aside(
    web: Any, jpegs: list[bytes], tmp_path: Path
) -> None:
    kinds = [
        web.status(404),
        web.body(b"no image"),
        web.cut(jpegs[0][:100], len(jpegs[0])),
        web.redirect("file:///etc/passwd"),
        web.body(jpegs[0][: len(jpegs[0]) // 2]),
    ]
    passing = [web.status(503), web.raw(), web.cut(jpegs[0][:100], len(jpegs[0]))]
    listed, bad = [], set()
    for n in range(300):
        good = web.body(jpegs[n % len(jpegs)])
        answers = [kinds[n // 20 % 5]] if n % 20 == 7 else [passing[n % 3], good] if n % 20 == 3 else [good]
        listed.append([web.page(f"/{n}.jpg", *answers), n])
        if n % 20 == 7:
            bad.add(listed[-1][0])
    quarantine = tmp_path / "quarantine.jsonl"
    ds = NetworkImages(listed, True, retries=1, on_error=SkipErrors(rate=0.5, quarantine=quarantine))  # in any order
    found = labels(reset(ds.parallel(8)))
    assert len(bad) == 15
    assert sorted(found) == [n for url, n in listed if url not in bad]
    lines = [json.loads(line) for line in quarantine.read_text().splitlines()]
    assert {line["key"] for line in lines} == bad
    assert len(lines) == 15
    assert {line["error"].partition(":")[0] for line in lines} == {"DownloadError", "DatapointError"}


def test_an_abandoned_pass_ends_and_the_next_is_whole(web: Any, listed: list[Any]) -> None:
    ds = reset(NetworkImages(listed).parallel(4, buffer_size=6))
    for datapoint in ds:
        assert len(datapoint) == 2
        break
    assert sorted(labels(ds)) == list(range(30))


def test_a_program_whose_server_is_silent_ends_when_it_is_done(web: Any) -> None:
    url = web.page("/silent", web.late(60, web.body(b"")))
    code = (
        "import threading, time\n"
        "from dfserve.dataflow.dataset.network_images import NetworkImages\n"
        f"ds = NetworkImages([[{url!r}, 0]] * 20).parallel(4); ds.reset_state()\n"
        "threading.Thread(target=lambda: next(iter(ds)), daemon=True).start(); time.sleep(1); print('done')\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert run.stdout == "done\n"
    assert run.returncode == 0


@pytest.mark.parametrize(("missing", "command"), [("urllib3", "dfserve[network]"), ("cv2", "dfserve[producer]")])
@pytest.mark.parametrize("threads", [0, 2])
def test_a_missing_package_is_told_and_not_skipped(missing: str, command: str, threads: int) -> None:
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from dfserve.dataflow.dataset.network_images import NetworkImages\n"
        "ds = NetworkImages([['http://127.0.0.1/', 0]] * 3, on_error='skip')\n"
        f"ds = ds.parallel(2) if {threads} else ds\n"
        "ds.reset_state()\n"
        "try: print(list(ds))\n"
        "except ImportError as error: print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert f"pip install '{command}'" in run.stdout


def test_importing_it_needs_neither_package() -> None:
    code = (
        "import sys; before = set(sys.modules)\n"
        "import dfserve.dataflow.dataset.network_images\n"
        "print({'urllib3', 'cv2'} & (set(sys.modules) - before))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout == "set()\n"

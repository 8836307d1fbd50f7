"""What the package offers, and what importing it must not cost."""

from __future__ import annotations

import subprocess
import sys

import pytest

import dfserve
import dfserve.dataflow


def test_importing_it_loads_no_heavy_package() -> None:
    code = (
        "import sys, dfserve.dataflow\n"
        "heavy = {'cv2', 'lmdb', 'prometheus_client', 'torch', 'tensorflow', 'PIL', 'tqdm', 'zmq', 'h5py', 'urllib3',"
        " 'google_crc32c'}\n"
        "print(sorted((heavy & set(sys.modules)) - before))"
    )
    # A .pth file of the environment may have loaded some already.
    before = "import sys; before = set(sys.modules)\n"
    result = subprocess.run([sys.executable, "-c", before + code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["RemoteDataZMQ", "send_dataflow_zmq"])
def test_the_ends_of_a_stream_are_offered_too(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = object()
    monkeypatch.setitem(vars(dfserve), name, marker)
    assert getattr(dfserve.dataflow, name) is marker
    assert name in dfserve.dataflow.__all__


def test_what_it_does_not_have_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="NoSuchFlow"):
        _ = dfserve.dataflow.NoSuchFlow


def test_the_data_sets_come_with_it() -> None:
    assert dfserve.dataflow.dataset.ILSVRC12.__name__ == "ILSVRC12"


def test_completion_finds_what_is_loaded_later() -> None:
    for package in (dfserve.dataflow, dfserve.dataflow.dataset):
        assert set(package.__all__) <= set(dir(package))

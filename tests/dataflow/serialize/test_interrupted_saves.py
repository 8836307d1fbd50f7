"""Saves that do not come to their end, by ``kill -9`` or by an exception: never a half file that loads."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dfserve.dataflow import DataFromGenerator, DataFromList
from dfserve.dataflow.serialize.hdf5 import HDF5Serializer
from dfserve.dataflow.serialize.numpy_file import NumpySerializer
from dfserve.dataflow.serialize.tfrecord import TFRecordSerializer

FORMATS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "data.npz": (NumpySerializer, ()),
    "data.h5": (HDF5Serializer, (["image", "label"],)),
    "data.tfrecord": (TFRecordSerializer, ()),
}
# Saves again and again over a file in processes that are killed at random moments, and says what was found each time.
KILLER = """
import json, os, random, signal, sys, time
from pathlib import Path
import numpy as np
from dfserve.dataflow import DataFromGenerator
from dfserve.dataflow.serialize import hdf5, numpy_file, tfrecord

path, serializer, arguments = Path(sys.argv[1]), eval(sys.argv[2]), json.loads(sys.argv[3])

def datapoints():
    for number in range(300):
        yield [np.full((40, 40), number % 256, 'uint8'), number]

serializer.save(DataFromGenerator(datapoints), path, *arguments)  # imports what it needs
begin = time.perf_counter()
serializer.save(DataFromGenerator(datapoints), path, *arguments)
seconds = time.perf_counter() - begin
path.unlink()
found = []
for trial in range(24):
    going, told = os.pipe()
    child = os.fork()
    if not child:
        def saved():
            os.write(told, b'.')
            yield from datapoints()
            if not trial:
                signal.pause()  # the first one is killed before its end for certain
        serializer.save(DataFromGenerator(saved), path, *arguments)
        os._exit(0)
    os.close(told)
    os.read(going, 1)
    os.close(going)
    time.sleep(random.uniform(0, 1.3 * seconds))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if path.exists():
        ds = serializer.load(path, *arguments)
        ds.reset_state()
        found.append(sorted(int(label) for _, label in ds) == list(range(300)))
        path.unlink()
    else:
        found.append(None)
print(json.dumps(found))
"""


@pytest.mark.parametrize("name", FORMATS)
def test_a_save_that_is_killed_leaves_the_whole_file_or_none(name: str, tmp_path: Path) -> None:
    serializer, arguments = FORMATS[name]
    where = f"{serializer.__module__.rpartition('.')[2]}.{serializer.__name__}"
    command = [sys.executable, "-c", KILLER, str(tmp_path / name), where, json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found[0] is None
    assert False not in found


@pytest.mark.parametrize("name", FORMATS)
def test_a_source_that_raises_leaves_the_folder_as_it_was(name: str, tmp_path: Path) -> None:
    serializer, arguments = FORMATS[name]

    def raising() -> Iterator[Any]:
        yield from ([np.zeros((40, 40)), number] for number in range(20))
        raise OSError("the disk of the source is gone")

    with pytest.raises(OSError, match="the disk of the source is gone"):
        serializer.save(DataFromGenerator(raising), tmp_path / name, *arguments)
    assert not list(tmp_path.iterdir())
    serializer.save(DataFromList([[1, 2]], shuffle=False), tmp_path / name, *arguments)
    before = (tmp_path / name).read_bytes()
    with pytest.raises(OSError, match="the disk of the source is gone"):
        serializer.save(DataFromGenerator(raising), tmp_path / name, *arguments)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [(name, before)]

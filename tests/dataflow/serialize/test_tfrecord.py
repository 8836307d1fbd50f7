"""TFRecord files: what was saved comes back, TensorFlow reads it, and ours reads TensorFlow's."""

from __future__ import annotations

import base64
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dfserve.dataflow import DataFromList
from dfserve.dataflow.failures import key_of
from dfserve.dataflow.serialize.tfrecord import TFRecordSerializer
from dfserve.dataflow.serialize.tfrecord_frames import import_crc32c, write_record
from dfserve.errors import ConfigError, DatapointError, EncodeError, StoreError, UnknownLengthError

# Written by tf.io.TFRecordWriter of tensorflow 2.21: three tf.train.Examples, the second empty.
FROM_TENSORFLOW = base64.b64decode(
    "ogAAAAAAAAB7OfUYCp8BChcKA2JveBIQEg4KDAAAAD8AAKC/nsl/fwoUCgVpbWFnZRILCgkKB//YAGpwZWcKFwoFbGFiZWwSDhoMCgr///////"
    "////8BCgkKA25vZhICEgAKCAoEbm9uZRIACicKBXNpemVzEh4aHAoaAAF/gAGsAv//////////f4CAgICAgICAgAEKFwoFd29yZHMSDgoMCgFh"
    "CgAKBWNhZsOpgvpKLwIAAAAAAAAAeCcLNAoAOYGLqxIAAAAAAAAAJB9kJQoQCg4KBWxhYmVsEgUaAwoBBzaMhLk="
)
EXAMPLES = [{"image": b"\xff\xd8jpeg", "label": n, "box": np.array([0.5, n], "f4"), "name": f"é{n}"} for n in range(3)]


def listed(*datapoints: Any) -> DataFromList:
    return DataFromList(list(datapoints), shuffle=False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data.tfrecord"


def written(path: Path, *payloads: bytes) -> Path:
    with path.open("wb") as file:
        for payload in payloads:
            write_record(file, payload, import_crc32c())
    return path


def test_datapoints_of_any_kind_come_back_in_their_order_on_every_pass(path: Path) -> None:
    datapoints = [[1, "a", None], (2.5, b"b"), {"ragged": [1, [2, "x"]]}]
    TFRecordSerializer.save(listed(*datapoints), path)
    ds = TFRecordSerializer.load(path)
    ds.reset_state()
    assert list(ds) == list(ds) == datapoints


def test_its_length_is_what_load_was_told_and_the_file_must_have_as_much(path: Path) -> None:
    TFRecordSerializer.save(listed([0], [1], [2]), path)
    with pytest.raises(UnknownLengthError, match="size="):
        len(TFRecordSerializer.load(path))
    ds = TFRecordSerializer.load(path, 3)
    assert (len(ds), list(ds)) == (3, [[0], [1], [2]])
    assert list(TFRecordSerializer.load(path, size=2)) == [[0], [1]]
    with pytest.raises(StoreError, match=r"has 3 records and size is 4"):
        list(TFRecordSerializer.load(path, size=4))
    with pytest.raises(ConfigError, match="size is 0"):
        TFRecordSerializer.load(path, size=0)


def test_examples_are_recognised_and_read_as_lists_of_bytes_and_arrays(path: Path) -> None:
    TFRecordSerializer.save(listed(*EXAMPLES), path, record="example")
    first, *_ = found = list(TFRecordSerializer.load(path))
    assert [example["label"].tolist() for example in found] == [[0], [1], [2]]
    assert (first["image"], first["name"]) == ([b"\xff\xd8jpeg"], ["é0".encode()])
    assert (first["box"].dtype, first["box"].tolist()) == (np.dtype("float32"), [0.5, 0.0])


def test_a_file_that_tensorflow_wrote_is_read(path: Path) -> None:
    path.write_bytes(FROM_TENSORFLOW)
    full, empty, last = TFRecordSerializer.load(path, size=3)
    assert full.pop("sizes").tolist() == [0, 1, 127, 128, 300, 2**63 - 1, -(2**63)]
    assert full.pop("box").tolist() == [0.5, -1.25, float(np.float32(3.4e38))]
    assert (full.pop("label").tolist(), full.pop("nof").tolist()) == ([-1], [])
    assert full == {"image": [b"\xff\xd8\x00jpeg"], "words": [b"a", b"", b"caf\xc3\xa9"], "none": []}
    assert (empty, list(last), last["label"].tolist()) == ({}, ["label"], [7])


def test_tensorflow_reads_the_records_and_examples_of_a_saved_file(path: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    TFRecordSerializer.save(listed(*EXAMPLES), path, record="example")
    payloads = [record.numpy() for record in tf.data.TFRecordDataset(str(path))]
    features = tf.train.Example.FromString(payloads[2]).features.feature
    assert len(payloads) == 3
    assert list(features["image"].bytes_list.value) == [b"\xff\xd8jpeg"]
    assert list(features["label"].int64_list.value) == [2]
    assert list(features["box"].float_list.value) == [0.5, 2.0]
    TFRecordSerializer.save(listed([1], [2]), path)
    assert len(list(tf.data.TFRecordDataset(str(path)))) == 2


def test_a_file_of_tensorflow_of_today_is_read(path: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    label = tf.train.Feature(int64_list=tf.train.Int64List(value=[-5, 2**40]))
    example = tf.train.Example(features=tf.train.Features(feature={"label": label}))
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(example.SerializeToString())
    assert [found["label"].tolist() for found in TFRecordSerializer.load(path)] == [[-5, 2**40]]


@pytest.mark.parametrize(
    ("payload", "what"),
    [
        (pickle.dumps([1, 2]), "is a pickle"),
        (b"SEQ", "neither a datapoint of dfserve nor a tf.train.Example"),
        (b"\n\x05abc", "malformed"),
        (b"\x12\x00", "neither"),
        (b"dfr\x01abc", "malformed"),
    ],
)
def test_records_of_something_else_are_refused_with_what_they_are(path: Path, payload: bytes, what: str) -> None:
    ds = TFRecordSerializer.load(written(path, payload))
    with pytest.raises(StoreError, match=what) as caught:
        list(ds)
    assert f"record 0 of {path}" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 of another format"])
def test_a_foreign_or_empty_file_is_refused_when_it_is_loaded(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(StoreError, match=str(path)):
        TFRecordSerializer.load(path)


def test_a_missing_file_is_an_error_of_the_system(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        TFRecordSerializer.load(path)


def test_what_cannot_be_saved_is_named_and_leaves_nothing(path: Path) -> None:
    with pytest.raises(EncodeError, match="datapoint 1 cannot be saved: component 0") as caught:
        TFRecordSerializer.save(listed([1, "a.jpg"], [object(), "b.jpg"]), path)
    assert key_of(caught.value) == "b.jpg"
    with pytest.raises(EncodeError, match="datapoint 0 cannot be saved: component 'x'"):
        TFRecordSerializer.save(listed({"x": np.zeros((2, 2))}), path, record="example")
    with pytest.raises(DatapointError, match="yielded no datapoints"):
        TFRecordSerializer.save(listed(), path)
    with pytest.raises(ConfigError, match="'dfserve' or 'example'"):
        TFRecordSerializer.save(listed([1]), path, record="pickle")  # type: ignore[arg-type]  # the mistake that is tested
    assert not list(path.parent.iterdir())


def test_saving_again_replaces_the_file(path: Path) -> None:
    TFRecordSerializer.save(listed([1], [2]), path)
    TFRecordSerializer.save(listed([3]), path)
    assert list(TFRecordSerializer.load(path)) == [[3]]


def test_a_loaded_file_pickles(path: Path) -> None:
    TFRecordSerializer.save(listed([1], [2]), path)
    copy = pickle.loads(pickle.dumps(TFRecordSerializer.load(path, size=2)))
    assert (len(copy), list(copy)) == (2, [[1], [2]])


def test_without_the_package_for_the_checksums_the_command_that_installs_it_is_named(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "google_crc32c", None)
    with pytest.raises(ImportError, match=r"pip install 'dfserve\[formats\]'"):
        TFRecordSerializer.save(listed([1]), path)
    assert not path.exists()

"""Owns the tests of the public surface: names and signatures that users' programs rely on."""

from __future__ import annotations

import inspect

import pytest

import dfserve
import dfserve.dataflow

# Frozen: a name that goes breaks somebody's program, a name that comes is a promise.
NAMES = [
    "AddressInUse",
    "BlockTooLarge",
    "BrokerLost",
    "ConfigError",
    "DatapointError",
    "DfserveError",
    "DownloadError",
    "EncodeError",
    "EndpointError",
    "FactoryError",
    "KeysError",
    "LedgerError",
    "PipelineError",
    "RemoteDataZMQ",
    "RemoteError",
    "Starved",
    "StoreError",
    "TooManyErrors",
    "UnknownLengthError",
    "WireError",
    "WorkerLost",
    "__version__",
    "send_dataflow_zmq",
    "writable",
]
DATAFLOW_NAMES = [
    "AugmentImageComponent",
    "AugmentImageComponents",
    "AugmentImageCoordinates",
    "BatchData",
    "BatchDataByShape",
    "CacheData",
    "ConcatData",
    "DataFlow",
    "DataFromGenerator",
    "DataFromIterable",
    "DataFromList",
    "DataFromQueue",
    "DataFromShards",
    "FakeData",
    "FixedSizeData",
    "HDF5Data",
    "HDF5Serializer",
    "ImageFromFile",
    "JoinData",
    "LMDBData",
    "LMDBDataDecoder",
    "LMDBDataPoint",
    "LMDBSerializer",
    "LocallyShuffleData",
    "MapData",
    "MapDataComponent",
    "MultiProcessMapAndBatchData",
    "MultiProcessMapAndBatchDataZMQ",
    "MultiProcessMapData",
    "MultiProcessMapDataZMQ",
    "MultiProcessPrefetchData",
    "MultiProcessRunner",
    "MultiProcessRunnerZMQ",
    "MultiThreadMapData",
    "MultiThreadPrefetchData",
    "MultiThreadRunner",
    "NumpySerializer",
    "PrefetchData",
    "PrefetchDataZMQ",
    "PrintData",
    "ProxyDataFlow",
    "RNGDataFlow",
    "RandomChooseData",
    "RandomMixData",
    "RemoteDataZMQ",
    "RepeatedData",
    "RepeatedDataPoint",
    "SelectComponent",
    "ShardedDataFlow",
    "SkipErrors",
    "TFRecordSerializer",
    "TestDataSpeed",
    "WebDataset",
    "dataset",
    "fix_rng_seed",
    "get_rng",
    "imgaug",
    "send_dataflow_zmq",
]


def test_dfserve_offers_these_names_and_no_others() -> None:
    assert sorted(dfserve.__all__) == NAMES
    assert all(getattr(dfserve, name) is not None for name in NAMES)


def test_the_dataflow_library_offers_these_names_and_no_others() -> None:
    assert sorted(dfserve.dataflow.__all__) == DATAFLOW_NAMES
    assert all(getattr(dfserve.dataflow, name) is not None for name in DATAFLOW_NAMES)


@pytest.mark.parametrize("package", [dfserve, dfserve.dataflow])
def test_a_name_that_is_not_there_is_an_attribute_error_as_everywhere(package: object) -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        package.nonsense  # type: ignore[attr-defined]  # noqa: B018  # the mistake that is tested


def test_both_ends_are_the_same_in_both_places() -> None:
    assert dfserve.dataflow.RemoteDataZMQ is dfserve.RemoteDataZMQ
    assert dfserve.dataflow.send_dataflow_zmq is dfserve.send_dataflow_zmq


def positional(function: object) -> list[tuple[str, object]]:
    parameters = inspect.signature(function).parameters.values()  # type: ignore[arg-type]  # a class or a function
    return [(p.name, p.default) for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]


def keywords(function: object) -> dict[str, object]:
    parameters = inspect.signature(function).parameters.values()  # type: ignore[arg-type]  # a class or a function
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def test_send_begins_as_tensorpacks_does_and_all_else_is_by_keyword() -> None:
    empty = inspect.Parameter.empty
    assert positional(dfserve.send_dataflow_zmq) == [
        ("df", empty), ("addr", empty), ("hwm", 50), ("format", None), ("bind", False)
    ]  # fmt: skip
    assert keywords(dfserve.send_dataflow_zmq) == {
        "passes": None,
        "pipeline": "default",
        "queue_bytes": 1 << 30,
        "keys": None,
        "compression": None,
        "shared_memory": True,
    }


def test_remote_begins_as_tensorpacks_does_and_all_else_is_by_keyword() -> None:
    empty = inspect.Parameter.empty
    assert positional(dfserve.RemoteDataZMQ) == [("addr1", empty), ("addr2", None), ("hwm", 50), ("bind", True)]
    assert keywords(dfserve.RemoteDataZMQ) == {
        "timeout": 300.0,
        "min_producers": 1,
        "pipeline": "default",
        "group": "default",
        "lag": "wait",
        "on_error": "raise",
        "format": None,
        "queue_bytes": 1 << 30,
        "max_frame": 256 << 20,
        "metrics_port": None,
        "keys": None,
        "mode": "stream",
        "seed": 0,
        "shuffle": True,
        "order": None,
        "split_size": None,
        "rank": 0,
        "world": 1,
        "stride": None,
        "even": None,
        "batch_size": None,
        "drop_last": None,
        "collate": None,
        "resume": "checkpoint",
        "lease_time": 60.0,
    }

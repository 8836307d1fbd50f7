"""Owns what worker processes of the tests run: functions and DataFlows that every start method can pickle."""

from __future__ import annotations

import os
import random
import re
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from dfserve.dataflow import DataFlow, DataFromList, MapData, RNGDataFlow


class Odd:
    """An object that the wire's codec refuses."""

    def __init__(self, value: int) -> None:
        self.value = value


class Counted(DataFlow):
    """The numbers 0 .. size-1, as an array that holds each many times, without a length unless ``claimed``."""

    def __init__(self, size: int, shape: tuple[int, ...] = (4,), claimed: int | None = None) -> None:
        self.size_ = size
        self.shape = shape
        self.claimed = claimed

    def __len__(self) -> int:
        return super().__len__() if self.claimed is None else self.claimed

    def __iter__(self) -> Iterator[list[Any]]:
        for number in range(self.size_):
            yield [number, np.full(self.shape, number, np.int64)]


class Draws(RNGDataFlow):
    """One draw from each of the generators that a pipeline may use, and the process that drew."""

    def __len__(self) -> int:
        return 4

    def __iter__(self) -> Iterator[list[Any]]:
        while True:
            yield [os.getpid(), self.rng.randint(1 << 30), int(np.random.randint(1 << 30)), random.getrandbits(30)]


def plain(datapoint: Any) -> Any:
    return datapoint


def slow(datapoint: Any) -> Any:
    time.sleep(0.002)
    return datapoint


def odd(datapoint: list[Any]) -> list[Any]:
    return [Odd(datapoint[0]), "odd"]


def without_threes(datapoint: list[Any]) -> list[Any] | None:
    return None if datapoint[0] % 3 == 0 else datapoint


def failing_at_40(datapoint: list[Any]) -> list[Any]:
    if datapoint[0] == 40:
        raise ValueError("forty is not for us")
    return datapoint


def leaving_at_40(datapoint: list[Any]) -> list[Any]:
    if datapoint[0] == 40:
        raise SystemExit(7)
    return datapoint


def dying_at_40(datapoint: list[Any]) -> list[Any]:
    if datapoint[0] == 40:
        os.kill(os.getpid(), signal.SIGKILL)
    return datapoint


def hanging(datapoint: Any) -> Any:
    time.sleep(1000)
    return datapoint


def holding_the_lock(datapoint: Any) -> Any:
    re.match(r"(a+)+$", "a" * 60 + "b")  # takes longer than the universe, within one call of C
    return datapoint


def numbers(size: int = 100) -> DataFromList:
    return DataFromList([[number, np.full(4, number)] for number in range(size)], shuffle=False)


def failing_source() -> MapData:
    return MapData(numbers(), failing_at_40)


class OneWay(Exception):
    """An exception of the usual kind that pickles and does not come back."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(first)
        self.second = second


def one_way(datapoint: list[Any]) -> list[Any]:
    return [OneWay(datapoint[0], 1)]


class Gone:
    """An object that cannot be pickled, for a reason that looks like a broken pipe."""

    def __reduce__(self) -> Any:
        raise BrokenPipeError("gone")


def gone_at_40(datapoint: list[Any]) -> list[Any]:
    return [40, Gone()] if datapoint[0] == 40 else datapoint


class Bulk:
    """An object that fills any pipe."""

    def __init__(self) -> None:
        self.data = b"x" * 3_000_000


def bulky(datapoint: list[Any]) -> list[Any]:
    return [datapoint[0], Bulk()]


def slow_and_small(datapoint: list[Any]) -> list[Any]:
    time.sleep(0.05)
    return datapoint[:1]


def nested(datapoint: list[Any]) -> list[Any]:
    return [datapoint[0], [np.full(3, datapoint[0]), np.full(3000, datapoint[0])]]


class Unreachable(Counted):
    """A source that starts a thread and then fails, as a client of some server may."""

    def reset_state(self) -> None:
        threading.Thread(target=time.sleep, args=(1000,)).start()
        raise OSError("no such server")

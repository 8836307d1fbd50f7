"""Ctrl-C anywhere in a consumer's `next`: who loops again has every datapoint, once. A search through the places."""

from __future__ import annotations

import gc
import os
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

import dfserve
from dfserve import RemoteDataZMQ
from dfserve.dataflow import DataFromList
from dfserve.testing import LocalBroker

OURS = str(Path(dfserve.__file__).parent)  # not the environment, which may lie beside it, nor this file
N = 60
BROKERS = {"stream": 1, "two streams": 2}  # of the modes that are no epochs
# Places of each mode, evenly; DFSERVE_TEST_POINTS=100000 for all of them, in half an hour.
POINTS = int(os.environ.get("DFSERVE_TEST_POINTS", "12"))


class Interrupted(BaseException):
    """What a signal's handler raises."""


class Interrupter:
    """Raises once, at a place where Python may run a signal's handler: a function of ours begins, or one in C ends."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.passed = 0
        self.where = ""

    def __call__(self, frame: FrameType, event: str, _arg: Any) -> None:
        ours = frame.f_code.co_filename.startswith(OURS)
        if not ours or event not in ("call", "c_return"):
            return
        self.passed += 1
        if self.passed == self.at:
            self.where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
            raise Interrupted


def loop(data: Any, interrupter: Interrupter, got: list[int]) -> bool:
    """Take what is left; tells whether it was interrupted."""
    sys.setprofile(interrupter)
    try:
        for number, _ in data:
            got += np.atleast_1d(number).tolist()
    except Interrupted:
        return True
    finally:
        sys.setprofile(None)
    return False


def taken(mode: str, interrupter: Interrupter) -> list[int]:
    """Return what comes of N datapoints to a consumer that is interrupted once, and then loops again."""
    flow = [[number, np.zeros(20_000, np.uint8)] for number in range(N)]
    got: list[int] = []
    with ExitStack() as stack:
        brokers = [stack.enter_context(LocalBroker(queue_bytes=8 << 20)) for _ in range(BROKERS.get(mode, 1))]
        if mode in BROKERS:
            addresses = [broker.address for broker in brokers]
            data = stack.enter_context(RemoteDataZMQ(addresses, bind=False, timeout=30))
            data.reset_state()
            for number, broker in enumerate(brokers):
                send = {"target": broker.send, "args": (flow[number :: len(brokers)],), "daemon": True}
                sending = threading.Thread(**send, kwargs={"shared_memory": False})
                sending.start()
                stack.callback(sending.join, 60)
        else:
            order, size = ("strict", 7) if mode == "batches" else (mode, None)
            options = {"mode": "epochs", "order": order, "split_size": 4, "batch_size": size}
            data = stack.enter_context(brokers[0].consumer(**options))
            stack.enter_context(brokers[0].serving(DataFromList(flow, shuffle=False), shared_memory=False))
            data.reset_state()
        if loop(data, interrupter, got) and (len(got) < N or mode in BROKERS):
            loop(data, interrupter, got)
        assert [broker.metrics()["dfserve_bad_messages_total"] for broker in brokers] == [0] * len(brokers)
    return got


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # in a finaliser Python only prints it
@pytest.mark.parametrize("mode", ["stream", "two streams", "strict", "arrival", "batches"])
def test_a_loop_that_was_interrupted_anywhere_goes_on_with_nothing_lost_and_nothing_twice(mode: str) -> None:
    gc.collect()  # else what earlier tests left may be given back in a loop, and interrupted in that
    counting = Interrupter(at=0)
    assert sorted(taken(mode, counting)) == list(range(N))
    for at in range(1, counting.passed, max(1, counting.passed // POINTS)):
        interrupter = Interrupter(at)
        assert sorted(taken(mode, interrupter)) == list(range(N)), f"interrupted at {interrupter.where}"

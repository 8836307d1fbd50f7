"""Ctrl-C anywhere in a consumer's `next`: who loops again has every datapoint, once. A search through the places."""

from __future__ import annotations

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
from dfserve.dataflow import DataFromList
from dfserve.testing import LocalBroker

OURS = str(Path(dfserve.__file__).parent)  # not the environment, which may lie beside it, nor this file
N = 60
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
            got.append(number)
    except Interrupted:
        return True
    finally:
        sys.setprofile(None)
    return False


def taken(mode: str, interrupter: Interrupter) -> list[int]:
    """Return what comes of N datapoints to a consumer that is interrupted once, and then loops again."""
    flow = [[number, np.zeros(20_000, np.uint8)] for number in range(N)]
    options = {} if mode == "stream" else {"mode": "epochs", "order": mode, "split_size": 4}
    got: list[int] = []
    with LocalBroker(queue_bytes=8 << 20) as broker, ExitStack() as stack:
        data = stack.enter_context(broker.consumer(**options))
        sending = threading.Thread(target=broker.send, args=(flow,), kwargs={"shared_memory": False}, daemon=True)
        if mode == "stream":
            data.reset_state()
            sending.start()
        else:
            stack.enter_context(broker.serving(DataFromList(flow, shuffle=False), shared_memory=False))
            data.reset_state()
        if loop(data, interrupter, got) and (len(got) < N or mode == "stream"):
            loop(data, interrupter, got)
        if mode == "stream":
            sending.join(60)
        assert broker.metrics()["dfserve_bad_messages_total"] == 0
    return got


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # in a finaliser Python only prints it
@pytest.mark.parametrize("mode", ["stream", "strict", "arrival"])
def test_a_loop_that_was_interrupted_anywhere_goes_on_with_nothing_lost_and_nothing_twice(mode: str) -> None:
    counting = Interrupter(at=0)
    assert sorted(taken(mode, counting)) == list(range(N))
    for at in range(1, counting.passed, max(1, counting.passed // POINTS)):
        interrupter = Interrupter(at)
        assert sorted(taken(mode, interrupter)) == list(range(N)), f"interrupted at {interrupter.where}"

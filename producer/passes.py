"""Owns running a pipeline for a number of passes into a sender, and reporting what it raises to the consumers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator
from typing import Any

from dfserve.dataflow.afresh import settle_torch
from dfserve.dataflow.base import DataFlow
from dfserve.dataflow.failures import key_of
from dfserve.errors import BlockTooLarge, DfserveError, EncodeError, FactoryError, PipelineError
from dfserve.producer.bell import Bell
from dfserve.producer.foreign import to_arrays
from dfserve.producer.reports import fail_message, traceback_of
from dfserve.producer.sender import Interrupted, Sender

log = logging.getLogger("dfserve.producer")

REPORT = 10.0  # seconds for a failing worker to tell the broker why


class PassCounter:
    """Counts what a worker has produced: passes completed, datapoints in all, and those before the present pass."""

    def __init__(self) -> None:
        self.passes = 0
        self.datapoints = 0
        self.before = 0

    @property
    def position(self) -> int:
        """Datapoints in the present pass."""
        return self.datapoints - self.before


def send_passes(
    build: Callable[[], DataFlow],
    sender: Sender,
    passes: int | None,
    counter: PassCounter,
    bell: Bell,
    blamed: type[BaseException] = Exception,
) -> Generator[None, None, None]:
    """Send ``passes`` passes of a pipeline (None: for ever), pausing between two datapoints when the bell rings.

    It pauses too when a datapoint finds no room, which is sent when it goes on. To stop it, close it. What the
    pipeline raises is reported to the consumers, after everything that came before it, and raised here; ``blamed``: if
    it is one of these, see `SplitRunner`.

    Raises:
        FactoryError: a whole pass yields nothing, so that repeating it would never send anything.
        Exception: whatever the pipeline raises.
    """
    try:
        df = build()
        df.reset_state()
        settle_torch()
        short_way = sender.short_way
        while passes is None or counter.passes < passes:
            counter.before = counter.datapoints
            for datapoint in df:
                if not short_way.take(datapoint):
                    arrays = to_arrays(datapoint)
                    while not _sent(sender, arrays):
                        yield
                counter.datapoints += 1
                if bell.rung:
                    yield
            if counter.position == 0:
                _note_empty_pass(counter, passes)
            if bell.rung:
                yield
            counter.passes += 1
        sender.finish()
    except blamed as error:
        if not _closed(error):
            _report(sender, error, counter, fatal=passes is not None)
        raise


def _sent(sender: Sender, arrays: Any) -> bool:
    """Send a datapoint, if there is room."""
    try:
        sender.send(arrays)
    except Interrupted:
        return False
    return True


def _closed(error: BaseException) -> bool:
    """Tell whether `send_passes` was closed: that raises at its own ``yield``, and a pipeline in frames below it."""
    return isinstance(error, GeneratorExit) and error.__traceback__ is not None and error.__traceback__.tb_next is None


def _note_empty_pass(counter: PassCounter, passes: int | None) -> None:
    if passes is None:
        raise FactoryError(_nothing(counter))
    log.warning("%s", _nothing(counter))


def _nothing(counter: PassCounter) -> str:
    if counter.passes:
        return (
            f"pass {counter.passes + 1} of the pipeline yielded nothing: it can be iterated only once. "
            "Return an object whose __iter__ starts afresh (a DataFlow, a list, a class), not a generator"
        )
    return "the pipeline yielded no datapoint in its first pass; is its folder empty, or does a filter drop everything?"


def _report(sender: Sender, error: BaseException, counter: PassCounter, *, fatal: bool) -> None:
    """Tell the consumers. If even that fails, the error that is being raised matters more."""
    key = key_of(error, f"item {counter.position}")
    kind = "encode" if isinstance(error, (EncodeError, BlockTooLarge)) else "pipeline"
    ours = isinstance(error, DfserveError) and not isinstance(error, PipelineError)  # its message says it all
    what = (kind, type(error).__name__, key, counter.datapoints, error)
    log.error("%s raised %s at %s after %d datapoints: %s", *what, exc_info=None if ours else error)
    sender.interrupt()  # this worker makes no lease any more
    try:
        sender.fail(fail_message(error, key, traceback_of(error), fatal=fatal))
        sender.drain(time.monotonic() + REPORT)
    except Exception as second:  # noqa: BLE001  # see above
        log.error("could not report it to the broker: %s", second)

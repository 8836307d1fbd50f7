"""Owns running a pipeline for a number of passes into a sender, and reporting what it raises to the consumers."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable

from dfserve.dataflow.base import DataFlow
from dfserve.dataflow.failures import key_of
from dfserve.errors import BlockTooLarge, EncodeError, FactoryError
from dfserve.producer.foreign import to_arrays
from dfserve.producer.sender import Interrupted, Sender, fail_message

log = logging.getLogger("dfserve.producer")

REPORT = 10.0  # seconds for a failing worker to tell the broker why


class PassCounter:
    """Counts what a worker has produced: passes completed, datapoints in all, and in the present pass."""

    def __init__(self) -> None:
        self.passes = 0
        self.datapoints = 0
        self.position = 0


def run_passes(
    df: DataFlow,
    sender: Sender,
    passes: int | None,
    stopped: Callable[[], bool] = lambda: False,
    counter: PassCounter | None = None,
) -> PassCounter:
    """Send ``passes`` passes of a pipeline (None: for ever), until told to stop between two datapoints.

    What the pipeline raises is reported to the consumers, after everything that came before it, and raised here.

    Raises:
        FactoryError: a whole pass yields nothing, so that repeating it would never send anything.
        Exception: whatever the pipeline raises.
    """
    counter = counter or PassCounter()
    try:
        df.reset_state()
        while passes is None or counter.passes < passes:
            if not _run_pass(df, sender, counter, stopped):
                return counter
            if counter.position == 0 and passes is None:
                raise FactoryError(_nothing(counter))
            counter.passes += 1
        sender.finish()
    except Interrupted:
        return counter
    except Exception as error:
        _report(sender, error, counter, fatal=passes is not None)
        raise
    return counter


def _run_pass(df: DataFlow, sender: Sender, counter: PassCounter, stopped: Callable[[], bool]) -> bool:
    counter.position = 0
    for datapoint in df:
        if stopped():
            return False
        sender.send(to_arrays(datapoint))
        counter.position += 1
        counter.datapoints += 1
    return not stopped()


def _nothing(counter: PassCounter) -> str:
    if counter.passes:
        return (
            f"pass {counter.passes + 1} of the pipeline yielded nothing: it can be iterated only once. "
            "Return an object whose __iter__ starts afresh (a DataFlow, a list, a class), not a generator"
        )
    return "the pipeline yielded no datapoint in its first pass; is its folder empty, or does a filter drop everything?"


def _report(sender: Sender, error: Exception, counter: PassCounter, *, fatal: bool) -> None:
    """Tell the consumers. If even that fails, the error that is being raised matters more."""
    key = key_of(error, f"item {counter.position}")
    kind = "encode" if isinstance(error, (EncodeError, BlockTooLarge)) else "pipeline"
    log.error("%s raised %s at %s after %d datapoints: %s", kind, type(error).__name__, key, counter.datapoints, error)
    try:
        sender.fail(fail_message(error, key, _traceback(error), fatal=fatal))
        sender.drain(time.monotonic() + REPORT)
    except Exception as second:  # noqa: BLE001  # see above
        log.error("could not report it to the broker: %s", second)


def _traceback(error: BaseException) -> str:
    return "".join(traceback.format_exception(type(error), error, error.__traceback__)).rstrip()

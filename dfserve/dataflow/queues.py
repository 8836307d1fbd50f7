"""Owns the source that reads a queue, and waiting on queues of every kind in a way that can be given up."""

from __future__ import annotations

import inspect
import logging
import queue as queues
import time
from collections.abc import Callable, Iterator
from threading import Thread
from typing import Any

from dfserve.dataflow.base import DataFlow, Datapoint
from dfserve.errors import ConfigError

log = logging.getLogger("dfserve.dataflow")

_LOOK = 0.2  # seconds between looks at whether the wait is still wanted: short for a person, long for a processor
_LONG = 60.0  # seconds without a datapoint after which the log says so, and again after each further such time
_ENDED = object()
_Take = Callable[[float], Any]


class _NeverRaisedError(Exception):
    """Stands for queue.ShutDown before Python 3.13."""


_ShutDown: type[Exception] = getattr(queues, "ShutDown", _NeverRaisedError)


class DataFromQueue(DataFlow):
    """The datapoints that somebody puts into a queue, as they come; ``len()`` is unknown.

    A pass does not end by itself. It ends after ``stop()``, which any thread may call and which leaves in the queue
    what is in it; or, from Python 3.13 on, after the queue's own ``shutdown()``, when the queue is empty. While the
    queue stays empty, a warning in the log names it once a minute: whoever fills it may be gone. Ctrl-C ends a wait
    too, as always. To end after a number of datapoints, take that many: ``FixedSizeData(DataFromQueue(queue), n)``.
    """

    def __init__(self, queue: Any) -> None:
        """Read ``queue``.

        Args:
            queue: an object whose ``get()`` blocks until there is a datapoint, and returns it: ``queue.Queue``,
                ``multiprocessing.Queue``, a manager's. If ``get`` takes no ``timeout``, as that of
                ``multiprocessing.SimpleQueue``, it is called in a thread of its own, a daemon.

        Raises:
            ConfigError: ``queue`` has no ``get()``, or one that must be awaited.
        """
        get = getattr(queue, "get", None)
        if not callable(get) or inspect.iscoroutinefunction(get):
            raise ConfigError(f"an object of type {type(queue).__name__} is no queue: it needs a get() that blocks")
        self.queue = queue
        self._stopped = False
        self._left: list[_Fetcher] = []  # those still waiting for an answer when their pass was given up

    def stop(self) -> None:
        """End all passes over this object within a fraction of a second, and those to come at once."""
        self._stopped = True

    def reset_state(self) -> None:
        self._left = []  # after a fork their threads are the parent's

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_left": []}

    def __iter__(self) -> Iterator[Datapoint]:
        if _takes_timeout(self.queue.get):
            yield from self._pass(lambda seconds: self.queue.get(timeout=seconds))
            return
        fetcher = self._left.pop() if self._left else _Fetcher(self.queue.get)
        try:
            yield from self._pass(fetcher.take)
        finally:
            if not fetcher.dismiss():
                self._left.append(fetcher)

    def _pass(self, take: _Take) -> Iterator[Datapoint]:
        while (datapoint := self._wait(take)) is not _ENDED:
            yield datapoint

    def _wait(self, take: _Take) -> Any:
        began = told = time.monotonic()
        while not self._stopped:
            try:
                return take(_LOOK)
            except queues.Empty:
                now = time.monotonic()
            except _ShutDown:
                break
            if now - told >= _LONG:
                told = now
                log.warning(
                    "DataFromQueue has waited for %d s at the empty queue %r: is what fills it still there?"
                    " stop() ends the wait",
                    now - began,
                    self.queue,
                )
        return _ENDED


class _Fetcher:
    """A thread that calls a get() without a timeout, once for each time it is asked, so that nothing is lost."""

    def __init__(self, get: Callable[[], Any]) -> None:
        self._requests: queues.SimpleQueue[bool] = queues.SimpleQueue()
        self._answers: queues.SimpleQueue[tuple[Any, BaseException | None]] = queues.SimpleQueue()
        self._asked = False
        Thread(target=_fetch, args=(get, self._requests, self._answers), daemon=True, name="DataFromQueue").start()

    def take(self, timeout: float) -> Any:
        """Return the next datapoint; raises queue.Empty after ``timeout`` seconds, or what get() raised."""
        if not self._asked:
            self._asked = True
            self._requests.put(True)
        value, error = self._answers.get(timeout=timeout)
        self._asked = False
        if error is not None:
            raise error
        return value

    def dismiss(self) -> bool:
        """End the thread, unless it still waits in get(): then it must be kept, with what it is going to bring."""
        if not self._asked:
            self._requests.put(False)
        return not self._asked


def _fetch(get: Callable[[], Any], requests: queues.SimpleQueue[bool], answers: queues.SimpleQueue[Any]) -> None:
    while requests.get():
        answers.put(_outcome(get))


def _outcome(get: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    try:
        return get(), None
    except BaseException as error:  # noqa: BLE001  # whatever it is, the one who asked raises it
        return None, error


def _takes_timeout(get: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(get).parameters.values()
    except (TypeError, ValueError):  # a compiled function may not say
        return False
    return any(p.name == "timeout" or p.kind is p.VAR_KEYWORD for p in parameters)

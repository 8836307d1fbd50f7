"""Owns the worker processes of one operator: starting them alike, waiting for whichever speaks, and ending them all."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import selectors
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from multiprocessing import reduction, util
from typing import Any

from dfserve.dataflow.parallel import inheritance
from dfserve.dataflow.parallel.link import Link
from dfserve.dataflow.parallel.messages import WAITING, Sent
from dfserve.dataflow.rng import worker_places
from dfserve.deathbed import starter
from dfserve.errors import ConfigError, DfserveError

log = logging.getLogger("dfserve.dataflow")

PATIENCE = 60.0  # seconds of silence after which the log says who is waited for
KILL_AFTER = 3.0  # seconds that workers have to end by themselves: their own grace is 1
_EXIT_PRIORITY = 10  # multiprocessing joins children at exit; what has a priority is called before


# The far ends of what leads to one worker; leaving the context closes this process's copies.
Way = AbstractContextManager[tuple[Any, ...]]


class Crew:
    """Workers that run the same function.

    Attributes:
        operator: the name of what they work for.
        links: one for each.
        pid: of the process that started them.
    """

    def __init__(
        self,
        operator: str,
        count: int,
        run: Callable[..., None],
        args: tuple[Any, ...],
        window: int | None = None,
        ways: Callable[[], Way] | None = None,
    ) -> None:
        """Start workers as ``multiprocessing`` is set to: by fork, forkserver or spawn.

        Args:
            operator: the name for messages.
            count: workers.
            run: what each does: ``run(outlet, leash, *args, *ends)``; see ``worker.work``.
            args: the user's part of it.
            window: datapoints that a worker may be ahead.
            ways: makes what one worker gets besides, just before it starts.

        Raises:
            ConfigError: the arguments cannot be pickled, and must be; or this process may have no children.
        """
        self.operator = operator
        self.links: list[Link] = []
        self.pid = os.getpid()
        self._ready: list[Link] = []
        if multiprocessing.current_process().daemon:
            raise ConfigError(
                f"{operator} cannot start workers in a multiprocessing.Process(daemon=True), which may have no"
                " children: make it daemon=False"
            )
        context: Any = multiprocessing.get_context()
        if context.get_start_method() != "fork":
            _require_pickling(operator, context.get_start_method(), args)
        self._selector = selectors.DefaultSelector()
        self._closing = util.Finalize(self, _end, (self.links, self._selector), exitpriority=_EXIT_PRIORITY)
        try:
            for number, place in enumerate(worker_places(count)):
                name = f"{operator} worker {number} of {count}"
                with inheritance.starting, contextlib.ExitStack() as stack:
                    # Closed here before the next worker is forked, which would hide by its copy that this one died.
                    ends = stack.enter_context(ways()) if ways else ()
                    self.links.append(
                        Link(context, name, window, (place, starter(context.get_start_method()), run, *args, *ends))
                    )
                self._selector.register(self.links[-1].pipe, selectors.EVENT_READ, self.links[-1])
        except BaseException:
            self.close()
            raise

    @property
    def whole(self) -> bool:
        """Whether all workers are there, as far as is known."""
        return bool(self._closing.still_active())

    def receive(self) -> tuple[Link, Sent]:
        """Return the next message of any worker, and whose it is; wait for it as long as all workers live.

        Raises:
            WorkerLost: a worker ended.
        """
        while True:
            self._wait()
            link = self._ready.pop()
            sent = link.receive()
            if sent is None:
                error = link.lost()
                self.close()
                raise error
            if sent.kind != WAITING:
                return link, sent

    def _wait(self) -> None:
        if self.poll():
            return
        started = said = time.monotonic()
        while not self.poll(PATIENCE):
            now = time.monotonic()
            if now - said >= PATIENCE:
                said = now
                pids = ", ".join(str(link.process.pid) for link in self.links)
                log.warning("%s has waited %.0f s for its workers (pids %s)", self.operator, now - started, pids)

    def poll(self, timeout: float = 0.0) -> bool:
        """Tell whether ``receive()`` would not wait, or not any more after ``timeout`` seconds."""
        if not self._ready:
            for link in self.links:
                link.words.retry()
            self._ready = [key.data for key, _ in self._selector.select(timeout)]
        return bool(self._ready)

    @contextmanager
    def whole_steps(self) -> Iterator[None]:
        """End the workers if what is done here breaks off in the middle, by Ctrl-C or an alarm: the books are wrong."""
        try:
            yield
        except DfserveError:
            raise
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the workers, and wait until they have ended."""
        self._closing()


def _require_pickling(operator: str, method: str, arguments: tuple[Any, ...]) -> None:
    # Found out here, not in start(): by then there is a process, which would print a traceback of its own.
    try:
        reduction.ForkingPickler.dumps(arguments)
    except Exception as error:
        raise ConfigError(
            f"{operator} cannot send its pipeline to processes that are started by {method!r}: {error}. Use functions"
            " of a module in place of lambdas, or call multiprocessing.set_start_method('fork') first"
        ) from error


def _end(links: list[Link], selector: selectors.BaseSelector) -> None:
    selector.close()
    for link in links:
        link.hang_up()
    deadline = time.monotonic() + KILL_AFTER
    for link in links:
        link.process.join(max(0.0, deadline - time.monotonic()))
        if link.process.exitcode is None:
            link.process.kill()
            link.process.join()

"""Owns what a parallel map asks of its workers, be they threads or processes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from dfserve.dataflow.parallel.window import Outcome


class Pool(ABC):
    """Workers that apply a function to datapoints. Used by one thread of one process, the one that opened it.

    It must not refer to the operator that opened it, or the operator would never be collected. Every ticket gets
    exactly one outcome. What cannot even be sent to a worker is an outcome with an error.
    """

    @abstractmethod
    def submit(self, ticket: int, datapoint: Any) -> None:
        """Take a datapoint in, without waiting for anything. Tickets increase by one."""

    def flush(self) -> None:  # noqa: B027 (a pool that sends one by one has nothing to do)
        """Send what submit() gathered; called before the caller waits."""

    @abstractmethod
    def collect(self, wait: bool) -> list[Outcome]:
        """Return the outcomes that are there.

        Args:
            wait: until there is one at least. Called only while one is owed.

        Raises:
            WorkerLost: a worker is gone, so that an outcome will never come. The pool is closed afterwards, whatever
                is raised here.
        """

    def forget(self, before: int) -> None:  # noqa: B027 (to do the work all the same is right, only slower)
        """Note that outcomes below ``before`` are of no interest: work may be skipped, the outcomes must come."""

    @abstractmethod
    def close(self) -> None:
        """End the workers. May be called again, in any thread, at any point of the program, and at its end."""

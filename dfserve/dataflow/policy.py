"""Owns the one policy for items that fail, used by every operator and by consumers: raise, or skip within limits."""

from __future__ import annotations

import json
import logging
import os
import time
import traceback
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dfserve.dataflow.failures import key_of, text_of
from dfserve.errors import ConfigError, TooManyErrors

log = logging.getLogger("dfserve.dataflow")

RECENT = 1000  # items: what a rate is measured over, so that a disk which goes bad late is noticed soon
FEW = 100  # items: below so many a rate says nothing, and the limit in a row is the one that protects
_LOGGED = 10  # failures told one by one; then every hundredth, so that a bad disk does not fill the log's


@dataclass(frozen=True)
class SkipErrors:
    """``on_error=SkipErrors(...)``: leave out items that fail, within limits. ``on_error="skip"`` has the defaults.

    Passing a limit raises TooManyErrors, because a run that silently skips most of its data trains on the rest.

    Attributes:
        total: failures in the whole life of an operator. None: any number, since a large data set has many bad files.
        rate: failures among the last 1000 items, as a share, once there were 100. 0.1: more is no longer bad luck.
        in_a_row: failures with nothing good between them: a server or disk that is gone. 100.
        quarantine: a file to which every skipped item is appended as a line of JSON: ``time`` (seconds since 1970),
            ``operator``, ``key``, ``error``, ``traceback``. Processes may share it. None: only the log tells.
    """

    total: int | None = None
    rate: float | None = 0.1
    in_a_row: int | None = 100
    quarantine: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if self.rate is not None and not 0 <= self.rate <= 1:
            raise ConfigError(f"SkipErrors(rate={self.rate}): a rate is a share, from 0 to 1")
        for name in ("total", "in_a_row"):
            limit = getattr(self, name)
            if limit is not None and limit < 0:
                raise ConfigError(f"SkipErrors({name}={limit}): a number of failures is not negative; None: no limit")


OnError = Literal["raise", "skip"] | SkipErrors


def skipping(on_error: OnError) -> SkipErrors | None:
    """Return the limits that ``on_error`` names, or None for ``"raise"``.

    Raises:
        ConfigError: it is neither ``"raise"``, ``"skip"`` nor a SkipErrors.
    """
    if isinstance(on_error, SkipErrors):
        return on_error
    if on_error == "raise":
        return None
    if on_error == "skip":
        return SkipErrors()
    raise ConfigError(f"on_error is {on_error!r}; it is 'raise', 'skip', or SkipErrors(total=..., rate=...)")


class Tally:
    """What became of an operator's items so far, held against its policy. Not for several threads at once.

    Attributes:
        passed: items that went well.
        failed: items that were skipped.
    """

    def __init__(self, on_error: OnError, operator: str) -> None:
        """Begin at zero; ``operator`` is the name in messages and in the quarantine file."""
        self._limits = skipping(on_error)
        self._operator = operator
        self.passed = 0
        self.failed = 0
        self._passed_at_last = 0  # `passed` when the last item failed
        self._row = 0
        self._when: deque[int] = deque()  # for each recent failure, which item it was

    def good(self, count: int = 1) -> None:
        """Count items that went well."""
        self.passed += count

    def bad(self, error: Exception, trace: str = "") -> None:
        """Count an item that failed, and return if it is to be skipped.

        Args:
            error: what it raised; its key is looked up with ``key_of``.
            trace: the traceback as text, where it is not that of ``error``.

        Raises:
            Exception: ``error`` itself, if the policy is to raise.
            TooManyErrors: a limit is passed; ``error`` is its cause.
        """
        limits = self._limits
        if limits is None:
            raise error
        self._count()
        key = key_of(error, "unknown")
        if limits.quarantine is not None:
            self._quarantine(Path(limits.quarantine), error, key, trace)
        if self.failed <= _LOGGED or self.failed % 100 == 0:
            log.warning(
                "%s skipped item %s (%d so far): %s",
                self._operator,
                _printable(key.removeprefix("item ")),  # that of a place in a pass says so itself
                self.failed,
                _printable(_line(error)),
            )
        if (passed := self._passed_limit(limits)) is not None:
            raise TooManyErrors(
                f"{self._operator} skipped {self.failed} of {self.passed + self.failed} items, {passed}. The last one,"
                f" {key}: {_line(error)}"
            ) from error

    def _count(self) -> None:
        self._row = self._row + 1 if self.passed == self._passed_at_last else 1
        self._passed_at_last = self.passed
        self.failed += 1
        seen = self.passed + self.failed
        self._when.append(seen)
        while self._when[0] <= seen - RECENT:
            self._when.popleft()

    def _passed_limit(self, limits: SkipErrors) -> str | None:
        if limits.total is not None and self.failed > limits.total:
            return f"more than total={limits.total}"
        if limits.in_a_row is not None and self._row > limits.in_a_row:
            return f"{self._row} without a good one between, more than in_a_row={limits.in_a_row}"
        seen = min(RECENT, self.passed + self.failed)
        if limits.rate is not None and seen >= FEW and len(self._when) > limits.rate * seen:
            return f"{len(self._when)} of the last {seen}, more than rate={limits.rate}"
        return None

    def _quarantine(self, path: Path, error: Exception, key: str, trace: str) -> None:
        line: dict[str, Any] = {
            "time": round(time.time(), 3),
            "operator": self._operator,
            "key": key,
            "error": _line(error),
            "traceback": trace or "".join(traceback.format_exception(error)),
        }
        # One write in append mode: lines of several processes do not mix.
        with path.open("ab", buffering=0) as file:
            file.write(json.dumps(line).encode() + b"\n")


def _line(error: Exception) -> str:
    """Return what happened in one line: an error of another process has its traceback in its text."""
    return f"{type(error).__name__}: {text_of(error).partition(chr(10))[0]}"


def _printable(text: str) -> str:
    """Return text that any log can take: a file name may hold bytes that are no UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()

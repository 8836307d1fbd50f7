"""Owns how sizes, durations, rates and worker counts are written on the command line."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, ClassVar

import click

if TYPE_CHECKING:
    _Type = click.ParamType[Any]
else:
    _Type = click.ParamType  # generic since click 8.4 only

UNITS: dict[str, float] = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KIB": 1 << 10,
    "MIB": 1 << 20,
    "GIB": 1 << 30,
}
BITS = {"BIT": 1.0, "KBIT": 1e3, "MBIT": 1e6, "GBIT": 1e9}
THOUSANDS = {"": 1.0, "K": 1e3, "M": 1e6}
SECONDS = {"": 1.0, "MS": 0.001, "S": 1.0, "M": 60.0, "H": 3600.0}


class _Unit(_Type):
    """A number with a unit behind it."""

    units: ClassVar[dict[str, float]]
    example: ClassVar[str]
    positive: ClassVar[bool] = False

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the value in the base unit."""
        if not isinstance(value, str):
            return value
        found = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([A-Za-z]*)\s*", value)
        if found is None or found[2].upper() not in self.units:
            self.fail(f"{value!r} is not a {self.name}; write it like {self.example}", param, ctx)
        number = float(found[1]) * self.units[found[2].upper()]
        if self.positive and not number:
            self.fail(f"a {self.name} is above 0", param, ctx)
        return self._number(number)

    def _number(self, number: float) -> Any:
        return number


class Size(_Unit):
    """Bytes: 1GiB, 512MiB, 64MB or a plain number."""

    name = "size"
    units: ClassVar[dict[str, float]] = UNITS
    example = "1GiB, 512MiB or 64MB"

    def _number(self, number: float) -> int:
        return int(number)


class Duration(_Unit):
    """Seconds: 10s, 2m, 500ms or a plain number."""

    name = "duration"
    units: ClassVar[dict[str, float]] = SECONDS
    example = "10s, 2m or 500ms"


class Rate(_Unit):
    """Datapoints per second: a plain number, or 2.5k."""

    name = "rate"
    units: ClassVar[dict[str, float]] = THOUSANDS
    example = "2500 or 2.5k"
    positive = True


class Bitrate(_Unit):
    """Bits per second of a network link: 1Gbit or 100Mbit."""

    name = "bitrate"
    units: ClassVar[dict[str, float]] = BITS
    example = "1Gbit or 100Mbit"
    positive = True


class Workers(_Type):
    """A number of worker processes, or `auto`: one for each core that this process may use."""

    name = "workers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number."""
        if value == "auto":
            return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        try:
            count = int(value)
        except (TypeError, ValueError):
            count = 0
        if count < 1:
            self.fail(f"{value!r} is not a number of workers; give one from 1, or auto", param, ctx)
        return count


SIZE, DURATION, RATE, BITRATE, WORKERS = Size(), Duration(), Rate(), Bitrate(), Workers()


def human_bytes(count: float) -> str:
    """Write a number of bytes for people: 1.5 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError

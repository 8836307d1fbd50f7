"""Owns the figures that are shown: medians with their spread, ratios round by round, as a markdown table."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from statistics import median

from benchmarks.cases import CASES
from benchmarks.rounds import Figures, Results, rate
from dfserve.version import __version__

NAMES = {"ours": "dfserve", "rival_tensorpack": "tensorpack", "rival_raw": "bare pyzmq"}
PACKAGES = ("dfserve", "tensorpack", "pyzmq", "numpy", "msgpack")
HEAD = (
    "| case | side | datapoints/s | min to max | MB/s | consumer CPU s/GB | with broker | x tensorpack | min to max "
    "| aim |\n|---|---|---:|---:|---:|---:|---:|---:|---:|---:|"
)


def environment() -> dict[str, str]:
    """Return the versions, and the cores that this process may use."""
    import zmq

    versions = {"python": platform.python_version(), "libzmq": zmq.zmq_version()}
    versions |= {package: version_of(package) for package in PACKAGES}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {**versions, "cores": str(cores), "machine": f"{platform.system()} {platform.machine()}"}


def version_of(package: str) -> str:
    """Return the version that is installed; dfserve may also be used from its source folder."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed" if package != "dfserve" else __version__


def ratios(ours: list[Figures], theirs: list[Figures]) -> list[float]:
    """Return the ratio of the rates in each round: neighbours in time, so that a noisy minute hits both."""
    return [rate(a) / rate(b) for a, b in zip(ours, theirs, strict=True)]


def row(case: str, side: str, rounds: dict[str, list[Figures]]) -> str:
    """Return one line of the table."""
    figures = rounds[side]
    rates = [rate(one) for one in figures]
    megabytes = median(one["bytes"] / one["seconds"] / 1e6 for one in figures)
    own = median(one["cpu_s"] / one["bytes"] * 1e9 for one in figures)
    both = median((one["cpu_s"] + one["broker_cpu_s"]) / one["bytes"] * 1e9 for one in figures)
    ratio = spread = ""
    rival = rounds.get("rival_tensorpack")
    if rival is not None and side != "rival_tensorpack":
        found = ratios(figures, rival)
        ratio, spread = f"{median(found):.2f}", f"{min(found):.2f} to {max(found):.2f}"
    aim = f"≥ {CASES[case].aim}" if side == "ours" else ""
    return (
        f"| {CASES[case].title} | {NAMES[side]} | {median(rates):,.0f} | {min(rates):,.0f} to {max(rates):,.0f} "
        f"| {megabytes:,.0f} | {own:.2f} | {both:.2f} | {ratio} | {spread} | {aim} |"
    )


def markdown(results: Results) -> str:
    """Return the whole table."""
    return "\n".join([HEAD, *(row(case, side, rounds) for case, rounds in results.items() for side in rounds)])

"""Owns what a run says of the machine and of the packages on it."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

from dfserve.version import __version__

PACKAGES = (
    "dfserve", "tensorpack", "torch", "pyzmq", "numpy", "msgpack", "opencv-python-headless", "lmdb", "urllib3",
)  # fmt: skip


def environment() -> dict[str, str]:
    """Return the versions, and the cores that this process may use."""
    import zmq

    versions = {"python": platform.python_version(), "libzmq": zmq.zmq_version()}
    versions |= {package: version_of(package) for package in PACKAGES}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {**versions, "cores": str(cores), "machine": f"{platform.system()} {platform.machine()}", "cpu": cpu()}


def cpu() -> str:
    """Return what the processor is called, where Linux says so."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def version_of(package: str) -> str:
    """Return the version that is installed; dfserve may also be used from its source folder."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed" if package != "dfserve" else __version__

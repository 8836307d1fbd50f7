"""Owns the rivals' environments: one for each, made on demand in a folder that later runs find again.

A rival pins what it needs (NumPy, protobuf, gRPC), so none of them shares an environment with dfserve or with another.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

# PyTorch's wheels on PyPI bring gigabytes of CUDA along; those of this index do not.
_TORCH_INDEX = ("--no-deps", "--index-url", "https://download.pytorch.org/whl/cpu", "--retries", "1")
_OURS = ("numpy", "psutil")  # what a side's own processes import beside the rival
_STAMP = "complete"  # a file: a half-made environment must not look finished
_TOLD = 300  # characters of pip's last words


@dataclass(frozen=True)
class Rival:
    """One rival.

    Attributes:
        packages: what pip is asked for.
        module: is imported to see whether it works here.
        package: whose version is shown.
        smaller: options for an attempt to get the packages from elsewhere first, where they are smaller.
    """

    packages: tuple[str, ...]
    module: str
    package: str
    smaller: tuple[str, ...] = ()


RIVALS = {
    "tensorflow": Rival(("tensorflow-cpu",), "tensorflow", "tensorflow-cpu"),
    "ray": Rival(("ray[data]",), "ray.data", "ray"),
    "torch": Rival(("torch",), "torch.utils.data", "torch", _TORCH_INDEX),
}


class NotInstalled(RuntimeError):  # noqa: N818  # says what is
    """A rival cannot be used here; the message says why."""


def default_folder() -> Path:
    """Return ``dfserve/benchmarks`` in the user's cache folder: XDG_CACHE_HOME, or ``~/.cache``."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (cache if cache.is_absolute() else Path.home() / ".cache") / "dfserve" / "benchmarks"


class Environments:
    """The rivals' environments in one folder.

    Args:
        folder: where they are, one folder for each rival and version of Python.
        install: make what is missing; it is downloaded.
        say: is told of what takes a while.
    """

    def __init__(self, folder: Path, install: bool, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._install = install
        self._say = say
        self._found: dict[str, Path | NotInstalled] = {}

    def python(self, name: str) -> Path:
        """Return the interpreter that has a rival, which is installed if it is not.

        Raises:
            NotInstalled: it cannot be used here.
        """
        if name not in self._found:
            try:
                self._found[name] = self._made(name)
            except NotInstalled as error:
                self._found[name] = error
        found = self._found[name]
        if isinstance(found, NotInstalled):
            raise found
        return found

    def _made(self, name: str) -> Path:
        folder = self._folder / f"{name}-py{sys.version_info.major}.{sys.version_info.minor}"
        python = folder / "bin" / "python"
        if (folder / _STAMP).exists():
            return python
        if not self._install:
            raise NotInstalled(f"{name} is not in {folder}, and --no-install was given")
        self._say(f"installing {name} in {folder}")
        rival = RIVALS[name]
        try:
            venv.create(folder, clear=True, with_pip=True)
            pip = [python, "-m", "pip", "install", "--quiet"]
            if rival.smaller:
                with contextlib.suppress(NotInstalled):
                    _run([*pip, *rival.packages, *rival.smaller])
            _run([*pip, *rival.packages, *_OURS])
            _run([python, "-c", f"import {rival.module}"])
        except (NotInstalled, OSError, subprocess.SubprocessError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise NotInstalled(f"{name} cannot be installed: {_last_words(error)}") from None
        (folder / _STAMP).touch()
        return python


def _run(command: list[str | Path]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotInstalled(done.stderr.strip() or f"{command} ended with {done.returncode}")


def _last_words(error: BaseException) -> str:
    text = str(getattr(error, "stderr", None) or error)
    return " ".join(text.split())[-_TOLD:]


def versions(pythons: Mapping[str, Path]) -> dict[str, str]:
    """Return the version of each rival, by its package's name."""
    return {RIVALS[name].package: _version(python, RIVALS[name].package) for name, python in pythons.items()}


@functools.cache
def _version(python: Path, package: str) -> str:
    command = [python, "-c", f"from importlib import metadata; print(metadata.version({package!r}))"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

"""Owns what these tests share: worlds are pickled, so the modules that simulate them are imported by their names."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parent))


@pytest.fixture
def world() -> Iterator[Any]:
    """A broker's memory without sockets, see pools_world.py."""
    one = importlib.import_module("pools_world").World()
    yield one
    one.close()

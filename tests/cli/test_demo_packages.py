"""What the demo says when an optional package is not installed."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from dfserve.cli.demo import demo
from dfserve.errors import ConfigError


@pytest.fixture(autouse=True)
def _what_the_demo_sets_for_its_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put back how signals are handled: in later tests of this process an interruption would come a second time."""
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("package", ["cv2", "prometheus_client", "skimage"])
def test_a_missing_package_is_an_error_that_says_what_to_install(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, package, None)  # Python's own way to say that it cannot be imported
    result = CliRunner().invoke(demo)
    assert isinstance(result.exception, ConfigError)
    assert "pip install 'dfserve[demo]'" in str(result.exception)
    assert list(tmp_path.iterdir()) == []

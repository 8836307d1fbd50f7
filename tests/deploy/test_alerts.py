"""Owns the tests of the alerts: Prometheus' own tool reads them, and plays runs through them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
DEPLOY = HERE.parents[1] / "deploy"

pytestmark = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (apt install prometheus)")


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_reads_the_configuration_with_its_alerts() -> None:
    promtool("check", "config", DEPLOY / "prometheus.yml")


def test_each_alert_fires_for_what_it_is_for_and_none_in_a_quiet_run() -> None:
    promtool("test", "rules", HERE / "alerts_test.yml")

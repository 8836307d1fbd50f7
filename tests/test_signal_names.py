"""Tests of the names of signals: any number has one."""

from __future__ import annotations

import pytest

from dfserve.signal_names import signal_name


@pytest.mark.parametrize(("number", "name"), [(9, "SIGKILL"), (15, "SIGTERM"), (40, "signal 40"), (200, "signal 200")])
def test_a_signal_that_python_has_no_name_for_is_named_by_its_number(number: int, name: str) -> None:
    assert signal_name(number) == name

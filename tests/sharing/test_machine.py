"""Owns the tests of a machine's name."""

from __future__ import annotations

from dfserve.sharing.machine import machine


def test_a_machine_has_a_name_that_stays() -> None:
    assert len(machine()) > 30
    assert machine() == machine()

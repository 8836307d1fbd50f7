"""Owns the tests of where dfserve keeps what outlives a process."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfserve.endpoints import parse
from dfserve.errors import ConfigError, EndpointError
from dfserve.state_folder import ledger_path, state_folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_the_state_folder_is_the_users(home: Path) -> None:
    assert state_folder() == home / ".local" / "state" / "dfserve"


@pytest.mark.parametrize("value", ["", "relative/folder"])
def test_a_variable_that_names_no_absolute_folder_is_ignored(
    home: Path, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", value)
    assert state_folder() == home / ".local" / "state" / "dfserve"


def test_the_variable_moves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/var/lib/me")
    assert ledger_path("tcp://0.0.0.0:8877") == Path("/var/lib/me/dfserve/ledger-tcp-0.0.0.0-8877")


def test_a_user_without_a_home_is_told_what_to_do(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(ConfigError, match="name a file with --ledger, or set XDG_STATE_HOME"):
        state_folder()


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("tcp://127.0.0.1:8877", "ledger-tcp-127.0.0.1-8877"),
        ("tcp://*:8877", "ledger-tcp-0.0.0.0-8877"),
        ("tcp://data-1.example.org:1", "ledger-tcp-data-1.example.org-1"),
        ("tcp://[::1]:8877", "ledger-tcp-%3A%3A1-8877"),
        ("ipc:///run/dfserve", "ledger-ipc-_run_dfserve"),
        ("ipc:///run/my_socket", "ledger-ipc-_run_my%5Fsocket"),
        ("ipc://@name", "ledger-ipc-%40name"),
    ],
)
def test_the_ledger_is_named_after_the_address(home: Path, address: str, name: str) -> None:
    assert ledger_path(address) == state_folder() / name


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:0", "tcp://*:*"])
def test_an_address_that_changes_with_every_start_names_no_ledger(home: Path, address: str) -> None:
    with pytest.raises(ConfigError, match=r"another port at every start.*--ledger"):
        ledger_path(address)


def test_what_is_no_address_is_refused(home: Path) -> None:
    with pytest.raises(EndpointError, match="'nonsense' has no scheme"):
        ledger_path("nonsense")


paths = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)
abstract = st.builds(lambda text: f"ipc://@{text}", paths)
files = st.builds(lambda text: f"ipc:///{text}", paths)


@given(first=abstract | files, second=abstract | files)
def test_different_addresses_have_different_ledgers_in_the_folder_itself(first: str, second: str) -> None:
    one, other = ledger_path(first), ledger_path(second)
    assert one.parent == state_folder()
    assert len(one.name.encode()) <= 200
    assert (one == other) is (parse(first) == parse(second))


def test_long_addresses_differ_even_where_their_beginnings_agree(home: Path) -> None:
    first, second = (ledger_path(f"ipc:///{'ä' * 50}{end}") for end in "ab")
    assert first != second
    assert len(first.name) == len(second.name) == 200

"""Owns the tests of key files: how they are made, what is read from them, and whom their permissions shut out."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import zmq

from dfserve import KeysError
from dfserve.keys import admitted, make_keys, read_broker_keys, read_client_keys


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of keys with the clients data-1 and trainer."""
    make_keys(tmp_path / "keys", ["data-1", "trainer"])
    return tmp_path / "keys"


def secret(folder: Path, name: str = "data-1") -> Path:
    return folder / "clients" / f"{name}.secret"


def test_a_client_has_a_pair_of_its_own_and_the_brokers_public_key(folder: Path) -> None:
    broker = read_broker_keys(folder)
    clients = [read_client_keys(secret(folder, name)) for name in ("data-1", "trainer")]
    assert zmq.curve_public(broker.secret) == broker.public
    assert all(zmq.curve_public(client.secret) == client.public for client in clients)
    assert {client.broker for client in clients} == {broker.public}
    assert len({broker.secret, *(client.secret for client in clients)}) == 3
    assert admitted(folder) == ({clients[0].public: "data-1", clients[1].public: "trainer"}, [])


def test_only_the_owner_can_read_what_is_made_whatever_the_umask(tmp_path: Path) -> None:
    make_keys(tmp_path / "new" / "keys", ["data-1"])
    modes = {path.relative_to(tmp_path / "new").as_posix(): path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    modes.pop("..", None)
    assert {name: mode for name, mode in modes.items() if name != "."} == {
        "keys": 0o700,
        "keys/broker.secret": 0o600,
        "keys/clients": 0o700,
        "keys/clients/data-1.public": 0o600,
        "keys/clients/data-1.secret": 0o600,
    }


def test_more_clients_can_be_made_for_the_same_broker(folder: Path) -> None:
    before = read_broker_keys(folder)
    made, new = make_keys(folder, ["data-2"])
    assert (made, new) == ([secret(folder, "data-2")], False)
    assert read_broker_keys(folder) == before
    assert read_client_keys(made[0]).broker == before.public
    assert sorted(admitted(folder)[0].values()) == ["data-1", "data-2", "trainer"]


def test_nothing_is_overwritten(folder: Path) -> None:
    before = secret(folder).read_text()
    with pytest.raises(KeysError, match=r"exists already; choose another name, or delete data-1\.\*"):
        make_keys(folder, ["data-3", "data-1"])
    assert secret(folder).read_text() == before
    assert not secret(folder, "data-3").exists()


def test_a_name_that_is_given_twice_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(KeysError, match="the name 'trainer' is given twice"):
        make_keys(tmp_path, ["trainer", "data-1", "trainer"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "../data", "a/b", ".hidden", "-x", "data 1", "x" * 65])
def test_a_name_that_is_no_file_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(KeysError, match="cannot name a client"):
        make_keys(tmp_path, [name])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666, 0o601])
def test_a_secret_that_others_can_read_is_refused_with_the_command_to_run(folder: Path, mode: int) -> None:
    for path, read in ((folder / "broker.secret", lambda: read_broker_keys(folder)), (secret(folder), None)):
        path.chmod(mode)
        with pytest.raises(KeysError, match=f"by others.*: chmod 600 {path}"):
            read() if read is not None else read_client_keys(path)
        path.chmod(0o600)
    read_broker_keys(folder)
    read_client_keys(secret(folder))


def test_a_folder_that_others_can_write_into_admits_nobody(folder: Path) -> None:
    (folder / "clients").chmod(0o770)
    with pytest.raises(KeysError, match=f"admit whom they like: chmod 700 {folder / 'clients'}"):
        admitted(folder)
    with pytest.raises(KeysError, match="chmod 700"):
        read_broker_keys(folder)


def test_a_folder_that_cannot_be_read_is_not_taken_for_one_that_admits_nobody(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)  # not a mode, which does not stop root
    with pytest.raises(KeysError, match="clients cannot be read: Permission denied; it must belong to the user"):
        admitted(folder)


def test_one_bad_file_does_not_shut_out_the_others(folder: Path) -> None:
    (folder / "clients" / "data-1.public").chmod(0o622)
    (folder / "clients" / "odd.public").write_text("public = too short\n")
    found, wrong = admitted(folder)
    assert list(found.values()) == ["trainer"]
    assert sorted("chmod 600" in str(error) for error in wrong) == [False, True]
    assert "odd.public" in " ".join(map(str, wrong))


def test_what_is_missing_is_named_with_the_command_that_makes_it(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(KeysError, match=f"make it: dfserve keys {tmp_path / 'none'}"):
        read_broker_keys(tmp_path / "none")
    with pytest.raises(KeysError, match=r"none\.secret cannot be read: No such file"):
        read_client_keys(tmp_path / "none.secret")
    with pytest.raises(KeysError, match=r"is a folder; a client takes its file in it"):
        read_client_keys(folder)
    with pytest.raises(KeysError, match="is a file; whoever binds takes the folder"):
        read_broker_keys(secret(folder))


def test_a_file_that_is_no_key_is_refused_and_says_what_it_lacks(folder: Path) -> None:
    with pytest.raises(KeysError, match="it has no broker"):
        read_client_keys(folder / "broker.secret")
    path = secret(folder)
    for text in ("", "secret\n", "x" * 10_000, "\xff\xfe"):
        path.write_text(text, encoding="latin-1")
        with pytest.raises(KeysError, match="is no key file of the kind that is needed"):
            read_client_keys(path)


@pytest.mark.parametrize("name", ["public", "secret", "broker"])
def test_an_entry_that_stands_for_more_than_32_bytes_is_no_key(folder: Path, name: str) -> None:
    lines = secret(folder).read_text().splitlines()
    secret(folder).write_text("\n".join(f"{name} = {'#' * 40}" if line.startswith(name) else line for line in lines))
    with pytest.raises(KeysError, match=f"it has no {name}"):
        read_client_keys(secret(folder))


def test_a_pair_that_is_none_is_refused(folder: Path) -> None:
    entries = [secret(folder, name).read_text().splitlines() for name in ("data-1", "trainer")]
    secret(folder).write_text("\n".join([entries[0][1], entries[1][2], entries[0][3]]))
    with pytest.raises(KeysError, match="its two keys are no pair"):
        read_client_keys(secret(folder))


def test_secrets_are_not_shown_by_repr(folder: Path) -> None:
    broker, client = read_broker_keys(folder), read_client_keys(secret(folder))
    assert broker.secret.decode() not in repr(broker)
    assert client.secret.decode() not in repr(client)

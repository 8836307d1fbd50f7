"""Owns key files: a broker's key pair, its clients', and which of those are admitted. Refused if others can read them.

A folder of keys::

    broker.secret          the broker's key pair: stays with the broker
    clients/NAME.public    one for each client that is admitted; without it, the client is not
    clients/NAME.secret    what the client has: its key pair and the broker's public key; to be copied to it

Each file is lines of ``name = value``, the values in the Z85 text form of CURVE's 32 bytes.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import zmq
from zmq.utils import z85

from dfserve.errors import KeysError

BROKER, CLIENTS = "broker.secret", "clients"
PUBLIC, SECRET = ".public", ".secret"
MAX_BYTES = 4096  # of a key file; ours have less than 400
KEY = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")  # Z85 of 32 bytes
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
PRIVATE = 0o077  # the bits by which others could read or write
UNTOUCHED = 0o022  # the bits by which others could write


@dataclass(frozen=True)
class BrokerKeys:
    """A broker's key pair, as libzmq takes it."""

    public: bytes
    secret: bytes = field(repr=False)


@dataclass(frozen=True)
class ClientKeys:
    """A client's key pair, and the public key of the only broker that it will speak to.

    Attributes:
        path: where it was read, for messages.
    """

    path: Path
    public: bytes
    secret: bytes = field(repr=False)
    broker: bytes


def make_keys(folder: Path, names: Sequence[str]) -> tuple[list[Path], bool]:
    """Make a folder's broker key if there is none, and a key for each client. All files get the mode 0600.

    Returns:
        The clients' secret files, and whether the broker's key is new.

    Raises:
        KeysError: a name that cannot be a file's, is taken or given twice, or a folder that cannot be used; nothing is
            overwritten.
    """
    require_curve()
    clients = folder / CLIENTS
    for number, name in enumerate(names):
        if name in names[:number]:
            raise KeysError(f"the name {name!r} is given twice, and each client has one key: give it once")
        if not NAME.fullmatch(name):
            raise KeysError(f"{name!r} cannot name a client; use letters, digits, '.', '_' and '-', e.g. data-1")
        for taken in (clients / (name + PUBLIC), clients / (name + SECRET)):
            if taken.exists():
                raise KeysError(f"{taken} exists already; choose another name, or delete {name}.* there to replace it")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        clients.mkdir(mode=0o700, exist_ok=True)
        new = not (folder / BROKER).exists()
        if new:
            _write(folder / BROKER, "the broker's key pair. It stays with the broker.", *_pair())
        broker = read_broker_keys(folder)
        return [_make_client(clients, name, broker) for name in names], new
    except OSError as error:
        raise KeysError(f"no keys could be made in {folder}: {error}") from None


def _make_client(clients: Path, name: str, broker: BrokerKeys) -> Path:
    public, secret = _pair()
    path = clients / (name + SECRET)
    pinned = ("broker", broker.public.decode())
    _write(path, f"the key pair of client {name}. Copy it to that machine only.", public, secret, pinned)
    _write(clients / (name + PUBLIC), f"client {name} is admitted as long as this file is here.", public)
    return path


def _pair() -> tuple[tuple[str, str], tuple[str, str]]:
    public, secret = zmq.curve_keypair()
    return ("public", public.decode()), ("secret", secret.decode())


def _write(path: Path, title: str, *entries: tuple[str, str]) -> None:
    text = "".join([f"# dfserve: {title}\n", *(f"{name} = {value}\n" for name, value in entries)])
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def read_broker_keys(folder: Path) -> BrokerKeys:
    """Read the broker's key pair from a folder, and see that nobody else could have put a client there.

    Raises:
        KeysError: there is none, it is damaged, or its permissions are too wide; the message has the command to run.
    """
    require_curve()
    if folder.is_file():
        raise KeysError(f"{folder} is a file; whoever binds takes the folder that `dfserve keys FOLDER` has made")
    if not (folder / BROKER).exists():
        raise KeysError(f"there is no {folder / BROKER}; make it: dfserve keys {folder}")
    for path in (folder, folder / CLIENTS):
        _check_folder(path)
    entries = _read(folder / BROKER, PRIVATE, "public", "secret")
    return BrokerKeys(entries["public"], entries["secret"])


def read_client_keys(path: Path) -> ClientKeys:
    """Read a client's key file.

    Raises:
        KeysError: as `read_broker_keys`.
    """
    require_curve()
    if path.is_dir():
        raise KeysError(f"{path} is a folder; a client takes its file in it, e.g. {path / CLIENTS / 'client.secret'}")
    entries = _read(path, PRIVATE, "public", "secret", "broker")
    return ClientKeys(path, entries["public"], entries["secret"], entries["broker"])


def admitted(folder: Path) -> tuple[dict[bytes, str], list[KeysError]]:
    """Read which clients are admitted at this moment: their names by public key, and what is wrong with other files.

    Raises:
        KeysError: the folder cannot be read, or others may write into it; then nobody is admitted.
    """
    clients = folder / CLIENTS
    _check_folder(clients)
    found: dict[bytes, str] = {}
    wrong: list[KeysError] = []
    try:
        with os.scandir(clients) as entries:  # glob would take a folder that it may not read for an empty one
            paths = sorted(clients / entry.name for entry in entries if entry.name.endswith(PUBLIC))
    except OSError as error:
        raise KeysError(
            f"{clients} cannot be read: {error.strerror}; it must belong to the user who runs the broker"
        ) from None
    for path in paths:
        try:
            found[_read(path, UNTOUCHED, "public")["public"]] = path.name.removesuffix(PUBLIC)
        except KeysError as error:  # noqa: PERF203  # one bad file must not shut out the other clients
            wrong.append(error)
    return found, wrong


def require_curve() -> None:
    """Refuse to go on with a libzmq that cannot encrypt.

    Raises:
        KeysError: it was built without CURVE.
    """
    if not zmq.has("curve"):
        raise KeysError(
            "this libzmq was built without CURVE; pyzmq's own wheels have it: pip install --force-reinstall pyzmq"
        )


def _check_folder(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise KeysError(f"{path} cannot be read: {error.strerror}; make keys: dfserve keys {path.parent}") from None
    if mode & UNTOUCHED:
        raise KeysError(f"others may write into {path}, and admit whom they like: chmod 700 {path}")


def _read(path: Path, forbidden: int, *names: str) -> dict[str, bytes]:
    """Read the named entries of a file, which must not have the forbidden bits of permission."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise KeysError(f"the key file {path} cannot be read: {error.strerror}") from None
    if mode & forbidden:
        what = "read" if forbidden == PRIVATE else "written"
        raise KeysError(f"the key file {path} can be {what} by others (mode {mode:04o}): chmod 600 {path}")
    entries = dict(_entry(line) for line in text.decode("ascii", "replace").splitlines() if line[:1] not in ("", "#"))
    missing = [name for name in names if not _is_key(entries.get(name, ""))]
    if missing or len(text) > MAX_BYTES:
        raise KeysError(
            f"{path} is no key file of the kind that is needed: it has no {' and no '.join(missing) or 'end'}; "
            "`dfserve keys` makes them: broker.secret for brokers, clients/NAME.secret for clients"
        )
    if "secret" in names and zmq.curve_public(entries["secret"].encode()) != entries["public"].encode():
        raise KeysError(f"the key file {path} is damaged: its two keys are no pair; make another: dfserve keys")
    return {name: entries[name].encode() for name in names}


def _is_key(text: str) -> bool:
    try:
        return KEY.fullmatch(text) is not None and bool(z85.decode(text))
    except struct.error:  # five characters can stand for more than four bytes hold
        return False


def _entry(line: str) -> tuple[str, str]:
    name, _, value = line.partition(" = ")
    return name.strip(), value.strip()

"""Owns where dfserve keeps what outlives a process: the user's state folder, and the ledger's name in it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from urllib.parse import quote

from dfserve import endpoints
from dfserve.errors import ConfigError

LONGEST = 200  # bytes of a file name; file systems take 255, and the names of new files are a little longer
DIGEST = 16  # hexadecimal digits: 64 bits tell apart all addresses that a machine will ever bind


def state_folder() -> Path:
    """Return ``$XDG_STATE_HOME/dfserve``, or ``~/.local/state/dfserve`` where that is unset, empty or not absolute.

    The folder may not exist yet. Source: XDG Base Directory Specification 0.8.

    Raises:
        ConfigError: this user has no home folder.
    """
    base = os.environ.get("XDG_STATE_HOME", "")
    if os.path.isabs(base):  # noqa: PTH117  # the specification has relative ones ignored
        return Path(base) / "dfserve"
    try:
        return Path.home() / ".local" / "state" / "dfserve"
    except RuntimeError:
        raise ConfigError(
            "this user has no home folder for the broker's ledger; name a file with --ledger, or set XDG_STATE_HOME"
        ) from None


def ledger_path(address: str) -> Path:
    """Return the ledger's file for a broker that was given none.

    Args:
        address: the first address that the broker binds, e.g. ``"tcp://0.0.0.0:8877"``: a broker that is started again
            finds its ledger by it. ``*`` is 0.0.0.0. Brokers at different addresses have different files.

    Returns:
        E.g. ``~/.local/state/dfserve/ledger-tcp-0.0.0.0-8877`` or ``.../ledger-ipc-_run_dfserve``.

    Raises:
        EndpointError: it is no address.
        ConfigError: a port that differs with every start, or no home folder.
    """
    ep = endpoints.parse(address)
    if ep.scheme == "ipc":
        return state_folder() / _fitting(f"ledger-ipc-{_safe(ep.path)}")
    if not ep.port:
        raise ConfigError(
            f"address {ep} has another port at every start, so the broker could not find its ledger again; "
            "name a file with --ledger, or give a port"
        )
    host = "0.0.0.0" if ep.host == "*" else ep.host  # noqa: S104  # a name; nothing is bound here
    return state_folder() / _fitting(f"ledger-tcp-{_safe(host)}-{ep.port}")


def _safe(text: str) -> str:
    """Write ``/`` as ``_``, and what is neither letter, digit nor one of ``.-~`` as %XX; no two texts become one."""
    return quote(os.fsencode(text), safe="/").replace("_", "%5F").replace("/", "_")


def _fitting(name: str) -> str:
    if len(name) <= LONGEST:
        return name
    return f"{name[: LONGEST - DIGEST - 1]}-{hashlib.sha256(name.encode()).hexdigest()[:DIGEST]}"

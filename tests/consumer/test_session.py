"""Owns the tests of a consumer's sessions: that several are made and closed together."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dfserve import EndpointError, KeysError
from dfserve.consumer import session as session_module
from dfserve.consumer.session import Session, close_sessions, open_sessions


def test_each_address_that_is_connected_to_has_a_session_of_its_own() -> None:
    sessions = open_sessions(["ipc://@one-s", "ipc://@two-s"], False, {}, None)
    assert [session.where for session in sessions] == ["ipc://@one-s", "ipc://@two-s"]
    close_sessions(sessions)
    assert all(session.connection.socket.closed for session in sessions)
    close_sessions(sessions)


def test_when_one_cannot_be_made_those_before_it_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Session] = []

    class Noted(Session):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(session_module, "Session", Noted)
    with pytest.raises(EndpointError):
        open_sessions(["ipc://@one-s", "tcp://*:1"], False, {}, None)
    assert [session.connection.socket.closed for session in made] == [True]


def test_keys_that_cannot_be_used_connect_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeysError):
        open_sessions(["tcp://127.0.0.1:1", "tcp://127.0.0.1:2"], False, {}, None, tmp_path / "none.secret")


def test_a_broker_is_started_before_its_consumer_loads_zmq_and_numpy(free_port: int) -> None:
    script = f"""
import json, subprocess, sys
import dfserve
popen, loaded = subprocess.Popen, []
def noted(*args, **options):
    loaded.append([name for name in ("numpy", "zmq", "cv2") if name in sys.modules])
    return popen(*args, **options)
subprocess.Popen = noted
with dfserve.RemoteDataZMQ("ipc://@before-numpy-{free_port}") as remote:
    remote.reset_state()
print(json.dumps([loaded, "numpy" in sys.modules]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(done.stdout) == [[[]], True]

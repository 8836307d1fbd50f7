"""Owns the tests of the tree of errors."""

from __future__ import annotations

import re

import pytest

import dfserve
from dfserve import errors
from dfserve.errors import DfserveError, PipelineError, RemoteError, WireError, WorkerLost

CLASSES = {name: value for name, value in vars(errors).items() if isinstance(value, type)}


def tree_of_docstring() -> dict[str, tuple[str, str]]:
    """Read the docstring's tree: each class with its parent and what else it derives from."""
    found: dict[str, tuple[str, str]] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        entry = re.match(r"    ([│├└─ ]*)([A-Z]\w+)(?: \((\w+)\))?", line)
        if entry:
            depth = len(entry[1]) // 4
            path[depth:] = [entry[2]]
            found[entry[2]] = (path[depth - 1] if depth else "Exception", entry[3] or "")
    return found


def test_the_tree_in_the_docstring_is_the_real_one() -> None:
    real: dict[str, tuple[str, str]] = {}
    for name, kind in CLASSES.items():
        parent, *others = [base.__name__ for base in kind.__bases__]
        real[name] = (parent, others[0] if others else "")
    assert tree_of_docstring() == real


def test_every_error_is_public() -> None:
    assert set(CLASSES) <= set(dfserve.__all__)
    assert all(getattr(dfserve, name) is kind for name, kind in CLASSES.items())


@pytest.mark.parametrize(
    ("name", "builtin"),
    [("ConfigError", ValueError), ("EncodeError", TypeError), ("Starved", TimeoutError), ("AddressInUse", ValueError)],
)
def test_who_does_not_know_dfserve_catches_the_builtin_error(name: str, builtin: type[Exception]) -> None:
    assert issubclass(CLASSES[name], builtin)


def test_a_pipelines_error_says_everything_that_is_known_of_it() -> None:
    error = PipelineError(
        "ValueError at a.jpg on data-1: bad", key="a.jpg", kind="ValueError", host="data-1", worker="data-1/0",
        remote_traceback="Traceback (most recent call last): ...",
    )  # fmt: skip
    assert (error.key, error.kind, error.host, error.worker) == ("a.jpg", "ValueError", "data-1", "data-1/0")
    assert str(error) == (
        "ValueError at a.jpg on data-1: bad\n\nRemote traceback (data-1/0):\nTraceback (most recent call last): ..."
    )


def test_a_pipelines_error_without_a_traceback_is_one_line() -> None:
    assert str(PipelineError("bad")) == "bad"


def test_a_lost_worker_is_named() -> None:
    error = WorkerLost("it died", host="data-1", worker="data-1/0")
    assert isinstance(error, RemoteError)
    assert (str(error), error.host, error.worker) == ("it died", "data-1", "data-1/0")


def test_broken_bytes_carry_the_reason_that_is_counted() -> None:
    error = WireError("magic", "not a dfserve message")
    assert isinstance(error, DfserveError)
    assert (error.reason, str(error)) == ("magic", "not a dfserve message")

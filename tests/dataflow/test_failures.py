"""The key of a failing item, attached to the exception in flight."""

from __future__ import annotations

from pathlib import Path

import pytest

from dfserve.dataflow.failures import attach_key, key_of


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    error.__cause__ = cause
    return error


def test_an_exception_that_nobody_marked_has_the_default_key() -> None:
    assert key_of(ValueError("x"), "17") == "17"
    assert key_of(ValueError("x")) == ""


def test_the_first_key_stays() -> None:
    error = ValueError("x")
    attach_key(error, ["inner.jpg"], 3)
    attach_key(error, ["outer.jpg"], 4)
    assert key_of(error) == "inner.jpg"


def test_the_key_of_a_cause_is_found_even_in_a_circle_of_causes() -> None:
    cause = ValueError("x")
    attach_key(cause, ["a.jpg"], 0)
    assert key_of(raised(RuntimeError("wrapped"), cause)) == "a.jpg"
    first = RuntimeError("a")
    second = raised(RuntimeError("b"), first)
    first.__cause__ = second
    assert key_of(first, "none") == "none"


def test_a_path_is_a_name_and_a_bare_string_too() -> None:
    for datapoint, key in (([1, Path("cats") / "1.png"], "cats/1.png"), ("a.jpg", "a.jpg"), (None, "5"), (3.5, "5")):
        error = ValueError("x")
        attach_key(error, datapoint, 5)
        assert key_of(error) == key


def test_a_component_of_text_does_not_travel_whole() -> None:
    error = ValueError("x")
    attach_key(error, ["word " * 10_000], 0)
    assert 100 < len(key_of(error)) <= 1024


def test_an_exception_that_takes_no_attributes_passes_unmarked() -> None:
    class Closed(Exception):
        def __setattr__(self, name: str, value: object) -> None:
            raise AttributeError(name)

    error = Closed("x")
    attach_key(error, ["a.jpg"], 0)
    assert key_of(error, "default") == "default"


def test_the_exception_keeps_its_type_and_text() -> None:
    error = ValueError("what was wrong")
    attach_key(error, ["a.jpg"], 0)
    with pytest.raises(ValueError, match=r"^what was wrong$"):
        raise error

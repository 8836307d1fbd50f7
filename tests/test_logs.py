"""Owns the tests of how the command-line tools log."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator

import pytest

from dfserve.logs import set_up_logging

log = logging.getLogger("dfserve.broker")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """The settings are this process's; other tests read the log through them."""
    logger = logging.getLogger("dfserve")
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.level, logger.propagate = before


def test_elsewhere_than_on_a_terminal_each_record_is_one_line_of_json() -> None:
    stream = io.StringIO()
    set_up_logging("info", stream)
    log.warning("two\nlines of %s", "text")
    (line,) = stream.getvalue().splitlines()
    record = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record.pop("time"))
    assert record == {"level": "warning", "logger": "dfserve.broker", "message": "two\nlines of text"}


def test_a_traceback_is_part_of_the_line() -> None:
    stream = io.StringIO()
    set_up_logging("info", stream)
    try:
        raise ValueError("no such jpeg")
    except ValueError:
        log.exception("failed")
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["traceback"].endswith("ValueError: no such jpeg")


def test_on_a_terminal_lines_are_for_people() -> None:
    stream = Terminal()
    set_up_logging("info", stream)
    log.error("the disk is full")
    assert re.fullmatch(r"\d\d:\d\d:\d\d E the disk is full\n", stream.getvalue())


@pytest.mark.parametrize(("level", "lines"), [("debug", 3), ("INFO", 2), ("error", 0)])
def test_what_is_below_the_level_is_left_out(level: str, lines: int) -> None:
    stream = io.StringIO()
    set_up_logging(level, stream)
    log.debug("1")
    log.info("2")
    log.warning("3")
    assert len(stream.getvalue().splitlines()) == lines


def test_setting_up_twice_logs_once() -> None:
    first, second = io.StringIO(), io.StringIO()
    set_up_logging("info", first)
    set_up_logging("info", second)
    log.info("once")
    assert (first.getvalue(), len(second.getvalue().splitlines())) == ("", 1)


def test_other_libraries_logs_are_left_alone() -> None:
    stream = io.StringIO()
    set_up_logging("debug", stream)
    logging.getLogger("somebody.else").warning("not ours")
    assert stream.getvalue() == ""

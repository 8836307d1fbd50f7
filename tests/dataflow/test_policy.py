"""The policy for items that fail: raise, or skip within limits in total, as a rate and in a row."""

from __future__ import annotations

import json
import logging
import pickle
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfserve.dataflow.failures import attach_key
from dfserve.dataflow.policy import FEW, RECENT, SkipErrors, Tally, skipping
from dfserve.errors import ConfigError, PipelineError, TooManyErrors


def run(policy: Any, items: Iterable[bool]) -> int:
    """Return how many items (True: good) a tally sees before a limit is passed, and all of them where none is."""
    tally = Tally(policy, "Reader")
    seen = 0
    for good in items:
        seen += 1
        if good:
            tally.good()
            continue
        try:
            tally.bad(ValueError("damaged"))
        except TooManyErrors:
            return seen
    return seen


def test_raising_raises_the_error_itself() -> None:
    error = ValueError("damaged")
    with pytest.raises(ValueError, match="damaged") as caught:
        Tally("raise", "Reader").bad(error)
    assert caught.value is error


def test_skipping_has_limits_by_default() -> None:
    assert skipping("skip") == SkipErrors(total=None, rate=0.1, in_a_row=100, quarantine=None)
    assert skipping("raise") is None
    with pytest.raises(ConfigError, match="on_error is 'ignore'"):
        skipping("ignore")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "arguments", [{"rate": 1.5}, {"rate": -0.1}, {"rate": float("nan")}, {"total": -1}, {"in_a_row": -1}]
)
def test_limits_that_make_no_sense_are_refused(arguments: Any) -> None:
    with pytest.raises(ConfigError, match="SkipErrors"):
        SkipErrors(**arguments)


@given(st.lists(st.booleans(), max_size=60), st.integers(0, 10))
def test_the_limit_in_total_is_passed_by_the_failure_after_the_last_that_it_allows(
    items: list[bool], total: int
) -> None:
    bad = [place for place, good in enumerate(items, 1) if not good]
    expected = bad[total] if len(bad) > total else len(items)
    assert run(SkipErrors(total=total, rate=None, in_a_row=None), items) == expected


@given(st.lists(st.booleans(), max_size=60), st.integers(0, 4))
def test_the_limit_in_a_row_counts_from_the_last_good_item(items: list[bool], in_a_row: int) -> None:
    expected, row = len(items), 0
    for place, good in enumerate(items, 1):
        row = 0 if good else row + 1
        if row > in_a_row:
            expected = place
            break
    assert run(SkipErrors(rate=None, in_a_row=in_a_row), items) == expected


@given(st.lists(st.integers(0, 40), max_size=60), st.sampled_from([0.0, 0.05, 0.1, 0.5]))
def test_the_rate_is_that_of_the_recent_items_once_there_are_a_few(gaps: list[int], rate: float) -> None:
    # Each gap is so many good items and then a bad one.
    items = [good for gap in gaps for good in [True] * gap + [False]]
    expected = len(items)
    for place, good in enumerate(items, 1):
        recent = items[max(0, place - RECENT) : place]
        if not good and place >= FEW and recent.count(False) > rate * len(recent):
            expected = place
            break
    assert run(SkipErrors(rate=rate, in_a_row=None), items) == expected


def test_a_disk_that_goes_bad_after_a_million_good_items_is_noticed_soon() -> None:
    tally = Tally(SkipErrors(in_a_row=None), "Reader")
    tally.good(1_000_000)
    for _ in range(100):
        tally.bad(ValueError("damaged"))
    with pytest.raises(TooManyErrors, match=r"101 of the last 1000, more than rate=0\.1"):
        tally.bad(ValueError("damaged"))


def test_failures_long_ago_are_forgiven() -> None:
    # 150 of 1150 are more than a tenth, but never as many of the last thousand.
    items = [False] * 50 + [True] * 1000 + [False] * 100
    assert run(SkipErrors(rate=0.1, in_a_row=None), [*items, True]) == 1151
    assert run(SkipErrors(rate=0.1, in_a_row=None), [*items, False, True]) == 1151


def test_too_many_errors_says_how_many_of_what_and_which_was_the_last() -> None:
    tally = Tally(SkipErrors(total=1), "Reader")
    tally.good(7)
    errors = [ValueError("damaged"), OSError("unreadable")]
    for error, name in zip(errors, ["a.jpg", "b.jpg"], strict=True):
        attach_key(error, name, 0)
    tally.bad(errors[0])
    with pytest.raises(TooManyErrors) as caught:
        tally.bad(errors[1])
    assert str(caught.value) == (
        "Reader skipped 2 of 9 items, more than total=1. The last one, b.jpg: OSError: unreadable"
    )
    assert caught.value.__cause__ is errors[1]
    assert (tally.passed, tally.failed) == (7, 2)


def test_the_first_failures_are_told_one_by_one_and_then_every_hundredth(caplog: pytest.LogCaptureFixture) -> None:
    run(SkipErrors(rate=None, in_a_row=None), [False] * 250)
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 12
    assert "Reader skipped item unknown (200 so far): ValueError: damaged" in caplog.text


def test_an_item_whose_key_says_that_it_is_one_is_not_called_so_twice(caplog: pytest.LogCaptureFixture) -> None:
    Tally("skip", "Reader").bad(PipelineError("ValueError at item 133 on vm: damaged", key="item 133"))
    assert "Reader skipped item 133 (1 so far): PipelineError: ValueError at item 133 on vm" in caplog.text


def failed(text: str) -> ValueError:
    try:
        raise ValueError(text)
    except ValueError as error:
        return error


def test_the_quarantine_file_has_a_line_for_each_item_with_key_and_traceback(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    tally = Tally(SkipErrors(quarantine=str(path)), "Reader")
    error = failed("damaged \udcff\nand more")
    attach_key(error, ["cats/\udcff.jpg"], 0)
    tally.bad(error)
    tally.bad(failed("elsewhere"), trace="the traceback of another process")
    first, second = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert (first["operator"], first["key"]) == ("Reader", "cats/\udcff.jpg")
    assert first["error"] == "ValueError: damaged \udcff"  # its first line; the rest is in the traceback
    assert "raise ValueError(text)" in first["traceback"]
    assert "and more" in first["traceback"]
    assert first["time"] > 1.7e9
    assert (second["key"], second["traceback"]) == ("unknown", "the traceback of another process")


def test_a_quarantine_file_is_added_to_and_not_begun_again(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    for _ in range(2):
        Tally(SkipErrors(quarantine=path), "Reader").bad(ValueError("damaged"))
    assert len(path.read_text().splitlines()) == 2


QUARANTINES = """
import sys
from dfserve.dataflow.policy import SkipErrors, Tally
path, name = sys.argv[1:]
tally = Tally(SkipErrors(rate=None, in_a_row=None, quarantine=path), name)
for _ in range(300):
    tally.bad(ValueError(name * 2000))
"""


def test_lines_of_several_processes_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    processes = [
        subprocess.Popen([sys.executable, "-c", QUARANTINES, str(path), name], stderr=subprocess.DEVNULL)
        for name in "ab"
    ]
    assert [process.wait(60) for process in processes] == [0, 0]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert sorted(line["operator"] for line in lines) == ["a"] * 300 + ["b"] * 300
    assert all(line["error"] == f"ValueError: {line['operator'] * 2000}" for line in lines)


def test_a_tally_pickles_with_what_it_has_counted() -> None:
    tally = Tally(SkipErrors(total=1), "Reader")
    tally.good(3)
    tally.bad(ValueError("damaged"))
    copy = pickle.loads(pickle.dumps(tally))
    assert (copy.passed, copy.failed) == (3, 1)
    with pytest.raises(TooManyErrors):
        copy.bad(ValueError("damaged"))

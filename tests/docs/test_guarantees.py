"""Owns the check that every line of the tables of docs/guarantees.md names a test that exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "guarantees.md").read_text()
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def lines() -> list[list[str]]:
    """Return the cells of each line of each table, without headings."""
    rows = []
    for table in re.findall(r"(?:^\|.*\n)+", PAGE, re.MULTILINE):
        rows += [[cell.strip() for cell in row.strip("|").split(" | ")] for row in table.splitlines()[2:]]
    return rows


@cache
def names_in(file: str) -> frozenset[str]:
    """Return the functions of a file that pytest collects: those at its top."""
    path = ROOT / file
    if not path.is_file():
        return frozenset()
    body = ast.parse(path.read_text()).body
    return frozenset(each.name for each in body if isinstance(each, ast.FunctionDef) and each.name.startswith("test_"))


def test_every_line_of_the_tables_names_a_test_that_exists() -> None:
    found = lines()
    assert len(found) > 40
    for cells in found:
        named = TEST.findall(cells[-1])
        assert named, f"no test in the line {cells[0]!r}"
        missing = [f"{file}::{name}" for file, name in named if name not in names_in(file)]
        assert not missing, f"the line {cells[0]!r} names tests that are not there: {missing}"


def test_every_table_has_its_tests_in_its_last_column() -> None:
    headings = re.findall(r"^\|(.*)\|\n\|[-|]+\|$", PAGE, re.MULTILINE)
    assert headings
    assert {heading.split("|")[-1].strip() for heading in headings} == {"shown by"}


def test_every_mode_is_compared_in_every_line() -> None:
    section = PAGE.split("## Each mode")[1].split("\n## ")[0]
    rows = [row for row in re.findall(r"^\|(.*)\|$", section, re.MULTILINE) if not row.startswith("---")]
    assert {row.count(" | ") for row in rows} == {4}

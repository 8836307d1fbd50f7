"""Owns the check that what the pages refer to is there: files, headings, tests, options and exit codes."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from dfserve import window
from dfserve.cli import cli

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
TUNING = (ROOT / "docs" / "howto" / "tuning.md").read_text()


def commands() -> dict[str, click.Command]:
    """Return the commands that do something, as they are written: those of a group by both words."""
    found = {}
    for name, command in cli.commands.items():
        if isinstance(command, click.Group):
            found |= {f"{name} {inner}": each for inner, each in command.commands.items()}
        else:
            found[name] = command
    return found


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", without_code(page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text())):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{target}: there is no {file}"
        assert not anchor or anchor in anchors(file), f"{target}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_test_that_a_page_names_exists(page: Path) -> None:
    for file, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page.read_text()):
        assert (ROOT / file).is_file(), f"there is no {file}"
        assert not name or re.search(rf"^def {name}\(", (ROOT / file).read_text(), re.MULTILINE), (
            f"{file} has no {name}"
        )


def test_the_readme_is_short_and_names_the_test_command() -> None:
    text = (ROOT / "README.md").read_text()
    assert "`make test` is the test command" in text
    assert len(text.splitlines()) < 200


def test_every_variable_of_the_commands_is_in_the_table_and_no_other() -> None:
    table = TUNING.split("## Environment variables")[1]
    listed = {name for row in re.findall(r"^\|(.*?)\|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    read = {
        parameter.envvar for command in (cli, *commands().values()) for parameter in command.params if parameter.envvar
    }
    assert listed == read | {"DFSERVE_NAME"}


def test_every_option_that_a_page_gives_a_command_exists() -> None:
    known_commands = commands()
    names = "|".join(known_commands)
    for page in PAGES:
        for name, rest in re.findall(rf"dfserve ({names})\b([^\n`|&]*)", page.read_text()):
            command = known_commands[name]
            known = {option for parameter in command.params for option in parameter.opts}
            for option in re.findall(r"(?<!\S)--[a-z-]+", rest):
                assert option in known | {"--help"}, f"{page.name}: dfserve {name} has no {option}"


def test_the_exit_codes_are_those_of_the_help() -> None:
    table = TUNING.split("## Exit codes")[1].split("## ")[0]
    listed = [int(code) for code in re.findall(r"^\| (\d) \|", table, re.MULTILINE)]
    assert isinstance(cli, click.Group)
    assert cli.epilog is not None
    assert listed == [int(code) for code in re.findall(r"^  (\d) ", cli.epilog, re.MULTILINE)]


@pytest.mark.parametrize("page", ["architecture.md", "howto/tuning.md"])
def test_the_bounds_of_what_is_in_flight_are_those_of_the_code(page: str) -> None:
    text = " ".join((ROOT / "docs" / page).read_text().split())
    floor, ceiling = (re.search(rf"{words} (\d+) MiB", text) for words in ("(?:up to|at least)", "(?:above|at most)"))
    assert floor is not None
    assert ceiling is not None
    assert (int(floor[1]) << 20, int(ceiling[1]) << 20) == (window.FLOOR_BYTES, window.CEILING_BYTES)

"""Owns the running of what the how-to pages tell users to run: what is marked there works as it stands.

In a page, an HTML comment before a block of code says what is done with it: ``<!-- file: NAME -->`` writes it into a
folder made for the page, ``<!-- test -->`` runs it there (python or sh), and ``<!-- test: PACKAGE -->`` does if that
package is installed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs" / "howto").glob("*.md"))
TESTED = [page for page in PAGES if "<!-- test" in page.read_text()]
DEADLINE = 90  # seconds for one block; a hang becomes a failure
_BLOCK = re.compile(r"<!-- (test|file)(?:: (\S+))? -->\n```(python|sh)\n(.*?)```", re.DOTALL)
# `dfserve` as a user has it on the path, from this checkout.
_COMMAND = f'#!/bin/sh\nexec {sys.executable} -m dfserve.cli "$@"\n'


@dataclass(frozen=True)
class Block:
    """A block of code, and what its mark says to do with it."""

    mark: str
    name: str
    language: str
    code: str


def marked_blocks(page: Path) -> list[Block]:
    return [Block(*found) for found in _BLOCK.findall(page.read_text())]


def missing_packages(blocks: list[Block]) -> list[str]:
    wanted = {block.name for block in blocks if block.mark == "test" and block.name}
    return sorted(name for name in wanted if importlib.util.find_spec(name) is None)


def run(block: Block, folder: Path) -> None:
    bin_folder = folder / "bin"
    bin_folder.mkdir(exist_ok=True)
    for name, text in (("dfserve", _COMMAND), ("python", f'#!/bin/sh\nexec {sys.executable} "$@"\n')):
        (bin_folder / name).write_text(text)
        (bin_folder / name).chmod(0o755)
    search = os.pathsep.join([str(ROOT), str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": search, "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"}
    command = [sys.executable, "-c", block.code] if block.language == "python" else ["bash", "-ec", block.code]
    log = folder / "output.txt"
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=output, start_new_session=True
        )
        try:
            status = process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            status = -1
        finally:
            with contextlib.suppress(ProcessLookupError):  # what a block left in the background; it is our own session
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert status == 0, f"status {status} of\n{block.code}\n{log.read_text()}"


@pytest.mark.parametrize("page", TESTED, ids=lambda page: page.stem)
def test_what_a_page_marks_as_tested_runs_as_it_stands(page: Path, tmp_path: Path) -> None:
    blocks = marked_blocks(page)
    missing = missing_packages(blocks)
    for block in blocks:
        if block.mark == "file":
            (tmp_path / block.name).write_text(block.code)
    for block in blocks:
        if block.mark == "test" and block.name not in missing:
            run(block, tmp_path)
    if missing:
        pytest.skip(f"{page.name} needs {', '.join(missing)} for some of its blocks; the others were run")


def test_every_mark_in_the_pages_stands_before_a_block_that_is_found() -> None:
    for page in PAGES:
        marks = len(re.findall(r"^<!-- (?:test|file)", page.read_text(), re.MULTILINE))
        assert marks == len(marked_blocks(page)), f"{page.name}: a mark without a python or sh block right below it"


def test_the_pages_that_show_code_are_among_the_tested() -> None:
    shown = {"epochs", "first-pipeline", "how-many-machines", "pytorch", "tensorpack", "testing-your-pipeline"}
    assert shown <= {page.stem for page in TESTED}

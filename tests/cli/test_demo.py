"""`dfserve demo`, as a user runs it: in a process of its own, in a folder of theirs."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
PHOTOS = ROOT / "examples" / "photos"
PATIENCE = 90.0  # seconds: a hang becomes a failure


ENDLESS = """
from dfserve.cli import demo_run, main
demo_run.IMAGES, demo_run.SECONDS = 10**9, 3600.0
main()
"""


class Demo:
    """A running demo, the folder that it writes to and the one for its temporary files.

    Args:
        endless: it has not ended when it is told to, however late that is.
    """

    def __init__(self, cwd: Path, *arguments: str, endless: bool = False) -> None:
        self.cwd, self.temporary = cwd, cwd / "temporary"
        self.temporary.mkdir()
        self.process = subprocess.Popen(
            [sys.executable, *(["-c", ENDLESS] if endless else ["-m", "dfserve.cli"]), "demo", *arguments],
            cwd=cwd,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "PYTHONUNBUFFERED": "1",
                "TMPDIR": str(self.temporary),
                "DFSERVE_WORKERS": "3",  # the user's own settings are not the demo's
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.family: set[psutil.Process] = set()

    def lines_until(self, text: str) -> list[str]:
        """Read what it says up to a line that has a text, and remember the processes that it has by then."""
        assert self.process.stdout is not None
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if text in line:
                self.family.update(psutil.Process(self.process.pid).children(recursive=True))
                return lines
        pytest.fail(f"{text!r} was not said: {''.join(lines)}{self.end()[1]}")

    def await_family(self, count: int) -> None:
        """Wait until there were so many processes, or it has ended."""
        while len(self.family) < count and self.process.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                self.family.update(psutil.Process(self.process.pid).children(recursive=True))
            time.sleep(0.05)

    def end(self) -> tuple[str, str]:
        """Wait for its end; return what else it said, and its errors."""
        return self.process.communicate(timeout=PATIENCE)

    def left_over(self) -> tuple[list[psutil.Process], list[Path]]:
        """Return the processes and files that outlived it."""
        _, alive = psutil.wait_procs(list(self.family), timeout=PATIENCE / 3)
        return alive, list(self.temporary.iterdir())


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    started: list[Demo] = []

    def _start(*arguments: str, **options: bool) -> Demo:
        demo = Demo(tmp_path, *arguments, **options)
        started.append(demo)
        guard = threading.Timer(PATIENCE, demo.process.kill)  # ends the reading of a demo that hangs
        guard.daemon = True
        guard.start()
        return demo

    yield _start
    for demo in started:
        demo.process.kill()
        demo.process.communicate()
        for left in demo.family:
            with contextlib.suppress(psutil.NoSuchProcess):  # it may end at this moment
                left.kill()


def test_everything_produced_is_delivered_and_shown_and_nothing_is_left_behind(start: Any) -> None:
    demo = start()
    demo.await_family(5)  # from the beginning, so that none has ended before it was seen
    rest, errors = demo.end()
    assert demo.process.returncode == 0, errors
    assert len(demo.family) == 5, "a broker, two producers and a worker of each"
    numbers = re.search(
        r"produced (\d+) \(data-1 (\d+), data-2 (\d+)\) = delivered (\d+) = trained on (\d+); 0 missing", rest
    )
    assert numbers is not None, rest
    total, first, second, delivered, trained = map(int, numbers.groups())
    said = re.match(r"(\d+) photographs of \d+ classes; each producer sends (\d+) passes", rest)
    assert said is not None
    photographs, passes = map(int, said.groups())
    assert total == first + second == delivered == trained
    assert 0 < min(first, second) <= max(first, second) <= photographs * passes
    assert "queue" in rest
    assert re.search(r"bottleneck: the (trainer|pipelines|last hop) \(.*waited \d+%", rest)
    sheet = cv2.imread(str(demo.cwd / "dfserve-demo.png"))
    assert sheet is not None
    assert sheet.std() > 20, "it shows pictures"
    assert str(demo.cwd / "dfserve-demo.png") in rest
    assert demo.left_over() == ([], [])


def test_a_folder_of_any_shape_with_photographs_will_do_and_is_passed_over_again_and_again(start: Any) -> None:
    demo = start(str(PHOTOS))
    rest, errors = demo.end()
    assert demo.process.returncode == 0, errors
    produced = re.search(r"produced (\d+) \(data-1 (\d+), data-2 (\d+)\) = delivered \1 = trained on \1;", rest)
    assert produced is not None, rest
    # Of so few photographs a slow machine, too, sends more than one pass in the time that a producer has.
    assert min(int(produced[2]), int(produced[3])) > len(list(PHOTOS.iterdir()))


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_told_to_stop_takes_everything_with_it(start: Any, signum: signal.Signals) -> None:
    demo = start(endless=True)
    demo.lines_until("queue")
    demo.process.send_signal(signum)
    _, errors = demo.end()
    assert demo.process.returncode == 128 + signum
    assert "Traceback" not in errors
    assert demo.left_over() == ([], [])


def test_a_demo_that_is_killed_leaves_no_process(start: Any) -> None:
    demo = start(endless=True)
    demo.lines_until("queue")
    demo.process.kill()
    demo.end()
    assert demo.left_over()[0] == []


def test_a_photograph_that_cannot_be_read_is_named_and_ends_the_demo(start: Any, tmp_path: Path) -> None:
    shutil.copytree(PHOTOS, tmp_path / "mine")
    (tmp_path / "mine" / "torn.jpg").write_bytes(b"no image")
    demo = start("mine")
    _, errors = demo.end()
    assert demo.process.returncode == 3
    assert f"{tmp_path / 'mine' / 'torn.jpg'}" in errors
    assert demo.left_over() == ([], [])


@pytest.mark.parametrize(("folder", "text"), [("empty", "no photographs below"), ("absent", "there is no folder")])
def test_a_folder_without_photographs_is_an_error_that_says_so(
    start: Any, tmp_path: Path, folder: str, text: str
) -> None:
    (tmp_path / "empty").mkdir()
    demo = start(folder)
    _, errors = demo.end()
    assert demo.process.returncode == 2
    assert f"{text} {tmp_path / folder}" in errors

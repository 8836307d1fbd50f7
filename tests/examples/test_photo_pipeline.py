"""The pipeline that docker-compose.yml runs by default."""

from __future__ import annotations

import re
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def make() -> Callable[..., Any]:
    factory: Callable[..., Any] = runpy.run_path(str(EXAMPLES / "photo_pipeline.py"))["make"]
    return factory


def test_every_photograph_comes_once_in_a_pass_as_a_square_with_its_name(make: Callable[..., Any]) -> None:
    pipeline = make(str(EXAMPLES / "photos"))
    pipeline.reset_state()
    images = {name: image for image, name in pipeline}
    assert len(pipeline) == len(images)
    assert set(images) == {"astronaut.jpg", "chelsea.jpg", "coffee.jpg", "rocket.jpg"}
    assert {(image.shape, image.dtype) for image in images.values()} == {((224, 224, 3), np.dtype("uint8"))}


def test_the_channels_are_red_green_blue(make: Callable[..., Any]) -> None:
    pipeline = make(str(EXAMPLES / "photos"), size=64)
    pipeline.reset_state()
    (astronaut,) = [image for image, name in pipeline if name == "astronaut.jpg"]
    red, _, blue = astronaut.mean(axis=(0, 1))
    assert red > blue, "the suit is orange"


def test_photographs_are_found_in_the_current_folder_at_any_depth(
    make: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cats" / "indoors").mkdir(parents=True)
    shutil.copy(EXAMPLES / "photos" / "chelsea.jpg", tmp_path / "cats" / "indoors" / "Chelsea.JPG")
    monkeypatch.chdir(tmp_path)
    pipeline = make()
    pipeline.reset_state()
    assert [name for _, name in pipeline] == ["cats/indoors/Chelsea.JPG"]


def test_a_folder_without_photographs_is_an_error_that_names_it(make: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path))):
        make(str(tmp_path))


def test_a_file_that_is_no_image_is_an_error_that_names_it(make: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "torn.jpg").write_bytes(b"not an image")
    pipeline = make(str(tmp_path))
    pipeline.reset_state()
    with pytest.raises(ValueError, match=r"torn\.jpg cannot be read"):
        list(pipeline)

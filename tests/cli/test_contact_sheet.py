"""The picture of what arrived."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from dfserve.cli.contact_sheet import CAPTION, COLUMNS, MARGIN, TILE, TITLE, ContactSheet


def tile_colours(file: Path) -> list[int]:
    """Return the grey level in the middle of each place of a sheet."""
    sheet = cv2.imread(str(file))
    assert sheet is not None
    height, width = TILE + CAPTION + 2 * MARGIN, TILE + 2 * MARGIN
    rows = range(TITLE + MARGIN + TILE // 2, sheet.shape[0], height)
    return [int(sheet[y, x, 0]) for y in rows for x in range(MARGIN + TILE // 2, sheet.shape[1], width)]


@pytest.mark.parametrize("count", [1, COLUMNS, COLUMNS + 1])
def test_each_picture_has_its_place_in_the_order_of_arrival(tmp_path: Path, count: int) -> None:
    sheet = ContactSheet()
    for grey in range(count):
        sheet.add(np.full((30, 50, 3), grey, np.uint8), ("name", "data-1 #0"))
    sheet.write(tmp_path / "sheet.png", "title")
    blank = -count % COLUMNS
    assert tile_colours(tmp_path / "sheet.png") == [*range(count), *[255] * blank]


def test_of_many_pictures_a_sample_of_all_of_them_is_kept(tmp_path: Path) -> None:
    sheet = ContactSheet(places=COLUMNS)
    for grey in range(250):
        sheet.add(np.full((8, 8, 3), grey, np.uint8), ("name", "data-1 #0"))
    sheet.write(tmp_path / "sheet.png", "title")
    shown = tile_colours(tmp_path / "sheet.png")
    assert len(shown) == COLUMNS
    assert shown == sorted(shown)
    assert shown[0] < 125 < shown[-1], "early ones and late ones"


def test_a_caption_in_another_script_is_no_error(tmp_path: Path) -> None:
    sheet = ContactSheet()
    sheet.add(np.zeros((8, 8, 3), np.uint8), ("猫", "données #1"))
    sheet.write(tmp_path / "sheet.png", "título")
    assert tile_colours(tmp_path / "sheet.png")[0] == 0

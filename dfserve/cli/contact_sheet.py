"""Owns the contact sheet: a PNG that shows a sample of what arrived, with captions."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import cv2
import numpy as np

COLUMNS, ROWS = 8, 5
TILE = 128  # pixels of a picture's edge
CAPTION = 30  # pixels below it for two lines of text
MARGIN = 4  # pixels around each tile
TITLE = 28  # pixels for the line on top
PAPER, INK = 255, (40, 40, 40)  # grey level; BGR
FONT = cv2.FONT_HERSHEY_SIMPLEX
FONT_SCALE = 0.36  # 18 characters fit under a picture


class ContactSheet:
    """A uniform sample of the pictures that it was shown: each has the same chance, however many there are."""

    def __init__(self, places: int = COLUMNS * ROWS) -> None:
        self._places = places
        self._tiles: list[tuple[int, Any]] = []  # (which of the pictures shown it was, the tile)
        self._seen = 0
        self._random = random.Random(0)  # noqa: S311  # a sample, not a secret

    def add(self, image: Any, caption: tuple[str, str]) -> None:
        """Show it a picture, uint8 BGR of any size; it keeps a small copy or nothing."""
        self._seen += 1
        if len(self._tiles) < self._places:
            self._tiles.append((self._seen, _tile(image, caption)))
        elif (place := self._random.randrange(self._seen)) < self._places:
            self._tiles[place] = (self._seen, _tile(image, caption))

    def write(self, file: Path, title: str) -> None:
        """Write the sample as a PNG, in the order of arrival.

        Raises:
            OSError: it cannot be written.
        """
        tiles = [tile for _, tile in sorted(self._tiles, key=lambda entry: entry[0])]
        empty = _blank(TILE + CAPTION + 2 * MARGIN, TILE + 2 * MARGIN)
        tiles += [empty] * (-len(tiles) % COLUMNS)
        rows = [np.hstack(tiles[start : start + COLUMNS]) for start in range(0, len(tiles), COLUMNS)]
        head = _blank(TITLE, COLUMNS * (TILE + 2 * MARGIN))
        _write(head, title, MARGIN, TITLE - 9, 0.5)
        fine, png = cv2.imencode(".png", np.vstack([head, *rows]))
        assert fine
        file.write_bytes(png.tobytes())


def _tile(image: Any, caption: tuple[str, str]) -> Any:
    tile = _blank(TILE + CAPTION + 2 * MARGIN, TILE + 2 * MARGIN)
    tile[MARGIN : MARGIN + TILE, MARGIN : MARGIN + TILE] = cv2.resize(image, (TILE, TILE), interpolation=cv2.INTER_AREA)
    for number, line in enumerate(caption, 1):
        _write(tile, line, MARGIN, MARGIN + TILE + number * CAPTION // 2 - 3, FONT_SCALE)
    return tile


def _blank(height: int, width: int) -> Any:
    return np.full((height, width, 3), PAPER, np.uint8)


def _write(paper: Any, text: str, x: int, y: int, scale: float) -> None:
    printable = text.encode("ascii", "replace").decode()  # the font has no other characters
    cv2.putText(paper, printable, (x, y), FONT, scale, INK, 1, cv2.LINE_AA)

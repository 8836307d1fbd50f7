"""Owns what the tests of the DataFlow library share: an ImageNet-shaped folder of real photographs, and tensorpack."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from dfserve.dataflow import rng

PHOTOS = {"n01440764": ["astronaut", "chelsea"], "n01443537": ["coffee", "rocket", "retina"]}


@pytest.fixture(autouse=True)
def _no_fixed_seed() -> Iterator[None]:
    """A seed is the whole process's: neither an earlier test's is to be here, nor this one's in a later one."""
    rng.take_place(rng.Place())
    yield
    rng.take_place(rng.Place())


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train/<synset>/<photo>.JPEG: two synsets, five photographs of several sizes. Not to be changed."""
    cv2 = pytest.importorskip("cv2")
    data = pytest.importorskip("skimage.data")
    root = tmp_path_factory.mktemp("imagenet")
    for synset, names in PHOTOS.items():
        (root / "train" / synset).mkdir(parents=True)
        for name in names:
            rgb = getattr(data, name)()
            height, width = rgb.shape[:2]
            small = cv2.resize(rgb, (width // 2, height // 2))
            assert cv2.imwrite(str(root / "train" / synset / f"{synset}_{name}.JPEG"), small[:, :, ::-1])
    return root


@pytest.fixture(scope="session")
def jpegs(photographs: Path) -> list[bytes]:
    """Real photographs, encoded."""
    return [file.read_bytes() for file in sorted(photographs.glob("train/*/*.JPEG"))]


@pytest.fixture(scope="session")
def tensorpack() -> ModuleType:
    """tensorpack.dataflow, to compare with; the test is skipped where it is not installed."""
    with warnings.catch_warnings():
        # Its code is from 2020: importing it meets what Python, numpy and pkg_resources have deprecated since.
        warnings.simplefilter("ignore")
        module: ModuleType = pytest.importorskip("tensorpack.dataflow")
    return module

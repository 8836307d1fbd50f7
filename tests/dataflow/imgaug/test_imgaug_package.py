"""The package of augmentors: its names are tensorpack's, and so are its signatures."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from types import ModuleType

import pytest

from dfserve.dataflow import imgaug


def positional(function: object) -> list[tuple[str, object]]:
    parameters = inspect.signature(function).parameters.values()
    return [(p.name, p.default) for p in parameters if p.kind is not inspect.Parameter.KEYWORD_ONLY]


@pytest.mark.parametrize("name", imgaug.__all__)
def test_signatures_begin_as_tensorpacks(tensorpack: ModuleType, name: str) -> None:
    of_transforms = importlib.import_module(f"{tensorpack.__name__}.imgaug.transform")
    theirs = getattr(tensorpack.imgaug, name, None) or getattr(of_transforms, name)
    assert positional(getattr(imgaug, name)) == positional(theirs)


def test_every_name_of_all_is_there_once_and_in_order() -> None:
    assert sorted(set(imgaug.__all__)) == imgaug.__all__
    assert all(hasattr(imgaug, name) for name in imgaug.__all__)


def test_without_opencv_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['cv2'] = None; import dfserve.dataflow as d; d.imgaug.Flip"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'dfserve[producer]'" in result.stderr
    assert result.stderr.strip().splitlines()[-1].startswith("ImportError")

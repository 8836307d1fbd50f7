"""Owns the check that docs/migrating-from-tensorpack.md has every name, with its signature and its test.

A row that is missing or wrong fails with the row as it should be, to be copied into the page.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dfserve import dataflow
from dfserve.dataflow import dataset, imgaug

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "migrating-from-tensorpack.md").read_text()
ROW = re.compile(r"^\| `([\w.]+)(\(.*\))` \| `(tests/[\w/]+\.py)` \|$", re.MULTILINE)
ROWS = ROW.findall(PAGE)  # name, signature, test
PAIR = re.compile(r'(\w+)="(\w+)"')

# What is used through these and not through a constructor, or returns what has no name of its own.
METHODS = {
    "HDF5Serializer": ("save", "load"),
    "LMDBSerializer": ("save", "load"),
    "NumpySerializer": ("save", "load"),
    "TFRecordSerializer": ("save", "load"),
    "NetworkImages": ("", "parallel", "partitioning"),
}
# tensorpack has them only where TensorFlow is installed.
NEEDS_TENSORFLOW = {"TFRecordSerializer.save", "TFRecordSerializer.load"}
# What `from tensorpack.dataflow import *` brings beside its classes and functions.
NO_API = {"STATICA_HACK", "global_import", "iter_modules", "module_name", "srcpath"}


def public() -> dict[str, Any]:
    """Return what has a signature, by its name in the page: `Class`, `function` or `Class.method`."""
    found = {}
    for module in (dataflow, imgaug, dataset):
        for name in module.__all__:
            thing = getattr(module, name)
            if not isinstance(thing, ModuleType):
                for method in METHODS.get(name, ("",)):
                    found[f"{name}.{method}".rstrip(".")] = getattr(thing, method) if method else thing
    return found


def signature(function: Any) -> str:
    """Return the signature as `inspect` gives it, without types and without `self`."""
    found = inspect.signature(function)
    bare = [p.replace(annotation=p.empty) for p in found.parameters.values() if p.name != "self"]
    return str(found.replace(parameters=bare, return_annotation=found.empty))


def of_kind(function: Any, *kinds: Any) -> dict[str, Any]:
    """Return names and defaults of the parameters of these kinds, in order."""
    return {p.name: p.default for p in inspect.signature(function).parameters.values() if p.kind in kinds}


def positional(function: Any) -> list[tuple[str, Any]]:
    parameter = inspect.Parameter
    kinds = (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD, parameter.VAR_POSITIONAL)
    return list(of_kind(function, *kinds).items())


def test_every_public_name_has_a_row_with_its_signature_and_no_other_name_has() -> None:
    right = {name: signature(function) for name, function in public().items()}
    written = {name: (text, test) for name, text, test in ROWS}
    wrong = [
        f"| `{name}{text}` | `{written.get(name, ('', 'tests/?'))[1]}` |"
        for name, text in right.items()
        if written.get(name, ("", ""))[0] != text
    ]
    assert not wrong, "rows for the page:\n" + "\n".join(wrong)
    assert [name for name, _, _ in ROWS if name not in right] == [], "rows without such a name in the code"
    assert len(ROWS) == len(right), "a name has two rows"


def test_every_row_names_a_test_that_speaks_of_it() -> None:
    texts = {test: (ROOT / test).read_text() for _, _, test in ROWS}
    silent = [
        f"{test} does not mention {name}"
        for name, _, test in ROWS
        if not all(re.search(rf"\b{part}\b", texts[test]) for part in name.split("."))
    ]
    assert silent == []


def import_tensorpack() -> ModuleType:
    with warnings.catch_warnings():
        # Its code is from 2020: importing it meets what Python, numpy and pkg_resources have deprecated since.
        warnings.simplefilter("ignore")
        module: ModuleType = pytest.importorskip("tensorpack.dataflow")
        for lazy in (module.imgaug, module.dataset):  # empty until the first look at a name of theirs
            assert lazy.__all__
    return module


def in_tensorpack(tensorpack: ModuleType) -> dict[str, Any]:
    """Return what tensorpack has under the same names."""
    transforms = importlib.import_module("tensorpack.dataflow.imgaug.transform")  # not all of which imgaug exports
    places = (tensorpack, tensorpack.imgaug, transforms, tensorpack.dataset)
    found = {}
    for full_name in public().keys() - NEEDS_TENSORFLOW:
        name, _, method = full_name.partition(".")
        theirs = next((getattr(place, name) for place in places if hasattr(place, name)), None)
        if theirs is not None:
            found[full_name] = getattr(theirs, method) if method else theirs
    return found


def test_signatures_begin_as_tensorpacks_and_have_its_keywords() -> None:
    ours = public()
    theirs = in_tensorpack(import_tensorpack())
    assert len(theirs) > 100, "most of the names are tensorpack's"
    different = [
        f"{name}: tensorpack has {signature(function)}, dfserve {signature(ours[name])}"
        for name, function in theirs.items()
        if positional(function) != positional(ours[name])
        or not of_kind(function, inspect.Parameter.KEYWORD_ONLY).items()
        <= of_kind(ours[name], inspect.Parameter.KEYWORD_ONLY).items()
    ]
    assert different == []


def test_the_names_that_the_page_calls_not_offered_are_all_that_tensorpack_has_and_dfserve_has_not() -> None:
    tensorpack = import_tensorpack()
    missing = set()
    for theirs, ours in ((tensorpack, dataflow), (tensorpack.imgaug, imgaug), (tensorpack.dataset, dataset)):
        names = {name for name, value in vars(theirs).items() if not isinstance(value, ModuleType)}
        missing |= {name for name in names - NO_API if not name.startswith("_") and not hasattr(ours, name)}
    missing -= set(dataflow.__all__)  # which tensorpack's data sets import
    section = PAGE.split("## Not offered")[1].split("\n## ")[0]
    rows = re.findall(r"^\|(.*?)\|", section, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == missing


def test_tensorpacks_second_names_are_the_same_classes() -> None:
    assert dataflow.PrefetchData is dataflow.MultiProcessPrefetchData is dataflow.MultiProcessRunner
    assert dataflow.PrefetchDataZMQ is dataflow.MultiProcessRunnerZMQ
    assert dataflow.MultiThreadPrefetchData is dataflow.MultiThreadRunner
    assert dataflow.MultiProcessMapDataZMQ is dataflow.MultiProcessMapData
    assert dataflow.MultiProcessMapAndBatchDataZMQ is dataflow.MultiProcessMapAndBatchData
    assert imgaug.Augmentor is imgaug.ImageAugmentor


def test_the_old_keywords_of_the_page_work_with_a_warning() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| (.*) \|$", PAGE.split("### Old keywords")[1], re.MULTILINE)
    sources = [path.read_text() for path in (ROOT / "dfserve" / "dataflow").rglob("*.py")]
    renamed = {
        pair for text in sources for line in re.findall(r"@old_keywords\((.*)\)", text) for pair in PAIR.findall(line)
    }
    assert {(old, new) for old, new, _ in rows} == renamed
    for old, new, names in rows:
        for name in re.findall(r"`(\w+)`", names):
            with pytest.warns(DeprecationWarning, match=f"{old} is the old name of {new}"), pytest.raises(TypeError):
                getattr(dataflow, name)(**{old: 1, "no_such_argument": 1})


def test_the_code_of_the_page_runs(tmp_path: Path) -> None:
    blocks = re.findall(r"^<!-- test -->\n```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) == PAGE.count("<!-- test -->") > 0
    for block in blocks:
        # In a process of its own: it sets the seed of the whole process.
        command, environment = [sys.executable, "-c", block], {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=90)

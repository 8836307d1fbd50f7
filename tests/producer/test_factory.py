"""MODULE:FACTORY: found, told apart when wrong, and called with what the command line gives."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dfserve
from dfserve.errors import ConfigError, FactoryError
from dfserve.producer.factory import build, load_factory, parse_args, parse_args_of, parse_pipelines


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder; what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        del sys.modules[name]


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def test_a_factory_is_found_in_the_current_folder(here: Path) -> None:
    write(here, "pipe_found.py", "def train(): return [[1], [2]]\n")
    assert list(build(load_factory("pipe_found:train"), {})) == [[1], [2]]


def test_modules_and_attributes_may_be_dotted(here: Path) -> None:
    write(here, "project_dotted/__init__.py", "")
    write(here, "project_dotted/data.py", "class Loaders:\n    @staticmethod\n    def train(): return [[3]]\n")
    assert list(build(load_factory("project_dotted.data:Loaders.train"), {})) == [[3]]


def test_a_users_own_producer_py_comes_before_a_checkout_of_dfserve(tmp_path: Path) -> None:
    checkout = Path(dfserve.__path__[0]).resolve().parent
    installed = tmp_path / "checkout" / "producer"  # what an editable install puts on the path, wherever we run from
    write(installed, "__init__.py", "")
    write(tmp_path, "mine/producer.py", "def train(): return [['mine']]\n")
    code = (
        "from dfserve.producer.factory import build, load_factory\n"
        "print(list(build(load_factory('producer:train'), {})))"
    )
    path = os.pathsep.join([str(installed.parent), str(checkout)])
    result = subprocess.run(
        [sys.executable, "-P" if sys.version_info >= (3, 11) else "-B", "-c", code],
        cwd=tmp_path / "mine",
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout.strip() == "[['mine']]", result.stderr


def test_a_module_that_does_not_exist_is_said_to_be_missing(here: Path) -> None:
    write(here, "pipeline_near.py", "def train(): return []\n")
    with pytest.raises(FactoryError, match=r"no module 'pipelin_near'") as caught:
        load_factory("pipelin_near:train")
    assert str(here) in str(caught.value)
    assert "did you mean pipeline_near?" in str(caught.value)
    write(here, "project_lacking/__init__.py", "")
    with pytest.raises(FactoryError, match=r"no module 'project_lacking\.data'"):
        load_factory("project_lacking.data:train")


def test_an_attribute_that_does_not_exist_is_named_with_its_near_ones(here: Path) -> None:
    write(here, "pipe_near.py", "def train_set(): return []\ndef val_set(): return []\n_hidden = 1\n")
    with pytest.raises(FactoryError, match=r"has no 'trian_set'.*did you mean train_set") as caught:
        load_factory("pipe_near:trian_set")
    assert str(here / "pipe_near.py") in str(caught.value)
    with pytest.raises(FactoryError, match="did you mean train_set, val_set"):
        load_factory("pipe_near:xyz")
    with pytest.raises(FactoryError, match="has no 'deeper'"):
        load_factory("pipe_near:train_set.deeper")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import a_package_that_is_missing\n", "No module named 'a_package_that_is_missing'"),
        ("from os import nothing_like_this\n", "cannot import name 'nothing_like_this'"),
        ("def broken(:\n", "SyntaxError"),
        ("x = 1 / 0\n", "ZeroDivisionError"),
        ("raise SystemExit(2)\n", "__name__ == '__main__'"),
    ],
)
def test_an_error_inside_the_users_module_is_shown_and_not_called_a_missing_module(
    here: Path, text: str, found: str
) -> None:
    write(here, "pipe_inside.py", "# first line\n" + text)
    with pytest.raises(FactoryError, match="was found, but fails while it is imported") as caught:
        load_factory("pipe_inside:train")
    message = str(caught.value)
    assert found in message
    assert "pipe_inside.py" in message
    assert "line 2" in message
    assert "importlib" not in message
    assert "no module" not in message


def test_an_error_in_a_module_that_the_users_module_imports_is_shown_too(here: Path) -> None:
    write(here, "pipe_outer.py", "import pipe_inner\n")
    write(here, "pipe_inner.py", "import a_package_that_is_missing\n")
    with pytest.raises(FactoryError, match="was found, but fails") as caught:
        load_factory("pipe_outer:train")
    assert "pipe_inner.py" in str(caught.value)


def test_a_file_that_another_module_hides_is_pointed_out(here: Path) -> None:
    write(here, "json.py", "def train(): return []\n")
    with pytest.raises(FactoryError, match="already had a module 'json': rename it"):
        load_factory("json:train")


def test_a_value_that_is_no_function_is_refused(here: Path) -> None:
    write(here, "pipe_value.py", "train = [[1]]\n")
    with pytest.raises(FactoryError, match="is a list, not a function"):
        load_factory("pipe_value:train")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pipe", "MODULE:FACTORY"),
        ("pipe:", "MODULE:FACTORY"),
        (":train", "MODULE:FACTORY"),
        ("pipe:train()", "MODULE:FACTORY"),
        ("pipe.py:train", "pipe:train"),
        ("./project/pipe.py:train", "project.pipe:train"),
    ],
)
def test_a_malformed_name_is_refused_with_the_right_form(here: Path, name: str, text: str) -> None:
    with pytest.raises(FactoryError, match=text):
        load_factory(name)


def test_arguments_parse_as_json_or_else_as_text() -> None:
    pairs = ["n=3", "f=0.5", "flag=true", "none=null", "l=[1, 2]", "path=/data/train", "empty=", "eq=a=b", 's="7"']
    assert parse_args(pairs) == {
        "n": 3,
        "f": 0.5,
        "flag": True,
        "none": None,
        "l": [1, 2],
        "path": "/data/train",
        "empty": "",
        "eq": "a=b",
        "s": "7",
    }


@pytest.mark.parametrize(
    ("pairs", "text"),
    [
        (["size"], "no '='"),
        (["=3"], "cannot be the name"),
        (["a-b=3"], "'a-b' cannot be the name"),
        (["class=3"], "'class' cannot be the name"),
        (["a=1", "a=2"], "--arg a is given twice"),
    ],
)
def test_arguments_that_cannot_be_are_refused(pairs: list[str], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        parse_args(pairs)


@given(st.text())
def test_any_text_is_a_value(text: str) -> None:
    assert list(parse_args([f"key={text}"])) == ["key"]


def test_arguments_that_do_not_fit_the_factory_are_told_with_its_signature() -> None:
    def train(folder: str, size: int = 224) -> Any:
        return [[folder, size]]

    assert list(build(train, {"folder": "x"})) == [["x", 224]]
    with pytest.raises(
        FactoryError, match=r"train\(folder: .*with no arguments: missing a required argument: 'folder'"
    ):
        build(train, {})
    with pytest.raises(FactoryError, match="unexpected keyword argument 'sise'"):
        build(train, {"folder": "x", "sise": 3})


def test_what_the_factory_itself_raises_goes_through() -> None:
    def train() -> Any:
        raise FileNotFoundError("/data/train")

    with pytest.raises(FileNotFoundError):
        build(train, {})

    def mixes_types() -> Any:
        return len(3)  # type: ignore[arg-type]

    with pytest.raises(TypeError, match="has no len"):
        build(mixes_types, {})


def test_a_factory_that_returns_no_pipeline_is_named() -> None:
    def train() -> Any:
        return None

    with pytest.raises(FactoryError, match=r"train returned no pipeline: None \(is a 'return' missing\?\)"):
        build(train, {})


def test_what_a_factory_draws_is_the_same_in_all_processes_and_its_caller_draws_on(here: Path) -> None:
    (here / "pipe_split.py").write_text(
        "import random\nimport numpy as np\n"
        "ORDER = np.random.permutation(100).tolist()\n"
        "def split():\n    random.shuffle(ORDER_HERE := ORDER.copy())\n    return ORDER_HERE\n"
        "def train():\n    return split()[:80]\n"
        "def val():\n    return split()[80:]\n"
    )
    code = (
        "from dfserve.producer.factory import build, load_factory\n"
        "import numpy as np, random\n"
        "print([d[0] for name in ('train', 'val') for d in build(load_factory('pipe_split:' + name), {})])\n"
        "print(np.random.rand(), random.random())"
    )
    told = [
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=here).stdout
        for _ in range(2)
    ]
    (first, after), (second, after_second) = (text.splitlines() for text in told)
    assert first == second
    assert sorted(json.loads(first)) == list(range(100)), "no item is in both parts"
    assert after != after_second


def test_a_class_is_a_factory_of_its_instances() -> None:
    class Numbers:
        def __init__(self, length: int = 2) -> None:
            self.length = length

        def __len__(self) -> int:
            return self.length

        def __getitem__(self, index: int) -> Any:
            return index, -index

    assert list(build(Numbers, {"length": 3})) == [(0, 0), (1, -1), (2, -2)]


def test_pipelines_have_the_names_that_they_are_given() -> None:
    assert parse_pipelines(["pipe:make"], "default") == {"default": "pipe:make"}
    assert parse_pipelines(["train=pipe:a", "val=pipe:b", "pipe:c"], "default") == {
        "train": "pipe:a",
        "val": "pipe:b",
        "default": "pipe:c",
    }


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["=pipe:a"], "'=pipe:a': a pipeline's name has 1 to 256 characters"),
        (["x" * 257 + "=pipe:a"], "a pipeline's name has 1 to 256 characters"),
        (["a:b", "c:d"], "two pipelines are called 'default': a:b and c:d"),
        (["val=a:b", "val=c:d"], "give each a name of its own, as in train=pipe:train val=pipe:val"),
    ],
)
def test_names_that_cannot_be_are_refused(words: list[str], text: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(text)):
        parse_pipelines(words, "default")


def test_arguments_are_for_all_pipelines_or_for_the_one_that_they_name() -> None:
    pairs = ["size=1", "train.size=2", "val.crop=a.b=c"]
    assert parse_args_of(["train", "val"], pairs) == {"train": {"size": 2}, "val": {"size": 1, "crop": "a.b=c"}}
    with pytest.raises(ConfigError, match="there is no pipeline 'vla'; there are train, val"):
        parse_args_of(["train", "val"], ["vla.size=1"])

"""The rules of the source tree: who may import whom, what a module says of itself, and how large it may grow."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROLES = ("producer", "broker", "consumer")
# What puts the roles together, and so may import them; nothing below may import these in turn.
TOP = ("dfserve", "dfserve.cli", "dfserve.testing")
# A trainer's environment is delicate: `import dfserve` must bring none of these in. They belong to extras, or to users.
HEAVY = (
    "cv2", "google_crc32c", "h5py", "lmdb", "lz4", "prometheus_client", "skimage", "tensorflow", "torch", "tqdm",
    "urllib3", "zstandard",
)  # fmt: skip
LONGEST = 500  # lines; more than that is more than one idea


def package_files() -> dict[str, Path]:
    """Return every module of the package by its name, the roles at their real place."""
    folders = {"dfserve": ROOT / "dfserve"} | {f"dfserve.{role}": ROOT / role for role in ROLES}
    return {
        ".".join([package, *path.relative_to(folder).with_suffix("").parts]).removesuffix(".__init__"): path
        for package, folder in folders.items()
        for path in folder.rglob("*.py")
        if package != "dfserve" or path.relative_to(folder).parts[0] not in ROLES
    }


MODULES = package_files()
# In an order that is the same in every process of pytest-xdist.
DESCRIBED = sorted(MODULES.values()) + [
    path for folder in ("benchmarks", "deploy", "examples") for path in sorted((ROOT / folder).rglob("*.py"))
]


def imported_names(source: str, module: str, is_package: bool) -> Iterator[str]:
    """Yield the full name of everything that the source of ``module`` imports, also inside functions."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            up = module.split(".")
            up = up[: len(up) - node.level + is_package]
            base = ".".join([*(up if node.level else []), *([node.module] if node.module else [])])
            # `from dfserve import broker` names a module as well as `import dfserve.broker` does.
            yield from (f"{base}.{alias.name}" for alias in node.names)


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def role_of(name: str) -> str | None:
    return next((role for role in ROLES if within(name, f"dfserve.{role}")), None)


def is_top(name: str) -> bool:
    return name == "dfserve" or any(within(name, top) for top in TOP[1:])


def forbidden_imports(module: str, imported: Iterator[str]) -> list[str]:
    if is_top(module):
        return []
    own = role_of(module)
    return [name for name in imported if role_of(name) not in (None, own) or any(within(name, top) for top in TOP[1:])]


@pytest.mark.parametrize(
    ("module", "line", "forbidden"),
    [
        ("dfserve.wire.values", "import dfserve.broker.core", True),
        ("dfserve.wire.values", "from dfserve import consumer", True),
        ("dfserve.wire.values", "from dfserve.producer.factory import build", True),
        ("dfserve.wire.values", "def f():\n    from dfserve.broker import core", True),
        ("dfserve.wire.values", "from ..broker import core", True),
        ("dfserve.consumer.remote", "from dfserve.broker.core import Core", True),
        ("dfserve.consumer.remote", "from ..broker.core import Core", True),
        ("dfserve.consumer.remote", "from dfserve.cli import main", True),
        ("dfserve.consumer.remote", "from .session import Session", False),
        ("dfserve.consumer.remote", "from dfserve.wire import messages", False),
        ("dfserve.wire.values", "import brokerage, dfserve.brokers", False),
        ("dfserve.cli.demo", "from dfserve.broker import core", False),
    ],
)
def test_the_search_for_imports_tells_the_forbidden_from_the_allowed(module: str, line: str, forbidden: bool) -> None:
    assert bool(forbidden_imports(module, imported_names(line, module, is_package=False))) is forbidden


def test_every_role_is_a_real_folder_that_the_package_links_to_by_a_relative_path() -> None:
    for role in ROLES:
        assert (ROOT / role).is_dir()
        assert not (ROOT / role).is_symlink()
        assert (ROOT / "dfserve" / role).readlink() == Path("..", role)
        assert f"dfserve.{role}" in MODULES


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_no_role_but_its_own(module: str) -> None:
    path = MODULES[module]
    imported = imported_names(path.read_text(), module, path.name == "__init__.py")
    assert forbidden_imports(module, imported) == []


@pytest.mark.parametrize("path", DESCRIBED, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_says_in_its_first_line_what_it_owns_and_owns_one_thing(path: Path) -> None:
    text = path.read_text()
    assert text.startswith('"""Owns '), f"{path}: the first line is a docstring that says what the module owns"
    lines = len(text.splitlines())
    assert lines <= LONGEST, f"{path} has {lines} lines: which two ideas are in it?"


def test_importing_dfserve_brings_in_none_of_the_heavy_packages() -> None:
    script = (
        "import json, sys, dfserve, dfserve.dataflow; from dfserve import RemoteDataZMQ, send_dataflow_zmq;"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stdout))
    assert "dfserve" in loaded
    assert loaded.isdisjoint(HEAVY), f"import dfserve loads {sorted(loaded.intersection(HEAVY))}"

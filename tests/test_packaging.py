"""What a user installs: the source archive, the wheel that is built from it, and a checkout that came out wrong."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROLES = ("producer", "broker", "consumer")
# What no clone has. The rest is copied as it is, links as links.
NOT_COPIED = shutil.ignore_patterns(".git", ".venv*", "__pycache__", ".*_cache", ".hypothesis", "dist", "demo-out")

# The builds and the clean environment fetch hatchling and the dependencies from the package index.
pytestmark = pytest.mark.timeout(600)


def run(*command: str | Path, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run to the end, with these variables besides the environment's; its PYTHONPATH is not passed on."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | variables
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )


def succeed(*command: str | Path, cwd: Path, **variables: str) -> str:
    done = run(*command, cwd=cwd, **variables)
    assert done.returncode == 0, f"{command} exits with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("packaging") / "checkout"
    return Path(shutil.copytree(ROOT, copy, symlinks=True, ignore=NOT_COPIED))


@pytest.fixture(scope="module")
def archives(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The source archive, and the wheel that `build` makes from the unpacked archive."""
    out = tmp_path_factory.mktemp("dist")
    succeed(sys.executable, "-m", "build", "--outdir", out, checkout, cwd=out)
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel


def source_names(checkout: Path) -> set[str]:
    """Return what the wheel must hold: every module of the package, by its path in it."""
    shared = {path.relative_to(checkout) for path in (checkout / "dfserve").rglob("*.py")}
    roles = {Path("dfserve") / path.relative_to(checkout) for role in ROLES for path in (checkout / role).rglob("*.py")}
    return {path.as_posix() for path in shared | roles}


def test_the_source_archive_holds_what_the_build_needs_and_no_links(
    archives: tuple[Path, Path], checkout: Path
) -> None:
    with tarfile.open(archives[0]) as sdist:
        members = sdist.getmembers()
    assert [member.name for member in members if not member.isfile()] == []
    names = {member.name.partition("/")[2] for member in members}
    assert source_names(checkout) | {"deploy/build_hook.py", "pyproject.toml", "README.md", "LICENSE"} <= names


def test_the_wheel_holds_every_module_once_under_dfserve_and_no_links(
    archives: tuple[Path, Path], checkout: Path
) -> None:
    with zipfile.ZipFile(archives[1]) as wheel:
        entries = wheel.infolist()
    names = [entry.filename for entry in entries]
    assert {name for name in names if name.endswith(".py")} == source_names(checkout)
    assert len(names) == len(set(names))
    assert "dfserve/py.typed" in names
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"dfserve"}
    # The upper half of a zip's external attributes is the file's mode: 0o12.... would be a link.
    assert {entry.filename for entry in entries if entry.external_attr >> 28 == 0o12} == set()


def test_the_wheel_alone_gives_every_role_and_the_command_in_a_clean_environment(
    archives: tuple[Path, Path], tmp_path: Path
) -> None:
    venv.create(tmp_path / "venv", with_pip=True, symlinks=True)
    binaries = tmp_path / "venv" / "bin"
    succeed(binaries / "python", "-m", "pip", "install", "--quiet", archives[1], cwd=tmp_path)
    script = (
        "import dfserve, dfserve.producer, dfserve.broker, dfserve.consumer\n"
        "from dfserve import RemoteDataZMQ, send_dataflow_zmq\n"
        "from dfserve.dataflow import RemoteDataZMQ, send_dataflow_zmq\n"
        "print(dfserve.__file__)"
    )
    place = succeed(binaries / "python", "-c", script, cwd=tmp_path)
    assert Path(place).is_relative_to(tmp_path / "venv")
    version = archives[1].name.split("-")[1]
    assert version in succeed(binaries / "dfserve", "--version", cwd=tmp_path)
    for command in ("produce", "broker", "consume", "demo"):
        assert "Usage" in succeed(binaries / "dfserve", command, "--help", cwd=tmp_path)


def test_every_module_of_the_wheel_imports_where_the_extras_are_installed(
    archives: tuple[Path, Path], tmp_path: Path
) -> None:
    with zipfile.ZipFile(archives[1]) as wheel:
        wheel.extractall(tmp_path)
    script = (
        "import importlib, pkgutil, dfserve\n"
        "names = [m.name for m in pkgutil.walk_packages(dfserve.__path__, 'dfserve.')]\n"
        "modules = [importlib.import_module(n) for n in names if not n.endswith('__main__')]\n"
        "print(*(m.__file__ for m in modules), sep='\\n')"
    )
    files = succeed(sys.executable, "-c", script, cwd=tmp_path, PYTHONPATH=str(tmp_path)).splitlines()
    for role in ROLES:
        assert str(tmp_path / "dfserve" / role / "__init__.py") in files
    assert [file for file in files if not Path(file).is_relative_to(tmp_path)] == []


@pytest.mark.parametrize(
    "command",
    [
        ("build", "--sdist", "--outdir", "out", "."),
        ("build", "--wheel", "--outdir", "out", "."),
        ("pip", "install", "--no-deps", "--target", "out", "."),
        ("pip", "wheel", "--no-deps", "--editable", "."),
    ],
    ids=["sdist", "wheel", "install", "editable"],
)
def test_a_checkout_whose_links_are_text_files_does_not_build(
    command: tuple[str, ...], checkout: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(checkout, tmp_path / "checkout", symlinks=True))
    link = copy / "dfserve" / "broker"
    link.unlink()
    link.write_text("../broker")  # what git leaves with core.symlinks=false
    done = run(sys.executable, "-m", *command, cwd=copy)
    assert done.returncode != 0
    assert "dfserve/broker: not a link to a folder" in done.stdout + done.stderr
    assert "core.symlinks true" in done.stdout + done.stderr
    assert "dfserve/consumer" not in done.stdout + done.stderr

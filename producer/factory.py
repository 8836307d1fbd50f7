"""Owns ``MODULE:FACTORY``: finding the user's factory, its arguments from the command line, and what it returns."""

from __future__ import annotations

import difflib
import importlib
import inspect
import json
import keyword
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from dfserve.dataflow.adapt import as_dataflow
from dfserve.dataflow.base import DataFlow
from dfserve.dataflow.global_rng import drawing_alike
from dfserve.errors import ConfigError, FactoryError
from dfserve.wire.messages import MAX_NAME

_NAMES_SHOWN = 10  # of a module's names in an error: enough to recognise one's own, few enough to read


def load_factory(name: str) -> Callable[..., Any]:
    """Import the factory that ``MODULE:FACTORY`` names.

    The current folder is put first on ``sys.path`` and stays there (the pipeline may import more), so a user's own
    ``producer.py`` comes before anything installed.

    Args:
        name: ``module:attribute``; both may be dotted, as in ``project.data:Loaders.train``.

    Returns:
        The callable. It has not been called.

    Raises:
        FactoryError: the name is malformed, there is no such module or attribute, the attribute is not callable, or the
            module itself fails while it is imported; the message then has its traceback.
    """
    module_name, colon, attribute = name.partition(":")
    names = [*module_name.split("."), *attribute.split(".")]
    if not colon or module_name.endswith(".py") or not all(part.isidentifier() for part in names):
        raise FactoryError(_malformed(name, module_name, attribute))
    here = str(Path.cwd())
    if sys.path[:1] != [here]:
        sys.path.insert(0, here)
        importlib.invalidate_caches()
    factory: Any = _import(module_name, name)
    for part in attribute.split("."):
        factory = _attribute(factory, part, name)
    if not callable(factory):
        raise FactoryError(
            f"{name!r} is a {type(factory).__name__}, not a function: every worker builds a pipeline of its own,"
            " so write a function that returns one"
        )
    return factory  # type: ignore[no-any-return] # callable() narrows Any to nothing more


def parse_args(pairs: Sequence[str]) -> dict[str, Any]:
    """Read ``key=value`` pairs, as ``--arg`` takes them: a value that parses as JSON is that, any other is text.

    Raises:
        ConfigError: no ``=``, a key that is no name of an argument, or a key given twice.
    """
    kwargs: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise ConfigError(f"--arg {pair!r} has no '=': write --arg key=value")
        if not key.isidentifier() or keyword.iskeyword(key):
            raise ConfigError(f"--arg {pair!r}: {key!r} cannot be the name of an argument of a Python function")
        if key in kwargs:
            raise ConfigError(f"--arg {key} is given twice; for several values write --arg {key}='[1, 2]'")
        try:
            kwargs[key] = json.loads(text)
        except ValueError:
            kwargs[key] = text
    return kwargs


def parse_pipelines(words: Sequence[str], default: str) -> dict[str, str]:
    """Read ``[NAME=]MODULE:FACTORY``, as ``dfserve produce`` takes them; one without a name is called ``default``.

    Returns:
        ``MODULE:FACTORY`` by the pipeline's name.

    Raises:
        ConfigError: a name that is empty or too long, or that two have.
    """
    found: dict[str, str] = {}
    for word in words:
        name, equals, factory = word.partition("=")
        if not equals:
            name, factory = default, word
        if not name or len(name) > MAX_NAME:
            raise ConfigError(f"{word!r}: a pipeline's name has 1 to {MAX_NAME} characters, as in train={factory}")
        if name in found:
            raise ConfigError(
                f"two pipelines are called {name!r}: {found[name]} and {factory}; give each a name of its own,"
                " as in train=pipe:train val=pipe:val"
            )
        found[name] = factory
    return found


def parse_args_of(names: Iterable[str], pairs: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Read ``--arg`` for several pipelines: ``key=value`` is for all of them, ``NAME.key=value`` for that one.

    Returns:
        The arguments of each pipeline by its name; its own ones come before those for all.

    Raises:
        ConfigError: as `parse_args`; or there is no pipeline of that name.
    """
    for_all: list[str] = []
    own: dict[str, list[str]] = {name: [] for name in names}
    for pair in pairs:
        name, dot, _ = pair.partition("=")[0].rpartition(".")
        if not dot:
            for_all.append(pair)
        elif name in own:
            own[name].append(pair[len(name) + 1 :])
        else:
            raise ConfigError(f"--arg {pair!r}: there is no pipeline {name!r}; there are {', '.join(own)}")
    return {name: {**parse_args(for_all), **parse_args(mine)} for name, mine in own.items()}


def build(factory: Callable[..., Any], kwargs: dict[str, Any]) -> DataFlow:
    """Call the factory and make a DataFlow of what it returns.

    The global random generators start alike for it in every process, and go on afterwards where they were.

    Raises:
        FactoryError: the arguments do not fit the factory, or what it returns is no pipeline. What the factory itself
            raises goes through unchanged.
    """
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        signature = None  # some callables written in C have none; the call itself will tell
    if signature is not None:
        try:
            signature.bind(**kwargs)
        except TypeError as error:
            raise FactoryError(
                f"the factory {_factory_name(factory)}{signature} cannot be called with"
                f" {', '.join(kwargs) or 'no arguments'}: {error}; give each argument as --arg key=value"
            ) from error
    try:
        with drawing_alike():
            return as_dataflow(factory(**kwargs))
    except FactoryError as error:
        raise FactoryError(f"the factory {_factory_name(factory)} returned no pipeline: {error}") from error


def traceback_in_factory(error: BaseException) -> str:
    """Return the traceback of what a factory raised in `build`, from the factory's own frame on."""
    frames = inside = error.__traceback__
    while frames is not None:
        if frames.tb_frame.f_code.co_filename == __file__:
            inside = frames.tb_next
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, inside)).rstrip()


def _malformed(name: str, module_name: str, attribute: str) -> str:
    if module_name.endswith(".py") or "/" in module_name:
        module = module_name.removesuffix(".py").strip("./").replace("/", ".")
        return (
            f"{name!r} names a file; name the module, as Python imports it from here: {module}:{attribute or 'FACTORY'}"
        )
    return f"{name!r} is not MODULE:FACTORY, e.g. 'pipeline:train' for the function train in ./pipeline.py"


def _import(module_name: str, name: str) -> ModuleType:
    try:
        with drawing_alike(importing=True):
            return importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        frames = _frames_of_user(error.__traceback__)
        if isinstance(error, ModuleNotFoundError) and frames is None:
            raise FactoryError(
                f"there is no module {error.name!r} (for {name!r}) in {Path.cwd()} nor among the installed packages:"
                f" run in the folder that holds it, or put its folder on PYTHONPATH{_near_modules(module_name)}"
            ) from error
        text = "".join(traceback.format_exception(type(error), error, frames)).rstrip()
        exits = isinstance(error, SystemExit)
        advice = "; is it a script? Put what it runs under if __name__ == '__main__'" if exits else ""
        raise FactoryError(
            f"the module {module_name!r} was found, but fails while it is imported{advice}:\n{text}"
        ) from error


def _frames_of_user(frames: TracebackType | None) -> TracebackType | None:
    """Skip the frames of this module and of the import system; None if nothing of the user's had begun to run."""
    machinery = {__file__, importlib.__file__}
    while frames is not None:
        file = frames.tb_frame.f_code.co_filename
        if file not in machinery and not file.startswith("<frozen importlib"):
            return frames
        frames = frames.tb_next
    return None


def _near_modules(module_name: str) -> str:
    here = [path.stem for path in Path.cwd().glob("*.py")]
    near = difflib.get_close_matches(module_name, here, n=3)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _attribute(owner: Any, part: str, name: str) -> Any:
    try:
        return getattr(owner, part)
    except AttributeError as error:
        public = [known for known in dir(owner) if not known.startswith("_")]
        near = difflib.get_close_matches(part, public, n=3) or [
            known for known in public if inspect.isfunction(getattr(owner, known, None))
        ]
        file = getattr(owner, "__file__", None)
        where = f"{owner.__name__} ({file})" if file else getattr(owner, "__name__", repr(owner))
        hint = f"did you mean {', '.join(near[:_NAMES_SHOWN])}?" if near else "it defines no function"
        raise FactoryError(f"{where} has no {part!r} (for {name!r}): {hint}{_shadowed(owner)}") from error


def _shadowed(owner: Any) -> str:
    """Say so when a file of the current folder has the module's name, but another was loaded before it."""
    name, file = getattr(owner, "__name__", ""), getattr(owner, "__file__", None)
    mine = Path.cwd() / f"{name}.py"
    if file and mine.is_file() and not mine.samefile(file):
        return f"; your {mine} was not loaded because Python already had a module {name!r}: rename it"
    return ""


def _factory_name(factory: Callable[..., Any]) -> str:
    return getattr(factory, "__qualname__", None) or repr(factory)

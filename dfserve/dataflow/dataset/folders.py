"""Owns where the files of a data set lie when nobody says where."""

from __future__ import annotations

import os
from pathlib import Path

# The second is tensorpack's, so that what it downloaded is found. (It has no default beside ~/tensorpack_data.)
_VARIABLES = ("DFSERVE_DATASET", "TENSORPACK_DATASET")


def dataset_folder(name: str, given: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of a data set; it need not exist yet.

    Args:
        name: what the data set's folder is called, the same as in tensorpack.
        given: what the user gave as ``dir``. Then this is it, without ``name``.

    Returns:
        ``given``; else ``name`` in the folder that the variable DFSERVE_DATASET, else TENSORPACK_DATASET, holds; else
        ``name`` in ``dfserve`` in the user's cache folder: XDG_CACHE_HOME, or ``~/.cache``.
    """
    if given is not None:
        return Path(given).expanduser()
    for variable in _VARIABLES:
        if os.environ.get(variable):
            return Path(os.environ[variable]).expanduser() / name
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The XDG specification has relative paths ignored.
    return (cache if cache.is_absolute() else Path.home() / ".cache") / "dfserve" / name

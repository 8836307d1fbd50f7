"""Owns the check that an argument names a part of a data set that there is."""

from __future__ import annotations

from dfserve.errors import ConfigError


def check_split(name: str, given: str, splits: tuple[str, ...]) -> None:
    """Check the argument ``name``, which says what part of a data set is wanted.

    Raises:
        ConfigError: ``given`` is none of ``splits``.
    """
    if given not in splits:
        raise ConfigError(f"{name} is {given!r}; it is one of {', '.join(map(repr, splits))}")

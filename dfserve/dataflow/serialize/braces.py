"""Owns the patterns that name many shards: ``train-{000..146}.tar``, ``{train,extra}-{0..9}.tar``."""

from __future__ import annotations

import itertools
import re
from math import prod

from dfserve.errors import ConfigError

_GROUP = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"([0-9]{1,18})\.\.([0-9]{1,18})")
# Names of one pattern: far more than any data set has shards, and few enough that a slip of the finger costs no memory.
MAX_NAMES = 1_000_000


def expand_braces(pattern: str) -> list[str]:
    """Return what a shell makes of the braces in a pattern, the last group running fastest.

    ``{000..146}`` counts, up or down, with zeros in front if either end has them; ``{a,b,c}`` lists. Groups do not
    nest.

    Raises:
        ConfigError: braces that are neither, or that stand for more than 1,000,000 names.
    """
    parts = _GROUP.split(pattern)  # texts at even places, what stood between braces at odd ones
    texts = parts[::2]
    if any(brace in text for brace in "{}" for text in texts):
        raise ConfigError(f"{pattern!r} has a brace without its partner, or braces within braces, which do not expand")
    groups = [_alternatives(group, pattern) for group in parts[1::2]]
    _limit(prod(map(len, groups)), pattern)
    return [
        "".join(itertools.chain.from_iterable(zip(texts, (*chosen, ""), strict=True)))
        for chosen in itertools.product(*groups)
    ]


def _alternatives(group: str, pattern: str) -> list[str]:
    if found := _RANGE.fullmatch(group):
        return _numbers(found[1], found[2], pattern)
    if "," in group:
        return group.split(",")
    raise ConfigError(f"{{{group}}} in {pattern!r} is neither a range ({{000..146}}) nor a list ({{a,b}})")


def _numbers(first: str, last: str, pattern: str) -> list[str]:
    padded = any(len(end) > 1 and end.startswith("0") for end in (first, last))
    width = max(len(first), len(last)) if padded else 0
    begin, end = int(first), int(last)
    _limit(abs(end - begin) + 1, pattern)
    step = 1 if begin <= end else -1
    return [f"{number:0{width}d}" for number in range(begin, end + step, step)]


def _limit(count: int, pattern: str) -> None:
    if count > MAX_NAMES:
        raise ConfigError(f"{pattern!r} stands for {count} names; {MAX_NAMES} are the most")

"""Patterns of shard names: what they expand to, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfserve.dataflow.serialize.braces import expand_braces
from dfserve.errors import ConfigError


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("plain.tar", ["plain.tar"]),
        ("s-{000..002}.tar", ["s-000.tar", "s-001.tar", "s-002.tar"]),
        ("s-{8..11}", ["s-8", "s-9", "s-10", "s-11"]),
        ("s-{08..11}", ["s-08", "s-09", "s-10", "s-11"]),
        ("s-{3..1}", ["s-3", "s-2", "s-1"]),
        ("s-{5..5}", ["s-5"]),
        ("{train,extra}/{0..1}.tar", ["train/0.tar", "train/1.tar", "extra/0.tar", "extra/1.tar"]),
        ("a{,-more}.tar", ["a.tar", "a-more.tar"]),
    ],
)
def test_braces_expand_as_in_a_shell(pattern: str, names: list[str]) -> None:
    assert expand_braces(pattern) == names


@given(st.integers(0, 500), st.integers(0, 500), st.integers(1, 5))
def test_a_range_counts_from_its_first_to_its_last_number(first: int, last: int, width: int) -> None:
    names = expand_braces(f"x{{{first:0{width}d}..{last:0{width}d}}}y")
    numbers = [int(name[1:-1]) for name in names]
    assert numbers == list(range(first, last + 1) if first <= last else range(first, last - 1, -1))


@pytest.mark.parametrize("pattern", ["a{b", "a}b", "{a,{b,c}}", "{}", "{abc}", "{1..2..3}", "{a..c}"])
def test_braces_that_mean_nothing_are_refused_with_the_pattern(pattern: str) -> None:
    with pytest.raises(ConfigError) as caught:
        expand_braces(pattern)
    assert repr(pattern) in str(caught.value)


@pytest.mark.parametrize("pattern", ["{0..99999999999999}", "{0..99999}{0..99}", "{0..9999}{0..9999}"])
def test_a_pattern_for_more_names_than_anybody_has_shards_takes_no_memory(pattern: str) -> None:
    with pytest.raises(ConfigError, match="1000000 are the most"):
        expand_braces(pattern)

"""What an index into a source means: what it means in a list."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfserve.dataflow.indexing import place_of


@given(st.integers(-30, 30), st.integers(0, 20))
def test_an_index_means_what_it_means_in_a_range(index: int, length: int) -> None:
    try:
        expected = range(length)[index]
    except IndexError:
        with pytest.raises(IndexError, match=f"index {index} of a source with {length}"):
            place_of(index, length)
    else:
        assert place_of(index, length) == expected


def test_numpys_integers_are_indices_and_floats_and_slices_are_not() -> None:
    assert place_of(np.int32(-1), 3) == 2
    for index in (1.0, slice(1), "1"):
        wrong: Any = index
        with pytest.raises(TypeError):
            place_of(wrong, 3)

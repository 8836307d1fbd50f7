"""Owns the tests of writable copies."""

from __future__ import annotations

import numpy as np

from dfserve.wire.blocks import decode_block, encode_block
from dfserve.wire.copies import writable

RECORD = np.array((1, 2.5), dtype=[("a", "<i4"), ("b", "<f8")])[()]
DATAPOINT = {
    "image": np.arange(12).reshape(3, 4),
    "boxes": [np.ones(2), (np.ones(3), {1, 2})],
    "record": RECORD,
    "n": 3,
}


def test_a_writable_copy_is_equal_and_shares_no_memory(same):
    received = decode_block(encode_block([DATAPOINT]).frames)[0]
    copy = writable(received)
    assert same(copy, DATAPOINT)
    copy["image"][:] = copy["boxes"][0][:] = copy["boxes"][1][0][:] = -1
    copy["record"]["a"] = -1
    copy["boxes"][1][1].add(3)
    assert same(received, DATAPOINT)


def test_a_writable_copy_owns_contiguous_memory_in_lists_and_tuples_too():
    for kind in (list, tuple):
        received = decode_block(encode_block([kind([np.ones((4, 5)), np.ones(())])] * 3).frames)[1]
        copy = writable(received)
        assert type(copy) is kind
        assert all(array.flags.writeable and array.flags.c_contiguous and array.flags.owndata for array in copy)

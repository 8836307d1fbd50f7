"""How datapoints become messages: in order, each once, with its ticket, whatever their sizes and structures."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import pipelines as p
from hypothesis import given
from hypothesis import strategies as st

from dfserve.dataflow.parallel.gathering import LARGE, Gathering
from dfserve.dataflow.parallel.messages import PICKLED, Sent
from dfserve.wire.blocks import decode_block


class Arrived:
    """Takes messages as the other process would."""

    def __init__(self) -> None:
        self.datapoints: list[Any] = []
        self.tags: list[int] = []
        self.messages = 0
        self.gathering = Gathering(self.place)

    def place(self, sent: Sent, buffers: Sequence[bytes | memoryview]) -> None:
        found = (
            [pickle.loads(sent.body)]
            if sent.kind == PICKLED
            else decode_block([*sent.frames, *map(bytes, buffers)])  # copies: the buffers are only lent
        )
        assert len(found) == sent.count
        self.datapoints += found
        self.tags += sent.tags
        self.messages += 1


def datapoint(kind: int, number: int) -> Any:
    return [
        [number],
        [number, np.full(10, number)],
        [number, np.full(LARGE, number % 200, np.uint8)],
        {"number": number, "large": np.full((LARGE // 8, 2), number)},
        [number, p.Odd(number)],
        [number, np.full((number % 50, 3), number)],
    ][kind]


@given(st.lists(st.integers(0, 5), max_size=40))
def test_every_datapoint_arrives_once_in_order_with_its_ticket(kinds: list[int]) -> None:
    arrived = Arrived()
    for number, kind in enumerate(kinds):
        arrived.gathering.add(datapoint(kind, number), number)
    arrived.gathering.flush()
    assert arrived.tags == list(range(len(kinds)))
    numbers = [found["number"] if isinstance(found, dict) else found[0] for found in arrived.datapoints]
    assert numbers == arrived.tags
    for number, kind, found in zip(arrived.tags, kinds, arrived.datapoints, strict=True):
        if kind == 4:
            assert found[1].value == number
        elif kind:
            sent, came = (list(dp.values() if isinstance(dp, dict) else dp) for dp in (datapoint(kind, number), found))
            assert np.array_equal(sent[1], came[1])


def test_small_datapoints_share_a_message_and_a_large_one_goes_at_once() -> None:
    arrived = Arrived()
    for number in range(1000):
        arrived.gathering.add([number], None)
    assert arrived.messages <= 1
    arrived.gathering.add([np.zeros(LARGE, np.uint8)], None)
    assert arrived.gathering.count == 0
    assert len(arrived.datapoints) == 1001


def test_arrays_may_be_written_to_as_soon_as_they_were_taken_in() -> None:
    arrived = Arrived()
    small, large = np.zeros(10), np.zeros(LARGE)
    for array in (small, large):
        arrived.gathering.add([array], None)
        array += 1
    arrived.gathering.flush()
    assert not any(found[0].any() for found in arrived.datapoints)


def test_what_is_discarded_never_arrives() -> None:
    arrived = Arrived()
    arrived.gathering.add([1], 1)
    arrived.gathering.discard()
    arrived.gathering.add([2], 2)
    arrived.gathering.flush()
    assert (arrived.datapoints, arrived.tags) == ([[2]], [2])

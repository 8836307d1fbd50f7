"""Owns the tests of a pool as its filler has it: what an offer, an answer and doubt make of it."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from dfserve.sharing import offered_pool as module
from dfserve.sharing.extents import GRAIN
from dfserve.sharing.offered_pool import OfferedPool
from dfserve.sharing.pool_view import PoolView
from dfserve.wire.messages import PoolGone, PoolMapped, PoolOffer
from dfserve.wire.pieces import PIECE
from dfserve.wire.placement import SMALLEST

SIZE = 16 << 20


class Filler:
    """A pool, and why there was none."""

    def __init__(self) -> None:
        self.why: list[Exception] = []
        self.pool = OfferedPool(self.why.append)

    def offer(self) -> PoolOffer:
        (offer,) = self.pool.offer(SIZE)
        return offer

    def mapped(self) -> PoolView:
        offer = self.offer()
        assert self.pool.receive(PoolMapped(offer.nonce, mapped=True)) == []
        return PoolView(offer.path, offer.size, offer.nonce)

    def frame(self, nbytes: int = SMALLEST) -> Any:
        memory = self.pool.take(nbytes)
        assert memory is not None
        return memory.data


@pytest.fixture
def filler() -> Iterator[Filler]:
    one = Filler()
    yield one
    one.pool.close()


def test_before_it_is_offered_there_is_no_memory_and_every_news_is_ignored(filler: Filler) -> None:
    pool = filler.pool
    assert (pool.nonce, pool.take(SMALLEST), pool.place([bytes(SMALLEST)])) == (b"", None, None)
    assert pool.receive(PoolMapped(bytes(16), mapped=True)) == pool.receive(PoolGone(bytes(16))) == []
    pool.freed({bytes(16): [GRAIN]})
    pool.shrink()
    pool.close()


def test_what_is_offered_is_not_used_before_it_is_mapped(filler: Filler) -> None:
    offer = filler.offer()
    assert (filler.pool.nonce, filler.pool.take(SMALLEST)) == (b"", None)
    filler.pool.receive(PoolMapped(offer.nonce, mapped=True))
    assert filler.pool.nonce == offer.nonce
    assert filler.pool.take(SMALLEST) is not None


@pytest.mark.parametrize("answer", ["cannot map it", "has mapped the one before"])
def test_other_answers_leave_it_unused(filler: Filler, answer: str) -> None:
    before = filler.offer()
    offer = filler.offer() if answer == "has mapped the one before" else before
    filler.pool.receive(PoolMapped(before.nonce, mapped=offer is not before))
    assert filler.pool.take(SMALLEST) is None


def test_doubt_makes_another_of_the_same_size_and_doubt_about_an_earlier_one_does_nothing(filler: Filler) -> None:
    view = filler.mapped()
    assert filler.pool.receive(PoolGone(b"e" * 16)) == []
    (offer,) = filler.pool.receive(PoolGone(view.nonce))
    assert offer.size == view.size
    assert offer.nonce != view.nonce
    assert filler.pool.receive(PoolGone(view.nonce)) == []


def test_a_block_is_told_by_where_it_lies_with_what_lies_elsewhere_beside(filler: Filler) -> None:
    view, frame = filler.mapped(), filler.frame()
    frame[:4] = b"here"
    placed = filler.pool.place([b"body", frame, b"elsewhere"])
    assert placed is not None
    place, inline = placed
    assert (place.pool, inline) == (view.nonce, [b"body", b"elsewhere"])
    assert [span is None for span in place.spans] == [True, False, True]
    assert bytes(view.frame(*place.spans[1] or (0, 0))[:4]) == b"here"


@pytest.mark.parametrize("beside", [None, PIECE + 1])
def test_a_block_of_which_nothing_lies_here_or_much_lies_elsewhere_is_sent_as_it_is(
    filler: Filler, beside: int | None
) -> None:
    filler.mapped()
    frames = [b"body"] if beside is None else [b"body", filler.frame(), memoryview(bytes(beside))]
    assert filler.pool.place(frames) is None


def test_a_place_is_free_when_as_many_readers_have_done_with_it_as_were_told_of_it(filler: Filler) -> None:
    view, frame = filler.mapped(), filler.frame(GRAIN)
    told = [filler.pool.place([b"body", frame]) for _ in range(2)]
    ((address, _),) = {place.spans[1] for place, _ in filter(None, told) if place.spans[1]}
    del frame
    gc.collect()
    again = []
    for news in ({b"another".ljust(16): [address]}, {view.nonce: [address]}, {view.nonce: [address]}):
        filler.pool.freed(news)
        probe = filler.pool.place([b"body", filler.frame(GRAIN)])
        assert probe is not None
        again.append(probe[0].spans[1] == (address, GRAIN))
    assert again == [False, False, True]


def test_why_the_system_has_none_is_told_and_nothing_offered(filler: Filler, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_size: int) -> None:
        raise OSError("this system has none")

    view = filler.mapped()
    monkeypatch.setattr(module, "Pool", none)
    assert filler.pool.receive(PoolGone(view.nonce)) == []
    assert [str(error) for error in filler.why] == ["this system has none"]
    assert filler.pool.take(SMALLEST) is None

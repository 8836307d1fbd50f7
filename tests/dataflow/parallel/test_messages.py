"""What processes say to each other comes back as it was said."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dfserve.dataflow.parallel.messages import CONSUMED, FREED, WANTED, WORD_BYTES, Sent, packed, unpacked, word, words

NUMBERS = st.integers(0, 2**40)
TEXTS = st.text(st.characters(exclude_categories=[]), max_size=20)  # with surrogates: file names that are no UTF-8
MESSAGES = st.builds(
    Sent,
    kind=st.integers(0, 4),
    label=NUMBERS,
    tags=st.lists(NUMBERS),
    count=NUMBERS,
    extent=st.integers(-1, 2**40),
    size=NUMBERS,
    frames=st.lists(st.one_of(st.binary(max_size=50), NUMBERS)),
    body=st.one_of(st.none(), st.binary(), st.lists(TEXTS, max_size=4)),
    freed=st.lists(NUMBERS),
)


@given(MESSAGES)
def test_a_message_comes_back_equal(sent: Sent) -> None:
    assert unpacked(packed(sent)) == sent


@given(st.lists(st.tuples(st.sampled_from([CONSUMED, FREED, WANTED]), NUMBERS)))
def test_words_have_one_size_and_come_back_in_order(said: list[tuple[int, int]]) -> None:
    data = b"".join(word(kind, value) for kind, value in said)
    assert len(data) == WORD_BYTES * len(said)
    assert list(words(data)) == said

"""The state of a loader: it survives JSON, and nothing that cannot be is taken for one."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfserve.epochs.state import PLAN, State
from dfserve.errors import ConfigError

STRICT = State(
    version=1, pipeline="train", source="3fa9", n=1000, seed=7, shuffle=True, order="strict", split_size=8, world=2,
    stride=32, even="drop", batch=32, epoch=3, split=20, start=150, row=2, taken=24,
)  # fmt: skip
ARRIVAL = replace(
    STRICT, order="arrival", world=1, even=None, split=0, start=0, row=0, taken=0, done=((0, 3), (5, 9)), open=((4, 5),)
)


@st.composite
def states(draw: st.DrawFn) -> State:
    """Every state that a loader can be in, whatever its pipeline makes of an item."""
    order = draw(st.sampled_from(["strict", "arrival"]))
    world = draw(st.integers(1, 9)) if order == "strict" else 1
    plan = State(
        version=1,
        pipeline=draw(st.text(min_size=1, max_size=20)),
        source=draw(st.binary(min_size=1, max_size=32)).hex(),
        n=draw(st.integers(0, 500)),
        seed=draw(st.integers(0, 2**62 - 1)),
        shuffle=draw(st.booleans()),
        order=order,
        split_size=draw(st.integers(1, 40)),
        world=world,
        stride=draw(st.integers(1, 64)),
        even=draw(st.sampled_from(["drop", "pad"])) if world > 1 else draw(st.sampled_from([None, "drop", "pad"])),
        batch=draw(st.integers(0, 64)),
        epoch=draw(st.integers(0, 1000)),
    )
    if order == "strict":
        row, taken = draw(st.integers(0, 50)), draw(st.integers(0, plan.stride - 1))
        split = draw(st.integers(0, plan.splits))
        start = draw(st.integers(0, row * plan.row_size + taken)) if split else 0
        return replace(plan, split=split, start=start, row=row, taken=taken)
    over = draw(st.lists(st.booleans(), min_size=plan.splits, max_size=plan.splits))
    undone = [split for split, is_over in enumerate(over) if not is_over]
    opened = sorted(draw(st.sets(st.sampled_from(undone), max_size=3))) if undone else []
    pairs = tuple((split, draw(st.integers(0, 99))) for split in opened)
    return replace(plan, done=tuple(ranges_of(over)), open=pairs)


def ranges_of(over: list[bool]) -> list[tuple[int, int]]:
    edges = [place for place, (a, b) in enumerate(zip([False, *over], [*over, False], strict=True)) if a != b]
    return list(zip(edges[::2], edges[1::2], strict=True))


def changed(state: State, **fields: Any) -> dict[str, Any]:
    return {**state.to_dict(), **fields}


@given(states())
def test_every_state_is_the_same_after_json(state: State) -> None:
    assert State.from_dict(json.loads(json.dumps(state.to_dict()))) == state
    assert State.from_dict(state.to_dict()) == state


def test_it_is_a_few_hundred_bytes_with_the_position_of_its_own_order_only() -> None:
    assert len(json.dumps(STRICT.to_dict())) < 400
    assert STRICT.to_dict().keys() == {*PLAN, "version", "epoch", "split", "start", "row", "taken"}
    assert ARRIVAL.to_dict().keys() == {*PLAN, "version", "epoch", "done", "open"}
    assert (ARRIVAL.to_dict()["done"], ARRIVAL.to_dict()["open"]) == ([[0, 3], [5, 9]], [[4, 5]])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("pipeline", ""),
        ("pipeline", 5),
        ("pipeline", "x" * 1001),
        ("source", "XYZ"),
        ("source", ""),
        ("source", b"3fa9"),
        ("n", -1),
        ("n", 10.0),
        ("n", True),
        ("n", 1 << 62),
        ("seed", -1),
        ("seed", "7"),
        ("shuffle", 1),
        ("order", "random"),
        ("order", ["strict"]),
        ("order", None),
        ("split_size", 0),
        ("split_size", 4097),
        ("world", 0),
        ("world", 4097),
        ("stride", 0),
        ("even", "both"),
        ("even", ["drop"]),
        ("even", None),  # with two ranks
        ("batch", -1),
        ("epoch", -1),
        ("epoch", None),
        ("split", 126),  # of 125
        ("split", 0),  # begins at 0, not 150
        ("start", 153),  # after row 2 and 24 more, which is 152
        ("row", -1),
        ("row", 1),  # before the split
        ("taken", 32),  # of 32
    ],
)
def test_a_field_that_cannot_be_is_refused_by_its_name(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"\b({field}|start)="):
        State.from_dict(changed(STRICT, **{field: value}))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("done", None),
        ("done", [[0, 3], [3, 9]]),  # touch: one range
        ("done", [[5, 9], [0, 3]]),
        ("done", [[0, 5], [4, 9]]),
        ("done", [[2, 2]]),
        ("done", [[0, 126]]),
        ("done", [[-1, 2]]),
        ("done", [[0, 1, 2]]),
        ("done", [0, 3]),
        ("done", [[0, 3.0]]),
        ("open", [[125, 0]]),
        ("open", [[6, 1]]),
        ("open", [[4, 1], [3, 1]]),
        ("open", [[4, 1], [4, 2]]),
        ("open", [[4]]),
        ("open", [4, 1]),
        ("open", 4),
        ("open", [[4, -1]]),
        ("world", 2),
    ],
)
def test_an_impossible_order_of_arrival_is_refused_by_its_field(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"\b{field}="):
        State.from_dict(changed(ARRIVAL, even="drop", **{field: value}))


@pytest.mark.parametrize("state", [STRICT, ARRIVAL], ids=["strict", "arrival"])
def test_a_field_that_is_missing_or_unknown_is_refused_by_its_name(state: State) -> None:
    for field in state.to_dict():
        rest = state.to_dict()
        del rest[field]
        with pytest.raises(ConfigError, match=f"no '{field}'"):
            State.from_dict(rest)
    for field in ("rank", "done" if state is STRICT else "row", 7):
        with pytest.raises(ConfigError, match=f"a field {field!r}"):
            State.from_dict(changed(state) | {field: 0})


@pytest.mark.parametrize("version", [0, 2, "1", True, None, 1.0])
def test_another_version_is_refused_whatever_else_it_has(version: object) -> None:
    with pytest.raises(ConfigError, match=r"has version .* reads version 1"):
        State.from_dict({"version": version, "new": 1})


@pytest.mark.parametrize("state", [None, [], "strict", 5])
def test_what_is_no_dict_is_no_state(state: object) -> None:
    with pytest.raises(ConfigError, match="a state is a dict"):
        State.from_dict(state)


def test_the_state_of_an_operator_is_not_that_of_a_source() -> None:
    with pytest.raises(ConfigError, match="'RepeatedData' around a source"):
        State.from_dict({"operator": "RepeatedData", "passes": 1, "ds": STRICT.to_dict()})


def test_a_message_stays_short_whatever_the_value() -> None:
    with pytest.raises(ConfigError) as error:
        State.from_dict(changed(ARRIVAL, done=list(range(100_000))))
    assert len(str(error.value)) < 500


def test_two_plans_disagree_in_the_first_field_that_differs() -> None:
    plan = {name: getattr(STRICT, name) for name in PLAN}
    assert STRICT.disagreement(plan) is None
    assert STRICT.disagreement({}) is None
    assert STRICT.disagreement(plan | {"split_size": 64, "batch": 1}) == "split_size is 8 in the state and 64 here"
    assert STRICT.disagreement({"n": STRICT.n + 1, "source": "ff"}) == (
        f"the source had {STRICT.n} items (n) when the state was saved, and has {STRICT.n + 1} here"
    )
    assert STRICT.disagreement({"even": "pad"}) == "even is 'drop' in the state and 'pad' here"
    assert ARRIVAL.disagreement({"even": ""}) is None

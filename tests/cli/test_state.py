"""`dfserve state`: a position is shown and moved, wherever in a JSON file it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from dfserve.cli import cli, status_of
from dfserve.cli.state_file import read
from dfserve.epochs.state import State
from dfserve.errors import ConfigError, DfserveError

STRICT = State(
    version=1, pipeline="train", source="3fa9", n=1000, seed=7, shuffle=True, order="strict", split_size=8, world=2,
    stride=32, even="drop", batch=32, epoch=3, split=20, start=150, row=2, taken=24,
)  # fmt: skip
ARRIVAL = replace(
    STRICT, order="arrival", world=1, even=None, split=0, start=0, row=0, taken=0, batch=0, done=((0, 3), (124, 125)),
    open=((4, 5),),
)  # fmt: skip

Write = Callable[[Any], Path]


@pytest.fixture
def saved(tmp_path: Path) -> Write:
    def save(document: Any) -> Path:
        file = tmp_path / "checkpoint.json"
        file.write_text(json.dumps(document))
        return file

    return save


def run(*arguments: object) -> Any:
    return CliRunner().invoke(cli, ["state", *map(str, arguments)])


def output(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return str(result.output)


def failure(*arguments: object) -> str:
    """Run what must fail with status 2; return what it says."""
    result = run(*arguments)
    if isinstance(result.exception, DfserveError):
        assert status_of(result.exception) == 2
        return str(result.exception)
    assert result.exit_code == 2
    return str(result.output)


def test_a_strict_position_is_shown_with_its_plan(saved: Write) -> None:
    lines = output("show", saved(STRICT.to_dict())).splitlines()
    assert lines[0].endswith(
        "checkpoint.json: epoch 3, 176 datapoints handed out, 17.6% of 1000 items if each makes one"
    )
    assert [line.strip() for line in lines[1:]] == [
        "pipeline  train",
        "source    1000 items, fingerprint 3fa9",
        "order     strict, shuffled anew in every epoch, seed 7",
        "splits    125 of 8 items",
        "ranks     2, rows of 2 x 32 datapoints, the last one: drop",
        "batches   of 32 datapoints, made by the loader",
        "position  2 rows and 24 of the next 32; split 20 of 125, whose first output is number 150",
    ]


def test_a_position_in_order_of_arrival_is_shown_in_splits(saved: Write) -> None:
    text = output("show", saved(replace(ARRIVAL, n=999, shuffle=False).to_dict()))
    # Three splits of 8 items, the last one of 7, and 5 of another.
    assert "epoch 3, 36 of 999 items handed out, 3.6%" in text
    assert "4 of 125 splits (3.2%), in 2 ranges; 5 datapoints of split 4" in text
    assert "arrival, as in the source, seed 7" in text
    assert "none made by the loader" in text


def test_an_empty_source_is_shown_too(saved: Write) -> None:
    assert "100.0%" in output("show", saved(replace(ARRIVAL, n=0, done=(), open=()).to_dict()))


def test_a_state_is_found_wherever_it_is_and_under_operators(saved: Write) -> None:
    document = {"step": 5, "parts": [1, {"data": {"operator": "RepeatedData", "passes": 2, "ds": STRICT.to_dict()}}]}
    assert "checkpoint.json at parts.1.data.ds: epoch 3" in output("show", saved(document))


def test_among_several_one_is_chosen_by_its_key(saved: Write) -> None:
    two = {"train": {"ds": STRICT.to_dict()}, "val": replace(STRICT, epoch=9).to_dict()}
    assert "train.ds, val" in failure("show", saved(two))
    assert "epoch 9" in output("show", saved(two), "--key", "val")
    assert "epoch 3" in output("show", saved(two), "--key", "train")
    assert "epoch 3" in output("show", saved(two), "--key", "train.ds")
    assert "at: train.ds, val" in failure("show", saved(two), "--key", "tra")


def test_a_key_with_dots_in_it_is_named_as_it_is(saved: Write) -> None:
    two = {"dl.train": {"ds": STRICT.to_dict()}, "dl.val": replace(STRICT, epoch=9).to_dict()}
    assert "choose one by --key: dl.train.ds, dl.val" in failure("show", saved(two))
    assert "at dl.val: epoch 9" in output("show", saved(two), "--key", "dl.val")
    assert "at dl.train.ds: epoch 3" in output("show", saved(two), "--key", "dl.train")
    assert "there are 2 states" in failure("show", saved(two), "--key", "dl")
    assert "there is at: dl.train.ds, dl.val" in failure("show", saved(two), "--key", "dl.v")


def test_rows_are_skipped_in_place_and_nothing_else_changes(saved: Write) -> None:
    document = {"loss": [1e-5, 2.5], "name": "größer 😀", "big": 1 << 70, "data": STRICT.to_dict(), "last": None}
    file = saved(document)
    file.chmod(0o600)
    said = output("skip", file, "--rows", 3)
    assert "skipped 3 rows of 64 datapoints; epoch 3 goes on in" in said
    assert json.loads(file.read_text()) == {**document, "data": replace(STRICT, row=5).to_dict()}
    assert list(json.loads(file.read_text())) == list(document)
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["checkpoint.json"]


def test_to_skip_beyond_what_the_epoch_seems_to_have_is_warned_of(saved: Write) -> None:
    within, beyond = (run("skip", saved(STRICT.to_dict()), "--rows", rows) for rows in (13, 14))
    assert "warning" not in within.stderr
    assert "warning: this is 24 datapoints beyond the 1000 items of the epoch" in beyond.stderr


def test_items_are_skipped_into_another_file(saved: Write, tmp_path: Path) -> None:
    file, later = saved([ARRIVAL.to_dict()]), tmp_path / "later.json"
    said = output("skip", file, "--items", 4, "--out", later)
    assert "skipped 11 items (whole splits)" in said
    assert State.from_dict(json.loads(later.read_text())[0]).done == ((0, 5), (124, 125))
    assert json.loads(file.read_text()) == [ARRIVAL.to_dict()]
    assert "exists already" in failure("skip", file, "--items", 4, "--out", later)


def test_items_are_rounded_up_to_rows_in_strict_order(saved: Write) -> None:
    assert "skipped 128 items (2 rows)" in output("skip", saved(STRICT.to_dict()), "--items", 65)


def test_nothing_is_skipped_in_the_middle_of_copies(saved: Write) -> None:
    around = {"operator": "RepeatedDataPoint", "copies": 2, "ds": STRICT.to_dict()}
    assert "after 2 copies of a datapoint" in failure("skip", saved(around), "--rows", 1)
    assert "skipped" in output("skip", saved({**around, "copies": 0}), "--rows", 1)


@pytest.mark.parametrize(
    ("state", "arguments", "said"),
    [
        (STRICT, [], "either --rows or --items"),
        (STRICT, ["--rows", 1, "--items", 1], "either --rows or --items"),
        (STRICT, ["--rows", 0], "--rows"),
        (STRICT, ["--items", 1001], "824 of 1000 left"),
        (ARRIVAL, ["--rows", 1], "strict order"),
        (replace(STRICT, taken=40), ["--rows", 1], "taken=40"),
        (STRICT, ["--rows", 1, "--out", "/no/such/folder/x.json"], "no folder"),
    ],
)
def test_what_cannot_be_skipped_changes_nothing(saved: Write, state: State, arguments: list[Any], said: str) -> None:
    file = saved(state.to_dict())
    before = file.read_bytes()
    assert said in failure("skip", file, *arguments)
    assert file.read_bytes() == before


@pytest.mark.parametrize("content", [b"PK\x03\x04 a checkpoint", b"\x80\x02}q\x00.", b"", b"{", b"[" * 100_000])
def test_what_is_no_json_says_how_to_make_some(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "checkpoint.pt"
    file.write_bytes(content)
    said = failure("show", file)
    assert "checkpoint.pt is no JSON" in said
    assert 'json.dump(torch.load("checkpoint.pt"' in said


def test_a_nest_too_deep_to_search_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "deep.json"
    file.write_text('{"a": ' * 5000 + "1" + "}" * 5000)
    said = failure("show", file)
    assert "no JSON" in said or "nested too deeply" in said  # as deep as this Python's parser goes


@pytest.mark.parametrize("document", [{}, [], 5, {"data": {"epoch": 3, "source": "x"}}])
def test_a_file_without_a_state_says_what_was_looked_for(saved: Write, document: Any) -> None:
    assert "no dict with the fields pipeline, source" in failure("show", saved(document))


def test_a_file_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    assert "does not exist" in failure("show", tmp_path / "none.json")
    with pytest.raises(ConfigError, match="cannot be read"):
        read(tmp_path / "none.json")


def test_the_command_itself_ends_with_status_2_and_one_message(dfserve: Any, saved: Write) -> None:
    process = dfserve("state", "skip", str(saved(ARRIVAL.to_dict())), "--rows", "1")
    assert process.wait() == 2
    assert "Traceback" not in process.output
    assert "rows are of the strict order" in process.output


@pytest.mark.parametrize("command", ["show", "skip"])
def test_each_command_has_an_example_and_each_option_a_variable(command: str) -> None:
    text = output(command, "--help")
    assert f"dfserve state {command} " in text.split("Example")[1]
    for parameter in cli.commands["state"].commands[command].params:  # type: ignore[attr-defined]  # a group
        assert str(parameter.envvar).startswith("DFSERVE_STATE_")
        if isinstance(parameter, click.Option):
            assert f"[env: {parameter.envvar}]" in str(parameter.help)

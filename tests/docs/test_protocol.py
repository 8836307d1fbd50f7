"""Owns the check that docs/protocol.md names every message, field, reason, extension type and limit of the code."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from dfserve import window
from dfserve.broker import budget, core, epochs_desk, epochs_job, intake, lessees, pools, server
from dfserve.consumer import epoch_inbox
from dfserve.epochs import plan
from dfserve.producer import block_memory
from dfserve.wire import columns, dtypes, envelope, messages, pieces, placement, values
from dfserve.wire.limits import DEFAULT_LIMITS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "protocol.md").read_text()
SECTION = re.compile(r"^### `(\w+)` \((\d+)\)\n(.*?)(?=^##)", re.MULTILINE | re.DOTALL)
FIELD = re.compile(r"^\| `(\w+)` \| ([\w\[\]]+) \|", re.MULTILINE)
SECTIONS = {name: (int(code), text) for name, code, text in SECTION.findall(PAGE)}
LIMIT = re.compile(r"^\| `(\w+)\.(\w+)` \| (\d+) \|", re.MULTILINE)
MODULES = {
    "Limits": DEFAULT_LIMITS,
    "messages": messages,
    "envelope": envelope,
    "pieces": pieces,
    "dtypes": dtypes,
    "values": values,
    "pools": pools,
    "server": server,
    "placement": placement,
    "block_memory": block_memory,
    "window": window,
    "budget": budget,
    "intake": intake,
    "core": core,
    "epochs_desk": epochs_desk,
    "epochs_job": epochs_job,
    "lessees": lessees,
    "epoch_inbox": epoch_inbox,
    "plan": plan,
}


def test_every_kind_of_message_has_its_section_and_no_other_is_there() -> None:
    assert {name: code for name, (code, _) in SECTIONS.items()} == {
        kind.__name__: code for code, kind in messages.KINDS.items()
    }


@pytest.mark.parametrize("kind", messages.KINDS.values(), ids=lambda kind: kind.__name__)
def test_a_section_has_the_fields_of_its_message_in_order_with_their_types(kind: type[messages.Message]) -> None:
    _, text = SECTIONS[kind.__name__]
    assert FIELD.findall(text) == [(field.name, str(field.type)) for field in fields(kind)]
    if not fields(kind):
        assert "No fields." in text


def test_every_reason_for_a_refusal_in_the_code_is_explained() -> None:
    explained = set(re.findall(r"^\| `(\w+)` \|", PAGE.split("## Refusals")[1].split("## Pieces")[0], re.MULTILINE))
    sources = [*(ROOT / "dfserve" / "wire").glob("*.py"), *(ROOT / "broker").glob("*.py")]
    raised = {reason for path in sources for reason in re.findall(r'WireError\(\s*"(\w+)"', path.read_text())}
    assert explained == raised


def test_the_extension_types_are_those_of_the_code() -> None:
    listed = {name: int(code) for code, name in re.findall(r"^\| (\d+) \| `([A-Z_]+)` \|", PAGE, re.MULTILINE)}
    assert sorted(listed.values()) == list(range(1, 12))
    assert listed == {name: getattr(values, name) for name in listed}
    assert (columns.VALUES, columns.STACK, columns.RAGGED) == (0, 1, 2)


def test_the_limits_are_those_of_the_code() -> None:
    listed = {(where, name): int(value) for where, name, value in LIMIT.findall(PAGE)}
    assert len(listed) >= 10
    assert listed == {(where, name): getattr(MODULES[where], name) for where, name in listed}
    assert {name for where, name in listed if where == "Limits"} == {field.name for field in fields(DEFAULT_LIMITS)}

"""Owns the check that the refusals which docs/howto/epochs.md explains are messages that the code has."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "howto" / "epochs.md").read_text()
FOLDERS = ("broker", "consumer", "producer", "dfserve/epochs", "dfserve/broker", "dfserve/wire")
HOLE = "…"  # in the page and here: what a message fills in


def texts(tree: ast.AST) -> Iterator[str]:
    """Yield every text of a module, with a hole for each expression in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else HOLE for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_every_refusal_of_the_page_is_a_message_of_the_code() -> None:
    table = PAGE.split("## When it refuses")[1]
    refusals = re.findall(r"^\| `(.*?)` \|", table, re.MULTILINE)
    assert len(refusals) > 15
    modules = [path for folder in FOLDERS for path in sorted((ROOT / folder).glob("*.py"))]
    said = "\n".join(text for path in modules for text in texts(ast.parse(path.read_text())))
    for refusal in refusals:
        # A hole of the page may stand for several of the message's, with words between them.
        pattern = ".*?".join(map(re.escape, refusal.split(HOLE)))
        assert re.search(pattern, said), f"no message of the code says: {refusal}"

"""Owns how exceptions are written into messages: their texts, within what a message may carry."""

from __future__ import annotations

import json
import traceback
from collections.abc import Sequence

from dfserve.dataflow.failures import text_of
from dfserve.producer.splits import Quarantined
from dfserve.wire.messages import MAX_NAME, MAX_REASON, MAX_TEXT, Fail

_MARK = "\n... cut ...\n"


def fail_message(error: BaseException, key: str, traceback: str, *, fatal: bool) -> Fail:
    """Make the report of an exception; its number is filled in by the outbox. Long texts are cut in the middle."""
    name = cut_text(type(error).__name__, MAX_NAME)
    return Fail(
        0, cut_text(key, MAX_REASON), name, cut_text(text_of(error), MAX_TEXT), cut_text(traceback, MAX_TEXT), fatal
    )


def traceback_of(error: BaseException) -> str:
    """Return the traceback as Python prints it."""
    return "".join(traceback.format_exception(type(error), error, error.__traceback__)).rstrip()


def listed(failed: Sequence[Quarantined]) -> str:
    """Return the items that were left out as JSON: [[key, kind, text, traceback], ...], empty if there are none.

    All of them are there, however short their texts must become for that.
    """
    if not failed:
        return ""
    most = MAX_TEXT // len(failed)
    while True:
        rows = [
            [
                cut_text(each.key, min(MAX_REASON, most)),
                cut_text(each.kind, min(MAX_NAME, most)),
                cut_text(each.text, most),
                cut_text(each.traceback, most),
            ]
            for each in failed
        ]
        found = json.dumps(rows, ensure_ascii=False, separators=(",", ":"))
        if len(found) <= MAX_TEXT:
            return found
        most //= 2


def cut_text(text: str, most: int) -> str:
    """Return a text that travels, of at most ``most`` characters: a long one is cut in the middle."""
    text = _shortened(text, most)
    travels = text.encode("utf-8", "backslashreplace").decode()  # a file name that is not UTF-8 has lone surrogates
    return _shortened(travels, most)


def _shortened(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    half = (most - len(_MARK)) // 2
    return text[:half] + _MARK + text[-half:] if half > len(_MARK) else text[:most]

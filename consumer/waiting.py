"""Owns the measure of how long the trainer waits for data, and the one line a minute that says what to do about it."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from dfserve import endpoints
from dfserve.wire.messages import ConsumerBeat

log = logging.getLogger("dfserve.consumer")

PERIOD = 60.0  # seconds between lines
TOO_MUCH = 0.10  # share of the time; below it a faster loader would change little
FULL = 0.5  # occupancy above which the data were there and only did not get here in time


class WaitMeter:
    """Adds up waits. Pure: the caller gives the times, in monotonic seconds."""

    def __init__(self, now: float) -> None:
        self.total = 0.0
        self._period_start = now
        self._period_waited = 0.0

    def add(self, seconds: float) -> None:
        """Count a wait."""
        self.total += seconds
        self._period_waited += seconds

    def advice(self, now: float, beat: ConsumerBeat | None) -> str | None:
        """Return a line for the log if a minute has passed in which the trainer waited for more than a tenth of it."""
        length = now - self._period_start
        if length < PERIOD:
            return None
        share = min(1.0, self._period_waited / length)
        self._period_start, self._period_waited = now, 0.0
        if share <= TOO_MUCH:
            return None
        return f"the trainer waited {share:.0%} of the last {length:.0f} s: {_diagnosis(beat)}"


@contextmanager
def metered(meter: WaitMeter, beat: Callable[[], ConsumerBeat | None]) -> Iterator[Callable[[float], None]]:
    """Count a wait; yields what is told, once a second, how long it has lasted, so that metrics show one that goes on.

    Args:
        beat: returns what the broker said last, for the advice in the log.
    """
    started, before = time.monotonic(), meter.total

    def count(waited: float) -> None:
        meter.add(waited - (meter.total - before))

    try:
        yield count
    finally:
        now = time.monotonic()
        count(now - started)
        if (line := meter.advice(now, beat())) is not None:
            log.warning("%s", line)


def combined(said: Sequence[ConsumerBeat | None]) -> ConsumerBeat | None:
    """Return what several brokers said as if one had; None if none has said anything.

    Its occupancy is that of the fullest: one whose data are there and do not get here is what the trainer waits for.
    """
    heard = [beat for beat in said if beat is not None]
    if len(heard) < 2:
        return heard[0] if heard else None
    return ConsumerBeat(
        sent=0,  # counts for each broker by itself
        producers=sum(beat.producers for beat in heard),
        finished=sum(beat.finished for beat in heard),
        lost=[name for beat in heard for name in beat.lost],
        others=list(dict.fromkeys(name for beat in heard for name in beat.others)),
        queued=sum(beat.queued for beat in heard),
        occupancy=max(beat.occupancy for beat in heard),
    )


def _diagnosis(beat: ConsumerBeat | None) -> str:
    if beat is None:
        return "the broker has said nothing; is it running, and is its address right?"
    if beat.producers == 0:
        return f"{_nobody(beat)} is connected ({_ended(beat)})" + (
            _served(beat) or "; start `dfserve produce` on the data machines"
        )
    state = f"{beat.producers} producing, queue {beat.occupancy:.0%} full"
    if beat.occupancy > FULL:
        return f"the queue holds data but they reach the trainer too slowly ({state}); raise hwm, or use a faster link"
    return f"the pipelines are slower than the trainer ({state}); add --workers or data machines"


def _nobody(beat: ConsumerBeat) -> str:
    if beat.refused:
        return "no producer that can serve this pipeline"
    return "no producer of this pipeline" if beat.others else "no producer"


def _ended(beat: ConsumerBeat) -> str:
    parts = [f"{beat.finished} ended"] if beat.finished else []
    parts += [f"these cannot: {', '.join(beat.refused)}"] if beat.refused else []
    parts += [f"gone: {', '.join(beat.lost)}"] if beat.lost else []
    return "; ".join(parts) or "none has come yet to this broker"


def missing(beat: ConsumerBeat | None, address: str, waited: float, min_producers: int) -> str:
    """Say who is missing, for the error after a timeout."""
    if beat is None:
        return f"nothing was heard from a broker at {address} for {waited:.0f} s; start it, or check the address"
    if beat.producers == 0:
        wanted = f", {min_producers} clean ends are needed for the end of the stream" if beat.finished else ""
        who = f"{_nobody(beat)} is connected to {address} ({_ended(beat)}{wanted})"
        return f"no datapoint arrived for {waited:.0f} s: {who}" + (
            _served(beat) or f"; start one with `dfserve produce MODULE:FACTORY --to {_connectable(address)}`"
        )
    one = beat.producers == 1
    who, whose = (
        ("1 producer is", "its pipeline has") if one else (f"{beat.producers} producers are", "their pipelines have")
    )
    return (
        f"no datapoint arrived for {waited:.0f} s although {who} connected to {address}: {whose} sent nothing"
        f" ({beat.queued} datapoints queued). Look at {'its log' if one else 'their logs'}, or raise timeout="
    )


def _connectable(addresses: str) -> str:
    """Return the first of them as a producer elsewhere would write it: what binds every address names this machine."""
    endpoint = endpoints.parse(addresses.split(" and ")[0])
    return f"tcp://{socket.gethostname()}:{endpoint.port}" if endpoint.is_wildcard else endpoint.text


def absent(beat: ConsumerBeat | None) -> str:
    """Say, after whom a rank waits for, which producers are gone and which serve other pipelines; empty: none such."""
    if beat is None or beat.producers:
        return ""
    return (f" (gone: {', '.join(beat.lost)})" if beat.lost else "") + _served(beat)


def _served(beat: ConsumerBeat) -> str:
    """Say which other pipelines have producers; empty if none has."""
    if not beat.others:
        return ""
    return (
        f"; the producers that are here serve {' and '.join(map(repr, beat.others))}: ask for that with pipeline=, or"
        " start `dfserve produce NAME=MODULE:FACTORY` with the NAME that is asked for"
    )

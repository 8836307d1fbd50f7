"""Owns the order of a run: for each case the sides take turns, round after round, every other round backwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Figures = dict[str, float]
Results = dict[str, dict[str, list[Figures]]]  # case: side: one entry a round


def run(
    cases: Sequence[str],
    sides: Sequence[str],
    rounds: int,
    measure: Callable[[str, str], Figures],
    say: Callable[[str], None],
) -> Results:
    """Measure all with ``measure(case, side)``; ``say`` is told of each figure."""
    results: Results = {case: {side: [] for side in sides} for case in cases}
    for case in cases:
        for number in range(rounds):
            for side in sides if number % 2 == 0 else tuple(reversed(sides)):
                figures = twice(measure, case, side, say)
                results[case][side].append(figures)
                say(f"{case} round {number + 1}/{rounds} {side}: {rate(figures):,.0f}/s")
    return results


def twice(measure: Callable[[str, str], Figures], case: str, side: str, say: Callable[[str], None]) -> Figures:
    """Measure, and once more if a process failed: one that was too slow to start should not cost a run of hours."""
    try:
        return measure(case, side)
    except RuntimeError as error:
        say(f"{case} {side} once more, because {error}")
        return measure(case, side)


def rate(figures: Figures) -> float:
    """Items per second."""
    return figures["items"] / figures["seconds"]

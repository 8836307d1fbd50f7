"""Owns the rounds of `dfserve bench`: every stage once in each, then medians, what follows, and the JSON object."""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from dfserve.cli.bench_advice import (
    Batching,
    Measured,
    Needed,
    Verdict,
    batching,
    broker_ceiling,
    consumer_ceiling,
    here,
    machine_rate,
    needed,
    scaling,
    transport_cost,
)
from dfserve.cli.bench_stages import Sample, Settings, Show, measure_loops, measure_transport
from dfserve.dataflow.base import DataFlow
from dfserve.version import __version__

DIGITS = 6  # significant, in JSON: more than any clock gives


@dataclass(frozen=True)
class Stage:
    """One kind of measurement, in all rounds."""

    name: str
    processes: int
    samples: Sequence[Sample]

    def median(self, field: str) -> float:
        """Return the median of one of the samples' figures."""
        return float(median(getattr(sample, field) for sample in self.samples))

    @property
    def rates(self) -> list[float]:
        """Datapoints/s of each round."""
        return [sample.rate for sample in self.samples]


@dataclass(frozen=True)
class Question:
    """What the user wants to know besides: datapoints/s that the trainer takes, bits/s of its link."""

    need: float | None = None
    link: float | None = None


@dataclass(frozen=True)
class Result:
    """What was measured, and what follows."""

    pipeline: str
    structure: str
    settings: Settings
    bare: Stage
    together: Stage
    transported: Stage
    measured: Measured
    question: Question

    @property
    def verdict(self) -> Verdict:
        """What limits on this machine."""
        return here(self.measured)

    @property
    def batching(self) -> Batching:
        """Whether batching would pay."""
        return batching(self.measured, self.question.need)

    @property
    def needed(self) -> Needed | None:
        """What the training needs, if that was asked."""
        need = self.question.need
        return None if need is None else needed(self.measured, need, self.question.link)


def measure(
    name: str,
    flow: DataFlow,
    *,
    cores: int,
    workers: int,
    rounds: int,
    settings: Settings,
    show: Show,
    question: Question,
) -> Result:
    """Run the rounds. The stages take turns, so that a machine that is busy for a while spoils one round of each.

    Raises:
        DfserveError: see `measure_loops` and `measure_transport`.
    """
    bare, together, transported = [], [], []
    for number in range(1, rounds + 1):

        def tell(stage: str, number: int = number) -> Show:
            return lambda what, rate: show(f"round {number} of {rounds}, {stage}{what and ': '}{what}", rate)

        bare.append(measure_loops(flow, 1, settings, tell("bare")))
        # One loop beside none is what was just measured.
        together.append(bare[-1] if workers == 1 else measure_loops(flow, workers, settings, tell("with workers")))
        transported.append(measure_transport(flow, workers, bare[-1].nbytes, settings, tell("with transport")))
    stages = (
        Stage("bare", 1, bare),
        Stage("with workers", workers, together),
        Stage("with transport", workers, transported),
    )
    return Result(name, bare[0].structure, settings, *stages, medians(cores, workers, *stages), question)


def medians(cores: int, workers: int, bare: Stage, together: Stage, transported: Stage) -> Measured:
    """Make the figures that the advice goes by."""
    return Measured(
        cores=cores,
        workers=workers,
        nbytes=bare.median("nbytes"),
        bare=bare.median("rate"),
        together=together.median("rate"),
        transported=transported.median("rate"),
        bare_cpu=bare.median("cpu"),
        together_cpu=together.median("cpu"),
        worker_cpu=transported.median("cpu"),
        broker_cpu=transported.median("broker_cpu"),
        consumer_cpu=transported.median("consumer_cpu"),
        waited=transported.median("waited"),
        others=max(stage.median("others") for stage in (bare, together, transported)),
    )


def as_json(result: Result) -> dict[str, Any]:
    """Return the result as one JSON object; null where the system does not tell."""
    m = result.measured
    transport = _stage(result.transported, m) | {
        "broker_cpus": m.broker_cpu,
        "consumer_cpus": m.consumer_cpu,
        "consumer_waited": m.waited,
    }
    found: dict[str, Any] = {
        "pipeline": result.pipeline,
        "datapoint": {"bytes": m.nbytes, "structure": result.structure},
        "machine": {
            "cpus": m.cores,
            "cpus_of_others": m.others,
            "python": platform.python_version(),
            "dfserve": __version__,
        },
        "settings": {**asdict(result.settings), "rounds": len(result.bare.samples), "workers": m.workers},
        "bare": _stage(result.bare, m),
        "with_workers": _stage(result.together, m) | {"scaling": scaling(m)},
        "with_transport": transport | {"cost": transport_cost(m)},
        "advice": {
            **asdict(result.verdict),
            "machine_rate": machine_rate(m),
            "broker_ceiling": broker_ceiling(m),
            "consumer_ceiling": consumer_ceiling(m),
            "batching": asdict(result.batching),
        },
        "need": None,
    }
    if (need := result.needed) is not None:
        found["need"] = asdict(need) | {"enough": need.enough, "link": result.question.link}
    return {key: _plain(value) for key, value in found.items()}


def _stage(stage: Stage, m: Measured) -> dict[str, Any]:
    rate = stage.median("rate")
    return {
        "processes": stage.processes,
        "items_per_s": rate,
        "low": min(stage.rates),
        "high": max(stage.rates),
        "rounds": stage.rates,
        "mb_per_s": rate * m.nbytes / 1e6,
        "cpus": stage.median("cpu"),
    }


def _plain(value: Any) -> Any:
    """Round floats to what they are worth, and make those that are no numbers null."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value

"""Owns the arithmetic of `dfserve bench`: what follows from its figures. Pure functions; nothing is measured here."""

from __future__ import annotations

import math
from dataclasses import dataclass

HEADROOM = 1.1  # producers that make a tenth more than the trainer takes keep its queue full
LINK_SHARE = 0.9  # of a link's bits that are data: Ethernet, IP and TCP take 6%, and a link is never quite full
BUSY_LEAST = 0.02  # of a CPU or of the time: below it, a clock that ticks in 10 ms says nothing of what would be
SATURATED = 0.9  # of a CPU, or of the time, from which on there is no more to have
SMALL = 0.1  # share of a rate, or of the CPU time, below which it is not worth a thought
IDLE = 0.75  # of the CPUs that could be busy: if fewer are, the pipeline waits for something else
POOR_SCALING = 0.75  # of so many times one loop
BATCH_BYTES = 64 << 10  # a datapoint of that size is cheap for each byte: its cost by the piece is spread thin
BATCH_MOST = 1024  # datapoints in a suggested batch: as many as travel together anyway
SECONDS_PER_BYTE = 1e-9  # CPU time to encode, pass on and receive a byte: a few copies at some GB/s
PER_PIECE = 3.0  # how many times what its bytes cost a datapoint must cost, until the number of pieces is to blame


@dataclass(frozen=True)
class Measured:
    """What was measured: medians. CPU figures are NaN where the system does not tell.

    Attributes:
        cores: CPUs that this process may use.
        workers: processes that were run side by side.
        nbytes: of a datapoint as it travels.
        bare: datapoints/s of one process that only iterates.
        together: datapoints/s of ``workers`` such processes.
        transported: datapoints/s that one consumer got from ``workers`` real workers.
        bare_cpu, together_cpu, worker_cpu, broker_cpu, consumer_cpu: CPUs that were busy meanwhile.
        waited: share of the time that the consumer waited for data.
        others: CPUs that were busy with what has nothing to do with it.
    """

    cores: int
    workers: int
    nbytes: float
    bare: float
    together: float
    transported: float
    bare_cpu: float
    together_cpu: float
    worker_cpu: float
    broker_cpu: float
    consumer_cpu: float
    waited: float
    others: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """What limits, in a word and in a sentence, and what would help."""

    limit: str
    because: str
    remedy: str


@dataclass(frozen=True)
class Batching:
    """Whether batching in the pipeline would pay, of how many datapoints at least (1: it would not), and why."""

    size: int
    because: str


@dataclass(frozen=True)
class Needed:
    """What a training needs.

    Attributes:
        rate: datapoints/s that the trainer takes.
        workers, machines: that make a tenth more; machines like this one.
        bits: per second on the trainer's link.
        reachable: datapoints/s at most, however many machines there are.
        limit: what stands against ``rate``, or what the rest hangs on if nothing does.
    """

    rate: float
    workers: int
    machines: int
    bits: float
    reachable: float
    limit: Verdict

    @property
    def enough(self) -> bool:
        """Whether one broker, one consumer and the link carry the rate."""
        return self.reachable >= self.rate


def scaling(m: Measured) -> float:
    """Return what the loops make side by side, as a share of so many times one: 1 if they do not hinder each other."""
    return m.together / (m.workers * m.bare)


def transport_cost(m: Measured) -> float:
    """Return the share of the bare loops' rate that transport takes on this machine; not below 0."""
    return max(0.0, 1 - m.transported / m.together)


def machine_rate(m: Measured) -> float:
    """Return the datapoints/s that a data machine like this one would send.

    There the CPUs that broker and consumer took here are the workers'. So it is the bare loops' rate, less what
    sending costs each datapoint in CPU time; but never less than was seen to arrive, and never more than was made.
    """
    made, sent = pipeline_seconds(m), worker_seconds(m)
    if math.isnan(made + sent):
        return m.transported
    share = min(1.0, made / sent) if sent > 0 else 1.0
    return max(m.transported, m.together * share)


def pipeline_seconds(m: Measured) -> float:
    """Return the CPU time of making a datapoint."""
    return m.together_cpu / m.together


def worker_seconds(m: Measured) -> float:
    """Return the CPU time of making and sending a datapoint."""
    return m.worker_cpu / m.transported


def transport_seconds(m: Measured) -> float:
    """Return the CPU time of a datapoint's way: sending, the broker, and receiving."""
    sending = max(0.0, worker_seconds(m) - pipeline_seconds(m))
    return sending + (m.broker_cpu + m.consumer_cpu) / m.transported


def broker_ceiling(m: Measured) -> float:
    """Estimate the datapoints/s that one broker passes on: it is one process whose loop has one CPU.

    Infinite where so little passed that nothing can be told from it.
    """
    return _ceiling(m.transported, m.broker_cpu)


def consumer_ceiling(m: Measured) -> float:
    """Estimate the datapoints/s that one consumer takes, if it does nothing else; infinite as `broker_ceiling`."""
    return _ceiling(m.transported, 1 - m.waited)


def _ceiling(rate: float, busy: float) -> float:
    return rate / min(1.0, busy) if busy >= BUSY_LEAST else math.inf


def link_rate(m: Measured, link: float) -> float:
    """Return the datapoints/s that a link of so many bits/s carries."""
    return link / 8 * LINK_SHARE / m.nbytes


def workers_for(m: Measured, rate: float) -> int:
    """Return how many workers make a tenth more than ``rate``."""
    machine = machine_rate(m)
    alone = m.bare * machine / m.together if machine < m.together else m.bare
    if rate * HEADROOM <= alone:
        return 1
    return max(2, math.ceil(rate * HEADROOM * m.workers / machine))


def here(m: Measured) -> Verdict:
    """Say what limits the rate on this machine."""
    cost = transport_cost(m)
    if cost < SMALL:
        return _pipeline(m)
    if m.broker_cpu >= SATURATED:
        return _BROKER
    if 1 - m.waited >= SATURATED:
        return _CONSUMER
    if transport_seconds(m) * m.transported < SMALL * m.cores:  # it has hardly used a CPU, so it is not to blame
        return _pipeline(m)
    return Verdict(
        "transport",
        f"it takes {cost:.0%} of what the loops make; broker and consumer share this machine's CPUs with the workers",
        "on data machines of their own the workers have all CPUs; and see what is said of batching",
    )


def _pipeline(m: Measured) -> Verdict:
    if m.transported * POOR_SCALING > m.together:
        return Verdict(
            "unclear",
            f"workers whose datapoints were sent made {m.transported:,.0f}/s, and loops that only iterate"
            f" {m.together:,.0f}/s: something else had the CPUs, or what is read was not yet in the system's cache",
            "measure again, on a quiet machine and with more --seconds, before anything is concluded",
        )
    most = min(m.workers, m.cores)
    # Beside busy neighbours they get less; but who takes hardly anything was not kept from it.
    if m.together_cpu < max(IDLE * min(most, m.cores - m.others), SMALL * most):
        return Verdict(
            "pipeline waits",
            f"{m.workers} loops keep {m.together_cpu:.1f} CPUs busy where {most} could be: they wait for a disk,"
            " the network or a lock",
            f"try --workers {2 * m.workers}, and read from faster storage",
        )
    if m.workers < m.cores and m.together_cpu < IDLE * (m.cores - m.others):
        return Verdict("pipeline CPU", "the loops keep their CPUs busy, and others idle", f"try --workers {m.cores}")
    if scaling(m) < POOR_SCALING:
        return Verdict(
            "pipeline CPU",
            f"{m.workers} loops make only {m.together / m.bare:.1f} times what one makes: they share CPUs, memory"
            " bandwidth or a disk" + (f", and one alone keeps {m.bare_cpu:.1f} CPUs busy" if m.bare_cpu > 1 else ""),
            "fewer --workers may do as well; give libraries with thread pools one thread (OMP_NUM_THREADS=1)",
        )
    return Verdict(
        "pipeline CPU",
        "the loops keep the CPUs busy, and transport takes little",
        "add data machines, or make the pipeline cheaper",
    )


_BROKER = Verdict(
    "broker",
    "its process has no CPU time left",
    "send fewer and larger datapoints (batch in the pipeline), or several brokers, each with a part of the producers",
)
_CONSUMER = Verdict(
    "transport",
    "one consumer that does nothing but receive takes no more",
    "batch in the pipeline, or share the data among several trainers (consumers of one group)",
)


def needed(m: Measured, rate: float, link: float | None = None) -> Needed:
    """Say what it takes to feed a trainer.

    Args:
        rate: datapoints/s that the trainer takes, above 0.
        link: bits/s of the trainer's network link; None: not asked.
    """
    limits: list[tuple[float, Verdict]] = [(broker_ceiling(m), _BROKER), (consumer_ceiling(m), _CONSUMER)]
    if link is not None:
        limits.append((link_rate(m, link), _of_link(m, rate)))
    reachable, limit = min(limits, key=lambda each: each[0])
    workers = workers_for(m, rate)
    bits = rate * m.nbytes * 8
    verdict = limit if reachable < rate else _pipeline(m)
    return Needed(rate, workers, math.ceil(workers / m.workers), bits, reachable, verdict)


def _of_link(m: Measured, rate: float) -> Verdict:
    return Verdict(
        "link",
        f"{human_bits(rate * m.nbytes * 8)} of data do not fit",
        "a faster link; smaller datapoints (crop and resize in the pipeline, uint8 in place of float32, encoded"
        " images); --compression, if the data compress; or workers on the training machine, which use no link",
    )


def batching(m: Measured, rate: float | None = None) -> Batching:
    """Say whether batching in the pipeline would make the transport cheaper.

    Args:
        rate: datapoints/s that are wanted; None: what arrived.
    """
    if m.nbytes >= BATCH_BYTES:
        return Batching(
            1, "datapoints are large: what they cost, they cost by the byte. It would spare the trainer a copy"
        )
    size = min(BATCH_MOST, max(2, 1 << math.ceil(math.log2(BATCH_BYTES / max(1.0, m.nbytes)))))
    way, making = transport_seconds(m), pipeline_seconds(m)
    if math.isnan(way + making):
        return Batching(size, "datapoints are small")
    # First at the rate that was seen: where little passed, most of the CPU time was for being there, and from what
    # that makes for each datapoint nothing follows for another rate.
    for known in (m.transported, rate or m.transported):
        if way * known <= SMALL:
            return Batching(1, f"at {known:.3g}/s transport takes {way * known:.1%} of a CPU")
    if way <= SMALL * (way + making):
        return Batching(1, f"transport takes {_us(way)} of CPU time of a datapoint, and making it {_us(making)}")
    if way <= PER_PIECE * m.nbytes * SECONDS_PER_BYTE:
        return Batching(1, f"the {_us(way)} of CPU time that transport takes of a datapoint are for its bytes")
    return Batching(
        size, f"transport takes {_us(way)} of CPU time of a datapoint (making it: {_us(making)}), mostly by the piece"
    )


def _us(seconds: float) -> str:
    return f"{seconds * 1e6:.3g} us"


def disturbed(m: Measured) -> bool:
    """Tell whether other processes took so much CPU time that the figures say too little of the machine."""
    return m.others >= SMALL * m.cores


def human_bits(bits: float) -> str:
    """Write bits per second for people: 2.4 Gbit/s."""
    for unit in ("bit/s", "kbit/s", "Mbit/s"):
        if bits < 1000:
            return f"{bits:.3g} {unit}"
        bits /= 1000
    return f"{bits:.1f} Gbit/s"

"""Owns the tests of what `dfserve bench` concludes from its figures: laws of the arithmetic, and clear cases."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfserve.cli.bench_advice import (
    HEADROOM,
    Measured,
    batching,
    broker_ceiling,
    consumer_ceiling,
    disturbed,
    here,
    human_bits,
    link_rate,
    machine_rate,
    needed,
    scaling,
    transport_cost,
    transport_seconds,
    workers_for,
)

# Decoding photographs on two CPUs: what the tests below begin with and change one thing of.
PHOTOS = Measured(
    cores=2,
    workers=2,
    nbytes=150_600,
    bare=1100,
    together=2200,
    transported=2000,
    bare_cpu=1.0,
    together_cpu=2.0,
    worker_cpu=1.9,
    broker_cpu=0.06,
    consumer_cpu=0.04,
    waited=0.95,
)
LIMITS = {"pipeline CPU", "pipeline waits", "transport", "broker", "link", "unclear"}

rates = st.floats(0.01, 1e7)
cpus = st.floats(0, 64) | st.just(math.nan)


@st.composite
def measurements(draw: st.DrawFn) -> Measured:
    return Measured(
        cores=draw(st.integers(1, 256)),
        workers=draw(st.integers(1, 256)),
        nbytes=draw(st.floats(1, 1e9)),
        bare=draw(rates),
        together=draw(rates),
        transported=draw(rates),
        bare_cpu=draw(cpus),
        together_cpu=draw(cpus),
        worker_cpu=draw(cpus),
        broker_cpu=draw(cpus),
        consumer_cpu=draw(cpus),
        waited=draw(st.floats(0, 1)),
        others=draw(cpus),
    )


# ---------------------------------------------------------------------- laws


@given(measurements(), rates)
def test_the_workers_make_what_is_needed_and_a_tenth_more(m: Measured, need: float) -> None:
    workers = workers_for(m, need)
    assert workers >= 1
    if workers > 1:
        assert workers * machine_rate(m) / m.workers >= need * HEADROOM * (1 - 1e-9)
    else:
        assert m.bare >= need * HEADROOM


@given(measurements(), rates)
def test_the_machines_hold_the_workers_and_none_is_empty(m: Measured, need: float) -> None:
    found = needed(m, need)
    assert (found.machines - 1) * m.workers < found.workers <= found.machines * m.workers


@given(measurements(), rates, rates)
def test_who_needs_more_never_needs_fewer_workers(m: Measured, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert workers_for(m, low) <= workers_for(m, high)


@given(measurements())
def test_a_machine_sends_no_less_than_was_seen_to_arrive_and_no_more_than_was_made(m: Measured) -> None:
    assert m.transported <= machine_rate(m) <= max(m.together, m.transported)


@given(measurements(), rates, st.floats(1e3, 1e12))
def test_a_rate_is_reachable_exactly_if_nothing_carries_less(m: Measured, need: float, link: float) -> None:
    found = needed(m, need, link)
    carried = min(broker_ceiling(m), consumer_ceiling(m), link_rate(m, link))
    assert found.reachable == carried
    assert found.enough == (carried >= need)


@given(measurements(), st.floats(1e3, 1e12))
def test_what_a_link_carries_fits_into_it_and_halves_when_datapoints_double(m: Measured, link: float) -> None:
    carried = link_rate(m, link)
    assert carried * m.nbytes * 8 <= link
    assert link_rate(replace(m, nbytes=2 * m.nbytes), link) == pytest.approx(carried / 2)


@given(measurements())
def test_ceilings_are_not_below_what_was_seen_to_pass(m: Measured) -> None:
    assert broker_ceiling(m) >= m.transported
    assert consumer_ceiling(m) >= m.transported


@given(measurements(), st.none() | rates)
def test_every_case_has_an_answer_a_reason_and_a_remedy(m: Measured, need: float | None) -> None:
    verdicts = [here(m)] if need is None else [here(m), needed(m, need, 1e9).limit]
    for verdict in verdicts:
        assert verdict.limit in LIMITS
        assert verdict.because
        assert verdict.remedy
    advice = batching(m, need)
    assert 1 <= advice.size <= 1024
    assert advice.because


@given(measurements())
def test_the_cost_of_transport_is_a_share(m: Measured) -> None:
    assert 0 <= transport_cost(m) <= 1


# ---------------------------------------------------------------------- cases


def test_photographs_are_limited_by_the_pipelines_cpu_and_more_machines_help() -> None:
    verdict = here(PHOTOS)
    assert verdict.limit == "pipeline CPU"
    assert "add data machines" in verdict.remedy
    assert scaling(PHOTOS) == 1.0


def test_nothing_is_concluded_where_workers_that_send_made_much_more_than_loops_that_do_not() -> None:
    verdict = here(replace(PHOTOS, together=1400))
    assert verdict.limit == "unclear"
    assert "made 2,000/s, and loops that only iterate 1,400/s" in verdict.because
    assert "measure again" in verdict.remedy
    assert here(replace(PHOTOS, together=1600)).limit != "unclear"


def test_ten_thousand_photographs_a_second_take_six_machines_like_this_one() -> None:
    found = needed(PHOTOS, 10_000)
    assert machine_rate(PHOTOS) == pytest.approx(2200 * (2.0 / 2200) / (1.9 / 2000))
    assert (found.workers, found.machines) == (11, 6)
    assert found.enough
    assert found.limit.limit == "pipeline CPU"


def test_one_worker_is_enough_for_what_one_loop_makes() -> None:
    assert workers_for(PHOTOS, 100) == 1


def test_a_gigabit_link_does_not_carry_ten_thousand_photographs() -> None:
    found = needed(PHOTOS, 10_000, 1e9)
    assert not found.enough
    assert found.limit.limit == "link"
    assert found.reachable == pytest.approx(747, abs=1)
    assert "uint8" in found.limit.remedy
    assert needed(PHOTOS, 10_000, 25e9).enough


def test_loops_that_leave_cpus_idle_wait_for_something() -> None:
    waits = replace(PHOTOS, together_cpu=0.5, worker_cpu=0.5)
    assert here(waits).limit == "pipeline waits"
    assert "--workers 4" in here(waits).remedy


def test_loops_that_get_no_cpu_beside_busy_neighbours_are_not_said_to_wait() -> None:
    crowded = replace(PHOTOS, together_cpu=0.8, worker_cpu=0.8, others=1.2)
    assert disturbed(crowded)
    assert not disturbed(PHOTOS)
    assert here(crowded).limit == "pipeline CPU"


def test_loops_that_take_hardly_any_cpu_wait_whatever_the_neighbours_do() -> None:
    assert here(replace(PHOTOS, together_cpu=0.01, worker_cpu=0.01, others=2.0)).limit == "pipeline waits"


def test_fewer_workers_than_cpus_are_told_of_the_others() -> None:
    assert "--workers 8" in here(replace(PHOTOS, cores=8)).remedy


def test_loops_that_hinder_each_other_are_told_of_thread_pools() -> None:
    verdict = here(replace(PHOTOS, together=1200, transported=1150, bare_cpu=1.9))
    assert "1.1 times what one makes" in verdict.because
    assert "one alone keeps 1.9 CPUs busy" in verdict.because
    assert "OMP_NUM_THREADS=1" in verdict.remedy


def test_a_broker_without_time_left_limits() -> None:
    busy = replace(PHOTOS, transported=1000, broker_cpu=1.1)
    assert here(busy).limit == "broker"
    assert not needed(busy, 1100).enough
    assert needed(busy, 1100).limit.limit == "broker"


def test_a_consumer_that_never_waits_limits() -> None:
    busy = replace(PHOTOS, transported=1000, waited=0.0)
    assert here(busy).limit == "transport"
    assert "consumers of one group" in here(busy).remedy
    assert needed(busy, 1100).limit.limit == "transport"


def test_transport_that_takes_the_workers_cpus_is_named() -> None:
    assert here(replace(PHOTOS, transported=1500, broker_cpu=0.3, consumer_cpu=0.3)).limit == "transport"


def test_transport_that_hardly_takes_a_cpu_is_not_blamed_for_a_slow_round() -> None:
    idle = replace(PHOTOS, together=6.6, transported=5.9, together_cpu=0.0, worker_cpu=0.01, broker_cpu=0.01)
    assert here(replace(idle, consumer_cpu=0.0)).limit == "pipeline waits"


def test_where_next_to_nothing_passed_no_ceiling_is_made_up() -> None:
    assert broker_ceiling(replace(PHOTOS, broker_cpu=0.001)) == math.inf
    assert consumer_ceiling(replace(PHOTOS, waited=0.999)) == math.inf


SMALL = replace(
    PHOTOS, nbytes=2056, together=1e6, transported=2e5, worker_cpu=1.4, broker_cpu=0.3, consumer_cpu=0.3, waited=0.6
)


def test_small_datapoints_whose_cost_is_by_the_piece_are_worth_batching() -> None:
    advice = batching(SMALL)
    assert advice.size == 32
    assert advice.size * SMALL.nbytes >= 64 << 10
    assert "by the piece" in advice.because


def test_batching_is_not_advised_for_a_rate_at_which_transport_takes_next_to_nothing() -> None:
    assert batching(SMALL, rate=2000).size == 1
    assert batching(SMALL, rate=200_000).size == 32


def test_batching_is_not_advised_for_large_datapoints() -> None:
    assert batching(PHOTOS).size == 1
    assert "by the byte" in batching(PHOTOS).because


def test_batching_is_not_advised_where_the_pipeline_takes_nearly_all_of_the_time() -> None:
    slow = replace(PHOTOS, nbytes=2000, cores=64, workers=64, together_cpu=64.0, worker_cpu=58.5)
    assert transport_seconds(slow) * slow.transported > 0.1
    assert batching(slow).size == 1
    assert "making it" in batching(slow).because


def test_without_cpu_figures_the_size_alone_decides() -> None:
    unknown = replace(SMALL, together_cpu=math.nan, worker_cpu=math.nan, broker_cpu=math.nan, consumer_cpu=math.nan)
    assert batching(unknown).size == 32
    assert machine_rate(unknown) == unknown.transported


@pytest.mark.parametrize(
    ("bits", "text"), [(800, "800 bit/s"), (1.5e6, "1.5 Mbit/s"), (2.44e9, "2.4 Gbit/s"), (4e13, "40000.0 Gbit/s")]
)
def test_bits_are_written_for_people(bits: float, text: str) -> None:
    assert human_bits(bits) == text

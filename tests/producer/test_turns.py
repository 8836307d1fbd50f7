"""Owns the tests of what a worker does with leases and streams, against a broker made by hand over real sockets."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from dfserve.dataflow import BatchData, DataFlow, DataFromGenerator, DataFromList, MapData
from dfserve.dataflow.adapt import as_dataflow
from dfserve.producer import sender as sender_module
from dfserve.producer.bell import Bell
from dfserve.producer.send import introduce
from dfserve.producer.sender import Sender
from dfserve.producer.turns import Line, Turns
from dfserve.producer.uplink import Uplink
from dfserve.wire import epoch_messages as e
from dfserve.wire import messages as m

FakeBroker = Any  # that of conftest.py
GENERATION = b"g" * 16
MIB = 1 << 20
ANSWERS = (e.Made, e.MadeNothing, e.NotMade)
JOIN = 30.0  # seconds


@pytest.fixture
def broker(fake_broker: Callable[..., FakeBroker]) -> FakeBroker:
    return fake_broker()


@pytest.fixture
def streaming(fake_broker: Callable[..., FakeBroker]) -> FakeBroker:
    """A broker that wants one pipeline's stream."""
    return fake_broker(streams=["default"])


class Worker:
    """A worker's main thread as a thread of the test, with a sender for each pipeline."""

    def __init__(
        self, broker: FakeBroker, pipelines: dict[str, Any], passes: int | None, grace: float, stack: ExitStack
    ) -> None:
        self.bell = Bell()
        self.grace = grace
        self.built: list[str] = []
        self.places: list[tuple[int, int, int]] = []
        self.drained: bool | None = None
        self.error: BaseException | None = None
        self.lines = []
        for name, pipeline in pipelines.items():
            identity = introduce("0", name, passes, eager=len(pipelines) == 1)
            sender = stack.enter_context(Sender(Uplink(broker.address), identity, self.bell))
            self.lines.append(Line(self._builder(name, pipeline), sender, passes, self.bell))
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _builder(self, name: str, pipeline: Any) -> Callable[[], DataFlow]:
        df: list[DataFlow] = []

        def build() -> DataFlow:
            if not df:
                self.built.append(name)
                df.append(as_dataflow(pipeline() if callable(pipeline) else pipeline))
            return df[0]

        return build

    def _run(self) -> None:
        turns = Turns(
            self.lines,
            self.bell,
            grace=self.grace,
            note=lambda *place: lambda position: self.places.append((*place, position)),
        )
        try:
            self.drained = turns.run()
        except BaseException as error:  # looked at by the test
            self.error = error

    def tell_to_stop(self) -> None:
        self.bell.stop()
        for line in self.lines:
            line.sender.interrupt()

    def join(self) -> None:
        self._thread.join(JOIN)
        assert not self._thread.is_alive()


@contextmanager
def serving(broker: FakeBroker, pipelines: Any, passes: int | None = None, grace: float = 0.0) -> Iterator[Worker]:
    """Serve one pipeline, or several by name; at the end what was made of leases is forgotten."""
    named = pipelines if isinstance(pipelines, dict) else {"default": pipelines}
    with ExitStack() as stack:
        worker = Worker(broker, named, passes, grace, stack)
        try:
            yield worker
        finally:
            worker.tell_to_stop()
            for line in worker.lines:
                for job in list(line.sender._lessee._jobs.values()):
                    line.sender.drop(job)
            worker.join()


def numbers(count: int) -> DataFlow:
    return DataFromList([[number] for number in range(count)], shuffle=False)


class Gate:
    """A function for a pipeline that waits at its first item until the test lets it go on."""

    def __init__(self) -> None:
        self.reached, self.open = threading.Event(), threading.Event()

    def __call__(self, datapoint: Any) -> Any:
        self.reached.set()
        assert self.open.wait(JOIN)
        return datapoint


# ---------------------------------------------------------------------- the source


def test_a_worker_describes_its_source(broker: FakeBroker) -> None:
    pipeline = BatchData(MapData(numbers(10), lambda datapoint: datapoint), 4, remainder=True)
    with serving(broker, pipeline) as worker:
        broker.say(e.Describe())
        source = broker.hear(e.Source)
        assert (source.name, source.items, source.sharded, source.refusal) == ("DataFromList", 10, False, "")
        assert (source.batch, source.remainder, source.use_list) == (4, True, False)
        assert len(source.fingerprint) == 32
        assert 0 < source.item_bytes < 200
        broker.say(e.Describe())
        assert broker.hear(e.Source) == source, "it says it whenever it is asked"
    assert worker.built == ["default"]


@pytest.mark.parametrize("pipeline", [[], [None]], ids=["an empty source", "an item that is filtered"])
def test_a_source_whose_first_item_gives_nothing_has_no_bytes(broker: FakeBroker, pipeline: list[Any]) -> None:
    with serving(broker, MapData(DataFromList(pipeline), lambda datapoint: datapoint)):
        broker.say(e.Describe())
        source = broker.hear(e.Source)
        assert (source.items, source.item_bytes, source.refusal) == (len(pipeline), 0, "")


def test_a_pipeline_that_cannot_be_run_item_by_item_is_refused_with_the_remedy(broker: FakeBroker) -> None:
    with serving(broker, DataFromGenerator(lambda: iter([[1]]))):
        broker.say(e.Describe())
        assert "a generator has no items" in broker.hear(e.Source).refusal


def test_a_factory_that_raises_is_a_refusal_with_its_traceback(broker: FakeBroker) -> None:
    def factory() -> None:
        raise OSError("no such share")

    with serving(broker, factory):
        broker.say(e.Describe())
        refusal = broker.hear(e.Source).refusal
        assert "OSError: no such share" in refusal
        assert "in factory" in refusal


# ---------------------------------------------------------------------- what is made


def test_a_lease_is_answered_with_the_outputs_of_its_items_in_one_block(broker: FakeBroker) -> None:
    with serving(broker, numbers(10)) as worker:
        number = broker.lease(split=3, first=6, count=4)
        made, block = broker.hear_block(e.Made)
        assert made == e.Made(number, GENERATION, 0, 3, outputs=4, counts=[], quarantined="", pieces=[])
        assert block == [[6], [7], [8], [9]]
        broker.say(e.Taken([number]))
        beat = broker.hear(e.LeaseBeat)
        while beat.leases:
            beat = broker.hear(e.LeaseBeat)
        assert beat.items == 4, "the items that it has begun"
    assert worker.places == [(0, 0, 6), (0, 0, 7), (0, 0, 8), (0, 0, 9), (0, 0, -1)]
    assert worker.lines[0].datapoints == 4
    assert worker.lines[0].sender.nbytes > 0


def test_a_large_block_travels_in_pieces(broker: FakeBroker) -> None:
    images = [[np.full(3 * MIB, number, np.uint8)] for number in range(2)]
    with serving(broker, DataFromList(images, shuffle=False)):
        broker.lease(split=0, most=8 * MIB)
        made, block = broker.hear_block(e.Made)
        assert max(made.pieces) > 1
        assert [int(image[0]) for (image,) in block] == [0, 1]


def test_filtered_items_are_counted(broker: FakeBroker) -> None:
    odd = MapData(numbers(6), lambda datapoint: datapoint if datapoint[0] % 2 else None)
    with serving(broker, odd):
        broker.lease(split=0, count=4)
        made, block = broker.hear_block(e.Made)
        assert (made.outputs, made.counts, block) == (2, [0, 1, 0, 1], [[1], [3]])
        number = broker.lease(split=2, first=4, count=1)
        assert broker.hear(*ANSWERS) == e.MadeNothing(number, GENERATION, 0, 2, "")


def test_positions_that_are_to_be_skipped_give_nothing(broker: FakeBroker) -> None:
    with serving(broker, numbers(4)):
        broker.lease(split=0, count=4, skip=[1, 2])
        made, block = broker.hear_block(e.Made)
        assert (made.counts, block) == ([1, 0, 0, 1], [[0], [3]])


def test_outputs_of_several_kinds_travel_in_one_block(broker: FakeBroker) -> None:
    kinds = [[1], ["text"], [np.arange(3)], [np.float32(0.5)], [None], [np.zeros((2, 9000))]]
    with serving(broker, DataFromList(kinds, shuffle=False)):
        broker.lease(split=0, count=6)
        _, block = broker.hear_block(e.Made)
    for (found,), (expected,) in zip(block, kinds, strict=True):
        assert type(found) is type(expected)
        np.testing.assert_array_equal(found, expected)


def test_outputs_of_several_lengths_are_an_error_that_says_so(broker: FakeBroker) -> None:
    with serving(broker, DataFromList([[1], [1, 2]], shuffle=False)):
        broker.lease(split=0, on_error="skip")
        found = broker.hear(*ANSWERS)
        assert isinstance(found, e.NotMade)
        assert (found.nbytes, found.kind) == (0, "ConfigError")
        assert "a list of 2 components, does not fit" in found.text


# ---------------------------------------------------------------------- what is not made


def fails_at_1(datapoint: Any) -> Any:
    if datapoint[0] == 1:
        raise ValueError("bad" + "!" * 100_000)
    return datapoint


def test_an_item_that_raises_is_reported_with_its_key(broker: FakeBroker) -> None:
    with serving(broker, MapData(numbers(4), fails_at_1)) as worker:
        number = broker.lease(split=0)
        found = broker.hear(*ANSWERS)
        assert (found.lease, found.split, found.nbytes) == (number, 0, 0)
        assert (found.key, found.kind) == ("1", "ValueError")
        assert found.text.startswith("bad!!")
        assert "in fails_at_1" in found.traceback
        broker.lease(split=1)
        assert broker.hear_block(e.Made)[1] == [[2], [3]], "and the worker goes on"
    assert worker.error is None


def test_items_that_are_left_out_are_listed_within_what_a_message_carries(broker: FakeBroker) -> None:
    with serving(broker, MapData(numbers(4), fails_at_1)):
        broker.lease(split=0, on_error="skip")
        made, block = broker.hear_block(e.Made)
        assert (made.counts, block) == ([1, 0], [[0]])
        ((key, kind, text, traceback),) = json.loads(made.quarantined)
        assert (key, kind) == ("1", "ValueError")
        assert text.startswith("bad!!")
        assert "Traceback" in traceback


def test_a_block_that_is_too_large_for_its_lease_is_not_sent_but_its_size_is(broker: FakeBroker) -> None:
    with serving(broker, DataFromList([[bytes(100_000)]] * 2)):
        broker.lease(split=0, most=100_000)
        found = broker.hear(*ANSWERS)
        assert isinstance(found, e.NotMade)
        assert 200_000 < found.nbytes < 201_000
        broker.lease(split=0, most=found.nbytes + 2047)
        assert isinstance(broker.hear(*ANSWERS), e.NotMade)
        broker.lease(split=0, most=found.nbytes + 2048)
        assert isinstance(broker.hear(*ANSWERS), e.Made)


def test_a_split_that_exceeds_the_brokers_budget_is_given_up_when_it_does(
    fake_broker: Callable[..., FakeBroker],
) -> None:
    def endless(_datapoint: Any) -> Any:
        made.append(None)
        return [bytes(100_000)]

    made: list[None] = []
    pipeline = MapData(numbers(1000), endless)
    broker = fake_broker(budget=MIB)
    with serving(broker, pipeline):
        broker.lease(split=0, count=1000)
        found = broker.hear(*ANSWERS)
        assert isinstance(found, e.NotMade)
        assert MIB < found.nbytes < 1.2 * MIB
        assert len(made) < 20


# ---------------------------------------------------------------------- said again, revoked, dropped


def test_what_is_not_taken_is_said_again_after_a_reconnect(broker: FakeBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender_module, "BEAT", 2 * JOIN)  # one before the welcome would make it say everything twice
    with serving(broker, numbers(10)):
        first, second = broker.lease(split=0), broker.lease(split=1)
        assert {broker.hear(e.Made).lease, broker.hear(e.Made).lease} == {first, second}
        broker.say(e.Taken([first]))
        broker.say(e.Revoke([999]))  # an answer to what was said last: what was said before it has arrived
        assert broker.hear(e.Dropped).leases == [999]
        before = broker.welcomes
        broker.break_connections()
        made, block = broker.hear_block(e.Made)
        assert (made.lease, block) == (second, [[2], [3]])
        assert broker.hear_all(e.Made, 0.3) == []
        assert broker.welcomes - before == 1


def test_another_instance_of_the_broker_is_told_nothing_of_the_leases_of_the_one_before(broker: FakeBroker) -> None:
    with serving(broker, numbers(10)):
        broker.lease(split=0)
        broker.hear(e.Made)
        broker.break_connections(other_instance=True)
        broker.await_welcome()
        number = broker.lease(split=1, generation=b"h" * 16)
        assert broker.hear(e.Made).lease == number


def test_a_lease_that_is_said_again_is_answered_again_without_being_made_again(broker: FakeBroker) -> None:
    with serving(broker, numbers(10)) as worker:
        number = broker.lease(split=0)
        broker.hear(e.Made)
        broker.lease(split=0, lease=number)
        assert broker.hear(e.Made).lease == number
    assert len(worker.places) == 3


def test_a_lease_that_waits_is_dropped_when_it_is_revoked_and_one_that_was_sent_is_not(broker: FakeBroker) -> None:
    gate = Gate()
    with serving(broker, MapData(numbers(10), gate)):
        first, second = broker.lease(split=0), broker.lease(split=1)
        broker.say(e.Revoke([second]))
        assert broker.hear(e.Dropped).leases == [second]
        gate.open.set()
        assert broker.hear(e.Made).lease == first
        broker.say(e.Revoke([first]))
        third = broker.lease(split=2)
        assert broker.hear(e.Made, e.Dropped).lease == third


def test_a_lease_in_the_making_is_ended_before_its_next_item_when_it_is_revoked(broker: FakeBroker) -> None:
    gate = Gate()
    with serving(broker, MapData(numbers(10), gate)) as worker:
        number = broker.lease(split=0)
        assert gate.reached.wait(JOIN)
        broker.say(e.Revoke([number]))
        assert broker.hear(e.Dropped).leases == [number]
        gate.open.set()
        other = broker.lease(split=4)
        assert broker.hear(*ANSWERS).lease == other
    assert [position for *_, position in worker.places] == [0, -1, 8, 9, -1]


def test_leases_of_an_old_generation_are_forgotten_when_one_of_a_new_comes(broker: FakeBroker) -> None:
    gate = Gate()
    with serving(broker, MapData(numbers(10), gate)):
        broker.lease(split=0)
        broker.lease(split=1)
        assert gate.reached.wait(JOIN)
        number = broker.lease(split=2, generation=b"h" * 16)
        while broker.hear(e.LeaseBeat).leases != [number]:
            pass  # it has not arrived yet
        gate.open.set()
        made, block = broker.hear_block(*ANSWERS)
        assert (made.lease, made.generation, block) == (number, b"h" * 16, [[4], [5]])


def test_a_slow_worker_tells_that_it_lives(broker: FakeBroker) -> None:
    gate = Gate()
    with serving(broker, MapData(numbers(10), gate)):
        number = broker.lease(split=0)
        assert gate.reached.wait(JOIN)
        while (beat := broker.hear(e.LeaseBeat)).items == 0:
            pass  # it was sent when the item was about to begin
        assert (beat.leases, beat.items) == ([number], 1)
        gate.open.set()


# ---------------------------------------------------------------------- several pipelines, and streams


def test_the_earliest_split_is_made_first_and_pipelines_take_turns(broker: FakeBroker) -> None:
    gate = Gate()
    with serving(broker, {"train": MapData(numbers(20), gate), "val": numbers(20)}) as worker:
        for split in (9, 5, 2):
            broker.lease(split, "train")
            gate.reached.wait(JOIN)  # the first is begun; the others wait for it
            broker.lease(split, "val")
        for name in ("train", "val"):  # an answer to what was said last: everything before it has arrived
            broker.say(e.Revoke([999]), name)
            assert broker.hear(e.Dropped, pipeline=name).leases == [999]
        gate.open.set()
        for name in ("train", "val") * 3:
            broker.hear(e.Made, pipeline=name)
    begun = [(number, position // 2) for number, _, position in worker.places if position >= 0 and not position % 2]
    assert begun == [(0, 9), (1, 2), (0, 2), (1, 5), (0, 5), (1, 9)]


def test_a_pipeline_is_built_when_it_is_first_wanted(broker: FakeBroker) -> None:
    with serving(broker, {"train": numbers(4), "val": numbers(6)}) as worker:
        broker.await_welcome("train")
        broker.await_welcome("val")
        assert [broker.hellos[name].eager for name in ("train", "val")] == [False, False]
        assert worker.built == []
        broker.say(e.Describe(), "val")
        assert broker.hear(e.Source, pipeline="val").items == 6
        assert worker.built == ["val"]
        broker.want_stream("train", True)
        broker.hear(m.Block, pipeline="train")
        assert worker.built == ["val", "train"]


def test_leases_are_made_between_the_datapoints_of_an_endless_stream(broker: FakeBroker) -> None:
    broker.streams = {"train"}
    with serving(broker, {"train": numbers(4), "val": numbers(6)}):
        broker.hear(m.Block, pipeline="train")
        for split in range(3):
            broker.lease(split, "val")
            _, block = broker.hear_block(e.Made, pipeline="val")
            assert block == [[2 * split], [2 * split + 1]]
        broker.hear(m.Block, pipeline="train")


def test_streams_of_several_pipelines_take_turns(broker: FakeBroker) -> None:
    broker.streams = {"train", "val"}
    large = [[number, bytes(400_000)] for number in range(4)]
    with serving(broker, {"train": DataFromList(large, shuffle=False), "val": DataFromList(large, shuffle=False)}):
        for name in ("train", "val") * 3:
            broker.hear(m.Block, pipeline=name)


def test_a_stream_pauses_where_it_is_while_the_broker_does_not_want_it(
    streaming: FakeBroker, until: Callable[..., Any]
) -> None:
    broker = streaming
    with serving(broker, numbers(1000)) as worker:
        found = broker.hear_block(m.Block)[1]
        broker.want_stream("default", False)
        broker.lease(split=0)
        until(lambda: broker.hear_all(e.Made, 0.1), "the lease, before which it has heard the other")
        sent = worker.lines[0].counter.datapoints
        broker.hear_all(e.Made, 0.1)
        assert worker.lines[0].counter.datapoints == sent
        broker.want_stream("default", True)
        while len(found) < 5000:
            found += broker.hear_block(m.Block)[1]
    assert len(found) >= 5000
    assert all(number == (before + 1) % 1000 for (before,), (number,) in pairwise(found))


def test_a_worker_whose_passes_were_taken_ends_when_nothing_is_leased_any_more(streaming: FakeBroker) -> None:
    broker = streaming
    with serving(broker, numbers(4), passes=2) as worker:
        number = broker.lease(split=0)
        broker.hear(e.Made)
        while broker.hear(m.WorkerBeat).offered < 2:
            pass
        assert worker.drained is None
        broker.say(e.Taken([number]))
        broker.say(m.Credit(99, 99, 99))
        worker.join()
        assert worker.drained is True


def test_told_to_stop_a_worker_hands_over_what_it_makes_and_drops_what_waits(broker: FakeBroker) -> None:
    gate = Gate()
    with serving(broker, MapData(numbers(10), gate), grace=JOIN) as worker:
        first, second = broker.lease(split=0), broker.lease(split=1)
        assert gate.reached.wait(JOIN)
        worker.tell_to_stop()
        assert broker.hear(e.Dropped).leases == [second]
        third = broker.lease(split=2)
        assert broker.hear(e.Dropped).leases == [third]
        gate.open.set()
        made, block = broker.hear_block(e.Made)
        assert (made.lease, block) == (first, [[0], [1]])
        assert worker.drained is None, "it waits for the receipt"
        broker.say(e.Taken([first]))
        worker.join()
        assert worker.drained is True


def test_what_is_in_the_making_when_the_grace_is_over_is_dropped(broker: FakeBroker) -> None:
    gate = Gate()
    with serving(broker, MapData(numbers(10), gate), grace=0.0) as worker:
        number = broker.lease(split=0)
        assert gate.reached.wait(JOIN)
        worker.tell_to_stop()
        gate.open.set()
        assert broker.hear(e.Dropped, e.Made).leases == [number]
        worker.join()
        assert worker.drained is True

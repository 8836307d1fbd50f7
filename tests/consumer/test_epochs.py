"""Tests of epochs mode as a trainer sees it, over a real broker and a worker in this process."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import numpy as np
import pytest

from dfserve import ConfigError, DatapointError, PipelineError, RemoteDataZMQ, Starved, UnknownLengthError
from dfserve.broker.epochs_job import REFUSALS
from dfserve.consumer import epoch_inbox
from dfserve.consumer import epochs as epochs_module
from dfserve.dataflow import (
    BatchData,
    DataFlow,
    DataFromGenerator,
    DataFromList,
    MapData,
    ProxyDataFlow,
    RepeatedDataPoint,
    SkipErrors,
)
from dfserve.testing import LocalBroker
from dfserve.wire.blocks import Rows

HANG = 60.0  # seconds after which a wait is a failure


def numbers(count: int) -> DataFromList:
    return DataFromList([[number, str(number)] for number in range(count)], shuffle=False)


def firsts(datapoints: Any) -> list[Any]:
    return [datapoint[0] for datapoint in datapoints]


@pytest.fixture
def broker() -> Iterator[LocalBroker]:
    with LocalBroker() as one:
        yield one


def loader(broker: LocalBroker, **options: Any) -> RemoteDataZMQ:
    return broker.consumer(**{"mode": "epochs", "split_size": 4, **options})


def test_a_pipeline_that_no_producer_can_serve_is_an_error_within_seconds(broker: LocalBroker) -> None:
    with (
        broker.serving(DataFromGenerator(lambda: iter([[1]]))),
        loader(broker, timeout=300.0) as remote,
        pytest.raises(ConfigError, match=r"'default' in epochs: .*thread-\d+ \(.* a generator has no items"),
    ):
        next(iter(remote))


def test_one_loop_is_one_epoch_and_the_next_has_another_order(broker: LocalBroker) -> None:
    with broker.serving(numbers(50)), loader(broker, order="strict") as remote:
        first, second = firsts(remote), firsts(remote)
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second
    assert first != sorted(first)


def test_without_shuffle_the_order_is_the_sources(broker: LocalBroker) -> None:
    with broker.serving(numbers(30)), loader(broker, order="strict", shuffle=False) as remote:
        assert firsts(remote) == list(range(30)) == firsts(remote)


def test_the_strict_order_does_not_depend_on_the_size_of_splits(broker: LocalBroker) -> None:
    found = []
    with broker.serving(numbers(50)):
        for size in (1, 8, 64, None):
            with loader(broker, order="strict", split_size=size, group=str(size), seed=3) as remote:
                found.append(firsts(remote))
    assert found[0] == found[1] == found[2] == found[3]


def test_lengths_are_those_of_the_source_and_of_what_this_rank_yields(broker: LocalBroker) -> None:
    with broker.serving(numbers(50)):
        with loader(broker) as remote:
            assert (remote.source_len, len(remote)) == (50, 50)
        with loader(broker, batch_size=8, group="batches") as remote:
            assert (remote.source_len, len(remote)) == (50, 7)
            assert len(list(remote)) == 7
        with loader(broker, batch_size=8, drop_last=True, group="dropped") as remote:
            assert len(remote) == 6
            assert [len(batch[0]) for batch in remote] == [8] * 6


def test_batches_reach_across_blocks_and_a_last_one_may_be_smaller(broker: LocalBroker) -> None:
    with (
        broker.serving(numbers(10)),
        loader(broker, order="strict", shuffle=False, batch_size=4, split_size=3) as remote,
    ):
        batches = [batch[0].tolist() for batch in remote]
    assert batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_a_batch_may_be_made_by_a_function(broker: LocalBroker) -> None:
    with (
        broker.serving(numbers(4)),
        loader(broker, order="strict", shuffle=False, batch_size=2, collate=firsts) as remote,
    ):
        assert list(remote) == [[0, 1], [2, 3]]


def test_a_batch_data_at_the_pipelines_end_is_made_at_the_consumer(broker: LocalBroker) -> None:
    with (
        broker.serving(BatchData(numbers(10), 4, remainder=True)),
        loader(broker, order="strict", shuffle=False, split_size=3) as remote,
    ):
        assert [batch[0].tolist() for batch in remote] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    with broker.serving(BatchData(numbers(10), 4)), loader(broker, group="other", resume="fresh") as remote:
        assert [len(batch[0]) for batch in remote] == [4, 4]


def test_what_is_filtered_is_accounted_for(broker: LocalBroker) -> None:
    odd = MapData(numbers(20), lambda datapoint: datapoint if datapoint[0] % 2 else None)
    with broker.serving(odd), loader(broker) as remote:
        assert sorted(firsts(remote)) == list(range(1, 20, 2))
        report = remote.report
    assert report is not None
    assert (report["items"], report["delivered"], report["filtered"], report["datapoints"]) == (20, 10, 10, 10)


def test_one_item_may_give_several_datapoints(broker: LocalBroker) -> None:
    with broker.serving(RepeatedDataPoint(numbers(6), 3)), loader(broker) as remote:
        assert sorted(firsts(remote)) == sorted([*range(6)] * 3)
        report = remote.report
    assert report is not None
    assert (report["delivered"], report["datapoints"]) == (6, 18)


def test_an_empty_source_has_epochs_too(broker: LocalBroker) -> None:
    with broker.serving(numbers(0)), loader(broker) as remote:
        assert list(remote) == [] == list(remote)


def test_a_loop_that_was_broken_off_goes_on(broker: LocalBroker) -> None:
    with broker.serving(numbers(30)), loader(broker) as remote:
        seen = []
        for datapoint in remote:
            seen.append(datapoint[0])
            if len(seen) == 7:
                break
        assert sorted(seen + firsts(remote)) == list(range(30))
        assert sorted(firsts(remote)) == list(range(30))


def test_a_loop_that_took_all_and_asked_for_no_more_has_had_its_epoch(broker: LocalBroker) -> None:
    with broker.serving(numbers(10)), loader(broker) as remote:
        rows = iter(remote)
        assert len([next(rows) for _ in range(10)]) == 10
        assert sorted(firsts(remote)) == list(range(10))


def test_two_ranks_can_be_zipped_in_one_thread(broker: LocalBroker) -> None:
    with (
        broker.serving(numbers(11)),
        loader(broker, world=2, rank=0, even="drop") as first,
        loader(broker, world=2, rank=1, even="drop") as second,
    ):
        for _ in range(3):
            pairs = list(zip(first, second, strict=False))
            assert len(pairs) == 5
            assert len({datapoint[0] for pair in pairs for datapoint in pair}) == 10


@pytest.mark.parametrize("order", ["arrival", "strict"])
@pytest.mark.parametrize("batch", [None, 3])
def test_a_position_that_is_loaded_goes_on_with_what_was_left(
    broker: LocalBroker, order: str, batch: int | None
) -> None:
    with broker.serving(numbers(40)):
        with loader(broker, order=order, batch_size=batch) as remote:
            rows = iter(remote)
            had = [next(rows)[0] for _ in range(5)]
            state = json.loads(json.dumps(remote.state_dict()))
            rest = [np.atleast_1d(value).tolist() for value in firsts(rows)]
        with loader(broker, order=order, batch_size=batch, group="again") as remote:
            remote.load_state_dict(state)
            assert remote.state_dict() == state
            again = [np.atleast_1d(value).tolist() for value in firsts(remote)]
            assert sorted(firsts(loader_of(remote))) == sorted(range(40))
    seen = [number for value in [*had, *again] for number in np.atleast_1d(value).tolist()]
    assert sorted(seen) == list(range(40))
    if order == "strict":
        assert again == rest


def loader_of(remote: RemoteDataZMQ) -> Iterator[Any]:
    """Yield the datapoints of an epoch, whether they come in batches or not."""
    for first, *_ in remote:
        for number in np.atleast_1d(first).tolist():
            yield [number]


def test_a_position_at_the_end_of_a_loop_is_the_next_epochs_beginning(broker: LocalBroker) -> None:
    with broker.serving(numbers(12)):
        with loader(broker, order="strict") as remote:
            assert len(list(remote)) == 12
            state = remote.state_dict()
            second = firsts(remote)
        assert (state["epoch"], state["row"]) == (1, 0)
        with loader(broker, order="strict", group="again") as remote:
            remote.load_state_dict(state)
            assert firsts(remote) == second


def test_another_runs_position_is_refused_with_the_field(broker: LocalBroker) -> None:
    with broker.serving(numbers(12)):
        with loader(broker, order="strict", seed=1) as remote:
            next(iter(remote))
            state = remote.state_dict()
        with loader(broker, order="strict", seed=2, group="again") as remote:
            remote.load_state_dict(state)
            with pytest.raises(ConfigError, match="seed is 1 in the state and 2 here"):
                next(iter(remote))


def test_another_stride_in_the_middle_of_a_row_is_refused(broker: LocalBroker) -> None:
    with broker.serving(numbers(12)):
        with loader(broker, order="strict", stride=4) as remote:
            rows = iter(remote)
            next(rows)
            state = remote.state_dict()
        assert (state["row"], state["taken"]) == (0, 1)
        with loader(broker, order="strict", stride=2, group="again") as remote:
            remote.load_state_dict(state)
            with pytest.raises(ConfigError, match="works between rows; this checkpoint is 1 datapoints into one"):
                next(iter(remote))


def test_a_producer_with_another_source_is_left_out(broker: LocalBroker, caplog: pytest.LogCaptureFixture) -> None:
    with broker.serving(numbers(40)), loader(broker) as remote:
        assert len(list(remote)) == 40
        with broker.serving(numbers(41)):
            deadline = time.monotonic() + HANG
            while "has items 41, and that of other workers 40" not in caplog.text:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            for _ in range(3):
                assert sorted(firsts(remote)) == list(range(40))


def test_the_position_before_the_first_iteration_is_where_it_begins(broker: LocalBroker) -> None:
    with broker.serving(numbers(12)):
        with loader(broker, group="a") as remote:
            beginning = remote.state_dict()
            whole = firsts(remote)
        assert sorted(whole) == list(range(12))
        with loader(broker, group="b") as remote:
            remote.load_state_dict(beginning)
            assert remote.state_dict() == beginning
            assert firsts(remote) == whole
            rest = remote.state_dict()
        with loader(broker, group="c") as remote:
            remote.load_state_dict(rest)
            assert remote.state_dict() == rest


def test_a_state_that_was_asked_for_first_is_the_position_from_which_the_loop_goes_on(broker: LocalBroker) -> None:
    with broker.serving(numbers(12)), loader(broker, batch_size=4) as remote:
        remote.state_dict()
        with pytest.raises(ConfigError, match=r"state_dict\(\) and reset_state"):
            remote.load_state_dict(remote.state_dict())
        assert len(list(remote)) == 3


def test_several_ranks_have_no_position_in_the_order_of_arrival(broker: LocalBroker) -> None:
    with (
        broker.serving(numbers(12)),
        loader(broker, world=2, rank=0, even="drop") as first,
        loader(broker, world=2, rank=1, even="drop") as second,
    ):
        next(zip(first, second, strict=False))
        with pytest.raises(ConfigError, match="choose 'strict'"):
            first.state_dict()


def test_a_plan_that_disagrees_with_the_groups_is_refused_with_the_field(broker: LocalBroker) -> None:
    with (
        broker.serving(numbers(12)),
        loader(broker, world=2, rank=0, even="drop", seed=1) as first,
        loader(broker, world=2, rank=1, even="drop", seed=2) as second,
    ):
        iter(first)
        with pytest.raises(ConfigError, match="seed is 2, and that of the group is 1"):
            iter(second)


def test_a_second_consumer_of_the_same_rank_is_refused(broker: LocalBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epochs_module, "TAKEN_PATIENCE", 0.1)
    with broker.serving(numbers(12)), loader(broker) as first, loader(broker) as second:
        next(iter(first))
        with pytest.raises(ConfigError, match=r"rank 0 \(.*\) of group 'default' is connected"):
            iter(second)


def test_a_second_consumer_of_the_same_rank_is_told_so_also_if_it_waits_no_longer(broker: LocalBroker) -> None:
    with broker.serving(numbers(12)), loader(broker) as first, loader(broker, timeout=6) as second:
        next(iter(first))
        with pytest.raises(Starved, match=r"rank 0 \(.*\) of group 'default' is connected"):
            iter(second)


def test_children_that_were_forked_before_it_connected_are_told_that_they_cannot_be_one_rank(
    broker: LocalBroker, start: Callable[..., Any]
) -> None:
    script = """
import json, os, sys
from dfserve import ConfigError, RemoteDataZMQ
from dfserve.consumer import epochs
epochs.TAKEN_PATIENCE = 0.1
remote = RemoteDataZMQ(sys.argv[1], bind=False, mode="epochs", timeout=60)
(hear, say), (go_on, end) = os.pipe(), os.pipe()
first = os.fork()
if first == 0:
    os.close(end)
    os.write(say, str(len(next(iter(remote)))).encode())
    os.read(go_on, 1)  # it is there for as long as the second one is
    os._exit(0)
os.read(hear, 1)
second = os.fork()
if second == 0:
    try:
        next(iter(remote))
    except ConfigError as error:
        os.write(1, (json.dumps([first, str(error)]) + "\\n").encode())
    os._exit(0)
os.waitpid(second, 0)
"""
    with broker.serving(numbers(12)):
        children = start("-c", script, broker.address)
        assert children.wait() == 0, children.output
    ((first, said),) = children.lines
    assert f", pid {first}) of group 'default' is connected; two processes cannot be one rank" in said


@pytest.mark.parametrize("taken", [0, 1])
@pytest.mark.parametrize("size", [None, 3])
def test_an_iterator_that_was_made_before_a_fork_is_an_error_in_the_child_and_goes_on_in_the_parent(
    broker: LocalBroker, start: Callable[..., Any], size: int | None, taken: int
) -> None:
    script = f"""
import json, os, sys
from dfserve import ConfigError, RemoteDataZMQ
remote = RemoteDataZMQ(sys.argv[1], bind=False, mode="epochs", split_size=4, batch_size={size}, timeout=60)
rows = iter(remote)
count = len([next(rows) for _ in range({taken})])
child = os.fork()
if child == 0:
    try:
        for _ in rows:  # what the parent has opened already may come
            pass
    except ConfigError as error:
        os.write(1, (json.dumps([os.getppid(), os.getpid(), str(error)]) + "\\n").encode())
    os._exit(0)
os.waitpid(child, 0)
print(json.dumps([count + len(list(rows))]))
"""
    with broker.serving(numbers(24)):
        family = start("-c", script, broker.address)
        assert family.wait() == 0, family.output
    (parent, child, said), (count,) = family.lines
    assert f"connected in process {parent} and is used in {child}" in said
    assert count == 24 // (size or 1)


def test_workers_that_are_at_their_first_item_are_not_said_to_be_missing(broker: LocalBroker) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def slow(datapoint: Any) -> Any:
        begun.set()
        assert may_end.wait(HANG)
        return datapoint

    late = pytest.raises(Starved, match=r"for the first item of pipeline 'default', asked of .*/.*: it is slow")
    with broker.serving(MapData(numbers(3), slow)), loader(broker, timeout=6) as remote:
        try:
            with late:
                next(iter(remote))
            assert begun.is_set()
        finally:
            may_end.set()


def test_a_state_is_loaded_before_anything_is_asked_for(broker: LocalBroker) -> None:
    with broker.serving(numbers(20)), loader(broker) as remote:
        next(iter(remote))
        state = remote.state_dict()
        with loader(broker, group="other") as late:
            assert len(late) == 20
            with pytest.raises(ConfigError, match=r"before len\(\).*Make a new one, and load first"):
                late.load_state_dict(state)


def test_a_loader_that_was_closed_says_so_and_still_knows_where_it_was(broker: LocalBroker) -> None:
    with broker.serving(numbers(6)):
        with loader(broker, order="strict") as remote:
            assert len(list(remote)) == 6
        assert (len(remote), remote.source_len, remote.state_dict()["epoch"]) == (6, 6, 1)
        with pytest.raises(ConfigError, match="this loader was closed: make a new one"):
            iter(remote)
        with pytest.raises(ConfigError, match="this loader was closed: make a new one"):
            remote.load_state_dict(remote.state_dict())


@pytest.mark.parametrize("size", [None, 2])
def test_a_loader_that_is_closed_in_the_middle_hands_out_nothing_more(broker: LocalBroker, size: int | None) -> None:
    with broker.serving(numbers(30)):
        remote = loader(broker, order="strict", split_size=10, batch_size=size)
        rows = iter(remote)
        next(rows)
        next(remote)
        state = remote.state_dict()
        remote.close()
        for more in (rows, remote):
            with pytest.raises(ConfigError, match="this loader was closed"):
                next(more)
        assert remote.state_dict() == state


def test_a_run_that_ended_after_whole_epochs_is_said_to_have_ended(broker: LocalBroker) -> None:
    with broker.serving(numbers(6)):
        with loader(broker, order="strict") as remote:
            for _ in range(2):
                assert len(list(remote)) == 6
        ended = pytest.raises(ConfigError, match="an earlier run of this group ended here before epoch 2, and no state")
        with loader(broker, order="strict") as remote, ended:
            next(iter(remote))


def test_what_cannot_be_stacked_may_be_collated(broker: LocalBroker) -> None:
    uneven = DataFromList([[np.zeros(number + 1)] for number in range(4)], shuffle=False)
    with broker.serving(uneven):
        with loader(broker, batch_size=2, group="stacked") as remote, pytest.raises(DatapointError, match="collate="):
            next(iter(remote))
        with loader(broker, batch_size=2, group="collated", shuffle=False, collate=firsts) as remote:
            assert [[len(array) for array in batch] for batch in remote] == [[1, 2], [3, 4]]


@pytest.mark.parametrize("order", ["strict", "arrival"])
@pytest.mark.parametrize("failing", [2, 5])  # one in the middle, and the last, smaller one
def test_a_batch_that_could_not_be_made_is_tried_again_by_the_next_loop(
    broker: LocalBroker, order: str, failing: int
) -> None:
    calls = 0

    def collate(datapoints: list[Any]) -> list[int]:
        nonlocal calls
        calls += 1
        if calls == failing:
            raise ValueError("it cannot be made")
        return firsts(datapoints)

    seen: list[int] = []
    with broker.serving(numbers(22)), loader(broker, order=order, batch_size=5, collate=collate) as remote:
        batches = iter(remote)
        for _ in range(failing - 1):
            seen += next(batches)
        state = remote.state_dict()
        with pytest.raises(ValueError, match="it cannot be made"):
            next(batches)
        assert remote.state_dict() == state
        again = list(remote)
        assert sorted([*seen, *chain.from_iterable(again)]) == list(range(22))
        assert [len(batch) for batch in again] == [5, 5, 5, 5, 2][failing - 1 :]
        assert remote.state_dict()["epoch"] == 1


def test_progress_that_nobody_loaded_a_state_for_asks_what_to_do(broker: LocalBroker) -> None:
    with broker.serving(numbers(20)):
        with loader(broker, order="strict") as remote:
            rows = iter(remote)
            seen = [next(rows)[0] for _ in range(7)]
        with loader(broker, order="strict") as remote, pytest.raises(ConfigError, match="resume='broker'"):
            next(iter(remote))
        with loader(broker, order="strict", resume="broker") as remote:
            assert sorted(seen + firsts(remote)) == list(range(20))
        with loader(broker, order="strict", resume="fresh") as remote:
            assert sorted(firsts(remote)) == list(range(20))


def broken(datapoint: Any) -> Any:
    if datapoint[0] == 5:
        raise ValueError("five is broken")
    return datapoint


def test_an_item_that_raises_is_raised_here_and_nothing_else_is_lost(broker: LocalBroker) -> None:
    with broker.serving(MapData(numbers(20), broken)), loader(broker, order="strict", shuffle=False) as remote:
        rows = iter(remote)
        assert [next(rows)[0] for _ in range(4)] == [0, 1, 2, 3]
        with pytest.raises(PipelineError, match="five is broken") as caught:
            next(rows)
    assert caught.value.kind == "ValueError"
    assert "broken(datapoint)" in caught.value.remote_traceback or "five" in caught.value.remote_traceback


def test_an_item_that_raises_may_be_skipped_and_is_in_the_report(broker: LocalBroker) -> None:
    with broker.serving(MapData(numbers(20), broken)), loader(broker, on_error=SkipErrors(total=3)) as remote:
        assert sorted(firsts(remote)) == [number for number in range(20) if number != 5]
        assert remote.errors == 1
        report = remote.report
    assert report is not None
    assert (report["delivered"], report["quarantined"]) == (19, 1)


class Endless(DataFlow):
    """A source that has neither a length nor items."""

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield [1]


def test_a_source_without_items_is_refused_with_the_reason(
    broker: LocalBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(epoch_inbox, "REFUSED", 1000)  # heartbeats: it is not hopeless yet
    missing = pytest.raises(Starved, match=r"a producer of pipeline 'default' \(.*Endless.*")
    with broker.serving(Endless()), loader(broker, timeout=6) as remote, missing:
        next(iter(remote))


def test_a_pipeline_that_none_of_many_producers_can_serve_is_an_error_before_the_timeout(broker: LocalBroker) -> None:
    hopeless = pytest.raises(ConfigError, match=r"no producer can serve pipeline 'default' in epochs: .*Endless")
    with contextlib.ExitStack() as stack:
        for _ in range(REFUSALS + 2):
            stack.enter_context(broker.serving(Endless()))
        with loader(broker, timeout=60) as remote, hopeless:
            next(iter(remote))


def test_who_is_missing_is_named(broker: LocalBroker) -> None:
    missing = pytest.raises(Starved, match="rank 0, 2 of 3 in group 'default' and a producer of pipeline 'default'")
    with loader(broker, world=3, rank=1, even="drop", timeout=6) as remote, missing:
        next(iter(remote))


def test_a_split_that_is_too_large_is_named_where_no_item_is_at_fault() -> None:
    source = DataFromList([[bytes(300_000)]] * 4)
    large = pytest.raises(PipelineError, match=r"BlockTooLarge at split 0 of epoch 0 on .* lower split_size")
    with LocalBroker(queue_bytes=1 << 20) as broker, broker.serving(source), loader(broker) as remote, large:
        next(iter(remote))


def test_producers_that_were_there_and_are_gone_are_named_and_not_said_to_have_never_come(broker: LocalBroker) -> None:
    with loader(broker, timeout=6) as remote:
        with broker.serving(numbers(12)):
            assert len(list(remote)) == 12
        late = pytest.raises(Starved, match=r"no producer is connected to .* \(gone: .*/.* \(left\)\); start one")
        with late:
            for _ in range(4):  # what was made ahead may still come
                list(remote)
        late = pytest.raises(Starved, match=r"for a producer of pipeline 'default' \(gone: .*/.* \(left\)\)")
        with loader(broker, group="later", timeout=6) as other, late:
            next(iter(other))


def test_a_stream_has_no_epochs(broker: LocalBroker) -> None:
    with broker.consumer() as remote:
        assert remote.report is None
        with pytest.raises(ConfigError, match="mode='epochs' has"):
            remote.state_dict()
        with pytest.raises(ConfigError, match="mode='epochs' has"):
            remote.load_state_dict({})
        with pytest.raises(UnknownLengthError):
            _ = remote.source_len


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "epoch"}, "'stream' or 'epochs'"),
        ({"mode": "stream", "seed": 3}, "seed: only mode='epochs' has this"),
        ({"min_producers": 3, "lag": "skip"}, "min_producers, lag: only mode='stream' has this"),
        ({"world": 2}, "even='drop'"),
        ({"world": 2, "even": "drop", "rank": 2}, "ranks are 0 to 1"),
        ({"order": "random"}, "arrival, strict"),
        ({"split_size": 5000}, "split_size is 5000"),
        ({"batch_size": 0}, "at least 1 datapoint"),
        ({"format": "msgpack"}, "has no epochs"),
        ({"seed": -1}, "the seed is -1"),
        ({"seed": None}, "seed is None, of type NoneType; it is a whole number"),
        ({"seed": "abc"}, "seed is 'abc', of type str; it is a whole number"),
        ({"rank": "0"}, "rank is '0', of type str"),
        ({"batch_size": 2.5}, "batch_size is 2.5, of type float"),
        ({"collate": "pad"}, "collate is 'pad', of type str; it is a function that makes a batch of a list"),
    ],
)
def test_what_cannot_work_is_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RemoteDataZMQ("ipc://@nobody", bind=False, **{"mode": "epochs", **options})


def test_whole_numbers_may_be_numpys(broker: LocalBroker) -> None:
    names = ("seed", "world", "stride", "split_size", "batch_size")
    with broker.serving(numbers(3)), loader(broker, rank=np.int64(0), **dict.fromkeys(names, np.int64(1))) as remote:
        assert len(list(remote)) == 3


# ---------------------------------------------------------------------- batches made here


def travelled(remote: Any, size: int, stops: list[int], **options: Any) -> list[Any]:
    """Return every batch of two epochs with the state after it; break off and begin a new loop after ``stops``."""
    batches = BatchData(remote, size, **options)
    batches.reset_state()
    found: list[Any] = []
    for _ in range(2 + len(stops)):
        for number, (batch, _) in enumerate(batches):
            found.append((np.asarray(batch).tolist(), batches.state_dict()))
            if stops and number == stops[0]:
                break
        stops = stops[1:]
        found.append(batches.state_dict())
    return found


def test_what_is_not_shuffled_comes_in_the_order_of_the_source(broker: LocalBroker) -> None:
    late = MapData(numbers(30), lambda datapoint: time.sleep(0.02 * (datapoint[0] < 3)) or datapoint)
    with (
        broker.serving(late),
        broker.serving(late),
        loader(broker, shuffle=False, split_size=3) as remote,
    ):
        assert firsts(remote) == list(range(30))
        assert remote.state_dict()["order"] == "strict"


def test_what_is_shuffled_comes_as_it_arrives(broker: LocalBroker) -> None:
    with broker.serving(numbers(30)), loader(broker) as remote:
        assert sorted(firsts(remote)) == list(range(30))
        assert remote.state_dict()["order"] == "arrival"


@pytest.mark.parametrize("order", ["strict", "arrival"])
@pytest.mark.parametrize(
    ("size", "remainder", "stops"), [(3, True, [1]), (4, False, [0, 2]), (25, True, []), (10, True, [2])]
)
def test_batches_of_blocks_and_their_positions_are_those_of_single_datapoints(
    broker: LocalBroker, order: str, size: int, remainder: bool, stops: list[int]
) -> None:
    found = []
    with broker.serving(numbers(30)):
        for group, wrap in (("blocks", lambda remote: remote), ("one by one", ProxyDataFlow)):
            with loader(broker, order=order, group=group, shuffle=False) as remote:
                found.append(travelled(wrap(remote), size, list(stops), remainder=remainder))
    assert found[0] == found[1]
    assert len(found[0]) > 2


def test_a_position_between_batches_of_blocks_is_gone_on_from(broker: LocalBroker) -> None:
    with broker.serving(numbers(30)):
        with loader(broker, order="strict") as remote:
            batches = BatchData(remote, 7, remainder=True)
            batches.reset_state()
            rows = iter(batches)
            next(rows), next(rows)
            state = json.loads(json.dumps(batches.state_dict()))
            rest = [batch.tolist() for batch, _ in rows]
        with loader(broker, order="strict", group="again") as remote:
            batches = BatchData(remote, 7, remainder=True)
            batches.load_state_dict(state)
            assert [batch.tolist() for batch, _ in batches] == rest
    assert [len(batch) for batch in rest] == [7, 7, 2]


def test_single_datapoints_and_batches_take_turns(broker: LocalBroker) -> None:
    with broker.serving(numbers(40)), loader(broker, order="strict", shuffle=False, split_size=5) as remote:
        single = iter(remote)
        assert [next(single)[0] for _ in range(2)] == [0, 1]
        batches = iter(BatchData(remote, 6))
        assert next(batches)[0].tolist() == [2, 3, 4, 5, 6, 7]
        assert next(single)[0] == 8
        del single
        assert next(batches)[0].tolist()[-1] < 20
        seen = {*range(9)}
        assert not seen & set(firsts(remote))


@pytest.mark.parametrize("even", ["drop", "pad"])
def test_ranks_have_batches_of_equal_numbers(broker: LocalBroker, even: str) -> None:
    def loop(rank: int, found: list[list[int]]) -> None:
        with loader(broker, order="strict", shuffle=False, world=2, rank=rank, stride=3, even=even) as remote:
            found.extend(batch.tolist() for batch, _ in BatchData(remote, 3, remainder=True))

    found: list[list[list[int]]] = [[], []]
    with broker.serving(numbers(20)):
        ranks = [threading.Thread(target=loop, args=(rank, found[rank]), daemon=True) for rank in range(2)]
        for rank in ranks:
            rank.start()
        for rank in ranks:
            rank.join(HANG)
    assert [found[0][0], found[1][0]] == [[0, 1, 2], [3, 4, 5]]
    assert [len(batches) for batches in found] == [3 if even == "drop" else 4] * 2
    if even == "pad":
        assert {number for batches in found for batch in batches for number in batch} == set(range(20))


def test_batches_of_the_pipelines_own_batches_are_batches_of_arrays(broker: LocalBroker) -> None:
    with (
        broker.serving(BatchData(numbers(12), 3)),
        loader(broker, order="strict", shuffle=False) as remote,
    ):
        assert [batch.tolist() for batch, _ in BatchData(remote, 2)] == [
            [[0, 1, 2], [3, 4, 5]],
            [[6, 7, 8], [9, 10, 11]],
        ]


def test_an_item_that_raises_between_batches_leaves_the_position_at_the_last_one(broker: LocalBroker) -> None:
    with broker.serving(MapData(numbers(20), broken)), loader(broker, order="strict", shuffle=False) as remote:
        batches = BatchData(remote, 3)
        batches.reset_state()
        rows = iter(batches)
        assert next(rows)[0].tolist() == [0, 1, 2]
        state = batches.state_dict()
        with pytest.raises(PipelineError, match="five is broken"):
            next(rows)
        assert batches.state_dict() == state


def test_batch_size_makes_no_datapoint_and_keeps_two_batches_in_flight(
    broker: LocalBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Rows, "listed", None)
    with broker.serving(numbers(150)), loader(broker, batch_size=60) as remote:
        assert [len(batch) for batch, _ in remote] == [60, 60, 30]
        assert remote._epochs is not None
        assert remote._epochs._inbox.identity.hwm == 120


def test_a_batch_that_no_epoch_could_fill_is_refused_when_the_length_is_known(broker: LocalBroker) -> None:
    with loader(broker) as remote:
        batches = BatchData(remote, 13)  # nobody is there yet, and nothing waits
        with broker.serving(numbers(12)), pytest.raises(ConfigError, match="13 is more than the 12 datapoints"):
            next(iter(batches))

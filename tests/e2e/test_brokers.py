"""Owns the tests of a trainer at several brokers, all in processes of their own: exactly once, and who is missing."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dfserve import KeysError, RemoteDataZMQ
from dfserve.keys import make_keys

Make = Callable[..., Any]
LIMIT = 30.0  # seconds in which a refusal must be known; it takes one


def _numbers(program: Any) -> list[int]:
    return [line[0] for line in program.lines if isinstance(line, list)]


def _ended(program: Any) -> dict[str, Any]:
    found: dict[str, Any] = next(line for line in reversed(program.lines) if isinstance(line, dict))
    return found


def _below(number: int, numbers: list[int]) -> list[int]:
    return [each for each in numbers if each < number]


@pytest.fixture
def brokers(run_broker: Make) -> list[Any]:
    return [run_broker(), run_broker()]


def _trainer(start: Make, brokers: list[Any], *flags: str) -> Any:
    trainer = start("pipes.py", *(broker.address for broker in brokers), *flags)
    trainer.wait_until_said("ready")
    return trainer


def test_what_two_producers_send_to_two_brokers_arrives_exactly_once_in_each_trainer_and_group(
    start: Make, produce: Make, brokers: list[Any]
) -> None:
    ranks = [_trainer(start, brokers, "--pause", "0.001") for _ in range(2)]
    other = _trainer(start, brokers, "--group", "other")
    producers = [
        produce(broker.address, f"data-{number}", "--passes", "1", start=1000 * number, count=500, nbytes=20_000)
        for number, broker in enumerate(brokers)
    ]
    assert [producer.wait() for producer in producers] == [0, 0]
    assert [trainer.wait() for trainer in (*ranks, other)] == [0, 0, 0]
    everything = Counter([*range(500), *range(1000, 1500)])
    assert Counter(number for rank in ranks for number in _numbers(rank)) == everything
    assert Counter(_numbers(other)) == everything


def test_the_command_takes_several_addresses(dfserve: Make, produce: Make, brokers: list[Any]) -> None:
    consumer = dfserve("consume", *(broker.address for broker in brokers), "--json")
    for number, broker in enumerate(brokers):
        assert produce(broker.address, f"data-{number}", "--passes", "1", count=30).wait() == 0
    assert consumer.wait() == 0
    assert consumer.lines[-1]["items"] == 60


def test_the_variable_takes_several_addresses(dfserve: Make, produce: Make, brokers: list[Any]) -> None:
    consumer = dfserve("consume", "--json", DFSERVE_FROM=" ".join(broker.address for broker in brokers))
    for number, broker in enumerate(brokers):
        assert produce(broker.address, f"data-{number}", "--passes", "1", count=30).wait() == 0
    assert consumer.wait() == 0
    assert consumer.lines[-1]["items"] == 60


def test_senders_that_host_their_brokers_are_all_read(start: Make, until: Make, tmp_path: Path) -> None:
    addresses = [f"ipc://{tmp_path}/sender-{number}" for number in range(2)]
    senders = []
    for number, address in enumerate(addresses):
        call = f"dfserve.send_dataflow_zmq(pipes.numbers(start={100 * number}), {address!r}, bind=True, passes=1)"
        senders.append(start("-c", f"import dfserve, pipes; {call}"))
    trainer = start("pipes.py", *addresses)
    assert trainer.wait() == 0, trainer.output
    assert [sender.wait() for sender in senders] == [0, 0]
    assert sorted(_numbers(trainer)) == list(range(200))


def test_when_one_broker_is_killed_the_other_goes_on_and_one_that_comes_back_is_joined_again(
    start: Make, produce: Make, run_broker: Make, brokers: list[Any], until: Make, tmp_path: Path
) -> None:
    one, two = brokers
    trainer = _trainer(start, brokers)
    killed = tmp_path / "killed"  # until then neither sends all, however long the other takes to start
    common = {"count": 3000, "nbytes": 20_000, "pause": 0.002, "hold_at": 1500, "hold_until": str(killed)}
    producers = [
        produce(one.address, "data-1", "--passes", "1", **common),
        produce(two.address, "data-2", "--passes", "1", start=10_000, **common),
    ]
    until(lambda: max(_numbers(trainer), default=0) > 10_200 and min(_numbers(trainer)) < 100, "datapoints of both")
    two.program.kill()
    so_far = len(_below(10_000, _numbers(trainer)))
    killed.touch()
    until(lambda: len(_below(10_000, _numbers(trainer))) > so_far + 200, "more of the one that is there")
    again = run_broker(binds=(two.address,))
    assert [producer.wait() for producer in producers] == [0, 0]
    assert trainer.wait() == 0, trainer.output
    got = Counter(_numbers(trainer))
    assert Counter(_below(10_000, list(got.elements()))) == Counter(range(3000))
    in_a_block = 1 + (1 << 20) // 20_000
    doubtful = again.total("dfserve_blocks_uncertain_total") * in_a_block
    missed = set(range(10_000, 13_000)) - set(got)
    assert sum(count - 1 for count in got.values()) + len(missed) <= doubtful


def test_when_one_broker_is_killed_and_stays_away_the_end_is_an_error_that_names_it(
    start: Make, produce: Make, brokers: list[Any], until: Make
) -> None:
    one, two = brokers
    producer = produce(one.address, "data-1", "--passes", "1", count=500, nbytes=20_000)
    endless = produce(two.address, "data-2", count=1000, start=10_000, pause=0.002)
    for each in (producer, endless):  # so that the trainer's timeout counts from where both are there
        each.wait_until_said("started (pid")
    trainer = _trainer(start, brokers, "--timeout", "20")
    until(lambda: max(_numbers(trainer), default=0) > 10_000, "datapoints of the one that will be killed")
    two.program.kill()
    assert producer.wait() == 0
    assert trainer.wait() == 3
    assert Counter(_below(10_000, _numbers(trainer))) == Counter(range(500))
    error = _ended(trainer)
    assert error["error"] == "Starved"
    assert f"nothing was heard from a broker at {two.address} for " in error["text"]
    assert f"The stream of {one.address} has ended" in error["text"]


def test_a_broker_that_is_stopped_holds_up_no_other_and_goes_on_when_it_does(
    start: Make, produce: Make, brokers: list[Any], until: Make, tmp_path: Path
) -> None:
    one, two = brokers
    trainer = _trainer(start, brokers)
    stopped = tmp_path / "stopped"
    held = {"count": 2000, "nbytes": 20_000, "pause": 0.001, "hold_at": 1000, "hold_until": str(stopped)}
    slow = produce(two.address, "data-2", "--passes", "1", start=10_000, **held)
    until(lambda: _numbers(trainer), "datapoints")
    two.program.signal(signal.SIGSTOP)
    stopped.touch()
    fast = produce(one.address, "data-1", "--passes", "1", count=2000, nbytes=20_000)
    until(lambda: len(_below(10_000, _numbers(trainer))) == 2000, "all of the other's datapoints")
    assert trainer.process.poll() is None
    two.program.signal(signal.SIGCONT)
    assert [producer.wait() for producer in (slow, fast)] == [0, 0]
    assert trainer.wait() == 0, trainer.output
    assert Counter(_numbers(trainer)) == Counter([*range(2000), *range(10_000, 12_000)])


def test_brokers_that_have_the_same_keys_take_one_file(run_broker: Make, produce: Make, tmp_path: Path) -> None:
    folder, other = tmp_path / "keys", tmp_path / "other"
    for each in (folder, other):
        make_keys(each, ["data", "trainer"])
    key_of = {name: folder / "clients" / f"{name}.secret" for name in ("data", "trainer")}
    brokers = [run_broker("--keys", str(folder)) for _ in range(2)]
    addresses = [broker.address for broker in brokers]
    with RemoteDataZMQ(addresses, bind=False, keys=key_of["trainer"], timeout=60) as trainer:
        trainer.reset_state()
        for number, address in enumerate(addresses):
            produce(address, f"data-{number}", "--passes", "1", "--keys", str(key_of["data"]), count=50)
        assert Counter(int(number) for number, _ in trainer) == Counter([*range(50), *range(50)])
    stranger = run_broker("--keys", str(other)).address
    with (
        RemoteDataZMQ([addresses[0], stranger], bind=False, keys=key_of["trainer"], timeout=LIMIT) as trainer,
        pytest.raises(KeysError, match=f"the broker at {stranger} has another key"),
    ):
        next(trainer)

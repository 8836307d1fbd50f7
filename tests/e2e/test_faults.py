"""Owns the fault tests of stream mode: what is killed, stopped and cut, and what the user sees of it."""

from __future__ import annotations

import importlib.util
import json
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from dfserve import RemoteDataZMQ

Start = Callable[..., Any]
LIVENESS = 1.0  # seconds: short, so that ten times as long is a short test


def _proxy_class() -> Any:
    """Load proxy.py, which lies beside this file and in no package."""
    spec = importlib.util.spec_from_file_location("proxy", Path(__file__).parent / "proxy.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Proxy


@pytest.fixture
def proxy(free_port: int) -> Iterator[Any]:
    proxy = _proxy_class()(free_port)
    yield proxy
    proxy.close()


def _numbers(program: Any) -> list[int]:
    return [line[0] for line in program.lines if isinstance(line, list)]


def _last(program: Any) -> dict[str, Any]:
    found: dict[str, Any] = next(line for line in reversed(program.lines) if isinstance(line, dict))
    return found


def _produce(dfserve: Start, address: str, *more: str, name: str = "data", passes: int = 1, **arguments: Any) -> Any:
    pairs = [word for key, value in arguments.items() for word in ("--arg", f"{key}={json.dumps(value)}")]
    often = ("--passes", str(passes)) if passes else ()
    return dfserve("produce", "pipes:numbers", "--to", address, *often, *pairs, *more, DFSERVE_NAME=name)


def _broker(dfserve: Start, address: str, *more: str) -> Any:
    broker = dfserve("broker", "--bind", address, "--liveness", f"{LIVENESS}s", *more)
    broker.wait_until_said("broker ready")
    return broker


# ---------------------------------------------------------------------- the network


def test_a_connection_cut_ten_times_loses_nothing_and_repeats_nothing(
    dfserve: Start, tcp_address: str, proxy: Any, until: Callable[..., Any]
) -> None:
    count = 3000
    # A small queue: a producer that is done has no connection left to cut.
    with RemoteDataZMQ(tcp_address, timeout=60, queue_bytes=4 << 20) as source:
        source.reset_state()
        through = f"tcp://127.0.0.1:{proxy.port}"
        producer = _produce(dfserve, through, count=count, nbytes=20_000, pause=0.001)
        numbers: list[int] = []
        cuts = 0
        for number, _ in source:
            numbers.append(number)
            if len(numbers) % (count // 15) == 0 and cuts < 10:
                cuts += until(proxy.cut, "a connection, which may have been cut a moment before")
        assert cuts >= 10
        assert producer.wait() == 0
    assert Counter(numbers) == Counter(range(count))


def test_a_consumer_whose_connection_is_cut_ten_times_misses_nothing_and_sees_nothing_twice(
    dfserve: Start, tcp_address: str, proxy: Any
) -> None:
    count = 2000
    _broker(dfserve, tcp_address, "--liveness", "1m")  # a consumer that is slow to come back is not what is tested
    with RemoteDataZMQ(f"tcp://127.0.0.1:{proxy.port}", bind=False, timeout=60) as source:
        source.reset_state()
        producer = _produce(dfserve, tcp_address, count=count, nbytes=20_000)
        numbers: list[int] = []
        for number, _ in source:
            numbers.append(number)
            if len(numbers) % (count // 12) == 0:
                proxy.cut()
        assert producer.wait() == 0
        assert source.in_doubt == 0
    assert Counter(numbers) == Counter(range(count))


# ---------------------------------------------------------------------- pipelines that fail


def test_forty_items_arrive_and_then_the_error_with_its_traceback(
    start: Start, dfserve: Start, tcp_address: str
) -> None:
    trainer = start("pipes.py", tcp_address, "--bind")
    producer = _produce(dfserve, tcp_address, count=100, fail_at=40)
    assert producer.wait() == 3
    assert trainer.wait() == 3
    assert _numbers(trainer) == list(range(40))
    error = _last(trainer)
    assert error["error"] == "PipelineError"
    assert "item 40 is rotten" in error["text"]
    assert "in __iter__" in error["text"], "the remote traceback"
    assert "data/0" in error["text"], "the worker"


def test_a_library_sender_that_raises_tells_its_consumers_and_raises(start: Start, tcp_address: str) -> None:
    trainer = start("pipes.py", tcp_address, "--bind")
    call = f"dfserve.send_dataflow_zmq(pipes.numbers(count=9, fail_at=5), {tcp_address!r}, passes=1)"
    sender = start("-c", f"import dfserve, pipes; {call}")
    assert sender.wait() == 1
    assert "ValueError: item 5 is rotten" in sender.output
    assert trainer.wait() == 3
    assert _numbers(trainer) == list(range(5))


def test_a_consumer_that_skips_errors_goes_on_and_counts_them(dfserve: Start, tcp_address: str) -> None:
    with RemoteDataZMQ(tcp_address, on_error="skip", min_producers=2, timeout=60) as source:
        source.reset_state()
        bad = _produce(dfserve, tcp_address, name="bad", count=10, fail_at=5)
        good = _produce(dfserve, tcp_address, name="good", start=100, count=10)
        numbers = sorted(number for number, _ in source)
        assert (bad.wait(), good.wait()) == (3, 0)
        assert source.errors == 2, "the exception, and the pass that is not complete"
    assert numbers == [0, 1, 2, 3, 4, *range(100, 110)]


def test_an_unreadable_image_is_an_error_that_names_the_file(
    start: Start, dfserve: Start, tcp_address: str, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    (folder / "train" / "n01").mkdir(parents=True)
    broken = folder / "train" / "n01" / "broken.JPEG"
    broken.write_bytes(b"this is no picture")
    trainer = start("pipes.py", tcp_address, "--bind")
    factory = "dfserve.dataflow.dataset:ILSVRC12"
    arguments = ("--arg", f"dir={folder}", "--arg", "name=train", "--arg", "dir_structure=train", "--passes", "1")
    assert dfserve("produce", factory, "--to", tcp_address, *arguments).wait() == 3
    assert trainer.wait() == 3
    assert str(broken) in _last(trainer)["text"]


# ---------------------------------------------------------------------- workers that die


def test_a_killed_worker_is_named_and_started_again(
    dfserve: Start, tcp_address: str, until: Callable[..., Any]
) -> None:
    with RemoteDataZMQ(tcp_address, timeout=60) as source:
        producer = _produce(dfserve, tcp_address, "--workers", "2", passes=0, count=50, pause=0.002)
        assert next(source)
        victim = until(lambda: producer.children(), "workers")[0]
        victim.kill()
        producer.wait_until_said("killed by SIGKILL")
        assert any("data/" in line["message"] for line in producer.lines if "killed by SIGKILL" in line["message"])
        producer.wait_until_said("starts again in")
        until(lambda: producer.output.count("started (pid") == 3, "the new worker")
        for _ in range(500):
            next(source)
        producer.signal(signal.SIGTERM)
        assert producer.wait() == 0


def test_a_worker_killed_in_a_finite_pass_makes_the_pass_an_error(
    start: Start, dfserve: Start, tcp_address: str, until: Callable[..., Any]
) -> None:
    trainer = start("pipes.py", tcp_address, "--bind")
    producer = _produce(dfserve, tcp_address, count=100_000, pause=0.001)
    until(lambda: _numbers(trainer), "the first datapoints")
    producer.children()[0].kill()
    assert producer.wait() == 4
    assert trainer.wait() == 3
    assert _last(trainer)["error"] == "WorkerLost"
    assert "data/0: killed by SIGKILL" in _last(trainer)["text"]


def test_nothing_is_left_when_a_producer_daemon_is_killed(
    dfserve: Start, tcp_address: str, until: Callable[..., Any]
) -> None:
    producer = _produce(dfserve, tcp_address, "--workers", "2", passes=0, pause=0.01)
    workers = until(lambda: children if len(children := producer.children()) == 2 else None, "two workers")
    producer.kill()
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive


# ---------------------------------------------------------------------- consumers and trainers


def test_what_a_killed_consumer_held_goes_to_the_others_and_is_counted_as_in_doubt(
    start: Start,
    dfserve: Start,
    tcp_address: str,
    metrics_port: int,
    scrape: Callable[[int], Any],
    until: Callable[..., Any],
) -> None:
    _broker(dfserve, tcp_address, "--metrics-port", str(metrics_port))
    holds = start("pipes.py", tcp_address, "--hang-after", "3", "--hwm", "20")
    holds.wait_until_said("ready")
    producer = _produce(dfserve, tcp_address, count=300, nbytes=200_000)
    holds.wait_until_said("holding")
    received = "dfserve_datapoints_received_total"
    until(lambda: scrape(metrics_port).total(received) >= 50, "more datapoints: it is sent them, and hands none out")
    other = start("pipes.py", tcp_address, "--pause", "0.001")
    other.wait_until_said("ready")
    holds.kill()
    assert producer.wait() == 0
    assert other.wait() == 0
    assert set(_numbers(other)) | set(_numbers(holds)) == set(range(300))
    assert max(Counter(_numbers(other)).values()) == 1
    twice = set(_numbers(other)) & set(_numbers(holds))
    metrics = scrape(metrics_port)
    assert metrics.total("dfserve_blocks_redelivered_total") > 0
    assert len(twice) <= metrics.total("dfserve_datapoints_in_doubt_total")
    assert _last(other)["in_doubt"] == metrics.total("dfserve_datapoints_in_doubt_total")


def test_a_trainer_stopped_for_ten_times_the_liveness_is_not_dead(
    start: Start,
    dfserve: Start,
    tcp_address: str,
    metrics_port: int,
    until: Callable[..., Any],
    scrape: Callable[[int], Any],
) -> None:
    _broker(dfserve, tcp_address, "--metrics-port", str(metrics_port))
    trainers = [start("pipes.py", tcp_address, "--pause", "0.002") for _ in range(2)]
    for trainer in trainers:
        trainer.wait_until_said("ready")
    producer = _produce(dfserve, tcp_address, count=2000, nbytes=50_000, pause=0.008)
    until(lambda: len(_numbers(trainers[0])) > 20, "the trainer to get going")
    trainers[0].signal(signal.SIGSTOP)
    stopped = psutil.Process(trainers[0].pid)
    done = threading.Event()
    done.wait(10 * LIVENESS)
    assert stopped.status() == psutil.STATUS_STOPPED
    trainers[0].signal(signal.SIGCONT)
    assert producer.wait() == 0
    assert [trainer.wait() for trainer in trainers] == [0, 0]
    metrics = scrape(metrics_port)
    assert metrics.total("dfserve_blocks_redelivered_total") == 0
    assert metrics.total("dfserve_errors_total") == 0
    assert Counter(n for trainer in trainers for n in _numbers(trainer)) == Counter(range(2000))


def test_a_trainer_that_holds_the_gil_is_not_dead(dfserve: Start, start: Start, tcp_address: str) -> None:
    code = f"""
import ctypes, dfserve
with dfserve.RemoteDataZMQ({tcp_address!r}, timeout=60) as df:
    first = next(df)
    ctypes.PyDLL(None).sleep(6)  # in C, without letting the GIL go
    print([[first[0]] + [dp[0] for dp in df]])
"""
    trainer = start("-c", code)
    assert _produce(dfserve, tcp_address, count=500, pause=0.002).wait() == 0
    assert trainer.wait() == 0, trainer.output
    assert trainer.lines[0][0] == list(range(500))


def test_a_killed_trainers_address_is_free_at_once_and_producers_go_on(
    start: Start, dfserve: Start, tcp_address: str, until: Callable[..., Any]
) -> None:
    producer = _produce(dfserve, tcp_address, passes=0, pause=0.001)
    for _ in range(3):
        trainer = start("pipes.py", tcp_address, "--bind")
        until(lambda trainer=trainer: len(_numbers(trainer)) > 50 or trainer.process.poll() is not None, "datapoints")
        assert trainer.process.poll() is None, trainer.output
        brokers = trainer.children()
        assert brokers
        trainer.kill()
        _, alive = psutil.wait_procs(brokers, timeout=30)
        assert not alive
    producer.signal(signal.SIGTERM)
    assert producer.wait() == 0


def test_a_second_bind_names_the_process_that_holds_the_address(start: Start, address: str) -> None:
    first = start("pipes.py", address, "--bind")
    first.wait_until_said("ready")
    holder = first.children()[0].pid
    second = start("pipes.py", address, "--bind")
    assert second.wait() != 0
    assert "AddressInUse" in second.output
    assert f"pid {holder}" in second.output
    assert "bind=False" in second.output


def test_without_producers_the_iterator_raises_and_says_who_is_missing(tcp_address: str) -> None:
    from dfserve import Starved

    with RemoteDataZMQ(tcp_address, timeout=6) as source, pytest.raises(Starved, match="no producer is connected"):
        next(source)
    with (
        RemoteDataZMQ(tcp_address, bind=False, timeout=2) as source,
        pytest.raises(Starved, match=f"nothing was heard from a broker at {tcp_address}"),
    ):
        next(source)


# ---------------------------------------------------------------------- the broker


def test_a_killed_broker_is_found_again_by_its_clients_and_nothing_acknowledged_late_is_repeated_silently(
    start: Start,
    dfserve: Start,
    tcp_address: str,
    metrics_port: int,
    until: Callable[..., Any],
    scrape: Callable[[int], Any],
) -> None:
    broker = _broker(dfserve, tcp_address, "--metrics-port", str(metrics_port))
    trainer = start("pipes.py", tcp_address)
    trainer.wait_until_said("ready")
    producer = _produce(dfserve, tcp_address, count=3000, nbytes=20_000, pause=0.002)
    until(lambda: len(_numbers(trainer)) > 300, "datapoints")
    broker.kill()
    _broker(dfserve, tcp_address, "--metrics-port", str(metrics_port))
    assert producer.wait() == 0
    assert trainer.wait() == 0, trainer.output
    got = Counter(_numbers(trainer))
    in_a_block = 1 + (1 << 20) // 20_000
    doubtful = scrape(metrics_port).total("dfserve_blocks_uncertain_total") * in_a_block
    assert sum(count - 1 for count in got.values()) + len(set(range(3000)) - set(got)) <= doubtful


def test_sigterm_drains_a_broker_and_the_second_signal_forces(
    start: Start, dfserve: Start, tcp_address: str, until: Callable[..., Any]
) -> None:
    broker = _broker(dfserve, tcp_address)
    assert _produce(dfserve, tcp_address, count=50).wait() == 0
    trainer = start("pipes.py", tcp_address, "--pause", "0.005")
    until(lambda: _numbers(trainer), "datapoints")
    broker.signal(signal.SIGTERM)
    assert broker.wait() == 0
    assert broker.said("broker stopped")
    until(lambda: len(_numbers(trainer)) >= 50, "what was queued, which was handed out first")
    assert _numbers(trainer) == list(range(50))
    trainer.kill()  # it would find the next broker, and take from it what that is to hold on to
    stubborn = _broker(dfserve, tcp_address, "--grace", "10m")
    assert _produce(dfserve, tcp_address, count=50).wait() == 0
    stubborn.signal(signal.SIGTERM)
    stubborn.wait_until_said("stopping")
    stubborn.signal(signal.SIGTERM)
    assert stubborn.wait() == 128 + signal.SIGTERM


@pytest.mark.parametrize("transport", ["tcp", "ipc"])
def test_sigterm_drains_a_producer(
    start: Start, dfserve: Start, free_port: int, tmp_path: Path, transport: str, until: Callable[..., Any]
) -> None:
    address = f"tcp://127.0.0.1:{free_port}" if transport == "tcp" else f"ipc://{tmp_path}/s"
    trainer = start("pipes.py", address, "--bind")
    producer = _produce(dfserve, address, "--workers", "2", passes=0, pause=0.001)
    until(lambda: len(_numbers(trainer)) > 100, "datapoints")
    producer.signal(signal.SIGTERM)
    assert producer.wait() == 0, producer.output
    last = 1000
    assert _produce(dfserve, address, start=last, count=1).wait() == 0
    assert trainer.wait() == 0, trainer.output
    assert _numbers(trainer)[-1] == last, "all that was sent before it"
    counts = Counter(_numbers(trainer)[:-1])
    assert max(counts.values()) - min(counts.values()) <= 2, "two workers, each up to some item of its pass"


def test_a_producer_whose_pipeline_ignores_sigterm_is_killed_by_the_second_signal(
    dfserve: Start, tcp_address: str, until: Callable[..., Any]
) -> None:
    _broker(dfserve, tcp_address)
    producer = dfserve("produce", "pipes:asleep", "--to", tcp_address, "--grace", "10m")
    producer.wait_until_said("asleep")
    worker = until(lambda: producer.children(), "the worker")[0]
    producer.signal(signal.SIGTERM)
    producer.wait_until_said("stopping")
    producer.signal(signal.SIGTERM)
    assert producer.wait() == 4
    assert not worker.is_running()


def test_a_killed_broker_leaves_no_stale_socket_in_the_way(dfserve: Start, tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/broker"
    _broker(dfserve, address).kill()
    assert (tmp_path / "broker").exists(), "nobody could remove it"
    again = _broker(dfserve, address)
    again.signal(signal.SIGTERM)
    assert again.wait() == 0
    assert not (tmp_path / "broker").exists()
    assert not list(Path("/dev/shm").glob("*dfserve*"))

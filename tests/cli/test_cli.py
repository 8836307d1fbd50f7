"""Owns the tests of the `dfserve` command: its options and variables, its exit codes, what it says when it fails."""

from __future__ import annotations

import json
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from dfserve import BlockTooLarge, ConfigError, PipelineError, Starved, WorkerLost, __version__
from dfserve.cli import cli, status_of
from dfserve.cli.produce import processes_of, warn_of_processes
from dfserve.testing import LocalBroker

Start = Callable[..., Any]
COMMANDS = sorted(cli.commands)
OPTIONS = [
    (name, parameter)
    for name, command in [("", cli), *cli.commands.items()]
    for parameter in command.params
    if parameter.name not in ("help", "version")
]

PIPELINES = """
def numbers(count=3, word="x"):
    print(f"count={count!r} word={word!r}", flush=True)
    return [[number, word] for number in range(count)]

def fails():
    yield [1]
    raise ValueError("the disk is on fire")

constant = 5
"""


@pytest.fixture
def broker() -> Iterator[LocalBroker]:
    with LocalBroker() as broker:
        yield broker


IN_FOLDER = "import os, sys; os.chdir(os.environ['DFSERVE_TEST_FOLDER']); from dfserve.cli import main; main()"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with some modules; commands run with it on the path."""
    (tmp_path / "mine.py").write_text(PIPELINES)
    (tmp_path / "broken.py").write_text("import not_installed_anywhere\n")
    (tmp_path / "raises.py").write_text("1 / 0\n")
    monkeypatch.setenv("DFSERVE_TEST_FOLDER", str(tmp_path))
    return tmp_path


@pytest.fixture
def produce(start: Start, folder: Path) -> Start:
    """Start ``dfserve produce ARGUMENTS`` in the user's folder."""
    return lambda *arguments, **environment: start("-c", IN_FOLDER, "produce", *arguments, **environment)


def run(*arguments: str, **environment: str) -> Any:
    """Run a command in this process; for what ends before it logs or changes signal handlers."""
    return CliRunner().invoke(cli, arguments, env=environment, standalone_mode=True)


# ---------------------------------------------------------------------- help and variables


def test_the_version_is_the_packages() -> None:
    result = run("--version")
    assert (result.exit_code, result.output) == (0, f"dfserve, version {__version__}\n")


@pytest.mark.parametrize("arguments", [["--help"], ["-h"]])
def test_the_help_names_every_command_and_every_exit_code(arguments: list[str]) -> None:
    text = run(*arguments).output
    assert all(f"\n  {name} " in text for name in COMMANDS)
    assert all(f"\n    {code}  " in text for code in range(7))


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_begins_with_what_it_is_for_and_has_an_example(name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    assert "Example" in result.output


@pytest.mark.parametrize(("command", "parameter"), OPTIONS, ids=lambda value: getattr(value, "name", None) or value)
def test_every_option_is_also_a_variable(command: str, parameter: click.Parameter) -> None:
    assert isinstance(parameter.envvar, str)
    assert parameter.envvar.startswith("DFSERVE_")


@pytest.mark.parametrize(
    ("command", "option"),
    [(command, parameter) for command, parameter in OPTIONS if isinstance(parameter, click.Option)],
    ids=lambda value: getattr(value, "name", None) or value,
)
def test_the_help_of_an_option_names_its_variable(command: str, option: click.Option) -> None:
    assert f"[env: {option.envvar}]" in (option.help or "")


def test_a_variable_means_one_thing_in_every_command() -> None:
    meanings: dict[str, set[str]] = {}
    for _, parameter in OPTIONS:
        if isinstance(parameter, click.Option):
            meanings.setdefault(str(parameter.envvar), set()).add(parameter.opts[0])
    assert {variable: options for variable, options in meanings.items() if len(options) > 1} == {}


def test_the_addresses_of_a_broker_can_come_from_its_variable(dfserve: Start, free_port: int) -> None:
    addresses = f"tcp://127.0.0.1:{free_port} ipc://@cli-{free_port}"
    broker = dfserve("broker", DFSERVE_BIND=addresses, DFSERVE_QUEUE_BYTES="2MiB")
    broker.wait_until_said(f"broker ready at tcp://127.0.0.1:{free_port} and ipc://@cli-{free_port}")
    broker.signal(signal.SIGTERM)
    assert broker.wait() == 0


# ---------------------------------------------------------------------- wrong usage: 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["broker"],
        ["produce"],
        ["produce", "a:b"],
        ["broker", "--bind", "ipc://@x", "--queue-bytes", "lots"],
        ["consume", "ipc://@x", "--seconds", "soon"],
        ["consume", "ipc://@x", "--count", "0"],
        ["produce", "a:b", "--to", "ipc://@x", "--workers", "0"],
        ["--log-level", "shout", "broker"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_status_2(arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2


@pytest.mark.parametrize("address", ["tcp://0.0.0.0:1", "tcp://*:1", "tcp://192.0.2.7:1"])
def test_an_address_that_other_hosts_reach_asks_for_insecure(dfserve: Start, address: str) -> None:
    broker = dfserve("broker", "--bind", address)
    assert broker.wait() == 2
    assert "--insecure" in broker.output
    assert "Traceback" not in broker.output


def test_insecure_is_also_a_variable(dfserve: Start, free_port: int) -> None:
    broker = dfserve("broker", "--bind", f"tcp://0.0.0.0:{free_port}", DFSERVE_INSECURE="1")
    broker.wait_until_said("broker ready")
    broker.signal(signal.SIGTERM)
    assert broker.wait() == 0


@pytest.mark.parametrize(
    ("factory", "text"),
    [
        ("mine", "is not MODULE:FACTORY"),
        ("mine.py:numbers", "names a file; name the module"),
        ("not_there:make", "there is no module 'not_there'"),
        ("mine:number", "has no 'number' (for 'mine:number'): did you mean numbers?"),
        ("mine:constant", "is a int, not a function"),
        ("broken:make", "the module 'broken' was found, but fails while it is imported"),
        ("raises:make", "ZeroDivisionError"),
    ],
)
def test_a_wrong_module_a_wrong_attribute_and_an_error_inside_are_told_apart(
    produce: Start, factory: str, text: str
) -> None:
    program = produce(factory, "--to", "ipc://@nobody", "--passes", "1")
    assert program.wait() == 2
    assert text in program.output
    assert "dfserve/cli" not in program.output, "no traceback of ours"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--arg", "count"], "--arg 'count' has no '='"),
        (["--arg", "size=1"], "cannot be called with size"),
        (["--arg", "count=1", "--arg", "count=2"], "--arg count is given twice"),
    ],
)
def test_arguments_that_do_not_fit_are_status_2(produce: Start, arguments: list[str], text: str) -> None:
    program = produce("mine:numbers", "--to", "ipc://@nobody", *arguments)
    assert program.wait() == 2
    assert text in program.output


def test_an_address_that_nobody_can_connect_to_is_status_2(produce: Start) -> None:
    program = produce("mine:numbers", "--to", "trainer:8877")
    assert program.wait() == 2
    assert "has no scheme" in program.output


# ---------------------------------------------------------------------- the other exit codes


def test_arguments_are_json_where_they_parse_and_text_elsewhere(produce: Start, broker: LocalBroker) -> None:
    arguments = ["--arg", "count=2", "--arg", "word=data/train", "--passes", "1"]
    program = produce("mine:numbers", "--to", broker.address, *arguments)
    assert program.wait() == 0
    assert program.said("count=2 word='data/train'")
    with broker.consumer() as consumer:
        assert list(consumer) == [[0, "data/train"], [1, "data/train"]]


def test_everything_about_a_producer_can_come_from_variables(produce: Start, broker: LocalBroker) -> None:
    program = produce(
        DFSERVE_PIPELINE="mine:numbers", DFSERVE_TO=broker.address, DFSERVE_ARG="count=1 word=w", DFSERVE_PASSES="2",
        DFSERVE_WORKERS="2",
    )  # fmt: skip
    assert program.wait() == 0
    with broker.consumer(min_producers=2) as consumer:
        assert list(consumer) == [[0, "w"]] * 4


def test_several_pipelines_are_served_by_name(produce: Start, broker: LocalBroker) -> None:
    arguments = ["--to", broker.address, "--passes", "1", "--arg", "few.count=1", "--arg", "word=w"]
    program = produce("few=mine:numbers", "many=mine:numbers", *arguments)
    for name, expected in (("many", 3), ("few", 1)):
        with broker.consumer(pipeline=name) as consumer:
            assert list(consumer) == [[number, "w"] for number in range(expected)]
    assert program.wait() == 0


def test_a_pipeline_that_raises_is_status_3_at_both_ends(produce: Start, dfserve: Start, broker: LocalBroker) -> None:
    producer = produce("mine:fails", "--to", broker.address, "--passes", "1")
    assert producer.wait() == 3
    consumer = dfserve("consume", broker.address)
    assert consumer.wait() == 3
    assert "the disk is on fire" in consumer.output
    assert "Remote traceback" in consumer.output


def test_nothing_within_the_timeout_is_status_6(dfserve: Start) -> None:
    consumer = dfserve("consume", "ipc://@nobody-at-all", "--timeout", "300ms")
    assert consumer.wait() == 6
    assert "nothing was heard from a broker at ipc://@nobody-at-all" in consumer.output
    assert "Traceback" not in consumer.output


def test_consume_reports_what_arrived_as_json(dfserve: Start, broker: LocalBroker) -> None:
    broker.send([[b"x" * 500, 1]] * 40)
    consumer = dfserve("consume", broker.address, "--json")
    assert consumer.wait() == 0
    (figures,) = consumer.lines
    assert figures["items"] == 40
    assert set(figures) == {"items", "seconds", "items_per_s", "mb_per_s", "waited_s"}


def test_consume_asks_for_a_pipeline_by_its_name(dfserve: Start, broker: LocalBroker) -> None:
    consumer = dfserve("consume", broker.address, "--json", "--pipeline", "val")
    broker.send([[1], [2]], pipeline="train")
    broker.send([[3]], pipeline="val")
    assert consumer.wait() == 0
    assert consumer.lines[0]["items"] == 1


def test_consume_stops_after_a_count_and_gives_the_rest_back(dfserve: Start, broker: LocalBroker) -> None:
    broker.send([[number] for number in range(40)])
    counted = dfserve("consume", broker.address, "--count", "15", "--json")
    assert counted.wait() == 0
    assert counted.lines[0]["items"] == 15
    with broker.consumer() as rest:
        assert list(rest) == [[number] for number in range(15, 40)]


def test_consume_reports_what_arrived_until_it_is_told_to_stop(
    dfserve: Start, broker: LocalBroker, until: Callable[..., Any]
) -> None:
    broker.send([[1]] * 6)
    consumer = dfserve("consume", broker.address, "--json", "--min-producers", "9")
    until(lambda: broker.metrics()["dfserve_datapoints_delivered_total"] == 6, "all there is")
    consumer.signal(signal.SIGTERM)
    assert consumer.wait() == 0
    assert consumer.lines[-1]["items"] == 6


@pytest.mark.parametrize("count", [0, 6], ids=["nothing", "some"])
def test_consume_stops_after_its_seconds_also_while_it_waits_for_more(
    dfserve: Start, broker: LocalBroker, count: int
) -> None:
    if count:
        broker.send([[1]] * count)
    consumer = dfserve("consume", broker.address, "--json", "--min-producers", "9", "--seconds", "1500ms")
    assert consumer.wait() == 0
    (figures,) = consumer.lines
    assert figures["items"] in (0, count)  # a busy machine may not come to see them
    assert consumer.said(f"nothing arrived within 1.5 s (--seconds): see that a broker is at {broker.address}") == (
        figures["items"] == 0
    )


NOTED = """
import json, signal, sys
from dfserve.cli import main
real, loaded = signal.signal, []
def noted(signum, handler):
    loaded.append(sorted({"dfserve.client", "dfserve.consumer.blocks", "numpy", "zmq"} - set(sys.modules)))
    return real(signum, handler)
signal.signal = noted
try:
    main()
finally:
    print(json.dumps({"missing": loaded}))
"""


def test_consume_has_loaded_what_it_needs_before_a_signal_can_interrupt_it(start: Start) -> None:
    """Python ends as of Ctrl-C where that came into an import, whoever caught it."""
    consumer = start("-c", NOTED, "consume", "ipc://@nobody-at-all", "--json", "--seconds", "1ms")
    assert consumer.wait() == 0
    figures, noted = consumer.lines
    assert figures["items"] == 0
    assert noted["missing"][:2] == [[], []]  # of SIGTERM and SIGALRM; once more if it came in a finaliser


def test_a_broker_that_cannot_write_where_nobody_asked_it_to_runs_without_a_ledger(
    dfserve: Start, free_port: int
) -> None:
    broker = dfserve("broker", "--bind", f"tcp://127.0.0.1:{free_port}", XDG_STATE_HOME="/proc/no-folder")
    broker.wait_until_said("broker ready")
    assert broker.said("no ledger")
    broker.signal(signal.SIGTERM)
    assert broker.wait() == 0


def test_a_ledger_in_a_folder_that_is_not_there_is_a_slip_of_the_pen(
    dfserve: Start, free_port: int, tmp_path: Path
) -> None:
    ledger = tmp_path / "nosuch" / "ledger"
    broker = dfserve("broker", "--bind", f"tcp://127.0.0.1:{free_port}", "--ledger", str(ledger))
    assert broker.wait() == 2
    assert f"there is no folder {ledger.parent}" in broker.output
    assert not ledger.parent.exists()


def test_the_folder_of_a_brokers_own_ledger_is_the_users_alone(dfserve: Start, free_port: int, tmp_path: Path) -> None:
    broker = dfserve("broker", "--bind", f"tcp://127.0.0.1:{free_port}", XDG_STATE_HOME=str(tmp_path / "state"))
    broker.wait_until_said("broker ready")
    broker.signal(signal.SIGTERM)
    assert broker.wait() == 0
    (ledger,) = (tmp_path / "state" / "dfserve").iterdir()
    assert [place.stat().st_mode & 0o777 for place in (ledger, ledger.parent, ledger.parent.parent)] == [
        0o600, 0o700, 0o700
    ]  # fmt: skip


def test_a_broker_logs_who_comes_and_who_leaves(dfserve: Start, start: Start, produce: Start, free_port: int) -> None:
    # A goodbye that a busy machine does not send within two seconds is given up.
    patient = "import dfserve.client; dfserve.client.LINGER_MS = 60_000; "
    address, host = f"tcp://127.0.0.1:{free_port}", socket.gethostname()
    broker = dfserve("broker", "--bind", address)
    consumer = dfserve("consume", address, "--group", "mine")
    broker.wait_until_said("is here, of group 'mine' of pipeline 'default'")
    producer = start("-c", patient + IN_FOLDER, "produce", "mine:numbers", "--to", address, "--passes", "1")
    assert (producer.wait(), consumer.wait()) == (0, 0)
    broker.wait_until_said(f"worker {host}/0 is here for pipeline 'default'")
    broker.wait_until_said(f"{host}/0 has left")
    other = produce("other=mine:numbers", "--to", address)
    broker.wait_until_said(f"worker {host}/0 is here for pipeline 'other'")
    other.kill()
    broker.wait_until_said(f"{host}/0 is not connected any more")


def test_consume_writes_a_line_for_people(dfserve: Start, broker: LocalBroker) -> None:
    broker.send([[1]] * 3)
    consumer = dfserve("consume", broker.address)
    assert consumer.wait() == 0
    assert consumer.said("3 datapoints, ")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConfigError("x"), 2),
        (PipelineError("x"), 3),
        (WorkerLost("x"), 3),
        (Starved("x"), 6),
        (BlockTooLarge("x"), 1),
    ],
)
def test_the_status_of_an_error(error: Any, status: int) -> None:
    assert status_of(error) == status


@pytest.mark.parametrize("command", ["produce", "bench"])
def test_a_factory_that_raises_is_status_3_with_its_own_frames(start: Start, folder: Path, command: str) -> None:
    (folder / "bad.py").write_text("def make():\n    raise KeyError('inside')\n")
    arguments = ["bad:make"] if command == "bench" else ["bad:make", "--to", "ipc://@nobody"]
    program = start("-c", IN_FOLDER, command, *arguments)
    assert program.wait() == 3
    assert "the factory bad:make raised:" in program.output
    assert "in make\n    raise KeyError('inside')" in program.output
    assert program.output.count("File ") == 1, "no frame of ours"


def test_the_log_is_json_where_there_is_no_terminal(dfserve: Start, tcp_address: str) -> None:
    broker = dfserve("broker", "--bind", tcp_address)
    broker.wait_until_said("broker ready")
    broker.signal(signal.SIGTERM)
    assert broker.wait() == 0
    messages = [json.loads(line)["message"] for line in broker.output.splitlines()]
    assert messages[0] == f"broker ready at {tcp_address}"
    assert messages[-1] == "broker stopped"


# ---------------------------------------------------------------------- processes within processes


class MultiProcessRunner:
    """Called like tensorpack's operator that starts processes."""

    def __init__(self, ds: Any, num_proc: int) -> None:
        self.ds, self.num_proc = ds, num_proc


class BatchData:
    """Called like an operator that starts none."""

    num_proc = 9

    def __init__(self, ds: Any) -> None:
        self.ds = ds


def test_processes_are_counted_through_what_operators_wrap() -> None:
    pipeline = BatchData(MultiProcessRunner(BatchData(MultiProcessRunner([], 3)), 4))
    assert processes_of(pipeline) == 7
    assert processes_of([1, 2]) == 0


def test_a_pipeline_that_wraps_itself_does_not_hang() -> None:
    pipeline = MultiProcessRunner(None, 2)
    pipeline.ds = pipeline
    assert processes_of(pipeline) == 2


def test_processes_in_each_of_several_workers_are_warned_of_with_the_product(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "dfserve"):
        warn_of_processes(MultiProcessRunner([], 8), 4)
    (record,) = caplog.records
    assert "8 processes itself, in each of 4 workers: 32 in all" in record.getMessage()


@pytest.mark.parametrize(("pipeline", "workers"), [(MultiProcessRunner([], 8), 1), (BatchData([]), 4), ([], 4)])
def test_one_worker_or_a_pipeline_without_processes_is_not_worth_a_warning(
    caplog: pytest.LogCaptureFixture, pipeline: Any, workers: int
) -> None:
    warn_of_processes(pipeline, workers)
    assert not caplog.records

"""docker-compose.yml as a user runs it: an image is built, services start, a producer dies, Prometheus looks on."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).resolve().parents[2]
SERVICES = {"broker", "producer", "trainer"}
# Seconds. Nothing here is timed: these end a test that hangs. The build downloads 100 MB.
BUILD_DEADLINE, DEADLINE = 600, 120
# Free ports instead of the fixed ones, so that the test runs beside a stack that is up.
OVERRIDE = """
services:
  broker:
    ports: !override ["127.0.0.1::9100"]
"""

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(BUILD_DEADLINE + 5 * DEADLINE)]

T = TypeVar("T")


def eventually(look: Callable[[], T], until: Callable[[T], bool], what: str) -> T:
    """Return what ``look`` sees as soon as ``until`` likes it."""
    deadline = time.monotonic() + DEADLINE
    while True:
        seen = look()
        if until(seen):
            return seen
        assert time.monotonic() < deadline, f"{what}: not within {DEADLINE} s; last seen: {seen}"
        time.sleep(0.5)


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


class Stack:
    """The services of docker-compose.yml, in a project of their own."""

    def __init__(self, override: Path) -> None:
        self.project = f"dfserve-test-{os.getpid()}"
        files = ("--file", str(ROOT / "docker-compose.yml"), "--file", str(override))
        self.command = ("docker", "compose", "--project-name", self.project, *files)

    def __call__(self, *arguments: str, check: bool = True) -> str:
        # A pipeline or folder that the user's shell names is not what is tested here.
        env = {name: value for name, value in os.environ.items() if not name.startswith("DFSERVE_")}
        done = subprocess.run([*self.command, *arguments], env=env, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, f"compose {arguments}:\n{done.stdout}\n{done.stderr}\n{self.logs()}"
        return done.stdout

    def logs(self) -> str:
        done = subprocess.run([*self.command, "logs", "--tail", "30"], capture_output=True, text=True, check=False)
        return done.stdout

    def containers(self) -> dict[str, list[dict[str, Any]]]:
        """Return what `docker compose ps` says of every container, also of one that has ended, by service."""
        listed: dict[str, list[dict[str, Any]]] = {}
        for line in self("ps", "--all", "--format", "json").splitlines():
            container = json.loads(line)
            listed.setdefault(container["Service"], []).append(container)
        return listed

    def metrics_address(self) -> str:
        return self("port", "broker", "9100").strip()

    def metric(self, name: str) -> float:
        """Return the sum of a metric of the broker's over its labels."""
        families = text_string_to_metric_families(fetch(f"http://{self.metrics_address()}/metrics"))
        values = [sample.value for family in families for sample in family.samples if sample.name == name]
        assert values, f"the broker has no metric {name}"
        return sum(values)

    def trained(self) -> int:
        """Return the number of items that the trainer last said it has had."""
        # Not ^: Compose puts control characters before a line.
        said = re.findall(r"(\d+) items,", self("logs", "--no-log-prefix", "--tail", "5", "trainer"))
        return int(said[-1]) if said else 0


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    if os.geteuid() != 0 or shutil.which("docker") is None:
        pytest.skip("needs root and docker")
    for question in (["docker", "compose", "version"], ["docker", "info"]):
        if subprocess.run(question, capture_output=True, timeout=60, check=False).returncode != 0:
            pytest.skip(f"`{' '.join(question)}` fails: is there an engine, and does DOCKER_HOST name it?")
    override = tmp_path_factory.mktemp("compose") / "override.yml"
    override.write_text(OVERRIDE)
    stack = Stack(override)
    try:
        stack("up", "--build", "--wait", "--wait-timeout", str(BUILD_DEADLINE))
        yield stack
    finally:
        stack("down", "--volumes", "--remove-orphans", check=False)


@pytest.fixture
def prometheus(stack: Stack, tmp_path: Path) -> Iterator[str]:
    """The address of a Prometheus that runs deploy/prometheus.yml against the broker's published port."""
    binary = shutil.which("prometheus")
    if binary is None:
        pytest.skip("needs the program prometheus (apt install prometheus)")
    text = (ROOT / "deploy" / "prometheus.yml").read_text()
    assert '"broker:9100"' in text
    config = tmp_path / "prometheus.yml"
    config.write_text(text.replace('"broker:9100"', f'"{stack.metrics_address()}"'))
    shutil.copy(ROOT / "deploy" / "alerts.yml", tmp_path)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    folder = f"--storage.tsdb.path={tmp_path / 'data'}"
    log = tmp_path / "prometheus.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [binary, f"--config.file={config}", folder, f"--web.listen-address={address}"], stdout=out, stderr=out
        )
        try:
            eventually(lambda: is_ready(address), bool, f"Prometheus is ready ({log})")
            yield address
        finally:
            process.terminate()
            process.wait(timeout=DEADLINE)


def is_ready(address: str) -> bool:
    try:
        return bool(fetch(f"http://{address}/-/ready"))
    except (urllib.error.URLError, ConnectionError):
        return False


def ask(address: str, query: str) -> list[float]:
    """Return the values of a query's series, as Prometheus' HTTP API gives them."""
    answer = json.loads(fetch(f"http://{address}/api/v1/query?{urllib.parse.urlencode({'query': query})}"))
    return [float(series["value"][1]) for series in answer["data"]["result"]]


def test_every_service_comes_up_and_nobody_runs_as_root(stack: Stack) -> None:
    containers = stack.containers()
    assert set(containers) == SERVICES
    assert len(containers["producer"]) == 2
    for service in sorted(SERVICES):
        assert all(container["State"] == "running" for container in containers[service])
        assert stack("exec", service, "id", "--user").strip() == "1000"


def test_the_trainer_goes_on_after_a_producer_is_killed(stack: Stack) -> None:
    stack("up", "--detach", "--wait", "--scale", "producer=3")
    eventually(lambda: stack.metric("dfserve_producers"), lambda count: count == 3, "the broker knows 3 producers")
    victim = stack.containers()["producer"][0]["ID"]
    subprocess.run(["docker", "kill", victim], check=True, capture_output=True)
    eventually(lambda: stack.metric("dfserve_producers"), lambda count: count == 2, "the broker misses the producer")
    # All that was queued when the producer died, and more: what comes after it is new.
    enough = stack.trained() + stack.metric("dfserve_queue_items") + 1000
    eventually(stack.trained, lambda items: items > enough, "the trainer goes on")


def test_the_broker_counts_what_the_trainer_received(stack: Stack) -> None:
    trained = eventually(stack.trained, bool, "the trainer has had items")
    delivered = stack.metric("dfserve_datapoints_delivered_total")
    # Asked one after the other while data flows: each is at least what the earlier one said.
    assert 0 < trained <= delivered <= stack.metric("dfserve_datapoints_received_total")


def test_prometheus_sees_occupancy_and_throughput(stack: Stack, prometheus: str) -> None:
    occupancy = eventually(lambda: ask(prometheus, "dfserve_queue_occupancy_ratio"), bool, "occupancy is scraped")
    assert all(0 <= ratio <= 1 for ratio in occupancy)
    for counter in ("dfserve_datapoints_received_total", "dfserve_datapoints_delivered_total"):
        query = f"sum(rate({counter}[1m]))"
        eventually(lambda query=query: ask(prometheus, query), lambda rates: sum(rates) > 0, query)  # type: ignore[misc]
    assert ask(prometheus, "dfserve_producers") != []


def test_a_broker_that_is_killed_comes_back_and_the_others_go_on(stack: Stack) -> None:
    (broker,) = stack.containers()["broker"]
    state = subprocess.run(
        ["docker", "inspect", "--format", "{{.State.Pid}}", broker["ID"]], capture_output=True, text=True, check=True
    )
    os.kill(int(state.stdout), signal.SIGKILL)  # not `docker kill`: that is taken for somebody's decision
    eventually(lambda: stack.logs().count("broker ready"), lambda count: count > 1, "the broker is started again")
    trained = stack.trained()
    eventually(stack.trained, lambda items: items > trained + 2000, "the trainer goes on")


def test_the_ledgers_of_a_broker_are_on_a_volume_that_it_can_write(stack: Stack) -> None:
    where = stack("exec", "broker", "sh", "-c", "stat -c '%U %a' ~/.local/state/dfserve; ls ~/.local/state/dfserve")
    assert where.split() == ["dfserve", "700", "ledger-tcp-0.0.0.0-8877"]


def test_every_service_that_is_told_to_stop_ends_with_exit_code_0(stack: Stack) -> None:
    stack("up", "--detach", "--wait", "--scale", "producer=2")  # a killed container of an earlier test is replaced
    for service in ("producer", "trainer", "broker"):  # nobody could take what the producers hold without a trainer
        stack("stop", service)
        assert {container["ExitCode"] for container in stack.containers()[service]} == {0}

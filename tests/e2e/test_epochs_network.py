"""Owns the tests of epochs mode in which a data machine is cut off: by a proxy, and by a network of its own."""

from __future__ import annotations

import importlib
import os
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

N = 1500
# Of a network that exists while a test runs, in 198.18.0.0/15, which RFC 2544 keeps for benchmarks: theirs have the
# first half. Another run of pytest on this machine has other addresses.
_THIRD, _FOURTH = divmod(os.getpid() % (1 << 14) * 4, 256)
HOST, GUEST = f"198.19.{_THIRD}.{_FOURTH + 1}", f"198.19.{_THIRD}.{_FOURTH + 2}"


def test_connections_that_are_cut_again_and_again_lose_and_repeat_nothing(rig: Any, tcp_address: str) -> None:
    rig.broker(tcp_address)
    proxies = [importlib.import_module("proxy").Proxy(int(tcp_address.rpartition(":")[2])) for _ in range(2)]
    at = [f"tcp://127.0.0.1:{proxy.port}" for proxy in proxies]
    rig.produce(at[0], workers=2, n=N, nbytes=4000, pause=0.0005)
    source = rig.consumer(at[1], split_size=16)
    events = {n: proxies[n // 150 % 2].cut for n in range(150, 1500, 150)}
    try:
        assert rig.multiset(rig.read(source, events)) == rig.whole(N)
        rig.report_of(source, 0)
    finally:
        for proxy in proxies:
            proxy.close()


def test_a_machine_that_vanishes_is_given_up_long_before_its_leases_end(
    rig: Any, tcp_address: str, metrics_port: int
) -> None:
    flags = ("--lease-time", "10m", "--liveness", "1s", "--metrics-port", str(metrics_port))
    rig.broker(tcp_address, *flags)
    first = rig.produce(tcp_address, workers=2, n=N, nbytes=4000, pause=0.002)  # slow: it has leases nearly always
    source = rig.consumer(tcp_address, split_size=16, order="strict")

    def replace() -> Any:
        workers = rig.workers(first, 2)
        for worker in workers:
            worker.suspend()  # what it is leased is still out when it dies
        if not rig.metric(metrics_port, "dfserve_queue_granted_bytes"):
            for worker in workers:
                worker.resume()  # or nobody makes the next datapoint
            return rig.LATER
        rig.produce(tcp_address, n=N, nbytes=4000)
        first.kill()
        return None

    assert rig.multiset(rig.read(source, {300: replace})) == rig.whole(N)
    report = rig.report_of(source, 0)
    assert (report["expired"], report["redelivered"] > 0) == (0, True)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@pytest.fixture
def guest() -> Iterator[str]:
    """A network namespace that is linked to this one by ``<name>h``."""
    name = f"dfs{os.getpid()}"
    try:
        _ip("netns", "add", name)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"network namespaces cannot be made here: {getattr(error, 'stderr', '') or error}")
    try:
        _ip("link", "add", f"{name}h", "type", "veth", "peer", "name", f"{name}g")
        _ip("link", "set", f"{name}g", "netns", name)
        _ip("addr", "add", f"{HOST}/30", "dev", f"{name}h")
        _ip("-n", name, "addr", "add", f"{GUEST}/30", "dev", f"{name}g")
        for words in (("link", "set", f"{name}h", "up"), ("-n", name, "link", "set", f"{name}g", "up")):
            _ip(*words)
        yield name
    except subprocess.CalledProcessError as error:
        pytest.skip(f"networks cannot be made here: {error.stderr}")
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=False)
        subprocess.run(["ip", "link", "delete", f"{name}h"], check=False, capture_output=True)


def test_a_machine_cut_off_past_its_leases_comes_back_and_its_blocks_are_fenced(
    rig: Any, guest: str, free_port: int, metrics_port: int, until: Callable[..., Any]
) -> None:
    rig.broker(f"tcp://{HOST}:{free_port}", "--insecure", "--liveness", "1m", "--metrics-port", str(metrics_port))
    address = f"tcp://{HOST}:{free_port}"
    rig.produce(address, n=N, nbytes=4000, pause=0.004, within=guest)
    source = rig.consumer(address, split_size=16)

    def cut() -> None:  # all datapoints so far are the guest's: so it has leases, or will have some
        rig.produce(address, n=N, nbytes=4000, pause=0.004)
        _ip("link", "set", f"{guest}h", "down")

    def mend() -> None:
        until(lambda: rig.metric(metrics_port, "dfserve_split_leases_expired_total") > 0, "its leases to end")
        _ip("link", "set", f"{guest}h", "up")
        until(lambda: rig.metric(metrics_port, "dfserve_blocks_fenced_total") > 0, "its late blocks")

    assert rig.multiset(rig.read(source, {300: cut, 1000: mend})) == rig.whole(N)
    assert rig.report_of(source, 0)["fenced"] > 0
    assert rig.multiset(rig.read(source)) == rig.whole(N), "and the next epoch"

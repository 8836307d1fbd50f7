"""Owns what users' own tests need: a real broker inside the test's process, and a way to push datapoints through it.

::

    from dfserve.testing import LocalBroker

    def test_my_pipeline_arrives():
        with LocalBroker() as broker:
            broker.send([[1, "a"], [2, "b"]])
            assert list(broker.consumer()) == [[1, "a"], [2, "b"]]

    def test_an_epoch_has_every_item_once():
        with LocalBroker() as broker, broker.serving([[1, "a"], [2, "b"]]):
            assert sorted(broker.consumer(mode="epochs")) == [[1, "a"], [2, "b"]]
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from dfserve.broker.config import BrokerConfig
from dfserve.broker.metrics_values import samples
from dfserve.broker.server import Broker
from dfserve.consumer.remote import RemoteDataZMQ
from dfserve.dataflow.adapt import as_source
from dfserve.embedded import private_address
from dfserve.errors import BrokerLost
from dfserve.producer.bell import Bell
from dfserve.producer.send import introduce, send_dataflow_zmq
from dfserve.producer.sender import Sender
from dfserve.producer.turns import Line, Turns
from dfserve.producer.uplink import Uplink

TIMEOUT = 30.0  # seconds: a test that waits longer for a datapoint hangs

_numbers = itertools.count()


class LocalBroker:
    """The real broker in a thread of this process, at a private ipc address. A context manager.

    Args:
        binds: further addresses to bind, e.g. ``["tcp://127.0.0.1:0"]``.
        **limits: as for `BrokerConfig`, e.g. ``queue_bytes``, ``liveness``.

    Attributes:
        address: where producers and consumers of this process, and of others on this host, connect to.
        endpoints: what ``binds`` became, with ports resolved.
    """

    def __init__(self, binds: Sequence[str] = (), **limits: Any) -> None:
        self._binds = binds
        self._config = BrokerConfig(**limits)
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="dfserve-broker", daemon=True)
        self._broker: Broker | None = None
        self.address = private_address()
        self.endpoints: list[str] = []

    def __enter__(self) -> LocalBroker:
        self._thread.start()
        if not self._ready.wait(TIMEOUT):
            raise BrokerLost(f"the broker at {self.address} did not start within {TIMEOUT:.0f} s")
        if self._error is not None:
            raise self._error
        return self

    def __exit__(self, *_exc: object) -> None:
        """End the broker; raise what ended it before, if something has: whatever else was raised came of that."""
        self._stop.set()
        self._thread.join(TIMEOUT)
        if self._error is not None:
            raise self._error
        if self._thread.is_alive():
            raise BrokerLost(f"the broker at {self.address} did not end within {TIMEOUT:.0f} s")

    def consumer(self, **options: Any) -> RemoteDataZMQ:
        """Return a consumer that is connected to this broker; ``options`` as for `RemoteDataZMQ`. Close it yourself."""
        return RemoteDataZMQ(self.address, bind=False, **{"timeout": TIMEOUT, **options})

    def send(self, df: Any, /, **options: Any) -> None:
        """Send one pass of a pipeline, and return when the broker has it; ``options`` as for `send_dataflow_zmq`."""
        send_dataflow_zmq(df, self.address, **{"passes": 1, **options})

    @contextmanager
    def serving(self, df: Any, *, pipeline: str = "default", shared_memory: bool = True) -> Iterator[None]:
        """Have a worker, in a thread of this process, make what consumers in epochs mode ask of a pipeline.

        Of several at once, each draws on the others' random numbers, since those belong to the process.

        Args:
            df: a DataFlow, or what `dfserve.dataflow` takes for one: any indexable or sharded source.
            pipeline: its name.
            shared_memory: as for `send_dataflow_zmq`.
        """
        bell = Bell()
        identity = replace(introduce(f"thread-{next(_numbers)}", pipeline, None), eager=False)
        with Sender(Uplink(self.address, shared_memory=shared_memory), identity, bell) as sender:
            line = Line(lambda: as_source(df), sender, None, bell)
            worker = threading.Thread(target=Turns([line], bell, grace=TIMEOUT).run, name="dfserve-worker", daemon=True)
            worker.start()
            try:
                yield
            finally:
                bell.stop()
                sender.interrupt()
                worker.join(TIMEOUT)

    def metrics(self) -> dict[str, float]:
        """Return the broker's metrics by name; those with labels are added up."""
        assert self._broker is not None
        return {name: sum(value for _, value in values) for name, values in samples(self._broker.core).items()}

    def _run(self) -> None:
        try:
            with Broker([self.address, *self._binds], self._config, until=self._stop.is_set) as broker:
                self._broker, self.endpoints = broker, broker.endpoints[1:]
                self._ready.set()
                broker.run()
        except BaseException as error:  # noqa: BLE001  # raised in the test's thread
            self._error = error
            self._ready.set()

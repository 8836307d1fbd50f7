"""Owns `RemoteDataZMQ`, the iterator that hands remote datapoints to a training step.

It has no thread. Blocks are received by libzmq's own threads while the training step runs, GIL or no GIL, and are
turned into datapoints (views, no copies) when the step asks for the next one. So it costs the trainer next to nothing,
and a trainer that pauses is only a trainer that asks for nothing.
"""

from __future__ import annotations

import inspect
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from dfserve.consumer.options import check_addresses, check_collate, check_options, check_values, listed, whole
from dfserve.consumer.session import Session, check_process, close_sessions, open_sessions
from dfserve.consumer.stream import Stream, identity
from dfserve.consumer.waiting import WaitMeter
from dfserve.dataflow.base import DataFlow
from dfserve.dataflow.policy import OnError
from dfserve.errors import ConfigError, EncodeError, UnknownLengthError
from dfserve.window import Window

if TYPE_CHECKING:
    from dfserve.consumer.epochs import Epochs
    from dfserve.consumer.plain import PlainReceiver

log = logging.getLogger("dfserve.consumer")

BATCHES_AHEAD = 2  # in flight: one that is being taken, and the next, which arrives during the step


class RemoteDataZMQ(DataFlow):
    """Datapoints from producers on other machines. A DataFlow, an iterator and a context manager.

    With ``bind=True`` it hosts a broker (a child process) at its addresses, and producers connect to it. With
    ``bind=False`` it connects to one, together with other consumers; or to several, and takes in turn from those that
    have something. What holds for a broker holds for each: see ``hwm``, ``min_producers``, ``group``.

    Iterating again after `break` goes on where it stopped. Received arrays are read-only views of the received block,
    which lives as long as any of them; `dfserve.writable` copies a datapoint.

    Buffering: up to ``hwm`` datapoints wait in this process, up to ``queue_bytes`` in the broker.
    Closing: `close` gives back what was not handed out, for other consumers of the group.
    Threads: it belongs to the thread and process that iterates; `reset_state` (or the first ``next``) connects there.

    Args:
        addr1: ``tcp://host:port``, ``ipc://path`` or ``ipc://@name``; or a list of them. With ``bind=True`` all are the
            hosted broker's, with ``bind=False`` each is another broker's (``mode="stream"`` only).
        addr2: one more, e.g. a tcp beside an ipc address to bind.
        hwm: datapoints in flight to this consumer, i.e. sent by the broker and not handed out. At least 16 MiB of small
            ones and at most 64 MiB of large ones (never less than two blocks), whatever it says; 50 is tensorpack's.
            Two batches, where ``batch_size`` or a `BatchData` around it makes larger ones.
            Several brokers: so many from each.
        bind: host the broker here.
        timeout: seconds without a datapoint, from any broker, after which ``next`` raises `Starved`. The default leaves
            a pipeline five minutes to start.
        min_producers: workers that must have ended their last pass before a finite stream ends. One that broke off
            counts too, and makes the end an error. Several brokers: so many at each, and the stream ends when the
            streams of all brokers have.
        pipeline: name of the pipeline to consume.
        group: consumers of one group share the data, each group gets all of it.
        lag: when this group is too slow for the others, ``"wait"`` holds the producers back, ``"skip"`` lets its oldest
            blocks go (counted in ``dfserve_datapoints_skipped_total``).
        on_error: ``"raise"`` raises what went wrong remotely (`PipelineError`, `WorkerLost`); ``"skip"`` logs and
            counts it, within the limits of ``dfserve.dataflow.SkipErrors``, which may be given with limits of its own.
            In a stream, what is skipped is the rest of that worker's pass.
        format: None, or ``"msgpack"`` / ``"zmq_ops"`` to receive from tensorpack's own senders (a bare PULL socket).
        queue_bytes: the hosted broker's budget in bytes. With ``bind=False`` nothing comes of what is said of a hosted
            broker, so that the ranks of one script need differ in ``bind`` alone.
        max_frame: bytes of one array that the hosted broker admits.
        metrics_port: port on which the hosted broker serves /metrics, None for none.
        keys: encrypt, and check who is there, on tcp: the folder that ``dfserve keys FOLDER`` has made, or with
            ``bind=False`` this client's file of it. Several brokers take one file if they have the same folder.
        mode: ``"stream"``, what producers send as long as they send it; ``"epochs"``: each ``for`` loop is one epoch
            over an indexable or sharded source, each item exactly once whatever dies, and the position can be saved.
        seed, shuffle: epochs: of the order, which is another one in every epoch, and of each item's random numbers.
        order: epochs: ``"arrival"``, what is ready first; ``"strict"``, the same for any producers and any timing. The
            default is ``"strict"`` with ``shuffle=False``, whose order is meant, and else ``"arrival"``.
        split_size: epochs: items that a worker makes at a time; None: about two megabytes.
        rank, world: epochs: which of how many consumers of the group this is.
        stride: epochs: datapoints that a rank takes at a time; None: a batch.
        even: epochs: with several ranks, ``"drop"`` the last, incomplete row of ``world * stride`` datapoints or
            ``"pad"`` it with repeats.
        batch_size, drop_last, collate: epochs: batches made here, across blocks; None: those of a BatchData that ends
            the pipeline. ``collate`` makes one of a list of datapoints, as BatchData does by default.
        resume: epochs: what to do where the broker has handed out part of an epoch and no state was loaded:
            ``"checkpoint"`` is an error, ``"broker"`` goes on, ``"fresh"`` begins again.
        lease_time: epochs: the hosted broker's, see ``dfserve broker --lease-time``.

    Raises:
        AddressInUse: another process holds an address (it is named); use ``bind=False`` to share its broker.
        EndpointError, ConfigError: an address or argument that cannot work.
        Starved: nothing arrived within ``timeout``; says who is missing.
        PipelineError, WorkerLost: something failed on a data machine (``on_error="raise"``).
        TooManyErrors: more failed than ``on_error`` allows.
        BrokerLost: the hosted broker ended.
        KeysError: the keys cannot be used, or the broker refused them.
    """

    def __init__(
        self,
        addr1: str | list[str] | tuple[str, ...],
        addr2: str | None = None,
        hwm: int = 50,
        bind: bool = True,
        *,
        timeout: float = 300.0,
        min_producers: int = 1,
        pipeline: str = "default",
        group: str = "default",
        lag: Literal["wait", "skip"] = "wait",
        on_error: OnError = "raise",
        format: Literal["msgpack", "zmq_ops"] | None = None,  # the name that send_dataflow_zmq has
        queue_bytes: int = 1 << 30,
        max_frame: int = 256 << 20,
        metrics_port: int | None = None,
        keys: str | os.PathLike[str] | None = None,
        mode: Literal["stream", "epochs"] = "stream",
        seed: int = 0,
        shuffle: bool = True,
        order: Literal["arrival", "strict"] | None = None,
        split_size: int | None = None,
        rank: int = 0,
        world: int = 1,
        stride: int | None = None,
        even: Literal["drop", "pad"] | None = None,
        batch_size: int | None = None,
        drop_last: bool | None = None,
        collate: Callable[[list[Any]], Any] | None = None,
        resume: Literal["checkpoint", "broker", "fresh"] = "checkpoint",
        lease_time: float = 60.0,
    ) -> None:
        given = {name: value for name, value in locals().items() if name in OPTIONS}  # there are no other locals yet
        self._addresses = listed(addr1, addr2)
        check_values(self._addresses, bind, lag, timeout, min_producers)
        Window(hwm)
        self._hwm, self._bind, self._timeout, self._format = hwm, bind, timeout, format
        self._broker_settings = {"queue_bytes": queue_bytes, "max_frame": max_frame, "lease_time": lease_time}
        self._metrics_port = metrics_port
        self._keys = None if keys is None else Path(keys)
        self._meter = WaitMeter(time.monotonic())
        self._sessions: list[Session] = []  # one for each broker
        self._plain: PlainReceiver | None = None
        self._before: list[PlainReceiver] = []  # closed; what they have counted stays
        self._epochs: Epochs | None = None
        self._epoch: Iterator[Any] | None = None
        check_addresses(self._addresses, bind, mode, format)
        check_options(mode, format, {name for name, value in given.items() if value != OPTIONS[name]})
        if mode == "stream":
            self._stream = Stream(
                [" and ".join(self._addresses)] if bind else self._addresses,
                self._connected,
                identity(pipeline, group, lag, hwm, min_producers),
                timeout=timeout,
                on_error=on_error,
                meter=self._meter,
            )
        else:
            # Only where it is wanted: this is a quarter of what a consumer has to import.
            from dfserve.consumer.epochs import Epochs
            from dfserve.consumer.rank import checked_batch, rank_identity
            from dfserve.epochs.plan import Plan

            check_collate(collate)
            batch = checked_batch(batch_size)
            order = order or ("arrival" if shuffle else "strict")
            split, rows = whole("split_size", split_size or 0), whole("stride", stride or batch)
            plan = Plan(pipeline, whole("seed", seed), shuffle, order, split, whole("world", world), rows, even or "")
            self._epochs = Epochs(
                self._addresses,
                lambda: self._connected()[0],
                rank_identity(plan, group, hwm, whole("rank", rank), resume, on_error, hosts=bind),
                timeout=timeout,
                on_error=on_error,
                batch=batch,
                drop_last=drop_last,
                collate=collate,
                meter=self._meter,
            )
            self._epochs.widen(BATCHES_AHEAD * batch)

    # ------------------------------------------------------------------ the user's side

    def reset_state(self) -> None:
        """Bind or connect, and join the group: what is produced from here on reaches it. Calling it again is harmless.

        Raises:
            Starved: with ``bind=False``, no broker answered within ``timeout``. Of several, those that have not within
                five seconds are named in the log, and joined when they do.
        """
        check_process(self._sessions)
        if self._format is not None:
            self._plain = self._plain or self._open_plain()
        elif self._epochs is not None:
            self._epochs.reset_state()
        else:
            self._stream.reset_state()

    def _connected(self) -> list[Session]:
        self._sessions = open_sessions(
            self._addresses, self._bind, self._broker_settings, self._metrics_port, self._keys
        )
        return self._sessions

    def __iter__(self) -> Iterator[Any]:
        """Return an iterator that ends with the stream, or the epoch. A new one goes on where the last one stopped."""
        self.reset_state()
        if self._plain is not None:
            return self._endless(self._plain)
        return iter(self._stream if self._epochs is None else self._epochs)

    def draws(self, size: int) -> Iterator[list[Sequence[Any]]]:
        """Return an iterator for `BatchData`: what ``iter`` hands out, ``size`` at a time, as slices of blocks.

        No object is made for a datapoint that nobody looks at. The last may have fewer. Each list is the caller's, and
        holds the blocks' memory until it is cleared.
        """
        self.reset_state()
        if self._plain is not None:
            from dfserve.dataflow.columnwise import drawn_singly

            return drawn_singly(self._endless(self._plain), size)
        return self._stream.draws(size) if self._epochs is None else self._epochs.draws(size)

    def expect_draws(self, size: int) -> None:
        """Note that ``size`` datapoints will be taken at a time: ``hwm`` is at least twice that, if it connects later.

        While a step uses one batch nothing is acknowledged, and the next one should be here when it ends.
        """
        widened = self._stream if self._epochs is None else self._epochs
        widened.widen(BATCHES_AHEAD * size)

    def __len__(self) -> int:
        """Return how many datapoints, or batches, this rank yields in an epoch (waits for the broker to know).

        Exact once the epoch's end is known; before, as if the pipeline gave one datapoint for each item.

        Raises:
            UnknownLengthError: a stream has none.
        """
        if self._epochs is None:
            raise UnknownLengthError("RemoteDataZMQ does not know its length: a stream has none; mode='epochs' has one")
        return self._epochs.length()

    @property
    def source_len(self) -> int:
        """How many items the source has, or shards; mode="epochs". Waits for a producer to say it.

        Raises:
            UnknownLengthError: a stream has none.
        """
        if self._epochs is None:
            raise UnknownLengthError("RemoteDataZMQ does not know its length: a stream has none; mode='epochs' has one")
        return self._epochs.items

    @property
    def report(self) -> dict[str, int] | None:
        """What became of every item of the epoch that ended last here (`dfserve.broker.epoch_report`).

        Waits a second for it: it is complete when the broker has read the last claims of all ranks. None: it is not.
        """
        return None if self._epochs is None else self._epochs.report

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the last datapoint or batch that was handed out; mode="epochs".

        Before the first, that is where the group begins: it waits for the other ranks and a producer, as len() does.

        Raises:
            ConfigError: a stream has none; or several ranks take what arrives first.
            Starved: after ``timeout`` seconds, the other ranks or every producer are missing still.
        """
        if self._epochs is None:
            raise ConfigError("a stream has no position that a checkpoint could keep; mode='epochs' has")
        return self._epochs.state.to_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Begin where ``state`` was taken, before the first iteration; all ranks load it.

        Raises:
            ConfigError: it is no state, or of another plan; or iteration has begun.
        """
        if self._epochs is None:
            raise ConfigError("a stream has no position that could be loaded; mode='epochs' has")
        from dfserve.epochs.state import State

        self._epochs.load(State.from_dict(state))

    @property
    def errors(self) -> int:
        """Failures so far, of items, workers and messages."""
        bad = sum(plain.bad_messages.total() for plain in self._plains)
        return bad + (self._stream.errors if self._epochs is None else self._epochs.errors)

    @property
    def in_doubt(self) -> int:
        """Datapoints so far that a consumer which died may have handed out too; in epochs the report has them."""
        return self._stream.in_doubt if self._epochs is None else 0

    @property
    def _plains(self) -> list[PlainReceiver]:
        return self._before if self._plain is None else [*self._before, self._plain]

    def _endless(self, plain: PlainReceiver) -> Iterator[Any]:
        while True:
            yield plain.receive()

    def __next__(self) -> Any:
        """Return the next datapoint; StopIteration at the end of a finite stream, or epoch. (Then, of the next one.)"""
        if self._epochs is not None:
            return self._next_of_epoch(self._epochs)
        if not self._sessions and self._plain is None:
            self.reset_state()
        check_process(self._sessions)
        return next(self._stream) if self._plain is None else self._plain.receive()

    def _next_of_epoch(self, epochs: Epochs) -> Any:
        if self._epoch is None:
            self.reset_state()
            self._epoch = iter(epochs)
        try:
            return next(self._epoch)
        except BaseException:
            self._epoch = None
            raise

    @property
    def waited(self) -> float:
        """Seconds spent in ``next`` waiting for data so far."""
        return self._meter.total + sum(plain.waited for plain in self._plains)

    @property
    def endpoints(self) -> list[str]:
        """The addresses that are bound, with ports resolved (``bind=True``), or that it connects to."""
        if self._plain is None:
            self.reset_state()
        if self._plain is not None:
            return list(self._plain.endpoints)
        broker = self._sessions[0].broker if self._sessions else None
        return broker.endpoints if broker is not None else self._addresses

    def close(self) -> None:
        """Leave the group, giving back what was not handed out; end the hosted broker. Safe to call twice."""
        sessions, self._sessions = self._sessions, []
        self._epoch = None
        if self._plain is not None:
            self._plain.close()
            self._before, self._plain = self._plains, None
        if sessions and sessions[0].pid == os.getpid():
            self._say_goodbye(sessions[0])
        close_sessions(sessions)
        (self._stream if self._epochs is None else self._epochs).close()

    def _say_goodbye(self, session: Session) -> None:
        if self._epochs is None:
            self._stream.say_goodbye()
            return
        goodbye = self._epochs.farewell()
        session.send(goodbye)
        if session.broker is None:  # a hosted one ends with us
            self._epochs.await_parting(session, goodbye)

    def __getstate__(self) -> NoReturn:
        """Refuse to be pickled or copied: two of one connection would take each other's datapoints."""
        raise EncodeError(
            "a RemoteDataZMQ cannot be pickled or copied: make one in each process (with bind=False). What a checkpoint"
            " keeps of it is its state_dict()"
        )

    def __enter__(self) -> RemoteDataZMQ:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def _open_plain(self) -> PlainReceiver:
        from dfserve.consumer.plain import PlainReceiver
        from dfserve.formats import loads_of

        assert self._format is not None
        addr2 = self._addresses[1] if len(self._addresses) > 1 else None
        loads = loads_of(self._format)
        return PlainReceiver(
            self._addresses[0], addr2, hwm=self._hwm, bind=self._bind, loads=loads, timeout=self._timeout
        )


# What may be given beside addresses, hwm, bind, timeout, mode and format, and what it is if it is not given.
OPTIONS = {
    name: each.default
    for name, each in inspect.signature(RemoteDataZMQ.__init__).parameters.items()
    if each.kind is inspect.Parameter.KEYWORD_ONLY and name not in ("timeout", "mode", "format")
}

"""Owns `send_dataflow_zmq`, the call that sends a pipeline's datapoints from any Python program."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
from pathlib import Path
from typing import Any

from dfserve import endpoints
from dfserve.dataflow.adapt import as_dataflow
from dfserve.embedded import EmbeddedBroker
from dfserve.errors import ConfigError
from dfserve.keys import read_client_keys
from dfserve.producer.bell import Bell
from dfserve.producer.sender import Sender
from dfserve.producer.turns import Line, Turns
from dfserve.producer.uplink import Uplink
from dfserve.wire.codecs import codec_of
from dfserve.wire.messages import SESSION_BYTES, ProducerHello

log = logging.getLogger("dfserve.producer")

QUEUE_BYTES = 1 << 30  # as every broker's, unless it is told otherwise


def send_dataflow_zmq(
    df: Any,
    addr: str,
    hwm: int = 50,
    format: str | None = None,  # tensorpack's name
    bind: bool = False,
    *,
    passes: int | None = None,
    pipeline: str = "default",
    queue_bytes: int = QUEUE_BYTES,
    keys: str | os.PathLike[str] | None = None,
    compression: str | None = None,
    shared_memory: bool = True,
) -> None:
    """Run a pipeline and send its datapoints to ``addr``.

    With ``bind=False`` a broker is expected there (`RemoteDataZMQ(addr)` or ``dfserve broker``); it may come later,
    and come back after it was gone. With ``bind=True`` this call hosts the broker, and each
    ``RemoteDataZMQ(addr, bind=False)`` gets a share.

    Every datapoint is copied once, when the pipeline yields it, so that a pipeline may reuse its arrays.

    Args:
        df: a DataFlow (its ``reset_state`` is called here), anything with ``__len__`` and ``__getitem__``, an iterable.
        addr: ``tcp://host:port`` or ``ipc://path``, ``ipc://@name`` (abstract, Linux).
        hwm: datapoints in flight, that is sent and not received at the broker. At least 32 MiB of small ones, at most
            64 MiB of large ones (but never less than two blocks) are in flight whatever it says; 50 is tensorpack's.
        format: None speaks to dfserve. ``"msgpack"`` speaks to tensorpack's RemoteDataZMQ when that runs with
            ``TENSORPACK_SERIALIZE=msgpack``, and ``"zmq_ops"`` to tensorpack's TensorFlow op; these two are bare
            PUSH sockets without receipts, credit or groups.
        bind: host the broker here.
        passes: None repeats for ever; a number sends that many passes, waits until the broker (with ``bind=True``:
            until consumers) have everything, and returns.
        pipeline: the name that consumers ask for.
        queue_bytes: the hosted broker's budget, for ``bind=True``.
        keys: encrypt, and check who is there, on tcp: the client's file, or with ``bind=True`` the folder that
            ``dfserve keys FOLDER`` has made.
        compression: ``"lz4"`` or ``"zstd"`` compresses blocks on their way to the broker, for slow links; needs the
            package of that name at both ends (``dfserve[lz4]``, ``dfserve[zstd]``). None, the default, is best for
            10 Gbit/s and more, and for what does not compress. Not with ``bind=True``, where the broker is here.
        shared_memory: where the broker is on this machine, build blocks in memory that it and its consumers read: they
            are copied once, here, and no more, and compressed never. The memory is this process's (up to the broker's
            ``queue_bytes``, as its queue fills), which may matter in a container. False: through the socket always.

    Raises:
        EncodeError, BlockTooLarge: a datapoint cannot travel; names the component or the limit.
        KeysError: the keys cannot be used, or the broker refused them.
        EndpointError: ``addr`` is no address, or (``bind=True``) is taken.
        ConfigError, WireError: the broker refused us; a codec is missing, here or there.
        Exception: whatever the pipeline raises, after its consumers were told.
    """
    if passes is not None and passes < 1:
        raise ConfigError(f"passes is {passes}; give a number of passes from 1, or None to repeat for ever")
    flow = as_dataflow(df)
    _check_compression(compression, format, bind)
    given = {"keys": keys is not None, "pipeline": pipeline != "default", "queue_bytes": queue_bytes != QUEUE_BYTES}
    if format is not None and (idle := ", ".join(name for name, is_given in given.items() if is_given)):
        raise ConfigError(f"{idle}: format={format!r} is another program's, which has no such thing; leave it out")
    if format is not None:
        _send_plain(flow, addr, hwm, format, bind, passes)
        return
    with contextlib.ExitStack() as stack:
        if bind:
            endpoints.warn_if_open(endpoints.parse(addr), keys is not None)
            folder = None if keys is None else Path(keys)
            hosted = EmbeddedBroker([addr], {"queue_bytes": queue_bytes}, keys=folder)
            addr = stack.enter_context(hosted).address
        own = None if keys is None or bind else read_client_keys(Path(keys))
        bell = Bell()
        identity = introduce(str(os.getpid()), pipeline, passes)
        uplink = Uplink(addr, hwm, own, compression, shared_memory)
        sender = stack.enter_context(Sender(uplink, identity, bell))
        line = Line(lambda: flow, sender, passes, bell)
        Turns([line], bell, grace=0.0).run()
        sender.drain(consumed=bind)
        log.info("sent %d datapoints in %d passes", line.datapoints, line.counter.passes)


def _check_compression(compression: str | None, format: str | None, bind: bool) -> None:
    """See that the codec is here, before anything else is."""
    if compression is None:
        return
    codec_of(compression)
    if format is not None:
        raise ConfigError(f"format={format!r} is another program's, which has no compression")
    if bind:
        raise ConfigError(
            "compression is for the way to a broker on another machine, and bind=True hosts it here; leave it out"
        )


def host_name() -> str:
    """Return what this data machine is called in the metrics: ``DFSERVE_NAME``, or the host's name."""
    return os.environ.get("DFSERVE_NAME") or socket.gethostname()


def introduce(place: str, pipeline: str, passes: int | None, restarts: int = 0, *, eager: bool = True) -> ProducerHello:
    """Make a worker's introduction, with a fresh session id. It is named ``host/place``; ``eager``: see the message."""
    host = host_name()
    return ProducerHello(
        session=secrets.token_bytes(SESSION_BYTES),
        name=f"{host}/{place}",
        host=host,
        pid=os.getpid(),
        pipeline=pipeline,
        passes=passes or 0,
        base=1,
        broker=b"",
        uncertain=0,
        restarts=restarts,
        eager=eager,
    )


def _send_plain(df: Any, addr: str, hwm: int, name: str, bind: bool, passes: int | None) -> None:
    from dfserve.formats import dumps_of
    from dfserve.producer.plain import send_plain

    send_plain(df, addr, hwm=hwm, dumps=dumps_of(name), bind=bind, passes=passes)

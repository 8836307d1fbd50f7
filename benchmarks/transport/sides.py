"""Owns the sides by name: what they are called, in whose environment they run, and which processes there are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


def ipc_of(address: str) -> str:
    """Return the address for the last hop that goes with a tcp address (Linux: no file is made)."""
    return f"ipc://@dfserve-bench-{address.rsplit(':', 1)[1]}"


def broker(address: str, case: str, folder: str) -> tuple[str, ...]:  # noqa: ARG001  # as the other
    """Return module and arguments of `dfserve broker`: producers at ``address``, consumers on its host through ipc."""
    binds = ("--bind", address, "--bind", ipc_of(address))
    return "dfserve.cli", "broker", *binds, "--ledger", f"{folder}/ledger"


def proxy(address: str, case: str, folder: str) -> tuple[str, ...]:  # noqa: ARG001  # as the other
    """Return module and arguments of the plain proxy."""
    return "benchmarks.transport.proxy", address, ipc_of(address), case


@dataclass(frozen=True)
class Side:
    """One side. Its code is the module of this folder that has its name.

    Attributes:
        title: as the table shows it.
        rival: the environment that both processes run in; None: that of dfserve.
        alone: the consumer's process starts the producer's, as a child.
        between: returns module and arguments of a third process, if there is one, for an address, a case and a folder.
    """

    title: str
    rival: str | None = None
    alone: bool = False
    between: Callable[[str, str, str], tuple[str, ...]] | None = None


SIDES = {
    "ours": Side("dfserve"),
    "tcp": Side("dfserve, blocks over tcp"),
    "curve": Side("dfserve, blocks over tcp, encrypted"),
    "standalone": Side("dfserve, standalone broker", between=broker),
    "standalone_tcp": Side("dfserve, standalone broker, blocks over tcp", between=broker),
    "rival_tensorpack": Side("tensorpack"),
    "rival_tensorflow": Side("tf.data service", "tensorflow"),
    "rival_tensorflow_batches": Side("tf.data service, batches of 64", "tensorflow"),
    "rival_ray": Side("Ray Data", "ray", alone=True),
    "rival_torch": Side("DataLoader, 1 worker", "torch", alone=True),
    "rival_torch_batches": Side("DataLoader, 1 worker, batches of 64", "torch", alone=True),
    "limit_raw": Side("bare pyzmq, tcp"),
    "limit_ipc": Side("bare pyzmq, ipc"),
    "limit_ipc_plain": Side("bare pyzmq, ipc, malloc's defaults"),
    "limit_proxy": Side("bare zmq.proxy, tcp to ipc", between=proxy),
    "limit_socket": Side("bare socket into one buffer"),
    "limit_memory": Side("memcpy to shared memory"),
}
# A batch of 38 MB is a batch already.
LEFT_OUT = {("batch", "rival_tensorflow_batches"), ("batch", "rival_torch_batches")}

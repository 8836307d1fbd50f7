"""Owns the tree of errors that dfserve raises.

::

    DfserveError
    ├── ConfigError (ValueError)          an argument, flag or address that cannot work
    │   ├── EndpointError                 an address that is not tcp://host:port or ipc://path, or must not be used
    │   │   └── AddressInUse              somebody else holds it (names the pid)
    │   ├── FactoryError                  MODULE:FACTORY cannot be loaded or returns no pipeline
    │   └── KeysError                     keys that cannot be used, or that a broker refused (says what to do)
    ├── UnknownLengthError (NotImplementedError)  len() of a DataFlow that has none; a TypeError too
    ├── DatapointError (ValueError)       a datapoint that cannot be used (names the component or file)
    ├── TooManyErrors                     on_error skipped more items than its limits allow
    ├── StoreError (ValueError)           a data file that is damaged, half written, or of another format
    ├── DownloadError (OSError)           something could not be fetched (says what was tried, and what to do)
    ├── LedgerError                       the standalone broker's ledger cannot be used or written (names the file)
    ├── EncodeError (TypeError)           a value that cannot travel, found at the sender (names the component)
    ├── BlockTooLarge                     a block that no limit of the broker's admits (names the flag to raise)
    ├── WireError                         bytes that break the protocol (`reason` is the metric's label)
    ├── BrokerLost                        the embedded broker ended, or a broker refused us
    ├── Starved (TimeoutError)            nothing arrived within the timeout (says who is missing)
    └── RemoteError                       something failed on a data machine or in a worker process
        ├── PipelineError                 the pipeline raised: key, host, worker, remote traceback
        └── WorkerLost                    a worker died in the middle of its work
"""

from __future__ import annotations


class DfserveError(Exception):
    """Base of everything that dfserve raises on purpose."""


class ConfigError(DfserveError, ValueError):
    """An argument, flag, variable or address that cannot work."""


class EndpointError(ConfigError):
    """An address that dfserve cannot or must not use."""


class AddressInUse(EndpointError):  # noqa: N818  # says what happened, as httpx's do
    """The address is bound already; the message names the process that holds it, where the system tells."""


class FactoryError(ConfigError):
    """``MODULE:FACTORY`` does not name something that makes a pipeline."""


class KeysError(ConfigError):
    """Keys that cannot be used, or a broker that refused a client's key or the lack of one; says what to do."""


class UnknownLengthError(DfserveError, NotImplementedError, TypeError):
    """This DataFlow does not know how many datapoints a pass has.

    A NotImplementedError as in tensorpack; a TypeError because that is what lets ``list(ds)`` go on without a length.
    """


class DatapointError(DfserveError, ValueError):
    """A datapoint that cannot be used: an unreadable file, or components that do not fit together."""


class TooManyErrors(DfserveError):  # noqa: N818  # says what happened, as httpx's do
    """More items failed than the limits of ``on_error`` allow; the cause is the last failure."""


class StoreError(DfserveError, ValueError):
    """A data file that is damaged, half written, or of another format than its reader's; nothing of it was yielded."""


class DownloadError(DfserveError, OSError):
    """Something could not be fetched; the message says from where, what was tried, and what to do without a network."""


class LedgerError(DfserveError):
    """The standalone broker's ledger is damaged, foreign, in use or cannot be written; the message has the remedy."""


class EncodeError(DfserveError, TypeError):
    """A value that cannot travel. Raised at the sender, before anything is sent, naming the component."""


class BlockTooLarge(DfserveError):  # noqa: N818  # says what happened, as httpx's do
    """A block larger than the broker's limits admit; the message names the flag to raise."""


class WireError(DfserveError):
    """Bytes that break the protocol.

    Attributes:
        reason: one short word for the ``reason`` label of ``dfserve_bad_messages_total``.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class BrokerLost(DfserveError):  # noqa: N818  # says what happened, as httpx's do
    """The embedded broker ended, or a broker refused this client; the message says why."""


class Starved(DfserveError, TimeoutError):  # noqa: N818  # as above
    """Nothing arrived within the consumer's ``timeout``; the message says who is missing and since when."""


class RemoteError(DfserveError):
    """Something failed on a data machine, or in a process that a DataFlow started.

    Attributes:
        host: name of the data machine; empty for a process of this machine.
        worker: name of the worker: ``host/slot`` as in the ``producer`` label of the metrics, or operator and number.
    """

    def __init__(self, message: str, *, host: str = "", worker: str = "") -> None:
        super().__init__(message)
        self.host = host
        self.worker = worker


class PipelineError(RemoteError):
    """The pipeline raised on a data machine, or in a worker process of this one.

    Attributes:
        key: what the failing item is called: its file name where one is known, else its position in the pass.
        kind: the name of the exception's class over there, e.g. ``"ValueError"``.
        remote_traceback: the traceback as it was printed over there.
    """

    def __init__(
        self,
        message: str,
        *,
        key: str = "",
        kind: str = "",
        host: str = "",
        worker: str = "",
        remote_traceback: str = "",
    ) -> None:
        super().__init__(message, host=host, worker=worker)
        self.key = key
        self.kind = kind
        self.remote_traceback = remote_traceback

    def __str__(self) -> str:
        text = super().__str__()
        return (
            f"{text}\n\nRemote traceback ({self.worker}):\n{self.remote_traceback}" if self.remote_traceback else text
        )


class WorkerLost(RemoteError):  # noqa: N818  # says what happened, as httpx's do
    """A worker died in the middle of its work, so that the pass is not complete."""

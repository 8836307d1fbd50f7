"""Owns NetworkImages: images that are named by URLs, fetched when they are needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from typing import Any, TypeVar

import numpy as np

from dfserve.dataflow.base import Datapoint, RNGDataFlow
from dfserve.dataflow.dataset.fetch import MAX_BYTES, Fetcher
from dfserve.dataflow.dataset.parallel_images import Listed, ParallelImages
from dfserve.dataflow.decoding import decode_image
from dfserve.dataflow.failures import attach_key
from dfserve.dataflow.indexing import place_of
from dfserve.dataflow.policy import OnError, Tally
from dfserve.errors import ConfigError, DatapointError

Images = TypeVar("Images", bound="NetworkImages")


class NetworkImages(RNGDataFlow):
    """Images from the network: of each of ``datapoints``, ``[url, label]``, the URL is replaced by what it names.

    The list is given to ``__init__``, or set as ``self.datapoints`` by a subclass, after ``super().__init__(shuffle)``.
    A datapoint may have further components: a list or tuple, which becomes a list, or a dict. The first is the URL.

    Iterated as it is, an item costs at least the server's latency. ``parallel()`` fetches with many threads. Where
    decoding is what takes the time, processes do it beside them; the URL is listed twice, for their messages::

        ds = NetworkImages([[url, label, url] for url, label in listed], shuffle=True, decode=False).parallel(16)
        ds = MultiProcessMapData(ds, 4, lambda dp: [decode_image(dp[0], dp[2]), dp[1]], strict=True)

    Whoever writes the URLs chooses what this machine asks for, inside its own network too, and so does every server
    that redirects. A list that is not trusted belongs on a machine that reaches nothing private.

    Needs urllib3, ``pip install 'dfserve[network]'``, and OpenCV to decode, ``pip install 'dfserve[producer]'``.
    """

    datapoints: Sequence[Any]  # not there until it is set

    def __init__(
        self,
        datapoints: Sequence[Any] | bool | None = None,
        shuffle: bool = False,
        *,
        decode: bool = True,
        timeout: float = 30.0,
        retries: int = 4,
        max_bytes: int = MAX_BYTES,
        on_error: OnError = "raise",
    ) -> None:
        """Take the list, or leave it to a subclass; nothing is fetched yet.

        Args:
            datapoints: ``[url, label]`` and the like. A bool here is ``shuffle``, as in a subclass that sets
                ``self.datapoints`` itself.
            shuffle: a new order for every pass.
            decode: yield images: uint8 of shape (height, width, 3), BGR. False: the bytes as they came, a read-only
                array of uint8 of one dimension, which ``decode_image`` takes in another process.
            timeout: seconds for one item with all its tries. 30: more than a server that works ever needs.
            retries: further tries after what may pass: a lost connection, a cut body, 408, 429, 500, 502, 503, 504.
            max_bytes: the largest item as it comes over the network. 64 MiB: more than any camera's JPEG.
            on_error: what to do with an item that cannot be fetched or decoded: ``"raise"``, ``"skip"``, or a
                ``SkipErrors``. Its key is its URL. ``parallel()`` takes it over.

        Raises:
            ConfigError: a limit that is not positive, or ``on_error`` is none of the above.
        """
        if isinstance(datapoints, (int, np.bool_)):
            datapoints, shuffle = None, bool(datapoints) or shuffle
        if isinstance(datapoints, (str, bytes)):
            raise ConfigError(f"datapoints is {datapoints[:100]!r}; it is a list of [url, label]")
        if datapoints is not None:
            self.datapoints = datapoints
        self.shuffle = shuffle
        self.decode = decode
        self._fetcher = Fetcher(timeout=timeout, retries=retries, max_bytes=max_bytes)
        self._on_error = on_error
        self._tally = Tally(on_error, type(self).__name__)

    def __len__(self) -> int:
        return len(self._listed())

    def __getitem__(self, index: int) -> Datapoint:
        """Fetch item ``index`` of the list, whatever the order of the passes; IndexError outside.

        Raises:
            DownloadError: it cannot be fetched; the error's key is the URL.
            DatapointError: it is no image, or is not named by a URL.
        """
        place = place_of(index, len(self))
        datapoint = self._listed()[place]
        try:
            return self._load(datapoint)
        except Exception as error:
            attach_key(error, datapoint, place)
            raise

    def __iter__(self) -> Iterator[Datapoint]:
        """Start a pass: one item after the other, in this thread.

        Raises:
            DownloadError: an item cannot be fetched, with ``on_error="raise"``.
            DatapointError: an item is no image, likewise; or nothing was set as ``self.datapoints``.
            TooManyErrors: more was skipped than the limits allow.
            ImportError: urllib3 is missing, or OpenCV and ``decode`` is set.
        """
        for position, datapoint in enumerate(Listed(self)):
            try:
                loaded = self._load(datapoint)
            except Exception as error:  # noqa: BLE001  # the policy decides about any of them
                attach_key(error, datapoint, position)
                self._tally.bad(error)
                continue
            self._tally.good()
            yield loaded

    def parallel(self, num_threads: int = 16, buffer_size: int = 200, strict: bool = True) -> ParallelImages:
        """Return a DataFlow that fetches the same items with many threads, each once a pass, as they come.

        The threads start in the process that iterates. They decode too, if ``decode`` is set.

        Args:
            num_threads: requests under way at a time. 16: with a latency of 20 ms, about 700 images/s.
            buffer_size: items that may be in flight or wait to be taken, so also how many it holds in memory.
            strict: each pass is complete. False: an endless stream, in which the next pass is begun before the last is
                through, so that no thread is idle in between.

        Raises:
            ConfigError: a number is below 1.
        """
        return ParallelImages(self, num_threads, buffer_size, strict)

    def partitioning(self: Images, num_partition: int, partition_index: int = 0) -> Images:
        """Return the DataFlow of every ``num_partition``-th item from ``partition_index`` on; this one stays whole.

        The ``num_partition`` parts have no item in common and together have all, so that data machines, each with an
        index of its own, share the list.

        Raises:
            ConfigError: not 0 <= partition_index < num_partition.
        """
        if not 0 <= partition_index < num_partition:
            raise ConfigError(
                f"partition_index is {partition_index}; of {num_partition} partitions it is one of 0 .."
                f" {num_partition - 1}"
            )
        part = copy(self)
        part.datapoints = self._listed()[partition_index::num_partition]
        part._rng = None  # two parts must not draw from one generator
        part._tally = Tally(self._on_error, type(self).__name__)
        return part

    def _listed(self) -> Sequence[Any]:
        try:
            return self.datapoints
        except AttributeError:
            raise ConfigError(
                f"{type(self).__name__} has no datapoints: pass a list of [url, label], or set self.datapoints in"
                " __init__"
            ) from None

    def _load(self, datapoint: Any) -> Datapoint:
        """Return a copy of ``datapoint`` with the URL replaced by the image or its bytes."""
        loaded, key = _opened(datapoint)
        url = loaded[key]
        if not isinstance(url, str):
            raise DatapointError(f"the first component of a datapoint is its URL, a str; this one is {url!r:.100}")
        encoded = self._fetcher.fetch(url)
        loaded[key] = decode_image(encoded, url) if self.decode else np.frombuffer(encoded, np.uint8)
        return loaded


def _opened(datapoint: Any) -> tuple[Any, Any]:
    """Return a copy of ``datapoint`` to be changed, and where its first component is.

    Raises:
        DatapointError: it has none.
    """
    if isinstance(datapoint, dict) and datapoint:
        return dict(datapoint), next(iter(datapoint))
    if isinstance(datapoint, (list, tuple)) and datapoint:
        return list(datapoint), 0
    raise DatapointError(f"a datapoint is a list, tuple or dict whose first component is a URL, not {datapoint!r:.100}")

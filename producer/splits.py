"""Owns running a pipeline over one split of an epoch, and the account of what came of each of its items."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dfserve.dataflow.afresh import settle_torch
from dfserve.dataflow.failures import key_of, text_of
from dfserve.epochs import order
from dfserve.errors import ConfigError, DfserveError, TooManyErrors
from dfserve.producer.authorship import is_foreign, is_ours
from dfserve.producer.feed import Feed, NotItemwise
from dfserve.producer.fingerprint import fingerprint_of
from dfserve.producer.itemwise import Batch, analysed, name_of_source
from dfserve.producer.streams import ItemStreams
from dfserve.producer.twins import generators_in, twin_over, whole_twin_of

# They say that this worker, or most of the data, is at fault, and not the item: never a reason to leave it out.
_NOT_THE_ITEM = (ImportError, TooManyErrors)
CHUNK = 4096  # positions: 250 us for all of them, 40 for the first 10, and the next split is mostly among them


@dataclass(frozen=True)
class Source:
    """What a pipeline's items come from.

    Attributes:
        name: of its class.
        length: how many items there are, or shards.
        sharded: they are shards.
        fingerprint: hexadecimal digits that producers of the same pipeline have in common; see ``fingerprint``.
        batch: the BatchData at the end of the pipeline, which the consumer does.
    """

    name: str
    length: int
    sharded: bool
    fingerprint: str
    batch: Batch | None


@dataclass(frozen=True)
class Split:
    """What is to be made: the outputs of some positions of an epoch.

    Attributes:
        seed: of the plan.
        epoch: its number.
        shuffle: whether the epoch has an order of its own.
        first: the first position.
        count: how many.
        skip: positions to leave out: their items are quarantined already.
        on_error: what to do with an item that fails: ``"raise"``, or ``"skip"`` to report it and go on.
    """

    seed: int
    epoch: int
    shuffle: bool
    first: int
    count: int
    skip: frozenset[int] = frozenset()
    on_error: str = "raise"


@dataclass(frozen=True)
class Quarantined:
    """An item that failed and was left out.

    Attributes:
        position: in the epoch.
        key: its file name where one is known, else its index or its shard's key.
        kind: the name of the exception's class.
        text: of the exception.
        traceback: as Python prints it.
    """

    position: int
    key: str
    kind: str
    text: str
    traceback: str


@dataclass(frozen=True)
class Outcome:
    """What came of a split.

    Attributes:
        counts: for each of its positions, how many outputs were added; 0 for items that a map dropped or that were left
            out. Their sum is how often ``add`` returned.
        quarantined: the items that failed, with ``on_error="skip"``.
    """

    counts: list[int]
    quarantined: list[Quarantined] = field(default_factory=list)


class NoItemsFault(BaseException):  # not an Exception: it must get through the pipeline
    """Ends a run and is raised by it: no item is at fault, and none is to be left out for it."""


class ItemFailed(DfserveError):  # noqa: N818  # says what happened, as httpx's do
    """An item failed; what it raised is the cause.

    Attributes:
        position: of the item in the epoch.
        key: its file name where one is known, else its index or its shard's key.
    """

    def __init__(self, position: int, key: str, error: BaseException) -> None:
        super().__init__(f"the item at position {position}, {key}: {type(error).__name__}: {text_of(error)}")
        self.position = position
        self.key = key


class SplitRunner:
    """A pipeline that is run over any splits of any epochs, in this process.

    The outputs of an item depend on pipeline, seed, epoch and the item's index only: not on the split it is in, on
    other items, or on the process. That holds for pipelines that yield all that comes of an item before they take the
    next one, and draw random numbers as ``dfserve.producer.streams`` says. An operator that does otherwise is found
    out, and refused, if it yields something after the last item was taken (a buffer, a batch), yields before it has
    taken one, ends its pass early, starts a second one, or reads its source in another thread. What cannot be told from
    a filter is not found out: a buffer that drops what is in it at the end, or that yields one output for several items
    and comes out even. Nor can an operator that keeps a state from item to item.

    The DataFlow itself is left alone: it may be iterated as well, between two runs.

    Attributes:
        source: what the items come from.
    """

    def __init__(self, ds: Any, blamed: type[BaseException] = Exception) -> None:
        """Analyse ``ds``, a DataFlow or what may stand for one; nothing is reset or read before the first run.

        Args:
            ds: the pipeline.
            blamed: what is an item's failure if it is raised while that is made; anything else ends the run. In a
                worker it is BaseException: there no Ctrl-C or signal raises anything, but an item may call sys.exit().

        Raises:
            ConfigError: it cannot be run item by item; it says what to change.
        """
        pipeline = analysed(ds)
        self._blamed = blamed
        source = whole_twin_of(pipeline.source)
        self._undrawn = None if is_foreign(source) else source
        self._streams = ItemStreams(not is_ours(pipeline), self._undrawn)
        self._feed = Feed(source, pipeline.sharded, self._streams)
        self._foreign = [type(op).__name__ for op in reversed(pipeline.operators) if is_foreign(op)]
        self._twins: list[Any] = [self._feed]
        for operator in reversed(pipeline.operators):
            self._twins.append(twin_over(operator, self._twins[-1]))
        self._is_bare = len(self._twins) == 1 and self._feed.is_plain
        self._is_reset = False
        self._epoch: tuple[int, int, bool] | None = None
        self._chunk: tuple[int, list[int]] = (0, [])  # positions from here on, and their indices
        self.source = Source(
            name=name_of_source(pipeline.source),
            length=self._feed.total,
            sharded=pipeline.sharded,
            fingerprint=fingerprint_of(pipeline),
            batch=pipeline.batch,
        )

    def run(
        self,
        split: Split,
        add: Callable[[Any], object],
        at: Callable[[int], object] = bool,
        restart: Callable[[], object] | None = None,
    ) -> Outcome:
        """Make the outputs of a split.

        Args:
            split: which.
            add: takes each output, in the order of the positions; copies or encodes it at once. What it raises is a
                failure of the item, unless it is a `NoItemsFault`.
            at: told each position before its item is fetched; nobody by default.
            restart: called when all is made again, so that what was added in this run is to be thrown away: when an
                item failed, and is to be left out, after some of its outputs were added (by default those stay, and are
                counted); and when the pipeline is first seen to draw from a global generator.

        Raises:
            ItemFailed: an item failed, with ``on_error="raise"``; or, in any case, because a package is missing or an
                operator's own limit of failures is passed. The runner is ready for the next split.
            ConfigError: the pipeline turned out not to make the outputs of each item for itself; or positions that
                there are not.
            Exception: what an operator raises that has no item at the time.
        """
        places = self._places(split)
        outcome = Outcome([0] * split.count)
        self._reset_once()
        self._begin(places, split, outcome, at)
        with self._streams.running(at_any_cost=restart is None):
            try:
                self._make(places, split, outcome, add, at, restart)
            except ItemFailed:
                if not self._streams.missed():
                    raise
            else:
                if not self._streams.missed():
                    return outcome
        assert restart is not None
        restart()
        return self.run(split, add, at, restart)

    def _make(
        self,
        places: list[tuple[int, int]],
        split: Split,
        outcome: Outcome,
        add: Callable[[Any], object],
        at: Callable[[int], object],
        restart: Callable[[], object] | None,
    ) -> None:
        one_pass = self._bare_pass if self._is_bare else self._pass
        while self._feed.start_pass():
            failed = one_pass(add, outcome.counts, split)
            if failed is None:
                continue
            outcome.quarantined.append(failed)
            if outcome.counts[failed.position - split.first] and restart is not None:
                restart()
                outcome.counts[:] = [0] * split.count
                self._begin(places, split, outcome, at)

    def _bare_pass(self, add: Callable[[Any], object], counts: list[int], split: Split) -> Quarantined | None:
        """Do what `_pass` does for a source that no operator follows: a third of what a small item costs otherwise."""
        feed, first = self._feed, split.first
        try:
            feed.pour(add)
        except NoItemsFault:
            raise
        except self._blamed as error:  # whatever the source raises
            return self._failure(error, split.on_error)
        finally:
            for position in feed.poured:
                counts[position - first] = 1
        return None

    def _places(self, split: Split) -> list[tuple[int, int]]:
        if split.on_error not in ("raise", "skip"):
            raise ConfigError(f"on_error is {split.on_error!r}; it is 'raise' or 'skip'")
        epoch = (split.seed, split.epoch, split.shuffle)
        if self._epoch != epoch:
            self._order = order.Order(self.source.length, *epoch)
            self._key = order.key_of(split.seed, split.epoch)
            self._epoch = epoch
            self._chunk = (0, [])
        try:
            indices = self._indices(split.first, split.count)
        except IndexError as error:
            raise ConfigError(f"a split of positions that are not there: {error}") from error
        return list(enumerate(indices, split.first))

    def _indices(self, first: int, count: int) -> list[int]:
        """Return the indices of a split's items; they are worked out by the thousand, which takes little longer."""
        start, known = self._chunk
        if not start <= first <= first + count <= start + len(known):
            start = first
            known = self._order.indices(first, max(count, min(CHUNK, self.source.length - first)))
            self._chunk = (start, known)
        return known[first - start : first - start + count]

    def _begin(
        self, places: list[tuple[int, int]], split: Split, outcome: Outcome, at: Callable[[int], object]
    ) -> None:
        left_out = split.skip.union(failed.position for failed in outcome.quarantined)
        self._feed.begin(self._key, [place for place in places if place[0] not in left_out], at)

    def _reset_once(self) -> None:
        if self._is_reset:
            return
        with self._streams.preparing():
            self._twins[-1].reset_state()
        settle_torch()
        for twin in (self._feed.source, *self._twins[1:]):
            if twin is not self._undrawn:
                self._streams.adopt(generators_in(twin))
        self._is_reset = True

    def _pass(self, add: Callable[[Any], object], counts: list[int], split: Split) -> Quarantined | None:
        """Run until the end, for which None is returned, or until an item fails that is to be left out."""
        try:
            self._outputs(add, counts, split.first)
        except NotItemwise as found:
            raise ConfigError(self._accusation(found)) from None
        except NoItemsFault:
            raise
        except self._blamed as error:  # whatever the pipeline raises
            return self._failure(error, split.on_error)
        return None

    def _outputs(self, add: Callable[[Any], object], counts: list[int], first: int) -> None:
        feed = self._feed
        outputs = iter(self._twins[-1])
        try:
            for output in outputs:
                place = feed.place
                if place is None:
                    raise NotItemwise(
                        "yields outputs after its source's end" if feed.ended else "yields before it has taken an item"
                    )
                add(output)
                counts[place[0] - first] += 1
        finally:
            getattr(outputs, "close", bool)()
        if feed.left:
            raise NotItemwise("ends its pass before its source's end")

    def _failure(self, error: BaseException, on_error: str) -> Quarantined:
        """Return the account of an item's failure, if it is to be left out; raise what is to be raised."""
        if self._feed.place is None:
            raise error
        position, _ = self._feed.place
        key = key_of(error)
        if not key or key.isdecimal():  # a place in a pass that has no meaning here
            key = self._feed.name()
        if on_error == "raise" or isinstance(error, _NOT_THE_ITEM):
            raise ItemFailed(position, key, error) from error
        trace = "".join(traceback.format_exception(type(error), error, error.__traceback__)).rstrip()
        return Quarantined(position, key, type(error).__name__, text_of(error), trace)

    def _accusation(self, found: NotItemwise) -> str:
        names = " or ".join(dict.fromkeys(self._foreign)) or "the pipeline"
        return (
            f"{names} {found}: in epochs mode an operator yields all that comes of an item before it takes the next,"
            " in one pass; remove it, or put what it does (batches, buffers, threads) after the consumer"
        )

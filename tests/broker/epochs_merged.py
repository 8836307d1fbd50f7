"""Owns the simulated world in fewer steps: what is said is taken in at once. `Search` goes through it.

Comments called *Sound* say why nothing that could break is lost.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from itertools import product
from typing import Any

from epochs_compared import Compared
from epochs_key import digest, packed
from epochs_peers import Broken, Peer, Scenario, SimRank, SimWorker, Step
from epochs_world import World

from dfserve.broker.epochs_job import OPEN_EPOCHS
from dfserve.wire import epoch_messages as e
from dfserve.wire.messages import Refused

RANK_FAULTS = ("cut", "crash", "reload", "resume", "again", "leave")
LOSING = ("cutw", "crash")  # faults after which a worker lives on that may have missed what was said to it


class Merged(Compared, World):
    """A world in which a peer's act and the broker's taking in of what the peer said in it are one step.

    Sound: a connection is first in, first out, and a peer's act changes only the peer and what it says. If others did
    something between the act and the taking in, the act may be thought to be later, just before it: nobody could see
    it. (If the peer itself did something more in between, that is moved too: it heard only what had been said by then,
    and one step hears one message.) What was said and is lost comes back in `_with_losses`. The broker looks after each
    act what it can do; that it takes in several acts before it looks is left to `Whole` and to chance.
    """

    pumps = False  # look whether a broker that looks again does nothing

    def __init__(self, scenario: Scenario) -> None:
        self.suspected: set[str] = set()
        self.silent = self.many = False  # in the last step: nobody said anything; somebody said several things
        self.vain = False  # in the last step: what was said changed nothing
        self.single = False  # in this step: the broker takes in what is said one by one, not together
        if scenario.lazy:
            raise ValueError("a lazy rank's losses are not thought of here")
        super().__init__(scenario)
        for peer in self.peers.values():
            peer.cut()

    def _add_worker(self, name: str) -> None:
        self.peers[name] = SimWorker(name, self._session(), self.scenario)  # it connects in a step of its own

    # ------------------------------------------------------------------ steps

    def steps(self) -> list[Step]:
        found: list[Step] = []
        for peer in self.everybody():
            found += self._possible(peer)
        for name, zombie in self.zombies.items():
            if zombie.connected:
                found += [("cut", name, *lost) for lost in self._losses(zombie)]
        if self._over:
            found.append(("rerun",))
        if self._may_return:
            found.append(("return",))
        if self.disk.pending:
            found.append(("disk",))
        if self._may_go_on:
            found.append(("pump",))
        return found

    @property
    def _may_go_on(self) -> bool:
        """Whether a broker would do more if it looked again: it looks for another epoch before it leases."""
        epochs = self.job.epochs
        return bool(epochs) and len(epochs) < OPEN_EPOCHS and epochs[max(epochs)].all_leased

    def _do_pump(self) -> None:
        """`step` does it."""

    def _possible(self, peer: Any) -> Iterator[Step]:
        name = peer.name
        if name in self.suspected:
            yield "up", name
        if peer.connected and peer.down:
            yield "down", name
        if not peer.connected and not getattr(peer, "refused", "") and getattr(peer, "lives", 1):
            yield "connect", name
        if isinstance(peer, SimWorker):
            yield from (("make", name, number) for number in range(len(peer.choices())))
            if peer.connected and name not in self.suspected and self._hangs(peer):
                yield "beat", name

    def alone(self, step: Step) -> bool:
        """Tell whether the step, which was just done, may be thought to come before all others that were possible.

        Sound: a rank heard something and said nothing. That is seen by nobody but the rank, so it commutes with
        whatever others do, and it is its next step in any case unless a fault that is about ranks comes first, of which
        none is left. What a rank hands out must be durable then, and the earlier it looks the less is. Each such step
        takes a message from a queue, so there is no end of steps that keeps others from coming. (Without a ledger the
        end of a run is one more way in which ranks are killed.)
        """
        kind, name, *_ = *step, ""
        private = kind == "down" and name in self.peers and name[0] == "r" and not self._left(*RANK_FAULTS)
        return private and self.scenario.ledger and (self.silent or self.vain)

    def step(self, step: Step) -> None:
        kind, *names = step
        self.single = kind == "single"
        if self.single:
            kind, *names = names
        self.time += 10.0
        if kind in self.left and not self.zombies.keys() & {name for name in names if isinstance(name, str)}:
            self.left[kind] -= 1
            self.most -= 1
        before = {peer.session: len(peer.handed) for peer in self.everybody() if isinstance(peer, SimRank)}
        opened = kind == "down" and self._hears_opened(names[0])
        job = digest(self.job) if opened else b""
        self.silent, self.many = kind in ("down", "make"), False
        peers = [(self.peers.get(each) or self.zombies.get(each) or each) for each in names]
        getattr(self, f"_do_{kind}")(*peers)
        if not self.silent:
            self.job.pump(self.time)
        self._settle()
        self.vain = opened and digest(self.job) == job
        self._check_handed(before)
        self.check()
        self._bury()
        self._tidy()
        if self.pumps and not self._may_go_on:  # nothing is left out by not doing this as a step
            before = digest(self.job), sum(len(peer.down) for peer in self.everybody())
            self.job.pump(self.time)
            if before != (digest(self.job), sum(len(peer.down) for peer in self.everybody())):
                raise AssertionError("a broker that looks again does more")

    def _hears_opened(self, name: str) -> bool:
        """Whether a rank is about to hear `Opened`, after which it says its claim again, mostly in vain."""
        peer = self.peers.get(name)
        return isinstance(peer, SimRank) and isinstance(peer.down[0][0], e.Opened)

    # ------------------------------------------------------------------ who hears what, and when

    def _settle(self) -> None:
        """Let the broker take in what was said, and workers what is said to them."""
        going_on = True
        while going_on:
            going_on = False
            for peer in self.everybody():
                if peer.connected and peer.up:
                    self._take_in(peer)
                    going_on = True
            for worker in self.workers:
                while self._hears_at_once(worker):
                    going_on = True

    def _take_in(self, peer: Any) -> None:
        """Let the broker take in all that a peer said in this step, one by one or together."""
        self.silent = False
        self.many |= len(peer.up) > 1
        said = [[each] for each in peer.up] if self.single else [peer.up[:]]
        peer.up.clear()
        for each in said:
            peer.up += each
            self.time += 10.0
            self._do_up(peer)
            peer.up.clear()
            self.job.pump(self.time)

    def _hears_at_once(self, worker: SimWorker) -> bool:
        """Let a worker hear what it does not answer.

        Sound: it commutes with what others do, as in `alone`, unless it can be lost while the worker lives on. Of what
        the worker itself does only `make` looks at it: it may take any lease that it would have taken had it not heard
        of the later ones yet, see `SimWorker.choices`. What is `Taken` is looked at only by answers to later messages.
        """
        if not worker.connected or not worker.down or self._left(*LOSING):
            return False
        message, frames = worker.down[0]
        if isinstance(message, e.Lease):
            others = any(each.generation != message.generation for each in worker.todo.values())
            if others or message.lease in worker.made:
                return False
        elif not isinstance(message, e.Taken):
            return False
        del worker.down[0]
        worker.hear(message, frames)
        return True

    def _left(self, *kinds: str) -> bool:
        return self.most > 0 and any(self.left.get(kind) for kind in kinds)

    def _do_down(self, peer: Peer) -> None:
        peer.hear(*peer.down.pop(0))

    def _do_up(self, peer: Any) -> None:
        if peer.name in self.suspected and not peer.up:
            self.suspected.discard(peer.name)
            peer.say("hello")
            peer.beat()
        else:
            super()._do_up(peer)

    def _do_make(self, worker: SimWorker, number: int = 0) -> None:
        worker.make(worker.choices()[number])

    # ------------------------------------------------------------------ faults

    def faults(self) -> list[Step]:
        return [each for step in super().faults() for each in self._with_losses(step)]

    def _with_losses(self, step: Step) -> list[Step]:
        """Return a fault with everything that may have been done by those whose connection breaks and is lost.

        Sound: what a peer does from when the first of its messages is lost until the connection breaks, it may be
        thought to do just before: it hears only what was in its queue then. A crash needs no such thing: what was
        said just before it changes nothing that outlives the broker.
        """
        kind = step[0]
        if kind == "cut":
            return [("cut", step[1], *loss) for loss in self._losses(self.peers[step[1]])]
        if kind == "cutw":
            return [("cutw", step[1], *loss) for loss in self._losses_of_worker(self.peers[step[1]])]
        if kind in ("reload", "resume", "again"):
            return [(kind, *losses) for losses in product(*(self._losses(rank) for rank in self.ranks))]
        return [step]

    def _losses(self, rank: SimRank) -> list[tuple[int, int]]:
        """Return how many messages a rank may hear, and how many of its answers arrive, if some do not."""
        found = [(0, 0)]
        if rank.connected and rank.down:
            copy: SimRank = pickle.loads(packed(rank))
            for heard in range(1, len(rank.down) + 1):
                try:
                    if copy.down:
                        copy.hear(*copy.down.pop(0))
                except Broken:
                    return [*found, (heard, 0)]  # the step tells
                found += [(heard, arrived) for arrived in range(len(copy.up))]
        return found

    def _losses_of_worker(self, worker: SimWorker) -> list[tuple[str, int]]:
        """Return what a worker may do (connect, hear, make), and how many of its messages arrive, if some do not.

        What it makes after the connection broke is as good as what it made before, unless it was asked to drop it.
        """
        found = [("", 0)]
        words: list[str] = []
        if any(not isinstance(message, e.Lease | e.Taken) for message, _ in worker.down):
            heard, made = range(len(worker.down) + 1), range(len(worker.todo) + 1)
            words = ["h" * a + "m" * b + "h" * c for a, b, c in product(heard, made, heard) if a + c < len(heard)]
        elif any(isinstance(message, e.Lease) for message, _ in worker.down):
            words = ["h" * a for a in range(1, len(worker.down) + 1)]
        for word in words:
            copy = pickle.loads(packed(worker))
            if all(_acts(copy, act) for act in word):
                found += [(word, arrived) for arrived in range(len(copy.up))]
        return found

    def _lose(self, peer: Any, word: str, arrived: int) -> None:
        for act in word:
            _acts(peer, act)
        del peer.up[arrived:]
        if peer.up:
            self._take_in(peer)

    def _do_suspect(self, worker: SimWorker) -> None:
        self.job.production.worker_unreachable(worker.session)
        self.suspected.add(worker.name)

    def _do_crash(self) -> None:
        self.suspected.clear()
        super()._do_crash()
        for rank in (each for each in self.everybody() if isinstance(each, SimRank) and each.generation):
            _renumber(rank)

    def _do_cut(self, rank: SimRank, heard: int = 0, arrived: int = 0) -> None:
        self._lose(rank, "h" * heard, arrived)
        super()._do_cut(rank)

    def _do_cutw(self, worker: SimWorker, word: str = "", arrived: int = 0) -> None:
        self._lose(worker, word, arrived)
        self.suspected.discard(worker.name)
        super()._do_cutw(worker)

    def _do_die(self, worker: SimWorker) -> None:
        self.suspected.discard(worker.name)
        super()._do_die(worker)

    def _do_reload(self, *losses: tuple[int, int]) -> None:
        self._lose_all(losses)
        super()._do_reload()

    def _do_again(self, *losses: tuple[int, int]) -> None:
        self._lose_all(losses)
        super()._do_again()

    def _do_resume(self, *losses: tuple[int, int]) -> None:
        self._lose_all(losses)
        super()._do_resume()

    def _lose_all(self, losses: tuple[tuple[int, int], ...]) -> None:
        for rank, (heard, arrived) in zip(self.ranks, losses, strict=False):
            self._lose(rank, "h" * heard, arrived)

    def _bury(self) -> None:
        """Forget ranks that were killed and could only come back to hear that their run is over.

        Sound: the generation that the broker is in never goes back, except to one that is on the disk or on its way.
        """
        alive = [zombie for zombie in self.zombies.values() if not zombie.connected and not zombie.refused]
        for zombie in alive:
            if not zombie.lives:
                zombie.refused = "it does not come back"
            elif self._is_over(zombie):
                zombie.refused = "its run is over"
        for zombie in alive:
            if zombie.refused:
                self.seats.pop(zombie.name, None)

    def _tidy(self) -> None:
        """Forget what nobody looks at any more.

        Sound: where a rank began is looked at until its generation opens. A lease that the broker does not know is
        never said again. What is made of it changes nothing (which is checked) but that its worker is not thought to
        hang any more. If that is not so, and cannot become so, and the answer cannot be lost, it may come first. If it
        would be of an epoch that is not simulated, it never comes.
        """
        for seat in self.job.seats.values():
            if seat.generation and seat.generation == self.job.generation:
                seat.state, seat.resume = None, "checkpoint"
        for rank in self.ranks:
            if rank.generation:
                rank.state, rank.resume = None, "checkpoint"
            rank.welcomed &= rank.connected
        lessees = self.job.production.lessees.workers
        for worker in self.workers:
            leases = lessees[worker.session].leases if worker.session in lessees else {}
            for number in [number for number in worker.todo if number not in leases]:
                if worker.todo[number].epoch >= self.scenario.epochs:
                    del worker.todo[number]
                elif not (self._left(*LOSING, "expire") or self._hangs(worker) or self._may_go_on):
                    before = digest(self.job)
                    worker.make(worker.todo[number])
                    self._settle()
                    if digest(self.job) != before:
                        raise Broken(f"5: a block of lease {number}, which nobody has, changed something")

    def _is_over(self, zombie: SimRank) -> bool:
        job, mine = self.job, zombie.generation
        if not job.generation or job.generation == mine:
            return False
        if any(seat.session == zombie.session for seat in (*job.seats.values(), *job._members.values())):
            return False
        records = [self.disk.durable, *(record for _, record in self.disk.pending)]
        if self._left("crash") and any(record and record["generation"] == mine.hex() for record in records):
            return False
        copy = pickle.loads(packed(self))  # see that this is what a broker does which may be a broken one
        before = digest(copy.job)
        copy.zombies[zombie.name].connect()
        copy._settle()
        over = isinstance(copy.zombies[zombie.name].down[-1][0], Refused) and digest(copy.job) == before
        return over and len(copy.zombies[zombie.name].down) == 1


def _acts(peer: Any, act: str) -> bool:
    """Let a peer connect, hear or make; False: it cannot."""
    if act == "h" and peer.down:
        peer.hear(*peer.down.pop(0))
    elif act == "m" and peer.next() is not None:
        peer.make()
    else:
        return False
    return True


def _renumber(rank: SimRank) -> None:
    """Number a rank's blocks from 1 again, those that are not confirmed.

    Sound: the broker that counted them is gone. What is left of its numbers is which of them are claimed and confirmed.
    """
    rank.broker = b""
    kept = [block for block in rank.waiting if block.number > rank.confirmed]
    claimed = sum(block.number <= rank.claimed for block in kept)
    for block in rank.waiting:
        block.number = kept.index(block) + 1 if block in kept else 0
    rank.received, rank.claimed, rank.confirmed, rank.opened = len(kept), claimed, 0, 0

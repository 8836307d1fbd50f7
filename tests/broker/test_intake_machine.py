"""Owns the state machine that searches the intake for an order of events that breaks the byte budget."""

from __future__ import annotations

from collections import deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dfserve.broker.budget import Budget, charge_of
from dfserve.broker.intake import Intake, Worker
from dfserve.wire.messages import ProducerHello

TOTAL = 64 << 10
WORKERS = 3
slots = st.integers(0, WORKERS - 1)
sizes = st.integers(0, TOTAL - charge_of(0))


class IntakeMachine(RuleBasedStateMachine):
    """Workers that offer, send, repeat, skip and come back, and a broker that frees what it holds.

    The model is what the workers hold: the sizes of all their blocks, numbered from 1.
    """

    @initialize()
    def begin(self) -> None:
        self.budget = Budget(TOTAL)
        self.intake = Intake(self.budget)
        self.blocks: list[list[int]] = [[] for _ in range(WORKERS)]
        self.queued: deque[int] = deque()  # charges of what was received and is not freed
        self.requested: list[tuple[int, int]] = []  # (slot, seq): what the FIFO must hold
        self.workers = [self._hello(slot) for slot in range(WORKERS)]

    def _hello(self, slot: int) -> Worker:
        session = bytes([slot]) * 16
        worker, _ = self.intake.hello(ProducerHello(session, str(slot), "h", 1, "p", 1, 1, b"", 0, 0), 0.0)
        self.requested = [request for request in self.requested if request[0] != slot]
        return worker

    @rule(slot=slots, new=st.lists(sizes, max_size=4), back=st.integers(0, 3))
    def offer(self, slot: int, new: list[int], back: int) -> None:
        """Offer new blocks, and some of the earlier ones once more."""
        worker, blocks = self.workers[slot], self.blocks[slot]
        known = worker.offered
        first = max(1, known + 1 - back)
        blocks += new
        self.intake.offer(worker, first, blocks[first - 1 :])
        if not worker.resync:
            self.requested += [(slot, seq) for seq in range(known + 1, len(blocks) + 1)]
            assert worker.offered == len(blocks)

    @rule(slot=slots)
    def offer_behind_a_gap(self, slot: int) -> None:
        worker = self.workers[slot]
        self.intake.offer(worker, worker.offered + 2, [0])
        assert worker.resync

    @rule()
    def grant(self) -> None:
        """Grants follow the order of the requests, without passing one over; what is left did not fit."""
        before = [worker.granted for worker in self.workers]
        needed = self.intake.grant()
        left = [(self.workers.index(worker), seq) for worker, seq, _ in self.intake.requests]
        done = len(self.requested) - len(left)
        assert self.requested[done:] == left
        after = list(before)
        for slot, seq in self.requested[:done]:
            after[slot] = seq
        assert [worker.granted for worker in self.workers] == after
        self.requested = left
        assert bool(needed) is bool(left)
        assert not needed or not self.budget.fits(needed)

    @rule(slot=slots)
    def send_the_next(self, slot: int) -> None:
        worker = self.workers[slot]
        seq = worker.received + 1
        if seq > len(self.blocks[slot]):
            return
        allowed = seq <= worker.granted and not worker.resync
        verdict = self.intake.take(worker, seq, self.blocks[slot][seq - 1])
        assert verdict == ("new" if allowed else "gap")
        if allowed:
            self.queued.append(charge_of(self.blocks[slot][seq - 1]))
            assert worker.received == seq

    @rule(slot=slots, ahead=st.integers(2, 4))
    def send_out_of_turn(self, slot: int, ahead: int) -> None:
        worker = self.workers[slot]
        received = worker.received
        assert self.intake.take(worker, received + ahead, 0) == "gap"
        assert worker.received == received

    @rule(slot=slots)
    def send_again(self, slot: int) -> None:
        worker = self.workers[slot]
        if worker.received:
            assert self.intake.take(worker, worker.received, 0) == "duplicate"

    @rule(slot=slots)
    def come_back(self, slot: int) -> None:
        worker = self._hello(slot)
        assert worker is self.workers[slot]
        assert not worker.resync
        assert worker.granted == worker.offered == worker.received

    @rule(slot=slots)
    def lose_the_connection(self, slot: int) -> None:
        self.intake.void_grants(self.workers[slot])
        self.requested = [request for request in self.requested if request[0] != slot]

    @precondition(lambda self: self.queued)
    @rule()
    def free_a_block(self) -> None:
        self.budget.give_back(self.queued.popleft())

    @invariant()
    def every_byte_has_one_owner(self) -> None:
        granted = sum(sum(worker.grants) for worker in self.workers)
        assert self.budget.used == granted + sum(self.queued)
        assert 0 <= self.budget.used <= TOTAL

    @invariant()
    def a_worker_is_granted_what_it_offered_and_sends_what_it_was_granted(self) -> None:
        for worker in self.workers:
            assert worker.received <= worker.granted <= worker.offered
            assert len(worker.grants) == worker.granted - worker.received

    def teardown(self) -> None:
        """Progress: with everything freed and everybody back, every block arrives."""
        if not hasattr(self, "workers"):
            return
        for slot in range(WORKERS):
            self._hello(slot)
        for slot, worker in enumerate(self.workers):
            self.intake.offer(worker, worker.received + 1, self.blocks[slot][worker.received :])
        while self.intake.requests or any(worker.grants for worker in self.workers):
            while self.queued:
                self.free_a_block()
            self.intake.grant()
            ready = [slot for slot, worker in enumerate(self.workers) if worker.grants]
            assert ready, "an empty queue and nobody was granted the next block"
            for slot in ready:
                while self.workers[slot].grants:
                    self.send_the_next(slot)
        assert [worker.received for worker in self.workers] == [len(blocks) for blocks in self.blocks]


IntakeMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, derandomize=True)
TestIntake = IntakeMachine.TestCase

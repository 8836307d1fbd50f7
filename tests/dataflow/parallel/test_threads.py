"""Threads of operators: that one is gone is noticed."""

from __future__ import annotations

import queue
import threading

import pytest

from dfserve.dataflow.parallel.threads import Threads
from dfserve.errors import WorkerLost


def test_a_thread_that_is_gone_ends_the_wait_for_it() -> None:
    go_on = threading.Event()
    threads = Threads("Operator", [lambda: None, lambda: go_on.wait(60) and None], go_on.set)
    answers: queue.SimpleQueue[int] = queue.SimpleQueue()
    answers.put(1)
    assert threads.next_of(answers) == 1
    with pytest.raises(WorkerLost, match=r"Operator 0 of 2$"):
        threads.next_of(answers)
    threads.end()


def test_what_a_thread_said_before_it_ended_is_not_lost() -> None:
    answers: queue.SimpleQueue[int] = queue.SimpleQueue()
    threads = Threads("Operator", [lambda: answers.put(1)], lambda: None)
    assert threads.next_of(answers) == 1

"""The job queue: one at a time, in order, nobody forgotten."""

import threading
import time

import pytest

from thanostack.lib.tsdb.job_queue import JobQueue


def test_runs_inline_and_in_order():
    """An idle queue runs a job before `submit` returns; jobs that jobs submit come after."""
    queue, seen = JobQueue(), []

    def first():
        queue.submit(lambda: seen.append("third"), lambda _: None)
        seen.append("first")
        return 1

    queue.submit(first, seen.append)
    assert ["first", 1, "third"] == seen
    assert queue.run(lambda: 7) == 7


def test_exceptions_belong_to_the_submitter():
    """What a job raises goes to its own `done`, and out of `run`; the queue goes on."""
    queue, outcomes = JobQueue(), []
    queue.submit(lambda: 1 / 0, outcomes.append)
    assert isinstance(outcomes[0], ZeroDivisionError)
    with pytest.raises(KeyError):
        queue.run(lambda: {}["a"])
    assert queue.run(lambda: 1) == 1


def test_run_now():
    """A job runs at once or not at all; whoever comes meanwhile is served when it is done."""
    queue, seen = JobQueue(), []

    def job():
        assert queue.run_now(lambda: seen.append("never")) is None
        queue.submit(lambda: seen.append("second"), lambda _: None)
        seen.append("first")
        return 5

    assert queue.run_now(job) == 5
    assert ["first", "second"] == seen
    with pytest.raises(KeyError):
        queue.run_now(lambda: {}["a"])
    assert queue.run_now(lambda: 6) == 6


def test_a_failing_done_stops_nobody(monkeypatch):
    """A `done` that raises is told to the thread hook; the jobs behind it run all the same."""
    told, seen = [], []
    monkeypatch.setattr(threading, "excepthook", told.append)
    queue = JobQueue()

    def failing_done(result):
        raise RuntimeError("the loop is closed")

    def job():
        queue.submit(lambda: 2, seen.append)
        queue.submit(lambda: 3, failing_done)
        queue.submit(lambda: 4, seen.append)

    queue.submit(job, failing_done)
    assert [2, 4] == seen
    assert [RuntimeError, RuntimeError] == [args.exc_type for args in told]
    assert queue.run(lambda: 5) == 5


def test_many_threads():
    """Jobs of several threads never overlap, keep each thread's order, and none is left waiting."""
    queue, log, running, done = JobQueue(), [], [], []

    def job(thread, k):
        running.append(1)
        assert len(running) == 1
        log.append((thread, k))
        running.pop()
        return k

    def submitter(thread):
        for k in range(300):
            if k % 7 == 0:
                assert queue.run(lambda k=k: job(thread, k)) == k
            else:
                queue.submit(lambda k=k: job(thread, k), done.append)

    threads = [threading.Thread(target=submitter, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    deadline = time.monotonic() + 10
    while len(log) < 1800 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert len(log) == 1800
    assert not any(isinstance(result, BaseException) for result in done)
    for i in range(6):
        assert list(range(300)) == [k for thread, k in log if thread == i]


def test_a_caller_is_not_kept_by_others():
    """Whoever comes under a steady load leaves soon after its own job is done; the rest is run."""
    queue, ran, waits = JobQueue(), [], []
    has_left = threading.Event()

    def slow(number):
        time.sleep(0.002)
        ran.append(number)
        if number == 40:
            waits.append(has_left.wait(20))
        if number < 400:
            # Another caller's job comes before this one ends: the queue is never empty.
            queue._jobs.append((lambda: slow(number + 1), lambda _: None))

    queue.submit(lambda: slow(0), lambda _: None)
    has_left.set()
    deadline = time.monotonic() + 60
    while len(ran) < 401:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert waits == [True]
    assert list(range(401)) == ran

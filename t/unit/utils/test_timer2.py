import subprocess
import sys
import threading

import pytest

from celery.utils.timer2 import Timer


@pytest.fixture
def timer():
    made = Timer()
    yield made
    made.stop()


def test_entries_run_in_the_timer_s_thread(timer):
    done, threads = threading.Event(), []

    def entry():
        threads.append(threading.current_thread())
        done.set()

    timer.call_after(0.001, entry)
    assert done.wait(5)
    assert threads == [timer]
    assert timer.daemon


def test_repeated_entries_repeat_until_cancelled(timer):
    rounds = threading.Semaphore(0)
    entry = timer.call_repeatedly(0.001, rounds.release)
    for _ in range(3):
        assert rounds.acquire(timeout=5)
    timer.cancel(entry)
    assert entry.canceled


def test_a_failing_entry_does_not_end_the_timer():
    errors, done = [], threading.Event()
    timer = Timer(on_error=lambda error: errors.append(error))

    def fail():
        raise ValueError("boom")

    timer.call_after(0.001, fail)
    timer.call_after(0.005, done.set)
    try:
        assert done.wait(5)
        assert [str(error) for error in errors] == ["boom"]
    finally:
        timer.stop()


def test_entries_wait_in_order_and_are_cleared():
    started = []
    timer = Timer(on_start=started.append)
    assert timer.empty()
    assert timer
    timer.call_after(60, print)
    timer.call_after(30, print)
    assert len(timer) == len(timer.queue) == 2
    assert started == [timer]
    timer.clear()
    assert timer.empty()
    timer.stop()


def test_a_timer_that_never_ran_is_stopped_at_once():
    Timer().stop()


def test_a_crash_of_the_timer_ends_the_process():
    program = (
        "import time; from celery.utils.timer2 import Timer\n"
        "timer = Timer(on_tick=lambda delay: 1 / 0)\n"
        "timer.call_after(5, print); time.sleep(20)"
    )
    done = subprocess.run([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1

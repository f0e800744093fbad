"""What every pool promises; and what only pools with that trait do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

import pool_runner
import pytest
from billiard.exceptions import SoftTimeLimitExceeded, Terminated, TimeLimitExceeded, WorkerLostError
from kombu.asynchronous import Hub

from celery.concurrency import get_implementation
from celery.concurrency.processes import roster
from celery.concurrency.processes.page import RUNNING

POOLS = {
    "fork": ("prefork", {"start_method": "fork"}),
    "spawn": ("prefork", {"start_method": "spawn", "proc_alive_timeout": 20}),
    "threads": ("threads", {}),
    "solo": ("solo", {}),
}

#: Green pools need a patched process: `test_green_pools.py` runs this file in one, and names the pool here.
GREEN_POOL = os.environ.get("TEST_GREEN_POOL")
if GREEN_POOL:
    POOLS[GREEN_POOL] = (GREEN_POOL, {})
    EVERY_POOL = [GREEN_POOL]
else:
    EVERY_POOL = list(POOLS)


class Job:
    """Notes what it is told."""

    def __init__(self, command: str = "plain", name: str = "job", hard: float | None = None, soft: float | None = None):
        self.id = f"id-of-{command}"
        self.name = name
        self.command = command
        self.hard_limit, self.soft_limit = hard, soft
        self.told: list[tuple] = []
        self.pid: int | None = None
        self.started_at: float | None = None

    def frame(self) -> bytes | None:
        return self.command.encode()

    def on_started(self, pid: int, started_at: float) -> None:
        self.pid, self.started_at = pid, started_at
        self.told.append(("started",))

    def on_soft_limit(self, seconds: float) -> None:
        self.told.append(("soft limit", seconds))

    def on_finished(self, answer: bytes) -> None:
        self.told.append(("finished", answer))

    def on_hard_limit(self, seconds: float) -> None:
        self.told.append(("hard limit", seconds))

    def on_lost(self, error: Exception) -> None:
        self.told.append(("lost", error))

    def on_dropped(self) -> None:
        self.told.append(("dropped",))

    @property
    def has_begun(self) -> bool:
        return bool(self.told)

    @property
    def has_ended(self) -> bool:
        return bool(self.told) and self.told[-1][0] in ("finished", "hard limit", "lost", "dropped")

    @property
    def answer(self) -> str:
        assert self.told[-1][0] == "finished", self.told
        return self.told[-1][1].decode()

    def __repr__(self) -> str:
        return f"<{self.command} {self.told}>"


class House:
    """A pool and the hub that it works on."""

    def __init__(self, kind: str, limit: int = 2, runner: type = pool_runner.Runner, **options):
        name, own = POOLS[kind]
        self.kind = kind
        self.hub = Hub()
        self.pool = get_implementation(name)(limit, runner=runner, **{**own, **options})
        self.pool.start()
        self.pool.register_with_event_loop(self.hub)
        self.is_open = True

    def until(self, condition: Callable[[], object], seconds: float = 15.0) -> None:
        """Let the hub turn until ``condition`` holds."""
        deadline = time.monotonic() + seconds
        timer = self.hub.call_repeatedly(0.01, lambda: None)  # so that conditions about files are looked at, too
        loop = self.hub.create_loop()
        while not condition():
            assert time.monotonic() < deadline, "waited in vain"
            next(loop)
        timer.cancel()

    def turn(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        self.until(lambda: time.monotonic() >= end)

    def run(self, *jobs: Job, seconds: float = 15.0) -> None:
        for job in jobs:
            self.pool.submit(job)
        self.until(lambda: all(job.has_ended for job in jobs), seconds)

    def ready(self) -> House:
        """Wait until all children are ready."""
        if self.pool.traits.isolates_tasks:
            self.until(lambda: sum(child.is_up for child in self.pool._pool.children.values()) == self.pool.limit)
        return self

    @property
    def pids(self) -> set[int]:
        return set(self.pool.info["processes"])

    def close(self) -> None:
        if self.is_open:
            self.is_open = False
            self.pool.terminate()
        self.hub.close()


@pytest.fixture
def build(request) -> Iterator[Callable[..., House]]:
    houses: list[House] = []

    def build(kind: str, *args, **options) -> House:
        houses.append(House(kind, *args, **options))
        return houses[-1]

    yield build
    for house in houses:
        house.close()


@pytest.fixture(params=EVERY_POOL)
def any_pool(request, build) -> Callable[..., House]:
    return partial(build, request.param)


@pytest.fixture(params=["fork", "spawn"])
def prefork(request, build) -> Callable[..., House]:
    return partial(build, request.param)


@pytest.fixture
def forks(build) -> Callable[..., House]:
    return partial(build, "fork")


def is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# -- every pool


def test_jobs_are_told_of_their_start_and_then_of_their_end(any_pool):
    jobs = [Job(), Job("echo hello"), Job("raise")]
    before = time.monotonic()
    any_pool().run(*jobs)

    assert [job.told for job in jobs] == [
        [("started",), ("finished", b"")],
        [("started",), ("finished", b"hello")],
        [("started",), ("finished", b"ZeroDivisionError")],
    ]
    assert all(before <= job.started_at <= time.monotonic() for job in jobs)


def test_a_hundred_jobs_all_end(any_pool):
    jobs = [Job(f"echo {n}" if n % 3 else "plain") for n in range(100)]
    any_pool().run(*jobs)

    assert [job.answer for job in jobs] == [str(n) if n % 3 else "" for n in range(100)]


def test_jobs_begin_in_the_order_of_submission(any_pool):
    house = any_pool(1)
    jobs = [Job() for _ in range(20)]
    house.run(*jobs)

    starts = [job.started_at for job in jobs]
    assert starts == sorted(starts)


def test_a_start_is_told_while_the_job_runs(any_pool):
    house = any_pool().ready()
    if house.kind == "solo":
        pytest.skip("solo has no loop while it runs a job; it tells of the start before")
    job = Job("sleep 0.5")
    house.pool.submit(job)
    house.until(lambda: job.has_begun)

    assert job.told == [("started",)]
    assert time.monotonic() - job.started_at < 0.4


def test_as_many_jobs_run_at_once_as_the_pool_is_large(any_pool):
    house = any_pool(2).ready()
    if house.kind == "solo":
        pytest.skip("solo runs one at a time")
    for _ in range(10):
        jobs = [Job("sleep 0.05", name="long") for _ in range(2)]
        house.run(*jobs)
        assert abs(jobs[0].started_at - jobs[1].started_at) < 0.04


def test_a_success_is_told_though_another_thread_took_the_next_job(any_pool):
    house = any_pool(2)
    for _ in range(100):
        house.run(Job(), Job(), Job())


def test_an_end_is_told_while_the_next_job_takes_its_time(any_pool):
    house = any_pool(1).ready()
    brief, long = Job("plain", name="brief"), Job("sleep 1", name="long")
    told = []
    long.on_finished = lambda answer: told.append("long")
    brief.on_finished = lambda answer: told.append("brief")
    for job in (brief, long):
        house.pool.submit(job)
    house.until(lambda: told)
    began = time.monotonic()
    house.until(lambda: len(told) == 2)

    assert told == ["brief", "long"]
    assert time.monotonic() - began > 0.5


def test_large_frames_and_answers_pass(any_pool):
    big, echo = Job("big 3000000"), Job("echo " + "y" * 3_000_000)
    any_pool().run(big, echo)

    assert len(big.answer) == len(echo.answer) == 3_000_000


def test_a_job_revoked_while_it_waits_has_no_frame_and_is_left_alone(any_pool):
    house = any_pool()
    revoked, other = Job(), Job("echo other")
    revoked.frame = lambda: None
    house.pool.submit(revoked)
    house.run(other)

    assert other.answer == "other"
    assert revoked.told == []


def test_a_job_that_cannot_be_packed_is_lost_and_the_next_one_runs(any_pool):
    house = any_pool()
    broken = Job()
    broken.frame = lambda: 1 // 0
    house.run(broken, Job())

    assert broken.told[0][0] == "lost"
    assert isinstance(broken.told[0][1], ZeroDivisionError)


def test_an_error_in_a_callback_does_not_stop_the_pool(any_pool):
    house = any_pool()
    clumsy = Job()
    clumsy.on_started = lambda pid, started_at: 1 // 0
    house.pool.submit(clumsy)
    house.run(Job(), Job())


def test_stop_waits_for_what_runs_and_drops_the_rest(any_pool):
    house = any_pool(1).ready()
    running, waiting = Job("sleep 0.3"), [Job("echo never") for _ in range(3)]
    for job in (running, *waiting):
        house.pool.submit(job)
    house.until(lambda: running.has_begun)
    house.is_open = False
    house.pool.close()
    house.pool.stop()
    late = Job()
    house.pool.submit(late)

    assert running.told == [("started",), ("finished", b"")]
    assert [job.told for job in (*waiting, late)] == [[("dropped",)]] * 4
    assert not house.pool.active
    assert house.pool.in_flight == 0


def test_flush_drops_what_has_not_begun_and_the_pool_goes_on(any_pool):
    house = any_pool(1).ready()
    running, waiting = Job("sleep 0.2"), Job()
    house.pool.submit(running)
    house.until(lambda: running.has_begun)
    house.pool.submit(waiting)
    house.pool.flush()

    assert waiting.told == [("dropped",)]
    house.run(Job())
    assert running.answer == ""


def test_a_waiting_job_can_be_withdrawn_and_a_running_one_cannot(any_pool):
    house = any_pool(1).ready()
    running, waiting, last = Job("sleep 0.3"), Job(), Job()
    for job in (running, waiting, last):
        house.pool.submit(job)
    if house.kind != "solo":
        house.until(lambda: running.has_begun)
        assert not house.pool.withdraw(running)

    assert house.pool.withdraw(waiting)
    house.until(lambda: last.has_ended)
    assert waiting.told == []
    assert running.answer == ""


def test_a_task_that_exits_is_lost_and_the_next_one_runs(any_pool):
    house = any_pool()
    leaver, other = Job("exit 3"), Job("echo other")
    house.run(leaver, other)

    assert leaver.told[0] == ("started",)
    assert isinstance(leaver.told[1][1], WorkerLostError)
    assert other.answer == "other"


def test_callables_run_with_their_callbacks(any_pool):
    house = any_pool()
    accepted: list = []
    returned: list = []
    failed: list = []
    note = lambda pid, at: accepted.append(pid)  # noqa: E731
    house.pool.apply_async(pool_runner.add, (1, 2), accept_callback=note, callback=returned.append)
    house.pool.apply_async(pool_runner.fail, error_callback=failed.append)
    house.until(lambda: returned and failed)

    assert returned == [3]
    assert len(accepted) == 1
    assert failed[0].type is KeyError
    assert "in fail" in failed[0].traceback


def test_info_has_what_stats_shows(any_pool):
    house = any_pool()
    keys = {
        "prefork": {"processes", "max-tasks-per-child", "put-guarded-by-semaphore", "timeouts", "writes"},
        "threads": {"threads", "abandoned-threads"},
        "solo": {"processes", "max-tasks-per-child", "put-guarded-by-semaphore", "timeouts"},
    }.get(POOLS[house.kind][0], set())

    assert set(house.pool.info) == {"implementation", "max-concurrency"} | keys
    assert house.pool.info["max-concurrency"] == house.pool.limit


# -- green pools: what waits can be killed


@pytest.fixture
def green_pool(build) -> Callable[..., House]:
    if GREEN_POOL is None:
        pytest.skip("needs a patched process")
    return partial(build, GREEN_POOL)


def test_a_waiting_green_task_is_ended_by_the_hard_limit(green_pool):
    house = green_pool(1)
    slow, ignorant, other = Job("sleep 30", hard=0.2), Job("hold_on 30", hard=0.2), Job("echo other")
    began = time.monotonic()
    house.run(slow, ignorant, other)

    assert slow.told == ignorant.told == [("started",), ("hard limit", 0.2)]
    assert other.answer == "other"
    assert time.monotonic() - began < 2


def test_a_waiting_green_task_can_be_terminated(green_pool):
    house = green_pool(2)
    by_pid, by_job = Job("sleep 30"), Job("sleep 30")
    for job in (by_pid, by_job):
        house.pool.submit(job)
    house.until(lambda: by_pid.has_begun and by_job.has_begun)
    assert house.pool.terminate_job(by_pid.pid, "SIGKILL")
    assert house.pool.terminate_job(by_job)
    assert not house.pool.terminate_job(1)
    house.until(lambda: by_pid.has_ended and by_job.has_ended)

    assert isinstance(by_pid.told[-1][1], Terminated)
    assert [str(job.told[-1][1]) for job in (by_pid, by_job)] == ["9", "15"]


def test_a_green_pool_grows_and_shrinks(green_pool):
    house = green_pool(1)
    house.pool.grow(9)
    jobs = [Job("sleep 0.2") for _ in range(10)]
    began = time.monotonic()
    house.run(*jobs)
    assert time.monotonic() - began < 1
    house.pool.shrink(9)

    assert house.pool.num_processes == 1
    with pytest.raises(ValueError, match="a pool needs one"):
        house.pool.shrink(1)


def test_a_green_call_has_a_time_limit(green_pool):
    house, told = green_pool(1), []
    house.pool.apply_async(time.sleep, (30,), timeout=0.1, timeout_callback=lambda *args: told.append(args))
    house.until(lambda: told)

    assert told == [(False, 0.1)]


def test_a_green_timer_calls_at_the_time_and_can_be_called_off(green_pool):
    house, called = green_pool(1), []
    timer = house.pool.Timer()
    timer.call_after(0.05, called.append, ("once",))
    timer.cancel(timer.call_after(0.05, called.append, ("never",)))
    timer.call_repeatedly(0.03, called.append, ("often",))
    house.until(lambda: called.count("often") > 2 and "once" in called)
    timer.clear()
    count = len(called)
    house.turn(0.1)

    assert "never" not in called
    assert len(called) == count
    assert not timer.queue


# -- soft limits


@pytest.mark.parametrize("command", ["sleep 10", "spin 10"])
def test_a_soft_limit_is_raised_in_user_code(any_pool, command):
    house = any_pool().ready()
    if house.kind == "threads" and "sleep" in command:
        command = "nap 10"  # nothing can be raised within a call into C
    if house.kind == GREEN_POOL and "spin" in command:
        command = "nap 10"  # nor while a greenlet does not wait
    job = Job(command, soft=0.2)
    began = time.monotonic()
    house.run(job)

    assert job.told == [("started",), ("soft limit", 0.2), ("finished", b"soft")]
    assert 0.2 <= time.monotonic() - began < 2


def test_a_soft_limit_that_is_over_when_nothing_could_be_raised_counts_at_the_end(any_pool):
    house = any_pool().ready()
    job = Job("in_c 0.6", soft=0.2)
    house.run(job)

    assert job.told == [("started",), ("soft limit", 0.2), ("finished", b"soft")]


def test_a_soft_limit_is_raised_nowhere_else(any_pool):
    job = Job("0.4", soft=0.1)
    any_pool(runner=pool_runner.OutsideRunner).run(job)

    assert job.told == [("started",), ("finished", b"undisturbed")]


def test_a_soft_limit_does_not_reach_the_next_job(any_pool):
    house = any_pool(1)
    jobs = [Job("sleep 0.05", soft=0.06 if n % 2 else 10.0) for n in range(10)]
    house.run(*jobs)

    assert [job.answer for job in jobs[::2]] == [""] * 5
    assert all(job.answer in ("", "soft") for job in jobs)


def test_the_pools_own_limit_is_for_jobs_without_one(any_pool):
    house = any_pool(soft_timeout=0.1)
    limited, unlimited = Job("sleep 0.4"), Job("sleep 0.4", soft=0)
    house.run(limited, unlimited)

    assert limited.answer == "soft"
    assert unlimited.answer == ""


# -- hard limits


def test_every_pool_promises_limits(any_pool):
    traits = any_pool().pool.traits

    assert traits.interrupts_tasks
    assert traits.kills_tasks


@pytest.mark.parametrize("command", ["nap 10", "in_c 1", "swallow 10", "hold_on 10"])
def test_a_job_ends_by_the_hard_limit_and_the_next_one_starts_soon(any_pool, command):
    house = any_pool(1).ready()
    if house.kind == "solo" and command == "hold_on 10":
        command = "hold_on 2"  # nobody else could end it; what it returns at last is too late
    if house.kind == GREEN_POOL and command == "swallow 10":
        command = "swallow 0.5"  # one that waits once more is ended there; this one returns
    job, other = Job(command, hard=0.4, soft=0.2 if "swallow" in command else None), Job("echo other")
    house.run(job)
    ended = time.monotonic()
    house.run(other)

    assert job.told[0] == ("started",)
    assert job.told[-1] == ("hard limit", 0.4)
    assert sum(event[0] in ("finished", "lost", "hard limit") for event in job.told) == 1
    assert other.answer == "other"
    assert other.started_at - ended < 2


def test_the_pools_own_hard_limit_is_for_jobs_without_one(any_pool):
    house = any_pool(timeout=0.3).ready()
    limited, unlimited = Job("nap 5"), Job("nap 0.6", hard=0)
    house.run(limited, unlimited)

    assert limited.told[-1] == ("hard limit", 0.3)
    assert unlimited.answer == ""


def test_a_job_that_ends_in_time_is_left_alone(any_pool):
    house = any_pool(2).ready()
    jobs = [Job("sleep 0.05", hard=2.0, soft=1.5) for _ in range(12)]
    house.run(*jobs)

    assert [job.told for job in jobs] == [[("started",), ("finished", b"")]] * 12


# -- threads: what is given up


def test_a_thread_is_given_up_at_the_hard_limit_and_another_takes_its_place(build):
    """The call into C goes on, and nobody waits for it: neither the next job nor the end of the pool."""
    house = build("threads", 1)
    stuck = Job("sleep 3", hard=0.2)
    house.run(stuck)
    assert house.pool.info["abandoned-threads"] == 1
    next_one = Job("echo next")
    house.run(next_one)
    house.is_open = False
    began = time.monotonic()
    house.pool.stop()

    assert stuck.told == [("started",), ("hard limit", 0.2)]
    assert next_one.answer == "next"
    assert time.monotonic() - began < 2


def test_a_thread_that_was_given_up_ends_when_it_can(build):
    house = build("threads", 1)
    house.run(Job("nap 30", hard=0.2), Job("in_c 1", hard=0.2))
    house.until(lambda: house.pool.info["abandoned-threads"] == 0)

    assert house.pool.info["threads"] <= 1


def test_who_asks_for_figures_does_not_disturb_the_pursuit_of_a_given_up_thread(build, caplog):
    """The figures leave out a thread that has ended; the next look at it, a second later, finds that in order."""
    house = build("threads", 1)
    house.run(Job("nap 30", hard=0.2))
    house.until(lambda: house.pool.info["abandoned-threads"] == 0)
    house.turn(1.5)

    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_what_was_told_late_of_jobs_before_the_one_given_up_is_not_lost(build):
    house = build("threads", 1)
    house.run(*[Job() for _ in range(20)])  # "job" is known to be brief now
    jobs = [*[Job() for _ in range(5)], Job("nap 30", hard=0.3), Job("echo behind")]
    house.run(*jobs)

    assert [job.told[-1][0] for job in jobs] == [*["finished"] * 5, "hard limit", "finished"]
    assert all(sum(event[0] == "finished" for event in job.told) <= 1 for job in jobs)


def test_a_running_thread_can_be_terminated(build):
    house = build("threads", 2)
    stuck, soft = Job("sleep 3"), Job("nap 30", soft=20.0)
    for job in (stuck, soft):
        house.pool.submit(job)
    house.until(lambda: stuck.has_begun and soft.has_begun)
    assert house.pool.terminate_job(stuck)
    assert house.pool.terminate_job(soft, "SIGUSR1")
    assert not house.pool.terminate_job(Job())
    with pytest.raises(NotImplementedError, match="the worker itself"):
        house.pool.terminate_job(os.getpid())
    house.until(lambda: stuck.has_ended and soft.has_ended)

    assert isinstance(stuck.told[-1][1], Terminated)
    assert soft.answer == "softly terminated"


def test_a_call_in_a_thread_has_limits(build):
    house, told = build("threads", 1), []
    house.pool.apply_async(pool_runner.nap, ("30",), timeout=0.1, timeout_callback=lambda *args: told.append(args))
    result = house.pool.apply_async(pool_runner.nap, ("30",), soft_timeout=0.1)
    house.until(lambda: told)

    assert told == [(False, 0.1)]
    with pytest.raises(SoftTimeLimitExceeded):
        result.get(10)


# -- solo: what nothing can end


def test_a_call_that_never_returns_ends_the_worker_after_its_hard_limit():
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from celery.concurrency import stall; stall.GRACE_SECONDS = 0.2\n"
        "from test_pool_contract import House, Job\n"
        "House('solo', 1).run(Job('in_c 30', hard=0.2))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, os.path.dirname(__file__)], capture_output=True, text=True)

    assert done.returncode == 1
    assert "in in_c" in done.stderr  # where it was


# -- prefork: hard limits and other ends


@pytest.mark.parametrize("command", ["sleep 30", "spin 30", "in_c 8", "swallow 30", "ignore_term 30"])
def test_a_hard_limit_ends_whatever_runs_and_the_next_job_starts_soon(prefork, command):
    house = prefork(1).ready()
    job = Job(command, hard=0.4, soft=0.2 if "swallow" in command else None)
    house.run(job)
    ended = time.monotonic()
    other = Job("echo other")
    house.run(other)

    assert job.told[0] == ("started",)
    assert job.told[-1] == ("hard limit", 0.4)
    assert other.answer == "other"
    assert other.started_at - ended < 2


def test_jobs_behind_a_killed_one_run_elsewhere(forks):
    house = forks(1).ready()
    house.run(*[Job() for _ in range(50)])  # "job" is known to be short now
    stuck, behind = Job("sleep 30", hard=0.3), [Job("echo fine") for _ in range(5)]
    house.run(stuck, *behind)

    assert stuck.told[-1] == ("hard limit", 0.3)
    assert [job.answer for job in behind] == ["fine"] * 5


def test_a_job_that_ends_in_time_is_not_killed(forks):
    house = forks(2).ready()
    jobs = [Job("sleep 0.05", hard=0.3) for _ in range(12)]
    pids = house.pids
    house.run(*jobs)

    assert [job.answer for job in jobs] == [""] * 12
    assert house.pids == pids


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("kill SIGKILL", "signal 9 (SIGKILL)"),
        ("kill SIGSEGV", "signal 11 (SIGSEGV)"),
        ("_exit 7", "exitcode 7"),
        ("exit 3", "exitcode 3"),
        ("exit 0", "exitcode 0"),
    ],
)
def test_a_task_whose_process_dies_is_lost_with_the_reason(prefork, command, status):
    house = prefork(1).ready()
    job, other = Job(command), Job("echo other")
    began = time.monotonic()
    house.run(job, other)

    assert job.told[0] == ("started",)
    assert str(job.told[1][1]) == f"Worker exited prematurely: {status} Job: 1."
    assert other.answer == "other"
    assert time.monotonic() - began < (1 if house.kind == "fork" else 5)


def test_what_a_child_finished_before_it_died_is_not_lost(forks):
    """Answers in the pipe and successes that only the page knows count; what had not begun goes elsewhere."""
    house = forks(1).ready()
    house.run(*[Job() for _ in range(50)])
    batch = [Job(), Job("echo told"), Job(), Job("kill SIGKILL"), Job("echo again"), Job()]
    house.run(*batch)

    assert [job.told for job in batch[:3]] == [
        [("started",), ("finished", b"")],
        [("started",), ("finished", b"told")],
        [("started",), ("finished", b"")],
    ]
    assert batch[3].told[-1][0] == "lost"
    assert [job.answer for job in batch[4:]] == ["again", ""]


def test_a_child_killed_from_outside_is_replaced_within_a_second(prefork):
    house = prefork(2).ready()
    victim = min(house.pids)
    os.kill(victim, signal.SIGKILL)
    began = time.monotonic()
    house.until(lambda: victim not in house.pids and len(house.pids) == 2)

    assert time.monotonic() - began < 1


def test_without_pidfd_a_dead_child_is_replaced_within_a_second(prefork, monkeypatch):
    monkeypatch.setattr("celery.concurrency.processes.child.open_pidfd", lambda pid: -1)
    house = prefork(2).ready()
    job = Job("kill SIGKILL")
    began = time.monotonic()
    house.run(job)
    house.until(lambda: len(house.pids) == 2 and job.pid not in house.pids)

    assert job.told[-1][0] == "lost"
    assert time.monotonic() - began < 1
    house.pool.stop()
    house.is_open = False


def test_random_kills_lose_nothing_but_what_ran(forks):
    house = forks(2).ready()
    jobs = [Job("sleep 0.003", name="short") for _ in range(300)]
    for job in jobs:
        house.pool.submit(job)
    kills = 0
    while not all(job.has_ended for job in jobs):
        house.turn(0.05)
        if house.pids and kills < 8:
            os.kill(max(house.pids), signal.SIGKILL)
            kills += 1
    ends = [job.told[-1][0] for job in jobs]

    assert set(ends) <= {"finished", "lost"}
    assert ends.count("lost") <= kills
    assert all(sum(event[0] in ("finished", "lost") for event in job.told) == 1 for job in jobs)


def test_a_running_job_can_be_terminated_by_pid_and_by_itself(prefork):
    house = prefork(2).ready()
    by_pid, by_job = Job("sleep 30"), Job("spin 30")
    for job in (by_pid, by_job):
        house.pool.submit(job)
    house.until(lambda: by_pid.has_begun and by_job.has_begun)
    assert house.pool.terminate_job(by_pid.pid, "SIGKILL")
    assert house.pool.terminate_job(by_job)
    house.until(lambda: by_pid.has_ended and by_job.has_ended)

    assert isinstance(by_pid.told[-1][1], Terminated)
    assert str(by_pid.told[-1][1]) == "9"
    assert str(by_job.told[-1][1]) == "15"
    house.run(Job(), Job())


def test_terminating_a_job_that_has_just_ended_does_not_hit_the_next_one(forks):
    """The parent has not been told of the end yet: the page knows."""
    house = forks(1).ready()
    house.run(*[Job() for _ in range(50)])  # "job" is known to be short, so that a child gets several
    first, second = Job(), Job("sleep 0.5")
    child = next(iter(house.pool._pool.children.values()))
    house.pool._pool.dispatch()
    number = child.sent
    for job in (first, second):
        house.pool.submit(job)
    house.pool._pool.dispatch()
    deadline = time.monotonic() + 5
    while child.page.counters[RUNNING] < number + 2 and time.monotonic() < deadline:
        pass

    assert not house.pool.terminate_job(first, "SIGKILL")
    house.until(lambda: first.has_ended and second.has_ended)
    assert [first.answer, second.answer] == ["", ""]


def test_terminating_by_sigusr1_raises_the_soft_limit(forks):
    house = forks(1).ready()
    job = Job("sleep 30")
    house.pool.submit(job)
    house.until(lambda: job.has_begun)
    house.pool.terminate_job(job.pid, signal.SIGUSR1)
    house.until(lambda: job.has_ended)

    assert job.answer == "softly terminated"
    limited = Job("sleep 30", soft=0.1)  # it is no business of the next one in this process
    house.run(limited)
    assert limited.answer == "soft"


def test_there_is_nothing_to_terminate_in_an_unknown_process(forks):
    assert forks(1).pool.terminate_job(os.getpid()) is False


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1"])
def test_signals_to_the_whole_group_do_not_end_a_running_job(forks, name):
    house = forks(1).ready()
    job = Job("sleep 0.4")
    house.pool.submit(job)
    house.until(lambda: job.has_begun)
    os.kill(job.pid, getattr(signal, name))
    house.until(lambda: job.has_ended)

    assert job.answer == ""
    house.run(Job())


def test_an_idle_child_that_is_asked_to_leave_is_replaced(forks):
    house = forks(1).ready()
    house.turn(0.05)  # a signal on the brink of its wait would be seen after the next job only
    (pid,) = house.pids
    os.kill(pid, signal.SIGTERM)
    house.until(lambda: house.pids and pid not in house.pids)
    house.run(Job())


def test_a_process_that_a_task_starts_ends_by_sigterm(forks):
    job = Job("fork 30")
    forks(1).run(job)

    assert job.answer == str(-signal.SIGTERM)


def test_threads_that_a_task_leaves_behind_do_not_keep_a_child(forks):
    house = forks(1, maxtasksperchild=1).ready()
    (pid,) = house.pids
    house.run(Job("leave_thread 60"))
    house.until(lambda: pid not in house.pids, 3)


# -- prefork: who gets what


def test_no_job_waits_behind_a_long_one_while_a_child_is_idle(forks):
    """Also not where jobs of that name were short before, so that children were given several at once."""
    house = forks(2).ready()
    house.run(*[Job() for _ in range(200)])
    long = [Job("sleep 1.5")]
    short = [Job("echo quick") for _ in range(40)]
    for job in (*long, *short):
        house.pool.submit(job)
    house.until(lambda: all(job.has_ended for job in short), 1.4)

    assert not long[0].has_ended
    assert all(job.pid != long[0].pid or job.started_at < long[0].started_at for job in short)
    house.until(lambda: long[0].has_ended)


def test_long_jobs_are_given_one_at_a_time(forks):
    house = forks(2).ready()
    house.run(*[Job("sleep 0.02", name="long") for _ in range(4)])
    jobs = [Job("sleep 0.02", name="long") for _ in range(10)]
    most = 0

    def look() -> bool:
        nonlocal most
        most = max(most, *(len(child.flights) for child in house.pool._pool.children.values()))
        return all(job.has_ended for job in jobs)

    for job in jobs:
        house.pool.submit(job)
    house.until(look)

    assert most == 1


def test_short_jobs_are_given_several_at_a_time(forks):
    house = forks(1).ready()
    house.run(*[Job() for _ in range(50)])
    jobs = [Job() for _ in range(10)]
    for job in jobs:
        house.pool.submit(job)
    house.pool._pool.dispatch()
    (child,) = house.pool._pool.children.values()

    assert len(child.flights) > 1
    house.until(lambda: all(job.has_ended for job in jobs))


def test_results_are_flushed_before_a_child_waits(forks):
    house = forks(1).ready()
    house.run(Job(), Job())
    count = Job("flushes")
    house.run(count)

    assert int(count.answer) >= 1


# -- prefork: growing, shrinking, recycling


def test_the_pool_grows_and_shrinks(prefork):
    house = prefork(1).ready()
    house.pool.grow(2)
    house.until(lambda: len(house.pids) == 3)
    house.ready()
    house.pool.shrink(2)
    house.until(lambda: len(house.pids) == 1)

    assert house.pool.limit == house.pool.num_processes == 1
    house.run(Job())
    with pytest.raises(ValueError, match="a pool needs one"):
        house.pool.shrink(1)


def test_a_process_that_keeps_results_outlasts_a_shrink_and_not_the_pool(forks, monkeypatch):
    monkeypatch.setattr(roster, "EXIT_SECONDS", 0.2)
    house = forks(2, runner=pool_runner.OwingRunner).ready()
    house.run(Job())
    owing = house.pids
    house.pool.shrink(1)
    house.turn(1)
    assert house.pids == owing

    began = time.monotonic()
    house.pool.stop()
    house.is_open = False
    assert time.monotonic() - began < 5
    assert not any(is_alive(pid) for pid in owing)


def test_shrinking_disturbs_no_running_job(forks):
    house = forks(2).ready()
    jobs = [Job("sleep 0.4"), Job("sleep 0.4")]
    for job in jobs:
        house.pool.submit(job)
    house.until(lambda: all(job.has_begun for job in jobs))
    house.pool.shrink(1)
    house.until(lambda: all(job.has_ended for job in jobs))

    assert [job.answer for job in jobs] == ["", ""]
    house.until(lambda: len(house.pids) == 1)


def test_shrinking_takes_idle_children_first(forks):
    house = forks(3).ready()
    job = Job("sleep 0.5")
    house.pool.submit(job)
    house.until(lambda: job.has_begun)
    house.pool.shrink(2)
    house.until(lambda: len(house.pids) == 1)

    assert house.pids == {job.pid}
    assert not job.has_ended


def test_restart_replaces_all_children_and_loses_nothing(prefork):
    house = prefork(2).ready()
    before = house.pids
    jobs = [Job("sleep 0.2"), *[Job("echo on") for _ in range(6)]]
    for job in jobs:
        house.pool.submit(job)
    house.until(lambda: jobs[0].has_begun)
    house.pool.restart()
    house.until(lambda: all(job.has_ended for job in jobs) and not house.pids & before)

    assert [job.answer for job in jobs] == ["", *["on"] * 6]
    assert len(house.pids) == 2


def test_a_child_retires_after_its_number_of_tasks_and_nothing_is_lost(prefork):
    house = prefork(2, maxtasksperchild=3).ready()
    jobs = [Job("pid") for _ in range(20)]
    house.run(*jobs)
    pids = [job.answer for job in jobs]

    assert max(pids.count(pid) for pid in pids) == 3
    assert all(job.told[-1][0] == "finished" for job in jobs)


def test_short_jobs_are_counted_when_a_child_is_recycled(forks):
    house = forks(2, maxtasksperchild=7).ready()
    jobs = [Job("plain") for _ in range(100)]
    house.run(*jobs)

    assert all(job.told == [("started",), ("finished", b"")] for job in jobs)
    assert len({job.pid for job in jobs}) >= 100 / 7


def test_a_child_that_grew_too_big_retires_with_its_answer(forks):
    house = forks(1, max_memory_per_child=200_000).ready()
    (before,) = house.pids
    small, big, after = Job("pid"), Job("allocate 300"), Job("pid")
    house.run(small, big, after)

    assert small.answer == str(before)
    assert big.told == [("started",), ("finished", b"")]
    assert after.answer != str(before)


# -- prefork: the beginning and the end


def test_a_pool_whose_children_cannot_start_says_so_and_does_not_spin(build):
    house = build("fork", 2, initializer=pool_runner.break_setup)

    assert not house.pool.did_start_ok()
    names = house.pool._pool._names
    house.turn(0.5)
    assert next(names) <= 2 + 2 * 3 + 1  # pauses of 0.1, 0.2, 0.4 s


def test_did_start_ok_is_true_of_a_sound_pool(prefork):
    assert prefork(2).pool.did_start_ok()


def test_a_child_that_does_not_get_ready_is_replaced(build):
    house = build("fork", 1, initializer=time.sleep, initargs=(30,), proc_alive_timeout=0.2)
    before = house.pids
    house.until(lambda: house.pids and not house.pids & before)


def test_jobs_submitted_before_the_children_are_ready_run(prefork):
    house = prefork(2)
    house.run(*[Job() for _ in range(10)])


def test_terminate_ends_all_at_once(prefork):
    house = prefork(1).ready()
    running, waiting = Job("sleep 30"), Job()
    for job in (running, waiting):
        house.pool.submit(job)
    house.until(lambda: running.has_begun)
    pid, began = running.pid, time.monotonic()
    house.close()

    assert isinstance(running.told[-1][1], Terminated)
    assert waiting.told == [("dropped",)]
    assert not is_alive(pid)
    assert time.monotonic() - began < 2


def test_children_die_with_their_parent():
    """Busy or idle, whatever way the parent dies."""
    program = (
        "import sys, os, signal; sys.path.insert(0, sys.argv[1])\n"
        "from test_pool_contract import House, Job\n"
        "house = House('fork', 2).ready(); job = Job('sleep 60'); house.pool.submit(job)\n"
        "house.until(lambda: job.has_begun)\n"
        "print(*house.pids, flush=True); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, os.path.dirname(__file__)], capture_output=True, text=True)
    pids = [int(pid) for pid in done.stdout.split()]
    deadline = time.monotonic() + 3
    while any(map(is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.01)

    assert len(pids) == 2, done.stderr
    assert not any(map(is_alive, pids))


def test_a_child_holds_no_descriptor_of_its_siblings_or_the_hub(forks):
    house = forks(3).ready()
    before = house.pids
    house.pool.restart()  # these are forked while the hub has the pool's descriptors
    house.until(lambda: len(house.pids) == 3 and not house.pids & before)
    house.ready()
    sockets = {os.readlink(f"/proc/self/fd/{child.channel.fileno()}") for child in house.pool._pool.children.values()}
    for pid in house.pids:
        links = set()
        for fd in os.listdir(f"/proc/{pid}/fd"):
            try:
                links.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
            except FileNotFoundError:
                pass
        assert not links & sockets
        assert not any("pidfd" in link or "eventpoll" in link for link in links)


def test_calls_have_handles(prefork):
    house = prefork(1).ready()
    good, bad, endless = (
        house.pool.apply_async(pool_runner.add, (2, 3)),
        house.pool.apply_async(pool_runner.fail),
        house.pool.apply_async(time.sleep, (30,), timeout=0.3),
    )

    assert good.get(10) == 5
    assert good.successful()
    with pytest.raises(KeyError):
        bad.get(10)
    with pytest.raises(TimeLimitExceeded):
        endless.get(10)

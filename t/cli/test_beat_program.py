"""The program ``celery beat`` and a worker's ``-B``: output, signals, files, and what a second one does."""

from __future__ import annotations

import os
import re
import signal

import pytest

REDIS = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379") + "/12"

UNUSABLE = 78

#: One entry a tenth of a second; the project's broker is a file.
SCHEDULE = """
from celery import signals
from proj import app

app.conf.beat_schedule = {"often": {"task": "proj.add", "schedule": 0.1, "args": (1,)}}


@signals.beat_init.connect
def started(sender, **kwargs):
    print(f"service {type(sender).__name__}")


@signals.beat_embedded_init.connect
def embedded(sender, **kwargs):
    print(f"embedded {type(sender).__name__}")
"""

DUE = r"Scheduler: Sending due task often \(proj\.add\)"


@pytest.fixture
def beating(project):
    project.write("beating.py", SCHEDULE)
    return project


def start(project, *options, until=DUE):
    return project.start("-A", "beating", "beat", "-l", "INFO", *options, until=until)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_it_tells_what_it_is_and_does_and_ends_when_asked(beating, name):
    program = start(beating)
    program.send(name)

    assert program.end() == 0
    for line in (
        r"celery beat v\S+ \(\w+\) is starting\.\n__    -    \.\.\. __   -        _\nLocalTime -> \d{4}-",
        r"    \. broker -> sqlite:///broker\.db\n    \. loader -> celery\.loaders\.app\.AppLoader\n",
        r"    \. scheduler -> celery\.beat\.PersistentScheduler\n    \. db -> celerybeat-schedule\n",
        r"    \. logfile -> \[stderr\]@%INFO\n    \. maxinterval -> 5\.00 minutes \(300s\)\n",
        r"INFO/MainProcess\] beat: Starting\.\.\.",
        r"WARNING/MainProcess\] service Service",
    ):
        assert re.search(line, program.output), line
    assert "Traceback" not in program.output
    assert (beating.path / "celerybeat-schedule").read_text().startswith("celeriac-beat 1")


def test_quiet_is_quiet(beating):
    program = beating.start("-A", "beating", "-q", "beat", "-l", "INFO", until=DUE)
    program.send("SIGTERM")
    program.end()
    assert "is starting" not in program.output
    assert "broker ->" not in program.output


def test_a_second_one_stands_by_and_goes_on_where_the_first_was_killed(beating):
    first = start(beating)
    second = start(beating, until="standing by until it ends")
    assert "Sending due task" not in second.output
    first.send("SIGKILL")
    first.end()
    second.wait_for(DUE)
    assert second.output.index("is free, taking over") < second.output.index("Sending due task")


def test_a_living_process_holds_its_pidfile(beating):
    program = start(beating, "--pidfile", "b.pid", "-s", "one")
    assert (beating.path / "b.pid").read_text() == f"{program.process.pid}\n"
    ran = beating.celery("-A", "beating", "beat", "--pidfile", "b.pid", "-s", "two")
    assert ran.status == 73
    assert "already" in ran.stderr
    program.send("SIGTERM")
    program.end()
    assert not (beating.path / "b.pid").exists()


def test_a_daemon_beats_in_the_background(beating, wait_until):
    ran = beating.celery(
        "-A", "beating", "beat", "--detach", "--pidfile", "b.pid", "-f", "beat.log", "-l", "INFO", "-s", "daemon"
    )
    assert ran.status == 0, ran.stderr
    log = beating.path / "beat.log"
    wait_until(lambda: log.exists() and re.search(DUE, log.read_text()), "the log of the daemon")
    pid = int((beating.path / "b.pid").read_text())
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not (beating.path / "b.pid").exists(), "the end of the daemon")


@pytest.mark.parametrize(
    ("options", "status", "line"),
    [
        (("-S", "nosuch:X"), UNUSABLE, r"Error: There is no scheduler nosuch:X .*No module named 'nosuch'"),
        (("-s", "no/such/dir"), UNUSABLE, r"Error: Cannot write the schedule file no/such/dir: no such directory\."),
        (("--pidfile", "no/b.pid"), UNUSABLE, r"Error: Cannot write the pidfile \S*no/b\.pid: no such directory\."),
        (("--logfile", "no/b.log"), UNUSABLE, r"Error: Cannot write the log file no/b\.log: no such directory\."),
        (("--max-interval", "0"), 2, r"Error: Invalid value: --max-interval must be at least 1"),
        (("--uid", "nobody-like-that"), UNUSABLE, r"Error: "),
    ],
)
def test_what_cannot_be_used_is_told_in_a_line(beating, options, status, line):
    ran = beating.celery("-A", "beating", "beat", *options)
    assert ran.status == status
    assert re.match(line, ran.first_line), ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_a_worker_has_beat_inside(beating, wait_until, pool):
    program = beating.start(
        *("-A", "beating", "worker", "-B", "-s", "inside", "-P", pool, "-c", "1", "-l", "INFO", "--without-mingle"),
        until=r"Task proj\.add\[.*\] succeeded",
    )
    for line in (r"INFO/Beat\] beat: Starting\.\.\.", r"/Beat\] service Service", r"/Beat\] embedded Service", DUE):
        assert re.search(line, program.output), line
    program.send("SIGTERM")
    assert program.end() == 0
    assert "beat: Shutting down..." in program.output
    assert (beating.path / "inside").exists()


def test_beat_ends_with_the_worker_that_is_killed(beating, wait_until):
    program = beating.start("-A", "beating", "worker", "-B", "-P", "solo", "-l", "INFO", until=DUE)
    program.send("SIGKILL")
    program.end()
    second = start(beating, until=DUE)  # the file is free
    second.send("SIGTERM")
    assert second.end() == 0


def test_pings_are_answered_while_it_ticks(beating):
    redis = pytest.importorskip("redis")
    try:
        redis.Redis.from_url(REDIS).flushdb()
    except redis.ConnectionError:
        pytest.fail("no Redis") if os.environ.get("CI") else pytest.skip("no Redis")
    beating.write("free.py", f"from beating import app\napp.conf.update(broker_url={REDIS!r}, beat_schedule={{}})\n")
    beating.write("stuck.py", "from free import app\napp.conf.beat_remote_control_max_tick_age = 0\n")
    options = ("beat", "-l", "INFO", "--enable-remote-control", "-n", "b@here")
    program = beating.start("-A", "free", *options, until="beat pidbox: Connected to redis://")
    assert ". remote control -> b@here" in program.output
    ran = beating.celery("-A", "free", "inspect", "ping", "-t", "2", "-d", "b@here")
    assert "b@here: OK" in ran.stdout
    assert beating.celery("-A", "free", "inspect", "active", "-t", "0.5").status == 69
    program.send("SIGTERM")
    assert program.end() == 0

    program = beating.start("-A", "stuck", *options, until="beat pidbox: Connected to redis://")
    assert beating.celery("-A", "free", "inspect", "ping", "-t", "0.5").status == 69
    program.wait_for("not answering ping, the scheduler has not ticked for")

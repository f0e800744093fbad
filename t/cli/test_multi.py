"""``celery multi`` with workers that run."""

from __future__ import annotations

import os
import re
import signal

import pytest

FILES = ("-A", "proj", "-c", "1", "--pidfile=run/%n.pid", "--logfile=log/%n%I.log", "-l", "INFO", "--without-mingle")


def pid_of(project, name):
    return int((project.path / "run" / f"{name}.pid").read_text())


@pytest.fixture
def nodes(project):
    """Runs ``multi`` commands; whatever is left of the nodes is killed at the end."""
    yield lambda command, *words: project.celery("multi", command, *words, *FILES)
    for file in (project.path / "run").glob("*.pid"):
        os.kill(int(file.read_text()), signal.SIGKILL)


def test_nodes_are_started_told_apart_restarted_and_stopped(project, nodes, wait_until):
    started = nodes("start", "a", "b@elsewhere", "-l:a", "DEBUG")
    assert started.status == 0, started.stderr
    assert re.search(r"> Starting nodes\.\.\.\n\t> a@\S+: OK\n\t> b@elsewhere: OK\n", started.stdout)
    log = project.path / "log" / "a.log"
    wait_until(lambda: log.exists() and " ready." in log.read_text())
    wait_until(lambda: "b@elsewhere ready." in (project.path / "log" / "b.log").read_text())
    assert "DEBUG/" in log.read_text()
    assert "DEBUG/" not in (project.path / "log" / "b.log").read_text()

    twice = nodes("start", "a")
    assert (twice.status, "FAILED" in twice.stdout, "Seems we're already running?" in twice.stderr) == (73, True, True)

    before = pid_of(project, "a")
    restarted = nodes("restart", "a")
    assert restarted.status == 0, restarted.stderr
    assert "> Restarting node a@" in restarted.stdout
    wait_until(lambda: log.read_text().count(" ready.") == 2)
    assert pid_of(project, "a") != before

    stopped = nodes("stopwait", "a", "b@elsewhere", "c")
    assert stopped.status == 0
    assert re.search(r"> c@\S+: DOWN\n", stopped.stdout)
    assert "b@elsewhere: TERM -> " in stopped.stdout
    assert not list((project.path / "run").glob("*.pid"))


def test_kill_and_other_signals_reach_the_node(project, nodes, wait_until):
    assert nodes("start", "a").status == 0
    log = project.path / "log" / "a.log"
    wait_until(lambda: log.exists() and " ready." in log.read_text())
    pid = pid_of(project, "a")

    assert f"INT -> {pid}" in nodes("stopwait", "a", "-INT").stdout
    assert nodes("start", "a", "--quiet").stdout == ""
    killed = nodes("kill", "a")
    assert re.search(r"Sending KILL to node a@\S+ \(\d+\)", killed.stdout)
    wait_until(lambda: "DOWN" in nodes("stop", "a").stdout)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["bogus"], 64, "Invalid command: bogus"),
        ([], 64, ""),
        (["show", "a", "-c:2", "3"], 64, "There is no node '2'; there are a."),
        (["show", "a", "-c:b", "3"], 0, "CeleryWarning: No node 'b' among a: what is for it alone has no effect."),
        (["get", "b", "a"], 1, ""),
        (["get"], 64, "`get` wants the name of a node"),
        (["expand"], 64, "`expand` wants a template"),
        (["start", "a", "--executable=/bin/false", "--pidfile=run/a.pid", "--logfile=a.log"], 1, ""),
        (["start", "a", "--executable=nosuch", "--pidfile=run/a.pid", "--logfile=a.log"], 127, "nosuch: "),
    ],
)
def test_what_is_wrong_is_told_and_shows_in_the_status(project, words, status, said):
    ran = project.celery("multi", *words)

    assert ran.status == status
    assert ran.first_line.startswith(said)
    assert "Traceback" not in ran.stderr


def test_the_command_lines_are_shown_with_the_options_before_multi(project):
    assert project.celery("multi", "names", "2", "-n", "h").stdout == "celery1@h\ncelery2@h\n"
    assert project.celery("multi", "expand", "%n.pid", "2").stdout == "celery1.pid\ncelery2.pid\n"
    shown = project.celery("-A", "proj", "multi", "show", "a@h", "-E", "b@h", "-Q:b@h", "x y", "--", "a.b=1").stdout

    assert re.match(
        r"\S+ -m celery --app=proj worker --detach -E -n a@h --pidfile=/var/run/celery/a\.pid "
        r"--logfile=/var/log/celery/a%I\.log --executable=\S+ -- a\.b=1\n"
        r"\S+ -m celery --app=proj worker --detach -E -Q 'x y' -n b@h ",
        shown,
    )
    assert project.celery("multi", "get", "a", "a@h").stdout.startswith("-m celery worker --detach -n a@h")
    assert "stopwait 3" in project.celery("multi", "help").stdout

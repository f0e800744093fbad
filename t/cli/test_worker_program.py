"""The program ``celery worker``: signals, exit statuses, daemons, files and options."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

#: Seconds for which a result is waited for.
PATIENCE = 30

QUICK = ("worker", "--without-mingle", "--without-gossip", "-l", "INFO")


def start(project, *options, app="proj", **kwargs):
    return project.start("-A", app, *QUICK, *options, **kwargs)


@pytest.fixture
def busy(project, wait_until):
    """A worker in the midst of a task; ``busy(seconds, *options)``."""

    def busy(seconds, *options, **kwargs):
        program = start(project, "-c", "1", *options, **kwargs)
        mark = project.path / "begun"
        project.celery("-A", "proj", "call", "proj.sleepy", "-a", json.dumps([seconds, str(mark)]))
        wait_until(mark.exists)
        return program

    return busy


# -- signals


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 0), ("SIGINT", 1)])
def test_a_signal_ends_the_worker_when_its_task_is_done(busy, name, status):
    program = busy(0.5)
    program.send(name)

    assert program.end() == status
    assert "worker: Warm shutdown (MainProcess)" in program.output
    assert re.search(r"Task proj\.sleepy\[.*\] succeeded in", program.output)
    assert ("worker: Hitting Ctrl+C again will initiate cold shutdown" in program.output) == (name == "SIGINT")


def test_a_second_interrupt_cuts_what_runs(busy):
    program = busy(60)
    program.send("SIGINT")
    program.wait_for("Warm shutdown")
    program.send("SIGINT")

    assert program.end() == 1
    assert "worker: Cold shutdown (MainProcess)" in program.output
    assert "succeeded" not in program.output


@pytest.mark.parametrize(("name", "env"), [("SIGQUIT", {}), ("SIGTERM", {"REMAP_SIGTERM": "SIGQUIT"})])
def test_quit_cuts_what_runs(busy, name, env):
    program = busy(60, env=env)
    program.send(name)

    assert program.end() == 1
    assert "worker: Cold shutdown (MainProcess)" in program.output


SOFT = ("--", "worker.soft_shutdown_timeout=60", "worker.prefetch_multiplier=2")


@pytest.mark.parametrize("names", [("SIGQUIT",), ("SIGINT", "SIGINT")])
def test_a_soft_shutdown_lets_running_tasks_end_and_gives_back_the_others(project, busy, names):
    program = busy(2, *SOFT)
    second = project.celery("-A", "proj", "call", "proj.sleepy", "-a", "[0.01]").stdout.strip()
    program.wait_for(rf"{second}\] received")
    for name in names:
        program.send(name)
        program.wait_for({"SIGINT": "(Warm|Cold) shutdown", "SIGQUIT": "Cold shutdown"}[name])

    assert program.end() == 1
    assert "Initiating Soft Shutdown, terminating in 60.0 seconds" in program.output
    assert re.search(r"Task proj\.sleepy\[.*\] succeeded in", program.output)
    assert f"{second}] succeeded" not in program.output
    assert "Purged 1 message" in project.celery("-A", "proj", "purge", "-f").stdout


def test_one_more_signal_cuts_a_soft_shutdown_short(project, busy):
    program = busy(600, *SOFT)
    program.send("SIGQUIT")
    program.wait_for("Initiating Soft Shutdown")
    program.send("SIGQUIT")

    assert program.end() == 1
    assert "Waiting no longer for running tasks" in program.output
    assert "succeeded" not in program.output


def test_hup_starts_the_worker_anew_in_the_same_process(project):
    program = start(project, "-P", "solo")
    program.send("SIGHUP")
    program.wait_for(r"(?s) ready\..* ready\.")
    assert "Restarting celery worker (" in program.output

    program.send("SIGTERM")
    assert program.end() == 0


def test_usr1_shows_where_every_thread_is(project):
    program = start(project, "-P", "solo")
    program.send("SIGUSR1")
    program.wait_for("MainThread")
    program.wait_for(r"File .*, line \d+")

    program.send("SIGTERM")
    assert program.end() == 0


# -- daemons and files


def test_a_daemon_keeps_pidfile_and_log_and_leaves_its_terminal(project, wait_until):
    options = ("--pidfile", "%n.pid", "--logfile", "%n-%i%I.log", "-n", "w1@here", "-c", "1")
    ran = project.celery("--workdir", ".", "-A", "proj", *QUICK, "--detach", *options)
    assert (ran.status, ran.stdout) == (0, "")
    pidfile, log = project.path / "w1.pid", project.path / "w1-0.log"
    wait_until(lambda: log.exists() and "w1@here ready." in log.read_text(), "a daemon that is ready")
    pid = int(pidfile.read_text())
    try:
        assert os.getsid(pid) != os.getsid(0)
        assert stat.S_IMODE(log.stat().st_mode) == 0o600
        again = project.celery("-A", "proj", *QUICK, "--detach", *options)
        assert again.status == 73
        assert f"already running? (pid: {pid})" in again.stderr
    finally:
        os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not pidfile.exists(), "the end of the daemon")


def test_a_daemon_takes_the_umask_that_it_is_given(project, wait_until):
    project.celery("-A", "proj", *QUICK, "-P", "solo", "-D", "--umask", "022", "--pidfile", "d.pid", "-f", "d.log")
    log = project.path / "d.log"
    wait_until(lambda: log.exists() and " ready." in log.read_text(), "a daemon that is ready")

    assert stat.S_IMODE(log.stat().st_mode) == 0o644
    os.kill(int((project.path / "d.pid").read_text()), signal.SIGTERM)
    wait_until(lambda: not (project.path / "d.pid").exists(), "the end of the daemon")


def test_a_stale_pidfile_is_replaced_and_removed_at_the_end(project):
    file = project.write("w.pid", "99999999\n")
    program = start(project, "-P", "solo", "--pidfile", "w.pid")
    assert file.read_text() == f"{program.process.pid}\n"

    program.send("SIGTERM")
    assert program.end() == 0
    assert not file.exists()
    assert "Stale pidfile exists - Removing it." in program.output


def test_a_pidfile_of_a_living_process_is_left_alone(project):
    file = project.write("w.pid", f"{os.getpid()}\n")
    ran = project.celery("-A", "proj", *QUICK, "-P", "solo", "--pidfile", "w.pid")

    assert ran.status == 73
    assert f"ERROR: Pidfile ({file}) already exists.\nSeems we're already running? (pid: {os.getpid()})" in ran.stderr
    assert file.read_text() == f"{os.getpid()}\n"


def test_a_pidfile_is_never_written_through_a_link(project):
    target = project.write("precious", "99999999\n")
    (project.path / "w.pid").symlink_to(target)
    program = start(project, "-P", "solo", "--pidfile", "w.pid")
    program.send("SIGTERM")

    assert program.end() == 0
    assert target.read_text() == "99999999\n"


# -- options


def test_queues_are_chosen_and_left_out(project):
    program = start(project, "-P", "solo", "-Q", "one,two,three", "-X", "two")
    program.send("SIGTERM")
    program.end()

    assert re.findall(r"\.> (\w+) +exchange=", program.output) == ["one", "three"]


def test_purge_deletes_what_waits(project):
    for _ in range(3):
        project.celery("-A", "proj", "call", "proj.add", "-a", "[1]")
    program = start(project, "-P", "solo", "--purge")
    program.send("SIGTERM")
    program.end()

    assert "purge: Erased 3 messages from the queue." in program.output
    assert "received" not in program.output


def test_included_modules_bring_their_tasks(project):
    project.write("more.py", "from proj import app\n\n@app.task\ndef extra(): pass\n")
    program = start(project, "-P", "solo", "-I", "more")
    program.send("SIGTERM")
    program.end()

    assert "  . more.extra\n" in program.output


def test_quiet_means_no_banner(project):
    program = project.start("-q", "-A", "proj", *QUICK, "-P", "solo")
    program.send("SIGTERM")
    program.end()

    assert "[config]" not in program.output
    assert "proj.add" not in program.output


def test_the_banner_tells_what_runs_without_colours_in_a_file(project):
    program = start(project, "-n", "w1@%h", "--autoscale", "3,1", "-E", app="proj:app")
    program.send("SIGTERM")
    assert program.end() == 0

    banner = program.output.partition("[tasks]")[0]
    for line in (
        r" w1@\S+ v5\.7\.0\+celeriac\.\d",
        r"\.> app:         proj:0x\w+",
        r"\.> transport:   sqlite:///broker\.db",
        r"\.> results:     file:///.*results",
        r"\.> concurrency: \{min=1, max=3\} \(prefork\)",
        r"\.> task events: ON",
        r"\.> celery +exchange=celery\(direct\) key=celery",
    ):
        assert re.search(line, banner), line
    assert "\x1b[" not in program.output
    assert all(line == line.rstrip() for line in banner.splitlines()[1:])


def test_settings_after_two_dashes_are_settings(project):
    options = ("-P", "threads", "-n", "w1@here", "--", "worker.prefetch_multiplier=7", "task.serializer=json")
    program = start(project, *options)
    replies = project.celery("-A", "proj", "inspect", "conf", "--json", "-t", "30", "-d", "w1@here").stdout
    program.send("SIGTERM")
    program.end()

    (conf,) = json.loads(replies).values()
    assert conf["worker_prefetch_multiplier"] == 7


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 0), ("SIGINT", 1), ("SIGQUIT", 1)])
def test_a_worker_whose_output_nobody_reads_any_more_is_stopped_all_the_same(project, name, status):
    process = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "proj", "worker", "-P", "solo", "-l", "INFO"],
        cwd=project.path,
        env=project.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    project.running.append(process)
    assert process.stdout
    while not process.stdout.readline().endswith(" ready.\n"):
        assert process.poll() is None
    process.stdout.close()
    process.send_signal(getattr(signal, name))

    assert process.wait(PATIENCE) == status


def test_a_running_task_is_terminated_by_a_signal_and_its_id(project, wait_until):
    mark = project.path / "runs"
    program = start(project, "-c", "1", "-n", "w1@here")
    task_id = project.celery("-A", "proj", "call", "proj.sleepy", "-a", json.dumps([60, str(mark)])).stdout.strip()
    wait_until(mark.exists)
    ended = project.celery("-A", "proj", "control", "terminate", "KILL", task_id, "-t", "30", "-d", "w1@here")
    wait_until(lambda: "exited with 'signal 9 (SIGKILL)'" in program.output)
    program.send("SIGTERM")

    assert ended.stdout == f"->  w1@here: OK\n        terminate: {task_id}\n"
    assert (ended.status, program.end()) == (0, 0)


def test_revoked_tasks_are_remembered_in_the_state_file(project):
    options = ("-P", "solo", "-S", "%n.state", "-n", "w1@here")
    program = start(project, *options)
    revoking = project.celery("-A", "proj", "control", "revoke", "revoked", "-t", "30", "-d", "w1@here")
    program.send("SIGTERM")
    assert (revoking.status, program.end()) == (0, 0)
    assert [file.name for file in project.path.glob("w1.state*")]

    code = f"""
from proj import add
add.apply_async((1,), task_id="revoked")
assert add.apply_async((1,), task_id="other").get(timeout={PATIENCE}) == 2
print(add.AsyncResult("revoked").state)
"""
    again = start(project, *options)
    state = project.python(code)
    again.send("SIGTERM")
    assert again.end() == 0
    assert state.stdout == "REVOKED\n", state.stderr
    assert "Discarding revoked task: proj.add[revoked]" in again.output


# -- logs


def test_each_process_has_a_log_of_its_own_where_its_name_has_its_number(project, wait_until):
    program = start(project, "-c", "2", "-n", "w1@there.example", "-f", "%n-%h-%d%I.log", until="")
    log = project.path / "w1-there.example-example.log"
    wait_until(lambda: log.exists() and "w1@there.example ready." in log.read_text(), "a worker that is ready")
    for _ in range(2):
        project.python(f"from proj import sleepy; sleepy.delay(0.2).get(timeout={PATIENCE})")
    program.send("SIGTERM")
    assert program.end() == 0

    children = sorted(project.path.glob("w1-there.example-example-*.log"))
    assert {path.name for path in children} <= {f"w1-there.example-example-{number}.log" for number in (1, 2)}
    assert "".join(path.read_text() for path in children).count("proj.sleepy") == 2
    assert "succeeded" not in log.read_text()


LOUD = """
import sys

from proj import app


@app.task
def shout():
    print("to stdout")
    print("to stderr", file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("settings", "lines"),
    [
        ([], r"^\[.*: WARNING/ForkPoolWorker-1\] to std(out|err)$"),
        (["worker.redirect_stdouts_level=ERROR"], r"^\[.*: ERROR/ForkPoolWorker-1\] to std(out|err)$"),
        (["worker.redirect_stdouts=0"], r"^to std(out|err)$"),
    ],
    ids=["as a warning", "as an error", "as it is"],
)
def test_what_tasks_print_is_logged(project, settings, lines):
    project.write("loud.py", LOUD)
    program = start(project, "-c", "1", *(["--", *settings] if settings else []), app="loud")
    project.python(f"from loud import shout; shout.delay().get(timeout={PATIENCE})")
    program.send("SIGTERM")
    assert program.end() == 0

    assert re.findall(lines, program.output, re.MULTILINE) == ["out", "err"]


def test_colours_are_for_terminals(project):
    def shown(*before):
        """Return what a worker prints on a terminal, with options before the command."""
        ours, theirs = pty.openpty()
        environ = {**project.environ, "TERM": "xterm"}
        command = [sys.executable, "-m", "celery", *before, "-A", "proj", *QUICK, "-P", "solo", "-l", "DEBUG"]
        text = b""
        with subprocess.Popen(command, cwd=project.path, env=environ, stdout=theirs, stderr=theirs) as process:
            os.close(theirs)
            while b" ready." not in text:
                text += os.read(ours, 65536)
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(OSError):  # the terminal is closed
                while data := os.read(ours, 65536):
                    text += data
        os.close(ours)
        assert process.returncode == 0
        return text.decode()

    blue, cyan = "\x1b[1;34m", "\x1b[1;36m"
    coloured = shown()
    assert f"{blue}[20" in coloured
    assert cyan in coloured
    assert "\x1b[" not in shown("--no-color")


def test_options_that_do_nothing_here_say_so(project):
    program = start(project, "-P", "solo", "--executable", "/bin/false", "--scheduler", "x.Y")
    program.send("SIGTERM")
    program.end()

    assert "Warning: --executable has an effect together with --detach only." in program.output
    assert "Warning: --scheduler has an effect together with --beat only." in program.output


@pytest.mark.skipif(os.geteuid() != 0, reason="only the superuser becomes somebody else")
def test_a_worker_becomes_another_user(project, wait_until):
    os.chmod(project.path, 0o777)
    for parent in project.path.parents[:3]:
        if parent.owner() == "root" and str(parent) not in ("/", "/tmp"):
            os.chmod(parent, 0o755)
    probe = project.python("import os, sys; os.setuid(65534); os.execv(sys.executable, [sys.executable, '-c', ''])")
    if probe.status:
        pytest.skip("this interpreter is not for everybody")
    os.chmod(project.path / "results", 0o777)
    pidfile = project.path / "private" / "w.pid"  # where only the superuser writes
    pidfile.parent.mkdir(mode=0o755)
    files = ("--pidfile", str(pidfile), "-f", "w.log")
    project.celery("-A", "proj", *QUICK, "-P", "solo", "--uid", "nobody", "-D", *files, env={"HOME": "/"})
    log = project.path / "w.log"
    wait_until(lambda: log.exists() and " ready." in log.read_text(), "a daemon that is ready")
    detached = int(pidfile.read_text())
    status = Path(f"/proc/{detached}/status").read_text()
    assert pidfile.owner() == "root"
    os.kill(detached, signal.SIGTERM)
    assert re.findall(r"[UG]id:\s+(\d+)", status) == ["65534", "65534"]

    program = start(project, "-P", "solo", "--uid", "nobody", "--pidfile", str(pidfile), env={"HOME": "/"})
    assert pidfile.read_text() == f"{program.process.pid}\n"
    status = Path(f"/proc/{program.process.pid}/status").read_text()
    program.send("SIGTERM")

    assert program.end() == 0
    (uids,) = re.findall(r"Uid:\s+(.*)", status)
    assert "0" not in uids.split()

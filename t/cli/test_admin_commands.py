"""Commands that look at brokers, workers and files by hand."""

from __future__ import annotations

import subprocess
import sys

import pytest

QUICK = ("worker", "-P", "solo", "-n", "w1@here", "-l", "INFO", "--without-mingle", "--without-gossip")


@pytest.fixture(scope="module")
def project(shared_project):
    return shared_project


def piped(project, text, *words):
    """Run the program with ``text`` on its standard input."""
    return subprocess.run(
        [sys.executable, "-m", "celery", *words],
        cwd=project.path, env=project.environ, input=text, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


# -- amqp


def test_queues_and_messages_are_handled_one_by_one(project):
    def amqp(*words):
        ran = project.celery("-A", "proj", "-b", "sqlite:///admin.db", "amqp", *words)
        assert ran.stderr == "-> connecting to sqlite:///admin.db.\n-> connected.\n"
        assert ran.status == 0
        return ran.stdout

    assert amqp("queue.declare", "q") == "queue:q messages:0 consumers:0\nOK\n"
    assert amqp("basic.publish", "hello", "", "q") == "OK\n"
    got = amqp("basic.get", "q")
    assert "'body': 'hello'" in got
    assert "'routing_key': 'q'" in got
    assert amqp("queue.declare", "q") == "queue:q messages:1 consumers:0\nOK\n"  # it went back
    assert "hello" in amqp("basic.get", "q", "true")
    assert amqp("basic.get", "q") == "No messages in queue. basic.publish something.\nOK\n"
    amqp("basic.publish", "again", "", "q")
    assert amqp("queue.purge", "q") == "1 messages deleted.\nOK\n"
    assert amqp("queue.delete", "q") == "0 messages deleted.\nOK\n"


def test_at_the_prompt_commands_share_a_channel_and_errors_do_not_end_it(project):
    commands = """\
exchange.declare ex direct
queue.declare p
queue.bind p ex k
basic.publish hello ex k
basic.get p
queue.bind p nosuch k
nosuch
queue.purge p
exchange.delete ex
queue.delete p
"""
    done = piped(project, commands, "-A", "proj", "-b", "memory://", "amqp")

    assert done.returncode == 0
    assert "'body': 'hello'" in done.stdout
    assert "ERROR: 'nosuch'" in done.stderr
    assert "No such command 'nosuch'" in done.stderr
    assert done.stdout.count("messages deleted.\n") == 2


def test_what_the_broker_refuses_shows_in_the_status(project):
    assert project.celery("-A", "proj", "amqp", "queue.purge").status == 2

    ran = project.celery("-A", "proj", "-b", "memory://", "amqp", "queue.bind", "q", "nosuch", "k")
    assert (ran.status, "No exchange 'nosuch' is known here" in ran.stderr) == (1, True)

    ran = project.celery("-A", "proj", "-b", "redis://127.0.0.1:1", "amqp", "queue.purge", "q")
    assert ran.status == 69
    assert "Cannot reach" in ran.stderr
    assert "Traceback" not in ran.stderr


# -- shell


def test_the_shell_knows_the_app_its_tasks_and_workflows(project):
    code = "print(app is celery, Task.__name__, add.name, chain(add.s(1), add.s(2))().__class__.__name__)\n"
    done = piped(project, code, "-A", "proj", "shell", "--python")
    assert "True Task proj.add AsyncResult" in done.stdout

    done = piped(project, "print('add' in globals(), app.main)\n", "-A", "proj", "shell", "--python", "-T")
    assert "False proj" in done.stdout


def test_a_shell_that_is_not_installed_is_named(project):
    ran = project.celery("-A", "proj", "shell", "--bpython")
    assert (ran.status, "pip install bpython" in ran.stderr) == (2, True)
    assert project.celery("-A", "proj", "shell", "--bpython", "--python").status == 2


def test_the_shell_chosen_is_the_one_installed(project):
    project.write("IPython.py", "def start_ipython(argv, user_ns):\n    print('ipython', argv, 'add' in user_ns)\n")
    code = "import sys; sys.argv = ['celery', '-A', 'proj', 'shell']; import celery.__main__ as m; m.main()"
    try:
        assert project.python(code).stdout == "ipython [] True\n"
        assert piped(project, "", "-A", "proj", "shell", "--ipython").stdout == "ipython [] True\n"
    finally:
        (project.path / "IPython.py").unlink()


# -- graph and log


def test_steps_are_drawn_in_their_order(project):
    both = project.celery("-A", "proj", "graph", "bootsteps").stdout
    consumer = project.celery("-A", "proj", "graph", "bootsteps", "consumer").stdout

    assert both.startswith("digraph dependencies {")
    assert '"Pool" -> "Hub"' in both
    assert '"Heart" -> "Events"' in both
    assert '"Connection" -> "⧉Consumer"' in both
    assert '"Heart" -> "Events"' in consumer
    assert '"Pool"' not in consumer
    assert project.celery("-A", "proj", "graph", "bootsteps", "nosuch").status == 2


def test_workers_are_drawn_and_many_are_one(project):
    drawn = project.celery("-A", "proj", "graph", "workers", "nodes:a,b,c,d,e,f", "threads:6,1").stdout

    assert '"a" -> "sqlite:///broker.db"' in drawn
    assert '"W⎨…₃⎬" -> "sqlite:///broker.db"' in drawn
    assert '"c"' not in drawn
    assert 'label="P⎨…₄⎬"' in drawn
    assert drawn.count('"thr-') == 2 * (3 + 1)
    assert project.celery("-A", "proj", "graph", "workers", "nodes:a", "threads:1,2").status == 2


def test_a_log_of_ours_is_read_and_living_workers_are_drawn(project):
    program = project.start("-A", "proj", *QUICK, "--purge")
    try:
        drawn = project.celery("-A", "proj", "graph", "workers").stdout
        ids = [project.celery("-A", "proj", "call", name).stdout.strip() for name in ("proj.boom", "proj.add")]
        program.wait_for("proj.boom.*raised unexpected")
        program.wait_for(rf"proj.add\[{ids[1]}\] raised unexpected")  # add wants an argument
    finally:
        program.send("SIGTERM")
        program.end()

    assert '"w1@here" -> "sqlite:///broker.db"' in drawn
    stats = project.celery("logtool", "stats", program.log.name).stdout
    assert "Task total: 2\nTask errors: 2\nTask success: 0\nTask completed: 2\n" in stats
    assert f"proj.boom[{ids[0]}]" in project.celery("logtool", "errors", program.log.name).stdout
    traces = project.celery("logtool", "traces", program.log.name).stdout
    assert traces.count("Traceback (most recent call last):") == 2
    assert "KeyError: 'lost'\n" in traces
    assert project.celery("logtool", "incomplete", program.log.name).stdout == ""
    assert "w1@here ready." in project.celery("logtool", "debug", program.log.name).stdout
    assert project.celery("logtool", "stats", "nosuch.log").status == 1


# -- upgrade


def test_a_file_is_rewritten_and_kept_as_it_was(project):
    old = project.write("old.py", "CELERYD_CONCURRENCY = 4\r\nBROKER_URL = 'amqp://'\r\n")
    before = old.read_bytes()
    ran = project.celery("upgrade", "settings", "old.py")

    assert (ran.status, old.read_bytes()) == (0, b"worker_concurrency = 4\r\nbroker_url = 'amqp://'\r\n")
    assert (project.path / "old.py.orig").read_bytes() == before
    assert "Does not seem to require any changes" in project.celery("upgrade", "settings", "old.py").stderr

    old.write_bytes(before)
    (project.path / "old.py.orig").unlink()
    project.celery("upgrade", "settings", "--django", "--no-backup", "old.py")
    assert old.read_bytes() == b"CELERY_WORKER_CONCURRENCY = 4\r\nCELERY_BROKER_URL = 'amqp://'\r\n"
    assert not (project.path / "old.py.orig").exists()
    assert project.celery("upgrade", "settings", "nosuch.py").status == 78


# -- migrate


def test_tasks_go_from_broker_to_broker(project):
    call = ("-A", "proj", "-b", "sqlite:///source.db", "call")
    ids = [project.celery(*call, "proj.add", "-a", f"[{number}]").stdout.strip() for number in range(3)]
    project.celery(*call, "proj.sleepy", "-a", "[0]")
    brokers = ("sqlite:///source.db", "sqlite:///target.db")

    ran = project.celery("-A", "proj", "migrate", *brokers, "-t", "0.2", "-T", "proj.add")
    assert ran.status == 0, ran.stderr
    assert [line.split("proj.add")[1] for line in ran.stdout.splitlines()] == [f"[{id_}]" for id_ in ids]
    assert "in the source still" in ran.stderr

    def purge(broker):
        return project.celery("-A", "proj", "-b", broker, "purge", "-f").stdout

    assert "Purged 3 messages" in purge(brokers[1])
    project.celery("-A", "proj", "migrate", *brokers, "-t", "0.2", "-a", "-n", "3", "-Q", "celery:other")
    assert "Purged 1 message" in purge(brokers[0])
    assert "Purged 3 messages" in project.celery("-A", "proj", "-b", brokers[1], "purge", "-f", "-Q", "other").stdout


def test_a_broker_that_does_not_answer_is_named(project):
    ran = project.celery("-A", "proj", "migrate", "redis://127.0.0.1:1", "sqlite:///target.db")
    assert (ran.status, "Cannot reach redis at 127.0.0.1:1" in ran.stderr) == (69, True)

"""The other commands of the program ``celery``, and what extends it."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

#: Completions for shells.
EXTRA = Path(__file__).resolve().parents[2] / "extra" / "completion"

SECRET = "c4n4ry"


@pytest.fixture(scope="module")
def project(shared_project):
    return shared_project


@pytest.fixture(scope="module")
def worker(shared_project):
    program = shared_project.start("-A", "proj", "worker", "-c", "1", "-n", "w1@here", "-l", "INFO")
    yield program
    program.send("SIGTERM")
    assert program.end() == 0


def test_the_version_and_the_help_need_no_app(project):
    assert re.match(r"5\.7\.0\+celeriac\.\d+ \(celeriac\)\n$", project.celery("--version").stdout)
    for words in ([], ["--help"], ["worker", "--help"], ["events", "--help"]):
        ran = project.celery(*words)
        assert ran.status == 0
        assert ran.stdout.startswith("Usage: celery")
    assert "Daemonization Options:" in ran.stdout


def test_a_call_prints_the_id_and_the_result_is_printed(project, worker):
    ran = project.celery("-A", "proj", "call", "proj.add", "-a", "[1]", "-k", '{"y": 5}', "--expires", "60")
    assert ran.status == 0
    task_id = ran.stdout.strip()

    assert project.celery("-A", "proj", "result", task_id, "--timeout", "20").stdout == "6\n"
    assert project.celery("-A", "proj", "result", task_id, "-t", "proj.add", "--timeout", "20").stdout == "6\n"


def test_the_result_of_a_failure_is_its_error_and_its_traceback(project, worker):
    task_id = project.celery("-A", "proj", "call", "proj.boom").stdout.strip()
    ran = project.celery("-A", "proj", "result", task_id, "--timeout", "20")
    assert ran.status == 1
    assert ran.stderr == f"Error: Task {task_id} ended in FAILURE: KeyError: 'lost'\n"

    shown = project.celery("-A", "proj", "result", task_id, "--traceback").stdout
    assert shown.startswith("Traceback (most recent call last):\n")
    assert shown.rstrip().endswith("KeyError: 'lost'")


def test_a_call_goes_to_the_queue_that_is_named(project):
    project.celery("-A", "proj", "call", "proj.add", "-a", "[1]", "--queue", "elsewhere")
    assert (
        "Purged 1 message from 1 known task queue."
        in project.celery("-A", "proj", "purge", "-f", "-Q", "elsewhere").stdout
    )
    assert "No messages purged from 1 queue" in project.celery("-A", "proj", "purge", "-f", "-Q", "elsewhere").stdout


def test_purge_asks_first_and_does_nothing_without_an_answer(project):
    project.celery("-A", "proj", "call", "proj.add", "-a", "[1]", "--queue", "kept")
    ran = project.celery("-A", "proj", "purge", "-Q", "kept")

    assert ran.status == 1
    assert "`kept`" in ran.stdout
    assert "Purged 1 message" in project.celery("-A", "proj", "purge", "-f", "-Q", "kept").stdout


def test_purge_leaves_out_what_is_excluded(project):
    assert project.celery("-A", "proj", "purge", "-f", "-X", "celery").stdout == "There is no queue to purge.\n"


def test_bindings_are_listed(project, worker):
    lines = project.celery("-A", "proj", "-b", "memory://", "list", "bindings").stdout.splitlines()

    assert lines[0].split() == ["Queue", "Exchange", "Routing", "Key"]
    assert ["celery", "celery", "celery"] in [line.split() for line in lines]


def test_a_report_tells_of_the_system_and_no_secret(project):
    project.write(
        "secretive.py",
        f"""
from proj import app
app.conf.update(
    result_backend="redis://:{SECRET}@localhost/1",
    broker_transport_options={{"sentinel_kwargs": {{"password": "{SECRET}"}}, "polling_interval": 1}},
    my_api_key="{SECRET}", my_password="{SECRET}", security_key_password="{SECRET}", aws_secret="{SECRET}",
    broker_read_url="redis://u:{SECRET}@a;redis://u:{SECRET}@b", redis_password="{SECRET}",
)
""",
    )
    ran = project.celery("-A", "secretive", "-b", f"redis://:{SECRET}@localhost/0", "report")

    assert ran.status == 0
    for line in (
        "software -> celery:5.7.0+celeriac",
        "platform -> system:",
        "loader   -> celery.loaders",
        "polling_in",
    ):
        assert line in ran.stdout
    assert SECRET not in ran.stdout + ran.stderr


def test_commands_of_other_packages_are_commands(project):
    site = project.path / "plugin-1.0.dist-info"
    site.mkdir()
    (site / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    (site / "entry_points.txt").write_text("[celery.commands]\nhello = plugin:hello\nbroken = nosuch:thing\n")
    project.write(
        "plugin.py",
        "import click\n\n@click.command()\n@click.pass_context\ndef hello(ctx):\n    print('hello', ctx.obj.app.main)\n",
    )
    code = "import sys; sys.argv = ['celery', '-A', 'proj', {!r}]; import celery.__main__ as m; m.main()"

    assert project.python(code.format("hello")).stdout == "hello proj\n"
    assert "hello" in project.python(code.format("--help")).stdout


def test_apps_add_options_to_commands(project):
    project.write(
        "optional.py",
        """
from click import Option
from proj import app
from celery import bootsteps
from celery.signals import user_preload_options

app.user_options["preload"].add(Option(["--flavour"], default="plain", help="What it tastes of."))
app.user_options["worker"].add(Option(["--sauce"], is_flag=True, default=False, help="With sauce."))


@user_preload_options.connect
def on_preload(app, options, **kwargs):
    print("flavour:", options["flavour"], flush=True)


class Sauce(bootsteps.Step):
    def __init__(self, worker, sauce=False, **options):
        print("sauce:", sauce, flush=True)


app.steps["worker"].add(Sauce)
""",
    )
    assert "flavour: hot\n" in project.celery("-A", "optional", "report", "--flavour", "hot").stdout
    assert "flavour: hot\n" in project.celery("-A", "optional", "call", "proj.add", "--flavour", "hot").stdout
    assert "With sauce." in project.celery("-A", "optional", "worker", "--help").stdout
    program = project.start("-A", "optional", "worker", "-P", "solo", "--sauce", "-l", "INFO")
    program.send("SIGTERM")
    program.end()
    assert "flavour: plain\nsauce: True\n" in program.output


def test_shells_complete_commands_options_and_choices(project):
    def complete(words, number):
        environ = {"_CELERY_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(number)}
        return project.celery(env=environ).stdout.split()

    assert "plain,worker" in complete("celery wo", 1)
    assert "plain,--concurrency" in complete("celery -A proj worker --conc", 4)
    assert {"plain,threads"} == set(complete("celery -A proj worker -P thr", 5))
    assert "_celery_completion" in project.celery(env={"_CELERY_COMPLETE": "bash_source"}).stdout


#: What is typed, and what a shell makes of it.
COMPLETED = {
    "celery wor": "worker",
    "celery -A proj worker -f pro": "proj.py",
    "celery -A proj inspect active_q": "active_queues",
}


@pytest.fixture
def shell_environ(project):
    """What a shell needs to find the program, and nothing of its user's."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{project.environ['PATH']}"
    return {**project.environ, "PATH": path, "HOME": str(project.path), "TERM": "dumb"}


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish_completes_by_the_file_in_extra(project, shell_environ):
    completions = project.path / "fish" / "completions"
    completions.mkdir(parents=True)
    shutil.copy(EXTRA / "celery.fish", completions)  # where it is found when it is needed
    script = "; echo ==; ".join(f"complete -C '{typed}'" for typed in COMPLETED)
    done = subprocess.run(
        ["fish", "-c", script],
        cwd=project.path,
        env={**shell_environ, "XDG_CONFIG_HOME": str(project.path)},
        capture_output=True,
        text=True,
        timeout=60,
    )

    offered = [[line.split("\t")[0] for line in part.split("\n")] for part in done.stdout.split("==\n")]
    missing = [want for want, words in zip(COMPLETED.values(), offered, strict=True) if want not in words]
    assert not missing, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_completes_by_the_file_in_extra(project, shell_environ):
    functions = project.path / "zsh"
    functions.mkdir()
    shutil.copy(EXTRA / "celery.zsh", functions / "_celery")
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        ["zsh", "-f", "-i"], cwd=project.path, env=shell_environ, stdin=theirs, stdout=theirs, stderr=theirs
    ) as shell:
        os.close(theirs)

        def typed(keys, until):
            """Press keys; return what is on the screen once ``until`` is there."""
            os.write(ours, keys.encode())
            shown, deadline = b"", time.monotonic() + 60
            while until not in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\r|\x08", "", shown.decode(errors="replace")):
                if time.monotonic() > deadline or not select.select([ours], [], [], 60)[0]:
                    raise AssertionError(f"no {until} after {keys!r}: {shown.decode(errors='replace')!r}")
                shown += os.read(ours, 65536)

        try:
            typed(
                f"PS1='> '; fpath=({functions} $fpath); autoload -U compinit; compinit -u -D; echo R''EADY\n", "READY"
            )
            for words, completed in COMPLETED.items():
                typed(f"{words}\t", f"{words.rpartition(' ')[0]} {completed}")
                typed("\x15echo D''ONE\n", "DONE")
        finally:
            shell.kill()
            os.close(ours)


def test_options_come_from_the_environment(project):
    ran = project.celery("report", env={"CELERY_APP": "proj"})
    assert "sqlite" in ran.stdout
    assert project.celery("worker", env={"CELERY_APP": "proj", "CELERY_WORKER_CONCURRENCY": "no"}).status == 2


@pytest.mark.parametrize("words", [["inspect"], ["control"]])
def test_the_remote_commands_are_listed(project, words):
    shown = project.celery("-A", "proj", *words, "--list").stdout

    assert ("ping" in shown, "rate_limit" in shown) == (words == ["inspect"], words == ["control"])


def test_answers_can_be_read_by_programs(project):
    ran = project.celery("-A", "proj", "status", "--json", "-t", "0.1", "-d", "nobody@here")
    assert (ran.status, json.loads(ran.stdout)) == (69, {})


def test_a_reader_that_goes_away_is_no_error(project):
    code = """
import os, subprocess, sys
read, write = os.pipe()
os.close(read)
done = subprocess.run([sys.executable, "-m", "celery", "-A", "proj", "report"], stdout=write, stderr=subprocess.PIPE)
sys.stderr.buffer.write(done.stderr)
"""
    assert project.python(code).stderr == ""

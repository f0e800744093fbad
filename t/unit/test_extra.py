"""The examples in ``extra/`` name commands and options that there are."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from celery.bin.celery import celery
from celery.utils.imports import symbol_by_name

EXTRA = Path(__file__).resolve().parents[2] / "extra"


def options_of(command):
    return {option for param in command.params for option in param.opts}


def check(words):
    """Look up each option of a command line, those before the command among the program's own."""
    command = celery
    for word in words:
        name = word.partition("=")[0]
        if name.startswith("-"):
            assert name in options_of(command), f"{command.name} has no {name}"
        elif command is celery:
            from celery.bin.celery import COMMANDS

            command = symbol_by_name(COMMANDS[word])
    assert command is not celery


def unit(path):
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters="=")
    parser.optionxform = str
    parser.read_string(path.read_text().replace("\\\n", " "))
    return parser


@pytest.mark.parametrize("path", sorted((EXTRA / "systemd").glob("*.service")), ids=lambda path: path.name)
def test_a_unit_starts_what_there_is(path):
    service = unit(path)["Service"]

    check(service["ExecStart"].replace("$CELERY_WORKER_OPTIONS", "--concurrency=auto").split()[1:])
    variables = set(re.findall(r"\$\{?(\w+)", service["ExecStart"]))
    given = dict(
        line.split("=", 1) for line in (EXTRA / "systemd" / "celery.env").read_text().splitlines() if line[0] != "#"
    )
    assert variables <= given.keys()
    if shutil.which("systemd-analyze"):
        done = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True, timeout=60)
        assert "Unknown" not in done.stderr


def test_supervisor_starts_what_there_is():
    parser = unit(EXTRA / "supervisor" / "celery.conf")

    assert parser.sections() == ["program:celery", "program:celerybeat"]
    for section in parser.sections():
        check(parser[section]["command"].split()[1:])


def test_kubernetes_starts_and_asks_what_there_is():
    yaml = pytest.importorskip("yaml")
    worker, beat = yaml.safe_load_all((EXTRA / "kubernetes" / "celery.yaml").read_text())
    (container,) = worker["spec"]["template"]["spec"]["containers"]
    check(container["command"][1:])
    probe = container["livenessProbe"]
    assert probe["exec"] == container["startupProbe"]["exec"]
    assert (probe["periodSeconds"], probe["timeoutSeconds"]) == (60, 15)
    check(probe["exec"]["command"][2].split()[2:-1])
    check(beat["spec"]["template"]["spec"]["containers"][0]["command"][1:])
    assert beat["spec"]["strategy"]["type"] == "Recreate"


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_completions_are_scripts_of_their_shells(name):
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    path = EXTRA / "completion" / f"celery.{name}"
    assert subprocess.run([name, "-n", path], capture_output=True, text=True, timeout=60).stderr == ""

"""What the type checker makes of users' programs: ``# R: type`` stands behind a revealed type, ``# E: text`` behind an error."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mypy import api

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PROGRAMS = sorted(path for path in HERE.glob("*.py") if not path.name.startswith("test_"))


def expectations(path):
    """Yield ``(file name, line, kind, text)`` for each comment."""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if found := re.search(r"  # ([RE]): (.*)$", line):
            yield path.name, number, found[1], found[2]


def told(output):
    """Yield the same for each line that the type checker wrote."""
    for line in output.splitlines():
        if not (found := re.match(r"(?:.*/)?(\w+\.py):(\d+): (note|error): (.*?)(?:  \[[\w-]+\])?$", line)):
            continue
        name, number, kind, text = found.groups()
        if kind == "error":
            yield name, int(number), "E", text
        elif revealed := re.match(r'Revealed type is "(.*)"$', text):
            yield name, int(number), "R", re.sub(r"\b(?:builtins|celery|t)\.(?:\w+\.)*", "", revealed[1])


@pytest.fixture(scope="module")
def report():
    options = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(ROOT / "build" / "typing")]
    output, errors, _ = api.run([*options, "--explicit-package-bases", *map(str, PROGRAMS)])
    assert errors == ""
    return set(told(output)), output


@pytest.mark.timeout(300)
@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_the_type_checker_says_what_the_comments_say(report, path):
    found, output = report
    mine = {one for one in found if one[0] == path.name}
    wanted = set(expectations(path))

    assert len(wanted) > 15
    assert mine == wanted, output


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_the_classes_take_types_at_run_time(path):
    from celery import Signature, Task
    from celery.result import AsyncResult, EagerResult

    assert Task[[int], str].__origin__ is Task
    assert (Signature[int].__origin__, AsyncResult[int].__origin__) == (Signature, AsyncResult)
    assert EagerResult[int]("id", 3, "SUCCESS").get() == 3
    own = [
        line for line in path.read_text().splitlines() if not line.startswith("reveal_type(") and "  # E: " not in line
    ]
    exec(compile("\n".join(own), str(path), "exec"), {"__name__": f"typing_{path.stem}"})

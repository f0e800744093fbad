"""Schedules and entries as pickles, to Celery's beat and back."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PEER = os.environ.get("PEER_PYTHON", "")

SCRIPT = """
import pickle, sys
from datetime import datetime, timedelta, timezone
from celery import Celery
from celery.beat import ScheduleEntry
from celery.schedules import crontab, schedule

app = Celery("pickles")
app.conf.timezone = "UTC"
made = [
    schedule(timedelta(seconds=3), relative=True),
    crontab("*/5", 3, day_of_week="mon-fri"),
    ScheduleEntry("n", "t", datetime(2020, 1, 1, tzinfo=timezone.utc), 4, 30, (1,), {"a": 1}, {"queue": "q"}),
]
if sys.argv[1] == "write":
    sys.stdout.write(pickle.dumps(made).hex())
else:
    found = pickle.loads(bytes.fromhex(sys.stdin.read()))
    assert found == made, found
    assert found[2].total_run_count == 4 and found[2].last_run_at == made[2].last_run_at
    assert list(map(repr, found)) == list(map(repr, made))
    print("same")
"""


def run(python: str, *words: str, given: str = "") -> str:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [python, "-c", SCRIPT, *words], input=given, capture_output=True, text=True, env=env, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("from_us", [True, False], ids=["to-celery", "from-celery"])
def test_pickles_travel(from_us, tmp_path, monkeypatch):
    if not PEER:
        pytest.fail("PEER_PYTHON is not set") if os.environ.get("CI") else pytest.skip("PEER_PYTHON is not set")
    monkeypatch.chdir(tmp_path)  # the peer is not to find our package beside it
    writer, reader = (sys.executable, PEER) if from_us else (PEER, sys.executable)
    assert run(reader, "read", given=run(writer, "write")).strip() == "same"

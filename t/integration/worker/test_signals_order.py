"""The signals of a whole life, in their order, as Celery 5.7.0 sends them; see `t/facts/signals/life.py`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

FACTS = Path(__file__).resolve().parents[2] / "facts" / "signals"
REDIS = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379")


@pytest.fixture(scope="module")
def life(tmp_path_factory):
    directory = tmp_path_factory.mktemp("life")
    environ = {
        **os.environ,
        "LIFE_DIRECTORY": str(directory),
        "LIFE_BROKER": f"{REDIS}/13",
        "LIFE_NAME": f"life{uuid.uuid4().hex[:8]}",
        "LIFE_ROLE": "client",
    }
    done = subprocess.run(
        [sys.executable, "life.py"], cwd=FACTS, env=environ, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr + (directory / "worker.log").read_text()
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def recorded():
    return json.loads((FACTS / "recorded.json").read_text())


@pytest.mark.redis
def test_a_client_sends_its_signals_in_order(life, recorded):
    assert life["client"] == recorded["client"]


@pytest.mark.redis
def test_a_worker_sends_its_signals_in_order(life, recorded):
    # on purpose: the failure of a task that rejects itself is told where it ran
    expected = [line for line in recorded["worker"] if line[0] != "task_failure"]
    assert life["worker"] == expected


@pytest.mark.redis
def test_a_child_sends_its_signals_in_order(life, recorded):
    (failure,) = (line for line in recorded["worker"] if line[0] == "task_failure")
    expected = recorded["child"]
    rejected = len(expected) - 2  # before the last task's end and that of the process
    assert life["child"] == [*expected[:rejected], failure, *expected[rejected:]]

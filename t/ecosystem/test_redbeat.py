"""redbeat, unmodified: its scheduler and entries stand on ours."""

from __future__ import annotations

import os

import pytest

pytest.importorskip("redbeat")

REDIS = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379")

APP = f"""
from celery import Celery
from celery.schedules import crontab

app = Celery("bedroom", broker="{REDIS}/13")
app.conf.redbeat_redis_url = "{REDIS}/13"
app.conf.redbeat_lock_timeout = 60
app.conf.beat_max_loop_interval = 1
app.conf.beat_schedule = {{
    "blink": {{"task": "bedroom.blink", "schedule": 1.0}},
    "sleep": {{"task": "bedroom.blink", "schedule": crontab("0", "3")}},
}}


@app.task
def blink():
    return "o"
"""


def test_its_scheduler_sends_and_remembers(open_site):
    redis = pytest.importorskip("redis").Redis.from_url(f"{REDIS}/13")
    redis.flushdb()
    site = open_site("flask")  # any directory will do
    (site.directory / "bedroom.py").write_text(APP)
    log = site.start(
        *("-m", "celery", "-A", "bedroom", "beat", "-S", "redbeat.RedBeatScheduler", "-l", "INFO"),
        until="Sending due task blink",
    )
    site.eventually(lambda: log.read_text().count("Sending due task blink") >= 3)
    process, _ = site.running[-1]
    process.terminate()
    assert process.wait(timeout=30) == 0
    text = log.read_text()
    assert ". scheduler -> redbeat.schedulers.RedBeatScheduler" in text
    assert "Releasing lock" in text
    assert "Traceback" not in text
    assert redis.llen("celery") == text.count("Sending due task blink")
    assert b"total_run_count" in redis.hget("redbeat:blink", "meta")
    redis.flushdb()

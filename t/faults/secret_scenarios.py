"""F36: secrets go to brokers and stores, and nowhere else.  What files may do is tested with the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from actors import Actor
from scenario import Stage, scenario
from servers import wait_until

#: What asks everything that a worker tells of itself.
QUESTIONS = ("report", "conf", "stats", "active_queues", "registered", "revoked")


@scenario("F36", unprotected="unprotect.masking=off", tasks=100)
def secrets(stage: Stage) -> dict[str, Any]:
    """Passwords, secret settings and arguments with a representation of their own are in no log, answer or event."""
    redis = stage.redis()
    at = f"@127.0.0.1:{redis.port}"
    canaries = {name: f"c4n4ry{name}" for name in ("broker", "failover", "option", "store", "setting", "argument")}
    env = stage.env(
        f"redis://default:{canaries['failover']}@127.0.0.1:1/0;redis://default:{canaries['broker']}{at}/0",
        f"redis://default:{canaries['store']}{at}/1",
        broker_transport_options={"sentinel_kwargs": {"password": canaries["option"]}},
        broker_connection_timeout=1,
        my_api_token=canaries["setting"],
        redis_password=canaries["store"],
        worker_send_task_events=True,
        task_send_sent_event=True,
        task_track_started=True,
    )
    worker = stage.worker(env, "--without-mingle", "-l", "DEBUG")
    celery = [sys.executable, "-m", "celery", "-A", "faultapp"]
    dump = Actor("dump", [*celery, "events", "--dump"], env, Path(env["FAULT_DIR"]))
    stage.house.callback(dump.kill_group)
    wait_until(lambda: "worker-heartbeat" in dump.text() or "heartbeat:" in dump.text(), 30, "events to be heard")

    told = {"answers": run(env, CLIENT.format(secret=canaries["argument"], questions=QUESTIONS))}
    nowhere = ["-b", f"redis://default:{canaries['broker']}@127.0.0.1:1", "call", "faultapp.ping"]
    done = subprocess.run([*celery, *nowhere], env=env, cwd=worker.cwd, capture_output=True, text=True, timeout=60)
    assert done.returncode, "a broker that is not there was reached"
    told["an error"] = done.stdout + done.stderr
    told["results"] = "".join(redis.database(1).get(key).decode(errors="replace") for key in task_keys(redis))
    worker.kill_group()
    told["worker's log"], told["events"] = worker.text(), dump.text()

    leaks = [f"{name} in {place}" for place, text in told.items() for name, word in canaries.items() if word in text]
    assert not leaks, f"{leaks}; see {stage.directory}"
    assert told["answers"].count("w1@t") >= len(QUESTIONS), told["answers"]
    assert "(<secret>,)" in told["events"], "events say nothing of the arguments"
    return {"places": len(told), "canaries": len(canaries), "letters": sum(map(len, told.values()))}


CLIENT = """
from celery.app.utils import bugreport
from faultapp import app, confides
masked = dict(argsrepr="(<secret>,)", kwargsrepr="{{}}")
done = confides.apply_async(("{secret}",), **masked)
failed = confides.apply_async(("{secret}", True), **masked)
later = confides.apply_async(("{secret}",), countdown=600, **masked)
print(done.get(timeout=30), failed.get(timeout=30, propagate=False))
print(app.control.revoke(later.id, reply=True, timeout=5, limit=1))
for question in {questions}:
    print(getattr(app.control.inspect(timeout=5, limit=1), question)())
print(bugreport(app), app.conf.humanize(), app.connection_for_write(), app.backend.as_uri(), app.connection().as_uri())
"""


def run(env: dict[str, str], code: str) -> str:
    """Run ``code`` with the fault app as a client, and return what it printed."""
    here = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=here, capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def task_keys(redis: Any) -> list[bytes]:
    return list(redis.database(1).scan_iter("celery-task-meta-*"))

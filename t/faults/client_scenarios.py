"""Clients under strain: many threads, forks, interrupted exchanges, results that nobody reads."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from typing import Any

from actors import HERE, QUICK_START
from canvas_scenarios import conf
from proxy import Proxy
from scenario import Stage, scenario

#: A client's memory may grow by so much for 100,000 results, and by the steps in which it is given.
MOST_KILOBYTES, LEAST_KILOBYTES = 1024, 1024


def play(env: dict[str, str], verb: str, count: int, **more: str) -> dict[str, Any]:
    """Run one client to its end and return what it says."""
    command = [sys.executable, "sharingclient.py", verb, str(count)]
    done = subprocess.run(command, env={**env, **more}, cwd=HERE, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


@scenario("F37", unprotected="unprotect.interrupted=off", tasks=100_000, short=0.01)
def one_app_is_shared(stage: Stage) -> dict[str, Any]:
    """64 threads, forked children, gevent, and exchanges that are cut off: each caller gets its own result."""
    redis = stage.redis()
    env = stage.env(redis.url, redis.url, **conf(task_acks_late=False))
    stage.worker(env, *QUICK_START)
    proxy = Proxy(redis.port)
    stage.house.callback(proxy.close)
    proxy.set("delay")
    slow = stage.env(redis.url, f"redis://127.0.0.1:{proxy.port}", **conf())
    said = {"interrupted": play(slow, "interrupted", max(200, stage.count // 50))}
    assert said["interrupted"]["interruptions"] >= 10, said
    if not stage.unprotected:
        said["threads"] = play(env, "threads", stage.count)
        if importlib.util.find_spec("gevent"):
            said["gevent"] = play(env, "threads", stage.count // 2, FAULT_GREEN="yes")
    for verb, each in said.items():
        assert not each["wrong"], f"{verb}: others' results: {each['wrong']}; seed {stage.seed}"
        assert not each.get("failed"), f"{verb}: {each['failed']}; seed {stage.seed}"
        assert not any(each.get("children", ())), f"{verb}: a forked child failed: {each}; seed {stage.seed}"
    return {"interruptions": said["interrupted"]["interruptions"], "tasks": stage.count, "played": list(said)}


@scenario("F30-client", unprotected="unprotect.unsubscribe=off", tasks=100_000, short=0.02)
def results_that_nobody_reads(stage: Stage) -> dict[str, Any]:
    """A client sends and gets, and leaves as many results unread: no memory, subscription or descriptor stays behind."""
    redis = stage.redis()
    env = stage.env(redis.url, redis.url, **conf(task_acks_late=False))
    stage.worker(env, *QUICK_START)
    client = subprocess.Popen(
        [sys.executable, "sharingclient.py", "many", str(stage.count)],
        env=env, cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    stage.house.callback(client.kill)
    most = 0
    while client.poll() is None:
        most = max(most, len(channels(redis)))
        try:
            client.wait(0.2)
        except subprocess.TimeoutExpired:
            continue
    out, errors = client.communicate()
    assert client.returncode == 0, errors[-2000:]
    said: dict[str, int] = json.loads(out.splitlines()[-1])
    assert most <= 100, f"{most} subscriptions at once; nobody waits for more than 100"
    assert said["descriptors"] <= 0, f"descriptors grew: {said}"
    bound = max(LEAST_KILOBYTES, MOST_KILOBYTES * said["gets"] // 100_000)
    assert said["kB"] <= bound, f"memory grew by more than {bound} kB: {said}"
    return {**said, "subscriptions at once": most}


def channels(redis: Any) -> list[bytes]:
    found: list[bytes] = redis.client.pubsub_channels("celery-task-meta-*")
    return found

"""Flower from the index, unmodified, beside one of our workers: its pages and its whole HTTP API."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid

import pytest

pytest.importorskip("flower")

REDIS = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379")
PATIENCE = 60
WORKER = "w1@here"

APP = """
import time
from celery import Celery

app = Celery("watched", broker={broker!r}, backend={backend!r})
app.conf.update(task_default_queue={name!r}, control_exchange={name!r}, event_exchange={name!r} + "ev",
                worker_pool_restarts=True, task_send_sent_event=True, result_extended=True)


@app.task(name="add")
def add(x, y):
    return x + y


@app.task(name="boom")
def boom():
    raise KeyError("lost")


@app.task(name="sleepy")
def sleepy(seconds):
    time.sleep(seconds)
"""


class Flower:
    """Flower's HTTP API, a worker behind it, and the page of each."""

    def __init__(self, directory):
        self.directory = directory
        self.programs = {}
        name = f"flower{uuid.uuid4().hex[:8]}"
        app = APP.format(broker=f"{REDIS}/11", backend=f"{REDIS}/12", name=name)
        (directory / "watched.py").write_text(app)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        self.start("worker", "-n", WORKER, "-c", "2", "-E", "-l", "INFO", "--without-mingle")
        self.start("flower", "--address=127.0.0.1", f"--port={port}", "--inspect_timeout=2000")

    def start(self, *words):
        with (self.directory / f"{words[0]}.log").open("wb") as log:
            self.programs[words[0]] = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "watched", *words],
                cwd=self.directory,
                env={**os.environ, "C_FORCE_ROOT": "1", "FLOWER_UNAUTHENTICATED_API": "true"},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def ask(self, path, data=None, **query):
        """Return status and text of an answer; with ``data`` (a mapping) the request is a POST in JSON."""
        url = self.address + path + (f"?{urllib.parse.urlencode(query)}" if query else "")
        body = None if data is None else json.dumps(data).encode()
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"} if body else {})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def get(self, path, **query):
        status, text = self.ask(path, **query)
        assert status == 200, text
        return json.loads(text)

    def post(self, path, data=None, **query):
        status, text = self.ask(path, data or {}, **query)
        assert status == 200, text
        return json.loads(text)

    def eventually(self, claim):
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                value = claim()
            except ConnectionError:  # it does not listen yet
                value = None
            except urllib.error.URLError as error:
                if not isinstance(error.reason, ConnectionError):
                    raise
                value = None
            if value:
                return value
            assert time.monotonic() < deadline, "\n".join(path.read_text() for path in self.directory.glob("*.log"))
            time.sleep(0.1)

    def run(self, name, *args):
        """Have a task sent by Flower, and return its id."""
        return self.post(f"/api/task/async-apply/{name}", {"args": args})["task-id"]

    def state(self, task_id):
        status, text = self.ask(f"/api/task/info/{task_id}")
        return json.loads(text)["state"] if status == 200 else None

    def close(self):
        for program in self.programs.values():
            if program.poll() is None:
                program.send_signal(signal.SIGTERM)
        for program in self.programs.values():
            try:
                program.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                program.kill()
                program.wait()


@pytest.fixture(scope="module")
def flower(tmp_path_factory):
    flower = Flower(tmp_path_factory.mktemp("flower"))
    try:
        flower.eventually(lambda: flower.ask("/healthcheck")[0] == 200)
        flower.eventually(lambda: WORKER in flower.get("/api/workers", refresh=1))
        yield flower
    finally:
        flower.close()


def test_the_worker_is_known_with_all_it_tells(flower):
    worker = flower.eventually(lambda: flower.get("/api/workers", refresh=1).get(WORKER))

    assert {"add", "boom", "sleepy"} <= set(worker["registered"])
    assert worker["stats"]["pool"]["max-concurrency"] == 2
    assert [queue["name"] for queue in worker["active_queues"]]
    assert flower.get("/api/workers", status=1) == {WORKER: True}
    assert set(flower.get("/api/task/types")["task-types"]) <= {"add", "boom", "sleepy"}


def test_tasks_are_sent_and_followed_to_their_end(flower):
    done, failed = flower.run("add", 20, 22), flower.run("boom")
    flower.eventually(lambda: flower.state(done) == "SUCCESS" and flower.state(failed) == "FAILURE")

    info = flower.get(f"/api/task/info/{done}")
    assert (info["name"], info["args"], info["result"], info["worker"]) == ("add", "[20, 22]", "42", WORKER)
    assert info["runtime"] >= 0
    assert "KeyError: 'lost'" in flower.get(f"/api/task/info/{failed}")["traceback"]
    assert flower.get(f"/api/task/result/{done}")["result"] == 42
    assert {done, failed} <= set(flower.get("/api/tasks", limit=50))
    applied = flower.post("/api/task/apply/add", {"args": [1, 2]})
    assert (applied["state"], applied["result"]) == ("SUCCESS", 3)
    sent = flower.post("/api/task/send-task/add", {"args": [3, 4]})
    flower.eventually(lambda: flower.state(sent["task-id"]) == "SUCCESS")


def test_a_running_task_is_revoked_and_terminated(flower):
    task_id = flower.run("sleepy", 600)
    flower.eventually(lambda: flower.state(task_id) == "STARTED")
    flower.post(f"/api/task/revoke/{task_id}", terminate="true")

    flower.eventually(lambda: flower.state(task_id) == "REVOKED")


def test_limits_pools_and_queues_are_changed(flower):
    def slots():
        return flower.get("/api/workers", refresh=1)[WORKER]["stats"]["pool"]["max-concurrency"]

    def queues():
        return {queue["name"] for queue in flower.get("/api/workers", refresh=1)[WORKER]["active_queues"]}

    limited = flower.post("/api/task/rate-limit/add", workername=WORKER, ratelimit="100/s")
    assert limited["message"] == "new rate limit set successfully"
    timed = flower.post("/api/task/timeout/sleepy", workername=WORKER, soft="50", hard="60")
    assert "time limits set successfully" in timed["message"]
    flower.post(f"/api/worker/pool/grow/{WORKER}", n=1)
    assert flower.eventually(lambda: slots() == 3)
    flower.post(f"/api/worker/pool/shrink/{WORKER}", n=1)
    assert flower.eventually(lambda: slots() == 2)
    flower.post(f"/api/worker/queue/add-consumer/{WORKER}", queue="further")
    assert flower.eventually(lambda: "further" in queues())
    flower.post(f"/api/worker/queue/cancel-consumer/{WORKER}", queue="further")
    assert flower.eventually(lambda: "further" not in queues())
    assert flower.post(f"/api/worker/pool/restart/{WORKER}")["message"]
    assert flower.eventually(lambda: slots() == 2)
    status, text = flower.ask(f"/api/worker/pool/autoscale/{WORKER}", {}, min=1, max=4)
    assert (status, "autoscale" in text.lower()) == (403, True)  # this worker was started without


def test_every_page_is_shown(flower):
    task_id = flower.run("add", 1, 1)
    flower.eventually(lambda: flower.state(task_id) == "SUCCESS")

    assert flower.ask("/")[0] == 200
    assert WORKER in flower.ask("/workers")[1]
    assert WORKER in flower.ask(f"/worker/{WORKER}")[1]
    assert flower.ask("/tasks")[0] == 200
    assert "SUCCESS" in flower.ask(f"/task/{task_id}")[1]
    assert flower.ask("/broker")[0] == 200
    metrics = flower.ask("/metrics")[1]
    assert f'flower_events_total{{task="add",type="task-succeeded",worker="{WORKER}"}}' in metrics
    assert f'flower_worker_online{{worker="{WORKER}"}} 1.0' in metrics


def test_the_worker_is_shut_down_at_last(flower):
    assert "Shutting down!" in flower.post(f"/api/worker/shutdown/{WORKER}")["message"]
    assert flower.programs["worker"].wait(PATIENCE) == 0

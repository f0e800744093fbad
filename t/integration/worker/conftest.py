"""Real worker processes on real brokers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from pathlib import Path

import pytest

HERE = Path(__file__).parent
REDIS = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379")
AMQP = os.environ.get("TEST_AMQP_URL", "amqp://guest:guest@127.0.0.1:5672")


def wait_until(claim, seconds=20.0, tell=lambda: ""):
    deadline = time.monotonic() + seconds
    while not (value := claim()):
        assert time.monotonic() < deadline, f"not within {seconds} s\n{tell()}"
        time.sleep(0.02)
    return value


class Scene:
    """A broker, a file of notes and the workers that are started."""

    def __init__(self, directory, broker, backend):
        self.directory = directory
        self.notes = directory / "notes"
        self.queue = f"it-{uuid.uuid4().hex[:10]}"
        self.broker, self.backend = broker, backend
        self.conf = {"task_default_queue": self.queue, "worker_prefetch_multiplier": 4}
        self.workers = []
        self._app = None

    @property
    def app(self):
        """An app for the client's side."""
        from celery import Celery

        if self._app is None:
            self._app = Celery("client", broker=self.broker, backend=self.backend, set_as_current=False)
            self._app.conf.update(self.conf)
        return self._app

    def send(self, name, *args, **options):
        return self.app.send_task(name, args, **options)

    def start(self, is_ready=True, **options):
        options = {"concurrency": 2, "hostname": f"w{len(self.workers)}@{self.queue}", **options}
        worker = Worker(self, {"without_mingle": True, **options})
        self.workers.append(worker)
        if is_ready:
            wait_until(lambda: " ready." in worker.log() or not worker.is_alive(), tell=worker.log)
            assert worker.is_alive(), worker.log()
        return worker

    def noted(self, word):
        """Count the notes that begin with ``word``, by tag."""
        if not self.notes.exists():
            return Counter()
        lines = (line.split(" ", 1) for line in self.notes.read_text().splitlines())
        return Counter(tag for first, tag in lines if first == word)

    def wait_for_notes(self, word, tags, seconds=30.0):
        wanted = set(map(str, tags))
        wait_until(lambda: wanted <= set(self.noted(word)), seconds, tell=lambda: self.workers[-1].log()[-5000:])

    def waiting(self):
        """How many messages are in the queue."""
        with self.app.connection_for_read() as connection:
            try:
                return connection.default_channel.queue_declare(self.queue, passive=True).message_count
            except connection.channel_errors:  # an empty list in Redis does not exist
                return 0

    def wait_for_waiting(self, count):
        """Wait until that many messages are in the queue; brokers notice a closed connection a moment later."""
        wait_until(lambda: self.waiting() == count, 5, tell=lambda: f"{self.waiting()} wait")

    def close(self):
        for worker in self.workers:
            worker.kill()
        if self._app is not None:
            self._app.close()


class Worker:
    def __init__(self, scene, options):
        self.path = scene.directory / f"worker{len(scene.workers)}.log"
        environment = {
            **os.environ,
            "WORKERAPP_BROKER": scene.broker,
            "WORKERAPP_BACKEND": scene.backend,
            "WORKERAPP_NOTES": str(scene.notes),
            "WORKERAPP_CONF": json.dumps(scene.conf),
            "PYTHONPATH": str(HERE.parents[2]),
        }
        with open(self.path, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(HERE / "workerapp.py"), json.dumps(options)],
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def log(self):
        return self.path.read_text(errors="replace")

    def is_alive(self):
        return self.process.poll() is None

    def send(self, signum):
        self.process.send_signal(signum)

    def stop(self, signum=signal.SIGTERM, seconds=15.0):
        """Send the signal and return the exit status."""
        self.send(signum)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still there after {seconds} s\n{self.log()[-5000:]}") from None

    def kill(self):
        if self.is_alive():
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)


@pytest.fixture
def new_scene(tmp_path):
    """``new_scene(broker, backend)``; it is cleared away at the end."""
    scenes = []

    def new_scene(broker, backend):
        scenes.append(Scene(tmp_path, broker, backend))
        return scenes[-1]

    yield new_scene
    for scene in scenes:
        scene.close()


@pytest.fixture
def redis_scene(new_scene):
    return new_scene(f"{REDIS}/13", f"{REDIS}/14")


@pytest.fixture
def rabbitmq_scene(tmp_path):
    if shutil.which("rabbitmqctl") is None:
        pytest.skip("rabbitmqctl is needed to close connections")
    vhost = f"it-{uuid.uuid4().hex[:8]}"
    ctl("add_vhost", vhost)
    ctl("set_permissions", "-p", vhost, "guest", ".*", ".*", ".*")
    scene = Scene(tmp_path, f"{AMQP}/{vhost}", f"{REDIS}/14")
    scene.vhost = vhost
    yield scene
    scene.close()
    ctl("delete_vhost", vhost)


def ctl(*arguments):
    result = subprocess.run(["rabbitmqctl", "-q", *arguments], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(
    params=[pytest.param("redis", marks=pytest.mark.redis), pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)]
)
def scene(request):
    return request.getfixturevalue(f"{request.param}_scene")


@pytest.fixture(name="wait_until")
def wait_until_fixture():
    return wait_until


@pytest.fixture(name="ctl")
def ctl_fixture():
    return ctl

"""Scenes: a broker and a store, with worker and client processes of Celery 5.7.0 and of ours.

``PEER_PYTHON`` names the interpreter of a virtual environment with Celery 5.7.0 and the client libraries of Redis and
RabbitMQ, SQLAlchemy, msgpack and PyYAML.  A *scene* is a broker with a store of results; one worker of either kind runs
there; they share a queue and have one each.  ``INTEROP_ALL=1`` adds the pairs of equals, to tell a wrong scenario from a
wrong worker.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PEER = os.environ.get("PEER_PYTHON")
AMQP = os.environ.get("TEST_AMQP_URL", "amqp://guest:guest@127.0.0.1:5672")
PYTHONS = {"ours": sys.executable, "theirs": PEER}

#: (client, worker)
PAIRS = [("theirs", "ours"), ("ours", "theirs")]
if os.environ.get("INTEROP_ALL"):
    PAIRS += [("theirs", "theirs"), ("ours", "ours")]
SCENES = ("redis", "rabbitmq", "rpc", "database")


def wait_until(claim, seconds=30.0, tell=lambda: ""):
    deadline = time.monotonic() + seconds
    while not (value := claim()):
        assert time.monotonic() < deadline, f"not within {seconds} s\n{tell()}"
        time.sleep(0.02)
    return value


def environment(side):
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    if side == "ours":
        env["PYTHONPATH"] = str(ROOT)
    return {**env, "PYTHONDONTWRITEBYTECODE": "1", "C_FORCE_ROOT": "1"}  # the tests may run as root, with pickle


class Worker:
    """One worker process, its log in a file."""

    def __init__(self, scene, side, name, queues, *options):
        self.name, self.path = name, scene.directory / f"{name}.log"
        command = [PYTHONS[side], "-m", "celery", "-A", "interopapp", "worker", "-n", name, "-Q", ",".join(queues)]
        with open(self.path, "wb") as log:
            self.process = subprocess.Popen(
                [*command, "-c", "2", "-E", "-l", "INFO", "--heartbeat-interval", "1", *options],
                cwd=HERE,
                env=scene.environment(side, queues[0]),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def log(self):
        return self.path.read_text(errors="replace")

    def wait_until_ready(self):
        wait_until(lambda: " ready." in self.log() or self.process.poll() is not None, tell=self.log)
        assert self.process.poll() is None, self.log()
        return self

    def stop(self, seconds=20.0):
        """Ask it to stop and return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still there after {seconds} s\n{self.log()[-5000:]}") from None

    def kill(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)


class Client:
    """A process that runs scenarios, see `actor.py`."""

    def __init__(self, scene, side, queue):
        self.path = scene.directory / f"client-{side}-to-{queue}.log"
        with open(self.path, "wb") as log:
            self.process = subprocess.Popen(
                [PYTHONS[side], str(HERE / "actor.py")],
                cwd=HERE,
                env=scene.environment(side, queue),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        self.version, self.file = self.answer()

    def start(self, name, *args, **kwargs):
        """Begin a scenario; `answer` waits for it."""
        self.process.stdin.write(json.dumps({"do": name, "args": args, "kwargs": kwargs}) + "\n")
        self.process.stdin.flush()

    def answer(self, seconds=60.0):
        output = self.process.stdout
        assert select.select([output], [], [], seconds)[0], f"no answer\n{self.path.read_text()[-3000:]}"
        line = output.readline()
        assert line, self.path.read_text()[-3000:]
        answer = json.loads(line)
        assert "error" not in answer, answer["error"]
        return answer["value"]

    def do(self, name, *args, **kwargs):
        self.start(name, *args, **kwargs)
        return self.answer()

    def kill(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


@dataclass
class Scene:
    """A broker and a store, one worker of either kind, and clients as they are asked for."""

    name: str
    directory: Path
    broker: str
    backend: str
    fleet: str = "fleet"
    workers: dict[str, Worker] = field(default_factory=dict)
    clients: dict[tuple[str, str], Client] = field(default_factory=dict)

    def environment(self, side, queue):
        return {
            **environment(side),
            "INTEROP_BROKER": self.broker,
            "INTEROP_BACKEND": self.backend,
            "INTEROP_NOTES": str(self.directory / "notes"),
            "INTEROP_QUEUE": queue,
        }

    def queue(self, side):
        return f"{self.name}-{side}"

    def worker(self, side):
        return f"{self.name}-{side}@interop"

    def start(self):
        self.fleet = f"{self.name}-fleet"
        for side in PYTHONS:
            self.workers[side] = Worker(self, side, self.worker(side), [self.queue(side), self.fleet])

    def client(self, side, worker_side):
        key = side, worker_side
        if key not in self.clients:
            self.workers[worker_side].wait_until_ready()
            self.clients[key] = Client(self, side, self.queue(worker_side))
        return self.clients[key]

    def logs(self):
        return "\n".join(f"--- {worker.name}\n{worker.log()[-3000:]}" for worker in self.workers.values())

    def close(self):
        for process in [*self.clients.values(), *self.workers.values()]:
            process.kill()


@dataclass
class Pair:
    scene: Scene
    client_side: str
    worker_side: str
    client: Client

    @property
    def worker(self):
        return self.scene.worker(self.worker_side)

    def do(self, name, *args, **kwargs):
        try:
            return self.client.do(name, *args, **kwargs)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.scene.workers[self.worker_side].log()[-4000:]}") from None

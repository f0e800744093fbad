"""Messages signed by Celery 5.7.0 are taken by us, and ours by Celery, results and remote control included."""

from __future__ import annotations

import json
import os
import subprocess
import time
import uuid
from pathlib import Path

import certificates
import pytest
from interop_kit import PYTHONS, ROOT

HERE = Path(__file__).resolve().parent

EXPECTED = {
    "call": 3,
    "kwargs": "äö",
    "later": 3,
    "retries": 2,
    "chain": 1,
    "chord": 6,
    "ping": [{"ok": "pong"}],
}


class Fleet:
    """Clients and workers with one key, on a queue of their own."""

    def __init__(self, directory, scene):
        certificates.make(directory, "alice", store=directory / "store")
        self.directory = directory
        self.workers = []
        self.env = {
            **os.environ,
            "SIGNED_DIRECTORY": str(directory),
            "SIGNED_BROKER": scene.broker,
            "SIGNED_BACKEND": scene.backend,
            "SIGNED_QUEUE": f"signed-{uuid.uuid4().hex[:8]}",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def _env(self, side, conf):
        path = str(HERE) if side == "theirs" else f"{HERE}{os.pathsep}{ROOT}"
        own = {"control_exchange": self.env["SIGNED_QUEUE"], "event_exchange": f"{self.env['SIGNED_QUEUE']}-events"}
        return {**self.env, "PYTHONPATH": path, "SIGNED_CONF": json.dumps({**own, **conf})}

    def work(self, side, **conf):
        log = self.directory / f"worker{len(self.workers)}.log"
        options = ["-c", "2", "-l", "INFO", "-n", f"w{len(self.workers)}@{self.env['SIGNED_QUEUE']}"]
        command = [PYTHONS[side], "-m", "celery", "-A", "signedapp", "worker", *options, "--without-mingle"]
        with open(log, "wb") as output:
            process = subprocess.Popen(
                command, env=self._env(side, conf), cwd=HERE, stdout=output, stderr=output, start_new_session=True
            )
        self.workers.append((process, log))
        deadline = time.monotonic() + 60
        while " ready." not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        return log

    def ask(self, side):
        """Run a client; returns what it found, or ``None`` if an answer is missing."""
        done = subprocess.run(
            [PYTHONS[side], str(HERE / "signedapp.py")],
            env=self._env(side, {}),
            cwd=HERE,
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert done.returncode == 0, done.stderr[:1500] + self.logs()
        return json.loads(done.stdout.splitlines()[-1])

    def logs(self):
        return "\n".join(log.read_text()[-9000:] for _, log in self.workers)

    def close(self):
        for process, _ in self.workers:
            os.killpg(process.pid, 9)
            process.wait(10)


@pytest.fixture
def fleet(scenes, tmp_path, request):
    fleet = Fleet(tmp_path, scenes[request.param])
    yield fleet
    fleet.close()


@pytest.mark.parametrize("fleet", ["redis", "rabbitmq"], indirect=True)
def test_celerys_client_and_our_worker(fleet):
    log = fleet.work("ours", security_accept_upstream=True)

    assert fleet.ask("theirs") == EXPECTED
    assert "Refused" not in log.read_text()


@pytest.mark.parametrize("fleet", ["redis", "rabbitmq"], indirect=True)
def test_our_client_and_celerys_worker(fleet):
    fleet.work("theirs")

    assert fleet.ask("ours") == EXPECTED


@pytest.mark.parametrize("fleet", ["redis"], indirect=True)
def test_both_kinds_of_worker_on_one_queue(fleet):
    logs = [fleet.work("ours", security_accept_upstream=True), fleet.work("theirs")]
    for _ in range(2):
        assert fleet.ask("ours") == fleet.ask("theirs") == EXPECTED

    assert all("received" in log.read_text() for log in logs)
    assert "Refused" not in logs[0].read_text()


@pytest.mark.parametrize("fleet", ["redis"], indirect=True)
def test_a_strict_worker_tells_why_it_does_not_take_celerys(fleet):
    log = fleet.work("ours")
    sender = "from signedapp import add; add.delay(1, 2)"
    subprocess.run([PYTHONS["theirs"], "-c", sender], env=fleet._env("theirs", {}), cwd=HERE, timeout=60, check=True)
    deadline = time.monotonic() + 20
    while "Refused" not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)

    assert "set `security_accept_upstream = True`" in log.read_text()
    assert " succeeded in " not in log.read_text()

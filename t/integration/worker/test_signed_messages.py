"""With signing on, whatever may rightly come twice does: redeliveries after a death, retries, tasks that wait at the broker."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import certificates
import pytest

HERE = Path(__file__).parent


@pytest.fixture
def signing(scene, tmp_path, wait_until):
    """The scene, with an app that signs; ``signing.run(code)`` runs a client, for this process does not."""
    identity = certificates.make(tmp_path, "alice", store=tmp_path / "store")
    scene.conf.update(
        task_serializer="auth",
        accept_content=["auth"],
        result_serializer="auth",
        event_serializer="auth",
        security_key=str(identity.key),
        security_certificate=str(identity.certificate),
        security_cert_store=str(tmp_path / "store"),
    )
    if scene.broker.startswith("redis"):
        scene.conf["broker_transport_options"] = {"lease_ttl": 2}

    def run(code):
        program = f"import json\nfrom celery import Celery\napp = Celery(broker={scene.broker!r}, backend={scene.backend!r})\n"
        program += f"app.conf.update(json.loads({json.dumps(scene.conf)!r}))\napp.setup_security()\n{code}"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr + scene.workers[-1].log()[-3000:]
        return done.stdout.strip()

    scene.run, scene.wait_until = run, wait_until
    return scene


def refused(scene):
    return [line for worker in scene.workers for line in worker.log().splitlines() if "Refused" in line]


def test_what_comes_twice_by_right_runs(signing):
    """One worker is killed, the next is stopped while messages wait in it, the third does the rest."""
    first = signing.start()
    ids = json.loads(
        signing.run(
            "late = [app.send_task('late', [str(n)], {'seconds': 1.5 if n < 2 else 0}) for n in range(8)]\n"
            "others = [app.send_task('again', ['r', 2.5]), app.send_task('add', [1, 2], countdown=4, expires=90)]\n"
            "print(json.dumps([result.id for result in (*late, *others)]))"
        )
    )
    signing.wait_for_notes("start", ["0", "1"])
    first.kill()
    second = signing.start(concurrency=1)
    signing.wait_until(lambda: signing.noted("start")["0"] + signing.noted("start")["1"] > 2, 30, second.log)
    assert second.stop() == 0
    signing.start()

    found = signing.run(f"print(json.dumps([app.AsyncResult(task_id).get(timeout=40) for task_id in {ids}]))")
    assert json.loads(found) == [*map(str, range(8)), 1, 3]
    assert not refused(signing)

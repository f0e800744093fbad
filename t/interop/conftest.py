"""Every scene once for the whole session, and the matrix of outcomes in ``build/interop.md``."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from interop_kit import AMQP, PEER, PYTHONS, ROOT, SCENES, Pair, Scene, Worker


def missing():
    """Return what these tests lack, or None."""
    if not PEER:
        return "PEER_PYTHON is not set: the interpreter of a virtual environment with celery[redis]==5.7.0"
    if not shutil.which("redis-server"):
        return "redis-server is not installed"
    if not shutil.which("rabbitmqctl"):
        return "rabbitmqctl is not installed: the tests need a virtual host of their own"
    return None


def ctl(*arguments):
    result = subprocess.run(["rabbitmqctl", "-q", *arguments], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    """Every scene, its workers started at the same time."""
    if lack := missing():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(lack)
    directory = tmp_path_factory.mktemp("interop")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(directory)],
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    vhost = f"interop-{uuid.uuid4().hex[:8]}"
    ctl("add_vhost", vhost)
    ctl("set_permissions", "-p", vhost, re.search(r"//([^:@]+)", AMQP)[1], ".*", ".*", ".*")
    redis, amqp = f"redis://127.0.0.1:{port}", f"{AMQP.rstrip('/')}/{vhost}"
    places = {
        "redis": (f"{redis}/0", f"{redis}/1"),
        "rabbitmq": (amqp, f"{redis}/2"),
        "rpc": (amqp, "rpc://"),
        "database": (f"{redis}/3", f"db+sqlite:///{directory}/results.db"),
    }
    found = {}
    for name, (broker, backend) in places.items():
        (directory / name).mkdir()
        found[name] = Scene(name, directory / name, broker, backend)
        found[name].start()
    yield found
    for scene in found.values():
        scene.close()
    server.send_signal(signal.SIGTERM)
    server.wait(10)
    ctl("delete_vhost", vhost)


@pytest.fixture
def scene(request, scenes):
    return scenes[request.param]


@pytest.fixture
def pair(request, scene):
    """A client and the worker of the other kind: ``do(scenario)`` runs there, ``worker`` is the node's name."""
    client_side, worker_side = request.param
    return Pair(scene, client_side, worker_side, scene.client(client_side, worker_side))


@pytest.fixture
def new_worker(scene):
    """Start one more worker in the scene; killed at the end of the test."""
    started = []

    def start(side, name, queue):
        started.append(Worker(scene, side, name, [queue]))
        return started[-1]

    yield start
    for worker in started:
        worker.kill()


@pytest.fixture(scope="session")
def python_of():
    return PYTHONS


# -- the report

OUTCOMES = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    row = item.callspec.params.get("name") if hasattr(item, "callspec") else None
    row = row or item.originalname.removeprefix("test_").replace("_", " ")
    if hasattr(item, "callspec") and (report.when == "call" or report.failed):
        params = item.callspec.params
        if "scene" in params:
            client, worker = params.get("pair", (None, None))
            column = (params["scene"], f"{client} → {worker}" if client else "both")
            OUTCOMES[row, column] = "ok" if report.passed else "skipped" if report.skipped else "FAILED"
    return report


def pytest_sessionfinish():
    if not OUTCOMES:
        return
    rows = list(dict.fromkeys(row for row, _ in OUTCOMES))
    columns = sorted(
        {column for _, column in OUTCOMES}, key=lambda column: (SCENES.index(column[0]), column[1] == "both")
    )
    lines = [
        "# Celery 5.7.0 and ours on one broker",
        "",
        "Columns: broker or store, client → worker; `both`: a mixed fleet.",
    ]
    lines += ["", "| | " + " | ".join(f"{scene}: {pair}" for scene, pair in columns) + " |"]
    lines += ["|---|" + "---|" * len(columns)]
    for row in rows:
        cells = (OUTCOMES.get((row, column), "") for column in columns)
        lines.append(f"| {row.replace('_', ' ')} | " + " | ".join(cells) + " |")
    target = ROOT / "build" / "interop.md"
    target.parent.mkdir(exist_ok=True)
    target.write_text("\n".join(lines) + "\n")

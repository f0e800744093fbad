"""The servers that the integration tests need: found, started, or installed; else named as missing.

``prepare`` returns the environment for the tests.  Redis, RabbitMQ and PostgreSQL are looked for at their usual ports
on 127.0.0.1, or where ``TEST_REDIS_URL``, ``TEST_AMQP_URL`` and ``TEST_POSTGRES_URL`` say.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

#: The release that interoperability is tested against.
PEER = ["celery[redis,auth]==5.7.0", "amqp>=5.4", "hiredis", "SQLAlchemy>=2", "psycopg2-binary", "msgpack", "PyYAML"]


@dataclass(frozen=True)
class Service:
    """A server: where it listens, the Debian package that brings it, and the command that starts it."""

    name: str
    port: int
    variable: str
    url: str
    package: str
    start: str


SERVICES = (
    Service(
        "Redis",
        6379,
        "TEST_REDIS_URL",
        "redis://127.0.0.1:6379",
        "redis-server",
        "redis-server --daemonize yes --bind 127.0.0.1 --port 6379 --save '' --appendonly no",
    ),
    Service(
        "RabbitMQ",
        5672,
        "TEST_AMQP_URL",
        "amqp://guest:guest@127.0.0.1:5672",
        "rabbitmq-server",
        "rabbitmq-server -detached",
    ),
    Service(
        "PostgreSQL",
        5432,
        "TEST_POSTGRES_URL",
        "postgresql://postgres@127.0.0.1:5432/postgres",
        "postgresql",
        "pg_ctlcluster --skip-systemctl-redirect $(ls /etc/postgresql | tail -1) main start",
    ),
)


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(port: int, seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if is_listening(port):
            return True
        time.sleep(0.2)
    return False


def shell(command: str) -> bool:
    return subprocess.run(command, shell=True, stdout=subprocess.DEVNULL, timeout=600).returncode == 0


def bring_up(service: Service) -> str | None:
    """Make ``service`` listen; returns what is missing if that cannot be done."""
    if os.environ.get(service.variable) or is_listening(service.port):
        return None
    is_root = os.geteuid() == 0
    has_binary = Path("/etc/postgresql").is_dir() if service.name == "PostgreSQL" else shutil.which(service.package)
    if not has_binary:
        if not (is_root and shutil.which("apt-get")):
            return f"{service.name}: install the package {service.package}, or set {service.variable}"
        print(f"== installing {service.package}", flush=True)
        if not (
            shell("apt-get update -qq")
            and shell(f"DEBIAN_FRONTEND=noninteractive apt-get install -y -qq {service.package}")
        ):
            return f"{service.name}: apt-get install {service.package} failed"
    if not is_listening(service.port):
        print(f"== starting {service.name}", flush=True)
        shell(service.start)
    if not wait_for(service.port):
        return f"{service.name}: does not listen on port {service.port} after `{service.start}`"
    if service.name == "PostgreSQL" and is_root:
        trust_local_postgres()
    return None


@contextmanager
def second_redis() -> Iterator[str]:
    """A Redis for as long as the block runs, with nothing in it; gives its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = f"--bind 127.0.0.1 --port {port} --appendonly no --loglevel warning --save".split()
    server = subprocess.Popen(["redis-server", *options, ""], stdout=subprocess.DEVNULL)
    try:
        if not wait_for(port):
            raise RuntimeError(f"redis-server does not listen on port {port}")
        yield f"redis://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def trust_local_postgres() -> None:
    """Let the tests in as user postgres without a password, on a server that this run has just installed."""
    if not shell("psql -qAt -h 127.0.0.1 -U postgres -w -c 'select 1' 2>/dev/null"):
        shell("sed -i '1i host all postgres 127.0.0.1/32 trust' /etc/postgresql/*/main/pg_hba.conf")
        shell("su postgres -c 'psql -qc \"select pg_reload_conf()\"'")


def peer_venv() -> str:
    """Make the virtual environment with the release we are compared with, once; returns its Python."""
    given = os.environ.get("PEER_PYTHON")
    if given:
        return given
    directory = ROOT / ".venv-peer"
    python = directory / "bin" / "python"
    if not (directory / ".done").exists():
        print("== making the peer's virtual environment", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(directory)], check=True)
        subprocess.run(
            [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PEER], check=True
        )
        (directory / ".done").touch()
    return str(python)


def prepare(with_peer: bool = False) -> dict[str, str]:
    """Bring up every server and return the environment for the tests; exits with status 2 naming what is missing."""
    missing = [problem for problem in map(bring_up, SERVICES) if problem]
    if missing:
        print("Missing for the integration tests:\n  " + "\n  ".join(missing), file=sys.stderr)
        if os.environ.get("CI"):
            sys.exit(2)
    env = {
        service.variable: os.environ.get(service.variable) or service.url
        for service in SERVICES
        if service.name not in " ".join(missing)
    }
    if with_peer:
        env["PEER_PYTHON"] = peer_venv()
    return env


if __name__ == "__main__":  # `services.py peer` prints the Python of the peer's environment
    if sys.argv[1:] != ["peer"]:
        sys.exit("usage: services.py peer")
    with redirect_stdout(sys.stderr):
        python = peer_venv()
    print(python)

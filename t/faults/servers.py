"""Servers of a scenario's own, on free ports and in its own directory, killed by process id."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from functools import cached_property
from pathlib import Path
from typing import Any

from redis import Redis


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(holds, seconds: float, what: str) -> None:
    """Wait until ``holds()`` is true; raises `TimeoutError` naming ``what`` else."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds} s in vain for {what}")
        time.sleep(0.02)


class OwnRedis:
    """A Redis server; ``durable`` writes every command to disk before it answers."""

    def __init__(
        self,
        directory: Path,
        durable: bool = False,
        options: tuple[str, ...] = (),
        host: str = "127.0.0.1",
        prefix: tuple[str, ...] = (),
    ) -> None:
        #: Where it listens, and the command that runs it there.
        self.host, self.prefix = host, prefix
        self.directory = directory / "redis"
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.options = options + (("--appendonly", "yes", "--appendfsync", "always") if durable else ())
        self.process: subprocess.Popen[bytes] | None = None
        self._clients: list[Redis] = []
        self.start()

    @property
    def url(self) -> str:
        return f"redis://{self.host}:{self.port}"

    def start(self) -> None:
        with open(self.directory / "log", "ab") as log:
            self.process = subprocess.Popen(
                [
                    *self.prefix,
                    "redis-server",
                    "--port",
                    str(self.port),
                    "--bind",
                    self.host,
                    "--dir",
                    str(self.directory),
                ]
                + ["--save", "", *self.options],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(self.answers, 20, f"redis on port {self.port}")

    def answers(self) -> bool:
        return self.command("ping").strip() == "PONG"

    @cached_property
    def client(self) -> Redis:
        """A connection of the harness's own, named so that no fault hits it by mistake."""
        return self.database(0)

    def database(self, number: int) -> Redis:
        client = Redis(self.host, self.port, db=number, client_name="harness", socket_timeout=30)
        self._clients.append(client)
        return client

    def dead_letters(self, queue: str = "celery", database: int = 0) -> list[dict[str, Any]]:
        """Return what was set aside, oldest first, each with the key ``reason``."""
        found = []
        client = self.database(database) if database else self.client
        for payload in reversed(client.lrange(f"{queue}.dead", 0, -1)):
            envelope = json.loads(payload)
            found.append({**envelope, "reason": envelope["headers"].get("x-celeriac-reason")})
        return found

    def command(self, *words: str) -> str:
        """Send one command and return the text of its answer."""
        return subprocess.run(
            ["redis-cli", "-h", self.host, "-p", str(self.port), *words],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        ).stdout

    def signal(self, signum: int) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signum)

    def kill(self) -> None:
        """End the server as a crash does."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self.kill()


class OwnRabbit:
    """A RabbitMQ node with its own name, ports, home and data."""

    SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")

    def __init__(self, directory: Path, config: str = "") -> None:
        self.directory = directory / "rabbit"
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port, distribution_port = free_port(), free_port()
        self.node = f"t{self.port}@localhost"
        (self.directory / "rabbitmq.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{self.port}\n{config}")
        (self.directory / "enabled_plugins").write_text("[].\n")
        self.environment = {
            **os.environ,
            "HOME": str(self.directory),
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(distribution_port),
            "RABBITMQ_MNESIA_BASE": str(self.directory / "data"),
            "RABBITMQ_LOG_BASE": str(self.directory / "logs"),
            "RABBITMQ_CONFIG_FILE": str(self.directory / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.directory / "enabled_plugins"),
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def start(self) -> None:
        server = str(self.SERVER) if self.SERVER.exists() else shutil.which("rabbitmq-server") or "rabbitmq-server"
        with open(self.directory / "out", "ab") as log:
            self.process = subprocess.Popen(
                [server], env=self.environment, stdout=log, stderr=log, start_new_session=True, cwd=self.directory
            )
        wait_until(lambda: self.answers() or not self.is_running(), 90, f"rabbitmq on port {self.port}")
        if not self.is_running():
            raise RuntimeError(f"RabbitMQ did not start: {(self.directory / 'out').read_text()[-2000:]}")

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def answers(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def ctl(self, *words: str) -> str:
        """Run ``rabbitmqctl`` on this node."""
        tool = self.SERVER.with_name("rabbitmqctl")
        command = [str(tool) if tool.exists() else "rabbitmqctl", "-q", "-n", self.node, *words]
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=90, check=False
        ).stdout

    def close(self) -> None:
        assert self.process is not None
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()

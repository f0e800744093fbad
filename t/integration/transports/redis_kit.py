"""A Redis server of one's own, an event loop turned by hand, a consumer that keeps what it gets."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import kombu
import pytest
import redis
from kombu.asynchronous import Hub, set_event_loop


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Server:
    """A ``redis-server`` process that tests may kill, stop and start again."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = ["redis-server", "--port", str(self.port), "--dir", str(self.folder), "--save", "", *self.options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while True:
            try:
                self.client().ping()
                return
            except redis.RedisError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def send_signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            self.process.wait(20)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.send_signal(signal.SIGKILL)

    def client(self, db: int = 0) -> Any:
        return redis.Redis(port=self.port, db=db)

    def url(self, db: int = 0) -> str:
        return f"redis://127.0.0.1:{self.port}/{db}"


def new_server(folder: Path, *options: str) -> Server:
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    server = Server(folder, *options)
    server.start()
    return server


class Loop:
    """kombu's event loop, turned by hand."""

    def __init__(self) -> None:
        self.hub = Hub()
        set_event_loop(self.hub)

    def listen(self, connection: Any) -> None:
        connection.connect()
        connection.transport.register_with_event_loop(connection.connection, self.hub)

    def until(self, condition: Any, seconds: float = 10) -> None:
        self.hub.call_later(0.001, lambda: None)
        deadline = time.monotonic() + seconds
        ticker = self.hub.call_repeatedly(0.02, lambda: None)
        try:
            while not condition():
                assert time.monotonic() < deadline, "the condition did not come true in time"
                self.hub.run_once()
        finally:
            ticker.cancel()

    def spin(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        self.until(lambda: time.monotonic() >= end, seconds + 5)


class Inbox:
    """A consumer that keeps what it gets."""

    def __init__(
        self, connection: Any, *queues: str, prefetch: int = 8, ack: bool = False, no_ack: bool = False
    ) -> None:
        self.messages: list[Any] = []
        self.ack = ack
        self.channel = connection.channel()
        self.channel.basic_qos(0, prefetch, False)
        self.consumer = connection.Consumer(
            [
                kombu.Queue(name, channel=self.channel, exchange=kombu.Exchange(name), routing_key=name)
                for name in queues
            ],
            channel=self.channel,
            on_message=self.take,
            accept=["json"],
            no_ack=no_ack,
        )
        self.consumer.consume()

    def take(self, message: Any) -> None:
        self.messages.append(message)
        if self.ack:
            message.ack()

    @property
    def bodies(self) -> list[Any]:
        return [message.payload for message in self.messages]


def send(connection: Any, queue: str, *bodies: Any, **options: Any) -> None:
    producer = connection.Producer()
    for body in bodies:
        producer.publish(body, exchange="", routing_key=queue, serializer="json", **options)


def drain(connection: Any, wanted: Any, seconds: float = 10) -> None:
    """Drain without an event loop until ``wanted()``."""
    deadline = time.monotonic() + seconds
    while not wanted():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        try:
            connection.drain_events(timeout=0.1)
        except TimeoutError:
            pass

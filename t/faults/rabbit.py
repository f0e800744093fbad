"""A RabbitMQ node that all scenarios of this process share, for one takes long to start; each has its own vhost."""

from __future__ import annotations

import atexit
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import amqp
from messages import body_for, headers_for, new_id
from scenario import Skipped
from servers import OwnRabbit

_nodes: list[OwnRabbit] = []


def node() -> OwnRabbit:
    """Return the node; starts it at the first call.  Its channels look for late acknowledgements every second."""
    if not _nodes:
        if not OwnRabbit.SERVER.exists() and shutil.which("rabbitmq-server") is None:
            raise Skipped("there is no rabbitmq-server")
        directory = tempfile.mkdtemp(prefix="rabbit-")
        _nodes.append(OwnRabbit(Path(directory).resolve()))
        atexit.register(stop, directory)
        _nodes[0].ctl("await_startup")
        _nodes[0].ctl("eval", "application:set_env(rabbit, channel_tick_interval, 1000).")
    return _nodes[0]


def stop(directory: str) -> None:
    _nodes.pop().close()
    shutil.rmtree(directory, ignore_errors=True)


class Vhost:
    """A virtual host of the node, empty at the start."""

    def __init__(self, name: str) -> None:
        self.node, self.name = node(), name
        self._connection: Any = None
        self.evaluate(
            f'rabbit_vhost:add(<<"{name}">>, <<"harness">>), '
            f'rabbit_auth_backend_internal:set_permissions(<<"guest">>, <<"{name}">>, <<".*">>, <<".*">>, <<".*">>, '
            '<<"harness">>).'
        )
        self.channel()

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.node.port}/{self.name}"

    def evaluate(self, erlang: str) -> str:
        return self.node.ctl("eval", erlang)

    def connect(self) -> Any:
        """Return a connection of the harness's own."""
        connection = amqp.Connection(
            f"127.0.0.1:{self.node.port}", "guest", "guest", login_method="PLAIN", virtual_host=self.name
        )
        connection.connect()
        return connection

    def channel(self) -> Any:
        """Return a channel of the harness's connection, which a fault may have closed."""
        if self._connection is None or not self._connection.connected:
            self.close()
            self._connection = self.connect()
            self._channel = self._connection.channel()
        return self._channel

    def fresh(self) -> Any:
        """Return a channel on a new connection."""
        self.close()
        return self.channel()

    def close(self) -> None:
        """Drop the harness's connection."""
        if self._connection is not None:
            self._connection.collect()
            self._connection = None

    def publish(self, message: Any, queue: str = "celery") -> None:
        self.channel().basic_publish(message, exchange="", routing_key=queue)

    def send(self, task: str, args: Sequence[Any] = (), queue: str = "celery") -> str:
        """Publish a task of the fault app and return its id."""
        task_id = new_id()
        message = amqp.Message(
            body_for(args),
            content_type="application/json",
            content_encoding="utf-8",
            application_headers=headers_for(f"faultapp.{task}", task_id),
            delivery_mode=2,
        )
        self.publish(message, queue)
        return task_id

    def count(self, queue: str = "celery") -> int:
        """Return how many messages wait in a queue; 0 where there is none."""
        try:
            return int(self.channel().queue_declare(queue, passive=True).message_count)
        except amqp.NotFound:
            self.fresh()
            return 0

    def held(self, queue: str = "celery") -> int:
        """Return how many messages of a queue are delivered and not acknowledged."""
        listed = self.node.ctl("-p", self.name, "list_queues", "name", "messages_unacknowledged")
        return sum(int(line.split()[1]) for line in listed.splitlines() if line.split()[:1] == [queue])

    def dead_letters(self, queue: str = "celeriac.dead") -> Iterator[Any]:
        """Take and yield what was set aside."""
        while self.count(queue):
            message = self.channel().basic_get(queue, no_ack=True)
            if message is not None:
                yield message

    def close_connections(self) -> None:
        self.node.ctl("close_all_connections", "-p", self.name, "fault")

    def reset_one(self, dice: random.Random) -> None:
        """Reset one connection to the node, whoever has it."""
        peer = ["dst", "127.0.0.1", "dport", "=", f":{self.node.port}"]
        listed = subprocess.run(["ss", "-tnH", *peer], capture_output=True, text=True, timeout=10, check=False).stdout
        ports = [line.split()[3].rpartition(":")[2] for line in listed.splitlines()]
        if ports:
            command = ["ss", "-K", *peer, "sport", "=", f":{dice.choice(ports)}"]
            subprocess.run(command, capture_output=True, timeout=10, check=False)

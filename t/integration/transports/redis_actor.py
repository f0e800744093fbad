"""A consumer or a publisher as a process of its own, to be killed: ``python redis_actor.py URL JOB OPTIONS-AS-JSON``."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import kombu
from kombu.asynchronous import Hub, set_event_loop

from celery.transports import Connection


def consume(connection: Connection, log: str, count: int, hold: float = 0.0, started: bool = False, **_: Any) -> None:
    """Take messages until ``count`` are done or nothing comes; note each in ``log`` before it is acknowledged."""
    hub = Hub()
    set_event_loop(hub)
    connection.connect()
    connection.transport.register_with_event_loop(connection.connection, hub)
    channel = connection.channel()
    channel.basic_qos(0, 4, False)
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    done = 0

    def take(message: Any) -> None:
        nonlocal done
        if started:
            message.started()
        os.write(file, f"{message.payload['n']}\n".encode())
        if hold:
            hub.call_later(hold, message.ack)
        else:
            message.ack()
        done += 1

    consumer = connection.Consumer([kombu.Queue("jobs", channel=channel)], channel=channel, on_message=take)
    consumer.consume()
    print("ready", flush=True)
    last, seen = time.monotonic(), 0
    hub.call_repeatedly(0.05, lambda: None)
    while done < count and time.monotonic() - last < 8:
        hub.run_once()
        if done != seen:
            last, seen = time.monotonic(), done
    connection.release()
    hub.close()


def publish(connection: Connection, log: str, count: int, start: int = 0, **_: Any) -> None:
    """Publish ``count`` messages; note each in ``log`` after the call returned."""
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    producer = connection.Producer()
    print("ready", flush=True)
    for number in range(start, start + count):
        producer.publish({"n": number}, exchange="", routing_key="jobs")
        os.write(file, f"{number}\n".encode())


def main(url: str, job: str, options: str) -> None:
    settings = json.loads(options)
    connection = Connection(url, transport_options=settings.pop("transport_options", {}))
    {"consume": consume, "publish": publish}[job](connection, **settings)


if __name__ == "__main__":
    main(*sys.argv[1:])

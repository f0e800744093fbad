"""RabbitMQ's `consumer_timeout`: how long a message may stay unacknowledged before the channel is closed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from celery.utils.log import get_logger

__all__ = ("tasks_over_timeout", "warn_of_long_tasks")

logger = get_logger(__name__)

#: Seconds, since RabbitMQ 3.8.17.  The broker does not tell whether its operator has set another.
BROKER_DEFAULT = 1800.0
ARGUMENT = "x-consumer-timeout"


def tasks_over_timeout(tasks: Iterable[Any], timeout: float, default_limit: float | None = None) -> list[str]:
    """Return the names of those that acknowledge late and have a time limit above ``timeout`` seconds."""
    found = []
    for task in tasks:
        limit = task.time_limit if task.time_limit is not None else default_limit
        if task.acks_late and limit is not None and limit > timeout and not task.name.startswith("celery."):
            found.append(task.name)
    return sorted(found)


def warn_of_long_tasks(consumer: Any) -> None:
    """Warn of tasks that may run for longer than RabbitMQ waits, as far as that can be known from here."""
    connection = consumer.connection
    if connection.transport.driver_type != "amqp" or consumer.restart_count > 0:
        return
    properties = getattr(connection.connection, "server_properties", None) or {}
    if properties.get("product") != "RabbitMQ":
        return
    app = consumer.app
    told = [(queue.queue_arguments or {}).get(ARGUMENT) for queue in app.amqp.queues.consume_from.values()]
    known = [milliseconds / 1000 for milliseconds in told if isinstance(milliseconds, (int, float))]
    timeout = min([*known, BROKER_DEFAULT]) if len(known) < len(told) else min(known, default=BROKER_DEFAULT)
    names = tasks_over_timeout(app.tasks.values(), timeout, app.conf.task_time_limit)
    if names:
        logger.warning(
            "Tasks with late acknowledgement may run for longer than RabbitMQ waits (`consumer_timeout`, %s %g s): %s. "
            "It would deliver them again; this worker does not run them twice, another might. Raise the timeout "
            "(`%s` of the queue), lower the time limit, or acknowledge early.",
            "here" if known and timeout in known else "by default",
            timeout,
            ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else ""),
            ARGUMENT,
        )

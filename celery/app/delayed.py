"""Native delayed delivery: RabbitMQ keeps a delayed message in queues of its own, instead of a worker in its memory.

Upstream: the delay in seconds, as 28 binary digits, goes in front of the routing key; each digit that is set is a
queue in which the message waits 2^n seconds.  Workers declare these queues.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import TYPE_CHECKING, Any

from kombu import Exchange
from kombu.transport.native_delayed_delivery import MAX_LEVEL, calculate_routing_key, level_name

from celery.protocol.task import parse_time
from celery.transports import resolve
from celery.utils.quorum_queues import detect_quorum_queues
from celery.utils.time import maybe_make_aware

if TYPE_CHECKING:
    from celery.app.base import Celery

__all__ = ("is_possible", "rerouted")

logger = logging.getLogger(__name__)

_LONGEST = 2 ** (MAX_LEVEL + 1) - 1


def is_possible(app: Celery) -> bool:
    """Whether messages go to RabbitMQ and at least one queue is a quorum queue."""
    driver_type = getattr(resolve(app.conf.broker_transport or app.conf.broker_write_url), "driver_type", None)
    return driver_type == "amqp" and bool(detect_quorum_queues(app, driver_type)[0])


def rerouted(app: Celery, options: dict[str, Any], countdown: float | None, eta: Any) -> dict[str, Any]:
    """Return ``options`` for a message that waits in the broker; unchanged where that cannot be."""
    queue = options.get("queue")
    seconds = _delay(app, countdown, eta)
    if queue is None or not 1 <= seconds <= _LONGEST:
        return options
    if queue.exchange is None or queue.exchange.type == "direct":
        logger.warning(
            "Queue %s has a direct exchange, which cannot take delayed messages back: the worker will hold the task. "
            "Give it a topic exchange.",
            queue.name,
        )
        return options
    return {
        **{name: value for name, value in options.items() if name not in ("queue", "exchange_type")},
        "exchange": Exchange(level_name(MAX_LEVEL), type="topic"),
        "routing_key": calculate_routing_key(seconds, options.get("routing_key") or queue.routing_key),
    }


def _delay(app: Celery, countdown: float | None, eta: Any) -> int:
    if countdown:
        return int(countdown)
    if isinstance(eta, str):
        eta = parse_time(eta)
    if not isinstance(eta, datetime):
        return 0
    return int((maybe_make_aware(eta, app.timezone) - app.now()).total_seconds())

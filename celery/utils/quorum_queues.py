"""Quorum queues of RabbitMQ: is one configured?"""

from __future__ import annotations

from typing import Any


def detect_quorum_queues(app: Any, driver_type: str) -> tuple[bool, str]:
    """Return whether any queue of ``app`` is a quorum queue, and its name (``""`` if none).

    Only AMQP has them, so the answer is no for other drivers.
    """
    if driver_type != "amqp":
        return False, ""
    for name, queue in app.amqp.queues.items():
        if (queue.queue_arguments or {}).get("x-queue-type") == "quorum":
            return True, name
    return False, ""

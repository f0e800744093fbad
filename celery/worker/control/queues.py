"""Commands about the queues that are consumed."""

from __future__ import annotations

from typing import Any

from celery.worker.control.panel import check_texts, control_command, inspect_command, ok

__all__ = ("active_queues", "add_consumer", "cancel_consumer")


@control_command(
    args=[("queue", str), ("exchange", str), ("exchange_type", str), ("routing_key", str)],
    signature="<queue> [exchange [type [routing_key]]]",
)
def add_consumer(
    state: Any,
    queue: str,
    exchange: str | None = None,
    exchange_type: str | None = None,
    routing_key: str | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Consume from one more queue."""
    check_texts(queue=queue, exchange=exchange or "", exchange_type=exchange_type or "", routing_key=routing_key or "")
    state.consumer.call_soon(
        state.consumer.add_task_queue, queue, exchange, exchange_type or "direct", routing_key, **options
    )
    return ok(f"add consumer {queue}")


@control_command(args=[("queue", str)], signature="<queue>")
def cancel_consumer(state: Any, queue: str, **_: Any) -> dict[str, Any]:
    """Consume from a queue no longer."""
    check_texts(queue=queue)
    state.consumer.call_soon(state.consumer.cancel_task_queue, queue)
    return ok(f"no longer consuming from {queue}")


@inspect_command()
def active_queues(state: Any) -> list[dict[str, Any]]:
    """List the queues that are consumed."""
    task_consumer = state.consumer.task_consumer
    return [dict(queue.as_dict(recurse=True)) for queue in task_consumer.queues] if task_consumer else []

"""The consumer of the task queues, and its credit."""

from __future__ import annotations

from typing import Any

from kombu.common import QoS, ignore_errors

from celery import bootsteps
from celery.utils.log import get_logger
from celery.utils.quorum_queues import detect_quorum_queues
from celery.worker import state
from celery.worker.consumer.consumer_timeout import warn_of_long_tasks
from celery.worker.consumer.mingle import Mingle

__all__ = ("Tasks",)

logger = get_logger(__name__)


class Tasks(bootsteps.StartStopStep):
    """Makes the strategies, opens the queues and sets the prefetch count.  The loop starts to consume."""

    requires = (Mingle,)

    def __init__(self, c: Any, **kwargs: Any) -> None:
        c.task_consumer = c.qos = None
        super().__init__(c, **kwargs)

    def start(self, c: Any) -> None:
        c.update_strategies()
        warn_of_long_tasks(c)
        c.qos_global = apply_global = self.qos_global(c)
        # Set on the channel before the consumer exists, so that the first delivery is within the limit.
        c.connection.default_channel.basic_qos(0, c.initial_prefetch_count, apply_global)
        c.task_consumer = c.app.amqp.TaskConsumer(c.connection, on_decode_error=c.on_decode_error)

        def set_prefetch_count(prefetch_count: int) -> Any:
            return c.task_consumer.qos(prefetch_count=prefetch_count, apply_global=apply_global)

        c.qos = QoS(set_prefetch_count, c.initial_prefetch_count, max_prefetch=c.app.conf.worker_eta_task_limit)
        if c.app.conf.worker_disable_prefetch:
            self._take_only_when_free(c)

    def stop(self, c: Any) -> None:
        if c.task_consumer is not None:
            logger.debug("Canceling task consumer...")
            ignore_errors(c, c.task_consumer.cancel)

    def shutdown(self, c: Any) -> None:
        if c.task_consumer is not None:
            self.stop(c)
            logger.debug("Closing consumer channel...")
            ignore_errors(c, c.task_consumer.close)
            c.task_consumer = None

    def info(self, c: Any) -> dict[str, Any]:
        return {"prefetch_count": c.qos.value if c.qos else "N/A"}

    def qos_global(self, c: Any) -> bool:
        """Return whether the prefetch count is the channel's, so that it can be changed while consumers run.

        Quorum queues know only that of a consumer.
        """
        if c.app.conf.worker_detect_quorum_queues:
            found, name = detect_quorum_queues(c.app, c.connection.transport.driver_type)
            if found:
                logger.info("Queue %s is a quorum queue: the prefetch count is fixed.", name)
                return False
        return not c.connection.qos_semantics_matches_spec

    def _take_only_when_free(self, c: Any) -> None:
        """Let the channel fetch only while a slot of the pool is free (``worker_disable_prefetch``)."""
        channel_qos = getattr(c.task_consumer.channel, "qos", None)
        if channel_qos is None or not hasattr(channel_qos, "can_consume"):
            logger.warning("worker_disable_prefetch has no effect with this broker: it pushes what the credit allows.")
            return
        within_credit = channel_qos.can_consume

        def can_consume() -> bool:
            return len(state.reserved_requests) < c.pool.num_processes and within_credit()

        channel_qos.can_consume = can_consume

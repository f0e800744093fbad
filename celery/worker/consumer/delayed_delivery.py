"""RabbitMQ's native delayed delivery: the chain of queues in which messages wait for their ETA."""

from __future__ import annotations

from typing import Any

from kombu.transport.native_delayed_delivery import (
    bind_queue_to_native_delayed_delivery_exchange,
    declare_native_delayed_delivery_exchanges_and_queues,
)
from kombu.utils.functional import retry_over_time

from celery import bootsteps
from celery.utils.log import get_logger
from celery.utils.quorum_queues import detect_quorum_queues
from celery.worker.consumer.tasks import Tasks

__all__ = ("DelayedDelivery",)

logger = get_logger(__name__)

QUEUE_TYPES = {"classic", "quorum"}
MAX_RETRIES = 3


class DelayedDelivery(bootsteps.StartStopStep):
    """Declares the chain and binds the consumed queues to its end, on every broker that is written to."""

    requires = (Tasks,)

    def include_if(self, c: Any) -> bool:
        return bool(detect_quorum_queues(c.app, c.app.connection_for_write().transport.driver_type)[0])

    def start(self, c: Any) -> None:
        queue_type = c.app.conf.broker_native_delayed_delivery_queue_type
        if queue_type not in QUEUE_TYPES:
            raise ValueError(f"broker_native_delayed_delivery_queue_type must be classic or quorum, is {queue_type!r}")
        urls = _urls(c.app.conf.broker_write_url or c.app.conf.broker_url)
        failed = [url for url in urls if not self._prepare(c, url, queue_type)]
        if failed and len(failed) == len(urls):
            raise ConnectionError("Native delayed delivery could not be set up at any broker")

    def _prepare(self, c: Any, url: str, queue_type: str) -> bool:
        """Set the broker at ``url`` up; returns false if it cannot be reached."""
        try:
            retry_over_time(
                self._declare,
                args=(c, url, queue_type),
                catch=(ConnectionRefusedError, OSError),
                max_retries=MAX_RETRIES,
                interval_start=1,
                interval_step=1,
                interval_max=3,
            )
        except OSError as exc:
            logger.warning(
                "Native delayed delivery could not be set up at %s: %s", c.app.connection_for_write(url).as_uri(), exc
            )
            return False
        return True

    def _declare(self, c: Any, url: str, queue_type: str) -> None:
        with c.app.connection_for_write(url=url) as connection:
            declare_native_delayed_delivery_exchanges_and_queues(connection, queue_type)
            for queue in c.app.amqp.queues.values():
                bind_queue_to_native_delayed_delivery_exchange(connection, queue)


def _urls(setting: Any) -> list[str]:
    """Return the URLs of a broker setting: a list, or text with ``;`` between them."""
    urls = setting.split(";") if isinstance(setting, str) else setting or ()
    return list(dict.fromkeys(url.strip() for url in urls if url and url.strip()))

"""Tasks that wait at the broker for their time, as far as this worker's queues are concerned."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from typing import Any

from celery.utils.log import get_logger
from celery.worker.request import Request

__all__ = ("Delays",)

logger = get_logger(__name__)

#: Most tasks of one queue that are shown.
MOST_SHOWN = 100
#: RabbitMQ confirms many durable messages at a time, every 50 to 200 ms: so many may be on their way, and the credit is
#: raised by that until nothing was parked for so many seconds.  With 200, a worker parks about 3,000 a second.
PARKING_CREDIT, PARKING_PAUSE = 200, 1.0
#: Upstream: the priority that the worker's timer gives to tasks with an ETA.
PRIORITY = 6


class Delays:
    """Looks at what the broker keeps until it is due; a broker that cannot tell has nothing to show."""

    def __init__(self, consumer: Any) -> None:
        self.consumer = consumer
        self._extra = 0
        self._timer: Any = None

    def hear_of(self, connection: Any) -> None:
        """Take more messages while ``connection`` parks some, if its broker is slow to confirm that they are stored."""
        parking = getattr(connection.connection, "parking", None)
        if parking is not None:
            parking.on_busy = self._on_busy

    def _on_busy(self, is_busy: bool) -> None:
        consumer = self.consumer
        if is_busy and not self._extra and consumer.qos_global:
            self._extra = PARKING_CREDIT
            consumer.qos.increment_eventually(self._extra)
        elif not is_busy and self._extra and self._timer is None:
            self._timer = consumer.timer.call_after(PARKING_PAUSE, self._return_credit)

    def _return_credit(self) -> None:
        self._timer = None
        self.consumer.qos.decrement_eventually(self._extra)
        self._extra = 0

    def parked(self, ids: Iterable[str] = ()) -> list[dict[str, Any]]:
        """Return the next tasks of each queue, or those with these ids, as ``inspect scheduled`` shows them."""
        task_consumer = self.consumer.task_consumer
        look = getattr(task_consumer and task_consumer.channel, "parked", None)
        if look is None:
            return []
        try:
            return list(self._described(look([queue.name for queue in task_consumer.queues], MOST_SHOWN, ids)))
        except (*self.consumer.connection_errors, *self.consumer.channel_errors) as error:
            logger.warning("Could not look at the tasks that wait at the broker: %s", error)
            return []

    def _described(self, parked: Iterable[tuple[float, Any]]) -> Iterator[dict[str, Any]]:
        for due, message in parked:
            request = Request(message, app=self.consumer.app, hostname=self.consumer.hostname)
            eta = request.eta or datetime.fromtimestamp(due, timezone.utc)
            yield {"eta": eta.isoformat(), "priority": PRIORITY, "request": request.info()}

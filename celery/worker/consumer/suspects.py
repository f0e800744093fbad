"""Messages that were delivered before: one of them may be what killed its worker.

With several tasks in one process group nobody knows which of them did it, and one that kills its worker at once does
so before anybody has noted that it began.  So a message that comes a second time is run with more care:

- that it starts is put on record, and confirmed, before it starts;
- one that is known to have been running when a worker was lost runs beside no other of them in the same worker, for
  its first minute: so only the guilty one is lost again, and the innocent are not counted with it;
- the third time the message is set aside.

Redis and SQLite keep the count in the message.  RabbitMQ tells no more than that a message was delivered before; there
the count is kept beside it (`Ledger`).
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from time import monotonic
from typing import Any

from billiard.exceptions import WorkerLostError

from celery.concurrency.base import exception_info
from celery.transports.dead_letters import dead_letter
from celery.transports.message import lost_too_often
from celery.utils.failpoints import is_active
from celery.utils.log import get_logger
from celery.worker import state
from celery.worker.consumer.adoption import key_of

__all__ = ("Ledger", "Suspects")

logger = get_logger(__name__)

#: A message is set aside when it has lost its worker so often; ``max_redeliveries`` in ``broker_transport_options``.
MOST_LOSSES = 3

#: Nothing waits longer than so many seconds for one that might kill this worker, and has not done so by then.
LONGEST_QUARANTINE = 60.0

#: Whether a test of the tests has switched this protection off.
_LOSES_COUNT = is_active("unprotect.count")


class Suspects:
    """Runs what was delivered before; ``consumer.run_again`` is its door."""

    def __init__(self, consumer: Any) -> None:
        self.consumer = consumer
        app = consumer.app
        self._most = int(app.conf.broker_transport_options.get("max_redeliveries", MOST_LOSSES))
        counts_here = consumer.conninfo.transport.driver_type == "amqp" and self._most and not _LOSES_COUNT
        self._ledger = Ledger(app) if counts_here else None
        #: Not looked at yet; then those that wait for others to be over, each with its losses.
        self._line: deque[Any] = deque()
        self._waiting: deque[tuple[Any, int]] = deque()
        #: Those that run, and may be what kills this worker.
        self._running: dict[Any, int] = {}
        self._is_working = False

    def add(self, request: Any) -> None:
        """Run ``request``, soon."""
        if self._ledger is None and (_LOSES_COUNT or not hasattr(request.message, "redelivery_count")):
            self.consumer.on_task_request(request)
            return
        self._line.append(request)
        self._soon(self._work)

    def clear(self) -> None:
        """Forget what waits here: it belongs to the broker again."""
        for request in (*self._line, *(request for request, _ in self._waiting)):
            state.task_ready(request)
        self._line.clear()
        self._waiting.clear()

    def close(self) -> None:
        if self._ledger is not None:
            self._ledger.close()

    def _soon(self, function: Callable[..., Any], *args: Any) -> None:
        """Call ``function`` in the next turn of the loop: a question to the broker may bring more messages."""
        if self.consumer.hub:
            self.consumer.hub.call_soon(function, *args)
        else:
            function(*args)

    def _work(self) -> None:
        if self._is_working:
            return
        self._is_working = True
        try:
            while self._line:
                self._place(self._line.popleft())
        finally:
            self._is_working = False

    def _place(self, request: Any) -> None:
        """Have it run, or set it aside."""
        if self._ledger is None:
            losses = request.message.redelivery_count
        else:
            losses = self._ledger.count(request)
            if losses >= self._most:
                return self._set_aside(request, losses)
        self._waiting.append((request, losses))
        return self._run_next()

    def _run_next(self) -> None:
        """Run what waits, in order: with losses by itself, others together."""
        running = self._running
        while self._waiting and not any(running.values()):
            request, losses = self._waiting[0]
            if losses and running:
                return
            self._waiting.popleft()
            running[request] = losses
            self._run(request, losses)

    def _run(self, request: Any, losses: int) -> None:
        if self.consumer.hub:
            self.consumer.hub.call_later(LONGEST_QUARANTINE, self._leave, request)
        request.on_over = self._on_over
        request.before_start = partial(self._record_start, request, losses)
        # Nobody asks for the frame of a request in a pool that takes no jobs.
        if hasattr(self.consumer.pool, "submit") or request.before_start():
            self.consumer.on_task_request(request)

    def _record_start(self, request: Any, losses: int) -> bool:
        """Put on record that ``request`` starts; returns false if it must not, for it is the broker's again."""
        request.before_start = None
        if self._ledger is not None:
            _send_answers(request)  # for what ended beside it must not come again
            # Of the loss before the first record nobody knows whether it had started: it counts, if others follow.
            request.losses_on_record = losses + self._ledger.add(request, 1 if losses else 2)
            return True
        try:
            request.message.record_start()
        except self.consumer.connection_errors as error:  # whoever turns the loop hears of it, too
            logger.debug("Task %s goes back to the broker, its start could not be recorded: %r", request.id, error)
            request.message.unstart()
            state.task_ready(request)
            return False
        except Exception as error:  # the connection lives, and nobody else would run it
            logger.warning("Task %s runs without a record of its start: %r", request.humaninfo(), error)
        return True

    def _on_over(self, request: Any) -> None:
        self._soon(self._see_off, request)  # first the answer to the broker

    def _see_off(self, request: Any) -> None:
        """Let the next one run once nothing counts against ``request``, for that one may kill us at once."""
        if self._ledger is not None:
            _send_answers(request)
            self._forget(request)
        self._leave(request)

    def _leave(self, request: Any) -> None:
        """Others need not wait for it any more."""
        if self._running.pop(request, None) is not None:
            self._run_next()

    def _forget(self, request: Any) -> None:
        if not request.is_lost and request.losses_on_record and self._ledger is not None:
            self._ledger.forget(request)

    # -- where the broker does not count

    def requeue_lost(self, request: Any, cause: str) -> str | None:
        """Put the message of ``request`` back because its process was lost, or set it aside; returns why, then."""
        if self._ledger is not None:
            request.is_lost = True
            losses = request.losses_on_record or self._ledger.add(request, 1)
            if losses >= self._most:
                reason = lost_too_often(losses, cause)
                if dead_letter(request.message, reason):
                    self._ledger.forget(request)
                return reason
        request.on_reject(logger, self.consumer.connection_errors, True)
        return None

    def _set_aside(self, request: Any, losses: int) -> None:
        reason = lost_too_often(losses)
        logger.error("Task %s is set aside: %s", request.humaninfo(), reason)
        request.acknowledged = True
        state.task_ready(request)
        if dead_letter(request.message, reason) and self._ledger is not None:
            self._ledger.forget(request)
        request.fail(exception_info(WorkerLostError(reason)))


def _send_answers(request: Any) -> None:
    """Send what else waits until the end of the loop's turn: nobody knows whether there will be one."""
    settle = getattr(request.message.channel, "settle_quietly", None)
    if settle is not None:
        settle()


class Ledger:
    """Counts the losses of messages on a RabbitMQ that does not: each is a message in a queue of its own.

    That survives what the broker survives, and knows nothing of other messages.  It has a connection of its own,
    for a broker that is short of memory stops reading from those who publish.
    """

    #: A count that nobody asks for is forgotten after so long.
    EXPIRES_MS = 24 * 3600 * 1000

    #: Seconds for any answer; and for which nothing is asked after a failure.
    TIMEOUT, REST_SECONDS = 5.0, 30.0

    def __init__(self, app: Any) -> None:
        self._app = app
        self._connection: Any = None
        self._channel: Any = None
        self._rests_until = 0.0

    def count(self, request: Any) -> int:
        """Return how many losses of this run of the task are on record."""
        return self._ask(lambda channel: self._declare(channel, request).message_count) or 0

    def add(self, request: Any, losses: int) -> int:
        """Put ``losses`` on record; returns how many are, zero if that did not work."""

        def publish(channel: Any) -> int:
            self._declare(channel, request)
            for _ in range(losses):
                marker = channel.prepare_message(b"", properties={"delivery_mode": 2})
                channel.basic_publish_confirm(
                    marker, exchange="", routing_key=self.queue_of(request), confirm_timeout=self.TIMEOUT
                )
            return losses

        return self._ask(publish) or 0

    def forget(self, request: Any) -> None:
        self._ask(lambda channel: channel.queue_delete(queue=self.queue_of(request)))

    def close(self) -> None:
        """Drop the connection; the next question opens another."""
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            connection.collect()

    def queue_of(self, request: Any) -> str:
        """Return the name of the queue with the losses of this run of the task."""
        task_id, retries, nesting = key_of(request.request_dict) or (request.id, 0, 0)
        if not re.fullmatch(r"[\w.:-]{1,100}", task_id):
            task_id = sha256(task_id.encode()).hexdigest()
        return f"celeriac.losses.{task_id}.{retries}.{nesting}"

    def _declare(self, channel: Any, request: Any) -> Any:
        return channel.queue_declare(
            queue=self.queue_of(request),
            durable=True,
            auto_delete=False,
            arguments={"x-expires": self.EXPIRES_MS},
        )

    def _ask(self, question: Callable[[Any], Any]) -> Any:
        """Return the answer, ``None`` if there is none: the worker goes on without counting for a while."""
        if monotonic() < self._rests_until:
            return None
        is_fresh = self._channel is None
        try:
            return question(self._open())
        except Exception as error:
            self.close()
            if not is_fresh and not isinstance(error, TimeoutError):  # the connection may have died of old age
                return self._ask(question)
            self._rests_until = monotonic() + self.REST_SECONDS
            logger.warning("Losses of workers cannot be counted for %d s: %r", self.REST_SECONDS, error)
            return None

    def _open(self) -> Any:
        if self._channel is None:
            connection = self._connection = self._app.connection_for_write()
            options = {"read_timeout": self.TIMEOUT, "write_timeout": self.TIMEOUT}
            connection.transport_options = {**connection.transport_options, **options}
            # Each address once: kombu would try again after two seconds, in which nothing else is done here.
            last = max(len(connection.alt), 1) - 1
            connection.ensure_connection(max_retries=last, reraise_as_library_errors=False)
            self._channel = connection.channel()
        return self._channel

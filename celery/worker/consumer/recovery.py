"""How a consumer gets its connection, and what it does when that is lost.

Nothing of a lost connection is kept: poller, channels and services are built anew.  The pool goes on meanwhile, and
so do its time limits.
"""

from __future__ import annotations

import time
from typing import Any

from kombu.common import ignore_errors

from celery.app.brokers import is_login_refused, login_refused, unreachable
from celery.exceptions import ImproperlyConfigured, OperationalError
from celery.utils.failpoints import is_active
from celery.utils.log import get_logger
from celery.utils.text import pluralize
from celery.worker import loops, state

__all__ = ("Recovery", "is_login_refused")

logger = get_logger(__name__)

CONNECTION_FAILED = "consumer: Cannot connect to %s: %s.\n%s\n"
NEXT_ATTEMPT = "Trying again in {when:.2f} seconds... ({retries}/{max_retries})"
WAY_OUT = "  Is the broker running there?  --broker-timeout=SECONDS ends the attempts."
CHANNEL_CLOSED = (
    "consumer: The broker closed the channel because a task took longer to acknowledge its message than it allows "
    "(`consumer_timeout` of RabbitMQ; raise it, or acknowledge early). The task goes on and is not run twice here. (%s)"
)
CONNECTION_LOST = "consumer: Connection to broker lost. Trying to re-establish the connection... (%s)"

#: A connection that lived longer than this many seconds is no sign of trouble.
YOUNG_SECONDS = 5.0
#: The pause before the next connection: none after the first loss, then from the shortest, doubling, to the longest.
SHORTEST_PAUSE, LONGEST_PAUSE = 0.1, 3.0

#: Seconds between two looks for running tasks that have ended, while the credit is reduced because of them.
CREDIT_INTERVAL = 0.5

#: What the broker says when it closes a channel because a task takes its time with the acknowledgement, or because
#: the acknowledgement came after that.
LATE_ACKNOWLEDGEMENT = ("delivery acknowledgement", "unknown delivery tag")


#: Whether a test of the tests has switched this protection off.
_GIVES_UP = is_active("unprotect.reconnect")


class Recovery:
    """Keeps a consumer connected."""

    def __init__(self, consumer: Any) -> None:
        self.consumer = consumer
        self._losses = 0
        self._ready_at: float | None = None
        #: Requests of lost connections that run without a share in the present credit.
        self._uncounted: set[Any] = set()
        self._credit_timer: Any = None
        self._give_up_at: float | None = None
        self._last_failure: Exception | None = None

    # -- pace ----------------------------------------------------------------------------------------------------

    def on_ready(self) -> None:
        self._ready_at = time.monotonic()
        if self._uncounted and self._credit_timer is None:
            self._credit_timer = self.consumer.timer.call_repeatedly(CREDIT_INTERVAL, self._return_credit)

    def pace(self) -> None:
        """Wait before another connection, if the last ones died young."""
        if self._losses < 2:
            return
        pause = min(SHORTEST_PAUSE * 2 ** (self._losses - 2), LONGEST_PAUSE)
        if self.consumer.hub:
            loops.turn(self.consumer.hub, pause, until=state_wants_to_stop)
        else:
            time.sleep(pause)
        state.maybe_shutdown()

    # -- connecting ----------------------------------------------------------------------------------------------

    def ensure_connected(self, connection: Any) -> Any:
        consumer = self.consumer
        conf = consumer.app.conf
        retries = conf.broker_connection_retry
        if consumer.first_connection_attempt and conf.broker_connection_retry_on_startup is not None:
            retries = conf.broker_connection_retry_on_startup
        consumer.broker_connection_retry_attempt = 0
        self._set_deadline()
        try:
            if not retries:
                connection.connect()
            else:
                connection = connection.ensure_connection(
                    lambda exc, interval: self._on_attempt_failed(connection, exc, interval),
                    conf.broker_connection_max_retries or None,
                    callback=self._while_waiting,
                )
        except Exception as exc:
            if consumer.first_connection_attempt and is_login_refused(exc):
                raise ImproperlyConfigured(login_refused(connection, exc)) from exc
            if isinstance(exc, (*consumer.connection_errors, OperationalError, OSError)):
                attempts = max(1, consumer.broker_connection_retry_attempt)
                tries = f"{attempts} {pluralize(attempts, 'attempt')}"
                raise OperationalError(f"{unreachable(connection, exc)} Given up after {tries}.") from exc
            raise
        consumer.first_connection_attempt = False
        consumer.broker_connection_retry_attempt = 0
        return connection

    def _set_deadline(self) -> None:
        """Note when to give up: ``--broker-timeout`` is about the first connection only."""
        options = getattr(getattr(self.consumer, "controller", None), "options", None) or {}
        seconds = options.get("broker_timeout")
        is_first = self.consumer.first_connection_attempt
        self._give_up_at = time.monotonic() + seconds if seconds and is_first else None

    def _on_attempt_failed(self, connection: Any, exc: Exception, interval: float) -> None:
        consumer = self.consumer
        if consumer.first_connection_attempt and is_login_refused(exc):
            raise exc
        consumer.broker_connection_retry_attempt += 1
        self._last_failure = exc
        max_retries = consumer.app.conf.broker_connection_max_retries
        attempt = NEXT_ATTEMPT.format(
            when=interval,
            retries=consumer.broker_connection_retry_attempt,
            max_retries=max_retries or "∞",
        )
        if consumer.first_connection_attempt and consumer.broker_connection_retry_attempt == 1:
            attempt += WAY_OUT
        logger.error(CONNECTION_FAILED, connection.as_uri(), str(exc).rstrip("."), attempt)

    def _while_waiting(self) -> None:
        state.maybe_shutdown()
        consumer = self.consumer
        if self._give_up_at is not None and self._last_failure and time.monotonic() >= self._give_up_at:
            raise self._last_failure
        if consumer.hub and consumer._loop_calls.is_here:
            loops.turn(consumer.hub, 0.01)

    # -- losing --------------------------------------------------------------------------------------------------

    def on_error(self, exc: Exception) -> None:
        """Prepare for the next connection, or raise if no other connection will mend what is wrong."""
        consumer = self.consumer
        self._refuse_the_hopeless(exc)
        was_young = self._ready_at is None or time.monotonic() - self._ready_at < YOUNG_SECONDS
        self._losses = self._losses + 1 if was_young else 1
        self._ready_at = None
        if consumer.connection is not None:
            consumer.on_connection_error_after_connected(exc)
        else:
            consumer.on_connection_error_before_connected(exc)
        consumer.on_close()
        self._let_go()
        if isinstance(exc, consumer.connection_errors) and consumer.connection is not None:
            # First: the steps say goodbye when they stop, and would wait for an answer that never comes.
            ignore_errors(consumer.connection, consumer.connection.collect)
        consumer.suspects.close()  # what cut that connection may have cut this one, without a word
        consumer.blueprint.restart(consumer)
        self._drop_connection()
        if consumer.hub:
            self._clear_hub()

    def _refuse_the_hopeless(self, exc: Exception) -> None:
        consumer = self.consumer
        conf = consumer.app.conf
        if isinstance(exc, consumer.connection_errors):
            if _GIVES_UP or (not conf.broker_connection_retry and consumer.connection is not None):
                raise exc
            return
        if conf.broker_channel_error_retry or any(text in str(exc) for text in LATE_ACKNOWLEDGEMENT):
            return
        raise ImproperlyConfigured(
            f"The broker refused an operation: {exc}. A queue or exchange may exist with other arguments, or the "
            "user may lack a permission."
        ) from exc

    def on_error_before_connected(self, exc: Exception) -> None:
        logger.error(CONNECTION_FAILED, self.consumer.conninfo.as_uri(), exc, "Trying to reconnect...")

    def on_error_after_connected(self, exc: Exception) -> None:
        is_late = any(text in str(exc) for text in LATE_ACKNOWLEDGEMENT)
        logger.warning(CHANNEL_CLOSED if is_late else CONNECTION_LOST, _name_of(exc))
        logger.debug("Connection error: %s", exc)
        if self.consumer.app.conf.worker_cancel_long_running_tasks_on_connection_loss:
            self.consumer.cancel_active_requests()

    def _let_go(self) -> None:
        """Give up what has not begun, for the broker gives it out again, and prepare to adopt the rest."""
        consumer = self.consumer
        withdraw = getattr(consumer.pool, "withdraw", None)
        orphans = []
        for request in list(state.requests.values()):
            has_begun = request.time_start is not None
            if not has_begun and withdraw is not None and withdraw(request):
                state.task_ready(request)
                if getattr(request.message, "has_started", False):  # only on record
                    request.message.unstart()
            elif not getattr(request.message, "has_started", False):  # else the delivery outlives its connection
                orphans.append(request)
        consumer.adoption.on_connection_lost(orphans)
        if withdraw is None and consumer.pool is not None:
            consumer.pool.flush()
        self._reduce_credit()

    def _drop_connection(self) -> None:
        """Close what is left of the connection, without waiting for the broker."""
        consumer = self.consumer
        connection, consumer.connection = consumer.connection, None
        consumer.task_consumer = None
        if connection is not None:
            ignore_errors(connection, connection.collect)

    def _clear_hub(self) -> None:
        """Empty the hub of dead descriptors and put the pool's back."""
        consumer = self.consumer
        hub = consumer.hub
        for callback in hub._pop_ready():
            try:
                callback()
            except Exception as exc:  # it was to read from the connection that is lost
                logger.debug("Dropped with the connection: %r", exc)
        hub.reset()
        hub.on_tick.clear()
        loops.set_event_loop(hub)
        consumer.controller.register_with_event_loop(hub)

    # -- credit --------------------------------------------------------------------------------------------------

    def update_prefetch_count(self, index: int = 0) -> int:
        consumer = self.consumer
        qos = consumer.qos
        if qos is None:
            return 0
        if index and qos.value:  # no limit stays no limit
            change = qos.increment_eventually if index > 0 else qos.decrement_eventually
            change(abs(index) * consumer.prefetch_multiplier)
        return int(qos.value)

    def _reduce_credit(self) -> None:
        """Ask for less while tasks run that the new connection knows nothing of: they hold slots all the same."""
        consumer = self.consumer
        most = consumer.max_prefetch_count
        if not most:
            return
        consumer.initial_prefetch_count = most
        self._uncounted = set()
        if not consumer.app.conf.worker_enable_prefetch_count_reduction:
            return
        running = {request for request in state.active_requests if request.acknowledged or request.is_on_record}
        if not running:
            return
        if consumer.qos_global is False and consumer.conninfo.transport.driver_type == "amqp":
            logger.info(
                "The prefetch count is not reduced: this broker would not let it grow again on a running consumer."
            )
            return
        self._uncounted = running
        multiplier = consumer.prefetch_multiplier
        consumer.initial_prefetch_count = max(multiplier, most - len(running) * multiplier)
        logger.info(
            "Prefetch count reduced to %s of %s until %s running tasks have ended.",
            consumer.initial_prefetch_count,
            most,
            len(running),
        )

    def _return_credit(self) -> None:
        ended = {request for request in self._uncounted if request not in state.active_requests}
        self._uncounted -= ended
        qos, most = self.consumer.qos, self.consumer.max_prefetch_count
        if ended and qos is not None and qos.value < most:
            qos.increment_eventually(min(len(ended) * self.consumer.prefetch_multiplier, most - qos.value))
        if not self._uncounted and self._credit_timer is not None:
            self._credit_timer.cancel()
            self._credit_timer = None


def state_wants_to_stop() -> bool:
    return any(flag is not None and flag is not False for flag in (state.should_stop, state.should_terminate))


def _name_of(exc: Exception) -> str:
    module = type(exc).__module__.partition(".")[0]
    return f"{module}:{type(exc).__name__}" if module != "builtins" else type(exc).__name__

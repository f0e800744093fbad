"""The consumer: services on one broker connection, all built anew when the connection is lost."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

from celery import bootsteps
from celery.transports.dead_letters import dead_letter
from celery.utils.functional import noop
from celery.utils.log import get_logger
from celery.utils.nodenames import gethostname
from celery.worker import loops, state
from celery.worker.consumer.adoption import Adoption
from celery.worker.consumer.bookkeeping import Bookkeeper
from celery.worker.consumer.connection import open_connection
from celery.worker.consumer.delays import Delays
from celery.worker.consumer.limits import RateLimits
from celery.worker.consumer.loop_calls import LoopCalls
from celery.worker.consumer.receiving import Receiver, dump_body
from celery.worker.consumer.recovery import Recovery
from celery.worker.consumer.revocations import Revocations
from celery.worker.consumer.suspects import Suspects
from celery.worker.consumer.watchdog import Watchdog

__all__ = ("Consumer", "Evloop", "dump_body")

logger = get_logger(__name__)

STOPPING = {bootsteps.CLOSE, bootsteps.TERMINATE}


class Consumer:
    """Takes messages and calls ``on_task_request(request)`` with each that is to run now.

    Steps put on it: ``connection``, ``event_dispatcher``, ``task_consumer``, ``qos``, ``heart``, ``gossip``.
    """

    Strategies = dict

    #: Called once, when the first connection consumes.
    init_callback: Callable[[Any], Any] | None = None
    pool: Any = None
    timer: Any = None
    #: Connections so far, less one; the first has the number 0.
    restart_count = -1
    first_connection_attempt = True
    broker_connection_retry_attempt = 0
    #: Entries of the timer that are none of ours, and whether those of this connection may be there.
    timer_entries_before_start: set[Any] | None = None
    timer_entries_registered: bool | None = None

    class Blueprint(bootsteps.Blueprint):
        """The services, in the order in which they start."""

        name = "Consumer"
        default_steps = [
            "celery.worker.consumer.connection:Connection",
            "celery.worker.consumer.mingle:Mingle",
            "celery.worker.consumer.events:Events",
            "celery.worker.consumer.gossip:Gossip",
            "celery.worker.consumer.heart:Heart",
            "celery.worker.consumer.control:Control",
            "celery.worker.consumer.tasks:Tasks",
            "celery.worker.consumer.delayed_delivery:DelayedDelivery",
            "celery.worker.consumer.consumer:Evloop",
            "celery.worker.consumer.agent:Agent",
        ]

        def shutdown(self, parent: Any) -> None:
            self.send_all(parent, "shutdown")

    def __init__(
        self,
        on_task_request: Callable[[Any], Any],
        init_callback: Callable[[Any], Any] = noop,
        hostname: str | None = None,
        pool: Any = None,
        app: Any = None,
        timer: Any = None,
        controller: Any = None,
        hub: Any = None,
        amqheartbeat: float | None = None,
        worker_options: dict[str, Any] | None = None,
        disable_rate_limits: bool = False,
        initial_prefetch_count: int = 2,
        prefetch_multiplier: int = 1,
        **kwargs: Any,
    ) -> None:
        self.app = app
        self.controller = controller
        self.hub = hub
        self.pool = pool
        self.timer = timer
        self.init_callback = init_callback
        self.hostname = hostname or gethostname()
        self.pid = os.getpid()
        self.on_task_request = on_task_request
        #: Called with each request that is to run now.
        self.on_task_message: set[Callable[[Any], Any]] = set()
        self.strategies: dict[str, Callable[..., Any]] = self.Strategies()
        self.conninfo = app.connection_for_read()
        self.connection_errors = self.conninfo.connection_errors
        self.channel_errors = self.conninfo.channel_errors
        self.connection: Any = None
        self.event_dispatcher: Any = None
        self.task_consumer: Any = None
        self.qos: Any = None
        self.qos_global: bool | None = None
        self.heart: Any = None
        self.gossip: Any = None
        self.disable_rate_limits = disable_rate_limits
        self.initial_prefetch_count = initial_prefetch_count
        self.prefetch_multiplier = prefetch_multiplier
        self.amqheartbeat_rate = app.conf.broker_heartbeat_checkrate
        self.amqheartbeat = (app.conf.broker_heartbeat if amqheartbeat is None else amqheartbeat) if hub else 0
        self.loop = loops.asynloop if hub else loops.synloop
        self._loop_calls = LoopCalls(self)
        self._limits = RateLimits(self)
        self.task_buckets = self._limits.buckets
        self._limit_task = self._limits.limit
        self.adoption = Adoption()
        self.delays = Delays(self)
        self.revocations = Revocations(self)
        self.admission = None if app.signing is None else _admission(self)
        self._receiver = Receiver(self)
        self._recovery = Recovery(self)
        self.suspects = Suspects(self)
        #: Called in place of ``on_task_request`` with what was delivered before.
        self.run_again = self.suspects.add
        self._watchdog = Watchdog(self)
        self.bookkeeper = Bookkeeper(app, self.call_soon, timer)
        self.steps: list[Any] = []
        self.blueprint = self.Blueprint(steps=app.steps["consumer"], on_close=self.on_close)
        self.blueprint.apply(self, **{**(worker_options or {}), **kwargs})

    # -- life ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Consume until stopped, over as many connections as that takes."""
        blueprint = self.blueprint
        while blueprint.state not in STOPPING:
            state.maybe_shutdown()
            self._recovery.pace()
            self.restart_count += 1
            self._mark_timers()
            try:
                blueprint.start(self)
            except (*self.connection_errors, *self.channel_errors) as exc:
                if blueprint.state in STOPPING:
                    return
                self._recovery.on_error(exc)

    def stop(self) -> None:
        self.blueprint.stop(self)

    def shutdown(self) -> None:
        self.blueprint.shutdown(self)
        self.suspects.close()
        self.bookkeeper.stop()

    def on_ready(self) -> None:
        """The loop is about to run."""
        self._recovery.on_ready()
        self._watchdog.start()
        impatience = getattr(self.controller, "impatience", None)
        if impatience is not None:
            impatience.note_peers(self.connection)
        self.bookkeeper.start()
        callback, self.init_callback = self.init_callback, None
        if callback:
            callback(self)

    def on_close(self) -> None:
        """The connection, or the worker, is going: what waits here for its time belongs to the broker again."""
        if self.controller and self.controller.semaphore:
            self.controller.semaphore.clear()
        self._watchdog.stop()
        self._drop_waiting()
        if self.admission is not None:
            self.admission.on_close()

    def _mark_timers(self) -> None:
        queue = getattr(self.timer, "_queue", None)
        self.timer_entries_before_start = None if queue is None else {item.entry for item in queue}
        self.timer_entries_registered = True

    def _drop_waiting(self) -> None:
        """Forget the requests that wait for their time or for a token of their rate limit."""
        schedule = getattr(self.timer, "schedule", self.timer)
        for item in list(getattr(schedule, "_queue", ())):
            entry = item.entry
            if entry.fun in (self.apply_eta_task, self._limit_post_eta) and not entry.canceled:
                state.task_ready(entry.args[0])
                entry.cancel()
                entry.args = ()  # a cancelled entry stays in the heap until its time
        for bucket in self.task_buckets.values():
            for request, _ in bucket.contents if bucket is not None else ():
                state.task_ready(request)
        self._limits.clear()
        self.suspects.clear()
        self.timer_entries_registered = False

    def loop_args(self) -> tuple[Any, ...]:
        return (
            self,
            self.connection,
            self.task_consumer,
            self.blueprint,
            self.hub,
            self.qos,
            self.amqheartbeat,
            self.app.clock,
            self.amqheartbeat_rate,
        )

    def register_with_event_loop(self, hub: Any) -> None:
        """Let the steps put what they have on ``hub``."""
        self.blueprint.send_all(self, "register_with_event_loop", args=(hub,), description="Hub.register")

    # -- connections ---------------------------------------------------------------------------------------------

    def connect(self) -> Any:
        """Return a connection to consume from, established; the hub listens to it."""
        return open_connection(self)

    def connection_for_read(self, heartbeat: float | None = None) -> Any:
        return self.ensure_connected(self.app.connection_for_read(heartbeat=heartbeat))

    def connection_for_write(self, url: str | None = None, heartbeat: float | None = None) -> Any:
        return self.ensure_connected(self.app.connection_for_write(url=url, heartbeat=heartbeat))

    def ensure_connected(self, conn: Any) -> Any:
        """Connect ``conn``, trying again as the ``broker_connection_*`` settings say."""
        return self._recovery.ensure_connected(conn)

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        self._recovery.on_error_before_connected(exc)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        self._recovery.on_error_after_connected(exc)

    def cancel_active_requests(self) -> None:
        """Cancel what runs and will be delivered again: late acknowledgement, not acknowledged yet."""
        for request in tuple(state.active_requests):
            if request.task.acks_late and not request.acknowledged:
                request.cancel(self.pool)
                if getattr(request.message, "has_started", False):  # its lease would outlive it
                    request.reject(requeue=True)

    def give_up_requests(self) -> None:
        """Let the broker have back all that it may deliver again: the pool is about to be ended by force."""
        self.cancel_active_requests()
        withdraw = getattr(self.pool, "withdraw", lambda request: False)
        for request in tuple(state.requests.values()):
            if withdraw(request):
                state.task_ready(request)
            elif request.task.acks_late:
                request._already_cancelled = True  # it has begun, which nobody has told us yet

    # -- credit --------------------------------------------------------------------------------------------------

    @property
    def max_prefetch_count(self) -> int:
        """Messages that this worker may hold, by the pool's present size; 0 for no limit."""
        return int(self.pool.num_processes * self.prefetch_multiplier)

    def _update_prefetch_count(self, index: int = 0) -> int:
        """Change the credit after the pool grew (``index`` > 0) or shrank; returns the new one."""
        return self._recovery.update_prefetch_count(index)

    # -- messages ------------------------------------------------------------------------------------------------

    def update_strategies(self) -> None:
        """Make a strategy for every task."""
        self.strategies.clear()
        for name, task in self.app.tasks.items():
            self.strategies[name] = task.start_strategy(self.app, self)
        self.reset_rate_limits()

    @property
    def task_eventer(self) -> Any:
        """The event dispatcher, if it sends events of tasks at present; making them costs time."""
        eventer = self.event_dispatcher
        if eventer is None or not eventer.enabled or (eventer.groups and "task" not in eventer.groups):
            return None
        return eventer

    def create_task_handler(self, promise: Any = None) -> Callable[[Any], None]:
        """Return the function that takes every message of the task queues.  ``promise`` is not needed any more."""
        return self._receiver.handler()

    @property
    def answers_come_from_other_threads(self) -> bool:
        """Whether the pool calls back from threads of its own: pools that take jobs promise not to."""
        return not hasattr(self.pool, "submit")

    def acknowledge(self, message: Any, logger: Any, errors: Any) -> None:
        message.ack_log_error(logger, errors)
        self.adoption.note_acknowledged(message.headers)

    def reject(self, message: Any, logger: Any, errors: Any, requeue: bool = False) -> None:
        message.reject_log_error(logger, errors, requeue)

    def acknowledge_now(self, message: Any) -> None:
        self.acknowledge(message, logger, self.connection_errors)

    def set_aside(self, message: Any, reason: str) -> None:
        """Take ``message`` from its queue and keep it, with the reason, where people can look at it."""
        if self.admission is not None:
            self.admission.give_back(message)
        dead_letter(message, reason)

    def on_unreadable_body(self, message: Any, reason: str) -> None:
        """The process that was to run the task could not read the body; the message may be acknowledged already."""
        self._receiver.on_unreadable_body(message, reason)

    def on_unknown_message(self, body: Any, message: Any) -> None:
        self._receiver.on_unknown_message(body, message)

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        self._receiver.on_unknown_task(body, message, exc)

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        self._receiver.on_invalid_task(body, message, exc)

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        self._receiver.on_decode_error(message, exc)

    # -- queues --------------------------------------------------------------------------------------------------

    def add_task_queue(
        self,
        queue: Any,
        exchange: str | None = None,
        exchange_type: str | None = None,
        routing_key: str | None = None,
        **options: Any,
    ) -> None:
        """Consume from ``queue`` as well: one that is configured, or a new one of that name."""
        queues = self.app.amqp.queues
        consumed = queues.consume_from
        if queue in consumed:
            found = consumed[queue]
        elif queue in queues:
            found = queues[queue]
            queues.select_add(queue)
        else:
            found = queues.select_add(
                queue,
                exchange=queue if exchange is None else exchange,
                exchange_type="direct" if exchange_type is None else exchange_type,
                routing_key=queue if routing_key is None else routing_key,
                **options,
            )
        if not self.task_consumer.consuming_from(queue):
            self.task_consumer.add_queue(found)
            self.task_consumer.consume()
            logger.info("Started consuming from %s", queue)

    def cancel_task_queue(self, queue: Any) -> None:
        logger.info("Canceling queue %s", queue)
        self.app.amqp.queues.deselect(queue)
        self.task_consumer.cancel_by_queue(queue)

    # -- requests ------------------------------------------------------------------------------------------------

    def run(self, request: Any) -> None:
        """Hand on a request that is to run now."""
        (self.run_again if (request.delivery_info or {}).get("redelivered") else self.on_task_request)(request)

    def requeue_lost(self, request: Any, cause: str) -> str | None:
        """Put back a message whose process was lost, where its transport cannot count that; see `Suspects`."""
        return self.suspects.requeue_lost(request, cause)

    # -- times and limits ----------------------------------------------------------------------------------------

    def apply_eta_task(self, task: Any) -> None:
        """The request's time has come."""
        state.task_reserved(task)
        self.run(task)
        self.qos.decrement_eventually()

    def _limit_post_eta(self, request: Any, bucket: Any, tokens: float) -> None:
        self.qos.decrement_eventually()
        self._limits.limit(request, bucket, tokens)

    def bucket_for_task(self, type: Any) -> Any:
        return self._limits.bucket_for(type)

    def reset_rate_limits(self) -> None:
        """Take over the rate limits that the tasks have now."""
        self._limits.reset()

    # -- calls from other threads --------------------------------------------------------------------------------

    def call_soon(self, p: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call ``p`` on the loop's thread, in its next turn."""
        return self._loop_calls.soon(partial(p, *args, **kwargs))

    def call_soon_ack(self, p: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call ``p``, which talks to the broker, on the loop's thread: now if this is it."""
        return p(*args, **kwargs) if self._loop_calls.is_here else self.call_soon(p, *args, **kwargs)

    def perform_pending_operations(self) -> None:
        """Do what other threads have asked for; where there is a hub, it does that itself."""
        self._loop_calls.perform_pending()

    def on_send_event_buffered(self) -> None:
        """The dispatcher holds an event back: send the batch when this turn of the loop is over."""
        self._loop_calls.plan_flush()

    def __repr__(self) -> str:
        return f"<Consumer: {self.hostname} ({self.blueprint.human_state()})>"


def _admission(consumer: Consumer) -> Any:
    from celery.worker.consumer.admission import Admission  # needs cryptography, as does whoever signs

    return Admission(consumer)


class Evloop(bootsteps.StartStopStep):
    """The last step: it returns when the connection is lost or the worker stops."""

    label = "event loop"
    last = True

    def start(self, c: Any) -> None:
        self.patch_all(c)
        c.loop(*c.loop_args())

    def patch_all(self, c: Any) -> None:
        """Tell the queue of the process's messages who consumes here; a place for subclasses."""
        c._loop_calls.move_here()

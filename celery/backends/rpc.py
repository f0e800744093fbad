"""Results as messages: a worker answers to the queue of the one who called.

    caller thread: reply_to = its own id, queue of that name declared
    worker:        record → default exchange, routing key reply_to, correlation id = task id
    caller:        one consumer for all its tasks, begun when somebody first looks or waits

A record can be read once, and only by the process that called the task.  What came and nobody asked for is kept, up
to a bound.
"""

from __future__ import annotations

import threading
import time
import weakref
from contextlib import suppress
from typing import Any

import kombu
from kombu.common import maybe_declare
from kombu.exceptions import OperationalError
from kombu.utils.compat import register_after_fork
from kombu.utils.functional import LRUCache

from celery import states
from celery._state import current_task, task_join_will_block
from celery.backends.asynchronous import AsyncBackendMixin, BaseResultConsumer
from celery.backends.base import Backend
from celery.protocol.result import pending_meta
from celery.utils.log import get_logger

__all__ = ("BacklogLimitExceeded", "RPCBackend")

logger = get_logger(__name__)

#: How many records are kept that came and nobody asked for; beyond, the oldest are forgotten.
RECORDS_MAX = 8192

#: From how many queues of threads that have ended is consumed all the same.
ENDED_THREADS_MAX = 64

#: For so long a declared queue is trusted to be there, in seconds.
DECLARED_SECONDS = 1.0

#: How long one try to connect may take, and how long to wait after a try that failed, in seconds.
CONNECT_SECONDS = 4.0
RECONNECT_SECONDS = 0.5

_NO_CHORDS = (
    'The "rpc" result backend does not support chords: set result_backend to one that does '
    "(Redis, a database, memcached and more). A group chained with a task is a chord too."
)


class BacklogLimitExceeded(Exception):
    """Too many messages came before the one that was looked for."""


class ResultConsumer(BaseResultConsumer):
    """One connection that consumes from the queues of all threads that called tasks with this backend."""

    Consumer = kombu.Consumer

    _connection: Any = None
    _consumer: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._create_binding = self.backend._create_binding
        self._lock = threading.RLock()
        self._wanted: dict[str, weakref.ref[threading.Thread]] = {}
        #: The last record of each task, also of those that have not ended.
        self.latest: LRUCache = LRUCache(limit=RECORDS_MAX)

    def want(self, queue_name: str) -> None:
        """Consume from the queue of this thread too, from the next turn on."""
        if queue_name not in self._wanted:
            self._wanted[queue_name] = weakref.ref(threading.current_thread())
            if self._consumer is None and len(self._wanted) > 4 * ENDED_THREADS_MAX:
                self._leave_old_queues()

    def start(self, initial_task_id: str, no_ack: bool = True, **kwargs: Any) -> None:
        """Open the connection and consume."""
        with self._lock:
            if self._consumer is None:
                connection = self.app.connection()
                connection.ensure_connection(max_retries=1, timeout=CONNECT_SECONDS)
                self._connection = connection
                self._consumer = self.Consumer(
                    connection.default_channel, [], callbacks=[self._on_payload], no_ack=no_ack, accept=self.accept
                )
            if not self._wanted:
                self.want(self.backend.oid)
            self._consume_wanted()

    def _consume_wanted(self) -> bool:
        """Consume from queues that are wanted since the last turn; return whether there were any."""
        fresh = [name for name in list(self._wanted) if not self._consumer.consuming_from(name)]
        for name in fresh:
            queue = self._create_binding(name)
            queue(self._consumer.channel).declare()
            self._consumer.add_queue(queue)
        if fresh:
            self._consumer.consume()
            self._leave_old_queues()
        return bool(fresh)

    def _leave_old_queues(self) -> None:
        """Cancel the oldest queues of threads that have ended; a program may make a thread for each request."""
        ended = [name for name, thread in list(self._wanted.items()) if not _is_alive(thread())]
        for name in ended[:-ENDED_THREADS_MAX]:
            self._wanted.pop(name, None)
            self.backend._declared.pop(name, None)
            if self._consumer is not None:
                self._consumer.cancel_by_queue(name)

    def _on_payload(self, body: Any, message: Any) -> None:
        if not isinstance(body, dict) or "task_id" not in body or "status" not in body:
            logger.warning("A message to the reply queue is no record: %.200r", body)
            return
        self.on_state_change(self.backend.meta_from_decoded(body), message)

    def on_state_change(self, meta: dict[str, Any], message: Any) -> None:
        self.latest[meta["task_id"]] = meta
        super().on_state_change(meta, message)

    def drain_events(self, timeout: float | None = None) -> None:
        """Wait for a message, for ``timeout`` seconds, and hand it on.

        Raises:
            socket.timeout: none came.
        """
        with self._lock:
            try:
                if self._consumer is None:
                    self.start("")
                # messages may have come while the broker was asked
                if not self._consume_wanted():
                    self._connection.drain_events(timeout=timeout)
            except self._errors() as error:
                if isinstance(error, TimeoutError):
                    raise
                logger.warning("Lost the connection for results, connecting again: %r", error)
                self._disconnect()
                time.sleep(min(RECONNECT_SECONDS, timeout or RECONNECT_SECONDS))
                raise TimeoutError("no connection to the broker") from error

    def _errors(self) -> tuple[type[BaseException], ...]:
        connection = self._connection
        own = connection.connection_errors + connection.channel_errors if connection is not None else ()
        return (OperationalError, OSError, *own)

    def collect(self) -> None:
        """Hand on all that has come, without waiting."""
        if not self._lock.acquire(blocking=False):
            return  # somebody listens, and hands on what comes
        try:
            with suppress(TimeoutError):
                if self._consumer is None:
                    self.start("")
                    self.drain_events(timeout=0.1)  # what waits in the queue is on its way
                while True:
                    self.drain_events(timeout=0.001)
        finally:
            self._lock.release()

    def consume_from(self, task_id: str) -> None:
        """Hear of a task: its record comes to a queue that is consumed by whoever listens."""
        if not self._wanted:
            self.want(self.backend.oid)

    def cancel_for(self, task_id: str) -> None:
        """Do nothing: other records come to the same queue."""

    def _disconnect(self) -> None:
        consumer, self._consumer = self._consumer, None
        connection, self._connection = self._connection, None
        self.backend._declared.clear()
        if consumer is not None:
            with suppress(Exception):  # the connection may be lost already
                consumer.cancel()
        if connection is not None:
            with suppress(Exception):
                connection.close()

    def stop(self) -> None:
        """Consume no more.  The queues end with that, and what is in them."""
        with self._lock:
            self._disconnect()

    def on_after_fork(self) -> None:
        super().on_after_fork()
        self._lock = threading.RLock()
        self._wanted = {}
        self.latest = LRUCache(limit=RECORDS_MAX)
        self._consumer = None
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):
                connection.collect()  # closes our end only


class RPCBackend(Backend, AsyncBackendMixin):
    """Results as messages to the one who called."""

    Exchange = kombu.Exchange
    Producer = kombu.Producer
    ResultConsumer = ResultConsumer
    BacklogLimitExceeded = BacklogLimitExceeded

    persistent = False
    supports_autoexpire = True
    supports_native_join = True

    retry_policy = {"max_retries": 20, "interval_start": 0, "interval_step": 1, "interval_max": 1}

    class Consumer(kombu.Consumer):
        """A consumer that leaves declaring to us."""

        auto_declare = False

    class Queue(kombu.Queue):
        """A queue that may vanish, so that its declaration must not be remembered."""

        can_cache_declaration = False

    #: Delivery mode of the records: 2 survives a restart of the broker.
    delivery_mode: int = 1

    def __init__(
        self,
        app: Any,
        connection: Any = None,
        exchange: str | None = None,
        exchange_type: str | None = None,
        persistent: bool | None = None,
        serializer: str | None = None,
        auto_delete: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(app, serializer=serializer, **kwargs)
        self._connection = connection
        self._declared: dict[str, float] = {}
        self.persistent = self.prepare_persistent(persistent)
        self.delivery_mode = 2 if self.persistent else 1
        # Upstream: records go through the default exchange whatever ``exchange`` says
        self.exchange = self.Exchange(
            "", exchange_type or "direct", durable=self.persistent, delivery_mode=self.delivery_mode
        )
        self.auto_delete = auto_delete
        self.thread_safe = True
        self.result_consumer = self.ResultConsumer(
            self, self.app, self.accept, self._pending_results, self._pending_messages
        )
        register_after_fork(self, _after_fork)

    # -- queues

    @property
    def oid(self) -> str:
        """Name of the reply queue of this thread."""
        return self.app.thread_oid

    @property
    def binding(self) -> kombu.Queue:
        """The reply queue of this thread."""
        return self._create_binding(self.oid)

    def _create_binding(self, name: str) -> kombu.Queue:
        return self.Queue(name, self.exchange, name, durable=True, auto_delete=self.auto_delete, expires=self.expires)

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Declare the queue that the answer will come to; not inside a task, which must not wait anyway."""
        if task_join_will_block():
            return
        name = self.oid
        self.result_consumer.want(name)
        now = time.monotonic()
        if self._declared.get(name, 0.0) < now:
            maybe_declare(self._create_binding(name)(producer.channel), retry=True)
            self._declared[name] = now + DECLARED_SECONDS

    def on_reply_declare(self, task_id: str) -> Any:
        """Return what to declare before a record is sent: nothing, the caller did so."""

    def destination_for(self, task_id: str, request: Any) -> tuple[str | None, str]:
        """Return ``(routing key, correlation id)`` for the record of a task."""
        if request is None:
            request = getattr(current_task, "request", None) if current_task else None
            if request is None:
                raise RuntimeError(f"RPC backend missing task request for {task_id!r}")
        return request.reply_to, request.correlation_id or task_id

    # -- records

    def store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **kwargs: Any
    ) -> Any:
        """Send the record to who called; nobody wants it if there is no ``reply_to``."""
        routing_key, correlation_id = self.destination_for(task_id, request)
        if not routing_key:
            return None
        meta = self._make_meta(task_id, self.encode_result(result, state), state, traceback, request)
        with self.app.producer_or_acquire() as producer:
            producer.publish(
                meta,
                exchange=self.exchange,
                routing_key=routing_key,
                correlation_id=correlation_id,
                serializer=self.serializer,
                retry=True,
                retry_policy=self.retry_policy,
                declare=self.on_reply_declare(task_id),
                delivery_mode=self.delivery_mode,
            )
        return result

    def mark_as_revoked_ahead(self, task_id: str) -> None:
        """Without its message nobody knows where an answer would go."""

    def mark_as_lost(self, task_id: str, exc: BaseException, request: Any, store_result: bool = True) -> None:
        """What was sent before cannot be read again, so this may be the second end that is told."""
        self.mark_as_failure(task_id, exc, None, request, store_result)

    def get_task_meta(self, task_id: str, backlog_limit: int = 1000) -> dict[str, Any]:
        """Return the last record that came for a task.

        ``backlog_limit`` is kept for those who pass it: all that came is kept, up to a bound of its own.
        """
        self.result_consumer.collect()
        meta = self.result_consumer.latest.get(task_id)
        if meta is None:
            return pending_meta()
        if meta["status"] in states.READY_STATES:
            with self._pending_results.lock:
                self._pending_messages.take(task_id, None)
        return dict(meta)

    poll = get_task_meta

    def _get_task_meta_for(self, task_id: str) -> dict[str, Any]:
        return self.get_task_meta(task_id)

    def on_out_of_band_result(self, task_id: str, message: Any) -> None:
        """Keep a record that came for a task that nobody waits for."""
        self.result_consumer.on_out_of_band_result(message)

    def on_result_fulfilled(self, result: Any) -> None:
        """Do nothing: the queue is for all tasks of its thread."""

    def forget(self, task_id: str) -> None:
        """Forget what came for a task."""
        self._cache.pop(task_id, None)
        self.result_consumer.latest.pop(task_id, None)
        with self._pending_results.lock:
            self._pending_messages.take(task_id, None)

    def revive(self, channel: Any) -> None:
        """Do nothing: a lost channel is made again with the connection."""

    def as_uri(self, include_password: bool = True) -> str:
        return "rpc://"

    def __reduce__(self, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> tuple[Any, ...]:
        own = {
            "connection": self._connection,
            "exchange": self.exchange.name,
            "exchange_type": self.exchange.type,
            "persistent": self.persistent,
            "serializer": self.serializer,
            "auto_delete": self.auto_delete,
            "expires": self.expires,
        }
        return super().__reduce__(args, {**own, **(kwargs or {})})

    # -- what messages cannot do

    def ensure_chords_allowed(self) -> None:
        raise NotImplementedError(_NO_CHORDS)

    def reload_task_result(self, task_id: str) -> None:
        raise _unsupported("reload_task_result")

    def reload_group_result(self, task_id: str) -> None:
        raise _unsupported("reload_group_result")

    def save_group(self, group_id: str, result: Any) -> None:
        raise _unsupported("save_group")

    def restore_group(self, group_id: str, cache: bool = True) -> None:
        raise _unsupported("restore_group")

    def delete_group(self, group_id: str) -> None:
        raise _unsupported("delete_group")


def _is_alive(thread: threading.Thread | None) -> bool:
    return thread is not None and thread.is_alive()


def _unsupported(what: str) -> NotImplementedError:
    return NotImplementedError(f"{what} is not supported by the rpc result backend: a message can be read only once")


def _after_fork(backend: RPCBackend) -> None:
    backend._declared.clear()
    backend.result_consumer.on_after_fork()

"""The result backend on Redis.

A record is stored with one write, ``MULTI SETEX PUBLISH EXEC``: the key for those who come later, the channel of the
same name for those who wait.  Nothing is subscribed to before somebody waits.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from time import monotonic
from typing import Any

import redis
from kombu.utils.functional import retry_over_time
from redis import exceptions as redis_exceptions

from celery import states
from celery.backends.asynchronous import AsyncBackendMixin
from celery.backends.backend import may_come_late, outlasts
from celery.backends.keyvalue import CHUNK_SIZE, BaseKeyValueStoreBackend
from celery.backends.redis.chords import RedisChords
from celery.backends.redis.confirming import Deferred
from celery.backends.redis.consumer import ResultConsumer
from celery.backends.redis.line import Line, Lines
from celery.backends.redis.options import connection_params, join_url_params
from celery.backends.redis.revoked import RevokedRecord
from celery.backends.redis.waiting import Waiting
from celery.exceptions import BackendStoreError
from celery.protocol.resp import ReplyError, bulk, error_for, pack
from celery.utils.log import get_logger
from celery.utils.redis_driver import driver_arguments
from celery.utils.stopping import SHORT_PAUSE, stopping
from celery.utils.time import humanize_seconds

__all__ = ("RedisBackend",)

logger = get_logger(__name__)

#: What Redis takes as one value.
MAX_VALUE_BYTES = 536_870_912

#: What says that another connection, or this server a little later, would do it.
CONNECTION_ERRORS = (
    redis_exceptions.ConnectionError,
    redis_exceptions.TimeoutError,
    redis_exceptions.ReadOnlyError,  # the master became a replica
    OSError,
)
#: What somebody will mend: no memory or disk left, a password that is being changed.
PASSING_ERRORS = (redis_exceptions.OutOfMemoryError, redis_exceptions.AuthenticationError)
#: What says that the command was wrong.
CHANNEL_ERRORS = (redis_exceptions.DataError, redis_exceptions.InvalidResponse, redis_exceptions.ResponseError)

_MULTI = pack(("MULTI",))
_EXEC = pack(("EXEC",))

_backends: weakref.WeakSet[RedisBackend] = weakref.WeakSet()


class RedisBackend(  # type: ignore[misc]  # the mixin's waiting takes `**kwargs`, ours names them
    RedisChords, RevokedRecord, Waiting, BaseKeyValueStoreBackend, AsyncBackendMixin
):
    """Results in Redis; safe to be used by many threads and after a fork."""

    ResultConsumer = ResultConsumer

    #: The module ``redis``.
    redis = redis
    connection_class_ssl: type[redis.SSLConnection] = redis.SSLConnection

    #: What every connection is made with, of URL and settings.
    connparams: dict[str, Any] = {}
    #: Seconds for which failures are kept, None for as long as the rest.
    failure_expires: int | None = None
    #: Exceptions that mean that the connection is lost, and that a command was refused.
    connection_errors: tuple[type[Exception], ...] = ()
    channel_errors: tuple[type[Exception], ...] = ()
    #: Celery's public way to wait; see ``consumer``.
    result_consumer: Any = None

    #: Connections at most, for stores and for waiting each; None is as many as are needed at once.
    max_connections: int | None = None

    supports_autoexpire = True
    supports_failure_expires = True
    supports_native_join = True
    supports_result_compression = True

    def __init__(
        self,
        host: str | None = None,
        port: int | None = None,
        db: Any = None,
        password: str | None = None,
        max_connections: int | None = None,
        url: str | None = None,
        connection_pool: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(expires_type=int, url=url, **kwargs)
        if host and "://" in host:
            url, host = host, None
        conf = self.app.conf
        self.failure_expires = self._prepare_failure_expires()
        self.max_connections = max_connections or conf.redis_max_connections or self.max_connections
        self._ConnectionPool = connection_pool
        self.connparams = connection_params(conf, host, port, db, password, self.max_connections)
        if url:
            self.connparams = self._params_from_url(url, self.connparams)
        self.url = url
        self.connection_errors = (*CONNECTION_ERRORS, *self._additional_errors())
        self.channel_errors = CHANNEL_ERRORS
        self.thread_safe = True
        self._start_afresh()
        self.result_consumer = self.ResultConsumer(
            self, self.app, self.accept, self._pending_results, self._pending_messages
        )
        _backends.add(self)

    def _prepare_failure_expires(self) -> int | None:
        configured = self.app.conf.result_failure_expires
        return None if configured is None else self.prepare_expires(configured, int)

    def _additional_errors(self) -> tuple[type[Exception], ...]:
        options = self.app.conf.result_backend_transport_options or {}
        return tuple(options.get("additional_connection_errors") or ())

    def _params_from_url(self, url: str, defaults: dict[str, Any]) -> dict[str, Any]:
        return join_url_params(url, defaults)

    def _start_afresh(self) -> None:
        self._lines = Lines(self._open_line, self.max_connections, self.connparams.get("socket_timeout"))
        self._listeners = Lines(self._open_line, self.max_connections, self.connparams.get("socket_timeout"))
        self._local = threading.local()
        self._owing = threading.local()
        self._deferred: weakref.WeakSet[Any] = weakref.WeakSet()

    def __reduce__(self, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> tuple[Any, ...]:
        return super().__reduce__(args, {"expires": self.expires, "url": self.url, **(kwargs or {})})

    # -- connections

    @property
    def ConnectionPool(self) -> Any:
        """The class of ``client``'s pool."""
        return self._ConnectionPool or self.redis.ConnectionPool

    @cached_property
    def client(self) -> Any:
        """A ``redis.Redis`` with the settings of this backend, for what we do not do ourselves."""
        return self._create_client(**self.connparams)

    def _create_client(self, **params: Any) -> Any:
        return self.redis.StrictRedis(connection_pool=self._get_pool(**params))

    def _get_pool(self, **params: Any) -> Any:
        return self.ConnectionPool(**{**driver_arguments(), **params})

    def _open_line(self, seconds: float | None = None) -> Line:
        pool = self.client.connection_pool
        return Line(pool.connection_class, pool.connection_kwargs, seconds)

    def _ensured(self, exchange: Callable[[Line], Any]) -> Any:
        """Do an exchange, again on another line if a connection is lost; for what may be done twice."""
        deferred = getattr(self._local, "deferred", None)
        if deferred is not None:
            return self._ensure_patiently(partial(deferred.use, exchange))
        return self.ensure(self._exchange, (exchange,))

    def _exchange(self, exchange: Callable[[Line], Any]) -> Any:
        line = self._lines.take()
        try:
            return exchange(line)
        except redis_exceptions.ReadOnlyError:  # the master has become a replica
            line.close()
            raise
        except redis_exceptions.ResponseError:
            raise
        except BaseException:
            line.close_interrupted()  # the exchange may be cut in the middle
            raise
        finally:
            self._lines.give(line)

    def ensure(self, fun: Callable[..., Any], args: tuple[Any, ...], **policy: Any) -> Any:
        """Call ``fun`` until no connection error comes in between, as the retry policy says."""
        try:
            return fun(*args)
        except self.connection_errors as error:
            if not self._worth_retrying(error):
                raise
        policy = {**self._patience(), **policy}
        return retry_over_time(
            fun,
            self.connection_errors,
            args,
            {},
            self._pauses(policy),
            **policy,
        )

    def _patience(self) -> dict[str, Any]:
        return {**self.retry_policy, "max_retries": 1} if self._is_hasty() else self.retry_policy

    def _is_hasty(self) -> bool:
        return getattr(self._local, "is_hasty", False)

    def _ensure_patiently(self, step: Callable[[], Any]) -> Any:
        """Do what a worker's child cannot do without: it also waits for a server that is full, or refuses the login."""
        policy = self._patience()
        errors = (*self.connection_errors, *PASSING_ERRORS)
        return retry_over_time(step, errors, (), {}, self._pauses(policy), **policy)

    def _pauses(self, policy: Mapping[str, Any]) -> Callable[[Exception, Iterator[float], int], float]:
        """Return what is told of each failure and returns the pause after it; a process that stops soon gives up."""
        began = monotonic()

        def on_failure(error: Exception, intervals: Iterator[float], retries: int) -> float:
            if stopping.gives_up(began):
                raise error
            pause = self.on_connection_error(policy.get("max_retries"), error, intervals, retries)
            return min(pause, SHORT_PAUSE) if stopping else pause

        return on_failure

    def is_passing_trouble(self, exc: BaseException) -> bool:
        return isinstance(exc, (*self.connection_errors, *PASSING_ERRORS))

    def _worth_retrying(self, error: BaseException) -> bool:
        return not isinstance(error, redis_exceptions.AuthenticationError)

    def on_connection_error(
        self, max_retries: float | None, exc: BaseException, intervals: Iterator[float], retries: int
    ) -> float:
        """Say that the connection is lost; return the seconds until the next try."""
        pause = next(intervals)
        logger.error(
            "Connection to Redis lost: Retry (%s/%s) %s. (%s)",
            retries,
            max_retries or "Inf",
            humanize_seconds(pause, "in "),
            exc,
        )
        return pause

    @property
    def retry_policy(self) -> dict[str, Any]:  # type: ignore[override]  # a property here, as upstream
        """How often a lost connection is tried again: ``result_backend_transport_options["retry_policy"]``."""
        policy = dict(super().retry_policy)
        policy.update((self.app.conf.result_backend_transport_options or {}).get("retry_policy") or {})
        return policy

    def exception_safe_to_retry(self, exc: Exception) -> bool:
        return isinstance(exc, self.connection_errors) and self._worth_retrying(exc)

    def _after_fork(self) -> None:
        """In the child: let go of the parent's connections, without a word on them."""
        self._lines.abandon()
        self._listeners.abandon()
        for deferred in list(self._deferred):
            deferred.abandon()
        self.__dict__.pop("client", None)
        self._start_afresh()
        self.result_consumer.on_after_fork()

    # -- keys

    def get(self, key: Any) -> Any:
        return self._ensured(lambda line: line.call("GET", key))

    def mget(self, keys: list[Any]) -> list[Any]:
        chunks = [keys[start : start + CHUNK_SIZE] for start in range(0, len(keys), CHUNK_SIZE)]
        found = self._ensured(lambda line: line.call_many([("MGET", *chunk) for chunk in chunks]))
        return [value for values in found for value in values]

    def _read_many(self, task_ids: list[str]) -> dict[str, dict[str, Any]]:
        values = self.mget([self.get_key_for_task(task_id) for task_id in task_ids]) if task_ids else []
        return {
            task_id: self.decode_result(value)
            for task_id, value in zip(task_ids, values, strict=True)
            if value is not None
        }

    def delete(self, key: Any) -> Any:
        return self._ensured(lambda line: line.call("DEL", key))

    def incr(self, key: Any) -> Any:
        return self._ensured(lambda line: line.call("INCRBY", key, 1))

    def expire(self, key: Any, value: Any) -> Any:
        return self._ensured(lambda line: line.call("EXPIRE", key, int(value)))

    def _set_plain(self, key: Any, value: Any, expires: Any) -> None:
        seconds = int(expires or 0)
        self._ensured(lambda line: line.call("SET", key, value, *(("EX", seconds) if seconds else ())))

    def set(self, key: Any, value: Any, expires: float | None = None, **retry_policy: Any) -> Any:
        """Set a key and publish its value on the channel of its name; ``expires`` in seconds, 0 for never.

        Raises:
            BackendStoreError: the value is larger than Redis takes.
        """
        packet = self._store_packet(key, value, self.expires if expires is None else int(expires))
        deferred = getattr(self._local, "deferred", None)
        if deferred is not None:
            deferred.store(key, packet)
            deferred.send_held()
        else:
            self.ensure(self._exchange, (partial(_store, packet=packet),), **retry_policy)

    def _store_packet(self, key: Any, value: Any, expires: int | None) -> bytes:
        if isinstance(value, str):
            value = value.encode()
        elif not isinstance(value, bytes):
            value = str(value).encode()
        if len(value) > MAX_VALUE_BYTES:
            raise BackendStoreError(
                f"value too large for Redis backend: {len(value)} bytes of at most {MAX_VALUE_BYTES}"
            )
        packed_key = bulk(key)
        packed_value = b"$%d\r\n%b\r\n" % (len(value), value)
        if expires:
            setting = b"*4\r\n$5\r\nSETEX\r\n%b%b%b" % (packed_key, bulk(expires), packed_value)
        else:
            setting = b"*3\r\n$3\r\nSET\r\n%b%b" % (packed_key, packed_value)
        return b"%b%b*3\r\n$7\r\nPUBLISH\r\n%b%b%b" % (_MULTI, setting, packed_key, packed_value, _EXEC)

    def _set_with_state(self, key: Any, value: Any, state: str) -> Any:
        expires = self.failure_expires if state == states.FAILURE else None
        deferred = getattr(self._local, "deferred", None)
        if deferred is None or state not in states.READY_STATES:  # a state on the way is of use at once or never
            return self.set(key, value, expires=expires)
        return deferred.store(key, self._store_packet(key, value, self.expires if expires is None else expires))

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **kwargs: Any
    ) -> Any:
        if may_come_late(task_id, state, request):
            meta = self._make_meta(task_id, result, state, traceback, request)
            self._store_unless_outlasted(task_id, self.encode(meta), state)
            return result
        meta = self._make_meta(task_id, result, state, traceback, request)
        self._set_with_state(self.get_key_for_task(task_id), self.encode(meta), state)
        return result

    def _store_unless_outlasted(self, task_id: str, value: Any, state: str) -> None:
        """Store a record that may come late, so that no end is lost: look and write are one step."""
        key = self.get_key_for_task(task_id)
        expires = self.failure_expires if state == states.FAILURE and self.failure_expires is not None else self.expires
        packet = self._store_packet(key, value, expires)

        def exchange(line: Line) -> None:
            while True:
                _, current = line.call_many([("WATCH", key), ("GET", key)])
                if current is not None and outlasts(self.decode(current)["status"], state):
                    line.call("UNWATCH")
                    return
                if _store(line, packet) is not None:  # else somebody wrote in between
                    return

        self.do_or_owe(lambda: self._ensured(exchange), lambda: len(packet))

    # -- confirmations

    def _write(self, store: Callable[[], Any], size: Callable[[], int]) -> None:
        if getattr(self._local, "deferred", None) is not None:
            store()  # what is not confirmed is kept anyway
        else:
            self.do_or_owe(store, size)

    def do_or_owe(self, job: Callable[[], Any], size: Callable[[], int] = lambda: 0) -> None:
        if getattr(self._owing, "owed", None) is None:
            job()
        else:
            super().do_or_owe(partial(self._do_hastily, job), size)

    def _do_hastily(self, job: Callable[[], Any]) -> None:
        """Do what can be done again later, so that a store which is away holds nobody up."""
        was_hasty = self._is_hasty()
        self._local.is_hasty = True
        try:
            job()
        finally:
            self._local.is_hasty = was_hasty

    def defer_confirmations(self) -> None:
        """From now on, a store by this thread returns once it is written; ``flush`` waits for what Redis says."""
        super().defer_confirmations()
        if getattr(self._local, "deferred", None) is None:
            deferred = Deferred(self._open_line, self._ensure_patiently)
            self._local.deferred = deferred
            self._deferred.add(deferred)

    def send_held(self) -> None:
        deferred = getattr(self._local, "deferred", None)
        if deferred is not None:
            deferred.send_held()

    def flush(self) -> None:
        deferred = getattr(self._local, "deferred", None)
        if deferred is not None:
            deferred.flush()
        super().flush()

    def try_flush(self) -> None:
        deferred = getattr(self._local, "deferred", None)
        if deferred is not None:
            deferred.flush(patiently=False)
        super().try_flush()


def _store(line: Line, packet: bytes) -> Any:
    """Send a packed transaction and return what EXEC says: None if it was refused because a watched key changed."""
    line.send(packet)
    *earlier, answer = [line.reply() for _ in range(4)]
    if isinstance(answer, ReplyError):  # an earlier one says why
        raise error_for(next((reply for reply in earlier if isinstance(reply, ReplyError)), answer))
    return answer


def _after_fork_in_child() -> None:
    for backend in list(_backends):
        backend._after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)

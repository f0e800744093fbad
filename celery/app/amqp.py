"""Queues, exchanges and routes of one app, and the messages it builds.

A call becomes a message in :meth:`AMQP.as_task_v2` (or ``as_task_v1``) and goes out through
:attr:`AMQP.send_task_message`; ``celery.app.publishing`` calls both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING, Any

from kombu import Connection, Consumer, Exchange, Producer, Queue, pools
from kombu.utils.functional import maybe_list
from kombu.utils.objects import cached_property

from celery.app import routes as _routes
from celery.app.binding import kept
from celery.app.options import expires_at, starts_at
from celery.app.queues import Queues
from celery.app.sending import MessageSender
from celery.exceptions import ImproperlyConfigured
from celery.protocol.task import build_v1, build_v2, task_message
from celery.utils.nodenames import anon_nodename
from celery.utils.saferepr import saferepr

if TYPE_CHECKING:
    from celery.app.base import Celery

__all__ = ("AMQP", "Queues", "task_message")


def utf8dict(d: Mapping[Any, Any], encoding: str = "utf-8") -> dict[str, Any]:
    """Return ``d`` with keys that are bytes turned into text."""
    return {key.decode(encoding) if isinstance(key, bytes) else key: value for key, value in d.items()}


class AMQP:
    """What an app knows about messages; ``app.amqp`` is one."""

    Connection = Connection
    Consumer = Consumer
    Producer = Producer

    #: Older name of ``Connection``.
    BrokerConnection = Connection

    queues_cls = Queues

    #: Makes the exchange of a queue that was not declared; gets the queue's name.
    autoexchange: Callable[..., Exchange] | None = None

    #: How much of the arguments' representation travels in the headers.
    argsrepr_maxsize = 1024
    kwargsrepr_maxsize = 1024

    _producer_pool: Any = None
    _rtable: Any = None
    _routes_read: Any = None

    def __init__(self, app: Celery) -> None:
        self.app = app
        self.task_protocols: dict[int, Callable[..., task_message]] = {1: self.as_task_v1, 2: self.as_task_v2}

    # -- queues and routes

    @cached_property
    def queues(self) -> Queues:
        """All queues by name; assigning a list or a mapping declares these instead."""
        return self.Queues(self.app.conf.task_queues)

    @queues.setter  # type: ignore[no-redef]
    def queues(self, queues: Any) -> Queues:
        return self.Queues(queues)

    def Queues(
        self,
        queues: Any,
        create_missing: bool | None = None,
        create_missing_queue_type: str | None = None,
        create_missing_queue_exchange_type: str | None = None,
        autoexchange: Callable[..., Exchange] | None = None,
        max_priority: int | None = None,
    ) -> Queues:
        """Return :class:`Queues` with defaults from the configuration; without any queue, the default one."""
        conf = self.app.conf
        default_routing_key = conf.task_default_routing_key
        if not queues and conf.task_default_queue:
            queues = (self._default_queue_of(conf),)
        return self.queues_cls(
            queues,
            self.default_exchange,
            conf.task_create_missing_queues if create_missing is None else create_missing,
            create_missing_queue_type or conf.task_create_missing_queue_type,
            create_missing_queue_exchange_type or conf.task_create_missing_queue_exchange_type,
            self.autoexchange if autoexchange is None else autoexchange,
            conf.task_queue_max_priority if max_priority is None else max_priority,
            default_routing_key,
        )

    def _default_queue_of(self, conf: Any) -> Queue:
        arguments = {"x-queue-type": "quorum"} if conf.task_default_queue_type == "quorum" else None
        return Queue(
            conf.task_default_queue,
            exchange=self.default_exchange,
            routing_key=conf.task_default_routing_key or conf.task_default_queue,
            queue_arguments=arguments,
        )

    @property
    def default_queue(self) -> Queue:
        return self.queues[self.app.conf.task_default_queue]

    @kept
    def default_exchange(self) -> Exchange:
        conf = self.app.conf
        return Exchange(conf.task_default_exchange or conf.task_default_queue, conf.task_default_exchange_type)

    def Router(self, queues: Any = None, create_missing: bool | None = None) -> _routes.Router:
        """Return a router over the app's routes and ``queues`` (the app's own by default)."""
        create_missing = self.app.conf.task_create_missing_queues if create_missing is None else create_missing
        return _routes.Router(self.routes, queues or self.queues, create_missing, app=self.app)

    @property
    def routes(self) -> Any:
        """The routers made of ``task_routes``."""
        if self._rtable is None:
            self.flush_routes()
        return self._rtable

    def flush_routes(self) -> None:
        """Read ``task_routes`` again."""
        self._routes_read = self.app.conf.task_routes
        self._rtable = _routes.prepare(self._routes_read)

    @cached_property
    def router(self) -> _routes.Router:
        return self.Router()

    @router.setter  # type: ignore[no-redef]
    def router(self, value: Any) -> Any:
        return value

    def follow(self, conf: Any) -> None:
        """Drop what was derived from settings that have changed since; what somebody assigned stays."""
        attributes = self.__dict__
        if conf.task_routes is not self._routes_read and self._rtable is not None:
            self.flush_routes()
            if type(attributes.get("router")) is _routes.Router:
                del attributes["router"]
        if attributes.get("create_task_message") in self.task_protocols.values():
            del attributes["create_task_message"]

    # -- connections

    def TaskConsumer(self, channel: Any, queues: Iterable[Queue] | None = None, accept: Any = None, **kw: Any) -> Any:
        """Return a consumer of task messages, by default from every queue that is selected."""
        return self.Consumer(
            channel,
            accept=self.app.conf.accept_content if accept is None else accept,
            queues=queues or list(self.queues.consume_from.values()),
            **kw,
        )

    @property
    def producer_pool(self) -> Any:
        if self._producer_pool is None:
            self._producer_pool = pools.producers[self.app.connection_for_write()]
            self._producer_pool.limit = self.app.pool.limit
        return self._producer_pool

    publisher_pool = producer_pool  # older name

    # -- messages

    @property
    def builds_messages_itself(self) -> bool:
        """Whether nobody replaced the functions that build a message; theirs get every option of a call."""
        kind, attributes = type(self), self.__dict__
        return (
            kind.as_task_v1 is AMQP.as_task_v1
            and kind.as_task_v2 is AMQP.as_task_v2
            and attributes.get("create_task_message", self.as_task_v2) in (self.as_task_v1, self.as_task_v2)
        )

    @property
    def utc(self) -> bool:
        return bool(self.app.conf.enable_utc)

    @kept
    def create_task_message(self) -> Callable[..., task_message]:
        """The builder for the version that ``task_protocol`` names."""
        version = self.app.conf.task_protocol
        try:
            return self.task_protocols[version]
        except KeyError:
            known = " or ".join(map(str, sorted(self.task_protocols)))
            raise ImproperlyConfigured(f"Setting `task_protocol` must be {known}, is {version!r}.") from None

    @kept
    def send_task_message(self) -> Callable[..., Any]:
        """Publishes a message: ``send_task_message(producer, name, message, **options)``."""
        return MessageSender(self)

    @kept
    def _event_dispatcher(self) -> Any:
        # Used for its fields and its publish() only, with the producer that sends the task.
        return self.app.events.Dispatcher(enabled=False)

    def as_task_v2(
        self,
        task_id: str,
        name: str,
        args: Any = None,
        kwargs: Any = None,
        countdown: float | None = None,
        eta: Any = None,
        group_id: str | None = None,
        group_index: int | None = None,
        expires: Any = None,
        retries: int = 0,
        chord: Any = None,
        callbacks: Any = None,
        errbacks: Any = None,
        reply_to: str | None = None,
        time_limit: float | None = None,
        soft_time_limit: float | None = None,
        create_sent_event: bool = False,
        root_id: str | None = None,
        parent_id: str | None = None,
        shadow: str | None = None,
        chain: Any = None,
        now: datetime | None = None,
        timezone: tzinfo | None = None,
        origin: str | None = None,
        ignore_result: bool | None = False,
        argsrepr: str | None = None,
        kwargsrepr: str | None = None,
        stamped_headers: Any = None,
        replaced_task_nesting: int = 0,
        **options: Any,
    ) -> task_message:
        """Return the version 2 message of a call.

        ``countdown`` and the time limits are seconds, ``expires`` is seconds from ``now`` or a datetime.  ``options``
        hold the value of every name in ``stamped_headers``; the rest of them is not looked at.
        """
        args, kwargs = _checked_arguments(args, kwargs)
        if countdown or eta or expires is not None:
            eta, expires = self._times(countdown, eta, expires, now, timezone)
        levels = self.app.conf.task_repr_maxlevels
        return build_v2(
            task_id,
            name,
            args,
            kwargs,
            eta,
            expires,
            group_id,
            group_index,
            retries,
            chord,
            chain,
            callbacks,
            errbacks,
            reply_to,
            time_limit,
            soft_time_limit,
            root_id,
            parent_id,
            shadow,
            origin or anon_nodename(),
            ignore_result,
            saferepr(args, self.argsrepr_maxsize, levels) if argsrepr is None else argsrepr,
            saferepr(kwargs, self.kwargsrepr_maxsize, levels) if kwargsrepr is None else kwargsrepr,
            stamped_headers,
            _stamps(stamped_headers, options) if stamped_headers else {},
            replaced_task_nesting,
            create_sent_event,
        )

    def as_task_v1(
        self,
        task_id: str,
        name: str,
        args: Any = None,
        kwargs: Any = None,
        countdown: float | None = None,
        eta: Any = None,
        group_id: str | None = None,
        group_index: int | None = None,
        expires: Any = None,
        retries: int = 0,
        chord: Any = None,
        callbacks: Any = None,
        errbacks: Any = None,
        reply_to: str | None = None,
        time_limit: float | None = None,
        soft_time_limit: float | None = None,
        create_sent_event: bool = False,
        root_id: str | None = None,
        parent_id: str | None = None,
        shadow: str | None = None,
        now: datetime | None = None,
        timezone: tzinfo | None = None,
        **compat_kwargs: Any,
    ) -> task_message:
        """Return the version 1 message of a call.  ``compat_kwargs``: what this version cannot carry."""
        args, kwargs = _checked_arguments(args, kwargs)
        if countdown or eta or expires is not None:
            eta, expires = self._times(countdown, eta, expires, now, timezone)
        reprs = None
        if create_sent_event:
            levels = self.app.conf.task_repr_maxlevels
            reprs = saferepr(args, self.argsrepr_maxsize, levels), saferepr(kwargs, self.kwargsrepr_maxsize, levels)
        return build_v1(
            task_id,
            name,
            args,
            kwargs,
            eta,
            expires,
            group_id,
            group_index,
            retries,
            chord,
            callbacks,
            errbacks,
            reply_to,
            time_limit,
            soft_time_limit,
            self.utc,
            reprs,
        )

    def _times(
        self, countdown: Any, eta: Any, expires: Any, now: datetime | None, timezone: tzinfo | None
    ) -> tuple[str | None, str | None]:
        """Return ``eta`` and ``expires`` as they travel; seconds count from ``now``."""
        now = now or self.app.now()
        timezone = timezone or self.app.timezone
        return starts_at(countdown, eta, now, timezone), expires_at(expires, now, timezone)


def _checked_arguments(args: Any, kwargs: Any) -> tuple[Any, Any]:
    if not args:
        args = ()  # Upstream: also for an empty list, which would be shown as `[]`
    elif not isinstance(args, (list, tuple)):
        raise TypeError(f"task args must be a list or tuple, not {type(args).__name__}")
    if not kwargs:
        kwargs = {}
    elif not isinstance(kwargs, Mapping):
        raise TypeError(f"task keyword arguments must be a mapping, not {type(kwargs).__name__}")
    return args, kwargs


def _stamps(stamped_headers: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    given = options.get("stamps") or {}
    return {name: options[name] if name in options else given.get(name) for name in maybe_list(stamped_headers)}

"""What an app keeps in order to send: plans of calls, and a lane to the broker for each thread."""

from __future__ import annotations

import os
import threading
import warnings
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kombu.exceptions import EncodeError, SerializerNotInstalled
from kombu.utils.functional import maybe_list

from celery.app import delayed
from celery.app.deadlines import PUBLISH_SECONDS, deadline, naming_the_broker
from celery.app.encoding import explained, known_compressions, known_serializers
from celery.app.lanes import DirectProducer, is_watched, open_publisher
from celery.app.options import (
    KNOWN_OPTIONS,
    TASK_OPTIONS,
    check_names,
    check_priority,
    users_stacklevel,
    warn_about_unknown,
)
from celery.exceptions import AlwaysEagerIgnored
from celery.protocol.task import task_message

if TYPE_CHECKING:
    from celery.app.base import Celery
    from celery.app.publishing import Call

__all__ = ("MESSAGE_OPTIONS", "Outbox", "Plan", "batch", "outbox")

_UNOPENED: Any = object()

#: Options that say where a message goes and how.  A plan is made for each combination of them.
_ROUTE_OPTIONS = frozenset(TASK_OPTIONS) | {"exchange_type", "retry", "timeout", "confirm_timeout"}

#: What a route may say about the call itself; the call's own word goes first.
_CALL_OPTIONS = ("countdown", "eta", "expires", "time_limit", "soft_time_limit", "shadow", "reply_to")

#: Limits that a task's class may set.
_LIMIT_OPTIONS = ("expires", "time_limit", "soft_time_limit")

#: Facts of the message, which are no properties of it.
MESSAGE_OPTIONS = frozenset(
    ("argsrepr", "kwargsrepr", "origin", "ignore_result", "stamped_headers", "stamps", *_CALL_OPTIONS)
)

_PLANS_KEPT = 512


@dataclass(slots=True)
class Plan:
    """What does not change between two calls of a task with the same routing options."""

    options: dict[str, Any]  # for send_task_message
    defaults: dict[str, Any]  # of the call: expires, time limits, ...
    message_options: dict[str, Any]  # for create_task_message
    ignore_result: bool | None
    has_priority: bool
    is_delayable: bool


class Outbox:
    """What an app keeps in order to send: plans, and a lane for each thread."""

    def __init__(self, app: Celery) -> None:
        self.app = app
        self.version: int | None = None
        self.plans: dict[Any, Plan] = {}
        self.broker: Any = None
        self.publisher: Any = _UNOPENED
        self.local: Any = threading.local()

    # plans

    def plan(self, call: Call) -> Plan:
        """Return the plan for ``call``; what is left in ``call.options`` belongs to this call alone."""
        self._follow()
        if self.is_eager:
            warnings.warn(
                "task_always_eager has no effect on send_task", AlwaysEagerIgnored, stacklevel=users_stacklevel()
            )
        routed: dict[str, Any] = {}
        if call.options:
            routed = self._split(call)
        if call.router is not None or not self.is_static:
            return self._make_plan(call, routed)
        key = (call.name, call.task_type, self.tasks.get(call.name), call.route_name, *routed.items())
        try:
            return self.plans[key]
        except KeyError:
            pass
        except TypeError:  # an exchange or queue object that has no hash
            return self._make_plan(call, routed)
        plan = self._make_plan(call, routed)
        if len(self.plans) >= _PLANS_KEPT:
            self.plans.clear()
        self.plans[key] = plan
        return plan

    @staticmethod
    def _split(call: Call) -> dict[str, Any]:
        """Take the routing options out of ``call`` and return them; options without a value are dropped."""
        routed, own = {}, {}
        for name, value in call.options.items():
            if name in _ROUTE_OPTIONS:
                routed[name] = value
            elif value is not None:
                own[name] = value
        call.options = own
        if not own.keys() <= KNOWN_OPTIONS:
            warn_about_unknown(own, maybe_list(own.get("stamped_headers")))
        return routed

    def _follow(self) -> None:
        """Read again what the configuration says, if it changed; everything planned before is dropped."""
        conf = self.app.conf
        if conf.version == self.version:
            return
        amqp = self.app.amqp
        amqp.follow(conf)
        self.tasks = self.app._tasks  # as they are: sending by name finalizes nothing
        self.plans = {}
        self.is_static = amqp.router.is_static
        self.is_custom = not amqp.builds_messages_itself
        self.inherits_priority = conf.task_inherit_parent_priority
        self.tells_sent = conf.task_send_sent_event
        self.is_eager = conf.task_always_eager
        self.detects_quorum = conf.worker_detect_quorum_queues
        broker = (conf.broker_write_url, conf.broker_transport, conf.broker_transport_options, conf.broker_use_ssl)
        if broker != self.broker:
            self.broker = broker
            self.forget_connections()
        self.version = conf.version

    def _make_plan(self, call: Call, routed: dict[str, Any]) -> Plan:
        app, task = self.app, call.task_type
        options = {**self._own_options(call), **routed}
        limits = {name: options.pop(name) for name in _LIMIT_OPTIONS if name in options}
        router = call.router or app.amqp.router
        everything = {**options, **call.options} if call.options else options
        found = dict(router.route(everything, call.route_name or call.name, call.args, call.kwargs, task))
        for name, value in call.options.items():
            if found.get(name) is value:
                del found[name]
        defaults = {name: found.pop(name) for name in _CALL_OPTIONS if name in found}
        defaults.update({name: value for name, value in limits.items() if value is not None})
        message_options = {name: found.pop(name) for name in MESSAGE_OPTIONS if name in found}
        _check(found)
        ignore_result = message_options.pop("ignore_result", None)
        if task is not None and ignore_result is None:
            ignore_result = task.ignore_result
        return Plan(
            found,
            defaults,
            message_options,
            ignore_result,
            found.get("priority") is not None,
            self.detects_quorum and delayed.is_possible(app),
        )

    def _own_options(self, call: Call) -> Mapping[str, Any]:
        """Return the options that the task sets for all its calls."""
        if call.task_type is not None:
            return call.task_type._get_exec_options()  # type: ignore[no-any-return]
        task = self.tasks.get(call.name)
        if task is None:
            return {}
        # Upstream: by name, options of the value None are left out.
        return {name: value for name, value in task._get_exec_options().items() if value is not None}

    # lanes

    def deliver(self, call: Call, plan: Plan, message: task_message, options: dict[str, Any]) -> None:
        """Send ``message`` through the lane that the call asks for, or the best there is."""
        app = self.app
        ignored = call.options.get("ignore_result", plan.ignore_result)
        try:
            direct = self.direct() if call.producer is None and call.connection is None else None
            if direct is None:
                self._deliver_by_kombu(call, message, options, ignored)
            else:
                if self._tells_backend(ignored):
                    with naming_the_broker(direct.connection), deadline(options.get("timeout") or PUBLISH_SECONDS):
                        app.backend.on_task_call(direct, call.task_id)
                app.amqp.send_task_message(direct, call.name, message, **options)
        except EncodeError as error:
            serializer = options.get("serializer") or app.conf.task_serializer
            function = getattr(call.task_type or self.tasks.get(call.name), "run", None)
            raise explained(error, call.name, message.body, serializer, function) from error.__cause__

    def _deliver_by_kombu(self, call: Call, message: task_message, options: dict[str, Any], ignored: Any) -> None:
        app = self.app
        producer = call.producer or getattr(self.local, "producer", None)
        if call.connection is not None:
            producer = app.amqp.Producer(call.connection, auto_declare=False)
        with app.producer_or_acquire(producer) as opened:
            connection = opened.connection
            with naming_the_broker(connection):
                if call.producer is None and call.connection is None:
                    seconds = options.get("timeout") or PUBLISH_SECONDS
                    with deadline(seconds):
                        _connect(connection, options.get("retry"), options.get("retry_policy"), app.conf, seconds)
                        options = {"confirm_timeout": seconds, **options, "timeout": seconds}
                        self._send(opened, call, message, options, ignored)
                elif options.get("timeout"):
                    with deadline(options["timeout"]):
                        self._send(opened, call, message, options, ignored)
                else:
                    self._send(opened, call, message, options, ignored)

    def _send(self, producer: Any, call: Call, message: task_message, options: dict[str, Any], ignored: Any) -> None:
        app = self.app
        if self._tells_backend(ignored):
            app.backend.on_task_call(producer, call.task_id)
        app.amqp.send_task_message(producer, call.name, message, **options)

    def _tells_backend(self, ignored: Any) -> bool:
        return not ignored and listens_to_calls(self.app.backend)

    def direct(self) -> DirectProducer | None:
        """Return this thread's producer over the transport's own publisher, or ``None`` where there is none."""
        if is_watched(self.app):
            return None
        try:
            return self.local.direct  # type: ignore[no-any-return]
        except AttributeError:
            pass
        if self.publisher is _UNOPENED:
            self.publisher = open_publisher(self.app)
        producer = None if self.publisher is None else DirectProducer(self.app, self.publisher)
        self.local.direct = producer
        return producer

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Collect what this thread sends, and send it in one go at the end; nothing is sent after an error."""
        self._follow()
        local = self.local
        direct = self.direct()
        if direct is not None:
            with direct.collecting():
                yield
        elif getattr(local, "producer", None) is not None:
            yield
        else:
            with self.app.producer_or_acquire() as producer, _kombu_batch(producer):
                local.producer = producer
                try:
                    yield
                finally:
                    local.producer = None

    def forget_connections(self) -> None:
        """Drop, without closing, what was opened: by another configuration, or by the process that forked us."""
        self.publisher = _UNOPENED
        self.local = threading.local()


@contextmanager
def _kombu_batch(producer: Any) -> Iterator[None]:
    """Enter kombu's own batch, which came with 5.7; messages go one by one before."""
    batch = getattr(producer, "batch", None)
    if batch is None:
        yield
    else:
        with naming_the_broker(producer.connection), batch():
            yield


def _connect(connection: Any, retry: bool | None, policy: Mapping[str, Any] | None, conf: Any, seconds: float) -> None:
    """Open the connection within the retry policy and within ``seconds``, where kombu alone would go on."""
    if connection.connected:
        return
    policy = {**(conf.task_publish_retry_policy or {}), **(policy or {})}
    retry = conf.task_publish_retry if retry is None else retry
    connection.ensure_connection(
        errback=policy.get("errback"),
        max_retries=(policy.get("max_retries") if retry else 1),
        interval_start=policy.get("interval_start", 0),
        interval_step=policy.get("interval_step", 0.2),
        interval_max=policy.get("interval_max", 1),
        timeout=seconds,
    )


def _check(options: dict[str, Any]) -> None:
    """Refuse what no message could be sent with."""
    if options.get("priority") is not None:
        check_priority(options["priority"])
    check_names(options, known_compressions, "compression")
    serializer = options.get("serializer")
    if serializer is not None and serializer not in known_serializers():
        raise SerializerNotInstalled(
            f"No encoder installed for {serializer}. Known serializers: {', '.join(sorted(known_serializers()))}."
        )


def listens_to_calls(backend: Any) -> bool:
    """Whether ``backend`` does anything when a task is sent."""
    kind = type(backend)
    try:
        return _listening[kind]
    except KeyError:
        from celery.backends.base import Backend

        listens = _listening[kind] = kind.on_task_call is not Backend.on_task_call
        return listens


_listening: dict[type, bool] = {}


# -- one outbox for each app

_outboxes: weakref.WeakKeyDictionary[Any, Outbox] = weakref.WeakKeyDictionary()


def outbox(app: Any) -> Outbox:
    """Return the outbox of ``app``."""
    try:
        return app.__dict__["_outbox"]  # type: ignore[no-any-return]
    except KeyError:
        box = app.__dict__["_outbox"] = _outboxes[app] = Outbox(app)
        return box


def batch(app: Any) -> Any:
    """Collect what this thread sends through ``app``, and send it in one go at the end of the context."""
    return outbox(app).batch()


def _after_fork() -> None:
    for box in list(_outboxes.values()):
        box.forget_connections()


os.register_at_fork(after_in_child=_after_fork)

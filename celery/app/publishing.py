"""From a call to a sent message.

::

    send_task(...) → Call → Outbox.plan (route and all that stays the same) → message (app.amqp) → lane

There are two lanes: the transport's own ``Publisher`` where it has one, else a producer of kombu's from the app's
pool.  ``batch(app)`` lets everything that this thread sends meanwhile go out together.
"""

from __future__ import annotations

import os
import threading
import warnings
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from kombu.exceptions import EncodeError, SerializerNotInstalled
from kombu.utils.functional import maybe_list

from celery.app import delayed
from celery.app.encoding import explained, known_compressions, known_serializers
from celery.app.lanes import PUBLISH_SECONDS, DirectProducer, open_publisher
from celery.app.options import (
    TASK_OPTIONS,
    check_names,
    check_priority,
    check_time_limits,
    until,
    warn_about_unknown,
)
from celery.exceptions import AlwaysEagerIgnored
from celery.protocol.task import task_message

if TYPE_CHECKING:
    from celery.app.base import Celery

__all__ = ("PUBLISH_SECONDS", "Call", "Outbox", "batch", "outbox", "publish", "send_task", "similar_tasks")

#: "Not given": `None` takes away what the task's class says.
UNSET: Any = type("Unset", (), {"__repr__": lambda self: "UNSET", "__bool__": lambda self: False})()

#: Options that say where a message goes and how.  A plan is made for each combination of them.
_ROUTE_OPTIONS = frozenset(TASK_OPTIONS) | {"exchange_type", "retry", "timeout", "confirm_timeout"}

#: What a route may say about the call itself; the call's own word goes first.
_CALL_OPTIONS = ("countdown", "eta", "expires", "time_limit", "soft_time_limit", "shadow", "reply_to")

#: Facts of the message, which are no properties of it.
_MESSAGE_OPTIONS = frozenset(
    ("argsrepr", "kwargsrepr", "origin", "ignore_result", "stamped_headers", "stamps", *_CALL_OPTIONS)
)

_PLANS_KEPT = 512


@dataclass(slots=True)
class Call:
    """One wish to run a task: the arguments of ``send_task``."""

    name: str
    args: Any = None
    kwargs: Any = None
    countdown: Any = None
    eta: Any = None
    task_id: str | None = None
    producer: Any = None
    connection: Any = None
    router: Any = None
    result_cls: Any = None
    expires: Any = UNSET
    link: Any = None
    link_error: Any = None
    add_to_parent: bool = True
    group_id: str | None = None
    group_index: int | None = None
    retries: int = 0
    chord: Any = None
    reply_to: str | None = None
    time_limit: Any = UNSET
    soft_time_limit: Any = UNSET
    root_id: str | None = None
    parent_id: str | None = None
    route_name: str | None = None
    shadow: str | None = None
    chain: Any = None
    task_type: Any = None
    replaced_task_nesting: int = 0
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Plan:
    """What does not change between two calls of a task with the same routing options."""

    options: dict[str, Any]  # for send_task_message
    defaults: dict[str, Any]  # of the call: expires, time limits, ...
    message_options: dict[str, Any]  # for create_task_message
    ignore_result: bool | None
    has_priority: bool
    is_delayable: bool


def send_task(
    app: Celery,
    name: str,
    args: Any = None,
    kwargs: Any = None,
    countdown: float | None = None,
    eta: Any = None,
    task_id: str | None = None,
    producer: Any = None,
    connection: Any = None,
    router: Any = None,
    result_cls: Any = None,
    expires: Any = UNSET,
    publisher: Any = None,
    link: Any = None,
    link_error: Any = None,
    add_to_parent: bool = True,
    group_id: str | None = None,
    group_index: int | None = None,
    retries: int = 0,
    chord: Any = None,
    reply_to: str | None = None,
    time_limit: Any = UNSET,
    soft_time_limit: Any = UNSET,
    root_id: str | None = None,
    parent_id: str | None = None,
    route_name: str | None = None,
    shadow: str | None = None,
    chain: Any = None,
    task_type: Any = None,
    replaced_task_nesting: int = 0,
    **options: Any,
) -> Any:
    """Send a task by name and return a handle on its result; ``celery.app.base.Celery.send_task`` is this.

    A task class of that name gives the defaults of its options, if there is one here.

    Raises:
        kombu.exceptions.OperationalError: the broker was not reached within the retry policy.
        kombu.exceptions.EncodeError: an argument cannot be serialized.
    """
    return publish(
        app,
        Call(
            name,
            args,
            kwargs,
            countdown,
            eta,
            task_id,
            producer or publisher,
            connection,
            router,
            result_cls,
            expires,
            link,
            link_error,
            add_to_parent,
            group_id,
            group_index,
            retries,
            chord,
            reply_to,
            time_limit,
            soft_time_limit,
            root_id,
            parent_id,
            route_name,
            shadow,
            chain,
            task_type,
            replaced_task_nesting,
            options,
        ),
    )


def publish(app: Celery, call: Call) -> Any:
    """Send ``call`` and return a handle on its result."""
    box = outbox(app)
    plan = box.plan(call)
    task_id = call.task_id = call.task_id or new_id()
    parent = app.current_worker_task
    if parent is not None:
        _inherit(call, plan, parent, box)
    message, options = _message(app, call, plan, box)
    box.deliver(call, plan, message, options)
    result = (call.result_cls or app.AsyncResult)(task_id)
    if plan.ignore_result or call.options.get("ignore_result"):
        result.ignored = True
    if call.add_to_parent and parent is not None:
        parent.add_trail(result)
    return result


def new_id() -> str:
    """Return a random UUID as text; the standard library takes three times as long."""
    digits = os.urandom(16).hex()
    return (
        f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{'89ab'[int(digits[16], 16) & 3]}{digits[17:20]}-{digits[20:]}"
    )


def _inherit(call: Call, plan: Plan, parent: Any, box: Outbox) -> None:
    """Fill in what a call made inside of a running task has from it."""
    request = parent.request
    if not call.root_id:
        call.root_id = request.root_id or request.id
    if not call.parent_id:
        call.parent_id = request.id
    if box.inherits_priority and not plan.has_priority and call.options.get("priority") is None:
        call.options["priority"] = (request.delivery_info or {}).get("priority")


def _message(app: Celery, call: Call, plan: Plan, box: Outbox) -> tuple[task_message, dict[str, Any]]:
    """Return the message of ``call`` and what to give to ``send_task_message``."""
    given, defaults = call.options, plan.defaults
    countdown, eta, expires = call.countdown, call.eta, call.expires
    if countdown is None and eta is None and defaults:
        countdown, eta = defaults.get("countdown"), defaults.get("eta")
    if expires is UNSET:
        expires = defaults.get("expires")
    time_limit = defaults.get("time_limit") if call.time_limit is UNSET else call.time_limit
    soft_time_limit = defaults.get("soft_time_limit") if call.soft_time_limit is UNSET else call.soft_time_limit
    if time_limit is not None or soft_time_limit is not None:
        check_time_limits(time_limit, soft_time_limit)

    for_message = plan.message_options
    for_sender = plan.options
    if given or box.is_custom or expires is not None:
        for_message = {**for_message, **(for_sender if box.is_custom else {}), **given}
        stamped = maybe_list(for_message.get("stamped_headers")) or ()
        for_sender = {
            **for_sender,
            **{name: value for name, value in given.items() if name not in _MESSAGE_OPTIONS and name not in stamped},
        }
        if expires is not None:
            for_sender["expiration"] = until(expires, app.now())
    message = app.amqp.create_task_message(
        call.task_id,
        call.name,
        call.args,
        call.kwargs,
        countdown,
        eta,
        call.group_id,
        call.group_index,
        expires,
        call.retries,
        call.chord,
        _as_list(call.link),
        _as_list(call.link_error),
        call.reply_to or defaults.get("reply_to") or app.thread_oid,
        time_limit,
        soft_time_limit,
        box.tells_sent,
        call.root_id,
        call.parent_id,
        call.shadow or defaults.get("shadow"),
        chain=call.chain,
        replaced_task_nesting=call.replaced_task_nesting,
        **(
            {"ignore_result": plan.ignore_result, **for_message}
            if for_message
            else {"ignore_result": plan.ignore_result}
        ),
    )
    if plan.is_delayable and (countdown or eta):
        for_sender = delayed.rerouted(app, for_sender, countdown, eta)
    return message, for_sender


def _as_list(callbacks: Any) -> Any:
    if callbacks is None or isinstance(callbacks, list):
        return callbacks
    callbacks = maybe_list(callbacks)
    return callbacks if isinstance(callbacks, (list, tuple)) else list(callbacks)


# -- the outbox


class Outbox:
    """What an app keeps in order to send: plans, and a lane for each thread."""

    def __init__(self, app: Celery) -> None:
        self.app = app
        self.version: int | None = None
        self.plans: dict[Any, Plan] = {}
        self.forget_connections()

    # plans

    def plan(self, call: Call) -> Plan:
        """Return the plan for ``call``; what is left in ``call.options`` belongs to this call alone."""
        conf = self.app.conf
        if conf.version != self.version:
            self._configure(conf)
        options = call.options
        routed: dict[str, Any] = {}
        if options:
            call.options = {}
            for name, value in options.items():
                (routed if name in _ROUTE_OPTIONS else call.options)[name] = value
        if call.router is None and self.is_static:
            key = (call.name, call.task_type is None, call.route_name, *routed.items())
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
        return self._make_plan(call, routed)

    def _configure(self, conf: Any) -> None:
        """Read what the configuration says; everything planned before is dropped."""
        amqp = self.app.amqp
        amqp.follow(conf)
        self.plans = {}
        self.is_static = amqp.router.is_static
        self.is_custom = not amqp.builds_messages_itself
        self.inherits_priority = conf.task_inherit_parent_priority
        self.tells_sent = conf.task_send_sent_event
        self.is_eager = conf.task_always_eager
        self.detects_quorum = conf.worker_detect_quorum_queues
        self.forget_connections()
        self.version = conf.version

    def _make_plan(self, call: Call, routed: dict[str, Any]) -> Plan:
        app, task = self.app, call.task_type
        if self.is_eager:
            warnings.warn("task_always_eager has no effect on send_task", AlwaysEagerIgnored, stacklevel=5)
        if call.options:
            warn_about_unknown(call.options, maybe_list(call.options.get("stamped_headers")))
        if task is not None:
            options = {**task._get_exec_options(), **routed}
        elif call.name in app.tasks:
            # Upstream: by name, a task's own options of the value None are left out.
            own = app.tasks[call.name]._get_exec_options()
            options = {**{name: value for name, value in own.items() if value is not None}, **routed}
        else:
            options = routed
        expires, limits = (
            options.pop("expires", None),
            (options.pop("time_limit", None), options.pop("soft_time_limit", None)),
        )
        router = call.router or app.amqp.router
        everything = {**options, **call.options} if call.options else options
        found = dict(router.route(everything, call.route_name or call.name, call.args, call.kwargs, task))
        for name in call.options:
            if found.get(name) is call.options[name]:
                del found[name]
        defaults = {name: found.pop(name) for name in _CALL_OPTIONS if name in found}
        for name, value in (("expires", expires), ("time_limit", limits[0]), ("soft_time_limit", limits[1])):
            if value is not None:
                defaults[name] = value
        message_options = {name: found.pop(name) for name in _MESSAGE_OPTIONS if name in found}
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

    # lanes

    def deliver(self, call: Call, plan: Plan, message: task_message, options: dict[str, Any]) -> None:
        """Send ``message`` through the lane that the call asks for, or the best there is."""
        app = self.app
        ignored = call.options.get("ignore_result", plan.ignore_result)
        try:
            if call.producer is None and call.connection is None:
                direct = self.direct()
                if direct is not None:
                    if not ignored and listens_to_calls(app.backend):
                        app.backend.on_task_call(direct, call.task_id)
                    app.amqp.send_task_message(direct, call.name, message, **options)
                    return
            self._deliver_by_kombu(call, message, options, ignored)
        except EncodeError as error:
            serializer = options.get("serializer") or app.conf.task_serializer
            function = getattr(call.task_type or app.tasks.get(call.name), "run", None)
            raise explained(error, call.name, message.body, serializer, function) from error.__cause__

    def _deliver_by_kombu(self, call: Call, message: task_message, options: dict[str, Any], ignored: Any) -> None:
        app = self.app
        producer = call.producer or getattr(self.local, "producer", None)
        if call.connection is not None:
            producer = app.amqp.Producer(call.connection, auto_declare=False)
        with app.producer_or_acquire(producer) as opened:
            connection = opened.connection
            timeout = options.get("timeout")
            if call.producer is None and call.connection is None:
                seconds = PUBLISH_SECONDS if timeout is None else timeout
                _connect(connection, options.get("retry"), options.get("retry_policy"), app.conf, seconds)
                options = {**options, "timeout": seconds}
            with connection._reraise_as_library_errors():
                if not ignored and listens_to_calls(app.backend):
                    app.backend.on_task_call(opened, call.task_id)
                app.amqp.send_task_message(opened, call.name, message, **options)

    def direct(self) -> DirectProducer | None:
        """Return this thread's producer over the transport's own publisher, or ``None`` where there is none."""
        try:
            return self.local.direct  # type: ignore[no-any-return]
        except AttributeError:
            pass
        if self.publisher is UNSET:
            self.publisher = open_publisher(self.app)
        producer = None if self.publisher is None else DirectProducer(self.app, self.publisher)
        self.local.direct = producer
        return producer

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Collect what this thread sends, and send it in one go at the end; nothing is sent after an error."""
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
        self.publisher: Any = UNSET
        self.local = threading.local()


@contextmanager
def _kombu_batch(producer: Any) -> Iterator[None]:
    """Enter kombu's own batch, which came with 5.7; messages go one by one before."""
    batch = getattr(producer, "batch", None)
    if batch is None:
        yield
    else:
        with producer.connection._reraise_as_library_errors(), batch():
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


def similar_tasks(app: Any, name: str) -> list[str]:
    """Return names of registered tasks that look like ``name``, nearest first; empty when ``name`` is one."""
    if name in app.tasks:
        return []
    return get_close_matches(name, [each for each in app.tasks if not each.startswith("celery.")], n=3)

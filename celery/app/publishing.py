"""From a call to a sent message.

::

    send_task(...) → Call → Outbox.plan (route and all that stays the same) → message (app.amqp) → lane

There are two lanes: the transport's own ``Publisher`` where it has one, else a producer of kombu's from the app's
pool.  ``batch(app)`` lets everything that this thread sends meanwhile go out together.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from kombu.utils.functional import maybe_list

from celery.app import delayed
from celery.app.deadlines import PUBLISH_SECONDS
from celery.app.options import check_time_limits, until
from celery.app.outbox import MESSAGE_OPTIONS, Outbox, Plan, batch, outbox
from celery.protocol.task import task_message

if TYPE_CHECKING:
    from celery.app.base import Celery

__all__ = ("PUBLISH_SECONDS", "Call", "batch", "outbox", "publish", "send_task", "similar_tasks")

#: "Not given": `None` takes away what the task's class says.
UNSET: Any = type("Unset", (), {"__repr__": lambda self: "UNSET", "__bool__": lambda self: False})()


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

    A task class of that name gives the defaults of its options, if there is one here.  ``countdown`` and the time
    limits are seconds, ``eta`` is a datetime, ``expires`` one or seconds from now.  It blocks until the broker has the
    message.

    Raises:
        TypeError: an option has a wrong type.
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
    own = call.options.get("ignore_result")
    if plan.ignore_result if own is None else own:
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
    defaults = plan.defaults
    countdown, eta, expires = call.countdown, call.eta, call.expires
    if countdown is None and eta is None and defaults:
        countdown, eta = defaults.get("countdown"), defaults.get("eta")
    if expires is UNSET:
        expires = defaults.get("expires")
    time_limit = defaults.get("time_limit") if call.time_limit is UNSET else call.time_limit
    soft_time_limit = defaults.get("soft_time_limit") if call.soft_time_limit is UNSET else call.soft_time_limit
    if time_limit is not None or soft_time_limit is not None:
        check_time_limits(time_limit, soft_time_limit)

    facts, properties = _options(call, plan, box)
    if expires is not None and not call.chord:  # a broker would drop it, and the chord would never end
        seconds = until(expires, app.now())
        if seconds is None or seconds > 0 or not call.chain:
            properties = {**properties, "expiration": seconds}
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
        call.link and _callbacks(call.link, "link", call.name),
        call.link_error and _callbacks(call.link_error, "link_error", call.name),
        call.reply_to or defaults.get("reply_to") or app.thread_oid,
        time_limit,
        soft_time_limit,
        box.tells_sent,
        call.root_id,
        call.parent_id,
        call.shadow or defaults.get("shadow"),
        chain=call.chain,
        replaced_task_nesting=call.replaced_task_nesting,
        **facts,
    )
    if plan.is_delayable and (countdown or eta):
        properties = delayed.rerouted(app, properties, countdown, eta)
    return message, properties


def _options(call: Call, plan: Plan, box: Outbox) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what the builder of the message gets, and what its sender gets."""
    given = call.options
    facts = {"ignore_result": plan.ignore_result, **plan.message_options}
    if box.is_custom:
        facts.update(plan.options)
    if not given:
        return facts, plan.options
    facts.update(given)
    stamped = maybe_list(facts.get("stamped_headers")) or ()
    own = {name: value for name, value in given.items() if name not in MESSAGE_OPTIONS and name not in stamped}
    return facts, {**plan.options, **own}


def _callbacks(callbacks: Any, option: str, name: str) -> list[Any]:
    """Return what ``link`` or ``link_error`` of a call of the task ``name`` names, as a list.

    Raises:
        TypeError: one of them is no signature, nor a mapping that stands for one, nor the name of a task.
    """
    found = [callbacks] if hasattr(callbacks, "apply_async") else list(maybe_list(callbacks) or ())
    for callback in found:
        if not isinstance(callback, (dict, str)):
            way_out = ": write task.s()" if hasattr(callback, "s") else ""
            raise TypeError(f"{option} of {name} takes signatures, not {callback!r:.100}{way_out}")
    return [_call_of(callback) if isinstance(callback, str) else callback for callback in found]


def _call_of(name: str) -> dict[str, Any]:
    """Return the signature, as a mapping, of the task ``name`` without arguments."""
    return {"task": name, "args": (), "kwargs": {}, "options": {}, "subtask_type": None, "immutable": False}


def similar_tasks(app: Any, name: str) -> list[str]:
    """Return names of registered tasks that look like ``name``, nearest first; empty when ``name`` is one."""
    if name in app.tasks:
        return []
    return get_close_matches(name, [each for each in app.tasks if not each.startswith("celery.")], n=3)

"""Task messages, versions 1 and 2: from a call to headers and body, and back.

``build_v1`` and ``build_v2`` make what a client sends.  ``parse`` takes what a broker delivered, from anybody, and
returns either a :class:`ParsedTask` or the reason why there is none: whoever calls it never sees a raw field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

__all__ = (
    "ParsedTask",
    "Unreadable",
    "build_v1",
    "build_v2",
    "is_v2",
    "parse",
    "parse_body",
    "parse_headers",
    "parse_time",
    "task_message",
)


class task_message(NamedTuple):
    """What goes to the broker, and the fields of the event that tells of it (``None`` without an event)."""

    headers: dict[str, Any]
    properties: dict[str, Any]
    body: Any
    sent_event: dict[str, Any] | None


task_message.__module__ = "celery.app.amqp"


# -- building


def build_v2(
    task_id: str,
    name: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    eta: str | None,
    expires: str | None,
    group_id: str | None,
    group_index: int | None,
    retries: int | None,
    chord: Any,
    chain: Any,
    callbacks: Any,
    errbacks: Any,
    reply_to: str | None,
    time_limit: float | None,
    soft_time_limit: float | None,
    root_id: str | None,
    parent_id: str | None,
    shadow: str | None,
    origin: str,
    ignore_result: bool | None,
    argsrepr: str,
    kwargsrepr: str,
    stamped_headers: Any,
    stamps: dict[str, Any],
    replaced_task_nesting: int,
    with_event: bool = False,
) -> task_message:
    """Return the version 2 message: the call's facts in the headers, its arguments in the body.

    ``eta`` and ``expires`` are ISO 8601 text.
    Upstream: task protocol 2.
    """
    root_id = root_id or task_id
    return task_message(
        {
            "lang": "py",
            "task": name,
            "id": task_id,
            "shadow": shadow,
            "eta": eta,
            "expires": expires,
            "group": group_id,
            "group_index": group_index,
            "retries": retries,
            "timelimit": [time_limit, soft_time_limit],
            "root_id": root_id,
            "parent_id": parent_id,
            "argsrepr": argsrepr,
            "kwargsrepr": kwargsrepr,
            "origin": origin,
            "ignore_result": ignore_result,
            "replaced_task_nesting": replaced_task_nesting,
            "stamped_headers": stamped_headers,
            "stamps": stamps,
        },
        {"correlation_id": task_id, "reply_to": reply_to or ""},
        (args, kwargs, {"callbacks": callbacks, "errbacks": errbacks, "chain": chain, "chord": chord}),
        {
            "uuid": task_id,
            "root_id": root_id,
            "parent_id": parent_id,
            "name": name,
            "args": argsrepr,
            "kwargs": kwargsrepr,
            "retries": retries,
            "eta": eta,
            "expires": expires,
        }
        if with_event
        else None,
    )


def build_v1(
    task_id: str,
    name: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    eta: str | None,
    expires: str | None,
    group_id: str | None,
    group_index: int | None,
    retries: int,
    chord: Any,
    callbacks: Any,
    errbacks: Any,
    reply_to: str | None,
    time_limit: float | None,
    soft_time_limit: float | None,
    is_utc: bool,
    event_reprs: tuple[str, str] | None = None,
) -> task_message:
    """Return the version 1 message: everything in the body, which is one mapping.

    ``event_reprs`` are the representations of ``args`` and ``kwargs`` for the event, when one is wanted.
    Upstream: task protocol 1.
    """
    return task_message(
        {},
        {"correlation_id": task_id, "reply_to": reply_to or ""},
        {
            "task": name,
            "id": task_id,
            "args": args,
            "kwargs": kwargs,
            "group": group_id,
            "group_index": group_index,
            "retries": retries,
            "eta": eta,
            "expires": expires,
            "utc": is_utc,
            "callbacks": callbacks,
            "errbacks": errbacks,
            "timelimit": (time_limit, soft_time_limit),
            "taskset": group_id,
            "chord": chord,
        },
        {
            "uuid": task_id,
            "name": name,
            "args": event_reprs[0],
            "kwargs": event_reprs[1],
            "retries": retries,
            "eta": eta,
            "expires": expires,
        }
        if event_reprs
        else None,
    )


# -- parsing


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Why a message is no task message."""

    reason: str


@dataclass(slots=True)
class ParsedTask:
    """A task message, each field of the type that its name promises.

    ``args`` to ``chord`` come from the body and are empty until it was read (version 2: :func:`parse_body`).
    ``eta`` and ``expires`` are text that is known to parse.
    """

    id: str
    name: str
    version: int = 2
    shadow: str | None = None
    eta: str | None = None
    expires: str | None = None
    group: str | None = None
    group_index: int | None = None
    retries: int = 0
    timelimit: tuple[float | None, float | None] = (None, None)
    root_id: str | None = None
    parent_id: str | None = None
    argsrepr: str | None = None
    kwargsrepr: str | None = None
    origin: str | None = None
    ignore_result: bool | None = None
    replaced_task_nesting: int = 0
    stamped_headers: list[str] | None = None
    stamps: dict[str, Any] = field(default_factory=dict)
    is_utc: bool = True
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    callbacks: Sequence[Any] | None = None
    errbacks: Sequence[Any] | None = None
    chain: Sequence[Any] | None = None
    chord: Any = None


class _Bad(Exception):
    """Ends parsing; the text is the reason."""


def is_v2(headers: Any) -> bool:
    """Return true for a version 2 message: its headers name the task."""
    return isinstance(headers, Mapping) and "task" in headers


def parse(headers: Any, body: Any) -> ParsedTask | Unreadable:
    """Return the task that ``headers`` and the decoded ``body`` describe, or the reason why they do not.

    Never raises, whatever it is given.
    """
    if not is_v2(headers):
        return _guarded(_read_v1, body)
    parsed = parse_headers(headers)
    if isinstance(parsed, Unreadable):
        return parsed
    return parse_body(parsed, body)


def parse_headers(headers: Any) -> ParsedTask | Unreadable:
    """Return the task that version 2 ``headers`` describe, its body not yet read, or a reason.  Never raises."""
    return _guarded(_read_headers, headers)


def parse_body(task: ParsedTask, body: Any) -> ParsedTask | Unreadable:
    """Return ``task`` with the fields of its decoded version 2 ``body``, or a reason.  Never raises."""
    return _guarded(_read_body, task, body)


def _guarded(read: Any, *args: Any) -> ParsedTask | Unreadable:
    try:
        return read(*args)  # type: ignore[no-any-return]
    except _Bad as bad:
        return Unreadable(str(bad))
    except Exception as error:  # a hostile object from a serializer: still a reason, never a crash
        return Unreadable(f"the message cannot be read: {type(error).__name__}")


def _read_headers(headers: Any) -> ParsedTask:
    if not isinstance(headers, Mapping):
        raise _Bad(f"headers are no mapping but {_kind(headers)}")
    return _common(headers, ParsedTask(_text(headers, "id"), _text(headers, "task")))


def _common(fields: Mapping[str, Any], task: ParsedTask) -> ParsedTask:
    """Read what both versions may carry."""
    optional = _optional
    task.shadow = optional(fields, "shadow", str)
    task.eta = _time(fields, "eta")
    task.expires = _time(fields, "expires")
    task.group = optional(fields, "group", str)
    task.group_index = optional(fields, "group_index", int)
    task.retries = optional(fields, "retries", int) or 0
    task.timelimit = _limits(fields.get("timelimit"))
    task.root_id = optional(fields, "root_id", str)
    task.parent_id = optional(fields, "parent_id", str)
    task.argsrepr = optional(fields, "argsrepr", str)
    task.kwargsrepr = optional(fields, "kwargsrepr", str)
    task.origin = optional(fields, "origin", str)
    task.ignore_result = optional(fields, "ignore_result", bool)
    task.replaced_task_nesting = optional(fields, "replaced_task_nesting", int) or 0
    stamped = optional(fields, "stamped_headers", (list, tuple))
    task.stamped_headers = None if stamped is None else list(stamped)
    task.stamps = dict(optional(fields, "stamps", Mapping) or {})
    return task


def _read_body(task: ParsedTask, body: Any) -> ParsedTask:
    if not isinstance(body, (list, tuple)):
        raise _Bad(f"the body is no list but {_kind(body)}")
    if len(body) != 3:
        raise _Bad(f"the body has {len(body)} parts instead of 3 (args, kwargs, embed)")
    args, kwargs, embed = body
    if not isinstance(embed, Mapping):
        raise _Bad(f"the third part of the body is no mapping but {_kind(embed)}")
    task.args, task.kwargs = _arguments(args, kwargs)
    task.callbacks = _signatures(embed, "callbacks")
    task.errbacks = _signatures(embed, "errbacks", _ERRBACK)
    task.chain = _signatures(embed, "chain")
    task.chord = _optional(embed, "chord", Mapping)
    return task


def _read_v1(body: Any) -> ParsedTask:
    if not isinstance(body, Mapping):
        raise _Bad(f"no `task` header (version 2), and the body is no mapping (version 1) but {_kind(body)}")
    task = _common(body, ParsedTask(_text(body, "id"), _text(body, "task"), version=1))
    task.group = task.group or _optional(body, "taskset", str)
    task.is_utc = body.get("utc") is not False
    task.args, task.kwargs = _arguments(body.get("args") or (), body.get("kwargs") or {})
    task.callbacks = _signatures(body, "callbacks")
    task.errbacks = _signatures(body, "errbacks", _ERRBACK)
    task.chord = _optional(body, "chord", Mapping)
    return task


def _arguments(args: Any, kwargs: Any) -> tuple[Sequence[Any], Mapping[str, Any]]:
    if not isinstance(args, (list, tuple)):
        raise _Bad(f"args are no list but {_kind(args)}")
    if not isinstance(kwargs, Mapping):
        raise _Bad(f"kwargs are no mapping but {_kind(kwargs)}")
    for key in kwargs:
        if not isinstance(key, str):
            raise _Bad(f"kwargs has the key {key!r:.40}, which is no text")
    return args, kwargs


#: Upstream: an errback may be the name of a task.
_ERRBACK = (Mapping, str)


def _signatures(fields: Mapping[str, Any], name: str, kinds: Any = Mapping) -> Sequence[Any] | None:
    found: Sequence[Any] | None = _optional(fields, name, (list, tuple))
    for each in found or ():
        if not isinstance(each, kinds):
            raise _Bad(f"`{name}` has no signature but {_kind(each)} in it")
    return found


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str) or not value:
        raise _Bad(f"`{name}` is missing" if value in (None, "") else f"`{name}` is no text but {_kind(value)}")
    return value


def _optional(fields: Mapping[str, Any], name: str, kind: Any) -> Any:
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        wanted = kind.__name__ if isinstance(kind, type) else "list"
        raise _Bad(f"`{name}` is no {wanted} but {_kind(value)}")
    return value


def _time(fields: Mapping[str, Any], name: str) -> str | None:
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, datetime):  # pickle and yaml carry times as such
        return value.isoformat()
    if not isinstance(value, str):
        raise _Bad(f"`{name}` is no time but {_kind(value)}")
    try:
        parse_time(value)
    except (ValueError, OverflowError):
        raise _Bad(f"`{name}` is no ISO 8601 time: {value!r:.40}") from None
    return value


def parse_time(text: str) -> datetime:
    """Return the time that ISO 8601 ``text`` means.

    Raises:
        ValueError: it means none.
    """
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        from dateutil.parser import isoparse  # for forms that few clients send, and Python 3.10 does not know

        return isoparse(text)


def _limits(value: Any) -> tuple[float | None, float | None]:
    if value is None:
        return None, None
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise _Bad(f"`timelimit` is no pair but {_kind(value)}")
    for limit in value:
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, (int, float))):
            raise _Bad(f"`timelimit` holds no seconds but {_kind(limit)}")
    return value[0], value[1]


def _kind(value: Any) -> str:
    return f"a {type(value).__name__}"

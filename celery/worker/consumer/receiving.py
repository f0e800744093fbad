"""From a delivered message to the strategy of its task; what is no task message is set aside with the reason.

Nothing that a message contains ends the worker.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from kombu.exceptions import ContentDisallowed, DecodeError
from kombu.utils.encoding import safe_repr

from celery import signals
from celery.app.context import ignores_result
from celery.app.task import Context
from celery.exceptions import InvalidTaskError, NotRegistered, WorkerLostError
from celery.protocol.task import Unreadable, is_v2, parse, parse_headers
from celery.transports.message import STARTED_LOSSES, Message
from celery.utils.log import get_logger
from celery.utils.text import truncate

__all__ = ("Receiver", "dump_body", "is_usual")

logger = get_logger(__name__)

#: Time limits as all but a few messages have them.
_NO_LIMITS = ([None, None], (None, None), None)
_NO_STAMPS: tuple[Any, ...] = ({}, None)
_FLAGS = (None, False, True)


#: Headers that say which task it is and what it is part of; others may be what is wrong with a message.
_IDENTITY = {
    "id": str,
    "task": str,
    "group": str,
    "group_index": int,
    "root_id": str,
    "parent_id": str,
    "ignore_result": bool,
}

_OPTIONAL_TEXT = (str, type(None))
_OPTIONAL_NUMBER = (int, type(None))


def is_usual(headers: Mapping[str, Any]) -> bool:
    """Return whether version 2 ``headers``, of a task that is known, are plainly well formed.

    If not, `parse_headers` knows better; it takes about five times as long.
    """
    get = headers.get
    task_id = get("id")
    return (
        type(task_id) is str
        and task_id != ""
        and type(get("retries")) is int
        and get("timelimit") in _NO_LIMITS
        and get("eta") is None
        and get("expires") is None
        and type(get("root_id")) in _OPTIONAL_TEXT
        and type(get("parent_id")) in _OPTIONAL_TEXT
        and type(get("group")) in _OPTIONAL_TEXT
        and type(get("group_index")) in _OPTIONAL_NUMBER
        and type(get("shadow")) in _OPTIONAL_TEXT
        and type(get("origin")) in _OPTIONAL_TEXT
        and type(get("argsrepr")) in _OPTIONAL_TEXT
        and type(get("kwargsrepr")) in _OPTIONAL_TEXT
        and get("stamped_headers") is None
        and get("stamps") in _NO_STAMPS
        and get("ignore_result") in _FLAGS
        and type(get("replaced_task_nesting", 0)) is int
    )


def dump_body(m: Any, body: Any) -> str:
    """Return ``body`` (by default that of the message ``m``) as text for a log, cut to a bearable length."""
    try:
        body = m.body if body is None else body
    except DecodeError as exc:
        return f"unreadable: {exc}"
    if isinstance(body, memoryview):
        body = bytes(body)
    size = len(m.body) if isinstance(m.body, (bytes, str, memoryview)) else 0
    return f"{truncate(safe_repr(body), 1024)} ({size}b)"


class Receiver:
    """Takes messages for a consumer."""

    def __init__(self, consumer: Any) -> None:
        self.consumer = consumer

    def hear_of(self, transport: Any) -> None:
        """Let ``transport`` tell of what it sets aside by itself, so that the failure is stored."""
        say = getattr(transport, "on_set_aside", None)
        if say is None:
            return

        def on_set_aside(queue: str, message: Any, reason: str) -> None:
            say(queue, message, reason)
            self.on_set_aside(message, reason)

        transport.on_set_aside = on_set_aside
        if hasattr(transport, "on_left"):
            transport.on_left = lambda queue, message, forget: self.on_left(message, forget)

    def handler(self) -> Callable[[Any], None]:
        """Return the function that takes every message of the task queues."""
        consumer = self.consumer
        strategies = consumer.strategies
        callbacks = consumer.on_task_message
        adoption = consumer.adoption
        admission = consumer.admission
        ack, reject = (admission or consumer).acknowledge, (admission or consumer).reject
        if consumer.answers_come_from_other_threads:
            ack, reject = partial(consumer.call_soon_ack, ack), partial(consumer.call_soon_ack, reject)
        fatal = (*consumer.connection_errors, *consumer.channel_errors, MemoryError)
        sort_out, receive_other, on_failure = self._sort_out, self._receive_other, self._on_failure

        def on_task_received(message: Any) -> None:
            headers = message.headers
            try:
                strategy = strategies[headers["task"]]
            except (KeyError, TypeError):
                return sort_out(message, fatal, receive_other, message, ack, reject)
            if not is_usual(headers):
                parsed = parse_headers(headers)
                if isinstance(parsed, Unreadable):
                    error = InvalidTaskError(parsed.reason)
                    return sort_out(message, fatal, consumer.on_invalid_task, None, message, error)
            if (
                adoption
                and message.delivery_info.get("redelivered")
                and adoption.take(message, consumer.acknowledge_now)
            ):
                return None
            try:
                strategy(message, None, partial(ack, message), partial(reject, message), callbacks)
            except fatal:
                raise
            except Exception as exc:
                on_failure(message, None, exc)

        if admission is None:
            return on_task_received
        return lambda message: on_task_received(message) if admission.admits(message) else None

    def _sort_out(self, message: Any, fatal: Any, deal: Callable[..., None], *args: Any) -> None:
        """Let ``deal`` see to a strange message; if that fails, too, the message still goes, and the worker stays."""
        try:
            deal(*args)
        except fatal:
            raise
        except Exception as exc:
            logger.critical("A message could not be sorted out, set aside: %r", exc, exc_info=True)
            if not message.acknowledged:
                self.consumer.set_aside(message, f"{type(exc).__name__}: {exc}")

    def _receive_other(self, message: Any, ack: Callable[..., None], reject: Callable[..., None]) -> None:
        """Take what the quick way could not: version 1, a task that is not known here, or no task message at all."""
        consumer = self.consumer
        body = None
        if not is_v2(message.headers):
            try:
                body = message.decode()
            except Exception as exc:
                return consumer.on_decode_error(message, exc)  # type: ignore[no-any-return]
            if not isinstance(body, Mapping) or "task" not in body:
                return consumer.on_unknown_message(body, message)  # type: ignore[no-any-return]
        parsed = parse_headers(message.headers) if body is None else parse(None, body)
        if isinstance(parsed, Unreadable):
            return consumer.on_invalid_task(body, message, InvalidTaskError(parsed.reason))  # type: ignore[no-any-return]
        strategy = consumer.strategies.get(parsed.name)
        if strategy is None:
            return consumer.on_unknown_task(body, message, NotRegistered(parsed.name))  # type: ignore[no-any-return]
        try:
            strategy(message, body, partial(ack, message), partial(reject, message), consumer.on_task_message)
        except (*consumer.connection_errors, *consumer.channel_errors, MemoryError):
            raise
        except Exception as exc:
            self._on_failure(message, body, exc)
        return None

    def _on_failure(self, message: Any, body: Any, exc: Exception) -> None:
        """Deal with a message that its strategy could not."""
        if isinstance(exc, InvalidTaskError):
            self.consumer.on_invalid_task(body, message, exc)
        elif isinstance(exc, (DecodeError, ContentDisallowed)):
            self.consumer.on_decode_error(message, exc)
        else:
            logger.error("Taking a message failed: %r", exc, exc_info=True)
            self.consumer.on_invalid_task(body, message, InvalidTaskError(f"{type(exc).__name__}: {exc}"))

    # -- what is set aside ---------------------------------------------------------------------------------------

    def on_unknown_message(self, body: Any, message: Any) -> None:
        logger.warning(
            "Received a message that is no task message, set aside. Was it sent to the wrong queue?\n%s",
            self._describe(message, body),
        )
        self.consumer.set_aside(message, "no task message: neither a `task` header nor a `task` in the body")
        signals.task_rejected.send(sender=self.consumer, message=message, exc=None)

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        # First aside, then the words: whatever is wrong with the message, it must not come back.
        self.consumer.set_aside(message, str(exc))
        self._tell_chord_of(message, exc)
        logger.error("Received invalid task message, set aside: %s\n%s", exc, self._describe(message, body))
        signals.task_rejected.send(sender=self.consumer, message=message, exc=exc)

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        logger.critical(
            "Can't decode message body, set aside: %r [type:%r encoding:%r]\n%s",
            exc,
            message.content_type,
            message.content_encoding,
            self._describe(message, None),
        )
        self.consumer.set_aside(message, f"{type(exc).__name__}: {exc}")
        self._tell_chord_of(message, exc)

    def on_unreadable_body(self, message: Any, reason: str) -> None:
        logger.error(
            "Received a task message with an unreadable body, set aside: %s\n%s", reason, self._describe(message, None)
        )
        self.consumer.set_aside(message, reason)
        task_id = message.headers.get("id")
        self._store_failure(task_id, InvalidTaskError(reason), Context(message.headers))

    def _tell_chord_of(self, message: Any, exc: Exception) -> None:
        """A message that cannot be read was a member of a group: if that is a chord, it ends all the same."""
        headers = message.headers if isinstance(message.headers, Mapping) else {}
        if all(isinstance(headers.get(name), str) for name in ("id", "group")):
            readable = {name: headers[name] for name, kind in _IDENTITY.items() if type(headers.get(name)) is kind}
            self._store_failure(headers["id"], exc, Context(readable))

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        consumer = self.consumer
        fields = body if isinstance(body, Mapping) else message.headers
        name, task_id = fields["task"], fields["id"]
        logger.error(
            "Received unregistered task of type %s. It is set aside. Import its module in this worker (`include`, "
            "`imports`), or route it to a worker that knows it.\n%s",
            exc,
            self._describe(message, body),
        )
        consumer.set_aside(message, f"task {name!r} is not registered in this worker")
        if consumer.event_dispatcher is not None:
            consumer.event_dispatcher.send("task-failed", uuid=task_id, exception=f"NotRegistered({name!r})")
        self._store_failure(task_id, exc, _context(message, body))
        signals.task_unknown.send(sender=consumer, message=message, exc=exc, name=name, id=task_id)

    def on_set_aside(self, envelope: Any, reason: str) -> None:
        """Store the failure of a task whose message its transport has set aside: it lost its worker too often."""
        if not isinstance(envelope, dict) or not envelope["headers"].get(STARTED_LOSSES):
            return
        headers = envelope["headers"]
        task_id, task = headers.get("id"), self.consumer.app.tasks.get(headers.get("task"))
        if isinstance(task_id, str) and task is not None:
            self.consumer.bookkeeper.submit(self._store_loss, task, envelope, reason)

    def on_left(self, envelope: Any, forget: Callable[[], None]) -> None:
        """A worker is gone that had begun a task which acknowledges early: it is not run again, so it has failed."""
        headers = envelope["headers"]
        task = self.consumer.app.tasks.get(headers.get("task"))
        if not isinstance(headers.get("id"), str) or task is None:
            forget()
            return
        logger.error("Task %s[%s] was lost with the worker that ran it", headers["task"], headers["id"])
        reason = "The worker was lost while it ran the task."
        self.consumer.bookkeeper.submit(self._store_loss, task, envelope, reason, forget)

    def _store_loss(self, task: Any, envelope: Any, reason: str, done: Callable[[], None] | None = None) -> None:
        message, admission = Message(envelope), self.consumer.admission
        # Errbacks and bodies that it names would be sent, and signed, by us.
        if admission is None or admission.vouches_for(message):
            request = _context(message, None)
            is_wanted = not ignores_result(task, request.__dict__) or task.store_errors_even_if_ignored
            task.backend.mark_as_lost(request.id, WorkerLostError(reason), request, store_result=is_wanted)
        if done is not None:
            done()

    def _store_failure(self, task_id: str, exc: Exception, request: Context) -> None:
        self.consumer.bookkeeper.submit(self._fail, task_id, exc, request)

    def _fail(self, task_id: str, exc: Exception, request: Context) -> None:
        backend = self.consumer.app.backend
        backend.mark_as_failure(task_id, exc, request=request)
        if request.group and not request.chord:
            backend.on_unreadable_part(request, exc)

    def _describe(self, message: Any, body: Any) -> str:
        return (
            f"body: {dump_body(message, body)}\n"
            f"{{content_type:{safe_repr(message.content_type)} content_encoding:{safe_repr(message.content_encoding)}\n"
            f"  delivery_info:{safe_repr(message.delivery_info)} headers={truncate(safe_repr(message.headers), 2048)}}}"
        )


def _context(message: Any, body: Any) -> Context:
    """Return the request of a message whose task is not known, with the callbacks that its body names."""
    if isinstance(body, Mapping):
        return Context({**body, "group": body.get("taskset"), "delivery_info": message.delivery_info})
    try:
        args, kwargs, embed = message.payload
    except Exception:  # then it names no callbacks
        args, kwargs, embed = [], {}, {}
    properties = message.properties or {}
    return Context(
        {
            **message.headers,
            "args": args,
            "kwargs": kwargs,
            **embed,
            "delivery_info": message.delivery_info,
            "reply_to": properties.get("reply_to"),
            "correlation_id": properties.get("correlation_id"),
        }
    )

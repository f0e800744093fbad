"""What a task message says, once this worker has accepted it.

It is made for every message, so it computes what it is asked for, and no more; the body stays undecoded unless
somebody in this process wants the arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from kombu.serialization import loads as loads_body
from kombu.utils.objects import cached_property

from celery._state import current_app
from celery.app.context import ignores_result
from celery.app.task import Context
from celery.exceptions import InvalidTaskError
from celery.utils.functional import noop
from celery.utils.nodenames import gethostname
from celery.utils.time import maybe_iso8601, maybe_make_aware

if TYPE_CHECKING:
    from celery.app.base import Celery
    from celery.app.task import Task

__all__ = ("Accepted",)


class Accepted:
    """A task message that this worker has accepted.

    ``headers`` and ``body`` default to the message's own; ``decoded`` true says that ``body`` is already
    ``(args, kwargs, embed)``.

    Raises:
        InvalidTaskError: ``eta`` or ``expires`` is no date.
    """

    time_limits: tuple[float | None, float | None] = (None, None)

    _tzlocal: Any = None
    _connection_errors: tuple[type[BaseException], ...] = ()
    # The same for all requests of a task: `create_request_cls` puts them on the class.
    _app: Any = None
    _task: Any = None
    _hostname: str | None = None
    _eventer: Any = None
    _expires: datetime | None = None
    _eta: datetime | None = None

    def __init__(
        self,
        message: Any,
        on_ack: Callable[..., Any] = noop,
        hostname: str | None = None,
        eventer: Any = None,
        app: Celery | None = None,
        connection_errors: tuple[type[BaseException], ...] | None = None,
        request_dict: dict[str, Any] | None = None,
        task: Task | None = None,
        on_reject: Callable[..., Any] = noop,
        body: Any = None,
        headers: dict[str, Any] | None = None,
        decoded: bool = False,
        utc: bool = True,
        maybe_make_aware: Callable[..., Any] = maybe_make_aware,
        maybe_iso8601: Callable[..., Any] = maybe_iso8601,
        **opts: Any,
    ) -> None:
        self._message = message
        self._request_dict = headers = message.headers if headers is None else headers
        self._body = body
        self._decoded = decoded
        self._utc = utc
        self._on_ack = on_ack
        self._on_reject = on_reject
        if hostname is not None:
            self._hostname = hostname
        if eventer is not None:
            self._eventer = eventer
        if connection_errors is not None:
            self._connection_errors = connection_errors
        if app is not None:
            self._app = app
        if task is not None:
            self._task = task
        self.id: str = headers["id"]
        name = self._type = headers["task"]
        self.name: str = headers.get("shadow") or name
        timelimit = headers.get("timelimit")
        if timelimit:
            self.time_limits = timelimit
        if headers.get("eta") is not None:
            self._eta = self._date(headers["eta"], "eta", maybe_iso8601, maybe_make_aware)
        if headers.get("expires") is not None:
            self._expires = self._date(headers["expires"], "expires", maybe_iso8601, maybe_make_aware)

    def _date(self, value: Any, name: str, parse: Callable[..., Any], make_aware: Callable[..., Any]) -> Any:
        try:
            date = parse(value)
        except (AttributeError, ValueError, TypeError) as exc:
            raise InvalidTaskError(f"invalid {name} value {value!r}: {exc}") from exc
        return make_aware(date, self.tzlocal) if self._utc else date

    @property
    def app(self) -> Any:
        return self._app if self._app is not None else current_app

    @property
    def message(self) -> Any:
        return self._message

    @property
    def delivery_info(self) -> dict[str, Any]:
        """Exchange, routing key, priority, and whether the broker delivered it before."""
        known = self._message.delivery_info or {}
        properties = self._message.properties or {}
        return {
            "exchange": known.get("exchange"),
            "routing_key": known.get("routing_key"),
            "priority": properties.get("priority"),
            "redelivered": known.get("redelivered", False),
        }

    @property
    def request_dict(self) -> dict[str, Any]:
        """The headers, with what the transport and this worker add to them."""
        properties = self._message.properties or {}
        return {
            **self._request_dict,
            "properties": properties,
            "reply_to": properties.get("reply_to"),
            "correlation_id": properties.get("correlation_id"),
            "hostname": self.hostname,
            "delivery_info": self.delivery_info,
        }

    @property
    def body(self) -> Any:
        return self._message.body if self._body is None else self._body

    @property
    def content_type(self) -> str | None:
        content_type: str | None = self._message.content_type
        return content_type

    @property
    def content_encoding(self) -> str | None:
        encoding: str | None = self._message.content_encoding
        return encoding

    @property
    def type(self) -> str:
        return self._type

    @property
    def task_id(self) -> str:
        """Upstream: an older name of ``id``."""
        return self.id

    @task_id.setter
    def task_id(self, value: str) -> None:
        self.id = value

    @property
    def task_name(self) -> str:
        """Upstream: an older name of ``name``."""
        return self.name

    @task_name.setter
    def task_name(self, value: str) -> None:
        self.name = value

    @property
    def task(self) -> Any:
        if self._task is None:
            self._task = self.app.tasks[self._type]
        return self._task

    @property
    def root_id(self) -> str | None:
        return self._request_dict.get("root_id")

    @property
    def parent_id(self) -> str | None:
        return self._request_dict.get("parent_id")

    @property
    def group(self) -> str | None:
        return self._request_dict.get("group")

    @property
    def group_index(self) -> int | None:
        return self._request_dict.get("group_index")

    @property
    def groups(self) -> Any:
        return self._request_dict.get("groups", [])

    @property
    def stamped_headers(self) -> list[str]:
        return self._request_dict.get("stamped_headers") or []

    @property
    def stamps(self) -> dict[str, Any]:
        stamps = self._request_dict.get("stamps") or {}
        return {header: stamps.get(header) for header in self.stamped_headers}

    @property
    def replaced_task_nesting(self) -> int:
        return self._request_dict.get("replaced_task_nesting", 0)

    @property
    def ignore_result(self) -> bool:
        return self._request_dict.get("ignore_result", False)

    @property
    def argsrepr(self) -> str | None:
        return self._request_dict.get("argsrepr")

    @property
    def kwargsrepr(self) -> str | None:
        return self._request_dict.get("kwargsrepr")

    @property
    def correlation_id(self) -> str | None:
        return (self._message.properties or {}).get("correlation_id")

    @property
    def reply_to(self) -> str | None:
        return (self._message.properties or {}).get("reply_to")

    @property
    def on_ack(self) -> Callable[..., Any]:
        return self._on_ack

    @on_ack.setter
    def on_ack(self, value: Callable[..., Any]) -> None:
        self._on_ack = value

    @property
    def on_reject(self) -> Callable[..., Any]:
        return self._on_reject

    @on_reject.setter
    def on_reject(self, value: Callable[..., Any]) -> None:
        self._on_reject = value

    @property
    def hostname(self) -> str:
        if self._hostname is None:
            self._hostname = gethostname()
        return self._hostname

    @property
    def eventer(self) -> Any:
        return self._eventer

    @eventer.setter
    def eventer(self, eventer: Any) -> None:
        self._eventer = eventer

    @property
    def connection_errors(self) -> Any:  # a tuple of exception classes; `type` is a property here
        return self._connection_errors

    def humaninfo(self) -> str:
        return f"{self.name}[{self.id}]"

    @property
    def eta(self) -> datetime | None:
        return self._eta

    @property
    def expires(self) -> datetime | None:
        return self._expires

    @expires.setter
    def expires(self, value: datetime | None) -> None:
        self._expires = value

    @property
    def tzlocal(self) -> Any:
        if self._tzlocal is None:
            self._tzlocal = self.app.conf.timezone
        return self._tzlocal

    @property
    def utc(self) -> bool:
        return self._utc

    @property
    def store_errors(self) -> bool:
        """Whether a failure of this request is to be stored."""
        if ignores_result(self.task, self._request_dict):
            return bool(self.task.store_errors_even_if_ignored)
        return True

    @cached_property
    def _payload(self) -> Any:
        """``(args, kwargs, embed)``, decoded now."""
        if self._decoded:
            return self._body
        if self._body is None or self._body is self._message.body:
            return self._message.payload
        return loads_body(self._body, self.content_type, self.content_encoding)

    @cached_property
    def _args(self) -> list[Any]:
        args: list[Any] = self._payload[0]
        return args

    @property
    def args(self) -> list[Any]:
        return self._args

    @property
    def kwargs(self) -> dict[str, Any]:
        kwargs: dict[str, Any] = self._payload[1]
        return kwargs

    @property
    def _embed(self) -> dict[str, Any]:
        payload = self._payload
        return (payload[2] if len(payload) > 2 else None) or {}

    @property
    def chord(self) -> Any:
        return self._embed.get("chord")

    @property
    def errbacks(self) -> Any:
        return self._embed.get("errbacks")

    @cached_property
    def _context(self) -> Context:
        """The request as the task itself would see it; for what this process tells of the task."""
        try:
            args, kwargs, embed = self.args, self.kwargs, self._embed
        except Exception:  # a body that cannot be read says nothing of callbacks
            args, kwargs, embed = [], {}, {}
        return Context({**self.request_dict, "args": args, "kwargs": kwargs, **embed})

"""Messages as a consumer gets them, without a broker."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from unittest.mock import MagicMock, Mock

from kombu.serialization import dumps


def TaskMessage(
    name: str,
    id: str | None = None,
    args: Any = (),
    kwargs: Any = None,
    callbacks: Any = None,
    errbacks: Any = None,
    chain: Any = None,
    shadow: str | None = None,
    utc: bool | None = None,
    **options: Any,
) -> Any:
    """Return a task message in protocol 2; ``options`` are further headers."""
    id = id or _new_id()
    embed = {"callbacks": callbacks, "errbacks": errbacks, "chain": chain}
    headers = {"id": id, "task": name, "shadow": shadow, **options}
    return _message(id, headers, (args, kwargs or {}, embed))


def TaskMessage1(
    name: str,
    id: str | None = None,
    args: Any = (),
    kwargs: Any = None,
    callbacks: Any = None,
    errbacks: Any = None,
    chain: Any = None,
    **options: Any,
) -> Any:
    """Return a task message in protocol 1; ``options`` are further fields of the body."""
    id = id or _new_id()
    body = {"task": name, "id": id, "args": args, "kwargs": kwargs or {}, "callbacks": callbacks, "errbacks": errbacks}
    return _message(id, {}, {**body, **options})


def task_message_from_sig(app: Any, sig: Any, utc: bool = True, TaskMessage: Any = TaskMessage) -> Any:
    """Return the message that a signature would be sent as."""
    sig.freeze()
    options = dict(sig.options)
    callbacks, errbacks = _as_dicts(options.pop("link", None)), _as_dicts(options.pop("link_error", None))
    if (countdown := options.pop("countdown", None)) is not None:
        from datetime import timedelta

        options["eta"] = app.now() + timedelta(seconds=countdown)
    for moment in ("eta", "expires"):
        if hasattr(options.get(moment), "isoformat"):
            options[moment] = options[moment].isoformat()
    options.pop("task_id", None)
    return TaskMessage(
        sig.task,
        id=sig.id,
        args=sig.args,
        kwargs=sig.kwargs,
        callbacks=callbacks,
        errbacks=errbacks,
        utc=utc,
        **options,
    )


def ContextMock(*args: Any, **kwargs: Any) -> Any:
    """Return a mock that is its own context."""
    mock = MagicMock(*args, **kwargs)
    mock.__enter__.return_value = mock
    mock.__exit__.return_value = None
    return mock


def _new_id() -> str:
    from kombu.utils.uuid import uuid

    return uuid()  # type: ignore[no-any-return]


def _message(id: str, headers: dict[str, Any], payload: Any) -> Any:
    message = Mock(name=f"TaskMessage-{id}")
    message.headers = headers
    message.content_type, message.content_encoding, message.body = dumps(payload, serializer="json")
    message.payload = payload
    message.properties = {"correlation_id": id}
    message.delivery_info = {"exchange": "", "routing_key": "celery"}
    return message


def _as_dicts(signatures: Any) -> list[dict[str, Any]] | None:
    if not signatures:
        return None
    if isinstance(signatures, dict) or not isinstance(signatures, Iterable):
        signatures = [signatures]
    return [dict(signature) for signature in signatures]

"""Meta records: what a backend stores about a task, and how an exception travels in one.

    outcome → meta (plain values) → serializer → store → plain values → meta with exception objects

Nothing here does I/O.  Nothing that a record names is imported; a class is called only if it is an exception.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any

from celery.exceptions import SecurityError
from celery.states import EXCEPTION_STATES, PENDING
from celery.utils.failpoints import is_active
from celery.utils.serialization import create_exception_cls, ensure_serializable

__all__ = (
    "COMPRESSION_MARK",
    "exception_from_record",
    "exception_record",
    "make_meta",
    "pending_meta",
    "revive",
    "split_compressed",
    "wrap_compressed",
)

#: Put in front of a compressed record, followed by the content type of the compression and a zero byte.
COMPRESSION_MARK = b"\x00celery-compressed\x00"

#: Modules of ours and our dependencies, whose exceptions are the same in every process; they may be imported.
#: Whether a test of the tests has switched this protection off.
_BELIEVES = is_active("unprotect.revive")

_KNOWN_MODULES = frozenset(
    {"billiard.exceptions", "celery.exceptions", "celery.utils.serialization", "kombu.exceptions"}
)

#: Exceptions that end the process, or the thread, that meets them.
_ENDING = (SystemExit, KeyboardInterrupt, GeneratorExit)

# Upstream: where classes that cannot be found are said to live.
_MODULE_OF_STRANGERS = "celery.exceptions"
_MODULE_OF_NAMELESS = "celery.backends.base"


# -- records


def pending_meta() -> dict[str, Any]:
    """Return what is said about a task that has no record."""
    return {"status": PENDING, "result": None}


def make_meta(
    task_id: str,
    result: Any,
    state: str,
    *,
    traceback: str | None = None,
    children: list[Any] | None = None,
    date_done: str | None = None,
    request: Any = None,
    extended: bool = False,
) -> dict[str, Any]:
    """Return the record of a task as plain values; ``result`` is prepared already.

    ``request`` may be any object with the attributes of a task request.  ``extended`` adds what
    ``result_extended`` promises: name, arguments, worker, retries, queue and stamps.
    """
    meta = {
        "status": state,
        "result": result,
        "traceback": traceback,
        "children": children,
        "date_done": date_done,
    }
    if request is not None:
        if group := getattr(request, "group", None):
            meta["group_id"] = group
        if parent_id := getattr(request, "parent_id", None):
            meta["parent_id"] = parent_id
        if extended:
            meta.update(_extended_fields(request))
            _add_stamps(meta, request)
    meta["task_id"] = task_id
    return meta


def _extended_fields(request: Any) -> dict[str, Any]:
    delivery = getattr(request, "delivery_info", None)
    return {
        "name": getattr(request, "task", None),
        "args": getattr(request, "args", None),
        "kwargs": getattr(request, "kwargs", None),
        "worker": getattr(request, "hostname", None),
        "retries": getattr(request, "retries", None),
        "queue": delivery.get("routing_key") if delivery else None,
    }


def _add_stamps(meta: dict[str, Any], request: Any) -> None:
    stamps = getattr(request, "stamps", None)
    if not stamps:
        return
    names = getattr(request, "stamped_headers", None) or []
    reserved = frozenset(meta)
    meta["stamped_headers"] = names
    meta.update({name: stamps[name] for name in names if name in stamps and name not in reserved})


def revive(meta: dict[str, Any]) -> dict[str, Any]:
    """Make the result of a failed, revoked or retried task an exception again, in place.

    Some clients of the store write other things than exception records; these become ``Exception(what they wrote)``.

    Raises:
        SecurityError: the record names something that is no exception class.
    """
    if meta["status"] in EXCEPTION_STATES:
        found = meta["result"]
        try:
            meta["result"] = exception_from_record(found)
        except (TypeError, ValueError):
            meta["result"] = Exception(found)
    return meta


# -- exceptions


def exception_record(error: BaseException, encode: Callable[[Any], Any]) -> dict[str, Any]:
    """Return ``error`` as plain values; arguments that ``encode`` refuses become their ``repr``."""
    cls = type(error)
    return {
        "exc_type": getattr(cls, "__qualname__", cls.__name__),
        "exc_message": ensure_serializable(error.args, encode),
        "exc_module": cls.__module__,
    }


def exception_from_record(record: Any) -> BaseException | None:
    """Return the exception that ``record`` describes; exceptions and empty records pass through.

    A class that is not in an imported module is made up, under the same name.

    Raises:
        SecurityError: the record names something that is no exception class.
        TypeError: this is no record.
        ValueError: this record has no type.
    Upstream: CVE-2021-23727.
    """
    if isinstance(record, BaseException):
        return record
    if not record:
        return None
    if not isinstance(record, Mapping):
        raise TypeError(f"A stored exception is a mapping with exc_type, exc_message and exc_module, not {record!r}")
    name = record.get("exc_type")
    if not isinstance(name, str) or not name:
        raise ValueError(f"A stored exception needs exc_type, the name of its class: {record!r}")
    message = record.get("exc_message", "")
    module = record.get("exc_module")
    cls = _exception_class(module if isinstance(module, str) else None, name, message)
    return _build(cls, message)


def _exception_class(module: str | None, name: str, message: Any) -> type[BaseException]:
    """Return the class, or one of that name which is made up; never import, never call a module's ``__getattr__``."""
    if module is None:
        return create_exception_cls(name, _MODULE_OF_NAMELESS)
    found: Any = import_module(module) if module in _KNOWN_MODULES else sys.modules.get(module)
    for part in name.split("."):
        try:
            found = vars(found)[part]
        except (KeyError, TypeError):
            return create_exception_cls(name, _MODULE_OF_STRANGERS)
    if not _BELIEVES and (not isinstance(found, type) or not issubclass(found, BaseException)):
        raise SecurityError(
            f"A stored exception names {module}.{name}, which is no exception class; payload {message!r}"
        )
    exception: type[BaseException] = found
    if not _BELIEVES and issubclass(exception, _ENDING):  # else whoever can write a record could end those who read it
        return create_exception_cls(name, _MODULE_OF_STRANGERS)
    return exception


def _build(cls: type[BaseException], message: Any) -> BaseException:
    arguments: Iterable[Any] = message if isinstance(message, (list, tuple)) else (message,)
    try:
        return cls(*arguments)
    except Exception:  # the class wants other arguments than its ``args`` say
        return Exception(f"{cls}({message})")


# -- compression


def wrap_compressed(payload: bytes, content_type: str) -> bytes:
    """Return the compressed ``payload`` behind a mark that says how to read it."""
    return b"%s%s\x00%s" % (COMPRESSION_MARK, content_type.encode(), payload)


def split_compressed(payload: Any) -> tuple[bytes, str] | None:
    """Return compressed bytes and the content type of the compression, or None if ``payload`` is plain."""
    if isinstance(payload, str) or bytes(payload[: len(COMPRESSION_MARK)]) != COMPRESSION_MARK:
        return None
    content_type, _, body = bytes(payload[len(COMPRESSION_MARK) :]).partition(b"\x00")
    return body, content_type.decode("ascii", "replace")

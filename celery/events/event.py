"""What an event is, and the exchange that events travel by."""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import copy
from typing import Any

from kombu import Exchange

__all__ = ("Event", "event_exchange", "get_exchange", "group_from")

EVENT_EXCHANGE_NAME = "celeryev"

#: Use `get_exchange`: on some transports the exchange has another type.
event_exchange = Exchange(EVENT_EXCHANGE_NAME, type="topic")

#: Transports whose topic exchanges match in the client: a fanout costs less there.  Upstream: as recorded.
FANOUT_TRANSPORTS = frozenset({"redis", "gcpubsub"})


def Event(
    type: str,
    _fields: dict[str, Any] | None = None,
    __dict__: type[dict[str, Any]] = dict,
    __now__: Callable[[], float] = time.time,
    **fields: Any,
) -> dict[str, Any]:
    """Return an event of ``type`` with ``fields``; ``timestamp`` is now unless given, in seconds of the wall clock."""
    event = __dict__(_fields, **fields) if _fields else fields
    if "timestamp" not in event:
        event.update(timestamp=__now__(), type=type)
    else:
        event["type"] = type
    return event


def group_from(type: str) -> str:
    """Return the group of an event type: ``task`` for ``task-sent``."""
    return type.split("-", 1)[0]


def get_exchange(conn: Any, name: str = EVENT_EXCHANGE_NAME) -> Exchange:
    """Return the exchange for events on the connection ``conn``."""
    exchange = copy(event_exchange)
    if conn.transport.driver_type in FANOUT_TRANSPORTS:
        exchange.type = "fanout"
    if name != exchange.name:
        exchange.name = name
    return exchange

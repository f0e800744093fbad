"""The options of a call: which there are, and what their values may be.

A wrong value is refused when the task is sent, with a way out, and not when a worker trips over it.
"""

from __future__ import annotations

import math
import numbers
import sys
import warnings
from collections.abc import Iterable, Mapping
from datetime import date, datetime, timedelta, tzinfo
from difflib import get_close_matches
from typing import Any

from celery.exceptions import CeleryWarning
from celery.protocol.task import parse_time
from celery.utils.time import maybe_make_aware

__all__ = (
    "KNOWN_OPTIONS",
    "TASK_OPTIONS",
    "check_priority",
    "expires_at",
    "starts_at",
    "until",
    "users_stacklevel",
    "warn_about_unknown",
)

#: Options that a task class may set for all its calls, in the order in which they are read.
TASK_OPTIONS = (
    "queue",
    "routing_key",
    "exchange",
    "priority",
    "expires",
    "serializer",
    "delivery_mode",
    "compression",
    "time_limit",
    "soft_time_limit",
    "immediate",
    "mandatory",
)

#: Everything that ``apply_async`` and ``send_task`` act on.  Another option travels as a property of the message.
KNOWN_OPTIONS = frozenset(TASK_OPTIONS) | frozenset(
    """
    args kwargs task_id producer publisher connection router route_name task_type result_cls link link_error shadow
    countdown eta retry retry_policy add_to_parent group_id group_index retries chord chain reply_to root_id parent_id
    headers argsrepr kwargsrepr ignore_result replaced_task_nesting stamps stamped_headers origin declare exchange_type
    timeout confirm_timeout expiration correlation_id event_dispatcher
    """.split()  # noqa: SIM905
)

#: A misspelled option is told from one of the user's own by being this near to one of ours.
_NEAR = 0.8


def warn_about_unknown(options: Iterable[str], stamped: Iterable[str] | None = None) -> None:
    """Warn about each option that looks like one of ours, misspelled.

    Upstream: an option nobody knows becomes a property of the message, and routers and signal handlers may look for
    it; therefore it is not refused.
    """
    for name in options:
        if name in KNOWN_OPTIONS or (stamped and name in stamped):
            continue
        nearest = get_close_matches(name, KNOWN_OPTIONS, n=1, cutoff=_NEAR)
        if nearest:
            warnings.warn(
                f"`{name}` is not an option of `apply_async`; did you mean `{nearest[0]}`? "
                "It was sent as a property of the message.",
                CeleryWarning,
                stacklevel=users_stacklevel(),
            )


def users_stacklevel() -> int:
    """Return the ``stacklevel`` of the nearest line outside of this package."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("celery."):
        frame, level = frame.f_back, level + 1
    return level


def starts_at(countdown: Any, eta: Any, now: datetime, timezone: tzinfo) -> str | None:
    """Return the time before which no worker may start, as ISO 8601 text; ``countdown`` goes before ``eta``.

    A negative countdown is legal: the task starts at once.
    """
    if countdown:
        eta = _later(now, countdown, "countdown", timezone)
    if not eta:
        return None
    if isinstance(eta, (datetime, date)):
        return eta.isoformat()
    if isinstance(eta, str):
        return _checked_time(eta, "eta")
    raise TypeError(
        f"`eta` must be a datetime, not {eta!r:.80} ({type(eta).__name__}). For seconds from now use `countdown`."
    )


def expires_at(expires: Any, now: datetime, timezone: tzinfo) -> str | None:
    """Return the time after which no worker starts the task, as ISO 8601 text; numbers are seconds from now."""
    if expires is None:
        return None
    if isinstance(expires, datetime):
        return expires.isoformat()
    if isinstance(expires, str):
        return _checked_time(expires, "expires")
    return _later(now, expires, "expires", timezone).isoformat()


def until(expires: Any, now: datetime) -> float | None:
    """Return the seconds from ``now`` until ``expires``, at least 0: how long a broker must keep the message."""
    if expires is None:
        return None
    if isinstance(expires, (int, float)):
        return max(expires, 0)
    if isinstance(expires, str):
        expires = parse_time(_checked_time(expires, "expires"))
    if not isinstance(expires, datetime):
        raise TypeError(_wants_seconds("expires", expires))
    expires = maybe_make_aware(expires, now.tzinfo)
    return max((expires - now).total_seconds(), 0)


def _later(now: datetime, seconds: Any, name: str, timezone: tzinfo) -> datetime:
    if isinstance(seconds, timedelta) or not isinstance(seconds, numbers.Real):
        raise TypeError(_wants_seconds(name, seconds))
    if not math.isfinite(seconds):
        raise ValueError(f"`{name}` must be a number of seconds, got {seconds}.")
    try:
        return maybe_make_aware(now + timedelta(seconds=float(seconds)), timezone)
    except OverflowError:
        raise ValueError(f"`{name}` must be seconds that a calendar can hold (up to about 10 years), got {seconds:g}.")


def _wants_seconds(name: str, value: Any) -> str:
    kinds = "a number of seconds" if name == "countdown" else "a number of seconds or a datetime"
    hint = " Use its total_seconds()." if isinstance(value, timedelta) else ""
    return f"`{name}` must be {kinds}, not {value!r:.80} ({type(value).__name__}).{hint}"


def _checked_time(text: str, name: str) -> str:
    try:
        parse_time(text)
    except ValueError:
        raise ValueError(
            f"`{name}` must be a datetime, or one as ISO 8601 text (2030-01-31T12:00:00+00:00), not {text!r:.80}."
        ) from None
    return text


def check_priority(priority: Any) -> None:
    """Refuse a priority that no broker could send."""
    try:
        int(priority)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"`priority` must be a whole number, not {priority!r:.80}.") from None


def check_time_limits(time_limit: Any, soft_time_limit: Any) -> None:
    """Refuse limits that are no seconds; warn about a soft one that the hard one always beats."""
    for name, limit in (("time_limit", time_limit), ("soft_time_limit", soft_time_limit)):
        if limit is not None and not isinstance(limit, numbers.Real):
            raise TypeError(f"`{name}` must be a number of seconds, not {limit!r:.80} ({type(limit).__name__}).")
    if time_limit and soft_time_limit and soft_time_limit > time_limit:
        warnings.warn(
            f"`soft_time_limit` ({soft_time_limit:g} s) is above `time_limit` ({time_limit:g} s): the task is killed "
            "before the soft limit is reached.",
            CeleryWarning,
            stacklevel=users_stacklevel(),
        )


def check_names(options: Mapping[str, Any], known: Any, what: str) -> None:
    """Refuse ``options[what]`` when it is no name in ``known()``."""
    name = options.get(what)
    if name is not None and name not in known():
        raise ValueError(f"Unknown {what} {name!r}. Known: {', '.join(sorted(map(str, known())))}.")

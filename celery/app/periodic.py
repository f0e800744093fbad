"""Entries of ``beat_schedule`` made from signatures."""

from __future__ import annotations

from typing import Any

__all__ = ("add_entry", "entry_for")


def entry_for(
    app: Any, schedule: Any, sig: Any, args: Any, kwargs: Any, name: str | None, options: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Return ``(name, entry)`` that has beat send ``sig``; without a name it is called as the signature looks."""
    from celery.utils.abstract import CallableSignature

    args, kwargs = args or (), kwargs or {}
    sig = sig.clone(args, kwargs) if isinstance(sig, CallableSignature) else app.signature(sig.name, args, kwargs)
    entry = {
        "schedule": schedule,
        "task": sig.task,
        "args": sig.args,
        "kwargs": sig.kwargs,
        "options": {**sig.options, **options},
    }
    return name or repr(sig), entry


def add_entry(conf: Any, key: str, entry: dict[str, Any], is_named: bool) -> None:
    """Put an entry into ``beat_schedule``; warn if it takes the place of another that nobody named."""
    schedule = conf.beat_schedule
    if not conf.value_set_for("beat_schedule"):
        conf.beat_schedule = schedule = {}
    if not is_named and key in schedule:
        from celery.utils.log import get_logger

        get_logger(__name__).warning(
            "The periodic task %r takes the place of an earlier one that looks the same; "
            "give it a `name` in add_periodic_task() to keep both.",
            key,
        )
    schedule[key] = entry

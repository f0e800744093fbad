"""Says what is wrong with an entry of ``beat_schedule``, before it is used."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from celery.schedules import schedule

__all__ = ("check_fields", "check_interval", "check_schedule")


def check_fields(fields: Any) -> None:
    """Raise if no entry can be made of ``fields``, or what is made of them could never be sent."""
    if not isinstance(fields, Mapping):
        raise TypeError(f"it must be a dictionary of fields, not {fields!r}")
    task = fields.get("task")
    if not task:
        raise ValueError("it names no `task`")
    if not isinstance(task, str):
        raise TypeError(f"`task` must be a name, such as {getattr(task, 'name', 'proj.tasks.add')!r}, not {task!r}")
    for field in ("kwargs", "options"):
        if fields.get(field) and not isinstance(fields[field], Mapping):
            raise TypeError(f"`{field}` must be a dictionary, not {fields[field]!r}")
    if isinstance(fields.get("schedule"), type):
        raise TypeError(f"`schedule` is a class; an instance is needed, such as {fields['schedule'].__name__}(...)")


def check_schedule(entry: Any) -> None:
    """Raise if ``entry`` has no schedule, or one that cannot tell when it is due, or that is due all the time."""
    if entry.schedule is None:
        raise ValueError("it has no `schedule`")
    if type(entry.schedule) is schedule and not isinstance(entry.schedule.run_every, timedelta):
        raise TypeError(f"`schedule` must be seconds or a timedelta, not {entry.schedule.run_every!r}")
    check_interval(entry)


def check_interval(entry: Any) -> None:
    """Raise if ``entry`` would be sent again at once, time after time."""
    if type(entry.schedule) is schedule and entry.schedule.run_every <= timedelta(0):
        seconds = entry.schedule.run_every.total_seconds()
        raise ValueError(f"`schedule` must be more than 0 seconds, not {seconds:g}")

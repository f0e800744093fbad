"""Reads the schedule that Celery's beat left behind: a shelf, in whatever database its Python had.

Only when each entry ran last, and how often, is taken from it; the rest is in the settings.  A shelf holds pickles, and
pickles can name any function to call: here entries, times and zones are made, everything else becomes a thing without
behaviour.
"""

from __future__ import annotations

import dbm
import io
import os
import pickle
import sqlite3
from collections.abc import Callable
from datetime import datetime
from typing import Any

__all__ = ("SUFFIXES", "Unreadable", "is_shelf", "last_runs", "set_aside")

#: What the databases append to the name of the file.
SUFFIXES = ("", ".db", ".dat", ".bak", ".dir")


class Unreadable(Exception):
    """There is a shelf, but it cannot be read here."""


class _Thing:
    """Stands for an object of any class that we do not make."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _Entry(_Thing):
    """An entry: what it was made of, as ``ScheduleEntry.__reduce__`` has it."""

    last_run_at: Any = None
    total_run_count: Any = None

    def __init__(self, name: Any = None, task: Any = None, last_run_at: Any = None, count: Any = None, *_: Any) -> None:
        self.last_run_at, self.total_run_count = last_run_at, count


class _Reader(pickle.Unpickler):
    _MADE: dict[tuple[str, str], Any] = {("celery.beat", "ScheduleEntry"): _Entry}
    _KNOWN = {
        ("datetime", "datetime"),
        ("datetime", "timedelta"),
        ("datetime", "timezone"),
        ("zoneinfo", "ZoneInfo._unpickle"),
        ("_codecs", "encode"),  # bytes, in older protocols
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self._KNOWN:
            return super().find_class(module, name)
        if name == "getattr" and module in ("builtins", "__builtin__"):  # older protocols: `ZoneInfo._unpickle`
            return _zone_maker
        return self._MADE.get((module, name), _Thing)


def _zone_maker(owner: Any, name: str) -> Callable[..., Any]:
    def make(key: Any = None, *args: Any) -> Any:
        from zoneinfo import ZoneInfo

        return ZoneInfo(key) if isinstance(key, str) else _Thing()

    return make


def is_shelf(path: str) -> bool:
    """Whether Celery's beat has left a schedule at ``path``."""
    return _kind(path) is not None


def _kind(path: str) -> str | None:
    """Return the module whose database this is."""
    if os.path.isfile(path):
        with open(path, "rb") as file:
            start = file.read(16)
        if start == b"SQLite format 3\0":
            return "dbm.sqlite3"
        if start.startswith(b"celeriac-beat"):
            return None
    return dbm.whichdb(path) or None


def last_runs(path: str) -> dict[str, tuple[datetime, int]]:
    """Return by name when each entry of a shelf was sent last, and how often.

    Raises:
        Unreadable: its database is unknown to this Python, or what it holds is damaged.
    """
    try:
        data = _entries(path)
        return {} if data is None else _runs(_Reader(io.BytesIO(data)).load())
    except Exception as error:  # a damaged pickle, or database, raises whatever it likes
        raise Unreadable(f"{type(error).__name__}: {error}") from error


def _entries(path: str) -> bytes | None:
    if _kind(path) == "dbm.sqlite3":
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
            row = database.execute("SELECT value FROM Dict WHERE CAST(key AS TEXT) = 'entries'").fetchone()
        database.close()
        return row and bytes(row[0])
    with dbm.open(path, "r") as shelf:
        return shelf.get(b"entries")


def _runs(entries: Any) -> dict[str, tuple[datetime, int]]:
    if not isinstance(entries, dict):
        return {}
    return {
        name: (entry.last_run_at, entry.total_run_count if isinstance(entry.total_run_count, int) else 0)
        for name, entry in entries.items()
        if isinstance(entry, _Entry) and isinstance(entry.last_run_at, datetime)
    }


def set_aside(path: str) -> list[str]:
    """Move the files of a shelf out of the way; returns their new names."""
    moved = []
    for suffix in SUFFIXES:
        if os.path.isfile(path + suffix):
            os.replace(path + suffix, f"{path}.celery{suffix}")
            moved.append(f"{path}.celery{suffix}")
    return moved

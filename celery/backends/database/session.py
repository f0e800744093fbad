"""Engines and sessions, one engine for each process and URL."""

from __future__ import annotations

import math
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from sqlalchemy import create_engine, event, inspect
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DatabaseError
from sqlalchemy.orm import declarative_base, sessionmaker
from sqlalchemy.pool import NullPool

from celery.backends.backend import seconds_left

__all__ = ("SessionManager",)

ResultModelBase: Any = declarative_base()

#: Two processes that create tables at once disturb each other; how often to look again.
PREPARE_TRIES = 10
#: Seconds for which SQLite waits for another writer.
SQLITE_BUSY_SECONDS = 30
#: Seconds for which PostgreSQL may take to accept a connection; its own default is for ever.
CONNECT_SECONDS = 10
#: It takes no fewer.
LEAST_CONNECT_SECONDS = 2
#: Its drivers that know the parameter for it.
BOUNDED_DRIVERS = frozenset({"psycopg2", "psycopg"})

_managers: weakref.WeakSet[SessionManager] = weakref.WeakSet()


class SessionManager:
    """Makes sessions; safe for threads, and after a fork nothing of the parent is used."""

    #: Whether this process is the child of one that had connections.
    forked = False
    #: Whether the tables are known to be there.
    prepared = False

    def __init__(self, engine_callback: Callable[[Any], Any] | None = None) -> None:
        self.engine_callback = engine_callback
        self.forked = False
        self.prepared = False
        self._engines: dict[tuple[str, bool], Any] = {}
        self._makers: dict[tuple[str, bool], Any] = {}
        self._lock = threading.RLock()
        _managers.add(self)

    def get_engine(self, dburi: str, short_lived_sessions: bool = False, **kwargs: Any) -> Any:
        """Return the engine of a URL; with ``short_lived_sessions`` its connections are closed after each use."""
        key = (dburi, short_lived_sessions)
        with self._lock:
            if key not in self._engines:
                self._engines[key] = self._create_engine(dburi, short_lived_sessions, kwargs)
            return self._engines[key]

    def _create_engine(self, dburi: str, short_lived_sessions: bool, options: dict[str, Any]) -> Any:
        options = dict(options)
        if short_lived_sessions:
            options = {name: value for name, value in options.items() if not name.startswith("pool")}
            options["poolclass"] = NullPool
        if dburi.startswith("sqlite"):
            options["connect_args"] = {"timeout": SQLITE_BUSY_SECONDS, **options.get("connect_args", {})}
        elif _takes_connect_timeout(make_url(dburi)):
            options["connect_args"] = {"connect_timeout": CONNECT_SECONDS, **options.get("connect_args", {})}
        engine = create_engine(dburi, **options)
        if "connect_timeout" in options.get("connect_args", {}):
            event.listen(engine, "do_connect", _connect_in_time)
        if self.engine_callback is not None:
            self.engine_callback(engine)
        return engine

    def create_session(self, dburi: str, short_lived_sessions: bool = False, **kwargs: Any) -> tuple[Any, Any]:
        """Return ``(engine, class of sessions)``."""
        engine = self.get_engine(dburi, short_lived_sessions, **kwargs)
        key = (dburi, short_lived_sessions)
        with self._lock:
            maker = self._makers.get(key)
            if maker is None:
                maker = self._makers[key] = sessionmaker(bind=engine)
        return engine, maker

    def session_factory(self, dburi: str, **kwargs: Any) -> Any:
        """Return a new session; the tables are there."""
        engine, maker = self.create_session(dburi, **kwargs)
        self.prepare_models(engine)
        return maker()

    def prepare_models(self, engine: Any) -> None:
        """Create the tables that are missing; another process may do so at the same moment."""
        if self.prepared:
            return
        with self._lock:
            engine.connect().close()  # who cannot connect need not try ten times
            for attempt in range(PREPARE_TRIES):
                try:
                    ResultModelBase.metadata.create_all(engine)
                    break
                except DatabaseError:
                    if _has_all_tables(engine):
                        break
                    if attempt == PREPARE_TRIES - 1:
                        raise
                    time.sleep(0.01 * 2**attempt)
            self.prepared = True

    def invalidate(self, dburi: str) -> None:
        """Close the connections to a URL, so that the next session gets a new one."""
        with self._lock:
            for key in [key for key in self._engines if key[0] == dburi]:
                self._makers.pop(key, None)
                self._engines.pop(key).dispose()

    def _after_fork(self) -> None:
        """In the child: forget the parent's connections without closing them."""
        self._lock = threading.RLock()
        for engine in self._engines.values():
            engine.dispose(close=False)
        self._engines.clear()
        self._makers.clear()
        self.forked = True


def _takes_connect_timeout(url: URL) -> bool:
    """Whether a new connection is to be bounded: by us, for the URL says nothing of it."""
    return (
        url.get_backend_name() == "postgresql"
        and url.get_driver_name() in BOUNDED_DRIVERS
        and "connect_timeout" not in url.query
    )


def _connect_in_time(dialect: Any, record: Any, positional: Any, named: dict[str, Any]) -> Any:
    """Return a new connection, made within the time that is left to who asks; ``None`` leaves it to SQLAlchemy."""
    left = seconds_left()
    if left is None:
        return None
    seconds = max(LEAST_CONNECT_SECONDS, min(math.ceil(left), int(named["connect_timeout"])))
    return dialect.connect(*positional, **{**named, "connect_timeout": seconds})


def _has_all_tables(engine: Any) -> bool:
    inspector = inspect(engine)
    return all(inspector.has_table(table.name, schema=table.schema) for table in ResultModelBase.metadata.sorted_tables)


def _after_fork_in_child() -> None:
    for manager in list(_managers):
        manager._after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)

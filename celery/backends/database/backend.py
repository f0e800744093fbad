"""The result backend on a database: a row a task, a row a group."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any

from kombu.utils.imports import symbol_by_name
from sqlalchemy.exc import (
    DatabaseError,
    IntegrityError,
    InterfaceError,
    InternalError,
    InvalidRequestError,
    OperationalError,
    TimeoutError,
)
from sqlalchemy.orm.exc import StaleDataError

from celery import states
from celery.backends.backend import first_line, may_come_late, outlasts, seconds_left
from celery.backends.base import BaseBackend
from celery.backends.database.deadline import deadlines
from celery.backends.database.models import Task, TaskExtended, TaskSet, in_utc, utc_now
from celery.backends.database.session import SessionManager
from celery.exceptions import BackendStoreError, ImproperlyConfigured
from celery.result import result_from_tuple
from celery.utils.log import get_logger

__all__ = ("DatabaseBackend", "session_cleanup")

logger = get_logger(__name__)

#: Of one write: often enough for a lost connection and for two that insert the same row.
MAX_RETRIES = 3

#: Seconds for which it is tried: a database that hangs takes its time to fail.
RETRY_SECONDS = 1.0

#: Seconds for which the database may take to answer;
#: ``result_backend_transport_options["socket_timeout"]`` sets others.
ANSWER_SECONDS = 30.0
#: At least so many, however little time is left to who asks.
LEAST_ANSWER_SECONDS = 0.5

#: What says that the database is away, full, read-only or refuses the login, not that the record is wrong.
PASSING_ERRORS = (OperationalError, InterfaceError, InternalError, TimeoutError)

#: How many rows are asked for at once.
CHUNK_SIZE = 500

_NO_URL = "Missing connection string: set result_backend to db+<URL of SQLAlchemy>, or database_url."


@contextmanager
def session_cleanup(session: Any) -> Iterator[None]:
    """Close the session at the end; undo what it did if that was an error."""
    try:
        yield
    except BaseException:
        session.rollback()
        raise
    finally:
        session.close()


class DatabaseBackend(BaseBackend):
    """Results in a database."""

    subpolling_interval = 0.5

    #: The models of the two tables.
    task_cls: Any = Task
    taskset_cls: Any = TaskSet

    url: str | None = None
    #: What SQLAlchemy makes the engine with: the setting ``database_engine_options``.
    engine_options: dict[str, Any] = {}
    #: Whether a connection is closed after each use: ``database_short_lived_sessions``.
    short_lived_sessions: bool = False
    session_manager: Any = None
    always_retry: bool = True
    max_retries: float = MAX_RETRIES

    def __init__(
        self,
        dburi: str | None = None,
        engine_options: dict[str, Any] | None = None,
        url: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(expires_type=_timedelta, url=url, **kwargs)
        conf = self.app.conf
        if self.extended_result:
            self.task_cls = TaskExtended
        self.url = url or dburi or conf.database_url
        if not self.url:
            raise ImproperlyConfigured(_NO_URL)
        self.engine_options = {**(conf.database_engine_options or {}), **(engine_options or {})}
        self.short_lived_sessions = kwargs.get("short_lived_sessions", conf.database_short_lived_sessions)
        self._configure_tables(conf)
        self.session_manager = SessionManager(_callback(conf.database_engine_callback))
        self.thread_safe = True
        if not conf.get("result_backend_always_retry"):
            self.always_retry = True
            self.max_retries, self.retry_for_seconds = MAX_RETRIES, RETRY_SECONDS
        if conf.database_create_tables_at_setup:
            self._create_tables()

    def _configure_tables(self, conf: Any) -> None:
        schemas = conf.database_table_schemas or {}
        names = conf.database_table_names or {}
        self.task_cls.configure(schema=schemas.get("task"), name=names.get("task"))
        self.taskset_cls.configure(schema=schemas.get("group"), name=names.get("group"))

    def _create_tables(self) -> None:
        """Create the tables now; if the database is away, that is left to the first use of it."""
        try:
            self.ResultSession().close()
        except PASSING_ERRORS as error:
            logger.warning("Result store: away, its tables are made when it is there: %s", first_line(error))

    @property
    def extended_result(self) -> bool:
        """The setting ``result_extended``."""
        return self.app.conf.result_extended

    def __reduce__(self, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> tuple[Any, ...]:
        own = {"dburi": self.url, "expires": self.expires, "engine_options": self.engine_options}
        return super().__reduce__(args, {**own, **(kwargs or {})})

    def ResultSession(self, session_manager: Any = None) -> Any:
        """Return a new session."""
        manager = session_manager or self.session_manager
        return manager.session_factory(
            dburi=self.url, short_lived_sessions=self.short_lived_sessions, **self.engine_options
        )

    @contextmanager
    def _session(self, is_brief: bool = True) -> Iterator[Any]:
        """Open a session; with ``is_brief`` the database must not take long over it."""
        session = self.ResultSession()
        with session_cleanup(session):
            if is_brief:
                with deadlines.bound(session.connection().connection.dbapi_connection, self._patience()):
                    yield session
            else:
                yield session

    def _patience(self) -> float:
        """Return the seconds for which an answer is waited for now."""
        seconds = float((self.app.conf.result_backend_transport_options or {}).get("socket_timeout") or ANSWER_SECONDS)
        left = seconds_left()
        return seconds if left is None else min(seconds, max(left, LEAST_ANSWER_SECONDS))

    def exception_safe_to_retry(self, exc: Exception) -> bool:
        return isinstance(exc, (DatabaseError, InterfaceError, InvalidRequestError, StaleDataError, TimeoutError))

    def is_passing_trouble(self, exc: BaseException) -> bool:
        if isinstance(exc, BackendStoreError) and exc.__cause__ is not None:  # all retries have failed
            exc = exc.__cause__
        return isinstance(exc, PASSING_ERRORS)

    def on_backend_retryable_error(self, exc: Exception) -> None:
        """Leave a connection that may be broken; a row that another inserted first says nothing about it."""
        if not isinstance(exc, IntegrityError):
            self.session_manager.invalidate(self.url)

    # -- tasks

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **kwargs: Any
    ) -> None:
        meta = self._make_meta(task_id, result, state, traceback, request)
        with self._session() as session:
            row = self._row_of(session, task_id)
            if row is None:
                row = self.task_cls(task_id)
                session.add(row)
            elif outlasts(row.status, state) and may_come_late(task_id, state, request):
                return
            self._fill(row, meta, request)
            session.commit()

    def _row_of(self, session: Any, task_id: str) -> Any:
        return session.query(self.task_cls).filter(self.task_cls.task_id == task_id).first()

    def _fill(self, row: Any, meta: dict[str, Any], request: Any) -> None:
        row.result = self._packed(meta["result"])
        row.status = meta["status"]
        row.traceback = meta["traceback"]
        row.children = self._packed(meta["children"]) if meta["children"] else None
        row.date_done = in_utc(self._moment()) if meta["status"] in states.READY_STATES else None
        if not self.extended_result or request is None:
            return
        for name in ("name", "worker", "retries", "queue"):
            setattr(row, name, meta.get(name))
        row.args = self._packed(meta.get("args"))
        row.kwargs = self._packed(meta.get("kwargs"))
        row.stamps = self._packed_stamps(meta)

    def _packed(self, value: Any) -> bytes:
        payload = self.encode(value)
        return payload.encode() if isinstance(payload, str) else payload

    def _packed_stamps(self, meta: dict[str, Any]) -> bytes | None:
        names = meta.get("stamped_headers")
        if not names:
            return None
        return self._packed({"stamped_headers": names, "stamps": {name: meta[name] for name in names if name in meta}})

    def _get_task_meta_for(self, task_id: str) -> dict[str, Any]:
        with self._session() as session:
            row = self._row_of(session, task_id)
            if row is None:
                row = self.task_cls(task_id)
                row.status = states.PENDING
                row.result = None
            return self.meta_from_decoded(self._unpacked(row.to_dict()))

    def _unpacked(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return a record of a row's columns."""
        meta = dict(row)
        for name in ("result", "children", "args", "kwargs"):
            if meta.get(name) is not None:
                meta[name] = self.decode(meta[name])
        stamps = meta.pop("stamps", None)
        if stamps is not None:
            stamps = self.decode(stamps)
            meta["stamped_headers"] = stamps.get("stamped_headers")
            meta.update({name: value for name, value in (stamps.get("stamps") or {}).items() if name not in meta})
        return meta

    def get_task_metas(self, task_ids: list[str]) -> dict[str, dict[str, Any]]:
        found = {}
        for start in range(0, len(task_ids), CHUNK_SIZE):
            read = partial(self._read_rows, task_ids[start : start + CHUNK_SIZE])
            found.update(self._retried(read, _same))
        return found

    def _read_rows(self, task_ids: list[str]) -> dict[str, dict[str, Any]]:
        with self._session() as session:
            rows = session.query(self.task_cls).filter(self.task_cls.task_id.in_(task_ids)).all()
            return {row.task_id: self.meta_from_decoded(self._unpacked(row.to_dict())) for row in rows}

    def task_result_exists(self, task_id: str) -> bool:
        """Whether there is a row of the task."""
        with self._session() as session:
            return self._row_of(session, task_id) is not None

    def _forget(self, task_id: str) -> None:
        with self._session() as session:
            session.query(self.task_cls).filter(self.task_cls.task_id == task_id).delete()
            session.commit()

    # -- groups

    def _save_group(self, group_id: str, result: Any) -> Any:
        packed = self._packed(result.as_tuple())
        self._retried(lambda: self._write_group(group_id, packed), _same)
        return result

    def _write_group(self, group_id: str, packed: bytes) -> None:
        with self._session() as session:
            row = session.query(self.taskset_cls).filter(self.taskset_cls.taskset_id == group_id).first()
            if row is None:
                session.add(self.taskset_cls(group_id, packed))
            else:
                row.result = packed
            session.commit()

    def _restore_group(self, group_id: str) -> dict[str, Any] | None:
        with self._session() as session:
            row = session.query(self.taskset_cls).filter(self.taskset_cls.taskset_id == group_id).first()
            if row is None:
                return None
            meta = row.to_dict()
        meta["result"] = result_from_tuple(self.decode(meta["result"]), self.app)
        return meta

    def _delete_group(self, group_id: str) -> None:
        with self._session() as session:
            session.query(self.taskset_cls).filter(self.taskset_cls.taskset_id == group_id).delete()
            session.commit()

    # -- the old

    def cleanup(self) -> None:
        """Delete the rows that are older than ``result_expires``."""
        if not self.expires:
            return
        oldest = utc_now() - self.expires
        with self._session(is_brief=False) as session:
            for model in (self.task_cls, self.taskset_cls):
                session.query(model).filter(model.date_done < oldest).delete(synchronize_session=False)
            session.commit()


def _timedelta(seconds: float) -> timedelta | None:
    return timedelta(seconds=seconds) if seconds else None


def _same(error: Exception) -> Exception:
    return error


def _callback(callback: Any) -> Any:
    """Return what ``database_engine_callback`` names."""
    return symbol_by_name(callback) if isinstance(callback, str) else callback

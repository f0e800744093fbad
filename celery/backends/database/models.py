"""The tables, as Celery has them."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import sqlalchemy as sa
from sqlalchemy.types import LargeBinary

from celery import states
from celery.backends.database.session import ResultModelBase

__all__ = ("Task", "TaskExtended", "TaskSet")


def utc_now() -> datetime:
    """Return the time in UTC, without saying so: the column has no time zone."""
    return in_utc(datetime.now(timezone.utc))


def in_utc(moment: datetime) -> datetime:
    """Return an aware time as the column wants it."""
    return moment.astimezone(timezone.utc).replace(tzinfo=None)


class _Named:
    """A table that settings may rename or move to a schema."""

    __table__: sa.Table

    @classmethod
    def configure(cls, schema: str | None = None, name: str | None = None) -> None:
        """Set schema and name of the table."""
        table = cls.__table__
        table.schema = schema
        sequence: Any = table.c.id.default  # a Sequence, whose type is not that of all defaults
        if sequence is not None:
            sequence.schema = schema
        if name:
            table.name = name
        table.fullname = f"{schema}.{table.name}" if schema else str(table.name)


class Task(_Named, ResultModelBase):
    """The state and result of a task."""

    __tablename__ = "celery_taskmeta"
    __table_args__ = {"sqlite_autoincrement": True}

    id = sa.Column(sa.Integer, sa.Sequence("task_id_sequence"), primary_key=True, autoincrement=True)
    task_id = sa.Column(sa.String(155), unique=True)
    status = sa.Column(sa.String(50), default=states.PENDING)
    result = sa.Column(LargeBinary, nullable=True)
    date_done = sa.Column(sa.DateTime, default=utc_now, onupdate=utc_now, nullable=True, index=True)
    traceback = sa.Column(sa.Text, nullable=True)
    children = sa.Column(LargeBinary, nullable=True)

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id  # type: ignore[assignment]  # a column on the class, a value here

    def to_dict(self) -> dict[str, Any]:
        """Return the columns, undecoded."""
        return {
            "task_id": self.task_id,
            "status": self.status,
            "result": self.result,
            "traceback": self.traceback,
            "date_done": self.date_done,
            "children": self.children,
        }

    def __repr__(self) -> str:
        return f"<Task {self.task_id} state: {self.status}>"


class TaskExtended(Task):
    """The same with what ``result_extended`` adds; the columns are there always."""

    __tablename__ = "celery_taskmeta"
    __table_args__ = {"sqlite_autoincrement": True, "extend_existing": True}

    name = sa.Column(sa.String(155), nullable=True)
    args = sa.Column(LargeBinary, nullable=True)
    kwargs = sa.Column(LargeBinary, nullable=True)
    worker = sa.Column(sa.String(155), nullable=True)
    retries = sa.Column(sa.Integer, nullable=True)
    queue = sa.Column(sa.String(155), nullable=True)
    stamps = sa.Column(LargeBinary, nullable=True)

    def to_dict(self) -> dict[str, Any]:
        """Return the columns, undecoded."""
        extended = ("name", "args", "kwargs", "worker", "retries", "queue", "stamps")
        return {**super().to_dict(), **{name: getattr(self, name) for name in extended}}


class TaskSet(_Named, ResultModelBase):
    """The tasks of a group."""

    __tablename__ = "celery_tasksetmeta"
    __table_args__ = {"sqlite_autoincrement": True}

    id = sa.Column(sa.Integer, sa.Sequence("taskset_id_sequence"), autoincrement=True, primary_key=True)
    taskset_id = sa.Column(sa.String(155), unique=True)
    result = sa.Column(LargeBinary, nullable=True)
    date_done = sa.Column(sa.DateTime, default=utc_now, nullable=True, index=True)

    def __init__(self, taskset_id: str, result: Any) -> None:
        self.taskset_id = taskset_id  # type: ignore[assignment]  # a column on the class, a value here
        self.result = result

    def to_dict(self) -> dict[str, Any]:
        """Return the columns, undecoded."""
        return {"taskset_id": self.taskset_id, "result": self.result, "date_done": self.date_done}

    def __repr__(self) -> str:
        return f"<TaskSet: {self.taskset_id}>"

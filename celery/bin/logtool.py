"""``celery logtool``: what the log of a worker says about its tasks."""

from __future__ import annotations

import fileinput
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import click

from celery.bin.base import CeleryCommand, handle_preload_options

__all__ = ("Audit", "debug", "errors", "incomplete", "logtool", "stats", "traces")

#: ``[time: LEVEL/process]``, with which every record begins that has the default format
RECORD = re.compile(r"^\[(?P<time>[^\]]*?): (?P<level>[A-Z]+)/(?P<process>[^\]]+)\] ?(?P<text>.*)")
TASK = re.compile(r"\bTask (?P<name>[\w.<>-]+)\[(?P<id>[\w.:-]+)\] (?P<what>.*)")

#: What ends a task, as the log says it; a retry does not.
ENDS = ("succeeded", "raised", "failed", "rejected", "ignored", "INTERNAL ERROR")
FAILURES = ("raised", "failed", "INTERNAL ERROR")

REPORT = """
Report
======

Task total: {task[total]}
Task errors: {task[errors]}
Task success: {task[succeeded]}
Task completed: {task[completed]}

Tasks
=====
{task[types]}
"""


class Audit:
    """Reads a log line by line and keeps account of tasks.

    ``on_task_error(line, task_name, task_id, result)`` is called for each task that failed, ``on_trace(text)`` for
    each traceback, ``on_debug(line)`` for each record that is about no task.
    """

    def __init__(
        self,
        on_task_error: Callable[..., Any] | None = None,
        on_trace: Callable[[str], Any] | None = None,
        on_debug: Callable[[str], Any] | None = None,
    ) -> None:
        self.on_task_error = on_task_error
        self.on_trace = on_trace
        self.on_debug = on_debug
        #: ids of tasks that came, and that ended
        self.ids: set[str] = set()
        self.ready: set[str] = set()
        #: id → name; id → what the log says of the end
        self.names: dict[str, str] = {}
        self.results: dict[str, str] = {}
        self.task_types: Counter[str] = Counter()
        self.task_errors = 0
        self.prev_line: str | None = None
        self._trace: list[str] | None = None

    def run(self, files: Iterable[str]) -> Audit:
        """Read ``files``; without any, standard input."""
        with fileinput.input(tuple(files), openhook=fileinput.hook_encoded("utf-8", "replace")) as lines:
            for line in lines:
                self.feed(line)
        self._end_of_trace()
        return self

    def feed(self, line: str) -> None:
        """Take one line into account."""
        line = line.rstrip("\r\n")
        record = RECORD.match(line)
        if record is None:
            self._feed_rest(line)
        else:
            self._end_of_trace()
            self._feed_record(line, record["text"])
        self.prev_line = line

    def _feed_record(self, line: str, text: str) -> None:
        task = TASK.search(text)
        if task is None:
            if self.on_debug:
                self.on_debug(line)
        elif task["what"].startswith("received"):
            self.task_received(line, task["name"], task["id"])
        elif task["what"].startswith(FAILURES):
            self.task_error(line, task["name"], task["id"], task["what"])
        elif task["what"].startswith(ENDS):
            self.task_ready(line, task["name"], task["id"], task["what"])

    def _feed_rest(self, line: str) -> None:
        """Take a line that goes on with the record before it."""
        if line.startswith("Traceback (most recent call last):") and self._trace is None:
            self._trace = []
        if self._trace is not None:
            self._trace.append(line)

    def _end_of_trace(self) -> None:
        if self._trace is not None and self.on_trace:
            self.on_trace("\n".join(self._trace))
        self._trace = None

    def task_received(self, line: str, task_name: str, task_id: str) -> None:
        """Count a task that came."""
        self.names[task_id] = task_name
        self.ids.add(task_id)
        self.task_types[task_name] += 1

    def task_ready(self, line: str, task_name: str, task_id: str, result: str) -> None:
        """Count a task that ended."""
        self.ready.add(task_id)
        self.results[task_id] = result

    def task_error(self, line: str, task_name: str, task_id: str, result: str) -> None:
        """Count a task that failed."""
        self.task_ready(line, task_name, task_id, result)
        self.task_errors += 1
        if self.on_task_error:
            self.on_task_error(line, task_name, task_id, result)

    def incomplete_tasks(self) -> set[str]:
        """Return the ids of tasks that came and did not end."""
        return self.ids - self.ready

    def report(self) -> dict[str, Any]:
        """Return the numbers, under ``task``: total, errors, succeeded, completed, types."""
        return {
            "task": {
                "types": "\n".join(f"{number}: {name}" for name, number in self.task_types.most_common()),
                "total": len(self.ids),
                "errors": self.task_errors,
                "completed": len(self.ready),
                "succeeded": len(self.ready) - self.task_errors,
            }
        }


@click.group()
@click.pass_context
@handle_preload_options
def logtool(ctx: click.Context) -> None:
    """Tell what the log of a worker (level INFO, default format) says about its tasks."""


def _command(function: Callable[..., Any]) -> Any:
    files = click.argument("files", nargs=-1)
    return logtool.command(cls=CeleryCommand)(files(click.pass_context(function)))


@_command
def stats(ctx: click.Context, files: tuple[str, ...]) -> None:
    """Print how many tasks came, failed and succeeded."""
    ctx.obj.echo(REPORT.format(**_audited(Audit(), files).report()))


@_command
def traces(ctx: click.Context, files: tuple[str, ...]) -> None:
    """Print the tracebacks."""
    _audited(Audit(on_trace=ctx.obj.echo), files)


@_command
def errors(ctx: click.Context, files: tuple[str, ...]) -> None:
    """Print the line of each task that failed."""
    _audited(Audit(on_task_error=lambda line, *_: ctx.obj.echo(line)), files)


@_command
def incomplete(ctx: click.Context, files: tuple[str, ...]) -> None:
    """Print the tasks that came and did not end."""
    audit = _audited(Audit(), files)
    for task_id in _by_name(audit):
        ctx.obj.echo(f"Did not complete: {audit.names[task_id]}[{task_id}]")


@_command
def debug(ctx: click.Context, files: tuple[str, ...]) -> None:
    """Print the records that are about no task."""
    _audited(Audit(on_debug=ctx.obj.echo), files)


def _audited(audit: Audit, files: tuple[str, ...]) -> Audit:
    try:
        return audit.run(files)
    except OSError as exc:
        raise click.ClickException(f"{exc.filename}: {exc.strerror}.") from exc


def _by_name(audit: Audit) -> Iterator[str]:
    return iter(sorted(audit.incomplete_tasks(), key=lambda task_id: (audit.names[task_id], task_id)))

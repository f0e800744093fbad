"""A worker without threads and without waiting: tasks run when the test says so, and time passes when it says so.

Messages go the real way, through an in-memory broker, with serializers, routes, retries and callbacks; only who takes
them, and what time it is, is up to the test.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

from celery.app import trace
from celery.app.context import Context, ignores_result
from celery.beat import Scheduler
from celery.exceptions import ImproperlyConfigured, NotRegistered
from celery.signals import task_postrun
from celery.utils.functional import maybe_list
from celery.utils.time import maybe_iso8601, maybe_make_aware

__all__ = ("Enqueued", "InProcessWorker")

#: A test whose tasks send each other for ever ends after so many.
MOST_AT_ONCE = 10_000

HOSTNAME = "inprocess@localhost"


@dataclass(frozen=True)
class Enqueued:
    """A task that was sent and has not run: what its message says."""

    task: str
    id: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    queue: str
    #: when it is due; ``None`` for at once
    eta: datetime | None
    expires: datetime | None
    message: Any = field(repr=False, compare=False)
    number: int = field(repr=False, compare=False)


class InProcessWorker:
    """Runs the tasks of ``app`` in this thread: ``with InProcessWorker(app) as worker: ... worker.run()``.

    The app's broker must be ``memory://``.  The clock (``app.now()``) stands at ``now``, by default the present, until
    `advance` turns it.  With ``beat`` the entries of ``beat_schedule`` are sent as it turns.
    """

    def __init__(self, app: Any, now: datetime | None = None, beat: bool = False) -> None:
        self.app = app
        self.time = maybe_make_aware(now or datetime.now(timezone.utc), timezone.utc)
        #: name and state of every task that has run, in order
        self.ran: list[tuple[str, str]] = []
        self._wants_beat = beat
        self._scheduler: Any = None
        self._waiting: list[Enqueued] = []
        self._count = 0
        self._revoked: set[str] = set()

    def __enter__(self) -> InProcessWorker:
        if not str(self.app.conf.broker_url).startswith("memory:"):
            raise ImproperlyConfigured(
                f"InProcessWorker needs the broker memory://, not {self.app.connection_for_write().as_uri()}. "
                'Set `app.conf.broker_url = "memory://"` for the tests.'
            )
        self.app.finalize()
        self._connection = self.app.connection_for_read()
        self._channel = self._connection.channel()
        self._commands = self.app.control.mailbox.get_queue(HOSTNAME)(self._channel)
        self._commands.declare()
        self._taken()  # what an earlier test has left is not ours
        self.app.now = lambda: self.time.astimezone(self.app.timezone)
        if self._wants_beat:
            self._scheduler = Scheduler(self.app)
        return self

    def __exit__(self, *exc_info: Any) -> None:
        del self.app.now
        self._commands.delete()
        self._connection.release()

    # -- what waits

    @property
    def enqueued(self) -> list[Enqueued]:
        """The tasks that wait, those that are due first first."""
        self._waiting += self._taken()
        self._waiting.sort(key=lambda found: (found.eta or self.time, found.number))
        return list(self._waiting)

    def assert_enqueued(
        self,
        task: Any,
        args: Iterable[Any] | None = None,
        kwargs: dict[str, Any] | None = None,
        queue: str | None = None,
        countdown: float | None = None,
        count: int | None = None,
    ) -> list[Enqueued]:
        """Return the waiting tasks that are like this; fail if there are none, or not ``count``.

        ``task`` is a task or its name; ``countdown`` the seconds from now until it is due.
        """
        name = getattr(task, "name", task)
        found = [
            item
            for item in self.enqueued
            if item.task == name
            and (args is None or item.args == tuple(args))
            and (kwargs is None or item.kwargs == kwargs)
            and (queue is None or item.queue == queue)
            and (countdown is None or self._is_due_in(item, countdown))
        ]
        if len(found) == count or (found and count is None):
            return found
        wanted = {"args": args, "kwargs": kwargs, "queue": queue, "countdown": countdown}
        told = "".join(f", {word} {value!r}" for word, value in wanted.items() if value is not None)
        instead = "" if not count else f", not {count}"
        waiting = "\n".join(f"  {item}" for item in self._waiting) or "  nothing"
        raise AssertionError(f"{len(found)} tasks {name}{told} are enqueued{instead}; waiting are\n{waiting}")

    def _is_due_in(self, item: Enqueued, seconds: float) -> bool:
        wait = (item.eta - self.time).total_seconds() if item.eta else 0.0
        return abs(wait - seconds) < 0.001

    def _taken(self) -> list[Enqueued]:
        """Take everything from the broker that is a task, and note what was revoked."""
        while (message := self._commands.get(no_ack=True)) is not None:
            command = message.payload
            if command.get("method") == "revoke":
                self._revoked.update(maybe_list(command["arguments"]["task_id"]) or ())
        return [item for queue in sorted(self._channel.queues) for item in self._taken_from(queue)]

    def _taken_from(self, queue: str) -> Iterator[Enqueued]:
        if "pidbox" in queue or queue.startswith("celeryev"):
            return
        while (message := self._channel.basic_get(queue, no_ack=True)) is not None:
            headers = message.headers
            if "task" not in headers:
                continue
            args, kwargs, _ = message.decode()
            self._count += 1
            yield Enqueued(
                headers["task"],
                headers["id"],
                tuple(args),
                kwargs,
                queue,
                maybe_iso8601(headers.get("eta")),
                maybe_iso8601(headers.get("expires")),
                message,
                self._count,
            )

    # -- running

    def run(self) -> int:
        """Run what is due, and what that sends, until nothing is; returns how many tasks that were."""
        done = 0
        while (item := self._next_due()) is not None:
            self._waiting.remove(item)
            self._run(item)
            done += 1
            if done > MOST_AT_ONCE:
                raise RuntimeError(f"{MOST_AT_ONCE} tasks have run and sent others; the last was {item.task}")
        return done

    def _next_due(self) -> Enqueued | None:
        waiting = self.enqueued
        return waiting[0] if waiting and (waiting[0].eta is None or waiting[0].eta <= self.time) else None

    def _run(self, item: Enqueued) -> None:
        if item.task not in self.app.tasks:
            raise NotRegistered(item.task)
        message = item.message
        request = {
            **message.headers,
            "reply_to": message.properties.get("reply_to"),
            "correlation_id": message.properties.get("correlation_id"),
            "delivery_info": {**message.delivery_info, "redelivered": False},
            "hostname": HOSTNAME,
        }
        has_expired = item.expires is not None and item.expires <= self.time
        if has_expired or item.id in self._revoked:
            self._revoke(item, request, "expired" if has_expired else "revoked")
            return
        states: list[str] = []

        def note(sender: Any = None, task_id: str = "", state: str = "", **kwargs: Any) -> None:
            if task_id == item.id:
                states.append(state)

        task_postrun.connect(note)
        try:
            trace.trace_task_ret(
                item.task, item.id, request, message.body, message.content_type, message.content_encoding, app=self.app
            )
        finally:
            task_postrun.disconnect(note)
        self.ran.append((item.task, states[-1] if states else "IGNORED"))

    def _revoke(self, item: Enqueued, request: dict[str, Any], reason: str) -> None:
        """Have whoever waits for the task hear that it will not run: its result, its chain, its chord."""
        args, kwargs, embed = item.message.payload
        task = self.app.tasks[item.task]
        is_stored = not ignores_result(task, request)
        task.backend.mark_as_revoked(
            item.id, reason, Context({**request, **embed}, args=args, kwargs=kwargs), is_stored
        )
        self.ran.append((item.task, "REVOKED"))

    # -- time

    def advance(self, **delta: float) -> int:
        """Let time pass (``advance(minutes=5)``), running everything at its time; returns how many tasks ran."""
        end = self.time + timedelta(**delta)
        done = self._run_all_due()
        while (moment := self._next_moment()) <= end:
            self.time = moment
            done += self._run_all_due()
        self.time = end
        return done

    def _run_all_due(self) -> int:
        if self._scheduler is not None:
            while self._scheduler.tick() <= 0:
                pass
        return self.run()

    def _next_moment(self) -> datetime:
        """Return when there is something to do next; far away if there is nothing."""
        moments = [item.eta for item in self.enqueued if item.eta is not None]
        if self._scheduler is not None:
            moments.append(self.time + timedelta(seconds=max(self._scheduler.tick(), 0.001)))
        return min(moments, default=datetime.max.replace(tzinfo=timezone.utc))

"""Turns the scheduler: tick, sleep, tick; stops when asked, and watches the clock meanwhile."""

from __future__ import annotations

import os
import select
import threading
import time
from functools import cached_property
from importlib.metadata import entry_points
from typing import Any

from celery import platforms, signals
from celery.beat.clock import ClockWatch
from celery.beat.leader import open_leadership
from celery.beat.persistent import PersistentScheduler
from celery.beat.pidbox import BeatPidbox
from celery.beat.scheduler import Interrupted, logger
from celery.exceptions import ImproperlyConfigured
from celery.utils.imports import symbol_by_name
from celery.utils.time import humanize_seconds

__all__ = ("Service",)

#: Seconds between two looks at the clock while nothing is due.
LOOK_SECONDS = 1.0


class _Alarm:
    """A sleep that others end, a signal handler among them: it takes no lock."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self.is_rung = False

    def ring(self) -> None:
        self.is_rung = True
        try:
            os.write(self._write, b"!")
        except OSError:  # full of calls already, or closed
            pass

    def wait(self, seconds: float) -> None:
        if not self.is_rung:
            select.select([self._read], [], [], seconds)

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


class Service:
    """Beat itself.  `start` returns after `stop`, which may be called from any thread or signal handler."""

    app: Any
    max_interval: float | None
    #: what the scheduler made of ``max_interval``, in seconds; known from `start` on
    effective_max_interval: float | None
    scheduler_cls: Any = PersistentScheduler
    schedule_filename: str | None
    remote_control: bool
    hostname: str | None

    def __init__(
        self,
        app: Any,
        max_interval: float | None = None,
        schedule_filename: str | None = None,
        scheduler_cls: Any = None,
        remote_control: bool | None = None,
        hostname: str | None = None,
    ) -> None:
        conf = app.conf
        self.app = app
        self.max_interval = max_interval or conf.beat_max_loop_interval
        self.scheduler_cls = scheduler_cls or self.scheduler_cls
        self.schedule_filename = schedule_filename or conf.beat_schedule_filename
        self.remote_control = conf.beat_enable_remote_control if remote_control is None else remote_control
        self.hostname = hostname
        self.effective_max_interval = None
        self._pidbox: BeatPidbox | None = None
        self._last_tick: float | None = None
        self._alarm: _Alarm | None = None
        self._is_stopping = False
        self._is_stopped = threading.Event()

    def __reduce__(self) -> tuple[Any, ...]:
        arguments = (self.app, self.max_interval, self.schedule_filename, self.scheduler_cls)
        return type(self), (*arguments, self.remote_control, self.hostname)

    # -- life

    def start(self, embedded_process: bool = False) -> None:
        """Send what is due until `stop` is called.  ``embedded_process``: this process is there for beat only."""
        scheduler = self.scheduler
        self.effective_max_interval = scheduler.max_interval
        logger.info("beat: Starting...")
        logger.debug("beat: Ticking with max interval->%s", humanize_seconds(scheduler.max_interval))
        signals.beat_init.send(sender=self)
        if embedded_process:
            signals.beat_embedded_init.send(sender=self)
            platforms.set_process_title("celery beat")
        self._alarm = _Alarm()
        try:
            self._start_pidbox()
            self._run(scheduler)
        except (KeyboardInterrupt, SystemExit):
            self._is_stopping = True
        finally:
            self._end(scheduler)

    def _start_pidbox(self) -> None:
        if self.remote_control:
            self._pidbox = BeatPidbox(self)
            self._pidbox.start()

    def _run(self, scheduler: Any) -> None:
        clock = ClockWatch()
        while not self._is_stopping:
            moved = clock.jump()
            if moved and hasattr(scheduler, "clock_was_set"):
                logger.warning("beat: The clock was moved by %.1f seconds.", moved)
                scheduler.clock_was_set(moved)
            try:
                seconds = self._turn(scheduler)
            except Interrupted:
                return
            if seconds and seconds > 0:
                logger.debug("beat: Waking up %s.", humanize_seconds(seconds, prefix="in "))
                self._sleep(seconds, clock)
                if scheduler.should_sync():
                    scheduler._do_sync()

    def _turn(self, scheduler: Any) -> Any:
        """Let the scheduler send if it is for us to send; return the seconds until the next turn."""
        ask = getattr(scheduler, "standby", None)
        waiting = ask() if ask is not None else None
        seconds = scheduler.tick() if waiting is None else waiting
        self._last_tick = time.monotonic()
        return self._until_renewal(scheduler, seconds)

    def _until_renewal(self, scheduler: Any, seconds: Any) -> Any:
        leadership = getattr(scheduler, "leadership", None)
        return seconds if leadership is None or not seconds else min(seconds, leadership.poll_seconds)

    def _sleep(self, seconds: float, clock: ClockWatch) -> None:
        """Sleep, but no longer than until the clock on the wall is moved or `stop` is called."""
        assert self._alarm is not None
        end = time.monotonic() + seconds
        while not self._is_stopping:
            left = end - time.monotonic()
            if left <= 0:
                return
            self._alarm.wait(min(left, LOOK_SECONDS))
            if clock.has_jumped():
                return

    def _end(self, scheduler: Any) -> None:
        try:
            if self._pidbox is not None:
                self._pidbox.stop()
            self.sync()
            leadership = getattr(scheduler, "leadership", None)
            if leadership is not None:
                leadership.resign()
        finally:
            alarm, self._alarm = self._alarm, None
            if alarm is not None:
                alarm.close()
            self._is_stopped.set()

    def sync(self) -> None:
        """Store the schedule and close it."""
        self.scheduler.close()

    def stop(self, wait: bool = False) -> None:
        """End `start`; with ``wait`` return when it has ended."""
        logger.info("beat: Shutting down...")
        self.ask_to_stop()
        if wait:
            self._is_stopped.wait()

    def ask_to_stop(self) -> None:
        """End `start` soon; safe in a signal handler."""
        self._is_stopping = True
        alarm = self._alarm
        if alarm is not None:
            alarm.ring()

    # -- the scheduler

    def get_scheduler(self, lazy: bool = False, extension_namespace: str = "celery.beat_schedulers") -> Any:
        """Make the scheduler: a class, the path of one, or a name that a package has registered for one."""
        aliases = {found.name: found.value for found in entry_points(group=extension_namespace)}
        try:
            scheduler_cls = symbol_by_name(self.scheduler_cls, aliases=aliases)
        except (ImportError, AttributeError, ValueError) as error:
            raise ImproperlyConfigured(
                f"There is no scheduler {self.scheduler_cls} (option -S, setting `beat_scheduler`): {error}."
            ) from error
        return scheduler_cls(
            app=self.app,
            schedule_filename=self.schedule_filename,
            max_interval=self.max_interval,
            lazy=lazy,
        )

    @cached_property
    def scheduler(self) -> Any:
        scheduler = self.get_scheduler()
        scheduler.is_stopping = lambda: self._is_stopping
        if self.app.conf.beat_leader_lease:
            scheduler.leadership = open_leadership(self.app)
        return scheduler


Service.__module__ = "celery.beat"

"""The scheduler that remembers in a file what it has sent; beat's own, unless another is chosen."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, MutableMapping
from datetime import datetime
from types import ModuleType
from typing import Any

from celery import __version__
from celery.beat import shelf, store
from celery.beat.entries import Entries
from celery.beat.moments import key_of, microseconds, moment_at
from celery.beat.scheduler import Scheduler, logger
from celery.beat.store import Damaged, InUse, Run, ScheduleFile

__all__ = ("PersistentScheduler",)

#: Seconds between two looks at a file that another beat holds.
STANDBY_SECONDS = 1.0


class _Store(MutableMapping[str, Any]):
    """What upstream's scheduler keeps in a shelf: ``entries`` and a few facts, with ``sync`` and ``close``."""

    def __init__(self, scheduler: PersistentScheduler, facts: dict[str, Any]) -> None:
        self._scheduler = scheduler
        self._facts = facts

    def __getitem__(self, name: str) -> Any:
        return self._facts[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._facts[name] = value

    def __delitem__(self, name: str) -> None:
        del self._facts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._facts)

    def __len__(self) -> int:
        return len(self._facts)

    def sync(self) -> None:
        self._scheduler._save()

    def close(self) -> None:
        self._scheduler._save()
        self._scheduler._release()


class PersistentScheduler(Scheduler):
    """Keeps the time of each last run in a file (``schedule_filename``, `celery.beat.store`).

    A run is recorded before it is sent, so what was sent is never sent again, whenever beat is killed.  While another
    beat holds the file this one stands by, and goes on where the other ended.
    """

    persistence: ModuleType = store
    known_suffixes = shelf.SUFFIXES
    schedule_filename: Any

    _store: Any = None
    _file: ScheduleFile | None = None
    #: What was wrong when the file was written last; said once.
    _trouble: str | None = None
    _is_standing_by = False
    _next_look = 0.0
    _seen_settings: tuple[int, int] = (0, 0)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.schedule_filename = kwargs.pop("schedule_filename", None)
        super().__init__(*args, **kwargs)

    # -- the schedule

    def setup_schedule(self) -> None:
        conf = self.app.conf
        facts = {"entries": Entries(), "__version__": __version__, "tz": conf.timezone, "utc_enabled": conf.enable_utc}
        self._store = _Store(self, facts)
        self._read_settings()
        self.install_default_entries(self.schedule)
        if self.schedule_filename:
            self._take_file()
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("Current schedule:\n%s", "\n".join(map(repr, self.schedule.values())))

    def _read_settings(self) -> None:
        configured = self.app.conf.beat_schedule
        self._seen_settings = id(configured), len(configured)
        self.merge_inplace(configured)

    def get_schedule(self) -> Any:
        return self._store["entries"]

    def set_schedule(self, schedule: Any) -> None:
        self._store["entries"] = schedule if isinstance(schedule, Entries) else Entries(schedule)

    # -- who may send

    def standby(self) -> float | None:
        """Return the seconds until it is worth asking again while others send; ``None`` if it is for us to send."""
        configured = self.app.conf.beat_schedule
        if (id(configured), len(configured)) != self._seen_settings:
            self._read_settings()
            self._save()
        if self._file is None and self.schedule_filename and time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + STANDBY_SECONDS
            self._take_file()
        return STANDBY_SECONDS if self._is_standing_by else super().standby()

    def _take_file(self) -> None:
        """Get hold of the file, if nobody else has it, and take over what it knows."""
        try:
            self._file = self._open()
        except InUse:
            if not self._is_standing_by:
                logger.warning(
                    "beat: Another beat is using the schedule file %s; standing by until it ends. "
                    "A beat for something else needs a file of its own (--schedule).",
                    self.schedule_filename,
                )
            self._is_standing_by = True
            return
        except OSError as error:
            self._tell(error)
            return
        if self._is_standing_by:
            logger.info("beat: The schedule file %s is free, taking over.", self.schedule_filename)
        self._is_standing_by = False
        zone = self.app.timezone
        self._adopt({name: (moment_at(run.last_run_at, zone), run.times) for name, run in self._file.runs.items()})
        self._save()

    def _open(self) -> ScheduleFile:
        path = self.schedule_filename
        runs = self._left_by_celery(path) if shelf.is_shelf(path) else {}
        try:
            file = store.open(path)
        except Damaged as error:
            kept = ScheduleFile(path).set_aside()
            logger.warning(
                "beat: The schedule file %s is damaged (%s). It is kept as %s; a new one is made, "
                "and no run that was due before now is made up for.",
                path,
                error,
                kept,
            )
            file = store.open(path)
        self._adopt(runs)
        return file

    def _left_by_celery(self, path: str) -> dict[str, tuple[datetime, int]]:
        """Return what Celery's beat has left, and move it out of the way."""
        try:
            runs = shelf.last_runs(path)
        except shelf.Unreadable as error:
            runs = {}
            logger.warning("beat: Celery's schedule in %s cannot be read (%s); starting without it.", path, error)
        kept = shelf.set_aside(path)
        logger.info("beat: Took over Celery's schedule from %s, now kept as %s.", path, ", ".join(kept))
        return runs

    # -- keeping

    def reserve(self, entry: Any) -> Any:
        following = super().reserve(entry)
        if self._file is not None:
            try:
                if self._file.note(key_of(following.name), _run(following)):
                    self._trouble = None
            except OSError as error:
                self._tell(error)
        return following

    def sync(self) -> None:
        if self._store is not None:
            self._store.sync()

    def close(self) -> None:
        if self._store is not None:
            self.sync()
            self._store.close()

    def _save(self) -> None:
        """Have the disk hold the schedule: the file as it is if it has all entries, else a new one."""
        if self._file is None:
            return
        runs = {key_of(name): _run(entry) for name, entry in self.schedule.items()}
        try:
            if runs == self._file.runs and self._trouble is None:
                self._file.sync()
            else:
                self._file.replace(runs, {name: fact for name, fact in self._store.items() if name != "entries"})
            self._trouble = None
        except OSError as error:
            self._tell(error)

    def _release(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except OSError as error:
                self._tell(error)

    def _tell(self, error: OSError) -> None:
        """Log what keeps the file from being written, once; beat goes on without."""
        trouble = error.strerror or str(error)
        if trouble != self._trouble:
            logger.error(
                "beat: Cannot write the schedule file %s: %s. Going on without; what is sent from now on "
                "may not be known after a restart.",
                self.schedule_filename,
                trouble,
            )
        self._trouble = trouble

    @property
    def info(self) -> str:
        return f"    . db -> {self.schedule_filename}"


def _run(entry: Any) -> Run:
    return Run(microseconds(entry.last_run_at), entry.total_run_count)


PersistentScheduler.__module__ = "celery.beat"

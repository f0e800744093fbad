"""Send what is due: entries, the scheduler that looks after them, and the service that keeps it going.

``beat_schedule`` → entries → a heap by the time they are due → ``tick()`` sends the first and says how long to sleep.
"""

from celery.beat.embedded import EmbeddedService
from celery.beat.entries import BeatLazyFunc, ScheduleEntry, SchedulingError
from celery.beat.persistent import PersistentScheduler
from celery.beat.pidbox import NODENAME_DEFAULT, BeatPidbox, beat_nodename
from celery.beat.scheduler import DEFAULT_MAX_INTERVAL, Scheduler, event_t
from celery.beat.service import Service

__all__ = (
    "SchedulingError",
    "ScheduleEntry",
    "Scheduler",
    "PersistentScheduler",
    "Service",
    "BeatPidbox",
    "EmbeddedService",
)

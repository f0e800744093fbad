"""Send what is due: entries, and the scheduler that looks after them.

``beat_schedule`` → entries → a heap by the time they are due → ``tick()`` sends the first and says how long to sleep.
"""

from celery.beat.entries import BeatLazyFunc, ScheduleEntry, SchedulingError
from celery.beat.scheduler import DEFAULT_MAX_INTERVAL, Scheduler, event_t

__all__ = ("SchedulingError", "ScheduleEntry", "Scheduler")

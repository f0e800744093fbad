"""When is it due next?  Intervals, crontabs and the sun.

A schedule answers from the time of the last run alone and remembers nothing: ``is_due(last_run_at)`` says whether to
run now, and after how many seconds to ask again.
"""

from celery.schedules.base import BaseSchedule, schedstate
from celery.schedules.crontabs import crontab
from celery.schedules.fields import ParseException, crontab_parser
from celery.schedules.intervals import maybe_schedule, schedule
from celery.schedules.sun import solar

__all__ = ("ParseException", "schedule", "crontab", "crontab_parser", "maybe_schedule", "solar")

# Schedules are pickled by this path, also to upstream's beats.
for _class in (BaseSchedule, ParseException, crontab, crontab_parser, schedstate, schedule, solar):
    _class.__module__ = __name__
del _class

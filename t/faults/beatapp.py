"""The app of the beat scenarios: entries whose messages say which run of which entry they are.

Besides what `faultapp` reads: ``FAULT_ENTRIES``, JSON of ``{interval in seconds: how many}``.
"""

import json
import os

from faultapp import app

from celery.beat import PersistentScheduler


@app.task
def due(entry, run):
    """A run of an entry; ``run`` is the time that counts as that of the run, in seconds since 1970."""


app.conf.beat_schedule = {
    f"{every}s-{number}": {"task": "beatapp.due", "schedule": float(every)}
    for every, count in json.loads(os.environ.get("FAULT_ENTRIES", '{"1": 50, "5": 20}')).items()
    for number in range(count)
}


class Marking(PersistentScheduler):
    """Puts the name of the entry, and the time that counts as that of the run, into the message."""

    def apply_entry(self, entry, producer=None):
        run = self.schedule[entry.name].last_run_at
        entry.kwargs = {"entry": entry.name, "run": run.timestamp()}
        super().apply_entry(entry, producer=producer)

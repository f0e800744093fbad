"""Beat by figures: ``python t/bench/beat.py lateness|size|soak [--seconds N] [--entries N]``; Redis at TEST_REDIS_URL.

lateness   how long after its time each run has reached the broker, with so many entries due every second
size       memory, start and the cost of a tick, by the number of entries
soak       beat and a worker as programs: every run that was due against every run that was done
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from redis import Redis

from celery import Celery
from celery.beat import PersistentScheduler, Service
from celery.schedules import schedule

BROKER = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379") + "/10"


def percentile(values: list[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def memory_kib(pid: int | str = "self") -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0])


def lateness(seconds: int, entries: int) -> dict[str, Any]:
    """Spread ``entries`` over the second, each due once a second, and look when their messages were confirmed."""
    late: list[float] = []  # after the first second, in which modules are imported and connections made

    class Timed(PersistentScheduler):
        def apply_entry(self, entry: Any, producer: Any = None) -> None:
            due = entry.last_run_at + entry.schedule.run_every
            super().apply_entry(entry, producer=producer)
            if due > start + timedelta(seconds=2):
                late.append((datetime.now(timezone.utc) - due).total_seconds())

    app = Celery("late", broker=BROKER, set_as_current=False)
    app.conf.beat_schedule = {f"e{number}": {"task": "t", "schedule": 1.0} for number in range(entries)}
    with tempfile.TemporaryDirectory() as directory:
        service = Service(app, schedule_filename=f"{directory}/schedule", scheduler_cls=Timed)
        start = datetime.now(timezone.utc)
        for number, entry in enumerate(service.scheduler.schedule.values()):
            entry.last_run_at = start + timedelta(seconds=number / entries)
        threading.Timer(seconds, service.ask_to_stop).start()
        before = time.process_time()
        service.start()
        used = time.process_time() - before
    Redis.from_url(BROKER).flushdb()
    return {
        "entries": entries,
        "sent": len(late),
        "p50_ms": round(percentile(late, 0.5) * 1000, 2),
        "p99_ms": round(percentile(late, 0.99) * 1000, 2),
        "max_ms": round(max(late) * 1000, 2),
        "cpu_us_a_run": round(used / sum(entry.total_run_count for entry in service.scheduler.schedule.values()) * 1e6),
    }


def size(entries: int) -> dict[str, Any]:
    """Make a schedule of so many entries and tick a thousand times, with nothing sent to anybody."""

    class Silent(PersistentScheduler):
        producer = None

        def send_task(self, *args: Any, **kwargs: Any) -> None:
            pass

    app = Celery("size", broker="memory://", backend="cache+memory://", set_as_current=False)
    moment = [datetime.now(timezone.utc)]
    app.conf.beat_schedule = {
        f"entry-{number}": {
            "task": "proj.tasks.something",
            "schedule": schedule(timedelta(seconds=60 + number % 3600), nowfun=lambda: moment[0]),
            "args": (number,),
        }
        for number in range(entries)
    }
    with tempfile.TemporaryDirectory() as directory:
        before, start = memory_kib(), time.perf_counter()
        scheduler = Silent(app, schedule_filename=f"{directory}/schedule")
        scheduler.tick()
        ready = time.perf_counter() - start
        scheduler._do_sync()
        moment[0] += timedelta(hours=2)
        scheduler.tick()  # the first look at all of them
        ticks = min(1000, entries - 1)
        start = time.perf_counter()
        for _ in range(ticks):
            scheduler.tick()
        cost = (time.perf_counter() - start) / ticks
        figures = {
            "entries": entries,
            "start_s": round(ready, 2),
            "tick_us": round(cost * 1e6, 1),
            "memory_mb": round((memory_kib() - before) / 1024, 1),
            "bytes_an_entry": round((memory_kib() - before) * 1024 / entries),
            "file_mb": round(os.path.getsize(f"{directory}/schedule") / 1e6, 1),
        }
        scheduler.close()
    return figures


SOAK_APP = """
import os, time
from celery import Celery
from celery.beat import PersistentScheduler
from celery.beat.entries import missed_runs
from celery.schedules import crontab

app = Celery("soakapp", broker=os.environ["SOAK_BROKER"])
app.conf.task_ignore_result = True


@app.task
def mark(name, run, sent, missed):
    with open("marks", "a") as file:
        file.write(f"{name} {missed} {run:.3f} {sent:.4f} {time.time():.4f}\\n")


class Marking(PersistentScheduler):
    def apply_entry(self, entry, producer=None):
        following = self.schedule[entry.name]
        run, missed = following.last_run_at.timestamp(), missed_runs(entry, following)
        entry.kwargs = {"name": entry.name, "run": run, "sent": time.time(), "missed": missed}
        super().apply_entry(entry, producer=producer)


app.conf.beat_schedule = {
    **{f"s{n}": {"task": "soakapp.mark", "schedule": 1.0} for n in range(50)},
    **{f"c{n}": {"task": "soakapp.mark", "schedule": crontab()} for n in range(50)},
    **{f"i{n}": {"task": "soakapp.mark", "schedule": 7.3} for n in range(20)},
}
"""

SOAK_PERIODS = {"s": 1.0, "c": 60.0, "i": 7.3}


def soak(seconds: int) -> dict[str, Any]:
    """Let 120 entries run for so long, and count what was done too late, twice, or never.

    ``made_up_for``: runs that were later than their interval, so that the next one stands for them, as beat says.
    """
    directory = Path(tempfile.mkdtemp(prefix="soak-"))
    (directory / "soakapp.py").write_text(SOAK_APP)
    env = {**os.environ, "SOAK_BROKER": BROKER, "C_FORCE_ROOT": "1"}
    Redis.from_url(BROKER).flushdb()

    def start(*words: str) -> subprocess.Popen[bytes]:
        log = (directory / f"{words[0]}.log").open("wb")
        command = [sys.executable, "-m", "celery", "-A", "soakapp", *words, "-l", "WARNING"]
        return subprocess.Popen(command, cwd=directory, env=env, stdout=log, stderr=log)

    worker = start("worker", "-P", "solo", "--without-mingle", "--without-gossip")
    time.sleep(3)
    beat = start("beat", "-S", "soakapp:Marking")
    time.sleep(5)
    began, before = memory_kib(beat.pid), len(os.listdir(f"/proc/{beat.pid}/fd"))
    time.sleep(seconds)
    ended, after = memory_kib(beat.pid), len(os.listdir(f"/proc/{beat.pid}/fd"))
    usage = Path(f"/proc/{beat.pid}/stat").read_text().rsplit(")", 1)[1].split()
    beat.send_signal(signal.SIGTERM)
    beat.wait(30)
    time.sleep(2)
    worker.send_signal(signal.SIGTERM)
    worker.wait(30)
    figures = judged((directory / "marks").read_text().splitlines())
    ticks = os.sysconf("SC_CLK_TCK")
    return {
        "seconds": seconds,
        **figures,
        "beat_kib": [began, ended],
        "beat_descriptors": [before, after],
        "beat_cpu_percent": round((int(usage[11]) + int(usage[12])) / ticks / (seconds + 5) * 100, 1),
        "beat_log": (directory / "beat.log").read_text()[-500:],
    }


def judged(lines: list[str]) -> dict[str, Any]:
    """Return how late runs were sent and done, and how many came twice, stand for others too, or never came."""
    runs: dict[str, dict[float, int]] = {}
    sent, done = [], []
    for line in lines:
        name, missed, *times = line.split()
        run, sent_at, done_at = map(float, times)
        due = run - run % 60 if name[0] == "c" else run
        runs.setdefault(name, {})[due] = int(missed)
        sent.append(sent_at - due)
        done.append(done_at - due)
    places_taken = missing = made_up_for = 0
    for name, moments in runs.items():
        first = min(moments)
        places = {round((moment - first) / SOAK_PERIODS[name[0]]) for moment in moments}
        places_taken += len(places)
        missing += max(places) + 1 - len(places)
        made_up_for += sum(missed for moment, missed in moments.items() if moment != first)
    figures: dict[str, Any] = {
        "entries": len(runs),
        "runs": len(sent),
        "twice": len(sent) - places_taken,
        "made_up_for": made_up_for,
        "never_sent": missing - made_up_for,
    }
    for what, values in (("sent", sent), ("done", done)):
        figures[f"{what}_ms"] = {
            f"p{part:g}": round(percentile(values, part / 100) * 1000, 1) for part in (50, 99, 100)
        }
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measure", choices=("lateness", "size", "soak"))
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--entries", type=int, default=None)
    options = parser.parse_args()
    if options.measure == "lateness":
        print(json.dumps(lateness(options.seconds, options.entries or 1000)))
    elif options.measure == "soak":
        print(json.dumps(soak(options.seconds)))
    else:
        for entries in [options.entries] if options.entries else [100, 1000, 10_000, 100_000]:
            print(json.dumps(size(entries)), flush=True)
    print(json.dumps({"peak_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))


if __name__ == "__main__":
    main()

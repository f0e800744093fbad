"""Beat in trouble: killed, doubled, cut off, out of disk, with a clock that is set (F31, F32)."""

from __future__ import annotations

import base64
import itertools
import json
import mmap
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from actors import HERE, Actor
from proxy import Proxy
from scenario import Skipped, Stage, is_root, scenario, wait_until
from servers import OwnRedis

ENTRIES = {"1": 50, "5": 20}


class Beat(Actor):
    """``celery beat`` with the entries of `beatapp`."""

    def __init__(self, env: dict[str, str], directory: Path, *options: str, name: str) -> None:
        command = [sys.executable, "-m", "celery", "-A", "beatapp:app", "beat", "-l", "INFO", "-S", "beatapp:Marking"]
        super().__init__(name, [*command, *options], env, directory)

    def has_said(self, text: str) -> bool:
        return text in self.text()[self.mark :]


def start_beat(
    stage: Stage, env: dict[str, str], name: str, store: Path, entries: dict[str, int] | None = None
) -> Beat:
    env = {"FAULT_ENTRIES": json.dumps(entries or ENTRIES), **env}
    beat = Beat(env, stage.directory, "-s", str(store), name=name)
    stage.house.callback(beat.kill_group)
    return beat


class Sent(NamedTuple):
    """A message in the queue: of which entry, the time that counts as that of the run, the id."""

    entry: str
    run: float
    id: str


def runs(redis: OwnRedis) -> list[Sent]:
    """Return every message that waits in the queue."""
    found = []
    for payload in redis.client.lrange("celery", 0, -1):
        message = json.loads(payload)
        _, kwargs, _ = json.loads(base64.b64decode(message["body"]))
        found.append(Sent(kwargs["entry"], kwargs["run"], message["headers"]["id"]))
    return found


def judged(found: list[Sent], faults: list[tuple[float, float]], unconfirmed: Iterable[str] = ()) -> dict[str, Any]:
    """Return how many runs there are twice, and how many are missing outside of ``faults`` (begin, end).

    A run of which there are two messages is there twice.  One message that the broker took twice is, too, unless its
    entry is in ``unconfirmed``, which excuses one each: whose confirmation went down with the broker.
    """
    messages: dict[tuple[str, float], Counter[str]] = defaultdict(Counter)
    by_entry: dict[str, list[float]] = defaultdict(list)
    for name, run, id in found:
        messages[name, round(run, 3)][id] += 1  # an entry's runs keep their distance, so rounding tells them apart
        by_entry[name].append(run)
    twice = sum(len(ids) - 1 for ids in messages.values())
    offered_again: Counter[str] = Counter()
    for (name, _), ids in messages.items():
        offered_again[name] += ids.total() - len(ids)
    twice += (offered_again - Counter(unconfirmed)).total()
    missing, unexplained = 0, []
    for name, moments in by_entry.items():
        every = float(name.partition("s-")[0])
        ordered = sorted(moments)
        for before, after in itertools.pairwise(ordered):
            lost = round((after - before) / every) - 1
            if lost > 0:
                missing += lost
                if not any(begin < after + every and end > before for begin, end in faults):
                    unexplained.append(f"{name}: {before:.3f} to {after:.3f}")
    return {
        "runs": len(found),
        "twice": twice,
        "offered_again": offered_again.total(),
        "missing": missing,
        "unexplained": unexplained,
        "entries": len(by_entry),
    }


def check(figures: dict[str, Any], stage: Stage, entries: dict[str, int]) -> dict[str, Any]:
    assert figures["entries"] == sum(entries.values()), f"only {figures['entries']} entries ran; {stage.directory}"
    assert figures["twice"] == 0, f"{figures['twice']} runs came twice; seed {stage.seed}, {stage.directory}"
    unexplained = figures.pop("unexplained")
    assert not unexplained, f"missing without a fault: {unexplained[:5]}; seed {stage.seed}, {stage.directory}"
    return figures


def full_disk(stage: Stage) -> Path | None:
    """Return a directory on a small disk of its own; ``None`` where only the superuser may make one."""
    place = stage.directory / "disk"
    place.mkdir()
    if (
        not is_root()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", place], check=False).returncode
    ):
        return None
    stage.house.callback(subprocess.run, ["umount", "-l", str(place)], check=False)
    return place


def fill(place: Path) -> None:
    with suppress(OSError), (place / "junk").open("wb", buffering=0) as junk:
        while True:
            junk.write(b"\0" * 4096)


@scenario("F32", unprotected="unprotect.beat_record=off", tasks=200, short=0.005)
def beats_killed(stage: Stage) -> dict[str, Any]:
    """Beats on one schedule file, killed while and after they send, on a full disk: no run twice, none lost but then."""
    redis = stage.redis(durable=True)
    disk = full_disk(stage)
    store = (disk or stage.directory) / "schedule"
    faults, kills = [], stage.times(200, 1 if stage.unprotected else 2)
    beats = [start_doomed(stage, redis, store, 0)]
    wait_until(lambda: beats[0].has_said("Sending due task"), 30, "the first run")
    if disk:
        fill(disk)
    for number in range(1, kills + 1):
        beats.append(start_doomed(stage, redis, store, number, number < kills))  # it stands by
        died = await_end(beats[-2])
        await_sending(beats[-1])
        faults.append((died - 0.5, time.time() + 0.5))
    unconfirmed = [] if stage.unprotected else [broker_is_away(stage, redis, beats[-1], faults)]
    beats[-1].signal(signal.SIGTERM)
    assert beats[-1].wait(20) == 0
    figures = check(judged(runs(redis), faults, unconfirmed), stage, ENTRIES)
    assert "Traceback" not in beats[-1].text(), f"a traceback in {beats[-1].log}"
    return {"kills": kills, "disk_full": disk is not None, **figures}


def start_doomed(stage: Stage, redis: OwnRedis, store: Path, number: int, is_doomed: bool = True) -> Beat:
    """Start a beat that dies between record and message, or between message and anything that comes after."""
    place = ("beat.before_send", "beat.after_send")[number % 2]
    trap = f"{place}=kill,skip={stage.dice.randrange(120, 250)}" if is_doomed else ""
    return start_beat(stage, stage.env(redis.url, failpoints=trap), f"b{number}", store)


def await_end(beat: Beat) -> float:
    """Return when a doomed beat has ended, to a few milliseconds."""
    wait_until(lambda: not beat.is_running(), 60, f"the end of {beat.name}")
    return max(beat.log.stat().st_mtime, 0)


def await_sending(beat: Beat) -> None:
    wait_until(lambda: beat.has_said("Sending due task"), 60, f"{beat.name} to send")


def broker_is_away(stage: Stage, redis: OwnRedis, beat: Beat, faults: list[tuple[float, float]]) -> str:
    """Stop the broker for a while; return the entry that beat was sending then.

    Redis looks at its signals after it has read commands and before it writes the answers.  So when it stops beneath
    a beat that sends without a pause, the last message is often stored and never confirmed, and comes again.
    """
    began, since = time.time(), len(beat.text())
    redis.signal(signal.SIGTERM)
    assert redis.process is not None
    redis.process.wait()
    wait_until(lambda: beat.has_said("Trying again in"), 30, "beat to miss its broker")
    time.sleep(stage.times(600, 1))
    redis.start()
    before = len(runs(redis))
    wait_until(lambda: len(runs(redis)) > before + 100, 60, "beat to go on")
    faults.append((began - 1, time.time()))
    return re.findall(r"Couldn't apply scheduled task (\S+): ", beat.text()[since:])[0]


CUTS = """
import os, sys
from datetime import datetime, timedelta, timezone
import random
from celery.beat import PersistentScheduler
from beatapp import app

class Silent(PersistentScheduler):
    producer = None
    def setup_schedule(self):
        self.sent = 0
        super().setup_schedule()
    def apply_entry(self, entry, producer=None):
        self.sent += 1

path, times, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
app.conf.beat_schedule = {name: {**entry, "schedule": 3600.0} for name, entry in app.conf.beat_schedule.items()}
first = Silent(app, schedule_filename=path)
first.close()
whole = open(path, "rb").read()
dice, twice = random.Random(seed), 0
lengths = range(len(whole)) if times >= len(whole) else dice.sample(range(len(whole)), times)
slots = [512 + i for i, b in enumerate(whole[512:]) if b == 10][:-1]
for length in lengths:
    data = bytearray(whole[:length])
    if length % 2:  # not cut, but one digit of a slot is another
        data = bytearray(whole)
        data[dice.choice(slots) + 1 + dice.randrange(5, 9)] -= 1
    if bytes(data) == whole:
        continue
    for name in os.listdir(os.path.dirname(path)):
        os.unlink(os.path.join(os.path.dirname(path), name))
    with open(path, "wb") as file:
        file.write(data)
    scheduler = Silent(app, schedule_filename=path)
    while scheduler.tick() == 0:
        pass
    scheduler.close()
    twice += scheduler.sent
print(len(lengths), twice)
"""


@scenario("F32-damage", unprotected="unprotect.beat_checks=off", tasks=10_000, short=0.006)
def files_damaged(stage: Stage) -> dict[str, Any]:
    """A schedule file cut at any length, or with a digit changed: beat starts, and nothing that was sent is sent again."""
    home = stage.directory / "home"
    home.mkdir()
    env = stage.env("memory://")
    script = [sys.executable, "-c", CUTS, str(home / "schedule"), str(stage.count), str(stage.seed)]
    done = subprocess.run(script, env=env, cwd=HERE, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    files, twice = map(int, done.stdout.split()[-2:])
    assert twice == 0, f"{twice} runs came twice; seed {stage.seed}"
    return {"files": files, "twice": twice}


@scenario("F32-lease", unprotected="unprotect.beat_claim=off", tasks=40, short=0.05)
def beats_cut_off(stage: Stage) -> dict[str, Any]:
    """Two beats with a lease: one is cut off, hangs before it sends, is stopped, is killed; the other sends, nothing twice."""
    broker, book = stage.redis(), stage.redis()
    lease, entries = 2.0, {"3": 60}
    ways = {name: Proxy(book.port) for name in ("one", "two")}
    for way in ways.values():
        stage.house.callback(way.close)

    def env(name: str, failpoints: str = "") -> dict[str, str]:
        url = f"redis://127.0.0.1:{ways[name].port}"
        return stage.env(broker.url, failpoints=failpoints, beat_leader_lease=lease, beat_leader_url=url)

    beats: dict[str, Beat] = {}

    def start(name: str, failpoints: str = "") -> None:
        beats[name] = start_beat(stage, env(name, failpoints), f"{name}-{len(faults)}", stage.directory / name, entries)
        wait_until(lambda: beats[name].has_said("beat: Starting"), 30, f"{name} to start")

    faults: list[tuple[float, float]] = []
    took: list[float] = []

    def over(began: float, follower: Beat, since: int) -> None:
        """Wait until the follower leads, and sends."""
        wait_until(lambda: "Leading now" in follower.text()[since:], 30, f"{follower.name} to take over")
        took.append(time.time() - began)
        wait_until(lambda: "Sending due task" in follower.text()[since:], 30, f"{follower.name} to send")
        faults.append((began - 1.5, time.time() + 0.5))

    start("one", "beat.before_claim=sleep:3.5,skip=150,count=1")  # hangs when both are up
    start("two")
    wait_until(lambda: beats["one"].has_said("Sending due task"), 30, "the first run")
    over(time.time(), beats["two"], 0)
    took.clear()  # when it began to hang nobody knows
    wait_until(lambda: beats["one"].has_said("Another beat leads by now"), 30, "the first to go on")
    for number in range(0 if stage.unprotected else stage.times(40, 2)):
        wait_until(lambda: leading(beats["one"]) != leading(beats["two"]), 30, "one of the two to lead")
        leader, follower = ("one", "two") if leading(beats["one"]) else ("two", "one")
        since, began = len(beats[follower].text()), time.time()
        fault = ("cut", "stop", "kill")[number % 3]
        if fault == "cut":
            ways[leader].set(stage.dice.choice(["stall", "reset"]))
        else:
            beats[leader].signal(signal.SIGSTOP if fault == "stop" else signal.SIGKILL)
        over(began, beats[follower], since)
        if fault == "cut":
            ways[leader].pass_new()
        elif fault == "stop":
            beats[leader].signal(signal.SIGCONT)
        else:
            beats[leader].kill_group()
            start(leader)
    for beat in beats.values():
        beat.signal(signal.SIGTERM)
        beat.wait(20)
    figures = check(judged(runs(broker), faults), stage, entries)
    return {"faults": len(faults), "longest_takeover_s": round(max(took, default=0), 2), "lease_s": lease, **figures}


def leading(beat: Beat) -> bool:
    """Whether this beat says that it leads, as the last thing about it."""
    text = beat.text()[beat.mark :]
    return text.rfind("Leading now") > max(text.rfind("tanding by"), text.rfind("does not answer"))


@scenario("F31", unprotected="unprotect.beat_clock=off", tasks=400, short=0.05)
def clocks_set(stage: Stage) -> dict[str, Any]:
    """Worker and beat while their clock is set to and fro: entries go on, nothing is early, nobody spins."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise Skipped("needs a C compiler")
    shim = stage.directory / "wallshift.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", shim, HERE / "wallshift.c", "-ldl"], check=True)
    shift = stage.directory / "shift"
    shift.write_bytes(bytes(8))
    redis = stage.redis()
    moved = {"LD_PRELOAD": str(shim), "WALLSHIFT": str(shift), "FAULT_ENTRIES": '{"1": 20}'}
    worker = stage.worker({**stage.env(redis.url), **moved})
    beat_env = {**stage.env(f"{redis.url}/1"), **moved}
    beat = start_beat(stage, beat_env, "beat", stage.directory / "schedule")
    wait_until(lambda: beat.has_said("Sending due task"), 30, "the first run")
    delay, began = 6, time.monotonic()
    publisher = stage.publish({**stage.env(redis.url), "FAULT_COUNTDOWN": f"{delay},{delay}"}, "effect", stage.count)
    assert publisher.wait(60) == 0
    used = cpu_seconds(beat.pid) + cpu_seconds(worker.pid)
    quiet, patience = [], 5 if stage.unprotected else 30
    with shift.open("r+b") as file, mmap.mmap(file.fileno(), 8) as page:
        for hours in (1, -2, 24, 0) * stage.times(20, 1):
            page[:] = struct.pack("q", int(hours * 3600 * 1e9))
            since = len(sends(beat))
            moment = time.monotonic()
            wait_until(lambda since=since: len(sends(beat)) >= since + 25, patience, f"beat to go on at {hours:+} h")
            quiet.append(time.monotonic() - moment)
    elapsed = time.monotonic() - began
    stage.wait_done(30)
    figures = stage.check(extra=0)
    counts = Counter(sends(beat))
    most = max(counts.values())
    assert most <= elapsed + delay + 30, f"{most} runs of an entry of one second in {elapsed:.0f} s: {counts}"
    busy = (cpu_seconds(beat.pid) + cpu_seconds(worker.pid) - used) / elapsed
    assert busy < 1.0, f"beat and worker used {busy:.0%} of a core"
    soonest = min(run.start for found in stage.oracle.executions().values() for run in found) / 1e9 - began
    assert soonest >= delay, f"a task with a countdown of {delay} s ran after {soonest:.2f} s"
    return {"shifts": len(quiet), "longest_round_s": round(max(quiet), 2), "cpu": round(busy, 2), **figures}


def sends(beat: Beat) -> list[str]:
    return [line.split("due task ")[1].split()[0] for line in beat.text().splitlines() if "Sending due task" in line]


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

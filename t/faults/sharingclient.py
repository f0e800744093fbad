"""Use one app from many sides at once; prints one JSON object: ``sharingclient.py VERB COUNT``.

``FAULT_GREEN`` set: with gevent's threads.
"""

import os

if os.environ.get("FAULT_GREEN"):
    from gevent import monkey

    monkey.patch_all()

import json
import random
import signal
import sys
import threading

from canvastasks import member
from faultapp import app

from celery.result import ResultSet

THREADS = 64


class Interrupted(BaseException):
    pass


def threads(count):
    """Publish and get from 64 threads, and from a process forked in their midst; returns how many got another's."""
    assert member.delay("first").get(timeout=30) == "first"
    wrong = []
    failed = []

    def work(number, rounds):
        try:
            for turn in range(rounds):
                mine = f"{os.getpid()}-{number}-{turn}"
                result = member.delay(mine)
                got = result.get(timeout=60), result.state, app.AsyncResult(result.id).get(timeout=60)
                if got != (mine, "SUCCESS", mine):
                    wrong.append((mine, got))
        except BaseException as error:
            failed.append(repr(error))

    workers = [threading.Thread(target=work, args=(number, count // THREADS)) for number in range(THREADS)]
    for each in workers:
        each.start()
    statuses = [] if os.environ.get("FAULT_GREEN") else [fork_and(work) for _ in range(3)]
    for each in workers:
        each.join()
    return {"wrong": wrong[:3], "failed": failed[:3], "children": [os.waitpid(pid, 0)[1] for pid in statuses]}


def fork_and(work):
    """Have a forked child publish and get, over connections that were its parent's; returns its id."""
    pid = os.fork()
    if pid:
        return pid
    before = sys.stderr
    try:
        work("child", 5)
        result = [member.delay(number) for number in range(20)]
        os._exit(0 if [each.get(timeout=60) for each in result] == list(range(20)) else 1)
    except BaseException as error:
        print(repr(error), file=before, flush=True)
        os._exit(2)


def interrupted(count):
    """Read records while a signal's handler raises at any moment; each that is read must be the one asked for."""
    results = {member.delay(number): number for number in range(20)}
    for result, number in results.items():
        assert result.get(timeout=30) == number
    wrong, interruptions, dice = [], 0, random.Random(7)

    def interrupt(signum, frame):
        raise Interrupted

    signal.signal(signal.SIGALRM, interrupt)
    for result, number in [dice.choice(list(results.items())) for _ in range(count)]:
        try:
            if dice.random() < 0.5:  # the others meet what an interrupted one left behind
                signal.setitimer(signal.ITIMER_REAL, dice.uniform(0.001, 0.025))
            try:
                meta = app.backend.get_task_meta(result.id, cache=False)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except Interrupted:
            interruptions += 1
            continue
        if (meta.get("task_id"), meta["result"]) != (result.id, number):
            wrong.append((result.id, meta.get("task_id")))
    return {"wrong": wrong[:3], "interruptions": interruptions}


def many(count):
    """Send tasks whose results nobody reads, and get others, again and again; returns what grew after the beginning."""
    began = None
    for turn in range(0, count, 100):
        for number in range(100):
            member.delay(number)
        assert ResultSet([member.delay(number) for number in range(100)]).get(timeout=60) == list(range(100))
        assert member.delay(turn).get(timeout=60) == turn
        if turn >= min(2000, count // 2) and began is None:
            began = turn, used()
    ended = used()
    return {
        "gets": count - began[0],
        "kB": ended[0] - began[1][0],
        "descriptors": ended[1] - began[1][1],
    }


def used():
    with open("/proc/self/status") as status:
        resident = next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))
    return resident, len(os.listdir("/proc/self/fd"))


VERBS = {"threads": threads, "interrupted": interrupted, "many": many}

if __name__ == "__main__":
    print(json.dumps(VERBS[sys.argv[1]](int(sys.argv[2]))), flush=True)

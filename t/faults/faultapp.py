"""The app of the fault scenarios: tasks whose every execution leaves a line behind.

``FAULT_DIR`` holds the oracle's files, ``FAULT_BROKER`` and ``FAULT_BACKEND`` the URLs, ``FAULT_CONF`` settings as JSON.
Runs under the peer's release, too, so it uses nothing but the common API.
"""

import ctypes
import json
import os
import signal
import threading
import time

from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded

DIRECTORY = os.environ.get("FAULT_DIR", "/tmp")
app = Celery("faultapp", broker=os.environ.get("FAULT_BROKER"), backend=os.environ.get("FAULT_BACKEND") or None)
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=not os.environ.get("FAULT_BACKEND"),
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
)
app.conf.update(json.loads(os.environ.get("FAULT_CONF", "{}")))
if app.conf.security_key:
    app.setup_security()

_effects: dict = {}


def record(*words):
    """Append one line to the effects with one write, so that concurrent processes never mix theirs."""
    pid = os.getpid()
    if pid not in _effects:
        _effects.clear()
        _effects[pid] = os.open(os.path.join(DIRECTORY, "effects"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(_effects[pid], (" ".join(map(str, words)) + "\n").encode())


@app.task(bind=True)
def effect(self, seconds=0.001):
    """Take ``seconds``, and leave a line: id, pid, start and end in ns of the monotonic clock, attempt."""
    start = time.monotonic_ns()
    record("begin", self.request.id, os.getpid(), start)
    if seconds:
        time.sleep(seconds)
    record("end", self.request.id, os.getpid(), start, time.monotonic_ns(), self.request.retries)


@app.task(bind=True)
def waits(self, most):
    """Run until the file ``go on`` is there, ``most`` seconds at most."""
    start = time.monotonic_ns()
    record("begin", self.request.id, os.getpid(), start)
    while time.monotonic_ns() - start < most * 1e9 and not os.path.exists(os.path.join(DIRECTORY, "go on")):
        time.sleep(0.02)
    record("end", self.request.id, os.getpid(), start, time.monotonic_ns(), self.request.retries)


@app.task(bind=True)
def fails(self, size):
    """Raise an exception with ``size`` bytes of text."""
    start = time.monotonic_ns()
    record("end", self.request.id, os.getpid(), start, time.monotonic_ns(), self.request.retries)
    raise ValueError("x" * int(size))


@app.task(bind=True)
def retries(self, seconds=0.0):
    """Be tried three times."""
    start = time.monotonic_ns()
    if self.request.retries < 2:
        raise self.retry(countdown=0)
    record("end", self.request.id, os.getpid(), start, time.monotonic_ns(), self.request.retries)


@app.task
def ping():
    return "pong"


@app.task(bind=True)
def poison(self, signum=int(signal.SIGKILL)):
    """Kill the process that runs it."""
    record("begin", self.request.id, os.getpid(), time.monotonic_ns())
    os.kill(os.getpid(), int(signum))
    time.sleep(10)


@app.task(bind=True)
def poison_group(self):
    """Kill the whole worker, once its parent has had the time to note that this began."""
    record("begin", self.request.id, os.getpid(), time.monotonic_ns())
    time.sleep(0.1)
    os.killpg(os.getpgid(0), signal.SIGKILL)


@app.task(bind=True)
def poison_worker(self):
    """Kill the worker's main process at once, before anybody can note that this began."""
    record("begin", self.request.id, os.getpid(), time.monotonic_ns())
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(10)


@app.task(bind=True)
def glutton(self, megabytes=1000):
    """Ask for more memory than there is."""
    record("begin", self.request.id, os.getpid(), time.monotonic_ns())
    return len(bytearray(int(megabytes)) * (1 << 20))


@app.task(bind=True)
def blob(self, payload):
    """Take a payload of any size and return its length."""
    start = time.monotonic_ns()
    record("end", self.request.id, os.getpid(), start, time.monotonic_ns(), 0)
    return len(payload)


@app.task
def inflate(size):
    """Return a text of ``size`` bytes."""
    return "x" * int(size)


# -- against time limits: each would run for SECONDS

SECONDS = float(os.environ.get("FAULT_SECONDS", 6))


class Unpicklable(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")
        self.lock = threading.Lock()


@app.task
def loops():
    """A loop in Python."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        pass


@app.task
def sleeps():
    time.sleep(SECONDS)


@app.task
def blocks():
    """A call into C that does not come back by a signal, and keeps the interpreter's lock.

    It waits for a lock that it holds itself.  To compute would last longer on one machine than on another.
    """
    libc, mutex = ctypes.PyDLL(None), ctypes.create_string_buffer(64)  # all zero: a mutex that nobody holds
    until = time.time() + SECONDS
    timespec = (ctypes.c_long * 2)(int(until), int(until % 1 * 1e9))
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_timedlock(mutex, timespec)


@app.task
def swallows():
    """Takes the exception of the soft limit for nothing."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        try:
            time.sleep(0.1)
        except SoftTimeLimitExceeded:
            pass


@app.task
def ignores_term():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    swallows()


@app.task
def raises_unpicklable():
    raise Unpicklable(1, 2)


@app.task
def exits_hard():
    os._exit(3)


@app.task
def exits():
    raise SystemExit(4)


@app.task
def leaves_thread():
    threading.Thread(target=time.sleep, args=(SECONDS,), daemon=False).start()
    return "left"


@app.task(bind=True, max_retries=1, default_retry_delay=0)
def confides(self, secret, fails=False):
    """Retry once, so that a message of ours has the arguments; then end, or fail."""
    if not self.request.retries:
        raise self.retry()
    record("end", self.request.id, os.getpid(), time.monotonic_ns(), time.monotonic_ns(), self.request.retries)
    if fails:
        raise ValueError("of no concern to anybody")
    return len(secret)

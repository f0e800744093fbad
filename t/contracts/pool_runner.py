"""A runner for pool tests: frames are commands such as ``sleep 0.2``.  Importable, so that spawned children find it."""

from __future__ import annotations

import faulthandler
import hashlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

from billiard.exceptions import SoftTimeLimitExceeded

from celery.concurrency.guard import SoftlyTerminated, user_code


def spin(seconds: str) -> None:
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        pass


def in_c(seconds: str) -> None:
    """Stay in one C call that no signal ends; calibrated to about ``seconds``."""
    began = time.monotonic()
    hashlib.pbkdf2_hmac("sha256", b"x", b"y", 50_000)
    rounds = 50_000 * float(seconds) / (time.monotonic() - began)
    hashlib.pbkdf2_hmac("sha256", b"x", b"y", int(rounds))


def nap(seconds: str) -> None:
    """Sleep in little pieces."""
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        time.sleep(0.02)


def swallow(seconds: str) -> None:
    try:
        nap(seconds)
    except SoftTimeLimitExceeded:
        nap(seconds)


def hold_on(seconds: str) -> None:
    """Wait, and let nothing end it."""
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        try:
            time.sleep(0.05)
        except BaseException:
            pass


def ignore_term(seconds: str) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(float(seconds))


def leave_thread(seconds: str) -> None:
    threading.Thread(target=time.sleep, args=(float(seconds),)).start()


def allocate(megabytes: str) -> None:
    bytearray(int(megabytes) << 20)


def note(text: str) -> None:
    """Write a line to a file, then take some milliseconds."""
    number, milliseconds, path = text.split()
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, f"{number}\n".encode())
    os.close(fd)
    if float(milliseconds):
        time.sleep(float(milliseconds) / 1000)


def fork(seconds: str) -> str:
    """Start a child of this child and end it by SIGTERM; return how it ended."""
    import multiprocessing

    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(float(seconds),))
    process.start()
    process.terminate()
    process.join()
    return str(process.exitcode)


def kill(name: str) -> None:
    faulthandler.disable()
    os.kill(os.getpid(), getattr(signal, name))


COMMANDS: dict[str, Callable[[str], object]] = {
    "plain": lambda _: "",
    "echo": lambda text: text,
    "big": lambda size: "x" * int(size),
    "pid": lambda _: str(os.getpid()),
    "sleep": lambda seconds: time.sleep(float(seconds)),
    "spin": spin,
    "nap": nap,
    "in_c": in_c,
    "swallow": swallow,
    "ignore_term": ignore_term,
    "hold_on": hold_on,
    "leave_thread": leave_thread,
    "allocate": allocate,
    "note": note,
    "fork": fork,
    "kill": kill,
    "exit": lambda code: sys.exit(int(code)),
    "_exit": lambda code: os._exit(int(code)),
    "raise": lambda _: 1 // 0,
}


class Runner:
    """Answers with what a command returns, with ``soft`` or ``softly terminated`` where it was interrupted, with the error's name otherwise."""

    def __init__(self) -> None:
        self.flushes = 0

    def run(self, frame: bytes) -> bytes:
        command, _, argument = bytes(frame).decode().partition(" ")
        if command == "flushes":
            return str(self.flushes).encode()
        try:
            with user_code:
                answer = COMMANDS[command](argument)
        except SoftlyTerminated:
            return b"softly terminated"
        except SoftTimeLimitExceeded:
            return b"soft"
        except Exception as error:
            return type(error).__name__.encode()
        return str(answer or "").encode()

    def flush(self) -> None:
        self.flushes += 1


class OutsideRunner(Runner):
    """Spends its time outside of user code: a soft limit finds nothing to interrupt."""

    def run(self, frame: bytes) -> bytes:
        spin(frame.decode())
        return b"undisturbed"


def break_setup() -> None:
    raise RuntimeError("this child cannot be set up")


def add(x: int, y: int) -> int:
    return x + y


def fail() -> None:
    raise KeyError("missing")


class OwingRunner(Runner):
    """Keeps results for a store that does not come back."""

    owes = True

"""What every scenario needs: where it registers, and how it waits, notes and looks at errors."""

from __future__ import annotations

import time
import uuid

from interopapp import NOTES

LONG = 15  # seconds after which an answer is not expected any more
ALL = {}


def scenario(function):
    """Have `actor.py` know ``function`` by its name."""
    ALL[function.__name__] = function
    return function


def fresh():
    return uuid.uuid4().hex[:12]


def wait_until(claim, seconds=LONG):
    deadline = time.monotonic() + seconds
    while not (value := claim()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s")
        time.sleep(0.01)
    return value


def notes(*words):
    """Return the rest of each note that begins with ``words``."""
    beginning = [str(word) for word in words]
    try:
        with open(NOTES) as file:
            lines = [line.split() for line in file]
    except FileNotFoundError:
        return []
    return [line[len(beginning) :] for line in lines if line[: len(beginning)] == beginning]


def release(tag):
    open(f"{NOTES}.{tag}", "w").close()


def error_of(result):
    """Return how a failure looks to who reads it: class, module, arguments, and what its traceback names."""
    try:
        value = result.get(timeout=LONG)
    except Exception as error:
        kind = type(error)
        return {
            "state": result.state,
            "class": kind.__name__,
            "module": kind.__module__,
            "bases": [base.__name__ for base in kind.__mro__ if base.__module__ in ("builtins", "interopapp")][-3:-2],
            "args": [str(one) for one in error.args],
            "traceback": result.traceback or "",
        }
    return {"state": result.state, "value": value}

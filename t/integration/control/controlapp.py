"""The app of the worker that is asked; its configuration is in the environment."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from celery import Celery
from celery.worker.control import control_command, inspect_command

app = Celery("controlled")
app.conf.update(json.loads(os.environ["CONTROL_CONF"]))


@app.task(name="add")
def add(x, y=1):
    return x + y


@app.task(name="sleeper")
def sleeper(seconds, mark=None):
    if mark:
        Path(mark).touch()
    time.sleep(seconds)


@inspect_command(args=[("factor", int)], signature="[N=1]")
def doubled(state, factor=1):
    """Twice the factor."""
    return {"doubled": 2 * factor, "node": state.hostname}


@control_command(variadic="words")
def say(state, words=()):
    """Say the words."""
    return {"ok": " ".join(words)}


@inspect_command()
def breaks(state):
    raise KeyError("broken")

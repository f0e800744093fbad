"""``celery events --dump``: a line for each event."""

from __future__ import annotations

import sys
from datetime import datetime, timezone
from typing import Any

from celery._state import app_or_default
from celery.events.capture import capture_for_ever
from celery.utils.functional import LRUCache

__all__ = ("Dumper", "evdump")

#: Task id → name and arguments, which only the first events of a task tell.
_told = LRUCache(limit=0xFFF)

_WORDS = {"worker-online": "started", "worker-offline": "shutdown", "worker-heartbeat": "heartbeat"}


def humanize_type(type: str) -> str:
    """Return an event's type in words."""
    return _WORDS.get(type.lower()) or type.lower().replace("-", " ")


class Dumper:
    """Writes events to the file ``out``."""

    def __init__(self, out: Any = sys.stdout) -> None:
        self.out = out

    def say(self, msg: str) -> None:
        """Write a line, at once: the reader may be another program."""
        try:
            print(msg, file=self.out, flush=True)
        except UnicodeEncodeError:  # what the terminal cannot show
            print(msg.encode("ascii", "backslashreplace").decode(), file=self.out, flush=True)

    def on_event(self, ev: dict[str, Any]) -> None:
        """Write one event; ``ev`` is taken apart."""
        timestamp = datetime.fromtimestamp(ev.pop("timestamp"), timezone.utc)
        type_, hostname = ev.pop("type").lower(), ev.pop("hostname")
        if type_.startswith("task-"):
            uuid = ev.pop("uuid")
            if type_ in ("task-received", "task-sent"):
                task = f"{ev.pop('name')}({uuid}) args={ev.pop('args')} kwargs={ev.pop('kwargs')}"
                _told[uuid] = task
            else:
                task = _told.get(uuid, f"({uuid})")
            self.format_task_event(hostname, timestamp, type_, task, ev)
            return
        self.say(f"{hostname} [{timestamp}] {humanize_type(type_)}: {_fields(ev)}")

    def format_task_event(self, hostname: str, timestamp: Any, type: str, task: str, event: dict[str, Any]) -> None:
        """Write one event of a task, of which ``task`` is the description."""
        self.say(f"{hostname} [{timestamp}] {humanize_type(type)}: {task} {_fields(event)}")


def _fields(event: dict[str, Any]) -> str:
    return ", ".join(f"{name}={event[name]}" for name in sorted(event))


def evdump(app: Any = None, out: Any = sys.stdout) -> None:
    """Write each event of the cluster to ``out``, until interrupted."""
    app = app_or_default(app)
    dumper = Dumper(out=out)
    dumper.say("-> evdump: starting capture...")
    capture_for_ever(app, {"*": dumper.on_event}, lambda text: dumper.say(f"-> {text}\n"))

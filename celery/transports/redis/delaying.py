"""The channel's side of delays: park what is due later at the broker, and know when to fetch it.

A message that a consumer cannot run yet goes from its lease into ``<queue>.delayed`` (hash: id → list, payload) and
``<queue>.delayed:due`` (sorted set: id → time) by ``park.lua``.  Whoever next asks for messages of that queue brings
back what is due (``reserve.lua``); an idle channel asks when the next one is.  See docs/design/delayed.md.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from time import monotonic
from typing import Any, NamedTuple

from celery.transports.message import Malformed, Message, parse
from celery.transports.redis.scripts import PARKED

__all__ = ("Delaying", "Park", "delayed_key")

#: An alarm is set for a message that is due within so many seconds; housekeeping looks again every second.
ALARM_SECONDS = 1.5
#: When another worker has parked something, or a task was revoked, ask about it after at most so many seconds.
NEWS_SECONDS = 0.3
#: A channel without room lets others have what is overdue by more than this.
OVERDUE_SECONDS = 1.0


class Park(NamedTuple):
    """One delivery to park; see ``park.lua``."""

    tag: str
    parked: str
    list: str
    due: str
    id: str
    tail: int


def delayed_key(prefix: str, queue: str) -> str:
    """Return the key of what is parked for ``queue``."""
    return f"{prefix}{queue}.delayed"


class Delaying:
    """Part of a channel."""

    def park(self: Any, message: Message, due: float, task_id: str) -> bool:
        """Give ``message`` to the broker until ``due`` (seconds since 1970 by the broker's clock); false if it cannot.

        It is out of this channel's hands then, and counts no more against the prefetch count.
        """
        tag = message.delivery_tag
        if tag[0] != "~" or not self.ack_emulation or message._state != "RECEIVED" or not self._suffix(message.queue):
            return False
        if self._release(tag) is None:
            return False
        queue = message.queue
        tail = len(f',"",{json.dumps(queue)}]'.encode())
        parked = delayed_key(self.global_keyprefix, queue)
        self.lease.parks.append(Park(tag, parked, self.key_for(queue, message._raw), f"{due:.3f}", task_id, tail))
        message._state = "REQUEUED"
        due_here = monotonic() + self.seconds_until(due)
        if queue in self._callbacks and (self.due_at is None or due_here < self.due_at):
            self.due_at = due_here
        self.engine.wake()
        return True

    def seconds_until(self: Any, timestamp: float) -> float:
        """Return how far away a time is by the broker's clock, which no jump of ours changes."""
        return timestamp - (monotonic() + self.engine.clock_offset)  # type: ignore[no-any-return]

    # -- when to ask

    def note_due(self: Any, milliseconds: int) -> None:
        """The broker says in how many milliseconds the next parked message of our queues is due; -1: there is none."""
        self.due_at = None if milliseconds < 0 else monotonic() + milliseconds / 1000
        if milliseconds >= 0:
            self.watch_due(monotonic())

    def watch_due(self: Any, now: float) -> None:
        """See to it that we ask when the next parked message is due."""
        due_at = self.due_at
        if due_at is None:
            return
        if due_at <= now:
            self.be_ready()
            if now - due_at > OVERDUE_SECONDS and not self.is_asking and self.engine.wire is not None and self.keys:
                self.ask_for(-1)
        elif due_at - now < ALARM_SECONDS and not (self._due_alarm and self._due_alarm <= due_at):
            self._due_alarm = due_at
            self.engine.alarm(due_at - now, self._on_due_alarm)

    def _on_due_alarm(self: Any) -> None:
        self._due_alarm = 0.0
        self.watch_due(monotonic())

    def ask_soon(self: Any) -> None:
        """Somebody parked or revoked something: ask about it, but not all workers at once."""
        if not self._news_alarm:
            self._news_alarm = True
            self.engine.alarm(random.random() * NEWS_SECONDS, self._on_news)

    def _on_news(self: Any) -> None:
        self._news_alarm = False
        self.be_ready()

    # -- looking

    def parked(self: Any, queues: Iterable[str], limit: int = 100, ids: Iterable[str] = ()) -> Iterator[Any]:
        """Yield ``(due, message)`` of what is parked for ``queues``: the first of each, or those with the ``ids``.

        Blocks for a round trip.
        """
        keys = [delayed_key(self.global_keyprefix, queue) for queue in queues]
        reply = self.client.eval(PARKED.text, 0, limit, len(keys), *keys, *ids) if keys else []
        for due, record in zip(reply[::2], reply[1::2], strict=True):
            payload = bytes(record).partition(b"\n")[2]
            try:
                yield float(due), Message(parse(payload))
            except Malformed:
                continue

    def parked_count(self: Any, queue: str) -> int:
        """Return how many messages are parked for ``queue``."""
        return int(self.client.hlen(f"{queue}.delayed"))

    def _delete_parked(self: Any, queue: str) -> int:
        """Delete what is parked for ``queue``; returns how many that were."""
        key = f"{queue}.delayed"
        pipe = self.client.pipeline(transaction=False)
        pipe.hlen(key)
        pipe.delete(key, f"{key}:due")
        return int(pipe.execute()[0])

"""Wait for records: subscribe, look whether they are there already, then listen."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any

from redis.exceptions import TimeoutError

from celery.backends.redis.line import Line
from celery.protocol.resp import ReplyError, error_for, pack
from celery.utils.failpoints import is_active

__all__ = ("Listener",)

#: How many channels one command names.
CHUNK_SIZE = 500

#: Up to so many keys are read by the subscriber itself.  Redis bounds what it queues for a subscriber (32 MB by
#: default) and cuts off those that lag, so larger reads go over an ordinary connection.
READ_BESIDE_MAX = 100

#: Whether a test of the tests has switched this protection off.
_STAYS_SUBSCRIBED = is_active("unprotect.unsubscribe")

_PING = pack(("PING",))


class Listener:
    """A line that is subscribed to the channels of records, which are named like their keys."""

    __slots__ = ("_asked", "_heard_at", "_may_read", "channels", "line")

    def __init__(self, line: Line, may_read: bool = True) -> None:
        self.line = line
        self.channels: set[bytes] = set()
        self._may_read = may_read and line.prefer_pushes()
        self._heard_at = monotonic()
        self._asked = False

    def watch(
        self, keys: Iterable[bytes], read: Callable[[list[bytes]], list[Any]], seconds: float | None = None
    ) -> list[tuple[bytes, Any]]:
        """Subscribe to ``keys`` and return ``(key, value)`` for those that are there already.

        ``read`` gets values over another connection.
        """
        fresh = [key for key in keys if key not in self.channels]
        if not fresh:
            return []
        self.channels.update(fresh)
        if self._may_read and len(fresh) <= READ_BESIDE_MAX:
            values = self._subscribe_and_read(fresh, seconds)
        else:
            self._subscribe(fresh, seconds)
            values = read(fresh)
        return [(key, value) for key, value in zip(fresh, values, strict=True) if value is not None]

    def _subscribe_and_read(self, keys: list[bytes], seconds: float | None) -> list[Any]:
        """One write; nothing can be published unseen between the two commands."""
        self.line.send(pack(("SUBSCRIBE", *keys)) + pack(("MGET", *keys)))
        reply = self.line.reply(seconds)
        if isinstance(reply, ReplyError):
            raise error_for(reply)
        return reply

    def _subscribe(self, keys: list[bytes], seconds: float | None) -> None:
        chunks = [keys[start : start + CHUNK_SIZE] for start in range(0, len(keys), CHUNK_SIZE)]
        self.line.send(b"".join([pack(("SUBSCRIBE", *chunk)) for chunk in chunks]))
        missing = set(keys)
        early = []
        while missing:
            heard = self.line.hear(seconds)
            if not heard:
                self.line.close()
                raise TimeoutError("Redis did not confirm a subscription in time")
            for push in heard:
                if isinstance(push, ReplyError):
                    raise error_for(push)
                if push[0] == b"subscribe":
                    missing.discard(push[1])
                else:
                    early.append(push)
        self.line.pushed.extend(early)

    def hear(self, seconds: float | None) -> list[tuple[bytes, Any]]:
        """Return ``(key, value)`` of what is published within ``seconds``, as soon as there is something."""
        heard = self.line.hear(seconds)
        if heard:
            self._heard_at = monotonic()
            self._asked = False
        return [(push[1], push[2]) for push in heard if _is_message(push)]

    def unwatch(self, keys: Iterable[bytes]) -> None:
        """Unsubscribe; what the server says to it is not waited for."""
        gone = [] if _STAYS_SUBSCRIBED else [key for key in keys if key in self.channels]
        self.channels.difference_update(gone)
        commands = [
            pack(("UNSUBSCRIBE", *gone[start : start + CHUNK_SIZE])) for start in range(0, len(gone), CHUNK_SIZE)
        ]
        if commands:
            self.line.send(b"".join(commands))
        if not self.channels:
            self.line.pushed.clear()  # confirmations, and what nobody waits for any more

    def check_health(self, interval: float) -> None:
        """Ask for a sign of life if there was none for so many seconds.

        Raises:
            TimeoutError: none came since the last time.
        """
        now = monotonic()
        if now - self._heard_at < interval:
            return
        if self._asked:
            self.line.close()
            raise TimeoutError(f"Redis gave no sign of life for {interval} seconds")
        self._asked = True
        self._heard_at = now
        self.line.send(_PING)


def _is_message(push: Any) -> bool:
    return isinstance(push, list) and len(push) == 3 and push[0] == b"message"

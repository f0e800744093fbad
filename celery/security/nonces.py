"""Which signed messages were here before: a message is taken once, unless its broker delivers it again.

A nonce is *held* from the moment a worker takes its message until that is acknowledged, and *spent* from then on.
A held one may come again where the broker says that it delivers again; a spent one may not.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from enum import Enum
from typing import Any

from kombu.exceptions import OperationalError

from celery.utils.log import get_logger

__all__ = ("MemoryNonces", "SharedNonces", "Standing")

logger = get_logger("celery.security")

#: Spent nonces that one process remembers; about 20 MB.
MOST_REMEMBERED = 100_000

KEY_PREFIX = "celeriac-nonce:"


class Standing(Enum):
    """What is known of a nonce."""

    NEW = "new"
    HELD = "held"
    SPENT = "spent"


class MemoryNonces:
    """Nonces of this process.

    When more than ``most`` are spent the oldest are forgotten, and with them what would keep their messages from being
    taken again; that is logged once.
    """

    def __init__(self, most: int = MOST_REMEMBERED, clock: Callable[[], float] = time.time) -> None:
        self._most = most
        self._clock = clock
        self._held: dict[str, float] = {}
        self._spent: dict[str, float] = {}
        self._has_told = False

    def take(self, nonce: str, forget_at: float, is_redelivered: bool = False) -> Standing:
        """Hold ``nonce`` and return what was known of it; a spent one stays spent.

        ``forget_at``, in seconds since the epoch, is when its message becomes too old.
        """
        if nonce in self._spent:
            return Standing.SPENT
        was_held = nonce in self._held
        if not was_held or is_redelivered:
            self._held[nonce] = forget_at
        return Standing.HELD if was_held else Standing.NEW

    def spend(self, nonce: str) -> None:
        """Note that the message is done with; one that is not held has been spent, or given back, already."""
        forget_at = self._held.pop(nonce, None)
        if forget_at is not None:
            self._spent[nonce] = forget_at
            if len(self._spent) > self._most:
                self._forget()

    def give_back(self, nonce: str) -> None:
        """Note that the broker has the message again."""
        self._held.pop(nonce, None)

    def _forget(self) -> None:
        now, spent = self._clock(), self._spent
        for nonce in [nonce for nonce, forget_at in spent.items() if forget_at < now]:
            del spent[nonce]
        excess = len(spent) - self._most * 9 // 10
        if excess > 0:
            self._tell()
            for nonce in sorted(spent, key=spent.__getitem__)[:excess]:
                del spent[nonce]

    def _tell(self) -> None:
        if not self._has_told:
            self._has_told = True
            logger.warning(
                "More than %d signed messages within security_replay_window: this process forgets the oldest, and "
                "would take copies of them. Let Redis remember them (security_nonce_store), or narrow the window.",
                self._most,
            )


# Holds a nonce for somebody: returns "" if it was free, else its value; ARGV: holder, milliseconds, "1" to take over.
_TAKE = """
local found = redis.call('GET', KEYS[1])
if not found or (ARGV[3] == '1' and found ~= 'spent') then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return found or ''
"""

# Gives a nonce back, if it is still ours.
_GIVE_BACK = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""


class SharedNonces(MemoryNonces):
    """Nonces that all workers share in Redis; what this process knows itself counts as well.

    ``make_client`` gives a client of redis-py that answers in bytes.  Each call of `take`, `spend` and `give_back` is
    one round trip.

    Raises:
        ConnectionError: by each of these, when Redis cannot be reached or refuses.
    """

    def __init__(
        self, make_client: Callable[[], Any], prefix: str = "", clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(clock=clock)
        self._make_client = make_client
        self._prefix = f"{prefix}{KEY_PREFIX}"
        self._holder = os.urandom(8).hex().encode()
        self._client: Any = None
        #: What could not be given back while Redis was away.
        self._owed: set[str] = set()

    def _ask(self, method: str, *args: Any, **kwargs: Any) -> Any:
        from redis.exceptions import RedisError

        try:
            if self._client is None:
                self._client = self._make_client()
            return getattr(self._client, method)(*args, **kwargs)
        except (RedisError, OperationalError, OSError) as error:
            raise ConnectionError(f"The store of nonces cannot be reached: {error}") from error

    def take(self, nonce: str, forget_at: float, is_redelivered: bool = False) -> Standing:
        known = super().take(nonce, forget_at, is_redelivered)
        if known is Standing.SPENT:
            return known
        for owed in [*self._owed]:
            self._ask("eval", _GIVE_BACK, 1, self._prefix + owed, self._holder)
            self._owed.discard(owed)
        take_over = "1" if is_redelivered else "0"
        key, milliseconds = self._prefix + nonce, self._milliseconds(forget_at)
        found = self._ask("eval", _TAKE, 1, key, self._holder, milliseconds, take_over)
        if found == b"spent":
            self._held.pop(nonce, None)
            return Standing.SPENT
        if found and found != self._holder and known is Standing.NEW:
            if not is_redelivered:  # it stays the other worker's
                del self._held[nonce]
            return Standing.HELD
        return known

    def spend(self, nonce: str) -> None:
        forget_at = self._held.get(nonce)
        super().spend(nonce)
        if forget_at is not None:
            self._ask("set", self._prefix + nonce, "spent", px=self._milliseconds(forget_at))

    def give_back(self, nonce: str) -> None:
        if nonce in self._held:
            super().give_back(nonce)
            self._owed.add(nonce)
            self._ask("eval", _GIVE_BACK, 1, self._prefix + nonce, self._holder)
            self._owed.discard(nonce)

    def _milliseconds(self, forget_at: float) -> int:
        return max(int((forget_at - self._clock()) * 1000), 1)

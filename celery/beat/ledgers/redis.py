"""The ledger in Redis: two hashes, and a script for each step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from redis.exceptions import RedisError

from celery.beat.ledgers.base import LedgerError, Lost, State
from celery.utils.failpoints import is_active

__all__ = ("RedisLedger",)

#: Whether a test of the tests has switched claims off.
_GRANTS_ALL = is_active("unprotect.beat_claim")

_IS_LEADER = """
local found = redis.call('HMGET', KEYS[1], 'holder', 'epoch', 'beats')
if found[1] ~= ARGV[1] or found[2] ~= ARGV[2] then return redis.error_reply('LOST') end
"""

_TAKE = """
local found = redis.call('HMGET', KEYS[1], 'holder', 'epoch', 'beats')
if (found[1] or '') ~= ARGV[1] or (found[2] or '') ~= ARGV[2] or (found[3] or '') ~= ARGV[3] then return 0 end
redis.call('HSET', KEYS[1], 'holder', ARGV[4], 'epoch', ARGV[5], 'beats', 0)
return 1
"""

_RENEW = _IS_LEADER + "return redis.call('HINCRBY', KEYS[1], 'beats', 1)"

_RELEASE = _IS_LEADER + "return redis.call('HSET', KEYS[1], 'holder', '')"

_WRITE = (
    _IS_LEADER
    + """
for i = 3, #ARGV, 2 do redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
return #ARGV
"""
)

_CLAIM = (
    _IS_LEADER
    + """
local known = redis.call('HGET', KEYS[2], ARGV[3])
if known and tonumber(string.match(known, '^%d+')) > tonumber(ARGV[4]) then return known end
redis.call('HSET', KEYS[2], ARGV[3], ARGV[5])
return ''
"""
)

#: Entries in one call of the script that writes.
_AT_ONCE = 1000


class RedisLedger:
    """Keys ``celeriac.beat.NAME.leader`` and ``celeriac.beat.NAME.runs``; NAME is that of the app."""

    def __init__(self, backend: Any, name: str, lease_seconds: float) -> None:
        prefix = getattr(backend, "global_keyprefix", "") or ""
        self._keys = [f"{prefix}celeriac.beat.{name}.leader", f"{prefix}celeriac.beat.{name}.runs"]
        self._backend = backend
        self._patience = max(lease_seconds / 4, 0.2)

    @cached_property
    def _client(self) -> Any:
        waits = {"socket_timeout": self._patience, "socket_connect_timeout": self._patience}
        return self._backend._create_client(**{**self._backend.connparams, **waits})

    @cached_property
    def _scripts(self) -> dict[str, Any]:
        texts = {"take": _TAKE, "renew": _RENEW, "release": _RELEASE, "write": _WRITE, "claim": _CLAIM}
        return {name: self._client.register_script(text) for name, text in texts.items()}

    def _run(self, script: str, *arguments: Any) -> Any:
        return self._told(lambda: self._scripts[script](keys=self._keys, args=arguments))

    def _told(self, exchange: Callable[[], Any]) -> Any:
        try:
            return exchange()
        except RedisError as error:
            raise Lost if "LOST" in str(error) else LedgerError(str(error)) from error

    def read(self) -> State | None:
        holder, epoch, beats = self._told(lambda: self._client.hmget(self._keys[0], "holder", "epoch", "beats"))
        return None if epoch is None else State(_text(holder), int(epoch), int(beats))

    def take(self, seen: State | None, holder: str) -> State | None:
        mine = State(holder, (seen.epoch if seen else 0) + 1, 0)
        expected = ("", "", "") if seen is None else seen
        return mine if self._run("take", *expected, mine.holder, mine.epoch) else None

    def renew(self, state: State) -> State:
        return state._replace(beats=self._run("renew", state.holder, state.epoch))

    def release(self, state: State) -> None:
        self._run("release", state.holder, state.epoch)

    def runs(self) -> dict[str, tuple[int, int]]:
        found = self._told(lambda: self._client.hgetall(self._keys[1]))
        return {_text(name): _pair(_text(value)) for name, value in found.items()}

    def write(self, state: State, runs: Mapping[str, tuple[int, int]]) -> None:
        items = list(runs.items())
        for start in range(0, len(items), _AT_ONCE):
            words = [word for name, run in items[start : start + _AT_ONCE] for word in (name, f"{run[0]} {run[1]}")]
            self._run("write", state.holder, state.epoch, *words)

    def claim(self, state: State, name: str, before: int, run: tuple[int, int]) -> tuple[int, int] | None:
        if _GRANTS_ALL:
            return None
        known = _text(self._run("claim", state.holder, state.epoch, name, before, f"{run[0]} {run[1]}"))
        return _pair(known) if known else None


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _pair(value: str) -> tuple[int, int]:
    last, count = value.split()
    return int(last), int(count)

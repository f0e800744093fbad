"""The Lua scripts, each a command of its own: one atomic step on the server."""

from __future__ import annotations

from hashlib import sha1
from pathlib import Path

from celery.transports.redis.resp import bulk

__all__ = (
    "BEGIN",
    "EXPIRED",
    "LEFT",
    "MOVE",
    "PARK",
    "PARKED",
    "RENEW",
    "RESERVE",
    "RESERVE_ONE_BY_ONE",
    "REVOKE",
    "Script",
)

_FOLDER = Path(__file__).parent / "lua"


class Script:
    """A script's text with both ways to call it, packed but for the arguments."""

    __slots__ = ("by_hash", "by_text", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.by_hash = bulk("EVALSHA") + bulk(sha1(text.encode()).hexdigest())
        self.by_text = bulk("EVAL") + bulk(text)


def _load(name: str) -> Script:
    return Script((_FOLDER / f"{name}.lua").read_text())


RESERVE = _load("reserve")
RENEW = _load("renew")
MOVE = _load("move")
EXPIRED = _load("expired")
PARK = _load("park")
PARKED = _load("parked")
REVOKE = _load("revoke")
BEGIN = _load("begin")
LEFT = _load("left")

_POP_MANY = "ask > 0 and redis.call('RPOP', KEYS[i], ask)"
_POP_EACH = """nil
            for _ = 1, ask do
                local one = redis.call('RPOP', KEYS[i])
                if not one then break end
                got = got or {}
                got[#got + 1] = one
            end"""

#: For servers before 6.2, whose RPOP takes one.
RESERVE_ONE_BY_ONE = Script(RESERVE.text.replace(_POP_MANY, _POP_EACH))

"""The Lua scripts of chords: each is one atomic step on the server."""

from __future__ import annotations

from hashlib import sha1
from pathlib import Path
from typing import Any

from redis.exceptions import NoScriptError

from celery.backends.redis.line import Line

__all__ = ("COUNT", "FINISH", "HOLD", "OPEN", "SWEEP", "Script")

_FOLDER = Path(__file__).parent / "lua"


class Script:
    """A script, called by its hash; its text is sent only to a server that does not know it."""

    __slots__ = ("digest", "text")

    def __init__(self, name: str) -> None:
        self.text = (_FOLDER / f"{name}.lua").read_text()
        self.digest = sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    def call(self, line: Line, keys: list[Any], arguments: list[Any]) -> Any:
        """Run the script and return what it returns."""
        try:
            return line.call("EVALSHA", self.digest, len(keys), *keys, *arguments)
        except NoScriptError:
            return line.call("EVAL", self.text, len(keys), *keys, *arguments)


COUNT = Script("count")
HOLD = Script("hold")
FINISH = Script("finish")
OPEN = Script("open")
SWEEP = Script("sweep")

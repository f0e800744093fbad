"""Named places in our own code where a test makes rare windows certain: kill, exit, raise or sleep.

``CELERIAC_FAILPOINTS`` is read once, at import.  Without it ``failpoint`` is a function that does nothing.
Entries are separated by ``;``, options of an entry by ``,``::

    fetch.after_lease=kill,p=0.1,seed=7;ack.before_send=sleep:0.5,count=3,skip=10

Actions: ``kill`` (SIGKILL to this process), ``killparent``, ``killchildren``, ``killgroup`` (its process group),
``exit:STATUS``, ``raise`` (:exc:`FailpointError`), ``sleep:SECONDS``, ``stop`` and ``stopchildren`` (SIGSTOP), ``off``.
Options: ``p`` probability, ``seed`` of the dice, ``count`` how often at most, ``skip`` how many to let pass first,
``delay`` seconds before it acts, ``once`` a file: it acts in one process only, the first that can make this file.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Mapping

__all__ = ("FailpointError", "activate", "failpoint", "is_active")

ENVIRONMENT_NAME = "CELERIAC_FAILPOINTS"


class FailpointError(RuntimeError):
    """Raised by the action ``raise``; nothing but a failpoint raises it."""


class _Trap:
    """One armed place."""

    __slots__ = ("act", "delay", "dice", "is_seeded", "left", "once", "probability", "skip")

    def __init__(self, act: Callable[[], None], options: Mapping[str, str]) -> None:
        self.act = act
        self.probability = float(options.get("p", "1"))
        self.left = int(options["count"]) if "count" in options else -1
        self.skip = int(options.get("skip", "0"))
        self.delay = float(options.get("delay", "0"))
        self.once = options.get("once")
        self.is_seeded = "seed" in options
        self.dice = random.Random(int(options["seed"])) if self.is_seeded else random.Random()

    def visit(self) -> None:
        if self.skip > 0:
            self.skip -= 1
            return
        if self.left == 0 or (self.probability < 1 and self.dice.random() >= self.probability):
            return
        if self.once is not None and not _make_file(self.once):
            return
        self.left -= 1
        if self.delay:
            time.sleep(self.delay)
        self.act()


def _make_file(path: str) -> bool:
    """Return whether there was no such file until now."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        return False
    return True


def _signal_children(signum: int) -> None:
    """Send a signal to all processes that this one has started (Linux)."""
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as file:
                parent = int(file.read().rpartition(")")[2].split()[1])
        except OSError:  # it has just ended
            continue
        if parent == os.getpid():
            os.kill(int(name), signum)


def _action(name: str, text: str) -> Callable[[], None]:
    """Return what ``text`` (``kill``, ``sleep:0.5``, …) asks for at the place ``name``."""
    verb, _, argument = text.partition(":")

    def raise_error() -> None:
        raise FailpointError(name)

    actions: dict[str, Callable[[], None]] = {
        "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
        "killparent": lambda: os.kill(os.getppid(), signal.SIGKILL),
        "killchildren": lambda: _signal_children(signal.SIGKILL),
        "stopchildren": lambda: _signal_children(signal.SIGSTOP),
        "killgroup": lambda: os.killpg(os.getpgid(0), signal.SIGKILL),
        "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
        "exit": lambda: os._exit(int(argument or 1)),
        "raise": raise_error,
        "sleep": lambda: time.sleep(float(argument or 1)),
        "off": lambda: None,
    }
    try:
        return actions[verb]
    except KeyError:
        raise ValueError(f"{ENVIRONMENT_NAME}: unknown action {verb!r}; known: {', '.join(actions)}") from None


def _parse(text: str) -> dict[str, _Trap]:
    traps = {}
    for entry in filter(None, (part.strip() for part in text.split(";"))):
        name, _, rest = entry.partition("=")
        action, *options = rest.split(",")
        traps[name.strip()] = _Trap(
            _action(name.strip(), action.strip()), dict(o.strip().split("=", 1) for o in options)
        )
    return traps


_traps = _parse(os.environ.get(ENVIRONMENT_NAME, ""))

if _traps:

    def failpoint(name: str) -> None:
        """Do what the environment asks for at the place ``name``."""
        trap = _traps.get(name)
        if trap is not None:
            trap.visit()

    def _throw_other_dice() -> None:
        for trap in _traps.values():
            if not trap.is_seeded:
                trap.dice.seed()

    if hasattr(os, "register_at_fork"):  # else all children of a worker would do the same at the same time
        os.register_at_fork(after_in_child=_throw_other_dice)

else:

    def failpoint(name: str) -> None:
        """Do nothing: no failpoint was set when this module was imported."""


def activate(text: str) -> None:
    """Arm the places of ``text`` in this process; works only where the environment armed any at import."""
    _traps.clear()
    _traps.update(_parse(text))


def is_active(name: str) -> bool:
    """Return whether ``name`` is armed: for switches that turn a protection off in a test build."""
    return name in _traps

"""Distributed task queue: the front door.  Names are resolved when first used."""

from __future__ import annotations

import os
import sys
from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from ._state import current_app, current_task
    from .app import bugreport, shared_task
    from .app.base import Celery
    from .app.task import Task
    from .canvas import (
        Signature,
        chain,
        chord,
        chunks,
        group,
        maybe_signature,
        signature,
        xmap,
        xstarmap,
    )
    from .canvas import signature as subtask
    from .utils import uuid

SERIES = "celeriac"

__version__ = "5.7.0+celeriac.1"
__author__ = "The Celeriac authors"
__docformat__ = "restructuredtext"

version_info_t = namedtuple("version_info_t", ("major", "minor", "micro", "releaselevel", "serial"))

VERSION = version_info = version_info_t(5, 7, 0, "", "")
VERSION_BANNER = f"{__version__} ({SERIES})"

__all__ = (
    "Celery",
    "bugreport",
    "shared_task",
    "Task",
    "current_app",
    "current_task",
    "maybe_signature",
    "chain",
    "chord",
    "chunks",
    "group",
    "signature",
    "Signature",
    "subtask",
    "xmap",
    "xstarmap",
    "uuid",
    "version_info_t",
    "version_info",
    "maybe_patch_concurrency",
    "SERIES",
    "VERSION",
    "VERSION_BANNER",
)

_HOMES = {
    "Celery": "celery.app.base",
    "bugreport": "celery.app",
    "shared_task": "celery.app",
    "Task": "celery.app.task",
    "current_app": "celery._state",
    "current_task": "celery._state",
    **dict.fromkeys(
        (
            "Signature",
            "chain",
            "chord",
            "chunks",
            "group",
            "maybe_signature",
            "signature",
            "xmap",
            "xstarmap",
        ),
        "celery.canvas",
    ),
    "subtask": "celery.canvas",
    "uuid": "celery.utils",
}

# -- modules that are no more; their names are found on the current app

_OLD_MODULES = ("execute", "log", "messaging", "registry")


class _OldModule(type(sys)):  # type: ignore[misc]  # types.ModuleType, without the import
    """Stands in ``sys.modules`` until someone asks it for a name."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system looks at us
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        from celery.local import get_compat_module

        module = get_compat_module(sys.modules["celery"], self.__name__.rpartition(".")[-1])
        globals()[self.__name__.rpartition(".")[-1]] = module
        return getattr(module, name)


for _name in _OLD_MODULES:
    sys.modules[f"celery.{_name}"] = globals()[_name] = _OldModule(f"celery.{_name}")
del _name


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(home), "signature" if name == "subtask" else name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


# -- green threads: the standard library must be patched before anything imports it


def _find_option_with_arg(
    argv: Sequence[str], short_opts: Sequence[str] | None = None, long_opts: Sequence[str] | None = None
) -> str:
    """Return the value of the first of these options in ``argv``; ``KeyError`` if there is none."""
    for index, argument in enumerate(argv):
        if argument.startswith("--"):
            name, has_value, value = argument.partition("=")
            if long_opts and name in long_opts:
                return value if has_value else argv[index + 1]
        elif argument.startswith("-") and short_opts:
            for option in short_opts:
                if argument == option:
                    return argv[index + 1]
                if argument.startswith(option):
                    return argument[len(option) :].removeprefix("=")
    raise KeyError("|".join((*(short_opts or ()), *(long_opts or ()))))


def _patch_eventlet() -> None:
    import eventlet.debug

    eventlet.monkey_patch()
    blocking_limit = float(os.environ.get("EVENTLET_NOBLOCK", 0))
    if blocking_limit:
        eventlet.debug.hub_blocking_detection(blocking_limit, blocking_limit)


def _patch_gevent() -> None:
    import gevent.monkey
    import gevent.signal

    gevent.monkey.patch_all()


def maybe_patch_concurrency(
    argv: Sequence[str] | None = None,
    short_opts: Sequence[str] | None = None,
    long_opts: Sequence[str] | None = None,
    patches: Mapping[str, Any] | None = None,
) -> None:
    """Patch the standard library if ``argv`` chooses a pool of green threads (``-P gevent``)."""
    argv = sys.argv if argv is None else argv
    patches = patches or {"eventlet": _patch_eventlet, "gevent": _patch_gevent}
    try:
        pool = _find_option_with_arg(argv, short_opts or ["-P"], long_opts or ["--pool"])
    except (KeyError, IndexError):
        return
    patch = patches.get(pool)
    if patch is not None:
        patch()

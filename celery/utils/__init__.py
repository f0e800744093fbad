"""Tools that know nothing of tasks, one theme a file; this door hands on the names that users import from here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kombu.utils.objects import cached_property
    from kombu.utils.uuid import uuid

    from .functional import chunks, memoize, noop
    from .imports import gen_task_name, import_from_cwd, instantiate
    from .imports import qualname as get_full_cls_name
    from .imports import symbol_by_name as get_cls_by_name
    from .log import LOG_LEVELS
    from .nodenames import nodename, nodesplit, worker_direct

    gen_unique_id = uuid

__all__ = (
    "worker_direct",
    "chunks",
    "noop",
    "memoize",
    "cached_property",
    "nodename",
    "nodesplit",
    "uuid",
    "gen_unique_id",
    "gen_task_name",
    "get_cls_by_name",
    "get_full_cls_name",
    "import_from_cwd",
    "instantiate",
    "LOG_LEVELS",
)

#: name here → (module, name there)
_HOMES = {
    "LOG_LEVELS": ("celery.utils.log", "LOG_LEVELS"),
    "cached_property": ("kombu.utils.objects", "cached_property"),
    "chunks": ("celery.utils.functional", "chunks"),
    "gen_task_name": ("celery.utils.imports", "gen_task_name"),
    "gen_unique_id": ("kombu.utils.uuid", "uuid"),
    "get_cls_by_name": ("kombu.utils.imports", "symbol_by_name"),
    "get_full_cls_name": ("celery.utils.imports", "qualname"),
    "import_from_cwd": ("celery.utils.imports", "import_from_cwd"),
    "instantiate": ("celery.utils.imports", "instantiate"),
    "memoize": ("kombu.utils.functional", "memoize"),
    "nodename": ("celery.utils.nodenames", "nodename"),
    "nodesplit": ("celery.utils.nodenames", "nodesplit"),
    "noop": ("celery.utils.functional", "noop"),
    "uuid": ("kombu.utils.uuid", "uuid"),
    "worker_direct": ("celery.utils.nodenames", "worker_direct"),
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(home[0]), home[1])
    return value

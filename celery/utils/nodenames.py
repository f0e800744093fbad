"""Names of workers: ``name@hostname``, and the formats that file names and such are made with."""

from __future__ import annotations

import os
import socket
from functools import lru_cache, partial
from typing import Any

from .text import simple_format

__all__ = (
    "worker_direct",
    "gethostname",
    "nodename",
    "anon_nodename",
    "nodesplit",
    "default_nodename",
    "node_format",
    "host_format",
)

WORKER_DIRECT_QUEUE_FORMAT = "{hostname}.dq2"
NODENAME_SEP = "@"
NODENAME_DEFAULT = "celery"


def __getattr__(name: str) -> Any:
    if name != "WORKER_DIRECT_EXCHANGE":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from kombu.entity import Exchange

    exchange = globals()[name] = Exchange("C.dq2")
    return exchange


@lru_cache(maxsize=1)
def gethostname() -> str:
    """Return the name of this host; asked of the system once."""
    return socket.gethostname()


def worker_direct(hostname: Any) -> Any:
    """Return the queue that only the worker ``hostname`` consumes; a queue is returned as it is."""
    from kombu.entity import Exchange, Queue

    if isinstance(hostname, Queue):
        return hostname
    exchange: Exchange = globals().get("WORKER_DIRECT_EXCHANGE") or __getattr__("WORKER_DIRECT_EXCHANGE")
    return Queue(WORKER_DIRECT_QUEUE_FORMAT.format(hostname=hostname), exchange, hostname)


def nodename(name: str, hostname: str) -> str:
    """Return ``name@hostname``."""
    return NODENAME_SEP.join((name, hostname))


def anon_nodename(hostname: str | None = None, prefix: str = "gen") -> str:
    """Return a name for a process that is no worker: ``gen<pid>@hostname``."""
    return nodename(f"{prefix}{os.getpid()}", hostname or gethostname())


def nodesplit(name: str) -> Any:
    """Return ``(name, hostname)``; the name is ``None`` where only the host is given."""
    parts = name.split(NODENAME_SEP, 1)
    return (None, parts[0]) if len(parts) == 1 else parts


def default_nodename(hostname: str | None, default_name: str = NODENAME_DEFAULT) -> str:
    """Fill in what is missing of ``name@hostname``."""
    name, host = nodesplit(hostname or "")
    return nodename(name or default_name, host or gethostname())


def node_format(s: str, name: str, **extra: Any) -> str:
    """Expand ``%h %n %d %p ...`` in ``s`` for the node ``name``."""
    short, host = nodesplit(name)
    return host_format(s, host, short or NODENAME_DEFAULT, p=name, **extra)


def _default_index() -> str:
    return "0"


def host_format(s: str, host: str | None = None, name: str | None = None, **extra: Any) -> str:
    """Expand ``%h`` host, ``%n`` name, ``%d`` domain, ``%i`` and ``%I`` index of the pool process in ``s``."""
    host = host or gethostname()
    first_label, _, domain = host.partition(".")
    keys = {"h": host, "n": name or first_label, "d": domain, "i": _default_index, "I": partial(str, ""), **extra}
    return simple_format(s, keys)

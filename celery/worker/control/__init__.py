"""Answers to remote commands, by theme.

A command is a function ``handler(state, **arguments)``; ``state`` has ``app``, ``hostname``, ``consumer`` and
``tset``.  What it returns is the reply; an exception becomes the reply ``{"error": ...}``.
"""

from __future__ import annotations

from celery.worker.control.memory import memdump, memsample, objgraph
from celery.worker.control.node import (
    clock,
    conf,
    disable_events,
    election,
    enable_events,
    heartbeat,
    hello,
    ping,
    report,
    shutdown,
    stats,
)
from celery.worker.control.panel import Panel, control_command, controller_info_t, inspect_command, nok, ok
from celery.worker.control.pool import autoscale, pool_grow, pool_restart, pool_shrink
from celery.worker.control.queues import active_queues, add_consumer, cancel_consumer
from celery.worker.control.tasks import (
    active,
    query_task,
    rate_limit,
    registered,
    reserved,
    revoke,
    revoke_by_stamped_headers,
    revoked,
    scheduled,
    terminate,
    time_limit,
)

__all__ = ("Panel",)  # Upstream: the commands are reached through it

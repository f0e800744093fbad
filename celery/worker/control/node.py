"""Commands about the worker as a whole."""

from __future__ import annotations

import json
from typing import Any

from celery.exceptions import WorkerShutdown
from celery.utils.log import get_logger
from celery.utils.saferepr import saferepr
from celery.utils.serialization import strtobool
from celery.worker import state as worker_state
from celery.worker.control.panel import control_command, inspect_command, ok

__all__ = (
    "clock",
    "conf",
    "disable_events",
    "election",
    "enable_events",
    "heartbeat",
    "hello",
    "ping",
    "report",
    "shutdown",
    "stats",
)

logger = get_logger(__name__)


@inspect_command(default_timeout=0.2)
def ping(state: Any, **kwargs: Any) -> dict[str, Any]:
    """Answer."""
    return ok("pong")


@inspect_command()
def stats(state: Any, **kwargs: Any) -> dict[str, Any]:
    """Tell counters, pool, broker and resources used."""
    statistics: dict[str, Any] = state.consumer.controller.stats()
    return statistics


@inspect_command()
def report(state: Any) -> dict[str, Any]:
    """Tell versions and settings, for bug reports."""
    return ok(state.app.bugreport())


@inspect_command(alias="dump_conf", signature="[include_defaults=False]", args=[("with_defaults", strtobool)])
def conf(state: Any, with_defaults: bool = False, **kwargs: Any) -> dict[str, Any]:
    """List the settings; secrets are masked."""
    table = state.app.conf.table(with_defaults=with_defaults, censored=True)
    return {str(key): _plain(value) for key, value in table.items()}


def _plain(value: Any) -> Any:
    """Return ``value`` as JSON can carry it, as text where it cannot."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return saferepr(value)
    return value


@inspect_command()
def clock(state: Any, **kwargs: Any) -> dict[str, Any]:
    """Tell the logical clock."""
    return {"clock": state.app.clock.value}


@inspect_command(visible=False)
def hello(state: Any, from_node: str, revoked: Any = None, **kwargs: Any) -> dict[str, Any] | None:
    """Greet a worker that starts: take its revoked ids and tell ours."""
    if from_node == state.hostname:
        return None
    logger.info("sync with %s", from_node)
    if revoked:
        worker_state.revoked.update(revoked)
    return {"revoked": list(worker_state.revoked), "clock": state.app.clock.forward()}


@control_command()
def election(state: Any, id: str, topic: str, action: Any = None, **kwargs: Any) -> None:
    """Have the workers elect one of them to do something."""
    if state.consumer.gossip:
        state.consumer.gossip.election(id, topic, action)


@control_command()
def enable_events(state: Any) -> dict[str, Any]:
    """Send task events from now on."""
    consumer = state.consumer
    groups = consumer.event_dispatcher.groups
    if not groups or "task" in groups:
        return ok("task events already enabled")
    groups.add("task")
    consumer.update_strategies()
    logger.info("Events of group {task} enabled by remote.")
    return ok("task events enabled")


@control_command()
def disable_events(state: Any) -> dict[str, Any]:
    """Send no more task events."""
    consumer = state.consumer
    groups = consumer.event_dispatcher.groups
    if "task" not in groups:
        return ok("task events already disabled")
    groups.discard("task")
    consumer.update_strategies()
    logger.info("Events of group {task} disabled by remote.")
    return ok("task events disabled")


@control_command()
def heartbeat(state: Any) -> None:
    """Send a heartbeat event now."""
    logger.debug("Heartbeat requested by remote.")
    state.consumer.event_dispatcher.send("worker-heartbeat", freq=5, **worker_state.SOFTWARE_INFO)


@control_command()
def shutdown(state: Any, msg: str = "Got shutdown from remote", **kwargs: Any) -> None:
    """Stop the worker, warm.  There is no reply."""
    logger.warning(msg)
    worker_state.should_stop = 0  # for a mailbox in a greenlet of its own
    raise WorkerShutdown(0)

"""Commands about the pool."""

from __future__ import annotations

from typing import Any

from celery.worker.control.panel import control_command, nok, ok

__all__ = ("autoscale", "pool_grow", "pool_restart", "pool_shrink")


@control_command(args=[("n", int)], signature="[N=1]")
def pool_grow(state: Any, n: int = 1, **kwargs: Any) -> dict[str, Any]:
    """Have n more processes in the pool."""
    return _resize(state, n, "grow")


@control_command(args=[("n", int)], signature="[N=1]")
def pool_shrink(state: Any, n: int = 1, **kwargs: Any) -> dict[str, Any]:
    """Have n processes less in the pool."""
    return _resize(state, n, "shrink")


def _resize(state: Any, n: int, verb: str) -> dict[str, Any]:
    consumer = state.consumer
    if consumer.controller.autoscaler:
        return nok(f"pool_{verb} is not supported with autoscale. Adjust autoscale range instead.")
    resize = getattr(consumer.pool, verb, None)
    if resize is None:
        return nok(f"The {type(consumer.pool).__module__} pool cannot {verb}.")
    resize(n)
    consumer._update_prefetch_count(n if verb == "grow" else -n)
    return ok(f"pool will {verb}")


@control_command()
def pool_restart(
    state: Any, modules: Any = None, reload: bool = False, reloader: Any = None, **kwargs: Any
) -> dict[str, Any]:
    """Restart the pool, with modules imported or reloaded before."""
    if not state.app.conf.worker_pool_restarts:
        raise ValueError("Pool restarts not enabled")
    state.consumer.controller.reload(modules, reload, reloader=reloader)
    return ok("reload started")


@control_command(args=[("max", int), ("min", int)], signature="[max [min]]")
def autoscale(state: Any, max: int | None = None, min: int | None = None) -> dict[str, Any]:
    """Change the bounds of the autoscaler."""
    autoscaler = state.consumer.controller.autoscaler
    if not autoscaler:
        raise ValueError("Autoscale not enabled")
    highest, lowest = autoscaler.update(max, min)
    return ok(f"autoscale now max={highest} min={lowest}")

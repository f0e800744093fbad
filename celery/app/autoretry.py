"""Retry by itself on certain errors: the options ``autoretry_for`` and ``retry_backoff`` of a task."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from celery.exceptions import Ignore, Retry
from celery.utils.time import get_exponential_backoff_interval

__all__ = ("add_autoretry_behaviour",)


def add_autoretry_behaviour(task: Any, **options: Any) -> None:
    """Wrap ``task.run`` so that errors of ``autoretry_for`` make it retry; ``options`` go before attributes.

    Done once: a task that is wrapped already stays as it is.
    """

    def option(name: str, default: Any) -> Any:
        return options.get(name, getattr(task, name, default))

    retried = tuple(option("autoretry_for", ()))
    if not retried or hasattr(task, "_orig_run"):
        return
    spared = tuple(option("dont_autoretry_for", ()))
    retry_kwargs = dict(option("retry_kwargs", None) or {})
    delay = _delay(option("retry_backoff", False), option("retry_backoff_max", 600), option("retry_jitter", True))
    run = task._orig_run = task.run

    @wraps(run)
    def run_or_retry(*args: Any, **kwargs: Any) -> Any:
        try:
            return run(*args, **kwargs)
        except (Ignore, Retry):
            raise
        except spared:
            raise
        except retried as error:
            again = dict(retry_kwargs)
            if delay is not None:
                again["countdown"] = delay(task.request.retries)
            if task.override_max_retries is not None:
                # User code asked for a retry with a limit of its own, and there was none left.
                again["max_retries"] = task.override_max_retries
            outcome = task.retry(exc=error, **again)
            task.override_max_retries = None
            raise outcome from error

    task.run = run_or_retry


def _delay(backoff: Any, maximum: Any, jitter: bool) -> Callable[[int], float] | None:
    """Return seconds by number of retries, or ``None`` where the task's own delay counts."""
    if not backoff:
        return None
    factor = int(max(1.0, float(backoff)))
    return lambda retries: get_exponential_backoff_interval(
        factor=factor, retries=retries, maximum=maximum, full_jitter=jitter
    )

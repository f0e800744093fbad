"""The task by which a test sees that a worker works."""

from __future__ import annotations

from typing import Any

from celery import shared_task


@shared_task(name="celery.ping")
def ping() -> Any:
    """Return ``"pong"``."""
    return "pong"

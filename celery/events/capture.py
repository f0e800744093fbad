"""Receive events for as long as the program runs, over as many connections as that takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ("capture_for_ever",)


def capture_for_ever(app: Any, handlers: dict[str, Callable[..., Any]], say: Callable[[str], Any]) -> None:
    """Hand each event to its handler until interrupted; ``say`` gets a line about each lost connection."""
    with app.connection_for_read() as connection:
        while True:

            def on_failure(exc: Exception, interval: float) -> None:
                say(
                    f"Cannot connect to {connection.as_uri()}: {str(exc).rstrip('.')}.\n"
                    f"Trying again in {interval:.0f} seconds"
                )

            try:
                connection.ensure_connection(on_failure, app.conf.broker_connection_max_retries or None)
                receiver = app.events.Receiver(connection, handlers=handlers)
                receiver.capture(limit=None, timeout=None, wakeup=True)
            except (KeyboardInterrupt, SystemExit):
                return
            except connection.connection_errors + connection.channel_errors as exc:
                say(f"Connection lost: {exc}")
                connection.collect()

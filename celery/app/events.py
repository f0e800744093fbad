"""``app.events``: the event classes, bound to the app."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery.app.binding import kept

__all__ = ("Events",)


class Events:
    """Gives events of an app: ``Receiver``, ``Dispatcher`` and ``State``."""

    receiver_cls: Any = "celery.events.receiver:EventReceiver"
    dispatcher_cls: Any = "celery.events.dispatcher:EventDispatcher"
    state_cls: Any = "celery.events.state:State"

    def __init__(self, app: Any = None) -> None:
        self.app = app

    @kept
    def Receiver(self) -> Any:
        return self.app.subclass_with_self(self.receiver_cls, reverse="events.Receiver")

    @kept
    def Dispatcher(self) -> Any:
        return self.app.subclass_with_self(self.dispatcher_cls, reverse="events.Dispatcher")

    @kept
    def State(self) -> Any:
        return self.app.subclass_with_self(self.state_cls, reverse="events.State")

    @contextmanager
    def default_dispatcher(
        self, hostname: str | None = None, enabled: bool = True, buffer_while_offline: bool = False
    ) -> Iterator[Any]:
        """Give a dispatcher on a connection of the app's pool."""
        with self.app.amqp.producer_pool.acquire(block=True) as producer:
            dispatcher = self.Dispatcher(
                producer.connection, hostname, enabled, producer.channel, buffer_while_offline=buffer_while_offline
            )
            with dispatcher:
                yield dispatcher

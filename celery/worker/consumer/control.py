"""Remote control: the mailbox in which this worker takes commands."""

from __future__ import annotations

from typing import Any

from celery import bootsteps
from celery.worker import pidbox
from celery.worker.consumer.tasks import Tasks

__all__ = ("Control",)


class Control(bootsteps.StartStopStep):
    """Opens the mailbox last, so that no command meets a worker that is half ready."""

    requires = (Tasks,)

    def __init__(self, c: Any, **kwargs: Any) -> None:
        # On the hub, commands are events like others; without it a green pool needs a greenlet for them.
        is_green = c.hub is None and c.pool is not None and c.pool.is_green
        self.box = (pidbox.gPidbox if is_green else pidbox.Pidbox)(c)
        self.start = self.box.start  # type: ignore[assignment, method-assign]  # of the instance
        self.stop = self.box.stop  # type: ignore[assignment, method-assign]
        self.shutdown = self.box.shutdown
        super().__init__(c, **kwargs)

    def include_if(self, c: Any) -> bool:
        return bool(c.app.conf.worker_enable_remote_control and c.conninfo.supports_exchange_type("fanout"))

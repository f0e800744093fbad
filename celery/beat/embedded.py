"""Beat inside of another program, a worker mostly: in a process of its own, or in a thread."""

from __future__ import annotations

import logging
import os
import signal
import threading
from typing import Any

from billiard.context import Process

from celery import platforms
from celery.beat.service import Service
from celery.platforms.signalling import set_pdeathsig
from celery.utils.log import iter_open_logger_fds

__all__ = ("EmbeddedService",)

#: Seconds for which the end of the process is awaited before it is made to end.
_PATIENCE = 10.0


class _Threaded(threading.Thread):
    """Beat in a daemon thread."""

    def __init__(self, app: Any, **kwargs: Any) -> None:
        super().__init__(name="Beat", daemon=True)
        self.app = app
        self.service = Service(app, **kwargs)

    def run(self) -> None:
        self.app.set_current()
        self.service.start()

    def stop(self) -> None:
        self.service.stop(wait=self.is_alive())


class _Process(Process):  # type: ignore[misc]  # billiard has no types
    """Beat in a process of its own."""

    def __init__(self, app: Any, **kwargs: Any) -> None:
        super().__init__()
        self.app = app
        self.service = Service(app, **kwargs)
        self.name = "Beat"

    def run(self) -> None:
        # The worker's handlers were inherited; a Ctrl+C reaches both, and the worker then says when to stop.
        platforms.signals.reset("SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
        platforms.signals.ignore("SIGINT")
        platforms.signals["SIGTERM"] = lambda *args: self.service.ask_to_stop()
        set_pdeathsig("SIGTERM")  # a worker that is killed takes its beat along
        _blank_descriptors()
        self.app.set_default()
        self.app.set_current()
        self.service.start(embedded_process=True)

    def stop(self) -> None:
        """End beat and wait for it; it finishes what it is sending."""
        if self._popen is None:
            return
        logging.getLogger("celery.beat").info("beat: Shutting down...")
        self.terminate()
        self.join(_PATIENCE)
        if self.is_alive():
            os.kill(self.pid, signal.SIGKILL)


def _blank_descriptors() -> None:
    """Point every descriptor that came from the worker to nowhere, so that its sockets end with the worker.

    They are not closed: an object that closes its descriptor later would close one of ours that has its number.
    """
    kept = {0, 1, 2, *(file.fileno() for file in iter_open_logger_fds() if hasattr(file, "fileno"))}
    nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for name in os.listdir("/dev/fd"):
        if int(name) not in kept and int(name) != nowhere:
            try:
                os.fstat(int(name))
                os.dup2(nowhere, int(name), inheritable=False)
            except OSError:  # it was that of the listing
                pass


def EmbeddedService(app: Any, max_interval: float | None = None, **kwargs: Any) -> Any:
    """Return a beat to ``start`` and ``stop`` inside of this program; with ``thread=True`` it is a thread."""
    as_thread = kwargs.pop("thread", False)
    if as_thread:
        return _Threaded(app, max_interval=1, **kwargs)  # Upstream: whatever interval was asked for
    return _Process(app, max_interval=max_interval, **kwargs)

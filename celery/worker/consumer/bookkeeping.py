"""What the worker's main process has to do with result stores: from a thread, so that a slow store holds up no loop."""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable
from typing import Any

from celery.backends.base import DisabledBackend
from celery.utils.log import get_logger

__all__ = ("Bookkeeper",)

logger = get_logger(__name__)

#: Seconds between two looks for chords whose members do not report any more;
#: ``result_backend_transport_options["chord_sweep_interval"]`` sets another.
SWEEP_SECONDS = 60.0
#: Seconds that a worker's end waits for what is still to be written.
PARTING_SECONDS = 5.0


class Bookkeeper:
    """Does what it is given, one thing after the other, and sweeps chords in between."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self._jobs: queue.Queue[tuple[Callable[..., Any], tuple[Any, ...]] | None] = queue.Queue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """Begin to sweep, if there is a store."""
        if not isinstance(self.app.backend, DisabledBackend):
            self._ensure_thread()

    def submit(self, job: Callable[..., Any], *arguments: Any) -> None:
        """Do ``job(*arguments)`` soon; an error of it is logged."""
        self._jobs.put((job, arguments))
        self._ensure_thread()

    def stop(self) -> None:
        """Do what is left, within `PARTING_SECONDS`, and end."""
        thread = self._thread
        if thread is not None:
            self._jobs.put(None)
            thread.join(PARTING_SECONDS)
            self._thread = None

    def _ensure_thread(self) -> None:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="celery-bookkeeper", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        interval = self._interval()
        sweep_at = time.monotonic() + interval * random.uniform(0.5, 1)
        while True:
            try:
                job = self._jobs.get(timeout=max(0.0, sweep_at - time.monotonic()))
            except queue.Empty:
                sweep_at = time.monotonic() + interval * random.uniform(0.8, 1.2)
                self._do(self._sweep, ())
                continue
            if job is None:
                return
            self._do(*job)

    def _interval(self) -> float:
        options = self.app.conf.result_backend_transport_options or {}
        return float(options.get("chord_sweep_interval") or SWEEP_SECONDS)

    def _sweep(self) -> None:
        self.app.backend.sweep_chords()

    def _do(self, job: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        try:
            job(*arguments)
        except Exception as error:
            logger.error("Result store: %s failed: %r", getattr(job, "__name__", job), error)
